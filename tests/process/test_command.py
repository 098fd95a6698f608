"""`run = command` with real processes: php-cli scripts, shells, and what becomes of them when their worker is killed."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import urllib.request
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.fixtures.bus import NODE, ROOT, Bus, Buses, is_living
from tests.process.bus_rig import counts, push, until, until_count

PHP = ROOT / "tests/data/php"
QUEUES = {
    "orders": """\
open = loopback
password = secret
storage = local
run = command
directory = @DIR@
backoff = fixed 100ms
[topics]
    [[mail]]
        command = "php @DIR@/stdin.php @SDK@ orders/mail"
        children = 2
        max_task = 100
        attempts = 2
        [[[environment]]]
            APP_ENV = testing
""",
    "crons": """\
open = loopback
password = secret
storage = local
run = command
directory = @DIR@
backoff = fixed 100ms
[topics]
    [[line]]
        command = sh
        feed = exec
        children = 2
        attempts = 2
        zombie_grace = 30s
""",
    "hasty": """\
open = loopback
password = secret
storage = local
run = command
directory = @DIR@
backoff = fixed 100ms
[topics]
    [[line]]
        command = sh
        feed = exec
        children = 1
        attempts = 2
        timeout = 2s
        zombie_grace = 30s
""",
    "missing": """\
open = loopback
password = secret
storage = local
run = command
directory = @DIR@
[topics]
    [[mail]]
        command = "php @DIR@/missing.php @SDK@ missing/mail"
        children = 1
        attempts = 1
""",
    "grows": """\
open = loopback
password = secret
storage = local
run = command
directory = @DIR@
[topics]
    [[mail]]
        command = "php @DIR@/stdin.php @SDK@ grows/mail"
        children = 1..2
        max_memory = 60MiB
        max_task = 3
        [[[environment]]]
            LEDGER = grows.txt
""",
    "pulls": """\
password = secret
storage = local
run = command
directory = @DIR@
[topics]
    [[old]]
        command = "php @DIR@/pull.php"
        feed = pull
        children = 2
        max_task = 3
        entry = Mailer,send
    [[daemon]]
        command = "sh -c 'echo said by a daemon; exec sleep 1000'"
        feed = none
    [[broken]]
        command = "sh -c 'echo cannot find my database >&2; exit 3'"
        feed = none
""",
}


def make(buses: Buses, *queues: str) -> Bus:
    made = buses.make(NODE, {})
    for name in queues:
        made.write_queue(name, QUEUES[name].replace("@SDK@", str(ROOT / "sdk/php/PepperBus.php")))
    for script in ("stdin.php", "pull.php"):
        shutil.copy(PHP / script, made.directory)
    made.start()
    return made


@pytest.fixture(scope="module")
def module_buses() -> Iterator[Buses]:
    made = Buses()
    yield made
    for bus in made.made:
        bus.close()
        shutil.rmtree(bus.directory, ignore_errors=True)


@pytest.fixture(scope="module")
def bus(module_buses: Buses) -> Bus:
    """One bus for all that only looks at what becomes of jobs."""
    return make(module_buses, *QUEUES)


def ledger(bus: Bus, name: str = "ledger.txt") -> list[str]:
    path = bus.directory / name
    return path.read_text().splitlines() if path.exists() else []


def staff(bus: Bus, topic: str) -> dict[str, Any]:
    """What the worker says of a topic's processes."""
    name = f"worker.{topic.partition('/')[0]}.0"
    return dict(bus.tell(name, "targets")["staff"][topic])


def api(bus: Bus, path: str) -> Any:
    """The sidecar's answer; a command of the CLI would take a second each time."""
    request = urllib.request.Request(f"http://127.0.0.1:{bus.web_port}/api/v1{path}")
    request.add_header("Authorization", f"Bearer {_tokens.setdefault(bus.port, '') or _token(bus)}")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


_tokens: dict[int, str] = {}


def _token(bus: Bus) -> str:
    _tokens[bus.port] = bus.token()
    return _tokens[bus.port]


def last(bus: Bus, job: str, topic: str, attempts: int = 1) -> dict[str, Any]:
    """The youngest event of a job, once it has one for each of its attempts: a worker counts first, and writes after that."""

    def told() -> list[dict[str, Any]]:
        (one,) = api(bus, f"/jobs/{job}")["topics"]
        assert one["topic"] == topic
        return list(one["events"])

    return dict(until(told, lambda events: len(events) >= attempts, bus)[-1])


