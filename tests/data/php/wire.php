<?php
// A consumer written against the wire alone, without an SDK. Each job leaves a line in ledger.txt when it begins and one
// when it ends; what the job wants is in its content: `sleep 0.3`, `hold` (until there is a file `go` beside this one), `fail`, `fatal`,
// anything else is simply done.
function note($kind, $job, $content)
{
    $line = [$kind, $job['id'], $job['RetryTimes'], $_POST['queue'] . '/' . $_POST['topic'], microtime(true),
        getmypid(), strlen($content), sha1($content), $job['inTraceId'], $_POST['outTraceId']];
    file_put_contents(__DIR__ . '/ledger.txt', implode(' ', $line) . "\n", FILE_APPEND | LOCK_EX);
}
$known = __DIR__ . '/known.txt';
if ($_POST['type'] === 'ping') {
    file_put_contents(__DIR__ . '/pings.txt', "ping\n", FILE_APPEND | LOCK_EX);
    header('Code: 200');
    header('Consume-Topics: ' . (is_file($known) ? trim(file_get_contents($known)) : 'orders/mail,orders/audit,bills/mail'));
    exit;
}
header('Code: 200');
foreach (json_decode($_POST['jobs'], true) as $job) {
    $content = ($job['encoding'] ?? '') === 'base64' ? base64_decode($job['content']) : $job['content'];
    note('B', $job, $content);
    $words = explode(' ', substr($content, 0, 40));
    if ($words[0] === 'sleep') {
        usleep((int) ($words[1] * 1e6));
    } elseif ($words[0] === 'hold') {
        for ($n = 0; $n < 12000 && !is_file(__DIR__ . '/go'); $n++) {
            usleep(5000);
        }
    } elseif ($words[0] === 'fail' && $job['RetryTimes'] <= (int) ($words[1] ?? 1000)) {
        header('Code: 500');
        header('Error-Code: E7');
        echo 'no such customer';
    } elseif ($words[0] === 'fatal') {
        nothing_of_that_name();
    }
    note('E', $job, $content);
}
