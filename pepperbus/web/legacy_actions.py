"""What the admin addresses of the Go system do here, each a function over `operations`; their fields are literal.

Floor 5. Knows no path and no login. Numbers are for the last 60 s where there they were for the last full minute.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import gevent
import msgspec
import psutil
from flask import Request

from pepperbus import stats
from pepperbus.config.model import Queue, StorageConfig, Topic
from pepperbus.errors import NotFound, UsageError
from pepperbus.operations import baseline, consumer, consumers, failed, queues, steer, tail
from pepperbus.operations.results import Event
from pepperbus.web.desk import Desk

_MINUTE_NS = 60_000_000_000
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_S = 60.0
_RUN_TYPES = {"fastcgi": 0, "http": 1, "command": 2}
_RESTART_S = 1.0  # for the master to refuse
_FPM = (
    "pool", "process manager", "start time", "start since", "accepted conn", "listen queue", "max listen queue",
    "listen queue len", "idle processes", "active processes", "total processes", "max active processes",
    "max children reached", "slow requests",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: the query and the form as one."""

    desk: Desk
    request: Request

    def word(self, name: str, default: str = "") -> str:
        return str(self.request.values.get(name, default)).strip()

    def number(self, name: str, default: int) -> int:
        """0 or more. Raises UsageError in the words of before."""
        text = self.word(name)
        if not text:
            return default
        if not text.isdecimal() or len(text) > 9:
            raise UsageError(f'schema: error converting value for "{name}"')
        return int(text)

    @property
    def queue(self) -> str:
        name = self.word("queue")
        if name not in self.desk.base.config.queues:
            raise NotFound(f"queue not exist {name}")
        return name

    @property
    def topic(self) -> str:
        """`queue/topic` of what is asked. Raises NotFound in the words of before."""
        queue, topic = self.queue, self.word("topic")
        if topic not in self.desk.base.config.queues[queue].topics:
            raise NotFound(f"topic not exist {topic}")
        return f"{queue}/{topic}"


@dataclass(frozen=True, slots=True)
class Action:
    """`changes`: not to be done by following a link."""

    do: Callable[[Asked], Any]
    changes: bool = False


def _queue_config(asked: Asked) -> dict[str, Any]:
    config = asked.desk.base.config
    shown = (config.queues[info.name] for info in queues.listing(asked.desk.office))
    return {queue.name: _as_queue(queue, config.storages) for queue in shown}


def _as_queue(queue: Queue, storages: dict[str, StorageConfig]) -> dict[str, Any]:
    topics = {topic.name: _as_topic(topic, storages[topic.storage]) for topic in queue.topics.values()}
    return {"queue_name": queue.name, "password": "", "topic": topics}


def _as_topic(topic: Topic, storage: StorageConfig) -> dict[str, Any]:
    host = {"host": topic.host} if topic.host else {}
    return {
        "name": topic.name,
        "password": "",
        "retry_times": topic.attempts - 1,
        "max_queue_length": topic.max_length,
        "run_type": _RUN_TYPES.get(topic.run, -1),
        "storage": {"type": storage.type, "address": _address(storage), "auth": "", "max_conn_num": 0},
        "num_of_workers": topic.concurrency,
        "script_entry": topic.script or " ".join(topic.urls),
        "cgi_config_key": topic.pool,
        "http_config": msgspec.json.encode(host).decode() if host else "",
        "is_retry": topic.attempts > 1,
        "retry_time": int(topic.max_age),
    }


def _address(storage: StorageConfig) -> str:
    """Where it is, without what one logs in with."""
    parts = urlsplit(storage.url.reveal())
    if parts.scheme == "unix":
        return f"unix:{parts.path}"
    return parts.netloc.rpartition("@")[2]


def _lengths(asked: Asked) -> failed.Lengths:
    return failed.lengths(asked.desk.office, asked.topic)


def _send(asked: Asked) -> Any:
    """`type` ping: "ok" or why not. Anything else runs a job; but nobody means a job without type and value."""
    topic, kind, value = asked.topic, asked.word("type"), asked.request.values.get("value", "")
    if kind == "ping":
        pinged = consumer.ping(asked.desk.office, topic)
        return "ok" if pinged.registered else pinged.reason
    if not kind and not value:
        pinged = consumer.ping(asked.desk.office, topic)
        return _reply(pinged.headers, "200" if pinged.registered else "500", pinged.body or pinged.reason)
    sent = consumer.send(asked.desk.office, topic, value.encode())
    fallback = "200" if sent.act == "done" else "502" if sent.transport != "answered" else str(sent.code or 500)
    return _reply(sent.headers, fallback, sent.body or ("" if sent.act == "done" else sent.reason))


def _reply(headers: dict[str, str], code: str, message: str) -> dict[str, str]:
    told = {name.lower(): value for name, value in headers.items()}
    return {
        "Code": told.get("code", code),
        "ErrorCode": told.get("error-code", ""),
        "ConsumeTopics": told.get("consume-topics", ""),
        "Msg": message,
    }


def _errors(asked: Asked) -> list[dict[str, str]] | None:
    topic, count = asked.topic, asked.number("count", 10)
    found = [
        event
        for outcome in ("retry", "dead")
        for event in tail.history(asked.desk.office, topic=topic, outcome=outcome, limit=_bounded(count)).events
    ]
    found.sort(key=lambda event: -event.at_ms)
    return [_error(event) for event in found[:count]] or None


