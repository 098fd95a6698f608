"""The table of the API: each row is a path, what it takes, what it answers, and the operation behind it.

Floor 5. `ROUTES` at the end is all there is: api.py serves it, openapi.py describes it. A new thing to do is a
function here of a few lines and its row. What a row takes comes as a struct of takes.py.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from pepperbus.errors import UsageError
from pepperbus.operations import consumer, life, pause, purge, push, queues, replay, steer, tail
from pepperbus.operations import jobs as listing
from pepperbus.operations import results as r
from pepperbus.web.desk import Desk
from pepperbus.web.takes import (
    EventsQuery,
    JobsQuery,
    Nothing,
    PushBody,
    RemoveQuery,
    ReplayBody,
    ScaleBody,
    SelectionBody,
    SendBody,
    SettingsBody,
    StopBody,
    TailQuery,
)


@dataclass(frozen=True, slots=True)
class Call:
    """One request: the names in its path, its query and its body, as the route's structs."""

    desk: Desk
    names: dict[str, str]
    query: Any
    body: Any

    @property
    def topic(self) -> str:
        return f"{self.names['queue']}/{self.names['topic']}"


@dataclass(frozen=True, slots=True)
class Route:
    """One row. `stream`: answers server-sent events, each a `result`."""

    method: str
    path: str
    do: Callable[[Call], Any]
    result: Any
    summary: str
    query: type[msgspec.Struct] = Nothing
    body: type[msgspec.Struct] = Nothing
    stream: bool = False

    @property
    def name(self) -> str:
        return self.do.__name__


def get_status(call: Call) -> r.Status:
    return call.desk.status()


def list_queues(call: Call) -> list[r.QueueInfo]:
    return queues.listing(call.desk.office)


def get_queue(call: Call) -> r.QueueInfo:
    return queues.show(call.desk.office, call.names["queue"])


def add_queue(call: Call) -> r.QueueFile:
    if call.body.unset:
        raise UsageError("unset: a new queue has nothing to unset")
    return queues.add(call.desk.office, call.names["queue"], call.body.settings)


def change_queue(call: Call) -> r.QueueFile:
    return queues.change(call.desk.office, call.names["queue"], call.body.settings, call.body.unset)


def remove_queue(call: Call) -> r.QueueFile:
    return queues.remove(call.desk.office, call.names["queue"], keep_jobs=call.query.keep_jobs)


def remove_topic(call: Call) -> r.QueueFile:
    return queues.remove(call.desk.office, call.topic, keep_jobs=call.query.keep_jobs)


def push_jobs(call: Call) -> r.Pushed:
    contents = [_bytes(text, call.body.encoding) for text in call.body.contents]
    if not contents:
        raise UsageError("contents: at least one job is wanted")
    return push.push(call.desk.office, call.names["queue"], contents, front=call.body.front, due_ms=call.body.due_ms)


def list_topics(call: Call) -> list[r.TopicStatus]:
    status = call.desk.status()
    return [topic for queue in status.queues for topic in queue.topics] + status.detached


def get_topic(call: Call) -> r.TopicStatus:
    for topic in list_topics(call):
        if topic.name == call.topic:
            return topic
    queues.show(call.desk.office, call.names["queue"])
    call.desk.office.topic(call.topic)
    raise UsageError(f"topic {call.topic} was added this moment; ask again")


def list_jobs(call: Call) -> r.JobPage:
    query = call.query
    selection = listing.select(call.topic, (), query.state, query.error, query.since_ms)
    return listing.jobs(call.desk.office, selection, query.cursor, _bounded("n", query.n))


def get_job(call: Call) -> r.Life:
    return life.life(call.desk.office, call.names["id"])


def find_events(call: Call) -> r.EventPage:
    query = call.query
    return tail.history(
        call.desk.office,
        topic=query.topic,
        outcome=query.outcome,
        since_ms=query.since_ms,
        error=query.error,
        text=query.text,
        limit=_bounded("limit", query.limit),
    )


def tail_events(call: Call) -> Any:
    events = tail.tail(call.desk.office, call.query.name, call.query.failed)
    if call.query.name:
        call.desk.office.named(call.query.name)  # an unknown name is an answer, not a stream
    return events


def replay_jobs(call: Call) -> r.Replayed:
    body = call.body
    return replay.replay(
        call.desk.office,
        _selection(call),
        sample=body.sample,
        rate=body.rate,
        stop_at_errors=body.stop_at_errors,
        dry_run=body.dry_run,
    )


def purge_jobs(call: Call) -> r.Purged:
    return purge.purge(call.desk.office, _selection(call), dry_run=call.body.dry_run)


def pause_queue(call: Call) -> r.Paused:
    return pause.pause(call.desk.office, call.names["queue"])


def resume_queue(call: Call) -> r.Paused:
    return pause.resume(call.desk.office, call.names["queue"])


def pause_topic(call: Call) -> r.Paused:
    return pause.pause(call.desk.office, call.topic)


