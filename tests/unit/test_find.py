"""Jobs found by an indexed field, a trace, a text: in the journal's files, in its database, and where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape
from pathlib import Path

import apsw
import pytest

from pepperbus.accounts.model import Actor, Role
from pepperbus.config.load import load
from pepperbus.ids import IdGenerator
from pepperbus.job import Job
from pepperbus.journal import reader, store
from pepperbus.journal.contract import Row
from pepperbus.journal.fields import Fields, Indexing
from pepperbus.journal.log import LogWriter
from pepperbus.operations import find, life
from pepperbus.stats import STATES
from pepperbus.storage.contract import Push
from tests.unit.test_web import QUEUE, Place, log_in

VIOLA = Actor("viola", roles={"shop": Role.VIEWER})
NOW = 1_800_000_000_000
IDS = IdGenerator(2, 3, lambda: NOW)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(reader, "SEARCH_SECONDS", 60.0)  # else a busy machine finds less
    place = Place(tmp_path)
    (tmp_path / "queues.d" / "orders.conf").write_text(QUEUE.replace("system", "index = order_id, user.id\nsystem"))
    place.office.take(load(tmp_path / "node.conf", {}))
    yield place
    place.office.close()


def journal(place: Place, *contents: bytes, topic: str = "orders/mail") -> list[Row]:
    """Attempts as a worker writes them, of one push."""
    config = place.office.config
    writer = LogWriter(config.bus.data_dir / "journal", "worker.orders.0", 64)
    trace = f"{IDS.next()}-1-12017"
    rows = [
        Row("attempt", IDS.next(), topic, NOW + n, 1, outcome="done", in_trace=trace, out_trace=f"{IDS.next()}-w",
            accepted_ms=NOW, content=content)
        for n, content in enumerate(contents)
    ]  # fmt: skip
    indexing = Indexing(writer, config)
    for row in rows:
        indexing.add(row)
    indexing.close()
    return rows


def ingest(place: Place) -> None:
    data_dir = place.office.config.bus.data_dir
    store.ingest(data_dir / "journal", data_dir / "journal.db", linger_s=0)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"order_id": 123, "user": {"id": "u 7"}}', ("order_id=123", "user.id=u 7")),
        (b'{"order_id": "123"}', ("order_id=123",)),
        (b'{"order_id": 1.5, "user": [{"id": 1}, {"id": 2}]}', ("order_id=1.5", "user.id=1", "user.id=2")),
        (b'[{"order_id": true}, {"order_id": null}]', ("order_id=true",)),
        (b'{"order_id": {"deep": 1}, "user": 3}', ()),
        (b'{"order_id": "' + b"x" * 500 + b'"}', ("order_id=" + "x" * 128,)),
        (b'{"order_id": [' + b"1," * 50 + b"2]}", ("order_id=1",)),
        (b"no JSON", ()),
        (b'{"order_id": "\xff"}', ()),
        (b"[" * 100_000, ()),
        (b"", ()),
    ],
)
def test_the_fields_of_a_content(content: bytes, found: tuple[str, ...]) -> None:
    assert Fields(("order_id", "user.id")).of(content) == found


@pytest.mark.parametrize("taken_over", [False, True])
def test_an_indexed_field_is_found_whole_also_behind_what_the_journal_keeps(place: Place, taken_over: bool) -> None:
    rows = journal(
        place, b'{"pad": "%s", "order_id": 123}' % (b"x" * 200), b'{"order_id": 1234}', b'{"order_id": "123"}'
    )
    if taken_over:
        ingest(place)
    found = find.find(place.office.acting(VIOLA), "order_id=123")
    assert (found.by, [event.id for event in found.events]) == ("field", [str(rows[2].job_id), str(rows[0].job_id)])
    assert find.find(place.office.acting(VIOLA), "123").by == "value"
    assert find.find(place.office.acting(VIOLA), "order_id=12").events == []


def test_what_leaves_the_journal_leaves_the_index(place: Place) -> None:
    journal(place, b'{"order_id": 1}', b"plain", b'{"order_id": 2, "user": {"id": 9}}')
    ingest(place)
    database = place.office.config.bus.data_dir / "journal.db"

    def count(table: str) -> int:
        with apsw.Connection(str(database)) as connection:
            return int(connection.execute(f"SELECT count(*) FROM {table}").get)

    assert (count("rows"), count("fields")) == (3, 3)
    assert store.retain(database, NOW + 1, 1 << 30) == 1
    assert (count("rows"), count("fields")) == (2, 2)
    assert store.retain(database, NOW + 10, 1 << 30) == 2
    assert (count("rows"), count("fields")) == (0, 0)
    journal(place, b'{"order_id": 5}')
    ingest(place)
    assert len(find.find(place.office.acting(VIOLA), "order_id=5").events) == 1


def test_a_trace_is_found_of_push_and_attempt(place: Place) -> None:
    rows = journal(place, *(b"job %d" % n for n in range(5)))
    ingest(place)
    office = place.office.acting(VIOLA)
    assert len(find.find(office, rows[0].in_trace).events) == 5
    found = find.find(office, rows[3].out_trace)
    assert (found.by, [event.id for event in found.events]) == ("trace", [str(rows[3].job_id)])
    assert find.find(office, f"{IDS.next()}-1-12017").events == []


def test_what_has_not_run_is_found_where_it_lies(place: Place) -> None:
    job = Job(IDS.next(), "t", b'{"pad": "%s", "order_id": 77}' % (b"x" * 3000), NOW)
    place.office.storage("local").push([Push(job.id, job.encode(), ("orders/mail",))])
    office = place.office.acting(VIOLA)
    for word in ("order_id=77", "77}", str(job.id)):
        found = find.find(office, word)
        assert [(event.id, event.event) for event in found.events] == [(str(job.id), "ready")], word
    assert find.find(office, "order_id=78").events == []


def test_what_only_the_error_says_is_found_by_its_text_and_by_its_code(place: Place) -> None:
    """Who was called at night has the error line and nothing else."""
    writer = LogWriter(place.office.config.bus.data_dir / "journal", "worker.orders.0", 64)
    failed = Row("attempt", IDS.next(), "orders/mail", NOW, 1, outcome="retry", accepted_ms=NOW, content=b"{}",
                 error_code="SMTP", reason="attempt 1 of 2 failed: mail server said no")  # fmt: skip
    writer.add(failed)
    writer.flush()
    ingest(place)
    for word in ("SMTP", "mail server said"):
        found = find.find(place.office.acting(VIOLA), word)
        assert (found.by, [event.id for event in found.events]) == ("error", [str(failed.job_id)]), word
        assert "by its error" in place.text(f"/search?q={word}")
    otto = Actor("otto", roles={"bank": Role.VIEWER})
    assert find.find(place.office.acting(otto), "SMTP").events == []


def test_the_life_of_a_job_is_text_for_a_ticket(place: Place) -> None:
    """Each attempt with its error and PHP's words, and nothing of the content; what PHP wrote is no markup."""
    (job_id,) = place.push(1)
    place.kill(1, "attempt 2 of 2 failed: mail server said <no>")
    writer = LogWriter(place.office.config.bus.data_dir / "journal", "worker.orders.0", 64)
    reasons = {1: "attempt 1 of 2 failed: mail server said <no>", 2: "attempt 2 of 2 failed: mail server said <no>"}
    for attempt, reason in reasons.items():
        writer.add(Row("attempt", job_id, "orders/mail", NOW + attempt, attempt, outcome="retry" if attempt == 1 else "dead",
                       code=500, error_code="SMTP", reason=reason, stderr=b"PHP message: one\nthrown in /x.php:3",
                       content=b"secret"))  # fmt: skip
    writer.flush()
    page = place.text(f"/jobs/{job_id}")
    text = unescape(page.partition('<pre id="ticket" hidden>')[2].partition("</pre>")[0])
    lines = text.splitlines()
    assert lines[:2] == [f"Job {job_id}", f"http://localhost/jobs/{job_id}"], text
    assert "orders/mail · dead" in lines
    assert [line.partition(" · ")[2].partition(" · waited")[0] for line in lines if "Attempt" in line] == [
        "Attempt 1 · retry",
        "Attempt 2 · dead",
    ]
    assert lines.count("    mail server said <no>") == 2
    assert text.count("    PHP message: one\n    thrown in /x.php:3\n") == 2
    assert "secret" not in text
    assert (
        "dead after 1 attempt: mail server said <no>"
        in life.life(place.office.acting(VIOLA), str(job_id)).topics[0].now
    )


