"""Queues' files before they are written, and what of the original has no place in them. Floor 1."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from pepperbus.names import is_name

#: key -> text, list of texts, or a section of the same kind.
Section = dict[str, Any]


@dataclass
class Draft:
    """`queues`: name -> its file. `pools`: further [fastcgi] pools of the node's file. `left`: a line for all else.

    `about`: queue -> the comment its file begins with. A queue without a password gets one when it is written.
    """

    queues: dict[str, Section] = field(default_factory=dict)
    pools: dict[str, Section] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    about: dict[str, str] = field(default_factory=dict)

    def free_name(self, wish: str) -> str:
        """A queue's name like `wish` that is not taken in this draft."""
        base = re.sub(r"[^A-Za-z0-9._-]+", "-", wish).strip("-._")[:120] or "queue"
        name, number = base, 1
        while name in self.queues or not is_name(name):
            number += 1
            name = f"{base}-{number}"
        return name


def text(about: str, section: Section) -> str:
    """The file."""
    lines = [f"# {line}" for line in about.splitlines()]
    return "\n".join([*lines, *_lines(section, 0)]) + "\n"


def _lines(section: Section, depth: int) -> list[str]:
    indent, brackets = "    " * depth, depth + 1
    keys = [f"{indent}{key} = {_value(value)}" for key, value in section.items() if not isinstance(value, dict)]
    found = keys
    for key, value in section.items():
        if isinstance(value, dict):
            found += [f"{indent}{'[' * brackets}{key}{']' * brackets}", *_lines(value, depth + 1)]
    return found


def _value(value: str | list[str]) -> str:
    return ", ".join(map(_quoted, value)) if isinstance(value, list) else _quoted(value)


def _quoted(value: str) -> str:
    """As the reader of our files takes it for one text."""
    if value and not re.search(r"[,#\"'\n]", value) and value == value.strip():
        return value
    for quote in ('"', "'", '"""', "'''"):
        fits = quote not in value and not (len(quote) == 3 and value.endswith(quote[0]))
        if fits and ("\n" not in value or len(quote) == 3):
            return f"{quote}{value}{quote}"
    raise ValueError("holds every kind of quote; write it by hand")
