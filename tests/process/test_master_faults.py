"""What happens to a family when somebody dies, hangs, grows or never boots. Small mains in the real mold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pepperbus.master.control import ask
from tests.fixtures.bus import NODE, QUEUE, Buses, is_living

ROLES = dict.fromkeys(("gateway", "worker", "ticker", "web"), "tests.process.family_roles:main")


def test_everybody_comes_back_after_kill_9(buses: Buses) -> None:
    bus = buses.start(roles=ROLES)
    killed = {name: bus.kill(name) for name in ("gateway.0", "worker.orders.0", "ticker", "web", "mold")}
    for name, pid in killed.items():
        if name != "mold":
            bus.wait_replaced(name, pid)
    bus.wait_for(lambda status: any(p["name"] == "mold" and p["pid"] != killed["mold"] for p in status["processes"]))
    found = bus.processes()
    assert found["gateway.0"]["restarts"] == 1
    assert found["gateway.0"]["reason"] == "ended by signal 9"
    assert found["gateway.0"]["boot"] != ""
    bus.wait_replaced("gateway.0", bus.kill("gateway.0"))  # born of the new mold
    assert bus.stop() == 0


def test_a_master_without_threads_and_without_gevent(buses: Buses) -> None:
    bus = buses.start(roles=ROLES)
    master = psutil.Process(bus.pid)
    assert master.num_threads() == 1
    assert psutil.Process(bus.pids()["mold"]).num_threads() == 1
    assert "gevent" not in "".join(mapping.path for mapping in master.memory_maps())

    def titles() -> set[str]:
        return {" ".join(child.cmdline()).strip() for child in master.children()}

    bus.wait_for(lambda status: {"pepperbus: mold", "pepperbus: worker.orders.0 at your service"} <= titles())


def test_no_child_keeps_what_belongs_to_others(buses: Buses) -> None:
    queues = dict.fromkeys(("a", "b", "c"), QUEUE)
    bus = buses.start(queues=queues, roles=ROLES)
    gateway, worker = bus.tell("gateway.0", "facts"), bus.tell("worker.b.0", "facts")
    assert gateway["wakes"] == ["a", "b", "c"]
    assert gateway["listeners"] == [f"127.0.0.1:{bus.port}"]
    assert worker["wakes"] == ["b"]
    assert worker["listeners"] == []
    # Neither another's line nor the mold's: such a copy would keep a dead process' line open.
    before = worker["fds"]
    for _ in range(3):
        bus.wait_replaced("worker.b.0", bus.kill("worker.b.0"))
    assert bus.tell("worker.b.0", "facts")["fds"] == before


def test_a_crash_loop_is_stopped_and_explained(buses: Buses) -> None:
    bus = buses.make(roles=ROLES)
    bus.run_dir.mkdir()
    (bus.run_dir / "fail.worker").write_text("no module named x")
    bus.start()
    status = bus.status()
    worker = next(p for p in status["processes"] if p["name"] == "worker.orders.0")
    assert (worker["state"], worker["reason"]) == ("failed", "RuntimeError: no module named x")
    assert not status["ready"]
    assert bus.log.count("action=child_failed") == 1
    assert bus.processes()["gateway.0"]["state"] == "ready"
    (bus.run_dir / "fail.worker").unlink()
    assert bus.ask("reload")["ok"]
    assert bus.status()["ready"]


def test_a_gateway_that_says_it_cannot_boot_ends_serve_with_3(buses: Buses) -> None:
    bus = buses.make(roles=ROLES)
    bus.run_dir.mkdir()
    (bus.run_dir / "fail.gateway").write_text("definite: the storage is of a later version")
    bus.start(wait=False)
    assert bus.wait() == 3
    last = bus.log.splitlines()[-1]
    assert last == "pepperbus: gateway.0 cannot boot: definite: the storage is of a later version"


def test_a_mold_that_cannot_boot_ends_serve_with_3(buses: Buses) -> None:
    bus = buses.make(roles={**ROLES, "worker": "tests.process.no_such_module:main"})
    bus.start(wait=False)
    assert bus.wait() == 3
    assert "pepperbus: the mold cannot boot: ModuleNotFoundError" in bus.log.splitlines()[-1]


def test_a_serve_that_cannot_start_leaves_nobody(tmp_path: Path) -> None:
    """The mold is started before the configuration is read."""
    (tmp_path / "pepperbus.conf").write_text("no_such_key = 1\n")
    command = [sys.executable, "-m", "pepperbus.cli", "-c", str(tmp_path / "pepperbus.conf"), "serve"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as serve:
        _, said = serve.communicate(timeout=40)
    assert serve.returncode == 3
    assert b"no_such_key" in said
    assert not [pid for pid in psutil.pids() if _session(pid) == serve.pid]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def test_a_stopped_child_is_killed_and_replaced(buses: Buses) -> None:
    bus = buses.start(roles=ROLES)
    stopped = bus.kill("worker.orders.0", signal.SIGSTOP)
    bus.tell("gateway.0", "spin")  # and one whose hub is blocked, at the same time
    spinning = bus.pids()["gateway.0"]
    bus.wait_replaced("worker.orders.0", stopped)
    bus.wait_replaced("gateway.0", spinning)
    assert "silence" in bus.processes()["worker.orders.0"]["reason"]
    assert "in _spin" in bus.log  # the traceback of where it hung
    assert "Fatal Python error: Aborted" in bus.log


def test_stopping_the_master_harms_nobody(buses: Buses) -> None:
    bus = buses.start(roles=ROLES)
    before = bus.pids()
    family = [psutil.Process(pid) for name, pid in before.items() if name not in ("master", "mold")]
    for process in family:  # as when the whole machine sleeps
        process.suspend()
    bus.send(signal.SIGSTOP)
    time.sleep(6)  # longer than a child may be silent: the silence itself is what is tested
    bus.send(signal.SIGCONT)
    bus.wait_log("action=stood_still")
    for process in family:
        process.resume()
    bus.wait_for(lambda status: status["ready"])
    bus.wait_for(lambda status: status["processes"][0]["uptime"] > 7.5)
    assert bus.pids() == before


def test_kill_9_of_the_master_ends_the_family_and_a_new_one_starts(buses: Buses) -> None:
    bus = buses.start(roles=ROLES)
    old = [psutil.Process(pid) for pid in bus.pids().values()]
    os.kill(
        old[[p.pid for p in old].index(bus.pids()["worker.orders.0"])].pid, signal.SIGSTOP
    )  # an orphan that cannot leave
    bus.send(signal.SIGKILL)
    bus.wait()
    bus.start()
    assert not [process for process in old if is_living(process)]
    assert bus.status()["ready"]
    assert bus.stop() == 0


def test_a_second_master_is_refused(buses: Buses) -> None:
    bus = buses.start(roles=ROLES)
    first, master = bus.process, bus.pid
    bus.send(signal.SIGSTOP)  # even while it cannot answer
    bus.start(wait=False)
    assert bus.wait() == 3
    assert f"pepperbus: already running, pid {master} (it holds {bus.run_dir}/lock)" in bus.log
    bus.process = first
    bus.send(signal.SIGCONT)
    assert bus.status()["pid"] == master


def test_what_grows_is_drained_and_replaced(buses: Buses) -> None:
    bus = buses.start(NODE.replace("grace = 5s", "grace = 5s\n    memory_limit = 150MiB"), roles=ROLES)
    pid = bus.pids()["worker.orders.0"]
    bus.tell("worker.orders.0", "eat", bytes=200 << 20)
    bus.wait_replaced("worker.orders.0", pid)
    assert "[bus] memory_limit is 150 MiB" in bus.processes()["worker.orders.0"]["reason"]
    assert bus.processes()["gateway.0"]["restarts"] == 0


def test_a_taken_port_is_one_line_and_3(buses: Buses) -> None:
    first = buses.start(roles=ROLES)
    second = buses.make(roles=ROLES)
    second.write_node(NODE.replace("@PORT@", str(first.port)))
    second.start(wait=False)
    assert second.wait() == 3
    expected = (
        f"pepperbus: [gateway] listen: cannot listen on 127.0.0.1:{first.port}: Address already in use; "
        "another program has it (`ss -ltnp` names it): end that, or take another port\n"
    )
    assert second.log == expected


def test_a_stale_unix_socket_is_replaced_and_removed_at_the_end(buses: Buses) -> None:
    bus = buses.make(NODE.replace("127.0.0.1:@PORT@", "unix:@DIR@/bus.sock"), roles=ROLES)
    bus.start()
    path = bus.directory / "bus.sock"
    assert path.stat().st_mode & 0o777 == 0o660
    bus.send(signal.SIGKILL)
    bus.wait()
    assert path.exists()
    bus.start()
    assert bus.tell("gateway.0", "facts")["listeners"] == [f"unix:{path}"]
    assert bus.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize("op", ["ask", "raise", "nobody"])
def test_words_between_processes(buses: Buses, op: str) -> None:
    bus = buses.start(roles=ROLES)
    if op == "ask":
        answer = bus.tell("web", "ask", request={"op": "status"})
        assert answer["pid"] == bus.pid
        # The ticker is told who lives.
        bus.wait_for(lambda status: "worker.orders.0" in bus.tell("ticker", "facts")["family"])
    elif op == "raise":
        assert bus.tell("web", "raise") == {"ok": False, "error": "ValueError: as asked"}
        both = bus.ask("tell", role="gateway", command={"op": "facts"})
        assert list(both["answers"]) == ["gateway.0"]
    else:
        answer = bus.ask("tell", name="worker.orders.7", command={"op": "facts"})
        assert not answer["ok"]
        assert "there are gateway.0" in answer["error"]
        assert bus.ask("dance")["error"].startswith("unknown op 'dance'; there are ")


def test_a_relayed_command_to_who_dies_is_answered(buses: Buses) -> None:
    bus = buses.start(roles=ROLES)
    pid = bus.kill("web", signal.SIGSTOP)
    request = {"op": "tell", "name": "web", "command": {"op": "facts"}, "timeout": 0.5}
    assert ask(bus.run_dir, request, 40.0)["answer"] == {"ok": False, "error": "web did not answer in time"}
    os.kill(pid, signal.SIGCONT)
