"""The way back to the Go system: its configuration from ours, and a topic's jobs into the lists it takes them from.

Floor 4. A job leaves our storage after it lies in the list; interrupted in between it is in both, and the next run sees it
there by its id and only removes it here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pepperbus.accounts.model import Right
from pepperbus.config.model import Queue, Topic
from pepperbus.errors import NotReachable, PepperbusError, UsageError
from pepperbus.job import Job, State
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result
from pepperbus.operations.rights import operation
from pepperbus.storage.contract import Stored
from pepperbus.storage.redis_url import Address, parse_url

_PAGE = 200
_STEP_S = 30  # the Go system waits (attempts - 1) x 30 s
_NS = 1_000_000_000


class GoConfig(Result):
    config: dict[str, Any]
    left: list[str] = msgspec.field(default_factory=list)


class Exported(Result):
    topic: str
    where: str
    jobs: int
    dry_run: bool
    left: list[str] = msgspec.field(default_factory=list)


@operation(Right.ADMIN, node=True, audited=True, details=("names",))
def configuration(office: Office, names: Sequence[str] = ()) -> GoConfig:
    """queue_config, tags_mapping and cgi_config of these queues, or of all. With passwords."""
    made = GoConfig({"queue_config": {}, "tags_mapping": {}, "cgi_config": {}})
    tags: dict[str, dict[str, list[str]]] = made.config["tags_mapping"]
    for queue in [office.queue(name) for name in names] or office.config.queues.values():
        topics = {}
        for topic in queue.topics.values():
            if (settings := _topic(office, queue, topic, made.left)) is None:
                continue
            topics[topic.name] = settings
            if not topic.paused:
                for tag in topic.tags or (queue.system or "live",):
                    tags.setdefault(tag, {}).setdefault(queue.name, []).append(topic.name)
        if not topics:
            continue
        made.config["queue_config"][queue.name] = {
            "queue_name": queue.name,
            "password": queue.password.reveal(),
            "topic": topics,
        }
    used = {s["cgi_config_key"] for queue in made.config["queue_config"].values() for s in queue["topic"].values()}
    for pool in [pool for name, pool in office.config.pools.items() if name in used]:
        if pool.address.startswith("unix:"):
            made.left.append(f"pool {pool.name}: the Go system knows no unix sockets ({pool.address})")
        wait = int(pool.connect_timeout * _NS)
        made.config["cgi_config"][pool.name] = {
            "address": pool.address,
            "connect_timeout": wait,
            "read_timeout": 0,
            "write_timeout": 0,
            "init_conn_num": 1,
            "max_conn_num": pool.max_connections,
            "reuse_counts": 1,
            "reuse_life": 0,
        }
    return made


def _topic(office: Office, queue: Queue, topic: Topic, left: list[str]) -> dict[str, Any] | None:
    kinds = {"fastcgi": 0, "http": 1, "command": 2}
    if topic.run not in kinds or (topic.run == "command" and topic.feed != "pull"):
        left.append(f"{topic.full_name}: the Go system has no consumer of this kind")
        return None
    retries = topic.attempts > 1
    found: dict[str, Any] = {
        "name": topic.name,
        "password": (topic.password or queue.password).reveal(),
        "retry_times": 3,
        "max_queue_length": topic.max_length or 1000,
        "run_type": kinds[topic.run],
        "storage": _storage(office, queue, topic, left),
        "num_of_workers": topic.concurrency,
        "script_entry": topic.script or (topic.urls[0] if topic.urls else ""),
        "cgi_config_key": topic.pool,
        "http_config": json.dumps({"host": topic.host}) if topic.host else "",
        "is_retry": retries,
        "retry_time": int(topic.max_age) if retries else 0,
    }
    if topic.run == "command":
        found |= {
            "script": topic.command[-1],
            "entry": topic.entry,
            "max_children": topic.concurrency,
            "max_task": topic.max_task,
        }
    if retries and (topic.backoff.kind, topic.backoff.steps) != ("linear", (float(_STEP_S),)):
        left.append(f"{topic.full_name}: backoff; the Go system knows linear 30s only")
    return found


def _storage(office: Office, queue: Queue, topic: Topic, left: list[str]) -> dict[str, Any]:
    """Where its jobs lay before they were taken over, else the Redis they lie in now."""
    own = office.config.storages[topic.storage or queue.storage]
    urls = [intake.url for intake in queue.intakes if intake.topic in ("", topic.name)]
    urls += [own.url] if own.url else []
    if not urls:
        left.append(f"{topic.full_name}: its jobs lie in no Redis; set storage")
        return {"type": "redis", "address": "127.0.0.1:6379", "auth": ""}
    address = parse_url(own.name, urls[0].reveal())
    if address.path:
        left.append(f"{topic.full_name}: the Go system needs Redis at host:port, not at {address.path}")
    return {"type": "redis", "address": f"{address.host}:{address.port}", "auth": address.password}


@operation(Right.ADMIN, "topic", details=("dry_run",), tells=("jobs", "where"))
def move(office: Office, topic: str, url: str, *, dry_run: bool = False) -> Exported:
    """Move the waiting and dead jobs of a paused topic into QUEUE::TOPIC::list and ::list_retry of that Redis.

    Raises UsageError while it is not paused, NotReachable when that Redis does not answer. Jobs whose bytes are not
    UTF-8 stay: the Go system would spoil them; so does what a worker holds.
    """
    found = office.topic(topic)
    storage = office.storage(found.storage)
    address = _address(url)
    depth = storage.depth(topic)
    made = Exported(topic, f"{topic.replace('/', '::')}::list* in {address}", 0, dry_run)
    if depth.leased:
        made.left.append(f"{depth.leased} jobs that a worker holds at this moment")
    if dry_run:
        made.jobs = depth.ready + depth.delayed + depth.dead
        return made
    if topic not in storage.paused() and not found.paused:
        raise UsageError(
            f"{topic} is not paused: jobs that run meanwhile would be in both places; pepperbus pause {topic}"
        )
    client = _client(address)
    skipped = 0
    try:
        for state in (State.READY, State.DELAYED, State.DEAD):
            cursor = ""
            while True:
                page = storage.peek(topic, state, cursor, _PAGE)
                moved, spoiled = _move(client, found, state, page.jobs)
                storage.remove(topic, moved)
                made.jobs += len(moved)
                if not moved:
                    skipped += spoiled
                    if not page.cursor:
                        break
                cursor = "" if moved else page.cursor  # what was removed shifts the rest
    except redis.RedisError as error:
        raise NotReachable(f"{address}: {error} ({made.jobs} jobs were moved; call it again for the rest)") from error
    finally:
        client.close()
    if skipped:
        made.left.append(f"{skipped} jobs that are not UTF-8 text: the Go system would spoil them")
    return made


def _address(url: str) -> Address:
    try:
        return parse_url("to move to", url)
    except PepperbusError as error:
        raise UsageError(str(error)) from error


def _client(address: Address) -> Any:
    where: dict[str, Any] = (
        {"unix_socket_path": address.path} if address.path else {"host": address.host, "port": address.port}
    )
    if address.tls:
        where["ssl"] = True
    return redis.Redis(
        db=address.database,
        username=address.user or None,
        password=address.password or None,
        socket_timeout=10,
        protocol=2,
        retry=Retry(NoBackoff(), 0),
        **where,
    )


def _move(client: Any, topic: Topic, state: State, page: Sequence[Stored]) -> tuple[list[int], int]:
    """Into the list; the ids that lie there now, and how many could not."""
    key = f"{topic.queue}::{topic.name}::list" + ("" if state is State.READY else "_retry")
    known = {_id(element) for element in client.lrange(key, 0, 2 * _PAGE - 1)}
    elements, ids, spoiled = [], [], 0
    for stored in page:
        job = Job.decode(stored.body)
        try:
            element = _element(job, stored, topic)
        except UnicodeDecodeError:
            spoiled += 1
            continue
        ids.append(job.id)
        if str(job.id) not in known:
            elements.append(element)
    if elements:
        client.lpush(key, *elements)
    return ids, spoiled


def _id(element: bytes) -> str:
    try:
        return str(json.loads(element)["id"])
    except (ValueError, KeyError, TypeError):
        return ""


def _element(job: Job, stored: Stored, topic: Topic) -> str:
    """As the Go system keeps a job; key order and names are its own. Raises UnicodeDecodeError."""
    delayed = stored.due_ms > 0
    retries = delayed and topic.attempts > 1
    tried = stored.attempts
    due = stored.due_ms // 1000 - max(tried - 1, 0) * _STEP_S if delayed else 0
    fields = {
        "id": str(job.id),
        "inTraceId": job.trace,
        "content": job.content.decode(),
        "retrying": max(tried - 1, 0),
        "RetryTimes": tried,
        "RetryTime": due,
        "IsRetry": retries,
        "BeginRetry": tried > 1,
        "RetryResidueTime": int(topic.max_age) if retries else 0,
    }
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
