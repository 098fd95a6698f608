"""What operations and the configuration's check say, in the visitor's language. They know English only, and no page.

Floor 5. `translations/said-zh.json`, and `reasons-zh.json` for why jobs fail, map the sentences as they stand in the source,
`{1}`, `{2}` … for what is filled in, to Chinese; the text that came is held against them, and what filled a blank may be such
a sentence again. A text that fits none is shown as it is. A test reads the sentences out of the source.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

from pepperbus.operations import drafts
from pepperbus.web.words import spoken

_BLANK = re.compile(r"\{(\d)\}")
ALL, REASONS = ("said", "reasons"), ("reasons",)
_DEPTH = 4  # a sentence in a sentence in …


def said(text: str, language: str = "") -> str:
    """`text`, or each of its lines, in `language` (the visitor's)."""
    language = language or spoken()
    if language == "en":
        return text
    return "\n".join(_line(line, language) for line in text.split("\n"))


def reason(text: str, language: str = "") -> str:
    """Why a job or its consumer failed, in `language` (the visitor's). What the consumer itself wrote stays as it is, so
    only the bus' own reasons are looked for."""
    language = language or spoken()
    return text if language == "en" else "\n".join(_line(line, language, REASONS) for line in text.split("\n"))


def in_words(draft: drafts.Draft) -> drafts.Draft:
    """The same draft, its mistakes in the visitor's language."""
    draft.mistakes = [drafts.Mistake(one.field, said(one.text)) for one in draft.mistakes]
    return draft


@lru_cache(2048)
def _line(line: str, language: str, kinds: tuple[str, ...] = ALL) -> str:
    """A line of `check`: FILE:LINE, the section and the key stay as they are."""
    found = drafts.WHERE.match(line)
    begin = found.start("text") if found else 0
    return line[:begin] + _said(line[begin:], _DEPTH, language, kinds)


def _said(text: str, depth: int, language: str, kinds: tuple[str, ...]) -> str:
    exact, patterns = sentences(language, kinds)
    if text in exact:
        return exact[text]
    for parts, numbers, meant in patterns if depth else ():
        if (filled := _filled(text, parts)) is not None:
            facts = dict(zip(numbers, (_said(fact, depth - 1, language, kinds) for fact in filled), strict=True))
            return "".join(facts[part] if i % 2 else part for i, part in enumerate(_BLANK.split(meant)))
    return _after_a_place(text, depth, language, kinds)


def _after_a_place(text: str, depth: int, language: str, kinds: tuple[str, ...]) -> str:
    """A sentence of more than a word behind `what: `, such as an address or a script."""
    place, colon, rest = text.partition(": ")
    if not colon or not depth or " " not in rest:
        return text
    return f"{place}: {_said(rest, depth - 1, language, kinds)}"


def _filled(text: str, parts: Sequence[str]) -> list[str] | None:
    """What stands between the parts, each as short as can be; None when it is another sentence. In linear time: a
    consumer's own words come by here as well."""
    if not text.startswith(parts[0]):
        return None
    filled, at = [], len(parts[0])
    for part in parts[1:-1]:
        found = text.find(part, at)
        if found < 0:
            return None
        filled.append(text[at:found])
        at = found + len(part)
    end = len(text) - len(parts[-1])
    return [*filled, text[at:end]] if end >= at and text.endswith(parts[-1]) else None


@cache
def sentences(
    language: str, kinds: tuple[str, ...] = ALL
) -> tuple[dict[str, str], list[tuple[tuple[str, ...], list[str], str]]]:
    """Those without blanks, and those with: what stands around the blanks, their numbers in order, meaning; most
    letters first."""
    known: dict[str, str] = {}
    for kind in kinds:
        file = Path(__file__).with_name("translations") / f"{kind}-{language}.json"
        known |= json.loads(file.read_text(encoding="utf-8"))
    patterns = []
    for english in sorted(known, key=lambda one: -len(_BLANK.sub("", one))):
        if numbers := _BLANK.findall(english):
            patterns.append((tuple(_BLANK.split(english)[::2]), numbers, known[english]))
    return {english: meant for english, meant in known.items() if not _BLANK.search(english)}, patterns