def _error(event: Event) -> dict[str, str]:
    job = [{"id": event.id, "inTraceId": event.in_trace, "content": event.content, "RetryTimes": event.attempt}]
    jobs = f"{event.topic}: outTraceId: {event.out_trace} retrying: true jobs: {msgspec.json.encode(job).decode()}"
    return {
        "Time": str(event.at_ms // 1000),
        "Jobs": jobs,
        "SysCode": str(event.code or 502),
        "SysError": "" if event.code else event.reason,
        "UserCode": event.error_code,
        "UserMsg": f"{event.body or event.stderr} ------ [Host] {event.node or socket.gethostname()}",
    }


def _pushed(asked: Asked) -> list[dict[str, str]] | None:
    """The contents of the last jobs that ran, as far as the journal keeps them."""
    office, count = asked.desk.office, asked.number("count", 10)
    topics = office.config.queues[asked.queue].topics.values()
    latest: dict[str, Event] = {}
    for topic in topics:
        for event in tail.history(office, topic=topic.full_name, limit=_bounded(count * 2)).events:
            if event.event == "attempt" and event.at_ms > (latest[event.id].at_ms if event.id in latest else 0):
                latest[event.id] = event
    newest = sorted(latest.values(), key=lambda event: -event.accepted_ms)[:count]
    return [{"Time": str(one.accepted_ms // 1000), "Jobs": one.content} for one in newest] or None


def _bounded(count: int) -> int:
    return min(max(count, 1), 1000)


def _recover(asked: Asked) -> int:
    return failed.recover(asked.desk.office, asked.topic, asked.number("count", 0)).n


def _clean(asked: Asked) -> int:
    return failed.clean(asked.desk.office, asked.topic).n


def _clean_statistics(asked: Asked) -> int:
    baseline.reset(asked.desk.office, asked.topic)
    return 3  # so many counters were deleted there


def _mux_stats(asked: Asked) -> dict[str, dict[str, dict[str, int]]]:
    monitor = asked.desk.monitor
    return {
        queue.name: {
            topic.name.partition("/")[2]: {
                "TimePeriod": 0,
                "SuccessCount": round(monitor.rate(topic.name, "done", 60) * 60),
                "FailCount": round(monitor.rate(topic.name, "failed", 60) * 60),
                **_times(monitor.last_minute(topic.name, "run")),
            }
            for topic in queue.topics
        }
        for queue in asked.desk.status().queues
    }


def _times(run: stats.Histogram) -> dict[str, int]:
    used = [bucket for bucket, n in enumerate(run.buckets) if n]
    longest, shortest = (stats.bucket_micros(used[i]) for i in (-1, 0)) if used else (0, 0)
    return {"MaxTime": int(longest * 1000), "MinTime": int(shortest * 1000), "TotalTime": run.sum_micros * 1000}


def _gateway_stats(asked: Asked) -> dict[str, dict[str, int]]:
    monitor = asked.desk.monitor
    return {
        queue.name: {
            "TimePeriod": _MINUTE_NS,
            "SuccessCount": round(monitor.rate(queue.name, "pushed", 60) * 60),
            "FailCount": round(monitor.rate(queue.name, "refused", 60) * 60),
        }
        for queue in asked.desk.status().queues
    }


def _machine_stats(asked: Asked) -> dict[str, float]:
    return {
        "CPU": asked.desk.monitor.cpu_percent(),
        "Load": os.getloadavg()[0],
        "Memory": psutil.virtual_memory().percent,
    }


def _fpm(asked: Asked) -> dict[str, str]:
    found = consumers.fpm(asked.desk.office, asked.word("configKey"))
    words = {name.title().replace(" ", ""): str(found.get(name, "")) for name in _FPM}
    if words["StartTime"].isdecimal():
        words["StartTime"] = time.strftime("%d/%b/%Y:%H:%M:%S %z", time.localtime(int(words["StartTime"])))
    return words


def _pid(asked: Asked) -> dict[str, Any]:
    gevent.sleep(_seconds(asked.word("duration")))
    now = time.time()
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e9):09d}Z"
    return {"Pid": os.getppid(), "Now": text}


def _seconds(text: str) -> float:
    """A duration as Go writes them: 1m30s, 250ms. Raises UsageError."""
    parts = re.findall(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)", text)
    if text != "0" and (not parts or "".join(number + unit for number, unit in parts) != text):
        raise UsageError(f"time: invalid duration {text}")
    return min(sum(float(number) * _UNITS[unit] for number, unit in parts), _LONGEST_S)


def _manage(asked: Asked) -> dict[str, Any]:
    cookie = asked.request.cookies.get("manage")
    if cookie != "true":
        raise UsageError("http: named cookie not present" if cookie is None else "cookie not valid")
    office, op = asked.desk.office, asked.word("op")
    if op == "stop":
        steer.stop(office, wait=False)
    elif op == "restart":
        work = gevent.spawn(steer.upgrade, office, wait=False)  # its trial takes longer than an old tool waits
        work.join(_RESTART_S)
        if work.ready():
            work.get()
    return {"Pid": os.getppid(), "Result": "call success operation in action"}


#: Path without slashes, in small letters -> what it does.
ACTIONS = {
    "queueconfig": Action(_queue_config),
    "getqueuelength": Action(_lengths),
    "sendtocgi": Action(_send, changes=True),
    "getcgierror": Action(_errors),
    "getcgitaskdebug": Action(_pushed),
    "recover": Action(_recover, changes=True),
    "cleanfailedjobs": Action(_clean, changes=True),
    "cleanstatistics": Action(_clean_statistics, changes=True),
    "getmuxstats": Action(_mux_stats),
    "getgatewaystats": Action(_gateway_stats),
    "getmachinestats": Action(_machine_stats),
    "cgistatus": Action(_fpm),
    "getpid": Action(_pid),
    "manageservice": Action(_manage, changes=True),
}
