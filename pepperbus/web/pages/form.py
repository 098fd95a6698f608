"""What the form of a queue says: its fields against what stands in the file, its lines NAME = value, where a mistake belongs.

Floor 5. Fields are `key:PATH`, PATH as in `queue set`; `name:MARK` names the topic that stands under MARK; `lines:PATH` holds
a section of free names (params, headers, environment) as text. `was` is what stood in the file when the form was opened: what
its visitor did not touch is left to others, and what both touched is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
from flask import request

from pepperbus.config.spec import Spec, schema
from pepperbus.errors import UsageError
from pepperbus.operations import drafts
from pepperbus.operations.queue_text import own_section
from pepperbus.web.desk import Desk
from pepperbus.web.words import _

SECRETS = ("password", "sign")
HIDDEN = "***"
NEW = "+"  # stands for the topic that is being added


def free_sections() -> dict[str, Spec]:
    """The sections of a topic in which any name may stand."""
    return {name: spec for name, spec in schema()["topic"].sections.items() if spec.any_option}


def fixed_sections() -> dict[str, Spec]:
    """The sections of a topic whose names the schema knows."""
    return {name: spec for name, spec in schema()["topic"].sections.items() if not spec.any_option and spec.options}


def as_lines(values: Mapping[str, str], path: str) -> str:
    """The section at `path` as the form shows it."""
    begin = f"{path}/"
    return "\n".join(f"{key.removeprefix(begin)} = {text}" for key, text in values.items() if key.startswith(begin))


def asked(desk: Desk, name: str) -> tuple[str, bool, dict[str, str], list[str]]:
    """What the form says: the queue, whether it is new, what to set and unset.

    Raises UsageError for a line that is none, and for a field that somebody else changed meanwhile.
    """
    new = not name
    given = request.form.to_dict()
    name = name or given.get("queue", "").strip()
    if new:
        return name, new, *changes(given, {})
    return name, new, *own_changes(given, drafts.written(desk.office, name))


def own_changes(given: Mapping[str, str], standing: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What the visitor changed since the form was opened, to be done to what stands there now.

    Raises UsageError for a field that somebody else changed meanwhile.
    """
    before = _before(given, standing)
    settings, unset = changes(given, before)
    _check_untouched(settings, unset, before, standing)
    return settings, [path for path in unset if path in standing]


def topics_set(settings: Mapping[str, str]) -> set[str]:
    """The topics that stood there when the form was opened, of those in which something is set."""
    there = {path.partition("/")[0] for path in _before(request.form.to_dict(), {}) if _in_topic(path)}
    return there & {path.partition("/")[0] for path in settings if _in_topic(path)}


def _in_topic(path: str) -> bool:
    return "/" in path and not own_section(path)


def _before(given: Mapping[str, str], standing: Mapping[str, str]) -> Mapping[str, str]:
    """What stood there when the form was opened; `standing` where it does not say. Raises UsageError."""
    if "was" not in given:
        return standing
    try:
        return msgspec.json.decode(given["was"], type=dict[str, str])
    except msgspec.MsgspecError as error:
        raise UsageError(f"the form is damaged: {error}") from error


def _check_untouched(
    settings: Mapping[str, str], unset: Iterable[str], before: Mapping[str, str], standing: Mapping[str, str]
) -> None:
    for path, text in {**dict.fromkeys(unset, ""), **settings}.items():
        now = standing.get(path, "")
        if now not in (before.get(path, ""), text):
            raise UsageError(
                _("{path}: somebody changed this to {now} since the page was opened", path=path, now=now or "-")
            )


def changes(given: Mapping[str, str], standing: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The form's words against what stands in the file. An empty secret stays as it is, and so does one of stars."""
    renamed = {old.removeprefix("name:"): text.strip() for old, text in given.items() if old.startswith("name:")}
    settings: dict[str, str] = {}
    unset: list[str] = []
    for field, text in given.items():
        kind, _colon, path = field.partition(":")
        mark, slash, key = path.partition("/")
        if slash and mark in renamed:
            if not renamed[mark]:
                continue
            path = f"{renamed[mark]}/{key}"
        if kind == "key":
            _one(path, text.strip(), standing, settings, unset)
        elif kind == "lines":
            _section(path, text, standing, settings, unset)
    return settings, unset


def _one(path: str, text: str, standing: Mapping[str, str], settings: dict[str, str], unset: list[str]) -> None:
    if path.rpartition("/")[2] in SECRETS and not text:
        return
    if text and text != standing.get(path, ""):
        settings[path] = text
    elif not text and path in standing:
        unset.append(path)


def _section(path: str, text: str, standing: Mapping[str, str], settings: dict[str, str], unset: list[str]) -> None:
    named = {}
    for line in text.splitlines():
        name, equals, value = (part.strip() for part in line.partition("="))
        if not line.strip():
            continue
        if not (equals and name and value):
            raise UsageError(_("{path}: {line} is no line NAME = value", path=path, line=repr(line.strip())))
        named[f"{path}/{name}"] = value
    for key, value in named.items():
        if value != standing.get(key, "") and not (value == HIDDEN and key in standing):
            settings[key] = value
    unset += [key for key in standing if key.startswith(f"{path}/") and key not in named]


def topics() -> dict[str, str]:
    """The mark of each topic in the form -> its name."""
    paths = [field.partition(":")[2] for field in request.form if field.startswith("key:") and "/" in field]
    marks = dict.fromkeys(path.partition("/")[0] for path in paths)
    return {mark: request.form.get(f"name:{mark}", mark) for mark in marks}


def places(draft: drafts.Draft) -> dict[str, str]:
    """Every field of the form -> its mistake, "" where there is none, under the name that the form has for it."""
    told = {mistake.field: mistake.text for mistake in draft.mistakes}
    found = {"queue": told.get("queue", "")} if "queue" in request.form else {}
    for option in schema()["queue"].options.values():
        found[option.key] = told.get(option.key, "")
    keys = [*schema()["topic"].options]
    keys += [f"{name}/{key}" for name, spec in fixed_sections().items() for key in spec.options]
    for mark, topic in topics().items():
        found |= {f"{mark}/{key}": told.get(f"{topic}/{key}", "") for key in keys}
        for name in free_sections():
            lines = [text for field, text in told.items() if f"{field}/".startswith(f"{topic}/{name}/")]
            found[f"{mark}/{name}"] = lines[0] if lines else ""
    there = {field.partition(":")[2] for field in request.form if field.startswith(("key:", "lines:"))} | {"queue"}
    return {field: text for field, text in found.items() if field in there}
