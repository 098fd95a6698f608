"""A node's histograms of the last minute, left in the storage its topics lie in, so that every node can add them up.

Floor 2: knows the storage contract. One text a node, of bounded size; who wrote it lives if its heartbeat says so.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping

import msgspec

from pepperbus import stats
from pepperbus.storage.contract import Storage

MOST_BYTES = 64 << 10  # of a node's text; beyond, the topics that did least are left out
_MOST_UNPACKED = 8 << 20
#: A node that has not said for so long that it lives says nothing of the last minute either.
_SILENT_MS = 30_000
Sparse = dict[int, int]  # bucket of `stats` -> how many


class Pace(msgspec.Struct, array_like=True):
    """One topic on one node: how many jobs waited, and ran, how long."""

    wait: Sparse = {}
    run: Sparse = {}

    def add(self, other: Pace) -> None:
        for mine, more in ((self.wait, other.wait), (self.run, other.run)):
            for bucket, n in more.items():
                mine[bucket] = mine.get(bucket, 0) + n

    def histogram(self, which: str) -> stats.Histogram:
        """`wait` or `run` as one that can be merged; the sum of the times is not known."""
        found: Sparse = getattr(self, which)
        buckets = [max(found.get(bucket, 0), 0) for bucket in range(stats.BUCKETS)]
        return stats.Histogram(buckets, sum(buckets))


Paces = dict[str, Pace]  # by queue/topic
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Paces).decode


def leave(storage: Storage, node: str, paces: Mapping[str, Pace], known: str = "") -> str:
    """Put them where the others look; `known`: what was left last. Returns what stands there now. Raises StorageError."""
    text = pack(paces)
    found = storage.swap(_name(node), known, text)
    return found if found == text else storage.swap(_name(node), found, text)


def others(storage: Storage, node: str) -> dict[str, Paces]:
    """What the other nodes left that live and share this storage. Raises StorageError."""
    living = [name for name, age_ms in storage.nodes().items() if name != node and age_ms < _SILENT_MS]
    return {name: unpack(storage.recall(_name(name))) for name in sorted(living)}


def pack(paces: Mapping[str, Pace]) -> str:
    """As a text of at most MOST_BYTES, the busiest topics first."""
    order = sorted(paces, key=lambda name: -sum(paces[name].run.values()))
    while True:
        data = zlib.compress(_encode({name: paces[name] for name in order}), 6)
        text = base64.b85encode(data).decode()
        if len(text) <= MOST_BYTES:
            return text
        order = order[: len(order) * MOST_BYTES * 9 // (len(text) * 10)]


def unpack(text: str) -> Paces:
    """What `pack` made; empty for anything else: others write there."""
    try:
        data = zlib.decompressobj().decompress(base64.b85decode(text), _MOST_UNPACKED)
        return _decode(data)
    except (ValueError, zlib.error, msgspec.MsgspecError):
        return {}


def _name(node: str) -> str:
    return f"pace/{node}"