def resume_topic(call: Call) -> r.Paused:
    return pause.resume(call.desk.office, call.topic)


def ping_consumer(call: Call) -> r.Pinged:
    return consumer.ping(call.desk.office, call.topic)


def send_job(call: Call) -> r.Sent:
    body = call.body
    content = _bytes(body.content, body.encoding)
    return consumer.send(call.desk.office, call.topic, content, attempt=body.attempt, timeout=body.timeout)


def check_configuration(call: Call) -> r.Checked:
    return steer.check_files(call.desk.office)


def reload_configuration(call: Call) -> r.Steered:
    return steer.reload(call.desk.office)


def reopen_logs(call: Call) -> r.Steered:
    return steer.reopen(call.desk.office)


def scale_gateways(call: Call) -> r.Steered:
    return steer.scale(call.desk.office, call.body.change)


def stop_bus(call: Call) -> r.Steered:
    return steer.stop(call.desk.office, call.body.now, wait=False)  # this process is part of what has to end


def _selection(call: Call) -> listing.Selection:
    body = call.body
    return listing.select(call.topic, body.ids, body.state, body.error, body.since_ms)


def _bytes(text: str, encoding: str) -> bytes:
    if encoding not in ("", "base64"):
        raise UsageError(f'encoding: {encoding!r} must be "" or "base64"')
    try:
        return base64.b64decode(text, validate=True) if encoding else text.encode()
    except binascii.Error as error:
        raise UsageError(f"this is not base64: {error}") from error


def _bounded(name: str, n: int) -> int:
    if not 1 <= n <= 10_000:
        raise UsageError(f"{name}: {n} must be 1 to 10000")
    return n


_QUEUE = "/queues/{queue}"
_TOPIC = "/topics/{queue}/{topic}"

ROUTES: tuple[Route, ...] = (
    Route("GET", "/status", get_status, r.Status, "How the node is; what is wrong first."),
    Route("GET", "/queues", list_queues, list[r.QueueInfo], "Every queue with its settings; secrets never."),
    Route("GET", _QUEUE, get_queue, r.QueueInfo, "One queue's settings."),
    Route("POST", _QUEUE, add_queue, r.QueueFile, "Add a queue: its file is written and the bus reloads.", body=SettingsBody),
    Route("PUT", _QUEUE, change_queue, r.QueueFile, "Set and unset keys of a queue.", body=SettingsBody),
    Route("DELETE", _QUEUE, remove_queue, r.QueueFile, "Remove a queue; refused while jobs lie there.", query=RemoveQuery),
    Route("POST", _QUEUE + "/push", push_jobs, r.Pushed, "Push jobs through the gateway.", body=PushBody),
    Route("POST", _QUEUE + "/pause", pause_queue, r.Paused, "Feed none of its topics any more."),
    Route("POST", _QUEUE + "/resume", resume_queue, r.Paused, "Feed its topics again."),
    Route("GET", "/topics", list_topics, list[r.TopicStatus], "Every topic: depths, counts, rates; detached ones last."),
    Route("GET", _TOPIC, get_topic, r.TopicStatus, "One topic."),
    Route("DELETE", _TOPIC, remove_topic, r.QueueFile, "Remove a topic; refused while jobs lie there.", query=RemoveQuery),
    Route("GET", _TOPIC + "/jobs", list_jobs, r.JobPage, "Jobs as they lie there, page by page.", query=JobsQuery),
    Route("POST", _TOPIC + "/pause", pause_topic, r.Paused, "Feed this topic no more; pushes go on."),
    Route("POST", _TOPIC + "/resume", resume_topic, r.Paused, "Feed it again."),
    Route("POST", _TOPIC + "/ping", ping_consumer, r.Pinged, "Ask the consumer whether it knows the topic."),
    Route("POST", _TOPIC + "/send", send_job, r.Sent, "One job straight to the consumer; nothing is stored.", body=SendBody),
    Route("POST", _TOPIC + "/replay", replay_jobs, r.Replayed, "Dead or delayed jobs once more.", body=ReplayBody),
    Route("POST", _TOPIC + "/purge", purge_jobs, r.Purged, "Delete jobs for good.", body=SelectionBody),
    Route("GET", "/jobs/{id}", get_job, r.Life, "The whole life of one job."),
    Route("GET", "/events", find_events, r.EventPage, "What the journal holds, newest first.", query=EventsQuery),
    Route("GET", "/tail", tail_events, r.Event, "Events as they happen.", query=TailQuery, stream=True),
    Route("GET", "/check", check_configuration, r.Checked, "Whether the files on disk are right."),
    Route("POST", "/reload", reload_configuration, r.Steered, "Take the files on disk."),
    Route("POST", "/reopen", reopen_logs, r.Steered, "Open the log files anew."),
    Route("POST", "/gateways", scale_gateways, r.Steered, "More or less gateway processes.", body=ScaleBody),
    Route("POST", "/stop", stop_bus, r.Steered, "End the bus.", body=StopBody),
)  # fmt: skip
