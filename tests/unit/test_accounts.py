"""The accounts' file, sessions, back-off and the audit log by themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pepperbus.accounts import passwords, sessions
from pepperbus.accounts.audit import RESERVE_BYTES, Audit
from pepperbus.accounts.model import HOST_ROLES, Actor, Role, Via, narrowed, parse_roles
from pepperbus.accounts.patience import ACCOUNT_S, ADDRESS_S, FREE, Patience
from pepperbus.accounts.store import Store
from pepperbus.clock import ManualClock
from pepperbus.errors import NotFound, PepperbusError, UsageError

HOUR, DAY = 3600.0, 86400.0
ANNA = Actor("anna", Via.WEB, "203.0.113.9", HOST_ROLES)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Store:
    store = Store(tmp_path, clock)
    store.add("anna", "hash", HOST_ROLES)
    return store


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    return Audit(tmp_path)


# -- accounts ----------------------------------------------------------------------------------------------------------


def test_the_file_comes_with_the_first_account_and_not_before(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.is_empty()
    assert store.find("anna") is None
    with pytest.raises(PepperbusError, match="first account must be an administrator"):
        store.add("anna", "hash", {"shop": Role.ADMIN})
    assert not store.path.exists()
    store.add("anna", "hash", HOST_ROLES)
    assert store.path.stat().st_mode & 0o777 == 0o600


def test_there_is_always_an_administrator_left(store: Store) -> None:
    store.add("bob", "hash", {"*": Role.OPERATOR, "shop": Role.ADMIN})
    for deed in (
        lambda: store.set_disabled("anna", True),
        lambda: store.set_roles("anna", {"shop": Role.ADMIN}),
        lambda: store.remove("anna"),
    ):
        with pytest.raises(PepperbusError, match="the last account with the role admin"):
            deed()
    assert store.account("anna").roles == HOST_ROLES
    store.set_roles("bob", HOST_ROLES)
    store.remove("anna")
    with pytest.raises(NotFound):
        store.account("anna")


def test_two_setup_pages_at_once_make_one_administrator(tmp_path: Path) -> None:
    done: list[str] = []

    def make(name: str) -> None:
        try:
            Store(tmp_path).add(name, "hash", HOST_ROLES, first=True)
            done.append(name)
        except PepperbusError:
            pass

    threads = [threading.Thread(target=make, args=(f"n{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [account.name for account in Store(tmp_path).accounts()] == done
    assert len(done) == 1


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 129, "a\nb"])
def test_what_cannot_name_an_account(store: Store, name: str) -> None:
    with pytest.raises(UsageError):
        store.add(name, "hash", HOST_ROLES)


def test_roles_are_read_from_words() -> None:
    assert parse_roles(["viewer", "shop=admin"]) == {"*": Role.VIEWER, "shop": Role.ADMIN}
    for words in (["boss"], ["=admin"], ["shop="]):
        with pytest.raises(UsageError):
            parse_roles(words)


def test_narrowed_never_gives_more() -> None:
    mine = {"*": Role.VIEWER, "shop": Role.ADMIN}
    assert narrowed(mine, Role.ADMIN, ["*"]) == mine
    assert narrowed(mine, Role.OPERATOR, ["shop"]) == {"shop": Role.OPERATOR}
    assert narrowed(mine, Role.ADMIN, ["bank"]) == {"bank": Role.VIEWER}
    assert narrowed({"shop": Role.ADMIN}, Role.ADMIN, ["bank"]) == {}


def test_passwords_are_argon2_and_wrong_ones_do_not_match() -> None:
    kept = passwords.hashed("correct horse")
    assert kept.startswith("$argon2id$")
    assert passwords.matches("correct horse", kept)
    assert not passwords.matches("correct horsf", kept)
    assert not passwords.matches("correct horse", "")
    assert not passwords.matches("correct horse", "no hash at all")
    with pytest.raises(UsageError, match="10 to 1024"):
        passwords.hashed("short")
    assert len({passwords.invented() for _ in range(100)}) == 100


def test_a_hash_does_not_stop_the_hub() -> None:
    script = """
from gevent import monkey
monkey.patch_all()
import gevent, time
from pepperbus.accounts import passwords
gaps, last = [], time.monotonic()
def tick():
    global last
    while True:
        gevent.sleep(0.001)
        now = time.monotonic()
        gaps.append(now - last)
        last = now
