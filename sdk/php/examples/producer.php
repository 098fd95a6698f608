<?php
require __DIR__ . '/../PepperBus.php';

$bus = new Pepperbus\Producer($argv[1] ?? '127.0.0.1:12017', 'orders', $argv[2] ?? 'secret');
echo $bus->push(array('order' => 17)), "\n";
echo implode("\n", $bus->pushMany(array('one', 'two'))), "\n";
$bus->delay(60, 'in a minute');
