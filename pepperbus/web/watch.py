"""Routes of the API for those who watch: marks on the time line. Floor 5; part of the table in routes.py."""

from __future__ import annotations

from pepperbus.operations import deploys
from pepperbus.web.table import Call, Route
from pepperbus.web.table import Needs as N
from pepperbus.web.takes import MarkBody, MarksQuery


def list_marks(call: Call) -> list[deploys.DeployMark]:
    return deploys.marks(call.desk.office, call.query.since_ms, call.query.name)


def set_mark(call: Call) -> deploys.DeployMark:
    return deploys.mark(call.desk.office, call.body.text, call.body.system)


ROUTES: tuple[Route, ...] = (
    Route("GET", "/marks", N.LOGIN, list_marks, list[deploys.DeployMark], "What was deployed when.", query=MarksQuery),
    Route("POST", "/marks", N.OPERATE, set_mark, deploys.DeployMark, "Set a mark on the time line.", body=MarkBody),
)