passwords.hashed("a long password")
gevent.spawn(tick)
gevent.sleep(0.01)
most = 0
for _ in range(10):  # a busy machine may keep the hub from its core for once
    gaps.clear()
    for _ in range(4):
        passwords.hashed("a long password")
    most = max(most, len(gaps))
    if most > 20:
        break
print(most)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) > 20, "four hashes take a tenth of a second and more; the hub must have gone on"


# -- sessions ----------------------------------------------------------------------------------------------------------


def test_a_session_ends_when_idle_and_at_its_longest(store: Store, clock: ManualClock) -> None:
    secret = sessions.begin(store, "anna", "127.0.0.1")
    for _ in range(9):
        clock.advance(0.9 * HOUR)
        assert sessions.session(store, secret, HOUR, 9 * HOUR)
    clock.advance(0.95 * HOUR)
    assert sessions.session(store, secret, HOUR, 9 * HOUR) is None
    other = sessions.begin(store, "anna", "127.0.0.1")
    clock.advance(1.1 * HOUR)
    assert sessions.session(store, other, HOUR, 9 * HOUR) is None
    clock.advance(-HOUR)
    assert sessions.session(store, other, HOUR, 9 * HOUR) is None, "over is over"


def test_a_session_ends_with_the_password_and_the_account(store: Store) -> None:
    store.add("bob", "hash", {"shop": Role.VIEWER})

    def ended(deed: object) -> bool:
        secret = sessions.begin(store, "bob", "")
        assert sessions.session(store, secret, HOUR, DAY)
        deed()  # type: ignore[operator]
        return sessions.session(store, secret, HOUR, DAY) is None

    assert ended(lambda: store.set_hash("bob", "other"))
    assert not ended(lambda: store.set_roles("bob", {"shop": Role.ADMIN}))
    assert ended(lambda: store.set_disabled("bob", True))
    store.set_disabled("bob", False)
    assert ended(lambda: store.remove("bob"))


def test_secrets_are_not_in_the_file(store: Store) -> None:
    secret = sessions.begin(store, "anna", "")
    _, text = sessions.add_token(store, "anna", "t", Role.VIEWER, ["*"], 2**52)
    data = store.path.read_bytes()
    assert secret.encode() not in data
    assert text.split("_", 2)[2].encode() not in data
    assert sessions.csrf_of(secret) != secret


# -- back-off ----------------------------------------------------------------------------------------------------------


def test_failed_logins_cost_more_and_more_time(clock: ManualClock) -> None:
    patience = Patience(clock)
    waits = []
    for _ in range(FREE + 12):
        patience.failed("anna", "203.0.113.9")
        waits.append(patience.wait_s("anna", "203.0.113.9"))
    assert waits[:FREE] == [0.0] * FREE
    assert waits[FREE : FREE + 4] == [2.0, 4.0, 8.0, 16.0]
    assert waits[-1] == ADDRESS_S
    assert patience.wait_s("anna", "198.51.100.1") == ACCOUNT_S, "the owner is not locked out for long"
    assert patience.wait_s("bob", "203.0.113.9") == ADDRESS_S, "other accounts from there wait as well"
    clock.advance(ADDRESS_S + 1)
    assert patience.wait_s("anna", "203.0.113.9") == 0
    patience.succeeded("anna")
    assert patience.wait_s("bob", "198.51.100.1") == 0


def test_an_ipv6_user_has_one_network_and_memory_is_bounded(clock: ManualClock) -> None:
    patience = Patience(clock)
    for i in range(FREE + 3):
        patience.failed(f"u{i}", f"2001:db8::{i}")
    assert patience.wait_s("x", "2001:db8::ffff") > 0
    for i in range(30_000):
        patience.failed("x", f"u{i}")
    assert len(patience._known) <= 10_000


# -- audit log ---------------------------------------------------------------------------------------------------------


def fill(audit: Audit, n: int) -> None:
    for i in range(n):
        entry = audit.begin(ANNA, "pause", f"q{i}", {})
        audit.end(entry, "done", "", {}, {"i": i})


