<?php
// The usual consumer of the tests: writes one line per job into ledger.txt, answers ping and data as an SDK does.
header('X-Seen-Length: ' . strlen(file_get_contents('php://input')));
if (($_POST['type'] ?? '') === 'ping') {
    header('Code: 200');
    header('Consume-Topics: orders/mail,orders/audit');
    echo 'orders/mail,orders/audit,';
    exit;
}
foreach (json_decode($_POST['jobs'] ?? '[]', true) as $job) {
    $content = $job['content'];
    if (($job['encoding'] ?? '') === 'base64') {
        $content = base64_decode($content);
    }
    file_put_contents(__DIR__ . '/ledger.txt', $job['id'] . ' ' . $job['RetryTimes'] . ' ' . sha1($content) . "\n",
        FILE_APPEND | LOCK_EX);
}
header('Code: 200');
echo 'done';
