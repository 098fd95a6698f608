"""Who did what, when, from where, and how it was before and after; taken along as a file; whether the chain holds. Floor 5."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Response, make_response, render_template, request

from pepperbus.accounts.chain import Entry, Found
from pepperbus.operations import audit
from pepperbus.operations.results import to_json
from pepperbus.operations.rights import DEEDS
from pepperbus.web.desk import Desk
from pepperbus.web.formats import cell, moment
from pepperbus.web.pages.answers import fragment, is_htmx

PAGE = 50
SINCE = {3600: "1 h", 86400: "24 h", 7 * 86400: "7 d", 30 * 86400: "30 d"}
RESULTS = ("done", "failed", "refused", "begun")
#: What a deed is called in words; the log's own name stands beside it.
DEED_WORDS = {
    "login": "signed in",
    "logout": "signed out",
    "setup": "made the first account",
    "queue.add": "made a queue",
    "queue.change": "changed a queue",
    "queue.remove": "removed a queue or topic",
    "queue.rollback": "took back a change",
    "queue.put": "saved a queue's file",
    "import.bring": "imported queues of the Go system",
    "export.configuration": "exported the configuration",
    "export.move": "moved jobs back to the Go system",
    "drain": "moved a queue to another storage",
    "storage_file.add": "added a storage",
    "storage_file.change": "changed a storage",
    "storage_file.remove": "removed a storage",
    "storage.compact": "gave back a storage's free space",
    "schedule.add": "made a schedule",
    "schedule.change": "changed a schedule",
    "schedule.remove": "removed a schedule",
    "schedule.run": "ran a schedule by hand",
    "schedule.pause": "paused a schedule",
    "schedule.resume": "resumed a schedule",
    "pause": "paused",
    "resume": "resumed",
    "push": "pushed jobs",
    "send": "sent a test job",
    "replay.plan": "planned a replay",
    "replay.steer": "steered a replay",
    "purge": "deleted jobs",
    "failed.clean": "deleted failed jobs",
    "failed.recover": "put failed jobs back",
    "mark.mark": "marked an error",
    "deploy.mark": "set a mark on the charts",
    "baseline.reset": "counted a topic anew",
    "sample.save": "saved a sample",
    "sample.forget": "deleted a sample",
    "alarm.silence": "silenced alarms",
    "alarm.unsilence": "ended a silence",
    "alarm.send_test": "tested a channel of alarms",
    "alarm_file.set_rule": "changed an alarm rule",
    "alarm_file.rollback": "took back a change of the alarm rules",
    "reload": "reloaded the configuration",
    "restart": "restarted a process",
    "reopen": "opened the logs anew",
    "scale": "changed the number of gateways",
    "stop": "stopped the bus",
    "upgrade": "upgraded the bus",
    "user.add": "made an account",
    "user.change": "changed an account",
    "user.reset": "set a new password",
    "user.remove": "removed an account",
    "user.change_password": "changed their password",
    "token.add": "made a token",
    "token.revoke": "revoked a token",
    "session.end": "ended a session",
}
_MOST_EXPORTED = 20_000
_COLUMNS = ("n", "at", "who", "via", "address", "what", "about", "result", "reason", "details", "before", "after")


def _found(desk: Desk, before: int, limit: int) -> Found:
    words = request.args
    since = words.get("since", 0, int)
    return audit.history(
        desk.office,
        who=words.get("who", "").strip(),
        what=words.get("what", "").strip(),
        about=words.get("about", "").strip(),
        result=words.get("result", ""),
        since_ms=int((time.time() - since) * 1000) if since else 0,
        before=before,
        limit=limit,
    )


def changes(entry: Entry) -> list[tuple[str, Any, Any]]:
    """What was another one before: its name, how it was, how it is; None where it was not or is not any more."""
    names = [*entry.before, *(name for name in entry.after if name not in entry.before)]
    return [(name, entry.before.get(name), entry.after.get(name)) for name in names]


def _page(desk: Desk, **facts: Any) -> Response:
    found = _found(desk, request.args.get("before", 0, int), PAGE)
    return make_response(
        render_template(
            "audit.html",
            found=found,
            changes=changes,
            words=DEED_WORDS,
            deeds=sorted(DEEDS),
            results=RESULTS,
            ranges=SINCE,
            **facts,
        )
    )


def _all(desk: Desk) -> Iterator[Entry]:
    """The whole selection, newest first, up to a bound."""
    before, left = 0, _MOST_EXPORTED
    while left > 0:
        found = _found(desk, before, min(1000, left))
        yield from found.entries
        before, left = found.cursor, left - len(found.entries)
        if not before:
            return


def _csv(entries: list[Entry]) -> str:
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(_COLUMNS)
    for one in entries:
        facts = (json.dumps(fact, ensure_ascii=False) if fact else "" for fact in (one.details, one.before, one.after))
        row = (one.who, one.via, one.address, one.what, one.about, one.result, one.reason, *facts)
        table.writerow([one.n, moment(one.at_ms, True), *map(cell, row)])
    return text.getvalue()


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/audit")
    def audit_page() -> Response:
        return _page(desk)

    @pages.get("/audit.<any(csv,json):kind>")
    def audit_export(kind: str) -> Response:
        entries = list(_all(desk))
        body = _csv(entries) if kind == "csv" else to_json(entries)
        response = Response(body, mimetype="text/csv" if kind == "csv" else "application/json")
        response.headers["Content-Disposition"] = f"attachment; filename=audit.{kind}"
        return response

    @pages.get("/audit/chain")
    def audit_chain() -> Response:
        known = request.args.get("known", "").strip()
        chain = audit.verify(desk.office, known)
        return fragment("dialogs/chain.html", chain=chain, known=known) if is_htmx() else _page(desk, chain=chain)
