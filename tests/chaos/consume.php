<?php
// The chaos consumer, written against the wire alone: no SDK. One line to the ledger when a job begins, one when it has
// ended; O_APPEND and below the atomic size, so lines of different processes never mix. Verdict last.
function ledger(string $line): void {
    $file = fopen(getenv('CHAOS_LEDGER'), 'ab');
    fwrite($file, $line . "\n");
    fclose($file);
}

if (($_POST['type'] ?? '') === 'ping') {
    header('Consume-Topics: chaos/a,chaos/b');
    header('Code: 200');
    exit;
}
$jobs = json_decode($_POST['jobs'] ?? 'null', true);
if (!is_array($jobs)) {
    header('Code: 500');
    header('Error-Code: no jobs');
    exit;
}
foreach ($jobs as $job) {
    $content = isset($job['encoding']) ? base64_decode($job['content']) : $job['content'];
    [$n, $mode, $length, $digest, $payload] = explode('|', $content, 5) + [4 => ''];
    $whole = strlen($payload) === (int) $length && hash('sha256', $payload) === $digest;
    $topic = $_POST['topic'];
    $attempt = $job['RetryTimes'];
    ledger(sprintf('B %d %s %d %s %.6f %s', $n, $topic, $attempt, $job['id'], microtime(true), $whole ? 'whole' : 'TORN'));
    if (file_exists(getenv('CHAOS_SLOW'))) {
        usleep(50000);
    }
    if (!$whole) {
        header('Code: 500');
        header('Error-Code: torn body');
        exit;
    }
    if ($mode === 'slow') {
        usleep(200000);
    }
    if ($mode === 'never' || ($mode === 'twice' && $attempt <= 2)) {
        header('Code: 500');
        header('Error-Code: asked to fail');
        exit;
    }
    ledger(sprintf('F %d %s %d %s %.6f', $n, $topic, $attempt, $job['id'], microtime(true)));
}
header('Code: 200');
