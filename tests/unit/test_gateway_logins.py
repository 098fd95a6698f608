"""Passwords and the slowing down of those who guess: the same work for every refusal, bounded memory, no lock-out."""

from __future__ import annotations

import hmac
from pathlib import Path

import pytest

from pepperbus.config.load import load
from pepperbus.config.model import Config
from pepperbus.config.secret import Secret
from pepperbus.gateway import logins
from pepperbus.gateway.logins import (
    FIRST_DELAY,
    FORGET,
    LONGEST_DELAY,
    LONGEST_LOCAL_DELAY,
    Passwords,
    Throttle,
    log_in,
    needs_time,
    still_valid,
)
from tests.fixtures.bus import NODE

QUEUE = (
    "password = {}\nstorage = local\n[topics]\n    [[mail]]\n        run = http\n        url = http://127.0.0.1:9/\n"
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "queues.d").mkdir()
    node = NODE.replace("@PORT@", "12017").replace("@WEB@", "19840") + "[logins]\n    shop = ключ, push, orders\n"
    (tmp_path / "node.conf").write_text(node)
    (tmp_path / "queues.d" / "orders.conf").write_text(QUEUE.format('"päss:wörd"'))
    return load(tmp_path / "node.conf", {})


@pytest.mark.parametrize(
    ("name", "password", "works"),
    [
        ("orders", "päss:wörd", True),
        ("orders/mail", "päss:wörd", True),
        ("shop", "ключ", True),
        ("orders", "päss:wör", False),
        ("orders", "päss:wördx", False),
        ("orders", "", False),
        ("orders", "x" * 100_000, False),
        ("orders/none", "päss:wörd", False),
        ("nobody", "nobody", False),
        ("shop/mail", "ключ", False),
    ],
)
def test_who_gets_in(config: Config, name: str, password: str, works: bool) -> None:
    assert (log_in(config, Passwords(), name.encode(), password.encode()) is not None) is works


def test_bytes_that_are_no_text_are_only_wrong(config: Config) -> None:
    assert log_in(config, Passwords(), b"\xff\xfe", b"\x00\xff") is None
    assert log_in(config, Passwords(), b"orders", b"\xff") is None


def test_every_refusal_is_the_same_work(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """One digest of what was given and one comparison in constant time, over equal lengths, whatever the name."""
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((len(a), len(b)))
        return real(a, b)

    monkeypatch.setattr(logins.hmac, "compare_digest", compare)
    passwords = Passwords()
    for name, password in (
        (b"orders", b"x"),
        (b"orders", b"x" * 999),
        (b"nobody", b"x"),
        (b"orders/none", b""),
        (b"shop", b"x"),
    ):
        assert log_in(config, passwords, name, password) is None
    assert compared == [(32, 32)] * 5


def test_an_empty_password_opens_nothing() -> None:
    assert not Passwords().matches(Secret(""), b"")


def test_nothing_readable_is_kept_of_a_password(config: Config) -> None:
    passwords = Passwords()
    assert log_in(config, passwords, b"orders", "päss:wörd".encode())
    kept = b"".join(passwords._digests.values())
    assert "päss".encode() not in kept
    other = Passwords()
    log_in(config, other, b"orders", "päss:wörd".encode())
    assert set(other._digests.values()).isdisjoint(passwords._digests.values())  # keyed anew for each process


def test_plain_passwords_need_no_time(config: Config) -> None:
    assert not needs_time(config)


def test_a_changed_password_ends_a_login(config: Config, tmp_path: Path) -> None:
    login = log_in(config, Passwords(), b"orders", "päss:wörd".encode())
    assert login is not None
    assert still_valid(config, login) == login
    (tmp_path / "queues.d" / "orders.conf").write_text(QUEUE.format("other"))
    assert still_valid(load(tmp_path / "node.conf", {}), login) is None


def test_each_failure_of_an_address_is_answered_later() -> None:
    throttle = Throttle()
    waits = [throttle.failed("10.0.0.1", False, now)[0] for now in range(10)]
    assert waits[:4] == [FIRST_DELAY, FIRST_DELAY * 2, FIRST_DELAY * 4, FIRST_DELAY * 8]
    assert max(waits) == waits[-1] == LONGEST_DELAY
    assert throttle.failed("10.0.0.2", False, 10.0) == (FIRST_DELAY, 1)  # another one pays nothing for it


def test_this_machine_is_never_held_for_long() -> None:
    throttle = Throttle()
    assert max(throttle.failed("127.0.0.1", True, now)[0] for now in range(50)) == LONGEST_LOCAL_DELAY


def test_an_address_is_forgiven_and_many_addresses_cost_no_memory() -> None:
    throttle = Throttle()
    for now in range(5):
        throttle.failed("10.0.0.1", False, now)
    assert throttle.failed("10.0.0.1", False, 5 + FORGET)[1] == 1
    for n in range(20_000):
        throttle.failed(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", False, 100.0)
    assert len(throttle._failures) <= 10_000
