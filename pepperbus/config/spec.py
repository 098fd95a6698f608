"""schema.ini as values: which sections and options there are, their kind, default and help.

Floor 1. Knows nothing of any file of a user. `pepperbus/config/schema.ini` is the one place an option is described.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from configobj import ConfigObj
from configobj.validate import Validator

from pepperbus.config.checks import CHECKS
from pepperbus.config.limits import alarm

MANY = "__many__"
LATER = "__later__"
_DEFAULT = re.compile(r"default=(?:\"([^\"]*)\"|([^,)]*))")
_validator = Validator({**CHECKS, "alarm": alarm})


@dataclass(frozen=True)
class Option:
    """One option. `section` is how people write where it stands: `[fastcgi] [[NAME]]`, "" before the first section.

    `default` is the text that means the default; None when the option must be given. `later`: a coming version's.
    """

    section: str
    key: str
    check: str
    help: str

    @property
    def kind(self) -> str:
        """The name of its check: duration, size, option …"""
        return self.check.partition("(")[0]

    @property
    def default(self) -> str | None:
        match = _DEFAULT.search(self.check)
        return None if match is None else match[1] if match[1] is not None else match[2]

    @property
    def later(self) -> bool:
        return self.kind == "later"

    def value(self, raw: str | list[str]) -> Any:
        """What `raw` means. Raises ValueError with what is wrong and what is allowed."""
        return _validator.check(self.check, raw)

    def default_value(self) -> Any:
        """The default's value; None when there is none."""
        return None if self.default is None else self.value(self.default)

    def allowed(self) -> str:
        """The bounds in words, for the reference."""
        inside = self.check.partition("(")[2].removesuffix(")")
        parts = [p.strip() for p in re.sub(_DEFAULT, "", re.sub(r"later=\"[^\"]*\"", "", inside)).split(",")]
        words = ", ".join(part.replace("min=", "from ").replace("max=", "to ") for part in parts if part)
        return words.replace(", to ", " to ") if words.startswith("from ") else words


@dataclass(frozen=True)
class Spec:
    """One section: its options, the sections inside it, and what any further name there means."""

    name: str
    help: str
    options: dict[str, Option] = field(default_factory=dict)
    sections: dict[str, Spec] = field(default_factory=dict)
    any_option: Option | None = None
    any_section: Spec | None = None
    later: bool = False

    @cached_property
    def defaults(self) -> Mapping[str, Any]:
        """Every option's default value. Worked out once: a thousand files are the same defaults a thousand times."""
        return {key: option.default_value() for key, option in self.options.items() if not option.later}


@cache
def schema() -> dict[str, Spec]:
    """`node`: the main file. `queue`: a queue's file, without what it takes from topics. `topic`: one topic."""
    text = Path(__file__).with_name("schema.ini").read_text(encoding="utf-8")
    parsed = ConfigObj(text.split("\n"), list_values=False, interpolation=False, _inspec=True)
    whole = _section(parsed, "", "", ())
    queue = whole.sections.pop("queue")
    topic = queue.sections["topics"].any_section
    assert topic is not None
    return {"node": whole, "queue": queue, "topic": topic}


def options() -> list[Option]:
    """Every option this version knows, in the order of the schema."""
    parts = schema()
    return [*_walk(parts["node"]), *_walk(parts["queue"])]


def _walk(spec: Spec) -> list[Option]:
    found = [option for option in spec.options.values() if not option.later]
    found += [spec.any_option] if spec.any_option else []
    for section in (*spec.sections.values(), *((spec.any_section,) if spec.any_section else ())):
        found += _walk(section)
    return found


def _section(parsed: Any, name: str, help: str, path: tuple[str, ...]) -> Spec:
    options = {}
    for key in parsed.scalars:
        options[key] = Option(_written(path), key, parsed[key], _comment(parsed, key))
    later = options.pop(LATER, None) is not None
    sections = {}
    for key in parsed.sections:
        inner = () if path == () and key == "queue" else (*path, "NAME" if key == MANY else key)
        sections[key] = _section(parsed[key], key, _comment(parsed, key), inner)
    return Spec(name, help, options, sections, options.pop(MANY, None), sections.pop(MANY, None), later)


def _written(path: tuple[str, ...]) -> str:
    return " ".join(f"{'[' * (i + 1)}{name}{']' * (i + 1)}" for i, name in enumerate(path))


def _comment(parsed: Any, key: str) -> str:
    """The comment lines right above an option or section, as one text; a blank line ends them."""
    lines: list[str] = []
    above = parsed.comments[key] or (parsed.initial_comment if parsed.parent is parsed else [])
    for line in above:
        lines = [*lines, line.strip().lstrip("#").strip()] if line.strip() else []
    return " ".join(lines)
