"""The table of the API: each row is a path, what it takes, what it answers, and the operation behind it.

Floor 5. `ROUTES` at the end is all there is: api.py serves it, openapi.py describes it. A new thing to do is a
function here (or in people.py, for accounts) of a few lines and its row. What a row takes comes as a struct of takes.py.
"""

from __future__ import annotations

import base64
from typing import Any

from pepperbus.errors import UsageError
from pepperbus.operations import (
    closing,
    consumer,
    life,
    pause,
    purge,
    push,
    queue_files,
    queues,
    schedules,
    steer,
    tail,
)
from pepperbus.operations import find as finding
from pepperbus.operations import jobs as listing
from pepperbus.operations import results as r
from pepperbus.operations import schedule_results as sr
from pepperbus.web import alarms, people, replays, topics, watch
from pepperbus.web.portion import portion
from pepperbus.web.table import Call, Route
from pepperbus.web.table import Needs as N
from pepperbus.web.takes import (
    EventsQuery,
    FindQuery,
    JobsQuery,
    PingBody,
    PushBody,
    QueuesQuery,
    RemoveQuery,
    ScaleBody,
    SelectionBody,
    SendBody,
    SettingsBody,
    StopBody,
    TailQuery,
    TextBody,
    TopicsQuery,
)


def get_status(call: Call) -> r.Status:
    return call.desk.status()


def list_queues(call: Call) -> r.QueuePage:
    query = call.query
    placed = [((0.0, one.name, ""), one) for one in queues.listing(call.desk.office)]
    found = portion(placed, _bounded("n", query.n), query.cursor, query.before)
    return r.QueuePage(found.rows, found.found, found.cursor, found.before)


def get_queue(call: Call) -> r.QueueInfo:
    return queues.show(call.desk.office, call.names["queue"])


def add_queue(call: Call) -> r.QueueFile:
    if call.body.unset:
        raise UsageError("unset: a new queue has nothing to unset")
    return queues.add(call.desk.office, call.names["queue"], call.body.settings)


def change_queue(call: Call) -> r.QueueFile:
    return queues.change(call.desk.office, call.names["queue"], call.body.settings, call.body.unset)


def remove_queue(call: Call) -> r.QueueFile:
    if call.query.drain:
        return closing.close(call.desk.office, call.names["queue"], remove=True)
    return queues.remove(call.desk.office, call.names["queue"], keep_jobs=call.query.keep_jobs)


def remove_topic(call: Call) -> r.QueueFile:
    if call.query.drain:
        return closing.close(call.desk.office, call.topic, remove=True)
    return queues.remove(call.desk.office, call.topic, keep_jobs=call.query.keep_jobs)


def get_file(call: Call) -> queue_files.QueueText:
    name = call.names["queue"]
    return queue_files.QueueText(name, queue_files.export(call.desk.office, name))


def put_file(call: Call) -> r.QueueFile:
    return queues.put(call.desk.office, call.names["queue"], call.body.text)


def push_jobs(call: Call) -> r.Pushed:
    contents = [_bytes(text, call.body.encoding) for text in call.body.contents]
    if not contents:
        raise UsageError("contents: at least one job is wanted")
    return push.push(call.desk.office, call.names["queue"], contents, front=call.body.front, due_ms=call.body.due_ms)


def list_topics(call: Call) -> r.TopicPage:
    _bounded("n", call.query.n)
    found = topics.page(call.desk, call.query)
    return r.TopicPage([topic for topic, _queue in found.rows], found.found, found.cursor, found.before)


def get_topic(call: Call) -> r.TopicStatus:
    status = call.desk.status()
    for topic in [*(one for queue in status.queues for one in queue.topics), *status.detached]:
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
        trace=query.trace,
        field=query.field,
        limit=_bounded("limit", query.limit),
    )


def find_jobs(call: Call) -> finding.Finding:
    return finding.find(call.desk.office, call.query.word, _bounded("limit", call.query.limit))


def tail_events(call: Call) -> Any:
    events = tail.tail(call.desk.office, call.query.name, call.query.failed)
    if call.query.name:
        call.desk.office.named(call.query.name)  # an unknown name is an answer, not a stream
    return events


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


