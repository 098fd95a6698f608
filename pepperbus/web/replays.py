"""The API's rows about replays. Floor 5; the same shape as routes.py, whose table takes them in."""

from __future__ import annotations

from pepperbus.errors import UsageError
from pepperbus.operations import replays
from pepperbus.operations.replays import ReplayView
from pepperbus.web.table import Call, Route
from pepperbus.web.table import Needs as N
from pepperbus.web.takes import ReplayBody, ReplaysQuery


def plan_replay(call: Call) -> ReplayView:
    body = call.body
    return replays.plan(
        call.desk.office,
        replays.wish(call.topic, body.ids, body.state, body.error, body.since_ms, body.text),
        sample=body.sample,
        gray=body.gray,
        canary=body.canary,
        rate=body.rate,
        stop_at_errors=body.stop_at_errors,
        go=body.go,
        dry_run=body.dry_run,
    )


def list_replays(call: Call) -> list[ReplayView]:
    return replays.listing(call.desk.office, call.query.topic)


def get_replay(call: Call) -> ReplayView:
    return replays.show(call.desk.office, _number(call))


def go_replay(call: Call) -> ReplayView:
    return replays.steer(call.desk.office, _number(call), "go")


def pause_replay(call: Call) -> ReplayView:
    return replays.steer(call.desk.office, _number(call), "pause")


def resume_replay(call: Call) -> ReplayView:
    return replays.steer(call.desk.office, _number(call), "resume")


def cancel_replay(call: Call) -> ReplayView:
    return replays.steer(call.desk.office, _number(call), "cancel")


def _number(call: Call) -> int:
    text = call.names["id"]
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise UsageError(f"{text!r} is no replay's number")
    return int(text)


_TOPIC, _ONE = "/topics/{queue}/{topic}/replay", "/replays/{id}"

ROUTES: tuple[Route, ...] = (
    Route("POST", _TOPIC, N.OPERATE, plan_replay, ReplayView, "Jobs once more: planned, and begun.", body=ReplayBody),
    Route("GET", "/replays", N.LOGIN, list_replays, list[ReplayView], "Replays, the newest first.", query=ReplaysQuery),
    Route("GET", _ONE, N.LOGIN, get_replay, ReplayView, "One replay, and who did what to it."),
    Route("POST", _ONE + "/go", N.LOGIN, go_replay, ReplayView, "Begin it, or run the rest after its first share."),
    Route("POST", _ONE + "/pause", N.LOGIN, pause_replay, ReplayView, "Move no more jobs until it is resumed."),
    Route("POST", _ONE + "/resume", N.LOGIN, resume_replay, ReplayView, "Go on; errors are counted anew."),
    Route("POST", _ONE + "/cancel", N.LOGIN, cancel_replay, ReplayView, "End it; what was not replayed stays."),
)
