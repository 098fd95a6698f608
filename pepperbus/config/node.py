"""The node's file (pepperbus.conf) as dataclasses: everything but the queues.

Floor 1. Notes what several of its options mean together; a value that is wrong is replaced by its default, so that one
mistake does not hide the next.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pepperbus.config import alarms, signon, tracing
from pepperbus.config.check import Values, complete, did_you_mean, given
from pepperbus.config.model import (
    Bus,
    Config,
    FastcgiPool,
    Gateway,
    Http,
    Journal,
    Log,
    Login,
    StorageConfig,
    Web,
)
from pepperbus.config.source import Document, KeyPath
from pepperbus.config.spec import schema
from pepperbus.config.values import SOCKET_PATH_BYTES, is_loopback
from pepperbus.names import NAME_RULE, is_name

LOCAL = "local"


def build(document: Document) -> Config:
    """The configuration without its queues. Mistakes are in `document` afterwards."""
    spec = schema()["node"]
    values = given(document, spec)

    def section(name: str) -> Values:
        return complete(values.get(name, {}), spec.sections[name])

    base = Path(os.path.abspath(document.file)).parent
    bus = _bus(document, section("bus"), base)
    config = Config(
        file=base / document.file.name,
        queue_files=str(_absolute(base, complete(values, spec)["queue_files"])),
        bus=bus,
        gateway=_gateway(document, section("gateway"), base),
        web=Web(**_faced(document, "web", section("web"), base)),
        log=_log(section("log"), base),
        journal=Journal(**section("journal")),
        storages=_storages(document, values, bus.data_dir),
        pools=_pools(document, values, base),
        logins=_logins(document, values),
        queues={},
        oidc=signon.oidc(document, values, spec, base),
        ldap=signon.ldap(document, values, spec, base),
        http=Http(**section("http")),
        tracing=tracing.build(document, section("tracing")),
    )
    config = replace(config, http=replace(config.http, own=_ports(config.gateway.listen + config.web.listen)))
    config = replace(config, alarms=alarms.build(document, values, config.http))
    _check_listeners(document, config)
    return config


def _ports(listen: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(int(one.rpartition(":")[2]) for one in listen if not one.startswith("unix:"))


def _absolute(base: Path, path: str) -> Path:
    return Path(os.path.normpath(base / path))


def _bus(document: Document, values: Values, base: Path) -> Bus:
    values["node"] = values["node"] or _host_name()
    for key in ("data_dir", "run_dir"):
        values[key] = _absolute(base, values[key])
    if values["data_dir"] == values["run_dir"]:
        document.mistake(
            ("bus", "run_dir"), "run_dir and data_dir must be two directories: one may be lost at a reboot"
        )
    if 0 < values["memory_limit"] < 64 << 20:
        document.mistake(("bus", "memory_limit"), "a process needs more than that: 64MiB at least, or 0 for no limit")
    _check_known(document, ("bus", "user"), values["user"], pwd.getpwnam)
    _check_known(document, ("bus", "group"), values["group"], grp.getgrnam)
    return Bus(**values)


def _check_known(document: Document, path: KeyPath, name: str, lookup: Callable[[str], Any]) -> None:
    try:
        if name:
            lookup(name)
    except (KeyError, ValueError):
        document.mistake(path, f"no such {path[-1]} on this machine; create it or leave the value empty")


def _host_name() -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname()).lstrip("._-")[:128]
    return name or "node"


def _gateway(document: Document, values: Values, base: Path) -> Gateway:
    return Gateway(**_faced(document, "gateway", values, base))


def _faced(document: Document, section: str, values: Values, base: Path) -> Values:
    """What both front doors have: addresses and TLS files."""
    for key in ("cert", "key"):
        values[key] = _absolute(base, values[key]) if values[key] else None
        if values[key] is not None and not values[key].is_file():
            document.mistake((section, key), f"there is no file {values[key]}")
    if (values["cert"] is None) != (values["key"] is None):
        present, absent = ("cert", "key") if values["cert"] else ("key", "cert")
        document.mistake((section, present), f"TLS needs both files: {absent} is missing")
    values["listen"] = _listen(document, (section, "listen"), values["listen"], base)
    return values


def _check_listeners(document: Document, config: Config) -> None:
    gateway = config.gateway
    for one in gateway.listen:
        if not (is_loopback(one) or gateway.cert or gateway.public):
            document.mistake(
                ("gateway", "listen"),
                f"{one} can be reached from other machines: set cert and key (TLS), or public = yes "
                "if everything between here and the producers is trusted",
            )
    for one in config.web.listen:
        if not is_loopback(one) and not _has_accounts(config.bus.data_dir):
            document.mistake(
                ("web", "listen"),
                f"{one} can be reached from other machines, and there is no account yet: "
                "make the first one (`pepperbus user add NAME`) while it listens on loopback only",
            )
        elif not (is_loopback(one) or config.web.cert or config.web.public):
            document.mistake(
                ("web", "listen"),
                f"{one} can be reached from other machines: set cert and key (TLS), or public = yes "
                "if everything between here and the people is trusted",
            )
        if one in gateway.listen:
            document.mistake(("web", "listen"), f"{one} is already the gateway's; choose another port")


def _has_accounts(data_dir: Path) -> bool:
    """The file comes with the first account. Who may not look cannot know, and is not kept from checking the rest."""
    try:
        return (data_dir / "accounts.db").is_file()
    except OSError:
        return True


def _listen(document: Document, path: KeyPath, listen: tuple[str, ...], base: Path) -> tuple[str, ...]:
    return tuple(_socket(document, path, one, base) for one in listen)


def _socket(document: Document, path: KeyPath, address: str, base: Path) -> str:
    """The address with an absolute socket path."""
    if not address.startswith("unix:"):
        return address
    where = str(_absolute(base, address.removeprefix("unix:")))
    if len(where.encode()) > SOCKET_PATH_BYTES:
        document.mistake(path, f"the socket path {where} is longer than {SOCKET_PATH_BYTES} bytes, the system's limit")
    return f"unix:{where}"


def _log(values: Values, base: Path) -> Log:
    for key in ("file", "errors"):
        if values[key] not in ("", "-"):
            values[key] = str(_absolute(base, values[key]))
    return Log(**{**values, "file": values["file"] or "-"})


def _named(document: Document, values: Values, section: str) -> dict[str, Values]:
    """The sections inside `section` that have a usable name."""
    found = {name: inner for name, inner in values.get(section, {}).items() if isinstance(inner, dict)}
    for name in [name for name in found if not is_name(name)]:
        document.mistake((section, name), f"not a name; allowed: {NAME_RULE}")
        del found[name]
    return found


def _storages(document: Document, values: Values, data_dir: Path) -> dict[str, StorageConfig]:
    spec = schema()["node"].sections["storages"].any_section
    assert spec is not None
    storages = {}
    for name, inner in _named(document, values, "storages").items():
        path = ("storages", name)
        full = complete(inner, spec)
        kind = full["type"]
        if kind == "redis" and not document.broken and document.value((*path, "url")) in (None, ""):
            document.mistake(path, "type = redis needs a url, such as redis://127.0.0.1:6379/0")
        for key in ("url", "mode"):
            if kind == "embedded" and inner.get(key):
                document.mistake((*path, key), f"{key} is for type = redis only; this storage is embedded")
        storages[name] = StorageConfig(name=name, path=None if kind == "redis" else data_dir / name, **full)
    return storages or {LOCAL: StorageConfig(LOCAL, "embedded", path=data_dir / LOCAL)}


def _pools(document: Document, values: Values, base: Path) -> dict[str, FastcgiPool]:
    spec = schema()["node"].sections["fastcgi"].any_section
    assert spec is not None
    pools = {}
    for name, inner in _named(document, values, "fastcgi").items():
        path = ("fastcgi", name)
        full = complete(inner, spec)
        if document.value((*path, "address")) is None and not document.broken:
            document.mistake(path, "address is missing: unix:/path or host:port, where php-fpm listens")
        full["address"] = _socket(document, (*path, "address"), full["address"] or "", base)
        if full["keepalive"] and not full["dedicated"]:
            document.mistake(
                (*path, "keepalive"),
                "a kept connection holds a php-fpm child, so it needs dedicated = yes: a pool that serves the bus alone",
            )
        if full["status"] and not re.fullmatch(r"(unix:/[^/].*|[^/]+:\d+)/[^/]+", full["status"]):
            document.mistake((*path, "status"), "pm.status_listen and pm.status_path are wanted: 127.0.0.1:9001/status")
        full["script_root"] = tuple(os.path.normpath(root) for root in full["script_root"])
        for root in full["script_root"]:
            if not root.startswith("/") or root == "/":
                document.mistake((*path, "script_root"), "absolute paths of directories are wanted, such as /data/app")
        pools[name] = FastcgiPool(name=name, **full)
    return pools


def _logins(document: Document, values: Values) -> dict[str, Login]:
    logins = {}
    for name, login in values.get("logins", {}).items():
        if not is_name(name) or name == "default":
            document.mistake(("logins", name), f"{name!r} cannot be a login; allowed: {NAME_RULE}; not default")
        logins[name] = replace(login, name=name)
    return logins


def unknown_name(kind: str, name: str, known: dict[str, Any], section: str) -> str:
    """`no storage redis2; did you mean redis1? …` for a name that another section should hold."""
    have = f"known: {', '.join(known)}" if known else f"there is none in [{section}]"
    return f"no {kind} {name!r}{did_you_mean(name, known)}; {have}"
