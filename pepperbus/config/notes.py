"""What is allowed but worth knowing: the remarks `pepperbus check` prints under a valid configuration.

Floor 1. Sees only the finished `Config`, the modes of its files and whether what they name is there; finding nothing is normal.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

from pepperbus.config import tracing
from pepperbus.config.model import Config, Topic
from pepperbus.config.timing import local_name, zone
from pepperbus.config.timing_words import words
from pepperbus.ids import LAST_MS

YEAR_MS = 365 * 86_400_000


def notes(config: Config, now_ms: int | None = None) -> list[str]:
    """One line each: first what may hurt, then each topic's timetable of retries."""
    now_ms = int(time.time() * 1000) if now_ms is None else now_ms
    return [
        *_ids(now_ms),
        *_files(config),
        *_web(config),
        *_node(config),
        *_pools(config),
        *_scripts(config),
        *_schedules(config, now_ms),
        *_timetables(config),
    ]


def span(seconds: float) -> str:
    """A duration for people, rounded to what matters: `45 s`, `12 min`, `9 h`, `3 d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def timetable(topic: Topic) -> str:
    """How long a job that always fails is tried, and which limit ends it."""
    total, attempts = 0.0, 1
    while attempts < topic.attempts and total + topic.backoff.wait_s(attempts, 0.5) <= topic.max_age:
        total += topic.backoff.wait_s(attempts, 0.5)
        attempts += 1
        if attempts > 100_000:
            break
    if topic.attempts == 1:
        return f"{topic.full_name}: 1 attempt, a failed job is dead at once"
    ending = "attempts" if attempts == topic.attempts else "max_age"
    if ending == "max_age":
        total = topic.max_age
    return f"{topic.full_name}: {attempts} attempts over {span(total)} plus run time, ended by {ending}"


def _ids(now_ms: int) -> Iterator[str]:
    if LAST_MS - now_ms < YEAR_MS:
        end = time.strftime("%Y-%m-%d", time.gmtime(LAST_MS / 1000))
        yield f"job ids can be given out until {end} only; update Pepperbus before that day"


def _files(config: Config) -> Iterator[str]:
    told = any(channel.url or channel.password for channel in config.alarms.channels)
    secret = [(config.file, bool(config.logins) or told or any(s.url for s in config.storages.values()))]
    secret += [(q.file, True) for q in config.queues.values() if q.file is not None and q.password]
    secret += [(file, True) for file in config.secret_files]
    secret += [(config.gateway.key, True)] if config.gateway.key else []
    for file, holds in secret:
        if holds and _world_readable(file):
            yield f"{file} holds secrets and everybody on this machine can read it: chmod o-r {file}"


def _world_readable(file: Path) -> bool:
    try:
        return bool(file.stat().st_mode & 0o004)
    except OSError:
        return False


def _web(config: Config) -> Iterator[str]:
    web = config.web
    if not web.legacy_loopback:
        return
    yield "[web] legacy_loopback = yes: everybody on this machine can run and delete jobs and stop the bus, without a login"
    shown = [f"proxies = {', '.join(web.proxies)}"] if web.proxies else []
    shown += [f"hosts = {', '.join(web.hosts)}"] if web.hosts else []
    shown += [f"listen = {address}" for address in web.listen if address.startswith("unix:")]
    if shown:
        yield (
            f"[web] legacy_loopback = yes behind a proxy ({'; '.join(shown)}): if it adds no X-Forwarded-For, all who come "
            "through it need no login either: legacy_loopback = no, or a proxy that adds it"
        )


def _node(config: Config) -> Iterator[str]:
    if not config.queues:
        yield f"there is no queue yet: {config.queue_files} matches no file"
    if config.gateway.public and not config.gateway.cert:
        yield "[gateway] public = yes without TLS: passwords and jobs cross the network readable"
    for login in config.logins.values():
        for pattern in login.queues:
            if not any(fnmatchcase(name, pattern) for name in config.queues):
                yield f"[logins] {login.name}: {pattern} matches no queue"
    used = {topic.storage for queue in config.queues.values() for topic in queue.topics.values()}
    for name in config.storages:
        if config.queues and name not in used:
            yield f"[storages] [[{name}]]: no topic uses it"
    if config.tracing.endpoint and not tracing.is_installed():
        yield f"[tracing] endpoint: no spans are sent, the extra is not installed: {tracing.EXTRA}"
    if not config.bus.consumer:
        yield "[bus] consumer = no: this node only accepts pushes"
    groups = config.groups()
    for queue in config.queues.values():
        if queue.password.reveal() == "change-me":
            yield f"{queue.name}: the password is still the sample's; set your own"
        if len({q.workers for q in groups.get(queue.group, [])}) > 1:
            yield f"{queue.name}: the queues of process_group {queue.group} name different numbers of workers"
        for topic in queue.topics.values():
            if topic.kept and topic.feed == "none" and len(queue.topics) > 1:
                yield f"{topic.full_name}: feed = none takes no jobs, and each push is copied to it; give it its own queue"
            if config.bus.consumer and topic.consumer and not topic.pulled and not config.consumes(topic):
                yield f"{topic.full_name}: this node has none of its tags ({', '.join(topic.tags)}) and does not feed it"


def _pools(config: Config) -> Iterator[str]:
    for pool in config.pools.values():
        topics = [
            t for q in config.queues.values() for t in q.topics.values() if t.run == "fastcgi" and t.pool == pool.name
        ]
        if topics and _is_missing(pool.address.removeprefix("unix:")):
            missing = f"{pool.address} now{_sockets_beside(pool.address)}"
            yield f"[fastcgi] [[{pool.name}]]: there is no {missing}; its topics wait until php-fpm makes it"
        wanted = sum(topic.concurrency for topic in topics)
        if wanted > pool.max_connections:
            yield (
                f"[fastcgi] [[{pool.name}]]: its topics ask for {wanted} attempts at once, "
                f"max_connections allows {pool.max_connections}; they share"
            )


def _sockets_beside(address: str) -> str:
    """What may have been meant: Debian's sockets carry PHP's version in their names."""
    try:
        found = sorted(path for path in Path(address.removeprefix("unix:")).parent.glob("*.sock") if path.is_socket())
    except OSError:
        return ""
    return f" (but {', '.join(f'unix:{path}' for path in found[:3])})" if found else ""


def _scripts(config: Config) -> Iterator[str]:
    """php-fpm may see other directories than this machine's (chroot, container), so these are no mistakes."""
    for topic in (topic for queue in config.queues.values() for topic in queue.topics.values()):
        local = topic.run == "fastcgi" and config.pools[topic.pool].address.startswith("unix:")
        if local and _is_missing(topic.script):
            yield f"{topic.full_name}: there is no {topic.script} on this machine (right if php-fpm sees other directories)"


def _is_missing(path: str) -> bool:
    """Whether nothing is there for certain: a directory closed to us proves nothing."""
    if not path.startswith("/"):
        return False
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _schedules(config: Config, now_ms: int) -> Iterator[str]:
    """When each fires, and when next: a wrong field is easier seen in dates than in stars."""
    for queue in config.queues.values():
        for one in queue.schedule.values():
            there = zone(one.timing.zone)
            dates = [datetime.fromtimestamp(ms / 1000, there) for ms in islice(one.timing.after(now_ms), 3)]
            times = ", ".join(date.strftime("%Y-%m-%d %H:%M:%S") for date in dates)
            name = one.timing.zone or local_name() or "UTC"
            yield f"{one.full_name}: {words(one.timing)}, {name}; next {times or 'never'}"


def _timetables(config: Config) -> Iterator[str]:
    for queue in config.queues.values():
        for topic in queue.topics.values():
            yield timetable(topic)
