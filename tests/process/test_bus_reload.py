"""Whole bus: changes of the configuration while producers push and jobs run."""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable

import pytest
import redis

from tests.fixtures.bus import Bus, Buses
from tests.fixtures.fpm import Fpm
from tests.process.bus_rig import ask, begun, ended, node, push, queue, until, until_count

WIRE = "wire.php"
HUPS = int(os.environ.get("PEPPERBUS_HUPS", "60"))  # the long form: 200


class Producer(threading.Thread):
    """Pushes as fast as it is answered. A push has failed when one retry on a new connection fails too."""

    def __init__(self, bus: Bus, key: str) -> None:
        super().__init__(daemon=True)
        self.bus, self.key = bus, key
        self.stopped = threading.Event()
        self.ids: list[str] = []
        self.failed: list[str] = []
        self.retried = 0

    def run(self) -> None:
        client = self.bus.client()
        n = 0
        while not self.stopped.wait(0.004):
            n += 1
            for last in (False, True):
                try:
                    answer = json.loads(client.execute_command("LPUSH", self.key, f"job {n}"))
                    if answer["error"]:
                        raise redis.RedisError(answer["error"])
                    self.ids += answer["jobs"]
                    break
                except (redis.RedisError, OSError, ValueError) as error:
                    client.close()
                    client = self.bus.client()
                    self.retried += 1
                    if last:
                        self.failed.append(repr(error))
        client.close()


def edit(bus: Bus, chance: random.Random, script: str, n: int) -> bool:
    """A random edit of one queue's file; False when it is a bad one."""
    name = chance.choice(["orders", "bills", "extra"])
    path = bus.directory / "queues.d" / f"{name}.conf"
    kind = chance.randrange(8)
    if kind == 0:
        path.write_text((path.read_text() if path.exists() else "") + "\nno_such_key = 1\n")
        return False
    if kind == 1:
        path.write_text("[topics\n  run = 7")
        return False
    if name == "extra" and kind == 2 and path.exists():
        bus.write_queue("extra", None)
        return True
    head = f"workers = {chance.randint(1, 2)}\nprocess_group = {chance.choice(['one', 'two'])}" if kind == 3 else ""
    topic = f"timeout = {20 + n % 20}s\nconcurrency = {chance.randint(1, 4)}\nbackoff = fixed 200ms"
    bus.write_queue(name, queue(script, topic, head))
    return True


def test_hups_under_load(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    """No failed push, no lost job, nothing run twice; a bad edit changes nothing."""
    php = fpm(children=8)
    (php.scripts / "known.txt").write_text("orders/mail,bills/mail,extra/mail")
    script = php.script(WIRE)
    names = ("orders", "bills", "extra")
    bus = buses.start(node(php), {name: queue(script, "backoff = fixed 200ms") for name in names})
    producers = [Producer(bus, "orders/x"), Producer(bus, "bills/x")]
    for producer in producers:
        producer.start()
    chance = random.Random(7)
    good = {name: (bus.directory / "queues.d" / f"{name}.conf").read_text() for name in names}
    bad = 0
    for n in range(HUPS):
        before = bus.status()["generation"] if n % 20 == 0 else None
        if edit(bus, chance, script, n):
            good = {path.stem: path.read_text() for path in (bus.directory / "queues.d").iterdir()}
            answer = bus.ask("reload", timeout=40)
            assert answer["ok"], answer
        else:
            bad += 1
            answer = bus.ask("reload", timeout=40)
            assert (answer["ok"], bool(answer["mistakes"])) == (False, True), answer
            if before is not None:
                assert bus.status()["generation"] == before
            for name in names:
                if name in good:
                    (bus.directory / "queues.d" / f"{name}.conf").write_text(good[name])
                else:
                    (bus.directory / "queues.d" / f"{name}.conf").unlink(missing_ok=True)
    for producer in producers:
        producer.stopped.set()
        producer.join(20)
    assert bad > HUPS / 10
    assert [producer.failed for producer in producers] == [[], []]
    pushed = [job_id for producer in producers for job_id in producer.ids]
    assert len(pushed) > 200
    until(lambda: {line.id for line in ended(php)}, lambda done: done >= set(pushed), bus, 60)
    assert len(begun(php)) == len({(line.id, line.topic) for line in begun(php)}), "a reload cuts no running job"
    print(f"{len(pushed)} pushes, {sum(p.retried for p in producers)} retried, {bad} bad edits")


def test_a_removed_queue_is_kept_and_comes_back_with_its_jobs(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    php = fpm()
    script = php.script(WIRE)
    text = queue(script, "paused = yes")
    bus = buses.start(node(php), {"orders": text, "bills": queue(script)})
    ids = push(bus, "a", "b", "c")
    bus.write_queue("orders", None)
    assert bus.ask("reload")["removed"] == ["orders"]
    status = ask(bus, "status", "--seconds", "0")
    assert [(topic["name"], topic["ready"], topic["state"]) for topic in status["detached"]] == [
        ("orders/mail", 3, "detached"),
    ]  # fmt: skip
    answer = json.loads(bus.client().execute_command("LPUSH", "orders/x", "d"))
    assert answer["jobs"] is None
    assert answer["error"] in ("queue or Topic not exist orders", "NOAUTH Authentication required.")
    bus.write_queue("orders", queue(script))
    assert bus.ask("reload")["added"] == ["orders"]
    until(lambda: [line.id for line in ended(php)], lambda done: sorted(done) == sorted(ids), bus)
    assert [line.id for line in sorted(begun(php), key=lambda line: line.id)] == ids


def test_passwords_topics_and_groups_change_in_place(buses: Buses, fpm: Callable[..., Fpm]) -> None:
    php = fpm()
    script = php.script(WIRE)
    text = queue(script, "concurrency = 2").replace("open = loopback\n", "")
    bus = buses.start(node(php), {"orders": text})
    old = bus.client("orders", "secret")
    (first,) = json.loads(old.execute_command("LPUSH", "orders/x", "early"))["jobs"]
    until_count(bus, done=1)

    more = text.replace("password = secret", "password = changed")
    more += f"[[audit]]\nrun = fastcgi\npool = php\nscript = {script}\n"
    bus.write_queue("orders", more)
    assert bus.ask("reload")["ok"]
    with pytest.raises(redis.AuthenticationError):
        bus.client("orders", "secret").ping()
    new = bus.client("orders", "changed")
    (second,) = json.loads(new.execute_command("LPUSH", "orders/x", "late"))["jobs"]
    until_count(bus, "orders/audit", done=1)
    until_count(bus, "orders/mail", done=2)
    seen = {(line.topic, line.id) for line in ended(php)}
    assert seen == {("orders/mail", first), ("orders/mail", second), ("orders/audit", second)}

    new.execute_command("LPUSH", "orders/x", *["sleep 0.2"] * 10)
    bus.write_queue("orders", "process_group = others\n" + more)
    assert bus.ask("reload")["ok"]
    until(lambda: ended(php), lambda lines: len(lines) == 3 + 20, bus)
    assert {line.attempt for line in begun(php)} == {1}
    bus.wait_for(
        lambda status: [p["name"] for p in status["processes"] if p["role"] == "worker"] == ["worker.others.0"]
    )
    old.close()
    new.close()
