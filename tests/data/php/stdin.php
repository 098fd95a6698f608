<?php
// Fed through standard input. What a job wants is the first word of its content; what happened stands in ledger.txt.
ini_set('memory_limit', '128M');
require $argv[1];

function note(string $text): void
{
    file_put_contents(getenv('LEDGER') ?: 'ledger.txt', getmypid() . " $text\n", FILE_APPEND | LOCK_EX);
}
$worker = new Pepperbus\Worker();
$worker->on($argv[2], function (Pepperbus\Job $job) {
    note("begin {$job->content} {$job->attempt}");
    $words = explode(' ', $job->content);
    echo "printed for {$words[0]}\n";
    switch ($words[0]) {
        case 'dead':
            throw new Pepperbus\Dead('never');
        case 'throw':
            throw new RuntimeException('no such customer', 7);
        case 'fatal':
            str_repeat('x', 1 << 40);                       // beyond memory_limit: no handler catches that
        case 'hang':
            exec('sleep 1000 >/dev/null 2>&1 & echo $!', $out);
            note("grandchild $out[0]");
            while (true) {
                sleep(1000);
            }
        case 'grow':
            $GLOBALS['kept'] = str_repeat('x', 64 << 20);
    }
    note("end {$job->content}");
});
note('start ' . getenv('APP_ENV') . ' ' . getcwd());
$worker->run();
note('leave');
