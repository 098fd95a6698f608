"""The PHP SDK on the installed PHP: the consumer under a real php-fpm, the producer against a real bus."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from pepperbus.delivery import make_consumer
from pepperbus.delivery.contract import Act, Answer, Delivered, Request
from pepperbus.delivery.verdict import judge, judge_ping
from pepperbus.job import Job
from tests.fixtures.bus import Buses
from tests.fixtures.fpm import Fpm, fastcgi_config

SDK = Path(__file__).parent.parent.parent / "sdk" / "php"
PHP = shutil.which("php")
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HANDLERS = {
    "good": "echo sha1($job->content), ' ', $job->attempt;",
    "throws": "throw new RuntimeException('boom', 77);",
    "fatal": "no_such(); $x = new class implements Nope {};",
    "memory": "$x = str_repeat('x', 512 << 20);",
    "exits": "exit(0);",
    "dead": "throw new Pepperbus\\Dead('never');",
    "later": "throw new Pepperbus\\Later(90);",
    "pause": "throw new Pepperbus\\Pause('no database');",
    "traced": "echo $_SERVER['HTTP_TRACEPARENT'] ?? 'none', ' ', $job->traceparent;",
    "second": "if ($job->content === 'b') throw new Exception('b is bad');",
}


def call(
    php: Fpm, handler: str, *contents: bytes, topic: str = "orders/mail", ping: bool = False, trace: str = "1"
) -> tuple[Answer, Request]:
    text = f"""<?php require '{SDK}/PepperBus.php';
    $c = new Pepperbus\\Consumer();
    $c->on('{topic}', function (Pepperbus\\Job $job) {{ {HANDLERS[handler]} }});
    $c->run();"""
    made, config = fastcgi_config(php.address, php.script(f"sdk-{handler}.php", text), php.directory)
    jobs = tuple(Delivered(Job((1 << 63) + n, trace, content), 2) for n, content in enumerate(contents))
    request = Request("orders", "mail", "1", jobs, ping, 10.0, time.time_ns() // 1_000_000)
    return make_consumer(made, config).call(request), request


def test_every_file_is_php() -> None:
    if PHP is None:
        pytest.skip("php is not installed (apt-get install php8.2-cli)")
    for path in SDK.rglob("*.php"):
        subprocess.run([PHP, "-l", str(path)], check=True, capture_output=True)


def test_the_consumer_is_registered_by_its_ping(php: Fpm) -> None:
    assert judge_ping(*call(php, "good", ping=True)) == (True, "")
    assert judge_ping(*call(php, "good", topic="orders/other", ping=True))[0] is False


def test_binary_content_is_decoded(php: Fpm) -> None:
    content = bytes(range(256))
    answer, _ = call(php, "good", content)
    assert answer.headers["code"] == "200"
    assert answer.body.decode() == hashlib.sha1(content).hexdigest() + " 2"


def test_the_producers_trace_comes_with_the_job(php: Fpm) -> None:
    assert call(php, "traced", b"x")[0].body.decode() == "none "
    assert call(php, "traced", b"x", trace=PARENT)[0].body.decode() == f"{PARENT} {PARENT}"


@pytest.mark.parametrize(
    ("handler", "act", "word"),
    [
        ("good", Act.DONE, ""),
        ("throws", Act.RETRY, "boom"),
        ("fatal", Act.RETRY, "no_such"),
        ("memory", Act.RETRY, "memory"),
        ("exits", Act.RETRY, "exit()"),
        ("dead", Act.DEAD, "never"),
        ("later", Act.RETRY, "later"),
        ("pause", Act.BACK, "no database"),
    ],
)
def test_what_a_handler_does_is_what_becomes_of_the_job(php: Fpm, handler: str, act: Act, word: str) -> None:
    answer, request = call(php, handler, b"a")
    topic, _ = fastcgi_config(php.address, "/x.php", php.directory)
    verdict = judge(answer, request, topic)
    assert verdict.act is act, answer
    assert word in verdict.reason + answer.body.decode()
    if handler == "later":
        assert verdict.after_s == 90
    if handler == "throws":
        assert verdict.error_code == "77"


def test_an_unknown_topic_is_a_404_and_one_bad_job_of_three_fails_alone(php: Fpm) -> None:
    assert call(php, "good", b"a", topic="orders/other")[0].headers["code"] == "404"
    answer, request = call(php, "second", b"a", b"b", b"c")
    topic, _ = fastcgi_config(php.address, "/x.php", php.directory)
    assert judge(answer, request, topic).failed_ids == {(1 << 63) + 1}


def test_once_does_the_work_once(tmp_path: Path) -> None:
    if (
        PHP is None
        or "pdo_sqlite" not in subprocess.run([PHP, "-m"], capture_output=True, text=True, check=True).stdout
    ):
        pytest.skip("php with pdo_sqlite is not installed (apt-get install php8.2-cli php8.2-sqlite3)")
    text = f"""require '{SDK}/PepperBus.php';
    $db = new PDO('sqlite:{tmp_path}/done.db'); $db->exec('CREATE TABLE pepperbus_done (id VARCHAR(80) PRIMARY KEY)');
    try {{ Pepperbus\\Consumer::once($db, '1', function () {{ throw new Exception('x'); }}); }}
    catch (Exception $e) {{ echo 'failed '; }}
    foreach (array(1, 2) as $i) echo Pepperbus\\Consumer::once($db, '1', function () {{ echo 'work '; }}) ? 'yes ' : 'no ';"""
    run = subprocess.run([PHP, "-r", text], capture_output=True, text=True, check=True)
    assert run.stdout == "failed work yes no "


def test_the_producer_knows_ahead_and_unique(buses: Buses) -> None:
    if PHP is None:
        pytest.skip("php is not installed (apt-get install php8.2-cli)")
    topic = "[topics]\n[[mail]]\nrun = http\nurl = http://127.0.0.1:9/none\nconsumer = no\n"
    unique = f"open = loopback\npassword = secret\n{topic}unique = order_id\n"
    plain = f"open = loopback\npassword = secret\n{topic}"
    bus = buses.start(queues={"orders": plain, "once": unique})
    text = f"""require '{SDK}/PepperBus.php';
    $b = new Pepperbus\\Producer('127.0.0.1:{bus.port}', 'orders', 'secret');
    $b->push('second', $new); echo $new ? 'new ' : 'old '; $b->ahead('first');
    $o = new Pepperbus\\Producer('127.0.0.1:{bus.port}', 'once', 'secret');
    $id = $o->push(array('order_id' => 7), $one); $again = $o->push(array('order_id' => 7, 'more' => 1), $two);
    echo $one ? 'new ' : 'old ', $two ? 'new ' : 'old ', $id === $again ? 'same' : 'other';
    $b->trace('{PARENT}')->push('traced', $new); echo $new === null ? ' unknown' : ' known';
    $b->close(); $b->push('traced again');
    $b->trace('of a browser that lies')->push('untraced', $new); echo $new ? ' new' : ' old';"""
    run = subprocess.run([PHP, "-r", text], capture_output=True, text=True, check=False)
    assert run.stdout == "new new old same unknown new", run.stderr
    waiting = bus.client("orders/mail", "secret").lrange("orders/mail", 0, 9)
    jobs = {job["content"]: job["inTraceId"] for job in map(json.loads, waiting)}
    assert list(jobs) == ["first", "second", "traced", "traced again", "untraced"]
    assert [content for content, trace in jobs.items() if trace == PARENT] == ["traced", "traced again"]


def test_the_producer_pushes_into_a_real_bus(buses: Buses) -> None:
    if PHP is None:
        pytest.skip("php is not installed (apt-get install php8.2-cli)")
    bus = buses.start()
    text = f"""require '{SDK}/PepperBus.php';
    $b = new Pepperbus\\Producer('127.0.0.1:{bus.port}', 'orders', 'secret');
    echo strlen($b->push(array('a' => 'ü'))), ' ', count(array_unique($b->pushMany(array("x\\r\\n\\0", '', 'z')))), ' ';
    echo strlen($b->delay(60, 'd')), ' ', strlen($b->at(time() + 60, 'e')), ' ';
    foreach (array(array('{bus.port}', 'wrong'), array('1', 'secret')) as $try) {{
        try {{ (new Pepperbus\\Producer('127.0.0.1:' . $try[0], 'orders', $try[1]))->push('x'); echo 'pushed '; }}
        catch (Pepperbus\\NotStored $e) {{ echo 'refused '; }}
    }}"""
    run = subprocess.run([PHP, "-r", text], capture_output=True, text=True, check=False)
    assert run.stdout == "20 3 20 20 refused refused ", run.stderr
