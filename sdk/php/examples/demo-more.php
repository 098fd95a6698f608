<?php
// The other consumers of scripts/demo: a quick one, a slow one, and one with a bug in it (payouts in CHF).
final class Bank
{
    public function transfer(float $amount): void
    {
        usleep(20_000);
    }
}

header('Consume-Topics: pictures/thumbnail,newsletter/send,invoices/pdf,payouts/bank');
if ($_POST['type'] === 'ping') {
    header('Code: 200');
    exit;
}
foreach (json_decode($_POST['jobs'], true) as $job) {
    $content = json_decode($job['content'], true);
    switch ($_POST['queue']) {
        case 'pictures':
            usleep(random_int(200_000, 450_000));
            break;
        case 'payouts':
            $banks = ['EUR' => new Bank(), 'CNY' => new Bank()];
            $bank = $banks[$content['currency'] ?? 'EUR'] ?? null;
            $bank->transfer($content['amount'] ?? 0);
            break;
        default:
            usleep(random_int(5_000, 30_000));
    }
}
header('Code: 200');