def list_schedules(call: Call) -> list[sr.ScheduleStatus]:
    return schedules.listing(call.desk.office)


def get_schedule(call: Call) -> sr.ScheduleStatus:
    return schedules.show(call.desk.office, _schedule(call))


def add_schedule(call: Call) -> r.QueueFile:
    if call.body.unset:
        raise UsageError("unset: a new schedule has nothing to unset")
    return schedules.add(call.desk.office, _schedule(call), call.body.settings)


def change_schedule(call: Call) -> r.QueueFile:
    return schedules.change(call.desk.office, _schedule(call), call.body.settings, call.body.unset)


def remove_schedule(call: Call) -> r.QueueFile:
    return schedules.remove(call.desk.office, _schedule(call))


def run_schedule(call: Call) -> sr.ScheduleSteered:
    return schedules.run(call.desk.office, _schedule(call))


def pause_schedule(call: Call) -> sr.ScheduleSteered:
    return schedules.pause(call.desk.office, _schedule(call))


def resume_schedule(call: Call) -> sr.ScheduleSteered:
    return schedules.resume(call.desk.office, _schedule(call))


def _schedule(call: Call) -> str:
    return f"{call.names['queue']}/{call.names['schedule']}"


def ping_consumer(call: Call) -> r.Pinged:
    return consumer.ping(call.desk.office, call.topic, node=call.body.node)


def send_job(call: Call) -> r.Sent:
    body = call.body
    content = _bytes(body.content, body.encoding)
    return consumer.send(
        call.desk.office, call.topic, content, attempt=body.attempt, timeout=body.timeout, node=body.node
    )


def check_configuration(call: Call) -> r.Checked:
    return steer.check_files(call.desk.office)


def reload_configuration(call: Call) -> r.Steered:
    return steer.reload(call.desk.office)


def reopen_logs(call: Call) -> r.Steered:
    return steer.reopen(call.desk.office)


def restart_process(call: Call) -> r.Steered:
    return steer.restart(call.desk.office, call.names["process"])


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
    except ValueError as error:  # binascii.Error is one; of other letters than ASCII it is not that
        raise UsageError(f"this is not base64: {error}") from error


def _bounded(name: str, n: int) -> int:
    if not 1 <= n <= 10_000:
        raise UsageError(f"{name}: {n} must be 1 to 10000")
    return n


_QUEUE = "/queues/{queue}"
_TOPIC = "/topics/{queue}/{topic}"
_SCHEDULE = "/schedules/{queue}/{schedule}"

