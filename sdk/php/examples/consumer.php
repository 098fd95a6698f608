<?php
require __DIR__ . '/../PepperBus.php';

$consumer = new Pepperbus\Consumer();
$consumer->on('orders/mail', function (Pepperbus\Job $job) {
    $order = $job->json();
    echo "mail for order {$order['order']}";    // kept with the attempt
});
$consumer->run();
