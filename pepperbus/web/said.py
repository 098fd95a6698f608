"""What operations and the configuration's check say, in the visitor's language. They know English only, and no page.

Floor 5. `translations/said-zh.json` maps the sentences as they stand in the source, `{1}`, `{2}` … for what is filled in, to
Chinese; the text that came is held against them, and what filled a blank may be such a sentence again. A text that fits none is
shown as it is. A test reads the sentences out of the source.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path

from pepperbus.operations import drafts
from pepperbus.web.words import spoken

_BLANK = re.compile(r"\{(\d)\}")
_DEPTH = 4  # a sentence in a sentence in …


def said(text: str, language: str = "") -> str:
    """`text`, or each of its lines, in `language` (the visitor's)."""
    language = language or spoken()
    if language == "en":
        return text
    return "\n".join(_line(line, language) for line in text.split("\n"))


def in_words(draft: drafts.Draft) -> drafts.Draft:
    """The same draft, its mistakes in the visitor's language."""
    draft.mistakes = [drafts.Mistake(one.field, said(one.text)) for one in draft.mistakes]
    return draft


def _line(line: str, language: str) -> str:
    """A line of `check`: FILE:LINE, the section and the key stay as they are."""
    found = drafts.WHERE.match(line)
    begin = found.start("text") if found else 0
    return line[:begin] + _said(line[begin:], language, _DEPTH)


def _said(text: str, language: str, depth: int) -> str:
    exact, patterns = sentences(language)
    if text in exact:
        return exact[text]
    for pattern, numbers, meant in patterns if depth else ():
        if found := pattern.fullmatch(text):
            facts = dict(zip(numbers, (_said(fact, language, depth - 1) for fact in found.groups()), strict=True))
            return "".join(facts[part] if i % 2 else part for i, part in enumerate(_BLANK.split(meant)))
    return text


@cache
def sentences(language: str) -> tuple[dict[str, str], list[tuple[re.Pattern[str], list[str], str]]]:
    """Those without blanks, and those with: pattern, the blanks' numbers in its order, meaning; most letters first."""
    file = Path(__file__).with_name("translations") / f"said-{language}.json"
    known: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    patterns = []
    for english in sorted(known, key=lambda one: -len(_BLANK.sub("", one))):
        if numbers := _BLANK.findall(english):
            parts = _BLANK.split(english)[::2]
            pattern = re.compile("(.*?)".join(re.escape(part) for part in parts), re.DOTALL)
            patterns.append((pattern, numbers, known[english]))
    return {english: meant for english, meant in known.items() if not _BLANK.search(english)}, patterns
