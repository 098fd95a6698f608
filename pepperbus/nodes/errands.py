"""What one node asks another to do at once: try a consumer from there, tell something. One text a node; both change it.

Floor 2: knows the storage contract. No clock: whoever asks takes the errand back when it waits no longer, and says again and
again that it waits. What a node that starts finds there may be of somebody who died long ago, so it does only what is said
again. So nothing is done long after somebody wanted it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping

import msgspec

from pepperbus.errors import StorageError
from pepperbus.storage.contract import Storage

MOST_BYTES = 256 << 10  # of a job that is sent along
UNKNOWN = "no such request"  # how an answer begins of a node whose version does not know what is asked
_MOST = 8  # errands of a node at once
_TRIES = 50


class Errand(msgspec.Struct, omit_defaults=True):
    """`what`: send or ping of a topic, or what is told: its course, or (topic "") the node or its systems.

    `who` asks, at node `by`. `said` rises while somebody waits for it to be taken. `taken`: it is being done. `answer`: JSON,
    or else `error`.
    """

    what: str
    topic: str
    who: str
    by: str
    content: bytes = b""
    attempt: int = 1
    timeout: float = 0.0
    said: int = 0
    taken: bool = False
    answer: str = ""
    error: str = ""

    @property
    def is_over(self) -> bool:
        return bool(self.answer or self.error)


Errands = dict[str, Errand]  # by a random word
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Errands).decode


def living(storage: Storage, silent_ms: int = 30_000) -> list[str]:
    """The nodes that share this storage and live. Raises StorageError."""
    return sorted(node for node, age_ms in storage.nodes().items() if age_ms < silent_ms)


def look(storage: Storage, node: str) -> Errands:
    """What is asked of `node`; nothing for a text that is none of ours. Raises StorageError."""
    return _read(storage.recall(_name(node)))


def ask(storage: Storage, node: str, errand: Errand) -> str:
    """Leave it for `node`; the word under which it is found. Raises StorageError, also when too much is asked already."""
    word = secrets.token_hex(8)

    def add(errands: Errands) -> None:
        if len(errands) >= _MOST:
            raise StorageError(
                f"node {node} has {_MOST} requests of this kind to answer already; try again in a moment"
            )
        errands[word] = errand

    _change(storage, node, add)
    return word


def say_again(storage: Storage, node: str, word: str, said: int) -> None:
    """Somebody still waits for it to be taken. Raises StorageError."""

    def note(errands: Errands) -> None:
        if word in errands and not errands[word].taken:
            errands[word].said = said

    _change(storage, node, note)


def begin(storage: Storage, node: str) -> dict[str, int]:
    """Throw away what a process before this one began; of the rest word -> how often it was said. Raises StorageError."""
    found: dict[str, int] = {}

    def drop(errands: Errands) -> None:
        found.clear()
        for word in [word for word, errand in errands.items() if errand.taken]:
            del errands[word]
        found.update((word, errand.said) for word, errand in errands.items())

    if look(storage, node):
        _change(storage, node, drop)
    return found


def take(storage: Storage, node: str, doubted: Mapping[str, int] | None = None) -> Errands:
    """Mark everything that is new as taken, and return it; what is `doubted`, once it is said again. Raises StorageError."""
    taken: Errands = {}
    known = doubted or {}

    def is_wanted(word: str, errand: Errand) -> bool:
        return not errand.taken and (word not in known or errand.said > known[word])

    def mark(errands: Errands) -> None:
        taken.clear()
        for word, errand in errands.items():
            if is_wanted(word, errand):
                errand.taken = True
                taken[word] = errand

    if any(is_wanted(word, errand) for word, errand in look(storage, node).items()):
        _change(storage, node, mark)
    return taken


def answer(storage: Storage, node: str, word: str, answer: str = "", error: str = "") -> None:
    """Say how it went, if somebody still waits for it. Raises StorageError."""

    def fill(errands: Errands) -> None:
        if word in errands:
            errands[word].answer, errands[word].error, errands[word].content = answer, error, b""

    _change(storage, node, fill)


def forget(storage: Storage, node: str, *words: str) -> None:
    """Take these errands out. Raises StorageError."""

    def remove(errands: Errands) -> None:
        for word in words:
            errands.pop(word, None)

    if look(storage, node):
        _change(storage, node, remove)


def _change(storage: Storage, node: str, change: Callable[[Errands], None]) -> None:
    text = storage.recall(_name(node))
    for _try in range(_TRIES):
        errands = _read(text)
        change(errands)
        new = _encode(errands).decode() if errands else ""
        found = storage.swap(_name(node), text, new)
        if found == new:
            return
        text = found
    raise StorageError(f"node {node}: too many at once change what is asked of it")


def _read(text: str) -> Errands:
    try:
        return _decode(text) if text else {}
    except msgspec.MsgspecError:
        return {}


def _name(node: str) -> str:
    return f"errand/{node}"
