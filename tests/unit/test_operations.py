"""What an operator can do, on real embedded storages and real journal files, without a running bus."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pepperbus.clock import ManualClock
from pepperbus.config.load import load
from pepperbus.errors import ConfigError, NotFound, NotReachable, PepperbusError, UsageError
from pepperbus.ids import IdGenerator
from pepperbus.job import Job, State
from pepperbus.journal.contract import Row
from pepperbus.journal.log import LogWriter
from pepperbus.operations import consumer, jobs, life, pause, purge, queues, steer, tail
from pepperbus.operations.office import Office
from pepperbus.operations.results import to_json
from pepperbus.operations.status import StatusReader
from pepperbus.storage.contract import Outcome, Push, Settle

NOW = 1_800_000_000_000
NODE = """
queue_files = queues.d/*.conf
[bus]
    node = n1
    data_dir = data
    run_dir = run
[storages]
    [[local]]
        type = embedded
"""
ORDERS = """
# why orders exist
password = "p,w # d"    # of the shop
[topics]
    # mails go first
    [[mail]]
        run = http
        url = http://127.0.0.1:9/mail
        ping = off
    [[audit]]
        run = http
        url = http://127.0.0.1:9/audit
        ping = off
"""
MAIL, AUDIT = "orders/mail", "orders/audit"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "queues.d").mkdir()
    (tmp_path / "pepperbus.conf").write_text(NODE)
    (tmp_path / "queues.d/orders.conf").write_text(ORDERS)
    return tmp_path


@pytest.fixture
def office(directory: Path) -> Iterator[Office]:
    opened = Office(load(directory / "pepperbus.conf", {}), clock=ManualClock(NOW))
    yield opened
    opened.close()


def again(office: Office) -> Office:
    return Office(load(office.config.file, {}), clock=office.clock)


class Shop:
    """Pushes jobs and brings them into states, as gateway and worker do."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.storage = office.storage("local")
        self.ids = IdGenerator(2, 0, office.clock.now_ms)
        self.journal = LogWriter(office.config.bus.data_dir / "journal", "worker.orders.0", 1024)

    def push(self, *contents: bytes, due_ms: int = 0, topics: tuple[str, ...] = (MAIL,)) -> list[int]:
        made = [
            Job(self.ids.next(), "trace-1", content, self.office.clock.now_ms(), "10.0.0.9:4") for content in contents
        ]
        self.storage.push([Push(job.id, job.encode(), topics, due_ms) for job in made])
        return [job.id for job in made]

    def kill(self, *contents: bytes, reason: str = "no") -> list[int]:
        """Push jobs and let their first attempt fail for good."""
        ids = self.push(*contents)
        leased = self.storage.lease(MAIL, len(contents), "n1/worker.orders.0/b1")
        self.storage.settle(
            "n1/worker.orders.0/b1", [Settle(MAIL, one.job_id, Outcome.DEAD, reason=reason) for one in leased]
        )
        for job_id in ids:
            self.row(job_id, outcome="dead", reason=reason)
        return ids

    def row(self, job_id: int, **fields: Any) -> None:
        at_ms = fields.pop("at_ms", self.office.clock.now_ms())
        fields = {"topic": MAIL, "attempt": 1, "node": "n1", "process": "worker.orders.0", **fields}
        self.journal.add(Row("attempt", job_id, at_ms=at_ms, **fields))
        self.journal.flush()


@pytest.fixture
def shop(office: Office) -> Iterator[Shop]:
    shop = Shop(office)
    yield shop
    shop.journal.close()


# -- jobs ----------------------------------------------------------------------------------------------------------


def test_a_listing_pages_filters_and_shows_bytes_safely(office: Office, shop: Shop) -> None:
    shop.kill(b"plain", reason="Timeout")
    shop.kill(b"\xff\x00", reason="refused")
    found = jobs.jobs(office, jobs.select(MAIL))
    assert [(job.content, job.encoding, job.reason) for job in found.jobs] == [
        ("/wA=", "base64", "refused"),
        ("plain", "", "Timeout"),
    ]
    assert [job.content for job in jobs.jobs(office, jobs.select(MAIL, error="time")).jobs] == ["plain"]
    assert jobs.jobs(office, jobs.select(MAIL, since_ms=NOW + 10**6)).jobs == []
    first = jobs.jobs(office, jobs.select(MAIL), n=1)
    rest = jobs.jobs(office, jobs.select(MAIL), first.cursor, n=9)
    assert [job.content for job in first.jobs + rest.jobs] == ["/wA=", "plain"]
    assert rest.cursor == ""


def test_a_preview_never_cuts_a_character() -> None:
    text = "中" * 400
    assert jobs.preview_text(text.encode(), 1024) == ("中" * 341, "")


@pytest.mark.parametrize(
    ("words", "trouble"),
    [
        ((("orders"),), "QUEUE/TOPIC"),
        ((MAIL, ("12",)), "20 decimal digits"),
        ((MAIL, (), "gone"), "no state 'gone'"),
        ((MAIL, ("10000000000000000001",), "", "x"), "exclude each other"),
    ],
)
def test_a_wrong_selection_names_the_word(words: tuple[Any, ...], trouble: str) -> None:
    with pytest.raises(UsageError, match=trouble):
        jobs.select(*words)


def test_an_unknown_topic_is_not_found_with_the_nearest_name(office: Office) -> None:
    with pytest.raises(NotFound, match=r"did you mean 'orders/mail'"):
        jobs.jobs(office, jobs.select("orders/mial"))


# -- life ----------------------------------------------------------------------------------------------------------


def test_the_life_of_a_job_in_two_topics(office: Office, shop: Shop) -> None:
    (job_id,) = shop.push(b'{"order":7}', topics=(MAIL, AUDIT))
    for one in shop.storage.lease(AUDIT, 1, "n1/w/b"):
        shop.storage.settle("n1/w/b", [Settle(AUDIT, one.job_id, Outcome.DONE)])
    shop.row(job_id, topic=AUDIT, outcome="done", code=200, at_ms=NOW + 20, wait_ms=3.5, run_ms=16.0)
    shop.storage.lease(MAIL, 1, "n1/w/b")
    shop.storage.settle("n1/w/b", [Settle(MAIL, job_id, Outcome.RETRY, due_ms=NOW + 5000)])
    stderr = (
        b"PHP message: PHP Fatal error:  Uncaught Exception: no in /data/a.php:6\n"
        b"Stack trace:\n#0 {main}\n  thrown in /data/a.php on line 7"
    )
    shop.row(job_id, outcome="retry", code=500, error_code="E1", reason="no", stderr=stderr, at_ms=NOW + 30)
    found = life.life(office, str(job_id))
    assert (found.client, found.trace, found.content, found.accepted_ms) == (
        "10.0.0.9:4",
        "trace-1",
        '{"order":7}',
        NOW,
    )
    audit, mail = found.topics
    assert (audit.topic, audit.state, audit.now) == (AUDIT, "done", "done at attempt 1")
    assert (audit.events[0].wait_ms, audit.events[0].run_ms, audit.events[0].node) == (3.5, 16.0, "n1")
    assert (mail.state, mail.job and mail.job.due_ms) == ("delayed", NOW + 5000)
    assert (mail.events[0].php_file, mail.events[0].php_line) == ("/data/a.php", 7)
    assert json.loads(to_json(found))["id"] == str(job_id)


def test_a_done_job_lives_on_in_the_journal(office: Office, shop: Shop) -> None:
    (job_id,) = shop.push(b"x")
    shop.storage.lease(MAIL, 1, "n1/w/b")
    shop.storage.settle("n1/w/b", [Settle(MAIL, job_id, Outcome.DONE)])
    shop.row(job_id, outcome="done", client="1.2.3.4:5", accepted_ms=NOW - 50, in_trace="t", content=b"x", attempt=2)
    found = life.life(office, str(job_id))
    assert (found.client, found.trace, found.content, found.accepted_ms, found.size) == (
        "1.2.3.4:5",
        "t",
        "x",
        NOW - 50,
        0,
    )
    assert [(t.state, t.now, t.job) for t in found.topics] == [("done", "done at attempt 2", None)]


def test_what_is_no_job_is_said(office: Office) -> None:
    with pytest.raises(UsageError, match="20 decimal digits"):
        life.life(office, "17")
    with pytest.raises(NotFound, match="no job 10000000000000000001"):
        life.life(office, "10000000000000000001")


@pytest.mark.parametrize(
    ("stderr", "place"),
    [
        ("PHP message: PHP Warning:  foo in /a/b.php on line 12", ("/a/b.php", 12)),
        ("first in /a.php on line 1\nthen in /b c.php on line 22", ("/b c.php", 22)),
        ("Uncaught Error: x in /a.php:9", ("/a.php", 9)),
        ("done in 5 s: 3 left", ("", 0)),
        ("", ("", 0)),
    ],
)
def test_the_place_php_names(stderr: str, place: tuple[str, int]) -> None:
    assert life.php_place(stderr) == place


# -- purge, pause -------------------------------------------------------------------------------------------------------


def test_purge_deletes_and_writes_it_down(office: Office, shop: Shop) -> None:
    dead = shop.kill(b"a")
    waiting = shop.push(b"b", b"c")
    assert purge.purge(office, jobs.select(MAIL), dry_run=True).matched == 1
    assert purge.purge(office, jobs.select(MAIL)).removed == 1
    assert purge.purge(office, jobs.select(MAIL, (str(waiting[0]),))).removed == 1
    assert shop.storage.depth(MAIL)[:4] == (1, 0, 0, 0)
    assert life.life(office, str(dead[0])).topics[0].state == "removed"
    with pytest.raises(UsageError, match="leased"):
        purge.purge(office, jobs.Selection(MAIL, state=State.LEASED))


def test_pause_and_resume_are_state_of_the_storage(office: Office) -> None:
    assert pause.pause(office, "orders").topics == [MAIL, AUDIT]
    assert office.storage("local").paused() == {MAIL, AUDIT}
    pause.resume(office, MAIL)
    assert office.storage("local").paused() == {AUDIT}
    queues.change(office, "orders", {"mail/paused": "yes"})
    with pytest.raises(PepperbusError, match="paused in the queue's file"):
        pause.resume(again(office), MAIL)


# -- queues --------------------------------------------------------------------------------------------------------


def test_a_change_keeps_comments_and_order(office: Office, directory: Path) -> None:
    file = directory / "queues.d/orders.conf"
    file.chmod(0o600)
    done = queues.change(office, "orders", {"mail/timeout": "30s", "tags": "live, shop", "mail/headers/X-A": "1, 2"})
    assert (done.what, done.reloaded, done.refused) == ("changed", False, False)
    text = file.read_text()
    for kept in ("# why orders exist", "# of the shop", "# mails go first", '"p,w # d"'):
        assert kept in text
    assert text.index("[[mail]]") < text.index("timeout = 30s") < text.index("[[audit]]")
    assert file.stat().st_mode & 0o777 == 0o600
    mail = again(office).topic(MAIL)
    assert (mail.timeout, mail.headers, again(office).queue("orders").tags) == (
        30.0,
        (("X-A", "1, 2"),),
        ("live", "shop"),
    )
    queues.change(office, "orders", {}, ["mail/timeout", "tags"])
    assert "timeout" not in file.read_text()
    assert queues.change(office, "orders", {"mail/ping": "off"}).what == "unchanged"


def test_a_change_that_does_not_validate_changes_nothing(office: Office, directory: Path) -> None:
    with pytest.raises(ConfigError, match="timeout"):
        queues.change(office, "orders", {"mail/timout": "30s"})
    assert (directory / "queues.d/orders.conf").read_text() == ORDERS
    assert [path.name for path in (directory / "queues.d").iterdir()] == ["orders.conf"]
    with pytest.raises(UsageError, match="mail/timeout is not set"):
        queues.change(office, "orders", {}, ["mail/timeout"])
    with pytest.raises(NotFound):
        queues.change(office, "nix", {"password": "x"})


def test_a_new_queue_gets_a_password_and_a_group_readable_file(office: Office, directory: Path) -> None:
    done = queues.add(office, "bills", {"pdf/run": "http", "pdf/url": "http://127.0.0.1:9/pdf"})
    assert Path(done.file).stat().st_mode & 0o777 == 0o640
    assert len(again(office).queue("bills").password.reveal()) == 32
    with pytest.raises(PepperbusError, match="exists already"):
        queues.add(office, "bills", {})
    with pytest.raises(UsageError, match="cannot name a queue"):
        queues.add(office, "../x", {})


def test_a_queue_with_jobs_is_not_removed_by_a_slip(office: Office, shop: Shop, directory: Path) -> None:
    shop.push(b"x")
    with pytest.raises(PepperbusError, match=r"1 in orders/mail.*--keep-jobs"):
        queues.remove(office, "orders")
    queues.remove(office, AUDIT)
    assert list(again(office).queue("orders").topics) == ["mail"]
    queues.remove(office, "orders", keep_jobs=True)
    assert list((directory / "queues.d").iterdir()) == []
    office.config = again(office).config
    detached = StatusReader(office).read().detached
    assert [(topic.name, topic.ready, topic.state) for topic in detached] == [(MAIL, 1, "detached")]
    assert len(jobs.jobs(office, jobs.select(MAIL, (), "ready")).jobs) == 1


def test_a_change_is_told_to_the_running_bus(office: Office) -> None:
    asked = []
    office.ask = lambda request: asked.append(request) or {"ok": False, "mistakes": ["a.conf:1: no"]}
    done = queues.change(office, "orders", {"mail/timeout": "30s"})
    assert asked == [{"op": "reload"}]
    assert (done.reloaded, done.refused, done.reload) == (False, True, "a.conf:1: no")


def test_settings_never_show_secrets(office: Office) -> None:
    shown = to_json(queues.listing(office)).decode()
    assert "p,w" not in shown
    assert json.loads(shown)[0]["settings"]["password"] == "***"


# -- the rest ------------------------------------------------------------------------------------------------------


def test_status_without_a_bus_still_shows_the_storages(office: Office, shop: Shop) -> None:
    shop.push(b"x")
    status = StatusReader(office).read()
    assert (status.running, status.problems) == (False, ["no bus to ask"])
    assert status.queues[0].topics[0].ready == 1
    assert (status.storages[0].alive, status.storages[0].durability) == (True, "power")


def test_status_tells_why_a_consumer_is_closed(office: Office) -> None:
    def ask(request: dict[str, Any]) -> dict[str, Any]:
        if request["op"] == "status":
            failed = {"name": "gateway.0", "state": "failed", "reason": "port taken"}
            return {"ok": True, "ready": True, "state": "running", "processes": [failed]}
        return {
            "ok": True,
            "answers": {"worker.orders.0": {"topics": {MAIL: {"closed": "down", "why": "ECONNREFUSED"}}}},
        }

    office.ask = ask
    status = StatusReader(office).read()
    assert status.queues[0].topics[0].why == "ECONNREFUSED"
    assert status.problems == ["process gateway.0: failed: port taken"]


def test_check_names_every_mistake_or_what_it_found(office: Office, directory: Path) -> None:
    checked = steer.check(directory / "pepperbus.conf", {})
    assert (checked.ok, checked.queues, checked.topics, checked.storages) == (True, 1, 2, 1)
    (directory / "queues.d/orders.conf").write_text(ORDERS.replace("ping", "pong"))
    checked = steer.check(directory / "pepperbus.conf", {})
    assert (checked.ok, len(checked.mistakes)) == (False, 2)


def test_nobody_to_steer(office: Office) -> None:
    for verb in (steer.reload, steer.stop, steer.reopen):
        with pytest.raises(NotReachable):
            verb(office)


def test_ping_and_send_tell_that_nobody_listens(office: Office) -> None:
    pinged = consumer.ping(office, MAIL)
    assert (pinged.registered, pinged.transport) == (False, "no listener")
    sent = consumer.send(office, MAIL, b"x")
    assert (sent.act, sent.transport) == ("back", "no listener")
    with pytest.raises(NotFound):
        consumer.send(office, "orders/nix", b"x")


def test_history_and_tail_tell_the_same_event(office: Office, shop: Shop) -> None:
    follow = tail.tail(office, "orders", failed=True)
    shop.row(*shop.push(b"early"), outcome="dead")
    import gevent

    gevent.spawn_later(0.3, shop.row, shop.push(b"x")[0], outcome="done")
    gevent.spawn_later(0.4, shop.row, shop.push(b"y")[0], outcome="retry", reason="no")
    event = next(follow)
    assert (event.outcome, event.reason) == ("retry", "no")
    follow.close()
    assert tail.history(office, topic=MAIL, error="no").events == [event]


def test_a_consumers_login_in_headers_or_params_is_not_shown(office: Office) -> None:
    """URLs refuse a login and point to the headers: so those must not show it either, here or in the API."""
    (office.config.file.parent / "queues.d/hooks.conf").write_text(
        "password = pw\nstorage = local\n[topics]\n[[out]]\nrun = http\nurl = http://127.0.0.1:1/x\n"
        "[[[headers]]]\nAuthorization = Bearer swordfish\nX-Region = north\n"
    )
    shown = str(to_json(queues.show(again(office), "hooks")))
    assert "swordfish" not in shown
    assert "north" in shown
