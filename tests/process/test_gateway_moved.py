"""A topic that moves to another storage while clients have jobs of it: each is settled where it was leased."""

from __future__ import annotations

import copy
from pathlib import Path

from tests.process.gateway_running import running, spec

LEASED = {"run": "pull", "pop": "leased", "backoff": 0.05, "attempts": 3}
QUEUES = {
    "mail": {"open": True, "password": "x", "topics": {"t": LEASED}},
    "feed": {"open": True, "password": "x", "topics": {"t": {"run": "pull"}}},
}


def test_what_clients_have_is_done_where_it_lies(tmp_path: Path) -> None:
    storages = {"local": {"type": "embedded"}, "other": {"type": "embedded"}}
    here = spec(tmp_path, queues=QUEUES, durability="process", storages=storages)
    there = copy.deepcopy(here)
    for queue in there["queues"].values():
        queue["topics"]["t"]["storage"] = "other"
    with running(here) as gateway:
        wire, reader = gateway.connect(), gateway.connect()
        wire.ask("LPUSH", "mail", "popped")
        wire.ask("LPUSH", "feed", "read")
        assert b"popped" in wire.ask("RPOP", "mail")
        said = reader.ask("XREADGROUP", "GROUP", "t", "me", "STREAMS", "feed/t", ">")
        assert b"read" in said
        entry = next(line for line in said.split(b"\r\n") if b"-" in line and line[:1].isdigit())
        gateway.tell({"config": there})
        assert wire.ask("RPOP", "mail").startswith((b"$-1", b"_")), "there is nothing in the new storage"
        assert reader.ask("XACK", "feed/t", "t", entry) == b":1\r\n"
        wire.close()
        reader.close()
    with running(here) as gateway:  # whatever was still leased in the old one is ready again
        wire = gateway.connect()
        assert wire.ask("RPOP", "mail").startswith((b"$-1", b"_"))
        assert b"read" not in wire.ask("XREADGROUP", "GROUP", "t", "me", "STREAMS", "feed/t", ">")
        wire.close()
