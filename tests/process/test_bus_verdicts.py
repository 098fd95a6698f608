"""Whole bus: what an answer means for a job, for its topic and for what an operator sees."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.fixtures.bus import Bus, Buses
from tests.fixtures.fpm import Fpm
from tests.process.bus_rig import ask, begun, counts, ended, ledger, life, node, push, queue, until, until_count

WIRE = "wire.php"
QUICK = "backoff = fixed 50ms\n"
DEDICATED = "dedicated = yes"


def the_topic(bus: Bus, name: str = "orders/mail") -> dict[str, object]:
    for one in ask(bus, "status", "--seconds", "0")["queues"]:
        for topic in one["topics"]:
            if topic["name"] == name:
                return dict(topic)
    raise AssertionError(f"no {name}")


def test_retry_dead_found_and_replayed_with_a_fresh_budget(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    php = fpm()
    script = php.script(WIRE)
    bus = buses.start(node(php), {"orders": queue(script, "attempts = 3\nmax_age = 6s\n" + QUICK)})
    (job_id,) = push(bus, "fail 3")
    until_count(bus, dead=1, failed=3)
    (dead,) = ask(bus, "jobs", "orders/mail", "--state", "dead")["jobs"]
    assert (dead["id"], dead["attempts"]) == (job_id, 3)
    assert dead["reason"] == "attempt 3 of 3 failed: no such customer"
    told = life(bus, job_id, events=3)
    assert [(event["attempt"], event["code"], event["error_code"]) for event in told["events"]] == [
        (1, 500, "E7"), (2, 500, "E7"), (3, 500, "E7"),
    ]  # fmt: skip
    until(lambda: time.time() * 1000 - int(dead["accepted_ms"]), lambda age: age > 6100)  # older than max_age
    assert ask(bus, "replay", "orders/mail", "--yes")["replayed"] == 1
    until_count(bus, dead=2, failed=6, retried=4)
    assert [line.attempt for line in begun(php)] == [1, 2, 3, 1, 2, 3], "a fresh budget, max_age included"


def test_a_fatal_error_is_named_with_file_and_line(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    """Also in a pool that shows its errors to everybody, where PHP answers 200 with the error in the body."""
    php = fpm(php={"display_errors": 1})
    script = php.script(WIRE)
    for pool in (DEDICATED, "dedicated = no"):
        bus = buses.start(node(php, pool=pool), {"orders": queue(script, "attempts = 1")})
        (job_id,) = push(bus, "fatal")
        until_count(bus, dead=1)
        assert counts(bus)["done"] == 0
        (event,) = life(bus, job_id, events=1)["events"]
        assert "undefined function nothing_of_that_name()" in event["reason"]
        assert (event["php_file"] or script) == script
        assert f"{script}:" in event["reason"] or f"in {script}" in event["reason"] or event["php_line"] > 0
        bus.close()


VERDICTS = """<?php
$job = json_decode($_POST['jobs'] ?? '[]', true)[0] ?? null;
if (!$job) { header('Code: 200'); echo 'orders/mail'; exit; }
file_put_contents(__DIR__ . '/ledger.txt', $job['content'] . ' ' . $job['RetryTimes'] . ' ' . microtime(true) . "\\n",
    FILE_APPEND);
list($word, $after) = explode(' ', $job['content'] . ' ');
if ($job['RetryTimes'] == 1 && !is_file(__DIR__ . '/resumed')) {
    header("X-Pepperbus-Verdict: $word");
    if ($after) { header("Retry-After: $after"); }
} else {
    header('Code: 200');
}
echo 'said so';
"""


def test_the_verdict_header_decides_before_code(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    php = fpm()
    bus = buses.start(node(php), {"orders": queue(php.script("verdicts.php", VERDICTS), "backoff = fixed 30s")})
    push(bus, "done", "dead", "retry 1")
    until_count(bus, done=2, dead=1, retried=1)
    times = [line.split() for line in php.ledger()]
    first, second = (float(words[-1]) for words in times if words[0] == "retry")
    assert 0.95 <= second - first < 20, "Retry-After, not the topic's back-off"
    (dead,) = ask(bus, "jobs", "orders/mail", "--state", "dead")["jobs"]
    assert dead["reason"] == "said so"

    (job_id,) = push(bus, "pause")
    until(lambda: the_topic(bus)["state"], lambda state: state == "paused", bus)
    assert life(bus, job_id)["state"] == "ready"
    php.script("resumed", "yes")
    assert bus.cli("resume", "orders/mail").returncode == 0
    until_count(bus, done=3)
    assert [line.split()[-2] for line in php.ledger() if line.startswith("pause")] == ["1", "1"], "no attempt spent"


def test_a_script_that_does_not_know_the_topic_is_pinged(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    """404 under `sdk`: free once, then a ping; the ping lists the topic, so the second 404 is a failed attempt."""
    php = fpm()
    script = php.script(
        "forgetful.php",
        "<?php file_put_contents(__DIR__ . '/ledger.txt', $_POST['type'] . \"\\n\", FILE_APPEND | LOCK_EX);"
        "if ($_POST['type'] === 'ping') { header('Code: 200'); echo '<p>Notice</p>orders/mail,'; exit; }"
        "$n = count(array_keys(file(__DIR__ . '/ledger.txt'), \"data\\n\"));"
        "header('Code: ' . ($n > 2 ? 200 : 404));",
    )
    bus = buses.start(node(php), {"orders": queue(script, QUICK)})
    (job_id,) = push(bus, "x")
    until_count(bus, done=1)
    assert php.ledger() == ["ping", "data"] * 3
    events = life(bus, job_id, events=3)["events"]
    assert [(event["attempt"], event["outcome"]) for event in events] == [(1, "back"), (1, "retry"), (2, "done")]


def test_stopped_topics_say_why_and_resume_by_themselves(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    """No Code in the ping's answer, a script that is not there, a socket that may not be used: no attempt is spent."""
    php = fpm()
    mute = php.script("mute.php", "<?php echo 'hello';")
    gone = str(php.scripts / "gone.php")
    gone_bare = str(php.scripts / "gone-bare.php")
    queues = {
        "orders": queue(mute),
        "bills": queue(gone),
        "bare": queue(gone_bare, "contract = status"),
    }
    bus = buses.start(node(php), queues)
    for name in queues:
        push(bus, "x", key=f"{name}/x")
    advice = "this script does not answer Code: set contract = status"
    for name, reason in (("orders", advice), ("bills", gone), ("bare", gone_bare)):
        topic = until(lambda name=name: the_topic(bus, f"{name}/mail"), lambda t: t["state"] == "stopped", bus)
        assert reason in str(topic["why"]), topic
        assert (topic["ready"], topic["failed"], topic["dead"]) == (1, 0, 0)
    assert not php.ledger()
    good = php.script(WIRE)
    text = (php.scripts / "wire.php").read_text().replace("orders/mail,", "orders/mail,bills/mail,")
    assert good
    php.script("mute.php", text)
    php.script("gone.php", text)
    php.script("gone-bare.php", text)
    for name in queues:
        until_count(bus, f"{name}/mail", done=1)
    assert [line.attempt for line in begun(php)] == [1, 1, 1]


