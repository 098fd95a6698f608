"""php-fpm against our own settings: what its pool file, PHP's settings and its status page say will hurt.

Floor 4. Reads and asks, changes nothing. The pool is found by the address it listens at.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from pepperbus.config.model import Config, FastcgiPool, Topic
from pepperbus.delivery import fpm_status
from pepperbus.errors import NotReachable
from pepperbus.operations import fpm_files
from pepperbus.operations.findings import Diagnosis, Finding
from pepperbus.operations.fpm_files import PoolFile

_SOMAXCONN = Path("/proc/sys/net/core/somaxconn")
_BEFORE_S = 2.0  # php-fpm is to end a script so long before the bus gives it up


def pool(config: Config, one: FastcgiPool, told: Diagnosis, directory: Path) -> Iterator[Finding]:
    """Everything about one pool; what cannot be read is in `told.unknown`."""
    topics = topics_of(config, one)
    if finding := reach(one):
        yield finding
    same = [other for other in config.pools.values() if other.address == one.address]
    yield from _own(one, topics, same)
    yield from _status(one)
    settings = fpm_files.find(one.address, directory)
    if settings is None:
        told.unknown.append(
            f"pool {one.name}: no readable file of {directory} listens at {one.address}; its limits are unknown"
        )
        return
    yield from _children(one, settings, sum(other.max_connections for other in same))
    yield from _times(one, settings, topics)
    yield from _sizes(one, settings, config.gateway.max_bulk)
    yield from _output(one, settings)
    yield from _access(one, settings)
    yield from _sight(one, settings)


def topics_of(config: Config, one: FastcgiPool) -> list[Topic]:
    return [t for q in config.queues.values() for t in q.topics.values() if t.run == "fastcgi" and t.pool == one.name]


def _own(one: FastcgiPool, topics: list[Topic], same: list[FastcgiPool]) -> Iterator[Finding]:
    """Our settings among themselves. `same`: what of the configuration leads to the same php-fpm, `one` included."""
    if one.keepalive and not all(other.keepalive for other in same):
        what = f"pool {one.name}: kept and fresh connections meet in one php-fpm pool, and make each other wait"
        yield Finding("slow", what, f"[fastcgi] [[{one.name}]] keepalive = off, or a php-fpm pool of its own")
    if (wanted := sum(topic.concurrency for topic in topics)) > one.max_connections:
        what = f"pool {one.name}: its topics want {wanted} attempts at once, it takes {one.max_connections}"
        yield Finding("slow", what, f"[fastcgi] [[{one.name}]] max_connections = {wanted}")


def _children(one: FastcgiPool, settings: PoolFile, wanted: int) -> Iterator[Finding]:
    """`wanted`: connections of all our pools that lead there."""
    children = settings.number("pm.max_children")
    if 0 < children < wanted:
        what = f"pool {one.name}: max_connections is {wanted} there, but php-fpm has {children} children"
        yield Finding("stop", what, f"{settings.file}: pm.max_children = {wanted + 2}")
    backlog = settings.number("listen.backlog") or 511
    try:
        backlog = min(backlog, int(_SOMAXCONN.read_text()))
    except (OSError, ValueError):
        pass
    if backlog < one.max_connections:
        what = f"pool {one.name}: listen.backlog is {backlog}, below max_connections = {one.max_connections}: connects fail"
        yield Finding("slow", what, f"{settings.file}: listen.backlog = 511")


def _times(one: FastcgiPool, settings: PoolFile, topics: list[Topic]) -> Iterator[Finding]:
    longest = max((topic.timeout for topic in topics), default=0.0)
    terminate = settings.seconds("request_terminate_timeout")
    cure = f"{settings.file}: request_terminate_timeout = {max(longest - _BEFORE_S, 1):g}s"
    if topics and (terminate == 0 or terminate > longest):
        ends = f"ends a script only after {terminate:g} s" if terminate else "never ends a script"
        what = f"pool {one.name}: php-fpm {ends}, the bus gives it up after {longest:g} s: two may then run"
        yield Finding("slow", what, cure)
    elif topics and terminate < longest * 0.9 - _BEFORE_S:
        what = f"pool {one.name}: php-fpm kills scripts after {terminate:g} s, a topic allows {longest:g} s"
        yield Finding("slow", what, f"{cure}; or timeout = {terminate + _BEFORE_S:g}s in the topic")
    for topic in topics:
        if (
            0 < terminate <= topic.timeout < terminate * 4 / 3
            and topic.zombie_grace < terminate * 4 / 3 - topic.timeout
        ):
            late = terminate * 4 / 3 - topic.timeout
            what = f"{topic.full_name}: php-fpm ends scripts up to a third late, so one may outlive its timeout by {late:.0f} s"
            yield Finding("slow", what, f"zombie_grace = {late:.0f}s in the topic")
    if settings.general and not settings.general_seconds("process_control_timeout"):
        what = f"pool {one.name}: process_control_timeout is 0: each reload of php-fpm kills the jobs that run"
        yield Finding("slow", what, f"php-fpm.conf, [global]: process_control_timeout = {min(longest, 60) or 10:g}s")


def _sizes(one: FastcgiPool, settings: PoolFile, max_bulk: int) -> Iterator[Finding]:
    post, memory = settings.php_size("post_max_size", "8M"), settings.php_size("memory_limit", "128M")
    if 0 < post < 3 * max_bulk:
        what = f"pool {one.name}: post_max_size is {post >> 20} MiB, the largest job as a form takes {3 * max_bulk >> 20} MiB"
        yield Finding("stop", what, f"{settings.file}: php_admin_value[post_max_size] = {3 * max_bulk >> 20}M")
    if 0 < memory < 6 * max_bulk:
        what = (
            f"pool {one.name}: memory_limit is {memory >> 20} MiB, the largest job alone takes {6 * max_bulk >> 20} MiB"
        )
        yield Finding("stop", what, f"{settings.file}: php_admin_value[memory_limit] = {128 + (8 * max_bulk >> 20)}M")


def _output(one: FastcgiPool, settings: PoolFile) -> Iterator[Finding]:
    """Where PHP's errors go: what the bus does not hear of it takes for success."""
    if not settings.php_flag("log_errors", True) and not one.dedicated:
        what = f"pool {one.name}: log_errors is off: a script that dies after its first output is taken for done"
        yield Finding("loss", what, f"{settings.file}: php_admin_flag[log_errors] = on")
    if log := settings.php("error_log"):
        what = f"pool {one.name}: error_log = {log} takes PHP's errors away from the bus"
        yield Finding("loss", what, f"{settings.file}: remove php_admin_value[error_log]")
    if settings.values.get("catch_workers_output", "no").lower() in ("yes", "1", "on", "true"):
        what = f"pool {one.name}: catch_workers_output takes what scripts write to stderr away from the bus"
        yield Finding("slow", what, f"{settings.file}: catch_workers_output = no")
    if one.dedicated:
        return  # the bus sets the rest with each request
    if settings.php("output_buffering", "0").lower() in ("0", "off", ""):
        what = f"pool {one.name}: output_buffering is off: a `Code` header after the first echo is lost"
        yield Finding("slow", what, f"{settings.file}: php_admin_value[output_buffering] = 65536")
    if settings.php_flag("display_errors", True):
        what = f"pool {one.name}: display_errors is on: PHP's messages stand in the answers"
        yield Finding("slow", what, f"{settings.file}: php_admin_flag[display_errors] = off")


