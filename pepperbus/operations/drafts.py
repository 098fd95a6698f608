"""A change of a queue tried without being made: what would be wrong with it, what it would change, when retries would run.

Floor 4. The same parser, the same rules and the same words as `check`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import msgspec

from pepperbus.config.load import load_queue_text, queue_file
from pepperbus.config.model import Topic
from pepperbus.config.references import is_reference
from pepperbus.config.timing import Schedule, local_name
from pepperbus.config.timing_words import words
from pepperbus.errors import ConfigError, PepperbusError
from pepperbus.operations import versions
from pepperbus.operations.office import Office
from pepperbus.operations.queue_text import edited, has_login, is_secret, parsed, text_of
from pepperbus.operations.results import Result
from pepperbus.operations.rights import Right, operation

SHOWN_RETRIES = 12
SHOWN_TIMES = 5
#: A line of `check`: file and line, the section and key, the text.
WHERE = re.compile(
    r"^[^:]*:\d+: (?:\[(?:topics|(?P<own>schedule|intakes))\] ?(?:\[\[(?P<topic>[^\[\]]+)\]\])?(?P<whole>:)? ?)?"
    r"(?:\[\[\[(?P<section>[^\]]+)\]\]\]:? ?)?(?(whole)|(?:(?P<key>[\w-]+)(?: = [^:]*)?: )?)(?P<text>.*)$",
    re.S,
)


class Mistake(Result):
    """`field` as in `queue set`: key, topic/key, topic/params/KEY, schedule/NAME/key, topic; "" for the whole."""

    field: str
    text: str


class Fires(Result):
    """When a schedule would fire: in words of each language, and its next times (ms) in `zone`."""

    words: dict[str, str]
    next_ms: list[int]
    zone: str


class Draft(Result):
    """`retries`: topic -> seconds from the first attempt to each further one, without jitter, as far as max_age lets.

    `fires`: of each schedule.
    """

    mistakes: list[Mistake] = msgspec.field(default_factory=list)
    diff: list[str] = msgspec.field(default_factory=list)
    retries: dict[str, list[float]] = msgspec.field(default_factory=dict)
    fires: dict[str, Fires] = msgspec.field(default_factory=dict)


@operation(Right.ADMIN, "name", audited=False, system=lambda given: given["settings"].get("system", ""))
def draft(
    office: Office, name: str, settings: Mapping[str, str], unset: Iterable[str] = (), new: bool = False
) -> Draft:
    """What `queues.add` (`new`) or `queues.change` with these words would do."""
    made = Draft()
    try:
        before = "" if new else text_of(queue_file(name, office.config), name)
        after = edited(before, settings, unset)
        if new and not ({"password", "open"} & settings.keys()):
            after = edited(after, {"password": "made when saved"}, ())
        made.diff = versions.diff(before, after)
        queue = load_queue_text(after, name, office.config)
    except ConfigError as error:
        made.mistakes = [_placed(line) for line in error.mistakes]
    except PepperbusError as error:
        made.mistakes = [Mistake("", str(error))]
    else:
        made.retries = {topic.name: retries(topic) for topic in queue.topics.values()}
        made.fires = {one.name: fires(one, office.clock.now_ms()) for one in queue.schedule.values()}
    return made


@operation(Right.ADMIN, "name", audited=False)
def written(office: Office, name: str) -> dict[str, str]:
    """What stands in the queue's file, by `key`, `topic/key`, `topic/params/KEY`, `schedule/NAME/key`; secrets as "***"."""
    tree = parsed(text_of(queue_file(name, office.config), name))
    found = {key: _text(key, tree[key]) for key in tree.scalars}
    for topic, section in tree.get("topics", {}).items():
        found |= {f"{topic}/{key}": _text(key, section[key]) for key in section.scalars}
        for extras in section.sections:
            found |= {f"{topic}/{extras}/{key}": _free(key, value) for key, value in section[extras].items()}
    for own in ("schedule", "intakes"):
        for one, section in tree.get(own, {}).items():
            found |= {f"{own}/{one}/{key}": _own(section[key]) for key in section.scalars}
    return found


def fires(schedule: Schedule, now_ms: int) -> Fires:
    """When it fires from `now_ms` on."""
    timing = schedule.timing
    told = {language: words(timing, language) for language in ("en", "zh")}
    return Fires(told, list(islice(timing.after(now_ms), SHOWN_TIMES)), timing.zone or local_name())


def retries(topic: Topic) -> list[float]:
    """When, after the first attempt, the next ones start, if each fails at once; jitter may bring each forward by half."""
    found: list[float] = []
    at = 0.0
    for attempt in range(1, min(topic.attempts, SHOWN_RETRIES + 1)):
        at += topic.backoff.wait_s(attempt)
        if at > topic.max_age:
            break
        found.append(at)
    return found


def _text(key: str, value: Any) -> str:
    if key in ("password", "sign", "secret") and value:
        return "***"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _free(key: str, value: Any) -> str:
    """A value of params, headers or environment: not shown where its name says that it is a login, but where it is kept."""
    return "***" if is_secret(key) and not is_reference(str(value)) else _text("", value)


def _own(value: Any) -> str:
    """A value of a schedule or an intake. A crontab's comma makes no list of its field."""
    text = ",".join(value) if isinstance(value, list) else str(value)
    return "***" if "://" in text and has_login(text) else text


def _placed(line: str) -> Mistake:
    match = WHERE.match(line)
    if match is None:
        return Mistake("", line)
    path = (match["own"], match["topic"], match["section"], match["key"])
    return Mistake("/".join(part for part in path if part), match["text"])
