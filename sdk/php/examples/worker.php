<?php
// Started and kept alive by the bus, fed through standard input:
//
//     [[mail]]
//         run = command
//         command = "php /data/app/worker.php"
//         feed = stdin
//         children = 1..8
//
// Everything before run() is done once, not once a job: connections and frameworks stay warm.

require __DIR__ . '/../PepperBus.php';

$worker = new Pepperbus\Worker();
$worker->on('orders/mail', function (Pepperbus\Job $job) {
    $order = $job->json();
    echo "mail for order {$order['order']}\n";          // kept with the attempt
});
$worker->run();
