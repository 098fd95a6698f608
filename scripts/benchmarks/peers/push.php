<?php
// One producer that waits for each answer. argv: port, password, list, count. Prints the seconds.
[, $port, $password, $list, $count] = $argv;
$redis = new Redis();
$redis->connect('127.0.0.1', (int) $port);
$redis->auth($password);
$began = microtime(true);
for ($i = 0; $i < (int) $count; $i++) {
    $redis->lPush($list, json_encode(['id' => $i, 'content' => str_repeat('x', 100)]));
}
printf("%.6f\n", microtime(true) - $began);
