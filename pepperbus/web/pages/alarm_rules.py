"""The rules of alarms by form: everywhere, for a system or a topic; what saving would change, what was changed. Floor 5."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from pepperbus.accounts.model import Right
from pepperbus.alarms.rules import RULES
from pepperbus.alarms.words import name
from pepperbus.errors import UsageError
from pepperbus.operations import alarm_files, drafts, queues
from pepperbus.operations.alarm_files import RuleDraft
from pepperbus.operations.results import QueueFile
from pepperbus.operations.rights import may
from pepperbus.web.desk import Desk
from pepperbus.web.pages.answers import did, fragment
from pepperbus.web.said import said
from pepperbus.web.words import _, spoken

_MOST = 20  # changes that are shown


def facts(desk: Desk) -> dict[str, Any]:
    """What the forms need: those who may change nothing get none."""
    office = desk.office
    if not office.actor.may_somewhere(Right.ADMIN):
        return {"edits": False}
    whole = may(office, Right.ADMIN)
    systems = {queue.system for queue in office.config.queues.values() if queue.system}
    return {
        "edits": True,
        "whole": whole,
        "mine": sorted(system for system in systems if office.actor.may(Right.ADMIN, system)),
        "all_rules": {rule: name(rule, spoken()) for rule in RULES},
        "changes": lambda: alarm_files.history(office, _MOST) if whole else [],
    }


def _words() -> tuple[str, str, str]:
    """Where ("": everywhere, a system, queue/topic), which rule, its text."""
    where, rule, text = (request.form.get(field, "").strip() for field in ("where", "rule", "text"))
    if rule not in RULES:
        raise UsageError(_("which rule?"))
    return where, rule, text


def _keys(where: str, rule: str, text: str) -> tuple[str, dict[str, str], tuple[str, ...]]:
    """The same as a change of a queue's file."""
    queue, _slash, topic = where.partition("/")
    path = f"{topic}/alarms/{rule}"
    return queue, {path: text} if text else {}, () if text else (path,)


def _draft(desk: Desk) -> Response:
    where, rule, text = _words()
    if "/" in where:
        desk.office.topic(where)
        draft = drafts.draft(desk.office, *_keys(where, rule, text))
        made = RuleDraft(draft.diff, [mistake.text for mistake in draft.mistakes])
    else:
        made = alarm_files.draft(desk.office, rule, text, where)
    return fragment("dialogs/rule.html", draft=made)


def _set(desk: Desk) -> Response:
    where, rule, text = _words()
    if "/" in where:
        desk.office.topic(where)
        done = queues.change(desk.office, *_keys(where, rule, text))
    else:
        done = alarm_files.set_rule(desk.office, rule, text, where)
    return _said(done, where or _("everywhere"))


def _said(done: QueueFile, where: str) -> Response:
    if done.refused:
        return did(_("{topic}: not in force: {why}", topic=where, why=said(done.reload)), "/alarms", good=False)
    return did(_("{topic}: the rule is changed", topic=where), "/alarms", go=True)


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.post("/alarms/rule/preview")
    def alarms_rule_preview() -> Response:
        return _draft(desk)

    @pages.post("/alarms/rule")
    def alarms_rule() -> Response:
        return _set(desk)

    @pages.post("/alarms/rules/rollback")
    def alarms_rules_rollback() -> Response:
        return _said(alarm_files.rollback(desk.office, request.form.get("at_ms", 0, int)), _("everywhere"))