ROUTES: tuple[Route, ...] = (
    Route("GET", "/status", N.LOGIN, get_status, r.Status, "How the node is; what is wrong first."),
    Route("GET", "/queues", N.LOGIN, list_queues, r.QueuePage, "Queues with their settings; secrets never.", query=QueuesQuery),
    Route("GET", _QUEUE, N.VIEW, get_queue, r.QueueInfo, "One queue's settings."),
    Route("POST", _QUEUE, N.ADMIN, add_queue, r.QueueFile, "Add a queue; the bus reloads.", body=SettingsBody),
    Route("PUT", _QUEUE, N.ADMIN, change_queue, r.QueueFile, "Set and unset keys of a queue.", body=SettingsBody),
    Route("DELETE", _QUEUE, N.ADMIN, remove_queue, r.QueueFile, "Remove a queue that holds no jobs.", query=RemoveQuery),
    Route("GET", _QUEUE + "/file", N.ADMIN, get_file, queue_files.QueueText, "Its file; secrets are stars."),
    Route("PUT", _QUEUE + "/file", N.ADMIN, put_file, r.QueueFile, "Its whole file; stars stay as they are.", body=TextBody),
    Route("POST", _QUEUE + "/push", N.OPERATE, push_jobs, r.Pushed, "Push jobs through the gateway.", body=PushBody),
    Route("POST", _QUEUE + "/pause", N.OPERATE, pause_queue, r.Paused, "Feed none of its topics any more."),
    Route("POST", _QUEUE + "/resume", N.OPERATE, resume_queue, r.Paused, "Feed its topics again."),
    Route("GET", "/topics", N.LOGIN, list_topics, r.TopicPage, "Topics, also detached ones, page by page.", query=TopicsQuery),
    Route("GET", _TOPIC, N.VIEW, get_topic, r.TopicStatus, "One topic."),
    Route("DELETE", _TOPIC, N.ADMIN, remove_topic, r.QueueFile, "Remove a topic that holds no jobs.", query=RemoveQuery),
    Route("GET", _TOPIC + "/jobs", N.VIEW, list_jobs, r.JobPage, "Jobs as they lie there, page by page.", query=JobsQuery),
    Route("POST", _TOPIC + "/pause", N.OPERATE, pause_topic, r.Paused, "Feed this topic no more; pushes go on."),
    Route("POST", _TOPIC + "/resume", N.OPERATE, resume_topic, r.Paused, "Feed it again."),
    Route("POST", _TOPIC + "/ping", N.OPERATE, ping_consumer, r.Pinged, "Does the consumer know the topic?", body=PingBody),
    Route("POST", _TOPIC + "/send", N.OPERATE, send_job, r.Sent, "One job straight to the consumer.", body=SendBody),
    Route("POST", _TOPIC + "/purge", N.OPERATE, purge_jobs, r.Purged, "Delete jobs for good.", body=SelectionBody),
    Route("GET", "/schedules", N.LOGIN, list_schedules, list[sr.ScheduleStatus], "Every schedule: next times, last runs."),
    Route("GET", _SCHEDULE, N.VIEW, get_schedule, sr.ScheduleStatus, "One schedule."),
    Route("POST", _SCHEDULE, N.ADMIN, add_schedule, r.QueueFile, "Add a schedule; the bus reloads.", body=SettingsBody),
    Route("PUT", _SCHEDULE, N.ADMIN, change_schedule, r.QueueFile, "Set and unset its keys.", body=SettingsBody),
    Route("DELETE", _SCHEDULE, N.ADMIN, remove_schedule, r.QueueFile, "Take it out of its queue's file."),
    Route("POST", _SCHEDULE + "/run", N.OPERATE, run_schedule, sr.ScheduleSteered, "Push its jobs now."),
    Route("POST", _SCHEDULE + "/pause", N.OPERATE, pause_schedule, sr.ScheduleSteered, "It pushes nothing any more."),
    Route("POST", _SCHEDULE + "/resume", N.OPERATE, resume_schedule, sr.ScheduleSteered, "It pushes again."),
    Route("GET", "/jobs/{id}", N.LOGIN, get_job, r.Life, "The whole life of one job."),
    Route("GET", "/events", N.LOGIN, find_events, r.EventPage, "What the journal holds, newest first.", query=EventsQuery),
    Route("GET", "/find", N.LOGIN, find_jobs, finding.Finding, "Jobs by whatever one knows of them.", query=FindQuery),
    Route("GET", "/tail", N.LOGIN, tail_events, r.Event, "Events as they happen.", query=TailQuery, stream=True),
    Route("GET", "/check", N.VIEW_NODE, check_configuration, r.Checked, "Whether the files on disk are right."),
    Route("POST", "/reload", N.ADMIN_NODE, reload_configuration, r.Steered, "Take the files on disk."),
    Route("POST", "/reopen", N.ADMIN_NODE, reopen_logs, r.Steered, "Open the log files anew."),
    Route("POST", "/processes/{process}/restart", N.ADMIN_NODE, restart_process, r.Steered, "Drained, then another."),
    Route("POST", "/gateways", N.ADMIN_NODE, scale_gateways, r.Steered, "More or less gateway processes.", body=ScaleBody),
    Route("POST", "/stop", N.ADMIN_NODE, stop_bus, r.Steered, "End the bus.", body=StopBody),
    *replays.ROUTES,
    *watch.ROUTES,
    *alarms.ROUTES,
    *people.ROUTES,
)  # fmt: skip
