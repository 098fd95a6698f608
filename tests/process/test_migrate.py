"""docs/MIGRATE.md followed to the letter: three small set-ups move in with its own texts, only addresses and paths replaced."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import textwrap
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fixtures.bus import ROOT, Bus, Buses
from tests.fixtures.http import answering, raw_server
from tests.fixtures.ids import floor_id
from tests.fixtures.redis import Redis
from tests.process.bus_rig import until

PAGE = (ROOT / "docs" / "MIGRATE.md").read_text()
PHP = shutil.which("php")
OLD = floor_id(1_600_000_000_000)  # an id of the Go system


def block(name: str) -> str:
    """The code block under the mark of that name."""
    match = re.search(rf"<!-- test: {re.escape(name)} -->\n\s*```\w+\n(.*?)```", PAGE, re.S)
    assert match is not None, name
    return textwrap.dedent(match[1])


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@contextmanager
def daemon(script: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    assert PHP is not None
    process = subprocess.Popen([PHP, str(script)], env={**os.environ, **environment}, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait(20)


def test_1_a_brpop_daemon(buses: Buses, start_redis: Callable[..., Redis], tmp_path: Path) -> None:
    if PHP is None or b"redis" not in subprocess.run([PHP, "-m"], capture_output=True, check=False).stdout:
        pytest.skip("php with the redis extension is not installed (apt-get install php8.2-cli php-redis)")
    old, done, script = start_redis(), tmp_path / "done.txt", tmp_path / "mailer.php"
    script.write_text(block("brpop daemon"))
    old.ask("LPUSH", "orders", *[f"backlog {n}" for n in range(5)])
    bus = buses.start(queues={"orders": block("brpop queue").replace("127.0.0.1:6379", f"127.0.0.1:{old.port}")})
    until(lambda: old.ask("LLEN", "orders"), lambda n: n == 0, bus)
    old.ask("LPUSH", "orders", "still pushed there")  # an old producer
    new = {"REDIS_PORT": str(bus.port), "REDIS_AUTH": "orders/mail:secret", "DONE": str(done)}
    with daemon(script, **new):
        until(lambda: lines(done), lambda seen: len(seen) == 6, bus)
        assert lines(done) == [*(f"backlog {n}" for n in range(5)), "still pushed there"]
        assert bus.client("orders", "secret").lpush("orders", "by the new address") == 1
        until(lambda: lines(done), lambda seen: seen[-1] == "by the new address", bus)
    slow = script.read_text().replace(
        "file_put_contents(", "touch(getenv('DONE') . '.began'); sleep(60); file_put_contents("
    )
    script.write_text(slow)
    bus.client("orders", "secret").lpush("orders", "killed")
    with daemon(script, **new) as process:
        began = Path(f"{done}.began")
        until(began.exists, bool, bus)
        process.send_signal(signal.SIGKILL)
        process.wait(20)

    def held() -> list[tuple[str, int]]:
        found = []
        for state in ("delayed", "ready"):  # the first wait is half chance: it may be over before anybody looks
            page = json.loads(bus.cli("--json", "jobs", "orders/mail", "--state", state).stdout)
            found += [(job["content"], job["attempts"]) for job in page["jobs"]]
        return found

    until(held, lambda found: ("killed", 1) in found, bus)


def test_2_a_crontab_with_five_lines(buses: Buses, tmp_path: Path) -> None:
    if PHP is None:
        pytest.skip("php is not installed (apt-get install php8.2-cli)")
    app = tmp_path / "app"
    app.mkdir()
    for name, text in {
        "report.php": "<?php file_put_contents(__DIR__ . '/report', $argv[1]);",
        "clean.php": "<?php echo 'cleaned';",
        "invoice.php": "<?php file_put_contents(__DIR__ . '/invoice', stream_get_contents(STDIN));",
        "backup.sh": f"#!/bin/sh\necho $PATH > {app}/backup\n",
        "broken.sh": "#!/bin/sh\necho it is broken\nexit 3\n",
    }.items():
        (app / name).write_text(text)
        (app / name).chmod(0o755)
    given = tmp_path / "crontab.txt"
    given.write_text(block("crontab").replace("/data/app", str(app)))
    bus = buses.make(queues={})
    made = bus.cli("import", "crontab", str(given))
    assert made.returncode == 0, made.stderr
    assert [line for line in made.stdout.splitlines() if "MAILTO" in line], "nobody is mailed, and it says so"
    assert bus.cli("check").returncode == 0
    bus.start()
    listed = json.loads(bus.cli("--json", "schedule", "list").stdout)
    names = {one["name"] for one in listed}
    assert names == {"report/cron", "clean/cron", "backup/cron", "invoice/cron", "broken/cron"}
    assert bus.cli("schedule", "run", "broken/cron").returncode == 0
    for name in names - {"broken/cron"}:  # the same by the API: a command line takes a second
        url = f"http://127.0.0.1:{bus.web_port}/api/v1/schedules/{name}/run"
        headers = {"Authorization": f"Bearer {bus.token()}", "Content-Type": "application/json"}
        request = urllib.request.Request(url, b"{}", headers, method="POST")
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status == 200
    until(lambda: lines(app / "report"), lambda seen: seen == ["--to=ops"], bus)
    # Twice on a machine whose clock passes a fifth minute just now.
    until(lambda: lines(app / "clean.log"), lambda seen: seen in (["cleaned"], ["cleanedcleaned"]), bus)
    until(lambda: lines(app / "invoice"), lambda seen: seen == ["last month"], bus)
    assert (app / "invoice").stat().st_mode & 0o777 == 0o644, "as cron would have made it"
    until(lambda: lines(app / "backup"), lambda seen: seen == ["/usr/local/bin:/usr/bin:/bin"], bus)

    def dead() -> list[str]:
        page = json.loads(bus.cli("--json", "jobs", "broken/run", "--state", "dead").stdout)
        return [job["reason"] for job in page["jobs"]]

    reason = until(dead, bool, bus)[0]
    assert "3" in reason


def element(number: int, content: str, **more: object) -> str:
    fields = {"id": str(OLD + number), "inTraceId": f"t{number}", "content": content, "retrying": 0}
    fields |= {"RetryTimes": 0, "RetryTime": 0, "IsRetry": False, "BeginRetry": False, "RetryResidueTime": 0}
    return json.dumps(fields | more)


def contents(server: Redis, key: str) -> list[str]:
    return [json.loads(one)["content"] for one in server.ask("LRANGE", key, 0, -1)[::-1]]


def test_3_a_go_configuration_with_its_backlog_and_back(
    buses: Buses, start_redis: Callable[..., Redis], tmp_path: Path
) -> None:
    old = start_redis()
    old.ask("LPUSH", "orders::mail::list", *[element(n, f"mail {n}") for n in range(1, 31)])
    old.ask("LPUSH", "orders::mail::list_retry", element(40, "failed once", RetryTimes=1))
    old.ask("LPUSH", "orders::audit::list", element(50, "first"), element(51, "second"))
    done = b"HTTP/1.1 200 OK\r\nCode: 200\r\nConsume-Topics: orders/mail,orders/audit\r\nContent-Length: 0\r\n\r\n"
    with raw_server(answering(done)) as server:
        theirs = tmp_path / "go"
        theirs.mkdir()
        for name in ("queue_config", "tags_mapping", "cgi_config"):
            text = block(f"go {name}").replace("127.0.0.1:6379", f"127.0.0.1:{old.port}")
            (theirs / f"{name}.json").write_text(text.replace("http://127.0.0.1:8080/run", server.url))
        bus = buses.make(queues={})
        made = bus.cli("import", "go", str(theirs))
        assert made.returncode == 0, made.stderr
        assert "orders/audit: no tag maps it, so it is paused" in made.stdout
        assert bus.cli("check").returncode == 0
        bus.start()
        until(lambda: old.ask("LLEN", "orders::mail::list"), lambda n: n == 0, bus)
        jobs = until(lambda: [r for r in server.requests if b"type=data" in r.body], lambda seen: len(seen) == 30, bus)
        assert len(jobs) == 30
        old_id = str(OLD + 7)
        until(lambda: bus.cli("job", old_id), lambda shown: "done" in shown.stdout, bus)
        answer = bus.client("orders", "783ab0ce").execute_command("LPUSH", "orders/default", "old client")
        assert json.loads(answer)["error"] == ""
    back_again(bus, old, theirs)


def back_again(bus: Bus, old: Redis, theirs: Path) -> None:
    config = json.loads(bus.cli("export").stdout)
    before = json.loads((theirs / "queue_config.json").read_text())["orders"]["topic"]
    for name, topic in config["queue_config"]["orders"]["topic"].items():
        same = ("password", "run_type", "num_of_workers", "is_retry", "script_entry", "storage")
        assert {key: topic[key] for key in same} == {key: before[name][key] for key in same}
    file = Path(bus.config).parent / "queues.d" / "orders.conf"
    text = file.read_text()
    file.write_text(text[: text.index("[intakes]")] + text[text.index("[topics]") :])
    assert bus.cli("reload").returncode == 0
    refused = bus.cli("export", "orders/mail", "--to", old.tcp_url, "--yes")
    assert refused.returncode == 2
    assert "pepperbus pause orders/mail" in refused.stderr
    moved = bus.cli("export", "orders/audit", "--to", old.tcp_url, "--yes")
    assert "moved 3 jobs of orders/audit" in moved.stdout, moved.stderr
    assert contents(old, "orders::audit::list") == ["first", "second", "old client"]
    assert bus.cli("pause", "orders/mail").returncode == 0
    dead = bus.cli("export", "orders/mail", "--to", old.tcp_url, "--yes")
    assert dead.returncode == 0, dead.stderr
    assert "failed once" in contents(old, "orders::mail::list_retry")