def test_a_form_above_post_max_size_is_dead_at_once(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    php = fpm(php={"post_max_size": "1M"})
    bus = buses.start(node(php), {"orders": queue(php.script(WIRE))})
    (job_id,) = push(bus, "x" * (2 << 20))
    until_count(bus, dead=1)
    assert "post_max_size" in life(bus, job_id)["job"]["reason"]
    assert counts(bus)["failed"] == 1


def test_a_script_that_hangs_keeps_its_place_and_is_not_overlapped(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    php = fpm()
    slow = "concurrency = 1\ntimeout = 500ms\nzombie_grace = 4s\n" + QUICK
    bus = buses.start(node(php), {"orders": queue(php.script(WIRE), slow)})
    (hanging, _) = push(bus, "sleep 1.5", "quick")
    until_count(bus, failed=1)
    until(lambda: ended(php), lambda lines: len(lines) >= 2, bus)
    runs = [(line.kind, line.length) for line in ledger(php)][:4]
    assert runs[:2] == [("B", 9), ("E", 9)], "the next job waits for the script that may still run"
    first = life(bus, hanging, events=1)["events"][0]
    assert (first["outcome"], first["code"]) == ("retry", 504)


def test_chunks_and_their_failed_jobs(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    php = fpm()
    script = php.script(
        "chunk.php",
        "<?php $jobs = json_decode($_POST['jobs'], true); $bad = [];"
        "foreach ($jobs as $job) { if ($job['content'] === 'bad' && $job['RetryTimes'] == 1) { $bad[] = $job['id']; } }"
        "file_put_contents(__DIR__ . '/ledger.txt', count($jobs) . ' ' . count($bad) . \"\\n\", FILE_APPEND | LOCK_EX);"
        "if ($bad) { header('Failed-Jobs: ' . implode(',', $bad)); }",
    )
    text = queue(script, "contract = status\nconcurrency = 1\nchunk = 8\npaused = yes\n" + QUICK)
    bus = buses.start(node(php), {"orders": text})
    push(bus, *(["good"] * 14 + ["bad"] * 2))
    bus.write_queue("orders", text.replace("paused = yes", "paused = no"))
    assert bus.ask("reload")["ok"]
    until_count(bus, done=16, failed=2, retried=2)
    sizes = [tuple(map(int, line.split())) for line in php.ledger()]
    assert sizes[:2] == [(8, 0), (8, 2)]
    assert sum(n for n, _ in sizes) == 18


@pytest.mark.parametrize("said", ["503", "429"])
def test_asked_to_wait_costs_no_attempt(buses: Buses, fpm: Callable[..., Fpm], said: str) -> None:
    php = fpm()
    script = php.script(
        "later.php",
        "<?php $job = json_decode($_POST['jobs'], true)[0]; $first = !is_file(__DIR__ . '/ledger.txt');"
        "file_put_contents(__DIR__ . '/ledger.txt', $job['RetryTimes'] . ' ' . microtime(true) . \"\\n\", FILE_APPEND);"
        f"if ($first) {{ http_response_code({said}); header('Retry-After: 1'); }}",
    )
    bus = buses.start(node(php), {"orders": queue(script, "contract = status\nattempts = 1")})
    push(bus, "x")
    until_count(bus, done=1)
    (one, at), (again, later) = (line.split() for line in php.ledger())
    assert (one, again) == ("1", "1")
    assert 0.95 <= float(later) - float(at) < 20
