"""What will hurt: our settings, files, disks, kernel, Redis and php-fpm looked at together, most harmful first.

Floor 4. Only what can honestly be known from here is said; what could not be looked at is in `unknown`. Nothing is changed.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pepperbus.config.load import notes
from pepperbus.config.model import Config, FastcgiPool, Topic
from pepperbus.errors import NotFound, PepperbusError
from pepperbus.operations import fpm_files
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result, Status
from pepperbus.operations.status import StatusReader

#: From the worst on: jobs may be lost, jobs do not run, jobs run late or twice, others see too much.
HARMS = ("loss", "stop", "slow", "open")
_DEAD = 1000
_LEAST_FREE = 0.1
_RESERVE = 200  # descriptors beside those of clients


class Finding(Result):
    """`harm`: loss, stop, slow or open; `what` is wrong; `change`: the line that would end it."""

    harm: str
    what: str
    change: str


class Diagnosis(Result):
    """`unknown`: what could not be looked at, and why."""

    findings: list[Finding] = msgspec.field(default_factory=list)
    unknown: list[str] = msgspec.field(default_factory=list)

    def sort(self) -> Diagnosis:
        self.findings.sort(key=lambda finding: HARMS.index(finding.harm))
        return self


def diagnose(office: Office, pools: Path = fpm_files.DIRECTORY) -> Diagnosis:
    """Everything. Raises nothing for a part that is away: it is in `unknown`."""
    config, told = office.config, Diagnosis()
    status = StatusReader(office).read()
    for storage in config.storages:
        told.findings += _storage(office, storage, told)
    told.findings += [*state(status), *topics(config), *disks(config), *files(config), *kernel(config)]
    if not status.running:
        told.unknown.append("the bus does not run: processes and targets were not asked")
    for pool in config.pools.values():
        told.findings += _fpm(config, pool, told, pools)
    return told.sort()


def check_fpm(office: Office, name: str = "", pools: Path = fpm_files.DIRECTORY) -> Diagnosis:
    """The php-fpm pools of the configuration, or one of them. Raises NotFound."""
    known = office.config.pools
    if name and name not in known:
        raise NotFound(f"no [fastcgi] pool {name!r}; the configuration names: {', '.join(known) or 'none'}")
    told = Diagnosis()
    for pool in [known[name]] if name else known.values():
        told.findings += _fpm(office.config, pool, told, pools)
    return told.sort()


def _storage(office: Office, name: str, told: Diagnosis) -> Iterator[Finding]:
    wanted = {q.durability for q in office.config.queues.values() for t in q.topics.values() if t.storage == name}
    try:
        storage = office.storage(name)
    except PepperbusError as error:
        yield Finding("stop", f"storage {name}: {error}", f"start it, or mend [storages] [[{name}]]")
        return
    for level in sorted(wanted):
        if advice := storage.advice(level):
            yield Finding("loss", f"storage {name} does not give the durability `{level}`", advice.replace("\n", "; "))


def state(status: Status) -> Iterator[Finding]:
    """What the node's own figures say."""
    for topic in (topic for queue in status.queues for topic in queue.topics):
        if topic.paused and topic.ready:
            yield Finding(
                "stop", f"{topic.name} is paused and {topic.ready} jobs wait", f"pepperbus resume {topic.name}"
            )
        if topic.state in ("stopped", "down"):
            why = f": {topic.why}" if topic.why else ""
            yield Finding("stop", f"{topic.name}: its consumer is {topic.state}{why}", f"pepperbus ping {topic.name}")
        if topic.dead >= _DEAD:
            yield Finding(
                "slow", f"{topic.name}: {topic.dead} dead jobs", f"pepperbus jobs {topic.name}; then replay or purge"
            )
    for topic in status.detached:
        n = topic.ready + topic.delayed + topic.leased + topic.dead
        yield Finding(
            "stop",
            f"{topic.name}: {n} jobs in {topic.storage}, but no queue's file has it",
            "add the topic, or purge it",
        )


def topics(config: Config) -> Iterator[Finding]:
    """Settings that do not fit each other."""
    for queue in config.queues.values():
        for topic in queue.topics.values():
            if not config.consumes(topic):
                change = f"queue {queue.name}, [[{topic.name}]]: consumer = yes, or a tag of this node"
                yield Finding("stop", f"{topic.full_name}: this node does not feed it", change)
            elif topic.timeout > config.bus.grace and topic.attempts == 1:
                what = (
                    f"{topic.full_name}: one attempt of up to {topic.timeout:g} s, a stop waits {config.bus.grace:g} s"
                )
                yield Finding("loss", what, f"[bus] grace = {topic.timeout:g}s, or attempts = 2")
    for pool in config.pools.values():
        if (wanted := sum(t.concurrency for t in _of(config, pool))) > pool.max_connections:
            what = f"pool {pool.name}: its topics want {wanted} attempts at once, it takes {pool.max_connections}"
            yield Finding("slow", what, f"[fastcgi] [[{pool.name}]] max_connections = {wanted}")


