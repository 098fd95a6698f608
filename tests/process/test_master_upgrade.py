"""USR2: the bus becomes the code on disk under load, keeps its pid and sockets, and a broken version changes nothing.

PEPPERBUS_UPGRADES=50 makes the long run of as many upgrades in a row; four are made without it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha1
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from tests.fixtures.bus import NODE, QUEUE, ROOT, Bus, Buses, is_living
from tests.fixtures.fpm import Fpm
from tests.process.bus_rig import ended, let_go, node, queue, until
from tests.process.test_master_supervisors import Supervisor, supervised

__all__ = ["supervised"]
ROLES = dict.fromkeys(("gateway", "worker", "ticker", "web"), "tests.process.family_roles:main")
UPGRADES = int(os.environ.get("PEPPERBUS_UPGRADES", "4"))


def with_code(bus: Bus, **env: str) -> Path:
    """Start the bus from its own copy of the package, which a test may change; the copy."""
    code = bus.directory / "code" / "pepperbus"
    # With what Python has compiled of it, else every start compiles all; not what it is writing at this moment.
    shutil.copytree(ROOT / "pepperbus", code, ignore=shutil.ignore_patterns("*.pyc.*"))
    bus.start(env={"PYTHONPATH": f"{code.parent}:{ROOT}", **env})
    return code


def release(code: Path, version: str) -> None:
    """A new version on disk."""
    path = code / "__init__.py"
    lines = [
        f'__version__ = "{version}"' if "__version__ =" in line else line for line in path.read_text().splitlines()
    ]
    path.write_text("\n".join(lines) + "\n")


def upgraded(bus: Bus, number: int, timeout: float = 60.0) -> dict[str, Any]:
    """Wait for the end of that upgrade; what status says of it."""

    def is_over(status: dict[str, Any]) -> bool:
        facts = status["upgrade"]
        return bool(facts["number"] == number and facts["state"] in ("done", "failed"))

    return dict(bus.wait_for(is_over, timeout)["upgrade"])


def inode(pid: int, port: int) -> set[str]:
    """The listening sockets of a process on that port, as the kernel numbers them."""
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {line[9] for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "0A"}


class Load:
    """Producers as contract and clients have it: a push that fails is repeated once on a new connection."""

    def __init__(self, bus: Bus, producers: int = 3) -> None:
        self.bus = bus
        self.accepted: set[str] = set()
        self.retried = 0
        self.troubles: list[str] = []
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._push, args=(n,)) for n in range(producers)]
        self._threads.append(threading.Thread(target=self._connect))

    def _push(self, producer: int) -> None:
        client = self.bus.client()
        for number in range(1_000_000):
            if self._ends.wait(0.003):
                break
            content = f"{producer}-{number}"
            for attempt in (1, 2):
                try:
                    answer = json.loads(client.execute_command("LPUSH", "orders/x", content))
                    if answer["error"]:
                        raise redis.RedisError(answer["error"])
                    self.accepted.add(content)
                    break
                except redis.RedisError as error:
                    client.close()
                    client = self.bus.client()
                    self.retried += 1
                    if attempt == 2:
                        self.troubles.append(f"{content} failed twice: {error!r}")
        client.close()

    def _connect(self) -> None:
        while not self._ends.wait(0.005):
            try:
                socket.create_connection(("127.0.0.1", self.bus.port), 10).close()
            except OSError as error:
                self.troubles.append(f"no connection: {error!r}")

    @contextmanager
    def running(self) -> Iterator[Load]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._ends.set()
            for thread in self._threads:
                thread.join(30)


@pytest.mark.timeout(60 + 30 * UPGRADES)
def test_upgrades_in_a_row_under_load(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    """No refused connection, no push that fails twice, no lost job; the pid, the socket and the leases stay."""
    php = fpm()
    text = node(php).replace("[gateway]", "[gateway]\n    processes = 2")
    bus = buses.make(text, {"orders": queue(php.script("wire.php"))})
    code = with_code(bus)
    socket_before, first = inode(bus.pid, bus.port), bus.status()
    with Load(bus).running() as load:
        until(lambda: len(load.accepted), lambda n: n > 50, bus)
        for number in range(1, UPGRADES + 1):
            before = bus.pids()
            pushed = len(load.accepted)
            release(code, f"9.{number}")
            bus.send(signal.SIGUSR2)
            facts = upgraded(bus, number)
            assert (facts["state"], facts["after"]) == ("done", f"9.{number}"), (facts, bus.log)
            status = bus.status()
            assert (status["pid"], status["version"]) == (bus.pid, f"9.{number}")
            now = {p["pid"] for p in status["processes"] if p["state"] == "ready" and p["name"] != "master"}
            assert not now & set(before.values())
            until(
                lambda: (len(load.accepted), load.troubles),
                lambda seen, pushed=pushed: seen[0] > pushed + 20 or seen[1],  # type: ignore[misc]
                bus,
                seconds=30,
            )
            assert load.troubles == []
    assert load.troubles == []
    assert inode(bus.pid, bus.port) == socket_before
    assert (bus.status()["boot"], bus.status()["since"]) == (first["boot"], first["since"])
    until(
        lambda: {line.sha1 for line in ended(php)},
        lambda done: len(done) >= len(load.accepted),
        bus,
        60,
    )
    done = {line.sha1 for line in ended(php)}
    assert [content for content in load.accepted if sha1(content.encode()).hexdigest() not in done] == []
    # A live worker's lease was never given to another: nothing ran twice that was not pushed twice.
    runs = [line.id for line in ended(php)]
    assert len(runs) == len(set(runs))
    assert "leases_taken_back" not in bus.log
    assert "action=child_died" not in bus.log.replace("child_died name=mold", "")
    # Only the old molds' and masters' descriptors could pile up.
    assert psutil.Process(bus.pid).num_fds() < 40
    assert bus.stop() == 0


def test_a_long_job_is_finished_by_the_old_worker(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    php = fpm()
    bus = buses.make(node(php), {"orders": queue(php.script("wire.php"))})
    with_code(bus)
    bus.client().lpush("orders/x", "hold")
    until(lambda: php.ledger(), lambda lines: len(lines) == 1, bus)
    old = bus.pids()["worker.orders.0"]
    bus.send(signal.SIGUSR2)
    assert upgraded(bus, 1)["state"] == "done"
    found = bus.processes()
    assert (found["worker.orders.0"]["pid"], found["worker.orders.0"]["state"]) == (old, "draining")
    assert found["worker.orders.1"]["state"] == "ready"
    let_go(php)
    until(lambda: ended(php), lambda lines: len(lines) == 1, bus)
    bus.wait_for(lambda status: "worker.orders.0" not in [p["name"] for p in status["processes"]])
    assert [line.attempt for line in ended(php)] == [1]
    assert bus.log.count("action=child_killed") == 0


def refused(bus: Bus, pids: dict[str, int], reason: str, status_says: bool = False) -> None:
    """An upgrade that must fail: said by the command, the log and status; and nobody was touched."""
    done = bus.cli("upgrade")
    assert done.returncode == 1, (done.stdout, done.stderr, bus.log)
    assert reason in done.stderr
    facts = bus.status()["upgrade"]
    assert facts["state"] == "failed"
    assert reason in facts["reason"]
    assert "action=upgrade_failed" in bus.log
    assert bus.pids() == pids
    assert bus.status()["ready"]
    assert bus.client().lpush("orders/x", "still here")
    if status_says:
        status = bus.cli("status")
        assert (status.returncode, f"upgrade {facts['number']} failed" in status.stdout) == (1, True)


def test_a_broken_version_leaves_the_old_one_serving(buses: Buses) -> None:
    bus = buses.make()
    code = with_code(bus)
    pids = bus.pids()
    good = {name: (code / name).read_text() for name in ("worker/pump.py", "trial.py", "master/loop.py")}
    for name, text in good.items():
        (code / name).write_text(text + "\nthis is no python\n")
        refused(bus, pids, "SyntaxError: invalid syntax (File")
        assert name in bus.status()["upgrade"]["reason"]
        (code / name).write_text(text)
    (code / "worker/pump.py").write_text(
        "import missing_thing\n" + good["worker/pump.py"].partition("annotations\n")[2]
    )
    refused(bus, pids, "No module named 'missing_thing'", status_says=True)
    (code / "worker/pump.py").write_text(good["worker/pump.py"])
    bus.write_queue("orders", QUEUE.replace("run = http", "run = htp"))
    refused(bus, pids, "run = htp")
    bus.write_queue("orders", QUEUE)
    bus.write_node(NODE.replace("node = test", "node = other"))
    refused(bus, pids, "needs a restart: [bus] node")
    bus.write_node(NODE.replace("type = embedded", "type = redis\n        url = redis://127.0.0.1:1"))
    refused(bus, pids, "127.0.0.1:1")
    bus.write_node(NODE)
    done = bus.cli("upgrade")
    assert (done.returncode, done.stderr) == (0, ""), bus.log
    assert done.stdout.startswith("upgraded: version ")
    assert set(bus.pids().values()) & set(pids.values()) == {bus.pid}
    assert "upgrade" not in bus.cli("status").stdout


def test_a_trial_that_hangs_is_ended(buses: Buses) -> None:
    bus = buses.make(roles=ROLES)
    code = with_code(bus)
    trial = code / "trial.py"
    trial.write_text("import time\ntime.sleep(1000)\n")
    bus.send(signal.SIGUSR2)
    bus.wait_log("action=upgrade_trial")
    answer = bus.ask("upgrade")
    assert (answer["ok"], answer["error"]) == (False, "upgrade 1 is under way (trial)")
    pid = int(bus.log.rpartition("action=upgrade_trial pid=")[2].split()[0])
    os.kill(pid, signal.SIGKILL)  # as its limit of 30 s does
    assert "the trial failed" in upgraded(bus, 1)["reason"]
    bus.send(signal.SIGUSR2)
    bus.wait_for(lambda status: status["upgrade"]["number"] == 2 and bus.log.count("action=upgrade_trial pid=") == 2)
    trial = psutil.Process(int(bus.log.rpartition("action=upgrade_trial pid=")[2].split()[0]))
    assert bus.stop() == 0  # a bus that stops does not wait for it
    until(lambda: is_living(trial), lambda living: not living)


def test_what_boots_in_a_trial_but_not_as_a_child_replaces_nobody(buses: Buses) -> None:
    """The master is the new code then; the old gateway counts again and goes on."""
    bus = buses.make(roles=ROLES)
    code = with_code(bus)
    before = bus.pids()
    (bus.run_dir / "fail.gateway").write_text("as asked")
    bus.send(signal.SIGUSR2)
    facts = upgraded(bus, 1)
    assert facts["state"] == "failed"
    assert "gateway.1 of the new code cannot boot" in facts["reason"]
    after = bus.wait_for(lambda status: status["ready"])
    assert {p["name"]: p["pid"] for p in after["processes"] if p["role"] == "gateway"} == {
        "gateway.0": before["gateway.0"]
    }
    (bus.run_dir / "fail.gateway").unlink()
    release(code, "9.9")
    bus.send(signal.SIGUSR2)
    assert upgraded(bus, 2)["state"] == "done"
    assert bus.pids("gateway") != {"gateway.0": before["gateway.0"]}


def test_an_old_process_may_die_before_its_successor_serves(buses: Buses) -> None:
    bus = buses.make(roles=ROLES)
    with_code(bus)
    old = bus.pids("gateway")
    slow = bus.run_dir / "slow.gateway"
    slow.touch()
    bus.send(signal.SIGUSR2)
    bus.wait_for(lambda status: {"gateway.0", "gateway.1"} <= {p["name"] for p in status["processes"]}, 60)
    bus.kill("gateway.0")
    bus.wait_for(lambda status: "gateway.0" not in {p["name"] for p in status["processes"]})
    slow.unlink()
    assert upgraded(bus, 1)["state"] == "done"
    status = bus.wait_for(lambda status: status["ready"])
    assert (status["pid"], bus.pids("gateway").keys() & old.keys()) == (bus.pid, set())


def test_what_an_operator_set_and_asks_crosses_the_exec(buses: Buses) -> None:
    bus = buses.make(roles=ROLES)
    with_code(bus, WATCHDOG_USEC="400000")
    bus.send(signal.SIGTTIN)
    bus.wait_for(lambda status: len(bus.pids("gateway")) == 2 and status["ready"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(20)
        client.connect(str(bus.run_dir / "control.sock"))
        client.sendall(b'{"op": "sta')
        bus.send(signal.SIGUSR2)
        bus.wait_notified("RELOADING=1")
        bus.wait_notified("WATCHDOG=1")
        assert "STATUS=5 processes, 1 queue, generation 1" in bus.wait_notified("READY=1")
        client.sendall(b'tus"}\n')
        status = json.loads(client.makefile().readline())
    assert (status["pid"], status["gateways"], status["upgrade"]["state"]) == (bus.pid, 2, "done")
    assert bus.tell(next(iter(bus.pids("worker"))), "facts")["generation"] == 1
    environ = psutil.Process(bus.pids()["mold"]).environ()
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "PEPPERBUS_HANDOVER"} & environ.keys()
    bus.kill("ticker")  # and the new master keeps them alive as the old one did
    bus.wait_log("action=child_died name=ticker")
    bus.wait_for(lambda status: status["ready"])
    bus.send(signal.SIGHUP)
    bus.wait_for(lambda status: status["generation"] == 2 and status["ready"])
    assert bus.stop() == 0
    assert not (bus.run_dir / "control.sock").exists()


def test_a_supervisor_that_reads_no_notices_does_not_hold_the_master(buses: Buses) -> None:
    """Its socket holds eleven datagrams. The sixth upgrade of a row sent the twelfth, and the master waited in it for ever."""
    bus = buses.make(roles=ROLES)
    with_code(bus)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as full:
        full.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                full.sendto(b"STATUS=full", str(bus.directory / "notify.sock"))
        bus.send(signal.SIGUSR2)
        assert upgraded(bus, 1)["state"] == "done"
        with pytest.raises(BlockingIOError):  # nobody has read it meanwhile
            full.sendto(b"STATUS=full", str(bus.directory / "notify.sock"))
    assert bus.stop() == 0


def test_an_edit_between_trial_and_exec_changes_nothing(buses: Buses) -> None:
    """The new code would find it broken when there is nobody left to go back to."""
    bus = buses.make(roles=ROLES)
    code = with_code(bus)
    before = bus.pids()
    trial = code / "trial.py"
    edit = f"Path({str(bus.directory / 'queues.d/orders.conf')!r}).write_text('run = htp')"
    good = trial.read_text()
    trial.write_text(good.replace("    os.write(fd, json", f"    {edit}\n    os.write(fd, json"))
    bus.send(signal.SIGUSR2)
    facts = upgraded(bus, 1)
    assert (facts["state"], "edited after the trial" in facts["reason"]) == ("failed", True), facts
    assert bus.pids() == before
    bus.write_queue("orders", QUEUE)
    trial.write_text(good)
    bus.send(signal.SIGUSR2)
    assert upgraded(bus, 2)["state"] == "done", bus.log


def _read_notices(bus: Bus) -> None:
    with contextlib.suppress(AssertionError, OSError):
        bus.wait_notified("never", 60)


def test_signals_during_the_exec_are_neither_lost_nor_deadly(buses: Buses) -> None:
    bus = buses.make(roles=ROLES)
    with_code(bus)
    threading.Thread(target=_read_notices, args=(bus,), daemon=True).start()
    bus.send(signal.SIGUSR2)
    until_over = time.monotonic() + 30
    while bus.status()["upgrade"]["state"] != "done" and time.monotonic() < until_over:
        for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2):
            bus.send(number)
    assert upgraded(bus, bus.status()["upgrade"]["number"])["reason"] == ""
    assert bus.process is not None
    assert bus.process.poll() is None
    assert bus.stop() == 0


def test_supervisord_keeps_an_upgraded_bus(supervised: tuple[Bus, Supervisor]) -> None:
    bus, supervisor = supervised
    supervisor.wait_for(lambda said: "RUNNING" in said)
    bus.wait_for(lambda status: status["ready"])
    master, before = bus.status()["pid"], bus.pids()
    done = bus.cli("upgrade")
    assert (done.returncode, done.stderr) == (0, "")
    said = supervisor.wait_for(lambda said: "RUNNING" in said)
    assert f"pid {master}," in said
    assert bus.status()["pid"] == master
    assert not set(before.values()) & (set(bus.pids().values()) - {master})
    assert "stopped" in supervisor.ctl("stop", "pepperbus")
    assert not psutil.pid_exists(master)