def test_a_job_in_line_says_that_nobody_takes_it(place: Place) -> None:
    (job_id,) = place.push(1)
    record = place.writer.record("orders/mail")
    office = place.office.acting(VIOLA)
    for state, said in (("feeding", ""), ("stopped", "; its consumer is stopped: `pepperbus status` says why")):
        record.set("state", STATES.index(state))
        assert life.life(office, str(job_id)).topics[0].now == f"waits in line{said}"
    place.office.storage("local").set_paused("orders/mail", True)
    assert life.life(office, str(job_id)).topics[0].now.endswith("is paused: `pepperbus resume orders/mail`")


def test_others_find_nothing(place: Place) -> None:
    rows = journal(place, b'{"order_id": 1}')
    ingest(place)
    client = log_in(place.app.test_client(), place.desk, "otto", bank="viewer")
    for word in ("order_id=1", "1", rows[0].in_trace, str(rows[0].job_id), "order"):
        assert client.get("/api/v1/find", query_string={"word": word}).get_json()["events"] == []
    assert client.get("/api/v1/events?field=order_id=1").get_json()["events"] == []


def test_the_page_says_how_it_found_it_and_how_far_it_came(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    journal(place, *(b'{"order_id": %d}' % n for n in range(3000)))
    ingest(place)
    assert "by index" in place.text("/search?q=2999")
    assert "/jobs/" in place.text("/search?field=order_id%3D7")
    assert place.get(f"/search?q={IDS.next()}").status_code == 303
    monkeypatch.setattr(reader, "SEARCH_SECONDS", 0.0)
    page = place.get("/api/v1/events?text=nowhere").get_json()
    assert (page["complete"], page["events"]) == (False, [])
    assert "narrow it down" in place.text("/search?text=nowhere")