def disks(config: Config) -> Iterator[Finding]:
    for key in ("data_dir", "run_dir"):
        path: Path = getattr(config.bus, key)
        if not path.exists():
            continue
        free = shutil.disk_usage(path)
        inodes = os.statvfs(path)
        share = min(free.free / max(free.total, 1), inodes.f_favail / inodes.f_files if inodes.f_files else 1)
        if share < _LEAST_FREE:
            yield Finding(
                "stop", f"{path}: {share:.0%} of the disk (or its inodes) is free", f"[bus] {key} = a larger disk"
            )


def files(config: Config) -> Iterator[Finding]:
    for note in notes(config):
        if "holds passwords and everybody" in note:
            what, _, change = note.partition(": ")
            yield Finding("open", what, change)
        elif "without TLS" in note or "still the sample's" in note:
            yield Finding("open", note, "[gateway] cert and key" if "TLS" in note else "password = one of your own")


def kernel(config: Config, proc: Path = Path("/proc/sys"), nofile: int = 0) -> Iterator[Finding]:
    """`nofile` 0: the limit of this shell, which is the bus' only where it is started from here."""
    somaxconn = _number(proc / "net/core/somaxconn")
    if 0 < somaxconn < 1024:
        yield Finding(
            "slow",
            f"net.core.somaxconn is {somaxconn}: bursts of clients are refused",
            "sysctl net.core.somaxconn=4096",
        )
    local = any(is_local(s.url.reveal()) for s in config.storages.values() if s.type == "redis")
    if local and _number(proc / "vm/overcommit_memory") == 0:
        yield Finding(
            "slow", "vm.overcommit_memory is 0: Redis may fail to fork for its log", "sysctl vm.overcommit_memory=1"
        )
    limit = nofile or resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = config.gateway.max_clients + _RESERVE
    if 0 < limit < needed:
        what = f"{limit} open files are allowed here, {needed} are needed for [gateway] max_clients"
        yield Finding("slow", what, f"LimitNOFILE={needed} in the unit, or max_clients = {max(limit - _RESERVE, 1)}")


def is_local(url: str) -> bool:
    return url.startswith("unix:") or "@127.0.0.1" in url or "//127.0.0.1" in url or "//localhost" in url


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return -1


# -- php-fpm -------------------------------------------------------------------------------------------------------


def _fpm(config: Config, pool: FastcgiPool, told: Diagnosis, directory: Path) -> Iterator[Finding]:
    if finding := reach(pool):
        yield finding
    settings = fpm_files.find(pool.address, directory)
    if settings is None:
        told.unknown.append(
            f"pool {pool.name}: no readable file of {directory} listens at {pool.address}; its limits are unknown"
        )
        return
    where = settings.file
    children = settings.number("pm.max_children")
    if 0 < children < pool.max_connections:
        what = f"pool {pool.name}: max_connections is {pool.max_connections}, but php-fpm has {children} children"
        yield Finding("stop", what, f"{where}: pm.max_children = {pool.max_connections + 2}")
    longest = max((topic.timeout for topic in _of(config, pool)), default=0.0)
    terminate = settings.seconds("request_terminate_timeout")
    if 0 < terminate < longest:
        what = f"pool {pool.name}: php-fpm kills scripts after {terminate:g} s, a topic allows {longest:g} s"
        yield Finding("slow", what, f"{where}: request_terminate_timeout = {longest + 5:g}s")
    post = settings.size("php_admin_value[post_max_size]") or settings.size("php_value[post_max_size]")
    if 0 < post < 3 * config.gateway.max_bulk:
        what = f"pool {pool.name}: post_max_size is {post} bytes, the largest job as a form takes {3 * config.gateway.max_bulk}"
        yield Finding("stop", what, f"{where}: php_admin_value[post_max_size] = {3 * config.gateway.max_bulk >> 20}M")
    if pool.dedicated and settings.values.get("catch_workers_output") in ("yes", "1", "on"):
        what = f"pool {pool.name}: catch_workers_output takes PHP's errors away from the bus"
        yield Finding("slow", what, f"{where}: catch_workers_output = no")


def reach(pool: FastcgiPool) -> Finding | None:
    """Whether this account could connect; a connection is made and closed, nothing is run."""
    where = f"[fastcgi] [[{pool.name}]] address = {pool.address}"
    family = socket.AF_UNIX if pool.address.startswith("unix:") else socket.AF_INET
    path = pool.address.removeprefix("unix:")
    try:
        if family == socket.AF_UNIX:
            if not stat.S_ISSOCK(os.stat(path).st_mode):
                return Finding("stop", f"{where} is no socket", "name php-fpm's `listen` there")
            with socket.socket(family) as sock:
                sock.settimeout(pool.connect_timeout)
                sock.connect(path)
        else:
            host, _, port = path.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), pool.connect_timeout).close()
    except PermissionError:
        change = (
            "listen.group = the bus' group and listen.mode = 0660 in php-fpm's pool, or put the bus into that group"
        )
        return Finding("stop", f"{where}: this account may not connect (EACCES)", change)
    except OSError as error:
        return Finding("stop", f"{where}: {error.strerror or error}", "start php-fpm, or mend the address")
    return None


def _of(config: Config, pool: FastcgiPool) -> list[Topic]:
    return [t for q in config.queues.values() for t in q.topics.values() if t.run == "fastcgi" and t.pool == pool.name]
