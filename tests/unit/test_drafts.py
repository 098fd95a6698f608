"""A change tried, made, kept, taken back; failures put together: operations behind the forms and the errors page."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pepperbus.config.load import load
from pepperbus.errors import NotFound, UsageError
from pepperbus.journal.contract import Row
from pepperbus.operations import drafts, errors, marks, queues, versions
from pepperbus.operations.office import Office

NODE = """\
queue_files = queues.d/*.conf
[bus]
    node = test
    data_dir = data
    run_dir = run
[storages]
    [[local]]
        type = embedded
"""
QUEUE = """\
# the shop's orders
password = the-secret
[topics]
    [[mail]]
        run = http
        url = http://127.0.0.1:9/none # its consumer
        sign = the-other-secret
"""


@pytest.fixture
def office(tmp_path: Path) -> Office:
    (tmp_path / "queues.d").mkdir()
    (tmp_path / "node.conf").write_text(NODE)
    (tmp_path / "queues.d" / "orders.conf").write_text(QUEUE)
    return Office(load(tmp_path / "node.conf", {}))


def file_of(office: Office) -> Path:
    return Path(str(office.config.queues["orders"].file))


def test_a_draft_says_what_is_wrong_at_which_field(office: Office) -> None:
    draft = drafts.draft(office, "orders", {"mail/timeout": "5 parsecs", "durability": "granite"})
    assert {mistake.field for mistake in draft.mistakes} == {"mail/timeout", "durability"}
    assert "such as 500ms" in next(m.text for m in draft.mistakes if m.field == "mail/timeout")
    assert file_of(office).read_text() == QUEUE, "nothing is written"


def test_a_draft_shows_the_difference_and_the_retries_but_no_secret(office: Office) -> None:
    draft = drafts.draft(
        office, "orders", {"mail/attempts": "4", "mail/backoff": "1s, 10s, 1m", "password": "new-secret"}
    )
    assert draft.mistakes == []
    assert draft.retries == {"mail": [1.0, 11.0, 71.0]}
    text = "\n".join(draft.diff)
    assert "+        attempts = 4" in text
    assert "secret" not in text
    assert "-password = ***" in text


def test_what_is_written_shows_no_secret(office: Office) -> None:
    assert drafts.written(office, "orders") == {
        "password": "***",
        "mail/run": "http",
        "mail/url": "http://127.0.0.1:9/none",
        "mail/sign": "***",
    }


def test_a_change_is_kept_and_can_be_taken_back(office: Office) -> None:
    queues.change(office, "orders", {"mail/attempts": "4"})
    changed = file_of(office).read_text()
    assert "# its consumer" in changed
    (version,) = versions.versions(office, "orders", file_of(office))
    assert version.diff[-1] == "+        attempts = 4"
    kept = next((office.config.bus.data_dir / "versions" / "orders").iterdir())
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    queues.rollback(office, "orders", version.at_ms)
    assert file_of(office).read_text() == QUEUE


def test_a_removed_queue_comes_back(office: Office) -> None:
    file = file_of(office)
    queues.remove(office, "orders")
    assert not file.exists()
    (version,) = versions.versions(office, "orders", file)
    queues.rollback(office, "orders", version.at_ms)
    assert file.read_text() == QUEUE
    with pytest.raises(NotFound):
        queues.rollback(office, "orders", 7)


def test_the_same_words_are_one_error(office: Office) -> None:
    now = office.clock.now_ms()
    with office.journal_writer() as journal:
        for n in range(5):
            reason = f"attempt {n} of 9 failed: order {n} is 'gone' at 0x{n:x}f"
            journal.add(Row("attempt", (1 << 63) + n, "orders/mail", now - 1000 + n, n, outcome="retry", reason=reason))
        journal.add(Row("attempt", 1 << 63, "orders/mail", now, 9, outcome="dead", reason="order 0 is 'lost' at 0x0f"))
        journal.add(Row("attempt", 1 << 63, "orders/mail", now, 9, outcome="done"))
    page = errors.groups(office, "orders/mail", now - 60_000)
    assert [(group.count, group.dead) for group in page.groups] == [(6, 1)]
    assert page.groups[0].text == "order … is … at …"
    assert (page.failures, sum(page.groups[0].trend), page.step_s) == (6, 6, 150)


def test_a_resolved_error_that_comes_again_says_so(office: Office) -> None:
    now = office.clock.now_ms()

    def fail(at_ms: int) -> None:
        with office.journal_writer() as journal:
            journal.add(Row("attempt", 1 << 63, "orders/mail", at_ms, 1, outcome="retry", reason="no mail server"))

    def state() -> tuple[str, str]:
        (group,) = errors.groups(office, "orders/mail", now - 60_000).groups
        return group.state, group.marked_by

    fail(now - 1000)
    assert state() == ("open", "")
    key = errors.groups(office, "orders/mail", now - 60_000).groups[0].key
    marks.mark(office, "orders/mail", key, "acknowledged")
    assert state() == ("acknowledged", office.actor.name)
    marks.mark(office, "orders/mail", key, "resolved")
    assert state() == ("resolved", office.actor.name)
    fail(now + 60_000)
    assert state() == ("returned", office.actor.name)
    marks.mark(office, "orders/mail", key, "open")
    assert state() == ("open", "")
    with pytest.raises(UsageError, match="acknowledged"):
        marks.mark(office, "orders/mail", key, "forgotten")
