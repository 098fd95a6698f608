<?php
// What many run today: a php-cli daemon around a Redis list. argv: port, password, list, safe|unsafe.
[, $port, $password, $list, $mode] = $argv;
ini_set('default_socket_timeout', '-1');
$redis = new Redis();
$redis->connect('127.0.0.1', (int) $port);
$redis->auth($password);
$mine = $list . ':' . getmypid();
while (true) {
    if ($mode === 'unsafe') { // a killed process loses the job it holds
        $found = $redis->brPop([$list], 5);
        $job = $found ? json_decode($found[1], true) : null;
        continue;
    }
    $text = $redis->brpoplpush($list, $mine, 5);
    if ($text) {
        $job = json_decode($text, true);
        $redis->lRem($mine, $text, 1);
    }
}