def test_what_was_done_is_found_newest_first_and_page_by_page(audit: Audit) -> None:
    fill(audit, 25)
    audit.begin(ANNA, "replay", "orders/mail", {"rate": 5.0})
    page = audit.search(limit=10)
    assert [entry.about for entry in page.entries] == ["orders/mail", *(f"q{i}" for i in range(24, 15, -1))]
    assert (page.entries[0].result, page.entries[1].result) == ("begun", "done")
    names = [entry.about for entry in page.entries]
    while page.cursor:
        page = audit.search(limit=10, before=page.cursor)
        names += [entry.about for entry in page.entries]
    assert names == ["orders/mail", *(f"q{i}" for i in range(24, -1, -1))]
    assert [entry.about for entry in audit.search(about="q1").entries] == [f"q{i}" for i in (*range(19, 9, -1), 1)]
    assert audit.search(who="bob").entries == []
    assert audit.verify().ok


def _cut_end(lines: list[bytes]) -> list[bytes]:
    return lines[:-1]


def _cut_middle(lines: list[bytes]) -> list[bytes]:
    return lines[:3] + lines[4:]


def _change(lines: list[bytes]) -> list[bytes]:
    return [line.replace(b'"q1"', b'"q7"') for line in lines]


def _swap(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], lines[3], lines[2], *lines[4:]]


def _garbage(lines: list[bytes]) -> list[bytes]:
    return [*lines[:2], b"\xff\n", *lines[2:]]


@pytest.mark.parametrize("tamper", [_cut_end, _cut_middle, _change, _swap, _garbage])
def test_what_is_changed_afterwards_shows(audit: Audit, tamper: object) -> None:
    fill(audit, 4)
    (path,) = audit.directory.glob("*.jsonl")
    path.write_bytes(b"".join(tamper(path.read_bytes().splitlines(keepends=True))))  # type: ignore[operator]
    found = audit.verify()
    assert not found.ok
    assert found.broken
    fill(audit, 1)
    assert not audit.verify().ok, "going on does not hide it"


def test_a_log_written_anew_lacks_the_hash_one_has_noted(audit: Audit) -> None:
    fill(audit, 3)
    noted = audit.verify().head
    fill(audit, 2)
    assert audit.verify(noted).ok
    for path in audit.directory.iterdir():
        path.unlink()
    fill(audit, 9)
    assert audit.verify().ok
    assert not audit.verify(noted).ok


def test_a_crash_between_line_and_head_and_half_a_line_are_no_tampering(audit: Audit) -> None:
    fill(audit, 1)
    head = audit.directory / "head"
    before = head.read_bytes()
    fill(audit, 2)
    for stale in (before, b"", b"\xff\xff", b"17 x"):
        head.write_bytes(stale)
        assert audit.verify().ok
        fill(audit, 1)
        assert audit.verify().ok
    (path,) = audit.directory.glob("*.jsonl")
    with path.open("ab") as file:
        file.write(b'{"n":7,"at_ms"')
    fill(audit, 1)
    assert audit.verify().ok
    assert audit.verify().entries == 16


def test_many_writers_make_one_chain(audit: Audit, tmp_path: Path) -> None:
    threads = [threading.Thread(target=fill, args=(Audit(tmp_path), 10)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = audit.verify()
    assert (found.ok, found.entries) == (True, 120)


def test_segments_follow_each_other(audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pepperbus.accounts.audit.SEGMENT_BYTES", 2000)
    fill(audit, 20)
    assert len(list(audit.directory.glob("*.jsonl"))) > 3
    assert audit.verify().ok
    assert len(audit.search().entries) == 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    directory = tmp_path / "small"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", directory], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    yield directory
    subprocess.run(["umount", directory], check=True)


def test_on_a_full_disk_deeds_are_written_to_the_reserve_and_then_refused(small_disk: Path) -> None:
    audit = Audit(small_disk)
    fill(audit, 1)
    with (small_disk / "filler").open("wb", 0) as filler, pytest.raises(OSError, match="No space"):
        while filler.write(b"x" * 4096):
            pass
    written = 0
    with pytest.raises(PepperbusError, match="cannot be written: No space left on device"):
        for i in range(10_000):
            entry = audit.begin(ANNA, "purge", f"q{i}", {})
            audit.end(entry, "done", "", {}, {})
            written += 1
    assert written > RESERVE_BYTES / 1024 / 2, "the reserve bears about a thousand deeds"
    assert audit.verify().ok
    (small_disk / "filler").unlink()
    fill(audit, 1)
    found = audit.verify()
    assert (found.ok, found.entries) == (True, 2 * written + 4)
