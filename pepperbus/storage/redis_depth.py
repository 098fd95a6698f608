"""How many jobs of a topic are where in Redis: of one topic, or of a thousand in a few trips. No body is read.

Floor 3. Counted while jobs move: one that goes from state to state meanwhile may be in neither count, or in both.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pepperbus.ids import id_time_ms
from pepperbus.storage.contract import Depth
from pepperbus.storage.redis_keys import ID, Keys
from pepperbus.storage.redis_link import Link
from pepperbus.storage.redis_pack import Command
from pepperbus.storage.redis_wire import ReplyError

_AT_ONCE = 250  # topics


def depth(link: Link, topic: str) -> Depth:
    """`Storage.depth`, two trips."""
    keys = link.keys(topic)
    answers = link.ask(*_counts(keys))
    held = _held_by(keys, answers)
    return _depth(answers, sum(link.ask(*held)) if held else 0)


def depths(link: Link, topics: Collection[str]) -> dict[str, Depth]:
    """`Storage.depths`, two trips for each few hundred topics: others want their turn at Redis, and at this process."""
    asked, found = list(topics), dict[str, Depth]()
    for start in range(0, len(asked), _AT_ONCE):
        found.update(_some_depths(link, asked[start : start + _AT_ONCE]))
    if asked and not found:
        depth(link, asked[0])  # raises what is wrong with all of them
    return found


def _some_depths(link: Link, topics: Sequence[str]) -> dict[str, Depth]:
    flat = link.look(*[command for topic in topics for command in _counts(link.keys(topic))])
    size = len(flat) // len(topics)
    told = {topic: flat[i * size : (i + 1) * size] for i, topic in enumerate(topics)}
    told = {topic: answers for topic, answers in told.items() if ReplyError not in map(type, answers)}
    held = {topic: _held_by(link.keys(topic), answers) for topic, answers in told.items()}
    commands = [command for some in held.values() for command in some]
    lengths = iter(link.look(*commands) if commands else ())
    found = {}
    for topic, answers in told.items():
        leased = [next(lengths) for _ in held[topic]]
        if ReplyError not in map(type, leased):
            found[topic] = _depth(answers, sum(leased))
    return found


def _counts(keys: Keys) -> tuple[Command, ...]:
    return (
        (b"LLEN", keys.ready),
        (b"ZCARD", keys.delay),
        (b"ZCARD", keys.dead),
        (b"SMEMBERS", keys.owners),
        (b"LINDEX", keys.ready, -1),
    )


def _held_by(keys: Keys, answers: Sequence[Any]) -> list[Command]:
    return [(b"LLEN", keys.held(owner.decode(errors="replace"))) for owner in answers[3]]


def _depth(answers: Sequence[Any], leased: int) -> Depth:
    """From the answers to `_counts`."""
    ready, delayed, dead, _, tail = answers
    is_ours = tail is not None and tail[:ID].isdigit()
    return Depth(ready, delayed, leased, dead, id_time_ms(int(tail[:ID])) if is_ours else 0)