def _access(one: FastcgiPool, settings: PoolFile) -> Iterator[Finding]:
    """Whoever can connect to php-fpm runs any PHP as its user."""
    tcp = not one.address.startswith("unix:")
    if tcp and not settings.values.get("listen.allowed_clients"):
        what = f"pool {one.name}: php-fpm listens on TCP for everybody, and has no password"
        yield Finding("open", what, f"{settings.file}: listen.allowed_clients = 127.0.0.1")
    path = one.address.removeprefix("unix:")
    if not tcp and _mode(path) & 0o002:
        what = f"pool {one.name}: everybody on this machine may run PHP through {path}"
        yield Finding("open", what, f"{settings.file}: listen.mode = 0660")
    if settings.values.get("user") == "root":
        yield Finding("open", f"pool {one.name}: its scripts run as root", f"{settings.file}: user = www-data")
    if settings.values.get("security.limit_extensions", ".php") in ("", "FALSE", "false"):
        what = f"pool {one.name}: security.limit_extensions is empty: any file can be run as PHP"
        yield Finding("open", what, f"{settings.file}: security.limit_extensions = .php")


def _sight(one: FastcgiPool, settings: PoolFile) -> Iterator[Finding]:
    if not settings.seconds("request_slowlog_timeout"):
        what = f"pool {one.name}: no slowlog: where a slow script spends its time is not seen"
        change = f"{settings.file}: slowlog = /var/log/php-fpm-slow.log and request_slowlog_timeout = 10s"
        yield Finding("blind", what, change)
    if not one.status:
        listen, path = settings.values.get("pm.status_listen"), settings.values.get("pm.status_path")
        change = f"[fastcgi] [[{one.name}]] status = {listen}{path}" if listen and path else (
            f"{settings.file}: pm.status_listen = 127.0.0.1:9001 and pm.status_path = /status; "
            f"[fastcgi] [[{one.name}]] status = 127.0.0.1:9001/status"
        )  # fmt: skip
        yield Finding("blind", f"pool {one.name}: its status page is not asked", change)


def _status(one: FastcgiPool) -> Iterator[Finding]:
    """What php-fpm's own counters say."""
    if not one.status:
        return
    try:
        facts = fpm_status.ask(one.status)
    except NotReachable as error:
        what = f"pool {one.name}: its status page does not answer: {error}"
        yield Finding("blind", what, "pm.status_listen and pm.status_path of php-fpm's pool")
        return
    if reached := facts.get("max children reached", 0):
        what = f"pool {one.name}: php-fpm was out of children {reached} times since its start"
        yield Finding("slow", what, f"pm.max_children above {facts.get('max active processes', 0)}")
    if slow := facts.get("slow requests", 0):
        yield Finding("slow", f"pool {one.name}: {slow} slow requests since its start", "see php-fpm's slowlog")


def _mode(path: str) -> int:
    try:
        return os.stat(path).st_mode
    except OSError:
        return 0


def reach(one: FastcgiPool) -> Finding | None:
    """Whether this account could connect; a connection is made and closed, nothing is run."""
    where = f"[fastcgi] [[{one.name}]] address = {one.address}"
    family = socket.AF_UNIX if one.address.startswith("unix:") else socket.AF_INET
    path = one.address.removeprefix("unix:")
    try:
        if family == socket.AF_UNIX:
            if not stat.S_ISSOCK(os.stat(path).st_mode):
                return Finding("stop", f"{where} is no socket", "name php-fpm's `listen` there")
            with socket.socket(family) as sock:
                sock.settimeout(one.connect_timeout)
                sock.connect(path)
        else:
            host, _, port = path.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), one.connect_timeout).close()
    except PermissionError:
        change = (
            "listen.group = the bus' group and listen.mode = 0660 in php-fpm's pool, or put the bus into that group"
        )
        return Finding("stop", f"{where}: this account may not connect (EACCES)", change)
    except OSError as error:
        return Finding("stop", f"{where}: {error.strerror or error}", "start php-fpm, or mend the address")
    return None
