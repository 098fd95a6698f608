<?php
// The consumer of scripts/demo, with no SDK: it answers the ping, does the work, and says its verdict last.
if ($_POST['type'] === 'ping') {
    header('Consume-Topics: orders/mail,orders/audit');
    header('Code: 200');
    exit;
}
foreach (json_decode($_POST['jobs'], true) as $job) {
    $order = json_decode($job['content'], true)['order'] ?? 0;
    if ($order % 500 === 0 || ($order % 50 === 0 && $job['RetryTimes'] === 1)) {
        throw new RuntimeException("order $order: the mail server said no");
    }
}
header('Code: 200');
