"""[intakes] of a queue's file: lists of somebody else's Redis whose elements become its jobs.

Floor 1. Looks at the text only; whether such a Redis answers is found out by who takes from it.
"""

from __future__ import annotations

from collections.abc import Iterable

from pepperbus.config.check import Values, complete, did_you_mean
from pepperbus.config.model import Intake
from pepperbus.config.source import Document, KeyPath
from pepperbus.config.spec import schema
from pepperbus.names import INTAKE_SUFFIX, NAME_RULE, is_name


def build(document: Document, values: Values, topics: Iterable[str]) -> tuple[Intake, ...]:
    """The intakes of a queue with these topics; mistakes are noted in `document`."""
    spec = schema()["queue"].sections["intakes"].any_section
    assert spec is not None
    made: list[Intake] = []
    for name, given in values.items():
        intake = Intake(name=name, **complete(given, spec))
        _check(document, ("intakes", name), intake, list(topics))
        same = [other for other in made if _place(other) == _place(intake) and intake.key]
        if same:
            document.mistake(("intakes", name, "key"), f"[[{same[0].name}]] takes from this list already")
        made.append(intake)
    return tuple(made)


def _place(intake: Intake) -> tuple[str, str]:
    return intake.url.reveal(), intake.key


def _check(document: Document, path: KeyPath, intake: Intake, topics: list[str]) -> None:
    if not is_name(intake.name):
        document.mistake(path, f"not a name; allowed: {NAME_RULE}")
    for key, found in (("url", bool(intake.url)), ("key", bool(intake.key))):
        if not found and not document.broken and document.value((*path, key)) in (None, ""):
            document.mistake(path, f"an intake needs {key}: {_NEEDED[key]}")
    if intake.key.endswith(INTAKE_SUFFIX):
        document.mistake((*path, "key"), f"a list that ends in {INTAKE_SUFFIX} is one of the bus' own")
    if intake.topic and intake.topic not in topics:
        document.mistake((*path, "topic"), f"there is no such topic here{did_you_mean(intake.topic, topics)}")
    if intake.format == "pepperbus" and not intake.topic:
        document.mistake(path, "format = pepperbus needs topic: its lists hold one topic's jobs each")
    if intake.failed and not (intake.format == "pepperbus" and intake.key.endswith("::list")):
        document.mistake((*path, "failed"), "failed is for format = pepperbus and a key that ends in ::list")


_NEEDED = {
    "url": "the Redis the list is in, such as redis://127.0.0.1:6379/0",
    "key": "the list's name, such as orders or orders::mail::list",
}
