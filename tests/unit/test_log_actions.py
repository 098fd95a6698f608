"""The words after `action=` are one style everywhere: alarms hang on them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "pepperbus"
LEVELS = {"info", "warning", "error"}


def actions() -> Iterator[tuple[str, str]]:
    """Where an event is logged, and its action, as far as it stands there literally."""
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            method, owner = node.func.attr, ast.unparse(node.func.value)
            at = 1 if method == "event" else 0
            if not owner.endswith("log") or method not in LEVELS | {"event"} or len(node.args) <= at:
                continue
            for part in ast.walk(node.args[at]):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield f"{file.relative_to(SOURCE)}:{node.lineno}", part.value


def test_every_action_is_words_with_underscores() -> None:
    found = list(actions())
    assert len(found) > 50  # the search finds them
    assert [one for one in found if not re.fullmatch(r"[a-z]+(_[a-z]+)*", one[1])] == []
