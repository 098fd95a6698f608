"""What somebody with a login, or bad luck, may try: rights of another system, work that others wait for, secrets in a diff."""

from __future__ import annotations

import base64
import fcntl
import io
import os
import socketserver
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pepperbus.accounts.model import HOST_ROLES, Actor, Role, Via
from pepperbus.accounts.patience import Patience
from pepperbus.cli import replays, words
from pepperbus.clock import ManualClock
from pepperbus.config.load import load
from pepperbus.errors import Forbidden, PepperbusError, UsageError
from pepperbus.operations import (
    alarms,
    closing,
    editing,
    marks,
    queue_files,
    queue_text,
    queues,
    storage_files,
    versions,
)
from pepperbus.operations.office import Office
from pepperbus.operations.replays import ReplayView
from pepperbus.operations.results import Event, Life, TopicLife
from pepperbus.replay.model import Deed
from tests.unit.test_rights import PEOPLE, browser
from tests.unit.test_web import QUEUE, Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.office.close()


def acting(place: Place, name: str) -> Office:
    """The office with one of PEOPLE in it."""
    roles = {system: Role(role) for system, role in (PEOPLE[name] or {}).items()}
    return place.office.acting(Actor(name, Via.WEB, roles=roles))


def packed(files: dict[str, bytes]) -> io.BytesIO:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    made.seek(0)
    return made


def brought(place: Place, who: str, *archives: io.BytesIO) -> Any:
    files = [(archive, f"{n}.zip") for n, archive in enumerate(archives)]
    headers = {"Origin": "http://localhost"}
    return browser(place, who).post("/queues/files/try", data={"files": files}, headers=headers)


# -- work that others wait for -----------------------------------------------------------------------------------------


def test_nothing_is_unpacked_for_who_may_put_no_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("unpacked"))
    archive = io.BytesIO(b"PK")
    assert brought(place, "looker", archive).status_code == 403


def test_many_archives_together_hold_no_more_than_one_may(place: Place) -> None:
    large = b"#" * (6 << 20)
    archives = [packed({f"q{n}.conf": large}) for n in range(3)]
    assert brought(place, "chief", *archives).status_code == 400


def test_an_archive_with_a_password_or_damage_is_said_to_be_none(place: Place) -> None:
    good = packed({"orders.conf": b"x" * 500}).getvalue()
    locked = bytearray(good)
    locked[6] |= 1
    locked[good.index(b"PK\x01\x02") + 8] |= 1  # flag of encryption, in both headers
    damaged = good[:45] + bytes([good[45] ^ 0xFF, good[46] ^ 0xFF]) + good[47:]
    for data in (bytes(locked), damaged):
        assert brought(place, "chief", io.BytesIO(data)).status_code == 400


def test_a_text_too_long_for_a_queue_is_not_even_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_text, "parsed", lambda text: pytest.fail("read"))
    text = "a = 1\n" * 100_000
    with pytest.raises(Forbidden):
        queues.put(acting(place, "looker"), "new", text)
    with pytest.raises(UsageError, match="more than 256 KiB"):
        queues.put(acting(place, "chief"), "new", text)


