"""A document against the schema: every value converted, every mistake noted, nothing unknown let through.

Floor 1. Looks at one option at a time; what several options mean together is `load`'s.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pepperbus.config.references import KINDS, is_reference, referred_file, resolve
from pepperbus.config.source import Document, KeyPath
from pepperbus.config.spec import Option, Spec
from pepperbus.config.values import later as refuse

Values = dict[str, Any]

#: What people of other systems type. Spelling alone would send them astray: `retry` is near to `entry`.
_ELSEWHERE = {
    **dict.fromkeys(
        ("retry", "retries", "tries", "max_tries", "max_retries", "retry_times", "max_attempts"), "attempts"
    ),
    **dict.fromkeys(("retry_delay", "retry_time", "retry_after", "delay", "wait"), "backoff"),
    **dict.fromkeys(("num_of_workers", "processes", "threads", "numprocs", "parallel"), "concurrency"),
    **dict.fromkeys(("file", "path", "script_filename", "script_entry"), "script"),
    **dict.fromkeys(("socket", "host", "listen"), "address"),
    **dict.fromkeys(("cgi_config_key", "fpm"), "pool"),
    **dict.fromkeys(("secret", "auth", "token"), "password"),
}


def given(document: Document, spec: Spec, path: KeyPath = ()) -> Values:
    """The values that stand in the section at `path` (and below it) and are valid; all others are mistakes noted."""
    found: Values = {}
    raw = document.value(path)
    for key, value in (raw if isinstance(raw, dict) else {}).items():
        here = (*path, key)
        if isinstance(value, dict):
            inner = spec.sections.get(key, spec.any_section)
            if inner is None or inner.later:
                document.mistake(here, _unknown_section(spec, inner, key))
            else:
                found[key] = given(document, inner, here)
            continue
        option = spec.options.get(key, spec.any_option)
        if option is None:
            document.mistake(here, _unknown_key(spec, key), known=key in spec.sections)
            continue
        try:
            found[key] = option.value(_revealed(document, option, value))
        except ValueError as error:
            document.mistake(here, f"{error}{_default(option)}")
    return found


def _revealed(document: Document, option: Option, value: str | list[str]) -> str | list[str]:
    """`value`, or what it refers to. Raises ValueError."""
    if option.kind not in KINDS:
        return value
    base = Path(os.path.abspath(document.file)).parent
    if (file := referred_file(value, base)) is not None:
        document.secret_files.append(file)
    document.refers |= is_reference(value[0] if isinstance(value, list) and value else value)
    return resolve(value, base, document.environ)


def complete(values: Values, spec: Spec) -> Values:
    """`values` with the defaults of everything that was not given (or was given wrongly)."""
    return {**spec.defaults, **values}


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """` (did you mean x?)`, or "" when nothing is near."""
    close = get_close_matches(name, list(names), 1, 0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _default(option: Option) -> str:
    return f" (default {option.default})" if option.default else ""


def _unknown_key(spec: Spec, key: str) -> str:
    if key in spec.sections:
        return f"{key} is a section here, not a key: write it in brackets"
    if spec.any_section is not None and not spec.options:
        return "a key cannot stand here; a section [[NAME]] is wanted"
    known = [name for name, option in spec.options.items() if not option.later]
    if (meant := _ELSEWHERE.get(key.lower(), "")) in known:
        return f"unknown key; did you mean {meant}?"
    if homes := [name for name, section in spec.sections.items() if key in section.options]:
        return f"unknown key here; it stands below [{homes[0]}]"
    return f"unknown key{did_you_mean(key, known) or '; known here: ' + ', '.join(known)}"


def _unknown_section(spec: Spec, inner: Spec | None, key: str) -> str:
    if inner is not None:
        try:
            refuse(key)
        except ValueError as error:
            return str(error)
    if key in spec.options:
        return f"{key} is a key, not a section: write {key} = …"
    known = [name for name, section in spec.sections.items() if not section.later]
    if "topics" in known and not did_you_mean(key, known):
        return f"unknown section; a topic is written [[{key}]], below [topics]"
    return f"unknown section{did_you_mean(key, known) or ('; known here: ' + ', '.join(known) if known else '')}"
