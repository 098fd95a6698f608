"""Every text of the dashboard has its Chinese; every Chinese text has its place; both have the same blanks to fill in."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

from pepperbus import operations
from pepperbus.accounts.model import Role
from pepperbus.config.spec import schema
from pepperbus.operations import marks, rights
from pepperbus.replay.model import DEEDS, State
from pepperbus.stats import STATES
from pepperbus.web import words
from pepperbus.web.pages import answers, audit, edit, form, jobs, replays, schedule_edit, search, topic

WEB = Path(words.__file__).parent
_IN_TEMPLATE = re.compile(r"""\b_\(\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")


def texts() -> Iterator[str]:
    for file in (WEB / "templates").rglob("*.html"):
        for match in _IN_TEMPLATE.finditer(file.read_text()):
            yield ast.literal_eval(match[1])
    for file in WEB.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("_", "Entry"):
                text = node.args[node.func.id == "Entry"]
                if isinstance(text, ast.Constant):
                    yield text.value


def shown() -> set[str]:
    """What is translated by a variable: states, outcomes, times, the help of the fields that come first."""
    processes = {"answers", "open", "failed", "starting", "draining", "waiting", "error", "detached", "ready"}
    firings = {"late", "manual", "missed", "overlap", "full"}
    people = {*Role, "active", "disabled", *audit.RESULTS, *audit.DEED_WORDS.values()}
    return {
        *STATES,
        *marks.STATES,
        *(title for *_, title in answers._ERRORS),
        *answers.SAID,
        *(label for lines in topic.CHARTS.values() for *_, label, _colour in lines if not label.startswith("p")),
        *search.OUTCOMES,
        *jobs.STATES,
        *jobs.SINCE.values(),
        *replays.LABELS.values(),
        *State,
        *DEEDS,
        "plan",
        "canary",
        *processes,
        *people,
        *firings,
        *(option.help for option in schedule_edit.options()),
        *schedule_edit.LABELS.values(),
        *edit.LABELS.values(),
        *edit.SECTIONS.values(),
        *(edit.hint(option) for part in schema() if part in edit.FIRST for option in edit.options(part, True)),
    }


def helps() -> set[str]:
    """Of every field of the form; those that do not come first may lack their Chinese for a while."""
    options = [option for part in edit.FIRST for option in schema()[part].options.values()]
    options += [option for section in form.fixed_sections().values() for option in section.options.values()]
    return {edit.hint(option) for option in options}


def test_every_text_has_its_chinese() -> None:
    missing = ({*texts()} | shown()) - words.catalogue("zh").keys()
    assert not missing, sorted(missing)


def test_every_deed_of_the_audit_log_has_a_name() -> None:
    for module in pkgutil.iter_modules(operations.__path__):
        importlib.import_module(f"{operations.__name__}.{module.name}")
    assert not set(rights.DEEDS) - audit.DEED_WORDS.keys()
    assert not {deed for deed in audit.DEED_WORDS if "." in deed} - set(rights.DEEDS)


def test_no_translation_is_left_over() -> None:
    left = words.catalogue("zh").keys() - {*texts()} - shown() - helps()
    assert not left, sorted(left)


def test_the_blanks_are_the_same() -> None:
    for english, chinese in words.catalogue("zh").items():
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", chinese)), english
