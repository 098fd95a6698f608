"""Hashed passwords at the front door: right and wrong ones, how long each takes, and that others need not wait."""

from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest
import redis

from tests.fixtures.bus import NODE, ROOT, Bus, Buses

QUEUE = """
password = "@HASH@"
storage = local
ping = off
[topics]
    [[mail]]
        run = http
        url = http://127.0.0.1:9/none
        paused = yes
"""
PLAIN = QUEUE.replace("@HASH@", "plain-secret")


def make_hash(text: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pepperbus.cli", "password"], cwd=ROOT, input=text + "\n", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r'"(\$argon2id\$\S+)"\n', done.stdout)
    assert found, done.stdout
    return found[1]


@pytest.fixture(scope="module")
def hashed() -> str:
    return make_hash("correct horse battery")


@pytest.fixture
def bus(buses: Buses, hashed: str) -> Bus:
    node = NODE + f'[logins]\nshop = "{hashed}", push|pop, orders\n'
    return buses.start(node, {"orders": QUEUE.replace("@HASH@", hashed), "bills": PLAIN})


def seconds(client: redis.Redis, *words: str) -> tuple[float, str]:
    began = time.monotonic()
    try:
        answer = str(client.execute_command(*words))
    except redis.RedisError as error:
        answer = str(error)
    return time.monotonic() - began, answer


@pytest.mark.parametrize("protocol", [2, 3])
def test_the_password_behind_a_hash_opens_the_queue(bus: Bus, protocol: int) -> None:
    for name in ("orders", "shop", "orders/mail"):
        client = bus.client(name, "correct horse battery", protocol=protocol)
        assert client.ping()
    assert bus.client("shop", "correct horse battery", protocol=protocol).lpush("orders", "x") == 1


def test_what_comes_behind_a_slow_login_waits_for_it(bus: Bus) -> None:
    raw = redis.Connection("127.0.0.1", bus.port, protocol=2)
    raw.connect()
    raw.send_packed_command(
        raw.pack_commands([("AUTH", "orders", "correct horse battery"), ("LPUSH", "orders", "x" * (1 << 20))])
    )
    assert (raw.read_response(), raw.read_response()) == (b"OK", 1)
    raw.disconnect()


def test_the_hash_itself_is_no_password(bus: Bus, hashed: str) -> None:
    client = bus.client()
    assert seconds(client, "AUTH", "orders", hashed)[1] == "invalid password"
    assert seconds(client, "AUTH", f"orders:{hashed}")[1] == "invalid password"
    assert "Authentication required" in seconds(client, "LPUSH", "orders", "x")[1]


def test_unknown_names_and_wrong_passwords_take_the_time_of_a_hash(bus: Bus) -> None:
    """And the known right one none of it: an argon2 check takes tens of milliseconds."""
    client = bus.client()
    assert seconds(client, "AUTH", "orders", "correct horse battery")[1] == "True"
    fast, tries = 1.0, 0
    while fast >= 0.02:
        assert (tries := tries + 1) < 100, fast  # a machine under load is slow at times, a hash always
        fast = min(fast, seconds(client, "AUTH", "orders", "correct horse battery")[0])
    wrong, answer = seconds(client, "AUTH", "orders", "wrong")
    unknown, same = seconds(client, "AUTH", "nobody", "wrong")
    assert answer == same == seconds(client, "AUTH", "bills", "wrong")[1] == "invalid password"
    assert fast < 0.02 < 0.1 < min(wrong, unknown)  # both are also held back by the throttle: 0.1 s and more


def test_nobody_else_waits_while_hashes_are_checked(bus: Bus) -> None:
    client = bus.client("bills", "plain-secret")
    rounds: list[float] = []
    while not rounds or rounds[-1] >= 0.25:
        assert len(rounds) < 10, rounds  # a machine under load is slow at times, a hash in the hub always
        guessers = []
        for _ in range(6):
            raw = redis.Connection("127.0.0.1", bus.port, protocol=2)
            raw.connect()
            raw.send_command("AUTH", "orders", "guess")
            guessers.append(raw)
        rounds.append(max(seconds(client, "LPUSH", "bills", "x")[0] for _ in range(50)))
        for raw in guessers:
            with pytest.raises(redis.RedisError):
                raw.read_response()
            raw.disconnect()


def test_the_command_line_says_what_it_lacks(bus: Bus) -> None:
    done = bus.cli("push", "orders", "x")
    assert done.returncode == 1
    assert "PEPPERBUS_PASSWORD" in done.stderr
    done = bus.cli("push", "bills", "x")
    assert done.returncode == 0, done.stderr


def test_a_hash_that_was_cut_is_a_mistake(bus: Bus, hashed: str) -> None:
    bus.write_queue("orders", QUEUE.replace("@HASH@", hashed[:40]))
    done = bus.cli("check")
    assert done.returncode == 1
    assert "password = ***: this hash is cut short" in done.stderr
