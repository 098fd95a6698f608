"""What crosses the exec of an upgrade: one JSON document in an inherited memfd, and the descriptors it names.

The master before the exec packs, the master after it (same pid, new code) takes. The two are of different versions, so
the document says which form it has, and nothing in it is a pickle. Times are monotonic: the same clock before and after.

`bus_boot` crosses too. It is the name of a bus, not of a master process: the lock is never given up, the workers of
before still run, and their places at targets lie in a directory of that name. With a new one old and new workers
would not see each other's places and together exceed every limit. Births go on counting, so no incarnation repeats
and a lease always tells whose it is.
"""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pepperbus.config.model import Config
from pepperbus.errors import BootError
from pepperbus.master.bus import Bus
from pepperbus.master.children import Phase, Place
from pepperbus.master.control import Client
from pepperbus.master.handed import Handed
from pepperbus.master.lines import Line
from pepperbus.master.opened import Opened

#: The form of the document. One that differs is refused by the trial, before anything has changed.
VERSION = 1
VARIABLE = "PEPPERBUS_HANDOVER"


def fixed(config: Config) -> dict[str, str]:
    """The settings that hang on what is handed over: opened sockets, the lock, names in the storages."""
    bus = config.bus
    return {
        "[bus] node": bus.node,
        "[bus] shard": str(bus.shard),
        "[bus] data_dir": str(bus.data_dir),
        "[bus] run_dir": str(bus.run_dir),
        "[bus] user": bus.user,
        "[bus] group": bus.group,
        "[gateway] listen": ", ".join(config.gateway.listen),
        "[web] listen": ", ".join(config.web.listen),
    }


@contextmanager
def packed(bus: Bus, upgrade: dict[str, Any], last_reload: dict[str, Any]) -> Iterator[int]:
    """The memfd, with everything it names inheritable while the context lasts. Left only when the exec failed."""
    document = _document(bus) | {"upgrade": upgrade, "last_reload": last_reload}
    fd = os.memfd_create("pepperbus-handover", 0)
    inherited = [fd, *_descriptors(document)]
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(json.dumps(document).encode())
        for one in inherited:
            os.set_inheritable(one, True)
        yield fd
    finally:
        for one in inherited:
            os.set_inheritable(one, False)
        os.close(fd)


def _document(bus: Bus) -> dict[str, Any]:
    opened, births = bus.opened, bus.births
    return {
        "version": VERSION,
        "pid": os.getpid(),
        "run_dir": str(opened.run_dir),
        "lock": opened.lock_fd,
        "control": opened.control.fileno(),
        "listeners": {
            role: {address: sock.fileno() for address, sock in socks.items()}
            for role, socks in opened.listeners.items()
        },
        "wakes": births.wakes,
        "beats": births.page.fd,
        "boot": births.boot,
        "births": births.count,
        "since": bus.since,
        "generation": bus.config.generation,
        "gateways": bus.gateways,
        "processes": bus.config.gateway.processes,
        "places": [asdict(place) for place in bus.children],
        "lines": [
            {"name": name, "fd": line.sock.fileno(), "read": _text(line.unread), "asked": line.asked}
            for name, line in bus.lines.items()
            if line.is_open
        ],
        "clients": [
            {"fd": client.sock.fileno(), "read": _text(client.unread), "unsent": _text(client.unsent)}
            for client in bus.events.clients
        ],
        "strangers": [births.mold_pid] if births.mold_pid else [],
    }


def _descriptors(document: dict[str, Any]) -> list[int]:
    found = [document["lock"], document["control"], document["beats"], *document["wakes"].values()]
    found += [fd for fds in document["listeners"].values() for fd in fds.values()]
    found += [one["fd"] for one in (*document["lines"], *document["clients"])]
    return found


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def take() -> Handed | None:
    """What was handed to this process; None when it was started in the ordinary way. Raises BootError."""
    number = os.environ.pop(VARIABLE, "")
    if not number:
        return None
    try:
        with open(int(number), "rb") as file:
            file.seek(0)
            document = json.load(file)
        if (document["version"], document["pid"]) != (VERSION, os.getpid()):
            raise ValueError(f"it is of version {document['version']} and for pid {document['pid']}")
    except (OSError, ValueError, KeyError) as error:
        raise BootError(f"${VARIABLE}: what was handed over cannot be read: {error}") from None
    for fd in _descriptors(document):
        os.set_inheritable(fd, False)
    return _unpack(document)


def _unpack(document: dict[str, Any]) -> Handed:
    control = _socket(document["control"])
    listeners = {
        role: {address: _socket(fd) for address, fd in fds.items()} for role, fds in document["listeners"].items()
    }
    places = [_place(facts) for facts in document["places"]]
    return Handed(
        Opened(document["lock"], control, listeners, Path(document["run_dir"])),
        document["boot"],
        document["births"],
        document["beats"],
        document["wakes"],
        document["since"],
        document["generation"],
        document["gateways"],
        document["processes"],
        {place.name: place for place in places},
        {
            one["name"]: Line(one["name"], _socket(one["fd"]), base64.b64decode(one["read"]), one["asked"])
            for one in document["lines"]
        },
        [
            Client(_socket(one["fd"]), base64.b64decode(one["read"]), base64.b64decode(one["unsent"]))
            for one in document["clients"]
        ],
        set(document["strangers"]),
        document["upgrade"],
        document["last_reload"],
    )


def _socket(fd: int) -> socket.socket:
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    return sock


def _place(facts: dict[str, Any]) -> Place:
    known = {field.name for field in fields(Place)}
    place = Place(**{key: value for key, value in facts.items() if key in known})
    place.phase = Phase(place.phase)
    return place