def test_lines_in_verdicts_out(bus: Bus) -> None:
    ids = push(bus, "fine", "dead", "throw", "fatal")
    until_count(bus, done=1, dead=3)
    fine, dead, threw, fatal = (last(bus, one, "orders/mail", n) for one, n in zip(ids, (1, 1, 2, 2), strict=True))
    assert (fine["outcome"], fine["stderr"]) == ("done", "printed for fine\n")
    assert dead["outcome"] == "dead"
    assert "never in" in dead["reason"]
    assert threw["attempt"] == 2
    assert threw["error_code"] == "7"
    assert "no such customer" in threw["reason"]
    assert fatal["attempt"] == 2
    assert "ended in the middle of a job: exit status 255" in fatal["reason"]
    assert "Allowed memory size" in fatal["stderr"]
    starts = [line for line in ledger(bus) if "start" in line]
    assert starts[0].split(" ", 1)[1] == f"start testing {bus.directory}"
    facts = until(
        lambda: staff(bus, "orders/mail"), lambda now: len(now["processes"]) == 2 and now["restarts"] >= 2, bus
    )
    assert facts["restarts"] == 2
    assert "Allowed memory size" in facts["why"]


def test_exit_status_is_the_verdict(bus: Bus) -> None:
    commands = ("echo all is well", "echo no good >&2; exit 4", "exit 75", "echo $PEPPERBUS_TOPIC $PEPPERBUS_ATTEMPT")
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    ids = push(bus, *commands, key="crons/x")
    with bus.client() as client:
        client.execute_command("CLIENT", "TRACEPARENT", parent)
        ids += json.loads(client.execute_command("LPUSH", "crons/x", "echo $TRACEPARENT"))["jobs"]
    until_count(bus, "crons/line", done=3, dead=1, returned=2)
    attempts = (1, 2, 2, 1, 1)
    well, failed, later, told, traced = (last(bus, one, "crons/line", n) for one, n in zip(ids, attempts, strict=True))
    assert traced["stderr"] == f"{parent}\n"
    assert (well["outcome"], well["stderr"]) == ("done", "all is well\n")
    assert (failed["attempt"], failed["error_code"]) == (2, "4")
    assert failed["reason"].endswith("exit status 4: no good")
    assert later["outcome"] == "retry"
    assert later["error_code"] == "75"
    assert counts(bus, "crons/line")["failed"] == 2
    assert told["stderr"] == "line 1\n"


def test_a_timeout_ends_the_whole_group(bus: Bus) -> None:
    (slow,) = push(bus, "sleep 1234 & echo $! ; sleep 1235", key="hasty/x")
    until_count(bus, "hasty/line", dead=1)
    found = last(bus, slow, "hasty/line", 2)
    assert found["attempt"] == 2
    assert "not done within 2 s" in found["reason"]
    until(lambda: is_there(int(found["stderr"])), lambda lives: not lives, bus)


