<?php
// Symfony Messenger with its Redis transport. argv: push COUNT | work. Prints the seconds of a push.
require '/usr/share/php/Symfony/Component/Messenger/autoload.php';
foreach (['Bridge/Redis', 'Transport/Redis'] as $place) {
    $file = "/usr/share/php/Symfony/Component/Messenger/$place/autoload.php";
    is_file($file) && require_once $file;
}
require_once '/usr/share/php/Symfony/Component/EventDispatcher/autoload.php';

use Symfony\Component\EventDispatcher\EventDispatcher;
use Symfony\Component\Messenger\Bridge\Redis\Transport\Connection;
use Symfony\Component\Messenger\Bridge\Redis\Transport\RedisTransport;
use Symfony\Component\Messenger\Envelope;
use Symfony\Component\Messenger\Handler\HandlersLocator;
use Symfony\Component\Messenger\MessageBus;
use Symfony\Component\Messenger\Middleware\HandleMessageMiddleware;
use Symfony\Component\Messenger\Transport\Serialization\PhpSerializer;
use Symfony\Component\Messenger\Worker;

final class Work { public function __construct(public string $text) {} }

[$port, $password] = [getenv('BENCH_PORT'), getenv('BENCH_PASSWORD')];
$options = ['stream' => 'bench', 'group' => 'g', 'consumer' => 'c' . getmypid(), 'delete_after_ack' => true];
$connection = Connection::fromDsn("redis://$password@127.0.0.1:$port/bench", $options);
$transport = new RedisTransport($connection, new PhpSerializer());
if ($argv[1] === 'push') {
    $began = microtime(true);
    for ($i = 0; $i < (int) $argv[2]; $i++) {
        $transport->send(new Envelope(new Work(str_repeat('x', 100))));
    }
    printf("%.6f\n", microtime(true) - $began);
    exit;
}
$done = fopen(getenv('BENCH_DONE'), 'ab');
stream_set_write_buffer($done, 0);
$handlers = new HandlersLocator([Work::class => [fn (Work $work) => fwrite($done, '.')]]);
$bus = new MessageBus([new HandleMessageMiddleware($handlers)]);
(new Worker(['redis' => $transport], $bus, new EventDispatcher()))->run(['sleep' => 1000]);
