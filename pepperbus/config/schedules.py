"""A queue's `[schedule]`: jobs that the bus pushes by itself. Floor 1."""

from __future__ import annotations

from pepperbus.config.check import Values, complete
from pepperbus.config.source import Document
from pepperbus.config.spec import schema
from pepperbus.config.timing import Schedule, Timing
from pepperbus.names import NAME_RULE, is_name


def build(document: Document, queue: str, sections: Values) -> dict[str, Schedule]:
    """Every schedule of `queue`. Mistakes are in `document` afterwards."""
    found = {}
    spec = schema()["queue"].sections["schedule"].any_section
    assert spec is not None
    for name, given in sections.items():
        path = ("schedule", name)
        if not is_name(name):
            document.mistake(path, f"not a name; allowed: {NAME_RULE}")
        full = complete(given, spec)
        if not full["expression"]:
            if document.value((*path, "expression")) is None and not document.broken:
                document.mistake(path, "expression is missing: such as 30 3 * * 1-5, or @every 90s")
            continue
        timing = Timing(full.pop("expression"), full.pop("zone"))
        if full["gap"] and full["times"] == 1:
            document.mistake((*path, "gap"), "gap is the time between several jobs: it needs times = 2 or more")
        if full["overlap"] == "skip" and full["catch_up"] == "all":
            document.mistake(
                (*path, "overlap"), "overlap = skip lets one firing run at a time; catch_up = all wants all: choose one"
            )
        found[name] = Schedule(queue, name, timing, **full)
    return found