def is_there(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return is_living(psutil.Process(pid))
    return False


def test_an_unchanged_worker_pulls(bus: Bus) -> None:
    with bus.client() as client:
        client.execute_command("AUTH", "pulls:secret")
        client.execute_command("LPUSH", "pulls/x", *(f"job{i}" for i in range(7)))
    lines = until(lambda: ledger(bus, "pulled.txt"), lambda now: len(now) == 7, bus)
    assert sorted(line.split(" ", 1)[1] for line in lines) == [f"Mailer->send job{i}" for i in range(7)]
    assert len({line.split()[0] for line in lines}) >= 3  # three jobs each, then another process
    until_count(bus, "pulls/old", popped=7)  # counted when the storage knows, which may be after the job has run


def test_daemons_are_kept_alive(bus: Bus) -> None:
    (daemon,) = until(
        lambda: staff(bus, "pulls/daemon")["processes"], lambda now: now and now[0]["said"] and now[0]["memory"], bus
    )
    assert daemon["said"] == "said by a daemon"
    os.kill(daemon["pid"], signal.SIGKILL)
    other = until(
        lambda: staff(bus, "pulls/daemon")["processes"],
        lambda now: now and daemon["pid"] not in [p["pid"] for p in now],
        bus,
    )
    assert len(other) == 1
    facts = staff(bus, "pulls/daemon")
    assert facts["restarts"] == 1
    assert facts["why"].startswith("killed by SIGKILL")
    broken = until(lambda: staff(bus, "pulls/broken"), lambda now: now["restarts"] >= 2, bus)
    assert broken["why"] == "exit status 3: cannot find my database"
    assert "cannot find my database" in bus.log


def test_what_people_see(bus: Bus) -> None:
    assert bus.cli("ping", "orders/mail").stdout.startswith("orders/mail: registered")
    status = api(bus, "/status")
    topics = {topic["name"]: topic for queue in status["queues"] for topic in queue["topics"]}
    assert topics["orders/mail"]["target"].startswith("php ")
    assert topics["orders/mail"]["run"] == "command"


def test_a_command_that_does_not_live_spends_no_attempt(bus: Bus) -> None:
    (job,) = push(bus, "fine", key="missing/x")
    facts = until(lambda: staff(bus, "missing/mail"), lambda now: now["restarts"] >= 2, bus)
    assert "Could not open input file" in facts["why"]
    until(lambda: api(bus, "/status")["problems"], lambda now: any("missing/mail" in line for line in now), bus)
    (bus.directory / "missing.php").symlink_to(bus.directory / "stdin.php")
    until_count(bus, "missing/mail", done=1)
    assert last(bus, job, "missing/mail")["attempt"] == 1
    assert counts(bus, "missing/mail")["failed"] == 0


def test_a_process_that_grew_or_did_its_share_is_replaced(bus: Bus) -> None:
    push(bus, "grow", key="grows/x")
    until_count(bus, "grows/mail", done=1)
    pid = ledger(bus, "grows.txt")[0].split()[0]
    push(bus, "one", "two", "three", "four", key="grows/x")
    until_count(bus, "grows/mail", done=5)
    ends = [line.split() for line in ledger(bus, "grows.txt") if " end " in line]
    assert [words[2] for words in ends if words[0] == pid] == ["grow"]
    assert max(sum(words[0] == one for words in ends) for one in {words[0] for words in ends}) <= 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may start a command as another user")
def test_another_user(bus: Bus) -> None:
    text = QUEUES["crons"].replace("directory = @DIR@", "user = nobody")
    bus.write_queue("nobodys", text)
    assert bus.ask("reload")["ok"]
    (job,) = push(bus, "id -un; echo $HOME; pwd", key="nobodys/x")
    until_count(bus, "nobodys/line", done=1)
    account = pwd.getpwnam("nobody")
    assert last(bus, job, "nobodys/line")["stderr"] == f"nobody\n{account.pw_dir}\n/\n"


def test_nothing_survives_its_worker(buses: Buses) -> None:
    bus = make(buses, "orders")
    push(bus, "hang")
    lines = until(lambda: ledger(bus), lambda now: any("grandchild" in line for line in now), bus)
    child, grandchild = next((int(a), int(b)) for a, b in re.findall(r"(\d+) grandchild (\d+)", "\n".join(lines)))
    bus.wait_replaced("worker.orders.0", bus.kill("worker.orders.0"))
    until(lambda: (is_there(child), is_there(grandchild)), lambda now: now == (False, False), bus)
    begun = until(lambda: [x for x in ledger(bus) if "begin hang" in x], lambda now: len(now) >= 2, bus)
    assert begun[0].endswith("hang 1")
    assert begun[1].endswith("hang 2")
    found = until(lambda: re.findall(r"grandchild (\d+)", "\n".join(ledger(bus))), lambda two: len(two) >= 2, bus)
    second = int(found[-1])
    bus.kill_family()
    until(lambda: family(bus), lambda left: left == [], bus)
    bus.start()
    until(lambda: is_there(second), lambda lives: not lives, bus)


def test_a_bus_that_stops_leaves_nobody(bus: Bus) -> None:
    """The last one: the others need the bus."""
    two = until(lambda: staff(bus, "orders/mail")["processes"], lambda now: len(now) == 2, bus)
    idle = [one["pid"] for one in two]
    assert bus.stop() == 0
    assert [pid for pid in idle if f"{pid} leave" in ledger(bus)] == idle  # by itself, at the end of its input
    until(lambda: family(bus), lambda left: left == [], bus)


def family(bus: Bus) -> list[list[str]]:
    """What still runs with this bus' directory in its command line."""
    found = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [words for words in found if str(bus.directory) in " ".join(words)]
