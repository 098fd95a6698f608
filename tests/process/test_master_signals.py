"""The signals an operator sends, and their twins on the control socket."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from tests.fixtures.bus import NODE, QUEUE, Buses

ROLES = dict.fromkeys(("gateway", "worker", "ticker", "web"), "tests.process.family_roles:main")


def test_term_waits_for_running_work_and_int_does_not(buses: Buses) -> None:
    bus = buses.start(NODE.replace("grace = 5s", "grace = 300s"), roles=ROLES)
    bus.tell("worker.orders.0", "hold", seconds=2.0)
    started = time.monotonic()
    assert bus.stop(signal.SIGTERM) == 0  # and not when the grace is over
    assert time.monotonic() - started > 1.9
    assert bus.log.index("name=worker.orders.0", bus.log.index("stopping")) < bus.log.index("child_left name=ticker")
    bus.start()
    bus.tell("worker.orders.0", "hold", seconds=300.0)
    assert bus.stop(signal.SIGINT) == 0


def test_a_second_term_ends_the_wait(buses: Buses) -> None:
    bus = buses.start(NODE.replace("grace = 5s", "grace = 300s"), roles=ROLES)
    bus.tell("worker.orders.0", "hold", seconds=300.0)
    bus.send(signal.SIGTERM)
    bus.wait_log("action=stopping")
    assert bus.status()["state"] == "draining"
    assert bus.stop(signal.SIGTERM) == 0


def test_who_does_not_leave_is_killed(buses: Buses) -> None:
    bus = buses.start(roles=ROLES)
    bus.tell("worker.orders.0", "deaf")
    assert bus.stop(signal.SIGINT) == 0
    assert "still there after its grace" in bus.log


def test_hup_touches_only_what_changed(buses: Buses) -> None:
    bus = buses.start(queues={"orders": QUEUE, "mails": QUEUE}, roles=ROLES)
    before = bus.pids()
    bus.write_queue("orders", QUEUE.replace("secret", "other"))
    bus.write_queue("new", QUEUE)
    bus.send(signal.SIGHUP)
    bus.wait_for(lambda status: status.get("last_reload", {}).get("generation") == 1)
    bus.wait_for(lambda status: before["worker.orders.0"] not in [p["pid"] for p in status["processes"]])
    after = bus.pids()
    for name in ("gateway.0", "ticker", "web", "worker.mails.0"):
        assert after[name] == before[name]
    # Beside the old one, under the other name, unless the old one had left before the new one was asked for.
    assert {"worker.orders.0", "worker.orders.1"} & set(after)
    assert "worker.new.0" in after
    facts = bus.tell("gateway.0", "facts")
    assert facts["queues"] == facts["wakes"] == ["mails", "new", "orders"]


def test_a_reload_says_what_changed_and_cuts_no_running_job(buses: Buses) -> None:
    bus = buses.start(roles=ROLES)
    bus.tell("worker.orders.0", "hold", seconds=300.0)
    bus.write_queue("orders", QUEUE.replace("secret", "other"))
    bus.write_node(NODE.replace("node = test", "node = renamed"))
    answer = bus.ask("reload")
    assert answer == {
        "ok": True,
        "generation": 1,
        "added": [],
        "changed": ["orders"],
        "removed": [],
        "needs_restart": ["[bus] node"],
    }
    found = bus.processes()
    assert (found["worker.orders.0"]["state"], found["worker.orders.0"]["retired"]) == ("draining", True)
    assert found["worker.orders.1"]["state"] == "ready"
    (bus.run_dir / "go.worker").touch()
    bus.wait_for(lambda status: "worker.orders.0" not in [p["name"] for p in status["processes"]])
    assert "action=child_killed" not in bus.log


def test_a_bad_file_changes_nothing_and_is_explained(buses: Buses) -> None:
    bus = buses.start(roles=ROLES)
    before = bus.pids()
    bus.write_queue("orders", QUEUE.replace("[[mail]]", "[[mail]]\n        concurency = 3\n        atempts = 4"))
    answer = bus.ask("reload")
    assert not answer["ok"]
    assert len(answer["mistakes"]) == 2
    assert "concurency" in answer["mistakes"][0]
    bus.send(signal.SIGHUP)
    bus.wait_for(lambda status: bus.log.count("action=reload_refused") >= 4)
    assert bus.pids() == before
    assert (bus.status()["generation"], bus.status()["ready"]) == (0, True)
    assert not bus.status()["last_reload"]["ok"]


def test_a_removed_queue_loses_its_workers_and_comes_back(buses: Buses) -> None:
    bus = buses.start(queues={"orders": QUEUE, "mails": QUEUE}, roles=ROLES)
    bus.write_queue("mails", None)
    assert bus.ask("reload")["removed"] == ["mails"]
    bus.wait_for(lambda status: "worker.mails.0" not in [p["name"] for p in status["processes"]])
    bus.write_queue("mails", QUEUE)
    assert bus.ask("reload")["added"] == ["mails"]
    assert "worker.mails.0" in bus.pids("worker")


def test_many_hups_at_once_end_with_the_last_file(buses: Buses) -> None:
    bus = buses.start(roles=ROLES)
    for i in range(30):
        bus.write_queue(f"q{i}", QUEUE)
        bus.send(signal.SIGHUP)
    bus.wait_for(lambda status: status["ready"] and len(bus.tell("gateway.0", "facts")["queues"]) == 31)
    bus.wait_for(lambda status: len(bus.pids("worker")) == 31)


def test_many_new_queues_bring_many_descriptors(buses: Buses) -> None:
    bus = buses.start(roles={role: ROLES[role] for role in ("gateway", "ticker")})
    for i in range(450):  # more than two messages of 200 descriptors
        bus.write_queue(f"q{i}", QUEUE)
    assert bus.ask("reload")["ok"]
    assert len(bus.tell("gateway.0", "facts")["wakes"]) == 451
    pid = bus.kill("gateway.0")
    bus.wait_replaced("gateway.0", pid)
    assert len(bus.tell("gateway.0", "facts")["wakes"]) == 451


def open_files(pid: int) -> list[str]:
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(os.readlink(link))
    return found


def test_usr1_reopens_the_logs_of_all(buses: Buses) -> None:
    bus = buses.start(NODE + "[log]\n    file = @DIR@/app.log\n", roles=ROLES)
    path = bus.directory / "app.log"
    path.rename(bus.directory / "app.log.1")
    bus.send(signal.SIGUSR1)
    bus.wait_for(lambda status: path.exists())
    bus.wait_for(lambda status: str(path) in open_files(bus.pids()["gateway.0"]))


def test_ttin_and_ttou_change_the_number_of_gateways(buses: Buses) -> None:
    bus = buses.start(roles=ROLES)
    bus.send(signal.SIGTTIN)
    bus.wait_for(lambda status: status["ready"] and "gateway.1" in [p["name"] for p in status["processes"]])
    assert bus.ask("scale", by=1)["gateways"] == 3
    bus.wait_for(lambda status: len([p for p in status["processes"] if p["role"] == "gateway"]) == 3)
    assert bus.ask("scale", gateways=1)["gateways"] == 1
    bus.wait_for(lambda status: len([p for p in status["processes"] if p["role"] == "gateway"]) == 1)
    bus.send(signal.SIGTTOU)
    assert bus.ask("scale", gateways=99)["gateways"] == 15
    assert bus.ask("scale", gateways=0)["gateways"] == 1


def test_stop_over_the_control_socket(buses: Buses) -> None:
    bus = buses.start(roles=ROLES)
    assert bus.ask("stop", grace=0) == {"ok": True, "grace": 0.0, "pid": bus.pid}
    assert bus.wait() == 0
    assert not (bus.run_dir / "control.sock").exists()


def test_a_process_ends_when_asked_and_another_takes_its_place(buses: Buses) -> None:
    bus = buses.start(roles=ROLES)
    before = bus.pids()["worker.orders.0"]
    assert bus.cli("restart", "worker.none.0").returncode == 1
    assert bus.cli("restart", "worker.orders.0").returncode == 0
    bus.wait_for(lambda status: status["ready"] and before not in [p["pid"] for p in status["processes"]])
    (place,) = [p for p in bus.status()["processes"] if p["name"] == "worker.orders.0"]
    assert (place["restarts"], place["reason"]) == (1, "somebody asked for it")