def test_an_editor_who_waits_for_another_gives_up_and_says_so(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other may be a greenlet of this process: who waited in the kernel would wait for ever."""
    monkeypatch.setattr(editing, "_PATIENCE_S", 0.1)
    told: list[str] = []

    def edit() -> None:
        try:
            queues.change(acting(place, "chief"), "orders", {"system": "bank"})
        except PepperbusError as error:
            told.append(str(error))

    fd = os.open(place.directory / "queues.d", os.O_RDONLY)
    editor = threading.Thread(target=edit, daemon=True)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        editor.start()
        editor.join(20)
        assert len(told) == 1
        assert "somebody else is changing files there" in told[0]
    finally:
        os.close(fd)
        editor.join(20)


def test_of_two_who_change_storages_at_once_neither_is_lost(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is asking its new Redis when the second begins."""
    begun, chief = threading.Event(), acting(place, "chief")
    settings = {"type": "embedded"}
    second = threading.Thread(target=lambda: storage_files.add(chief, "second", settings), daemon=True)
    asks = storage_files._ask

    def ask(config: Any, name: str) -> None:
        if name == "first":
            begun.set()
            second.start()
            second.join(1.0)  # either it has written by now, or it waits for us
        asks(config, name)

    monkeypatch.setattr(storage_files, "_ask", ask)
    storage_files.add(chief, "first", settings)
    second.join(20)
    text = (place.directory / "node.conf").read_text()
    assert begun.is_set()
    assert "[[first]]" in text
    assert "[[second]]" in text


def test_a_number_that_nothing_can_have_is_not_found(place: Place) -> None:
    chief, huge = browser(place, "chief"), 10**19
    assert chief.get(f"/api/v1/replays/{huge}").status_code == 404
    assert chief.get(f"/replays/{huge}").status_code == 404
    assert (
        chief.post(f"/alarms/silences/{huge}/end", headers={"Origin": "http://localhost"}, data={"a": "b"}).status_code
        == 404
    )


def test_what_makes_no_sense_is_no_bug_of_ours(place: Place) -> None:
    chief = browser(place, "chief")
    body = {"contents": ["é"], "encoding": "base64"}
    assert chief.post("/api/v1/queues/orders/push", json=body).status_code == 400
    assert chief.get("/search?topic=orders/mail&since=yesterday").status_code == 200
    assert chief.get("/topics/orders/mail/jobs?since=yesterday").status_code == 200


# -- rights of another system ------------------------------------------------------------------------------------------


def test_a_file_the_bus_has_not_taken_belongs_to_the_system_it_names(place: Place) -> None:
    """Whoever replaced it would have its secrets put in for the stars."""
    (place.directory / "queues.d" / "pay.conf").write_text(QUEUE.replace("system = shop", "system = bank"))
    text = QUEUE.replace("the-secret", "***")
    with pytest.raises(Forbidden):
        queues.put(acting(place, "head"), "pay", text)
    with pytest.raises(Forbidden):
        queue_files.trial(acting(place, "head"), "pay", text)
    queues.put(acting(place, "chief"), "pay", text)


def test_the_name_of_a_removed_queue_stays_with_its_system(place: Place) -> None:
    """Its jobs and what they told lie on under that name."""
    file = place.directory / "queues.d" / "pay.conf"
    file.write_text(QUEUE.replace("system = shop", "system = bank"))
    place.office.take(load(place.directory / "node.conf", {}))
    queues.remove(acting(place, "chief"), "pay", keep_jobs=True)
    place.office.take(load(place.directory / "node.conf", {}))
    settings = {"system": "shop", "mail/run": "pull"}
    with pytest.raises(Forbidden):
        queues.add(acting(place, "head"), "pay", settings)
    with pytest.raises(Forbidden):
        queues.put(acting(place, "head"), "pay", QUEUE)
    assert not file.exists()
    queues.add(acting(place, "elsewhere"), "pay", {**settings, "system": "bank"})


def test_a_queue_opened_again_is_not_removed_because_the_bus_does_not_know_yet(place: Place) -> None:
    chief, file = acting(place, "chief"), place.directory / "queues.d" / "orders.conf"
    closing.close(chief, "orders", remove=True)
    place.office.take(load(place.directory / "node.conf", {}))
    closing.reopen(acting(place, "chief"), "orders")
    assert not closing.finish(acting(place, "chief"), "orders")
    assert file.exists()
    closing.close(acting(place, "chief"), "orders", remove=True)
    assert closing.finish(acting(place, "chief"), "orders")
    assert not file.exists()


def test_a_file_that_cannot_be_read_can_be_put_right(place: Place) -> None:
    file = place.directory / "queues.d" / "orders.conf"
    file.write_text("[[[\n")
    assert queues.put(acting(place, "chief"), "orders", QUEUE).what == "changed"
    assert file.read_text() == QUEUE


def test_who_may_mark_errors_of_one_topic_marks_none_of_another(place: Place) -> None:
    hand, key = acting(place, "hand"), "0123456789abcdef"
    marks.mark(place.office.acting(Actor("chief", Via.WEB, roles=HOST_ROLES)), "pay/card", key, "acknowledged")
    marks.mark(hand, "orders/mail", key, "resolved")
    known = marks.read(hand)
    assert known[marks.name("pay/card", key)].state == "acknowledged"
    assert known[marks.name("orders/mail", key)].state == "resolved"
    with pytest.raises(UsageError, match="no error's key"):
        marks.mark(hand, "orders/mail", "x" * 10_000, "resolved")


def test_the_limits_of_a_topic_are_for_those_who_may_see_it(place: Place) -> None:
    change = {"mail/alarms/dead": "777"}
    queues.change(acting(place, "chief"), "orders", change)
    place.office.take(load(place.directory / "node.conf", {}))
    for who, sees in (("looker", True), ("elsewhere", False)):
        told = alarms.state(acting(place, who), "orders/mail")
        assert ("777" in str([rule.text for rule in told.rules])) == sees, who


def test_a_form_of_a_browser_that_is_logged_in_is_no_link(place: Place) -> None:
    """HEAD carries the cookie as GET does, and no token."""
    place.push(3)
    place.kill(3, "no")
    where = "/CleanFailedJobs?queue=orders&topic=mail"
    for method in ("GET", "HEAD"):
        place.client.open(where, method=method)
        assert place.office.storage("local").depth("orders/mail").dead == 3, method


# -- logins ------------------------------------------------------------------------------------------------------------


class Gateway(socketserver.StreamRequestHandler):
    """Knows one password; takes every push."""

    def handle(self) -> None:
        while header := self.rfile.readline():
            words = []
            for _ in range(int(header[1:])):
                words.append(self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2])
            if words[0] == b"AUTH":
                self.wfile.write(b"+OK\r\n" if words[-1] == b"the-secret" else b"-WRONGPASS no\r\n")
            else:
                self.wfile.write(b'$40\r\n{"jobs":["1"],"inTraceId":"","error":""}\r\n')


