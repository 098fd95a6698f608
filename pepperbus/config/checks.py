"""The table of checks that schema.ini names, and those of them that are about times and a topic's job options.

Floor 1. Each gets what ConfigObj read, a text or a list of texts, and gives the value or raises ValueError (see `values`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pepperbus.config import canary as second
from pepperbus.config import joboptions, timing, values
from pepperbus.config.values import Raw, seconds, text


def unique(value: Raw) -> joboptions.Unique | None:
    return joboptions.unique(text(value), seconds)


def rate(value: Raw) -> joboptions.Rate | None:
    return joboptions.rate(text(value))


def halt(value: Raw) -> joboptions.Halt | None:
    """`50% of 40, probe 1m`; its comma needs no quotes."""
    return joboptions.halt(text(", ".join(value) if isinstance(value, list) else value), seconds)


def quiet(value: Raw) -> joboptions.Quiet | None:
    return joboptions.quiet(text(", ".join(value) if isinstance(value, list) else value))


def canary(value: Raw) -> second.Canary | None:
    return second.parse(text(value), lambda url: values.urls(url)[0])


def path(value: Raw) -> str:
    found = text(value)
    return joboptions.path(found) if found else ""


def expression(value: Raw) -> str:
    """When a schedule fires. A crontab's commas need no quotes here."""
    return timing.checked(text(",".join(value) if isinstance(value, list) else value))


def zone(value: Raw) -> str:
    found = text(value)
    timing.zone(found)
    return found


#: Check name in schema.ini -> function.
CHECKS: dict[str, Callable[..., Any]] = {
    check.__name__: check
    for check in (
        values.text, values.texts, values.secret, values.private, values.signing, values.name, values.names,
        values.paths, values.integer, values.integers, values.span, values.command, values.entry, values.boolean,
        values.option, values.engine, values.duration, values.size, values.backoff, values.address, values.addresses,
        values.urls, values.places, values.storage_url, values.script, values.host, values.login, values.later,
        expression, zone, unique, rate, halt, quiet, path, canary,
    )
}  # fmt: skip
