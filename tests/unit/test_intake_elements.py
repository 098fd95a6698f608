"""What an element of a foreign list means; the Go system's are read whatever was written into them."""

from __future__ import annotations

import base64
import json

import pytest

from pepperbus.config.model import Intake, Queue
from pepperbus.config.secret import Secret
from pepperbus.ticker.intake_elements import Element, lists_of, read_failed, read_raw, read_timeout, read_waiting
from tests.fixtures.ids import floor_id

ID = floor_id(1_600_000_000_000)


def written(**fields: object) -> bytes:
    return json.dumps(
        {"id": str(ID), "inTraceId": "t", "content": "x", "RetryTimes": 2, "RetryTime": 1000} | fields
    ).encode()


def test_ids_traces_and_bytes_are_kept() -> None:
    assert read_raw(b"\xff{") == Element(b"\xff{")
    assert read_waiting(written()) == Element(b"x", ID, "t")
    assert read_waiting(written(content="\u003cü\u003e")).content == "<ü>".encode()
    assert read_waiting(written(content=base64.b64encode(b"\xff").decode(), encoding="base64")).content == b"\xff"
    assert read_waiting(written(id="7")).job_id == 0, "no id of a bus: it gets one of ours"
    assert read_waiting(written(id=None, inTraceId=None)) == Element(b"x")


def test_who_may_still_be_retried_is_delayed_and_all_others_are_dead() -> None:
    assert read_failed(written(IsRetry=True, RetryResidueTime=5)).due_ms == 1_030_000
    assert read_failed(written(IsRetry=True, RetryResidueTime=5, RetryTime=0, RetryTimes=0)).due_ms == 1
    for fields in (
        {"IsRetry": True, "RetryResidueTime": 0},
        {"IsRetry": False, "RetryResidueTime": 5},
        {"IsRetry": "true"},
    ):
        found = read_failed(written(**fields))
        assert (found.due_ms, found.dead) == (0, "failed in the Go system after 2 attempts")
    assert read_timeout(written(RetryTimes="odd")).dead == "timed out in the Go system after 0 attempts"


NO_JOBS = [b"", b"plain", b"[]", b"7", b"{}", b'{"content": 7}', b"\xff", b"[" * 200_000]
NO_JOBS += [b'{"content":"x","encoding":"base64"}']


@pytest.mark.parametrize("element", NO_JOBS, ids=range(len(NO_JOBS)))
def test_what_is_no_job_is_refused(element: bytes) -> None:
    with pytest.raises(ValueError):
        read_waiting(element)


def test_failed_adds_two_lists() -> None:
    go = Intake("go", Secret("redis://x"), "q::t::list", "pepperbus", topic="t", failed=True)
    raw = Intake("raw", Secret("redis://x"), "q")
    queue = Queue("q", Secret(), {}, "local", intakes=(go, raw))
    assert [(one.key, one.read) for one in lists_of(queue)] == [
        ("q::t::list", read_waiting),
        ("q::t::list_retry", read_failed),
        ("q::t::list_timeout", read_timeout),
        ("q", read_raw),
    ]
