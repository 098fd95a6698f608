"""The dashboard's pages: each module answers one question, over `operations` only.

    attention.py  what is wrong, most harmful first, each with the link to its cause
    overview.py   how is the business doing: per system, rates, backlog, failures
    queues.py     every queue and topic in one table
    answers.py    what a click did: a toast for htmx, a redirect for a plain form, errors as a page

A page registers its addresses on the blueprint; its line of the navigation stands in `NAVIGATION` here.
"""

from __future__ import annotations

from flask import Blueprint, Flask

from pepperbus.web import frame
from pepperbus.web.desk import Desk
from pepperbus.web.frame import Entry
from pepperbus.web.pages import answers, overview

NAVIGATION = (Entry("/", "Overview", "layout-dashboard"),)
_PAGES = (overview,)


def install(app: Flask, desk: Desk) -> None:
    """Add every page and its line in the navigation."""
    pages = Blueprint("pages", __name__)
    answers.register(pages)
    for page in _PAGES:
        page.register(pages, desk)
    frame.NAVIGATION[:] = [*NAVIGATION]
    app.register_blueprint(pages)