class Producers:
    """Behind a proxy of ours, each with an address of its own."""

    def __init__(self, place: Place) -> None:
        config = place.office.config
        place.office.take(replace(config, web=replace(config.web, proxies=("127.0.0.1",))))
        self._client = place.app.test_client()

    def push(self, user: str, password: str, address: str, queue: str = "orders") -> int:
        word = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers = {"Authorization": f"Basic {word}", "X-Forwarded-For": address}
        return self._client.post(f"/push/{queue}", data="x", headers=headers).status_code


@pytest.fixture
def gateway(place: Place) -> Iterator[None]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", place.port), Gateway) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


@pytest.mark.usefixtures("gateway")
def test_wrong_passwords_from_elsewhere_keep_no_producer_out(place: Place) -> None:
    """Nor those of another program of the same machine."""
    place.desk.base.patience = Patience(ManualClock())  # no time passes
    producers = Producers(place)
    codes = [producers.push("orders", "guess", "203.0.113.9") for _ in range(12)]
    assert codes[0] == 401
    assert codes[-1] == 429, "who guesses waits"
    assert producers.push("orders", "the-secret", "198.51.100.1") == 200
    assert producers.push("other", "the-secret", "203.0.113.9") == 200


@pytest.mark.usefixtures("gateway")
def test_a_queue_open_to_this_machine_is_not_open_to_whoever_has_some_other_password(place: Place) -> None:
    """To the gateway every push over HTTP comes from this machine."""
    near = QUEUE.replace("password = the-secret", "password = the-secret\nopen = loopback")
    (place.directory / "queues.d" / "near.conf").write_text(near)
    place.office.take(load(place.directory / "node.conf", {}))
    producers = Producers(place)
    assert producers.push("orders", "the-secret", "203.0.113.9", "near") == 403
    assert producers.push("near", "guess", "203.0.113.9", "near") == 401
    assert producers.push("near", "the-secret", "203.0.113.9", "near") == 200


# -- secrets -----------------------------------------------------------------------------------------------------------

SPELLINGS = """\
"X-Api-Key" = hush{n}
app.secret = hush{n}
PRIVATE_KEY = '''hush{n}
hush{n}'''
"""
TOPIC = "password = pw\n[topics]\n[[mail]]\n[[[headers]]]\n"
INTAKES = "password = pw\n[intakes]\n[[old]]\nurl = {url}\n"
URLS = ("redis://:hu@hush{n}@127.0.0.1/0", "unix:///run/redis.sock?password=hush{n}")


def test_a_diff_shows_no_secret_however_it_is_written() -> None:
    texts = [TOPIC + SPELLINGS, "[[[\n" + SPELLINGS.partition("PRIVATE")[0]]
    texts += [INTAKES.replace("{url}", url) for url in URLS]
    for text in texts:
        before, after = text.replace("{n}", "1"), text.replace("{n}", "2")
        shown = "\n".join(versions.diff(before, after))
        assert "hush" not in shown
        assert "\n+" in shown, "that it is another one is said"
        assert versions.diff(before, before) == []


def test_a_password_in_the_query_of_an_intakes_url_is_not_taken_along() -> None:
    text = INTAKES.replace("{url}", URLS[1])
    assert "hush" not in queue_text.starred(text)
    assert queue_text.filled(queue_text.starred(text), text) == text


@pytest.mark.parametrize(
    "key", ["password=file:/etc/passwd", "mail/params/A\nB", "mail]]/run", 'mail/"run', "mail/params/#"]
)
def test_a_key_is_never_more_than_a_key(key: str) -> None:
    with pytest.raises(UsageError, match="KEY"):
        queue_text.edited("", {key: "x"})


def test_a_value_that_no_file_can_hold_is_said() -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        queue_text.edited("", {"password": "'''\"\"\"\n"})


# -- terminals ---------------------------------------------------------------------------------------------------------


def test_nothing_that_others_wrote_is_obeyed_by_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    wild = "\x1b]0;owned\x07\x9b2J"
    words.table(("id", "why"), [(1, wild)])
    failed = Event(
        "attempt",
        "1",
        "orders/mail",
        1,
        code=500,
        error_code=wild,
        stderr=f"PHP Fatal error in /data{wild}.php:1",
        php_file=wild,
    )
    words.life(Life("1", 1, client=wild, content=wild, topics=[TopicLife("orders/mail", "gone", wild, None, [failed])]))
    made = ReplayView(1, "orders/mail", "stopped", why=wild, words={"text": wild}, deeds=[Deed(1, "anna", "go", wild)])
    replays._whole(made)
    shown = capsys.readouterr().out
    assert "owned" in shown
    assert not set(shown) & {"\x1b", "\x07", "\x9b"}
