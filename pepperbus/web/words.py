"""The dashboard's languages. English is the key of every text, so a text without a translation is still a text.

Floor 5. `translations/zh.json` maps English to Chinese; a test holds it against every `_("…")` of templates and modules.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from flask import Request, g, request

from pepperbus.web import formats

LANGUAGES = {"en": "English", "zh": "中文"}
COOKIE = "pepperbus_language"


def language(asked: Request) -> str:
    """What this visitor chose, or else what their browser asks for."""
    chosen = asked.cookies.get(COOKIE, "")
    return chosen if chosen in LANGUAGES else asked.accept_languages.best_match(LANGUAGES) or "en"


def spoken() -> str:
    """The language of the request under way; found once per request."""
    found: str | None = g.get("language")
    if found is None:
        found = g.language = language(request)
    return found


def _(text: str, **facts: object) -> str:
    """`text` in the visitor's language, `{name}` filled in from `facts`."""
    found = catalogue(spoken()).get(text) or text
    return found.format(**facts) if facts else found


def span(seconds: float) -> str:
    """A duration, its unit in the visitor's language."""
    return timed(formats.span(seconds))


def ago(seconds: float) -> str:
    """How long something is past, in whole seconds while it is young; never none at all."""
    return timed(f"{max(seconds, 1.0):.0f} s") if seconds < 120 else span(seconds)


def timed(text: str) -> str:
    """A time such as `5 min`, its unit in the visitor's language."""
    number, blank, unit = text.rpartition(" ")
    units = {"s": _("s"), "min": _("min"), "h": _("h"), "d": _("d")}
    return f"{number}{blank}{units.get(unit, unit)}"


@cache
def catalogue(language: str) -> dict[str, str]:
    """English -> that language; empty for English itself."""
    file = Path(__file__).with_name("translations") / f"{language}.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}
