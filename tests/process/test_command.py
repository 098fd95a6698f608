"""`run = command` with real processes: php-cli scripts, shells, and what becomes of them when their worker is killed."""

from __future__ import annotations

import json
import os
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
        timeout = 2s
        zombie_grace = 30s
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


def make(buses: Buses, *queues: str, **changes: str) -> Bus:
    made = buses.make(NODE, {})
    for name in queues:
        text = QUEUES[name].replace("@SDK@", str(ROOT / "sdk/php/PepperBus.php"))
        for old, new in changes.items():
            text = text.replace(f"{old} = ", f"# {old} = ") + new if not new else text.replace(old, new)
        made.write_queue(name, text)
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
    return make(module_buses, "orders", "crons", "pulls")


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


def last(bus: Bus, job: str, topic: str) -> dict[str, Any]:
    """The youngest event of a job."""
    (one,) = api(bus, f"/jobs/{job}")["topics"]
    assert one["topic"] == topic
    return dict(one["events"][-1])


def test_lines_in_verdicts_out(bus: Bus) -> None:
    ids = push(bus, "fine", "dead", "throw", "fatal")
    until_count(bus, done=1, dead=3)
    fine, dead, threw, fatal = (last(bus, one, "orders/mail") for one in ids)
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
    facts = until(lambda: staff(bus, "orders/mail"), lambda now: len(now["processes"]) == 2, bus)
    assert facts["restarts"] == 2
    assert "Allowed memory size" in facts["why"]


def test_exit_status_is_the_verdict(bus: Bus) -> None:
    commands = ("echo all is well", "echo no good >&2; exit 4", "exit 75", "echo $PEPPERBUS_TOPIC $PEPPERBUS_ATTEMPT")
    ids = push(bus, *commands, key="crons/x")
    until_count(bus, "crons/line", done=2, dead=1, returned=2)
    well, failed, later, told = (last(bus, one, "crons/line") for one in ids)
    assert (well["outcome"], well["stderr"]) == ("done", "all is well\n")
    assert (failed["attempt"], failed["error_code"]) == (2, "4")
    assert failed["reason"].endswith("exit status 4: no good")
    assert later["outcome"] == "retry"
    assert later["error_code"] == "75"
    assert counts(bus, "crons/line")["failed"] == 2
    assert told["stderr"] == "line 1\n"


def test_a_timeout_ends_the_whole_group(bus: Bus) -> None:
    (slow,) = push(bus, "sleep 1234 & echo $! ; sleep 1235", key="crons/x")
    until_count(bus, "crons/line", dead=2)
    found = last(bus, slow, "crons/line")
    assert found["attempt"] == 2
    assert "not done within 2 s" in found["reason"]
    assert not is_there(int(found["stderr"]))


def is_there(pid: int) -> bool:
    return psutil.pid_exists(pid) and is_living(psutil.Process(pid))


def test_an_unchanged_worker_pulls(bus: Bus) -> None:
    with bus.client() as client:
        client.execute_command("AUTH", "pulls:secret")
        client.execute_command("LPUSH", "pulls/x", *(f"job{i}" for i in range(7)))
    lines = until(lambda: ledger(bus, "pulled.txt"), lambda now: len(now) == 7, bus)
    assert sorted(line.split(" ", 1)[1] for line in lines) == [f"Mailer->send job{i}" for i in range(7)]
    assert len({line.split()[0] for line in lines}) >= 3  # three jobs each, then another process
    assert counts(bus, "pulls/old")["popped"] == 7


def test_daemons_are_kept_alive(bus: Bus) -> None:
    (daemon,) = until(lambda: staff(bus, "pulls/daemon")["processes"], len, bus)
    assert daemon["said"] == "said by a daemon"
    assert daemon["memory"] > 0
    os.kill(daemon["pid"], signal.SIGKILL)
    other = until(
        lambda: staff(bus, "pulls/daemon")["processes"], lambda now: [p for p in now if p["pid"] != daemon["pid"]], bus
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


def test_nothing_survives_its_worker(buses: Buses) -> None:
    bus = make(buses, "orders")
    (job,) = push(bus, "hang")
    lines = until(lambda: ledger(bus), lambda now: any("grandchild" in line for line in now), bus)
    child, grandchild = next((int(a), int(b)) for a, b in re.findall(r"(\d+) grandchild (\d+)", "\n".join(lines)))
    bus.wait_replaced("worker.orders.0", bus.kill("worker.orders.0"))
    until(lambda: (is_there(child), is_there(grandchild)), lambda now: now == (False, False), bus)
    begun = until(lambda: [x for x in ledger(bus) if "begin hang" in x], lambda now: len(now) >= 2, bus)
    assert begun[0].endswith("hang 1")
    assert begun[1].endswith("hang 2")
    second = int(re.findall(r"grandchild (\d+)", "\n".join(ledger(bus)))[-1])
    bus.kill_family()
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(bus.directory) in " ".join(p.info["cmdline"] or ())]
    bus.start()
    until(lambda: is_there(second), lambda lives: not lives, bus)
    assert job
