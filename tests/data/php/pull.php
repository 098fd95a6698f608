<?php
// A worker of the Go system's days: it knows nothing of this bus but what its arguments say. phpredis, RPOP, max_task jobs.
$given = getopt('q:h:p:a:t:H:');
$redis = new Redis();
$redis->connect($given['h'], (int) $given['p'], 5);
$redis->auth($given['q'] . ':' . $given['a']);
list($class, $method) = explode(',', $given['H']);
for ($done = 0; $done < (int) $given['t'];) {
    $popped = $redis->rPop($given['q']);
    if (!$popped) {
        usleep(20000);
        continue;
    }
    foreach (json_decode($popped, true)['jobs'] as $job) {
        file_put_contents('pulled.txt', getmypid() . " $class->$method {$job['content']}\n", FILE_APPEND | LOCK_EX);
        $done++;
    }
}
