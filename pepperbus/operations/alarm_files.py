"""The rules of alarms as an operator edits them: [alarms] [[rules]] and [[systems]] of the node's file.

Floor 4. What is shown of the file, before and after and in its history, is these rules alone: beside them stand secrets.
Taking a change back puts the rules back, and touches nothing else of the file.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from pepperbus.alarms.rules import RULES
from pepperbus.config.spec import schema
from pepperbus.errors import ConfigError, NotFound, PepperbusError, UsageError
from pepperbus.operations import node_file, versions
from pepperbus.operations.node_file import KEPT_AS
from pepperbus.operations.office import Office
from pepperbus.operations.queue_text import as_text, parsed_or_empty, text_of
from pepperbus.operations.results import QueueFile, Result
from pepperbus.operations.rights import Right, note, operation

Rules = dict[str, dict[str, str]]  # "" (everywhere) or a system -> rule -> its text
_WHERE = re.compile(r"^[^:]*:\d+: (?:\[[^\]]*\]+ ?)*")


class RuleDraft(Result):
    """What a change would do. With `mistakes` it would be refused."""

    diff: list[str] = msgspec.field(default_factory=list)
    mistakes: list[str] = msgspec.field(default_factory=list)


def _system(given: Mapping[str, Any]) -> str:
    return str(given["system"])


@operation(Right.ADMIN, system=_system, details=("rule", "text", "system"), tells=("what", "reload"))
def set_rule(office: Office, rule: str, text: str, system: str = "") -> QueueFile:
    """Another limit everywhere, or ("" is everywhere) for one system; an empty text: as before that, as it is everywhere.

    Raises UsageError for an unknown rule, NotFound for an unknown system, ConfigError for what is no limit.
    """
    _check(office, rule, system)

    def put(tree: Any) -> None:
        before = _rules(tree)
        note(before={rule: before.get(system, {}).get(rule, "")}, after={rule: text})
        _put(tree, _changed(before, rule, text, system))

    return node_file.edit(office, rule, "changed", put)


@operation(Right.ADMIN, system=_system, audited=False)
def draft(office: Office, rule: str, text: str, system: str = "") -> RuleDraft:
    """What `set_rule` with these words would do. Raises as that, but for mistakes of the text."""
    _check(office, rule, system)
    file = office.config.file
    before = text_of(file, rule)
    tree = parsed_or_empty(before)
    was = _rules(tree)
    will = _changed(was, rule, text, system)
    made = RuleDraft(_diff(was, will))
    _put(tree, will)
    try:
        node_file.tried(file, as_text(tree, before))
    except ConfigError as error:
        made.mistakes = [_WHERE.sub("", line) for line in error.mistakes]
    except PepperbusError as error:
        made.mistakes = [str(error)]
    return made


@operation(Right.ADMIN, audited=False)
def history(office: Office, most: int = versions.KEPT) -> list[versions.Version]:
    """The changes of rules among the last `most` changes of the file that were made from here, latest first."""
    kept = versions.kept(office, KEPT_AS, office.config.file)[-most - 1 :]
    pairs = itertools.pairwise(kept)
    found = [versions.Version(at, who, _diff(_of(before), _of(after))) for (at, who, before), (_, _, after) in pairs]
    return [one for one in found if one.diff][::-1]


@operation(Right.ADMIN, details=("at_ms",), tells=("what", "reload"))
def rollback(office: Office, at_ms: int) -> QueueFile:
    """The rules as they were until `at_ms`, one of `history`. Raises NotFound, ConfigError."""
    wanted = _of(versions.text_of(office, KEPT_AS, at_ms))
    return node_file.edit(office, "rules", "changed", lambda tree: _put(tree, wanted))


def _check(office: Office, rule: str, system: str) -> None:
    if rule not in RULES:
        raise UsageError(f"no rule {rule!r}; known: {', '.join(RULES)}")
    some = schema()["node"].sections["alarms"].sections["systems"].any_section
    if system and some is not None and rule not in some.options:
        raise UsageError(f"{rule} is no matter of a system; those are {', '.join(some.options)}")
    known = {queue.system for queue in office.config.queues.values()} | {
        name for name, _ in office.config.alarms.systems
    }
    if system and system not in known:
        near = difflib.get_close_matches(system, list(known), 1)
        raise NotFound(f"no system {system!r}{f' (did you mean {near[0]!r}?)' if near else ''}")


@lru_cache(64)  # texts that are gone do not change, and the page shows them again and again
def _of(text: str) -> Rules:
    return _rules(parsed_or_empty(text))


def _rules(tree: Any) -> Rules:
    """What the tree says of rules."""
    alarms = tree.get("alarms", {})
    found = {"": _texts(alarms.get("rules", {}))}
    for name, section in alarms.get("systems", {}).items():
        found[name] = _texts(section)
    return {where: rules for where, rules in found.items() if rules}


def _texts(section: Any) -> dict[str, str]:
    return {key: ", ".join(value) if isinstance(value, list) else str(value) for key, value in section.items()}


def _changed(rules: Rules, rule: str, text: str, system: str) -> Rules:
    made = {where: dict(inner) for where, inner in rules.items()}
    made.setdefault(system, {})[rule] = text
    if not text:
        del made[system][rule]
    return {where: inner for where, inner in made.items() if inner}


def _put(tree: Any, wanted: Rules) -> None:
    """Make the tree say that, line by line, so that comments stay."""
    if not wanted and "alarms" not in tree:
        return
    alarms = tree.setdefault("alarms", {})
    for where in {**_rules(tree), **wanted}:
        home = alarms if not where else alarms.setdefault("systems", {})
        name = where or "rules"
        section = home.setdefault(name, {})
        before, after = _texts(section), wanted.get(where, {})
        for key in before.keys() - after.keys():
            del section[key]
        for key, text in after.items():
            if before.get(key) != text:
                section[key] = text
        if where and not section:
            del home[name]


def _diff(was: Rules, now: Rules) -> list[str]:
    return list(difflib.unified_diff(_lines(was), _lines(now), lineterm="", n=2))[2:]


def _lines(rules: Rules) -> list[str]:
    lines = []
    for where in sorted(rules):
        lines.append("[alarms] [[rules]]" if not where else f"[alarms] [[systems]] [[[{where}]]]")
        lines += [f"    {rule} = {text}" for rule, text in rules[where].items()]
    return lines
