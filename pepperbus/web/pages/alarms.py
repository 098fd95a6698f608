"""What is wrong now and was, who is told, which rules hold; silences and tests. Floor 5."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Response, request

from pepperbus.accounts.model import Right
from pepperbus.alarms.rules import RULES, About
from pepperbus.alarms.words import name
from pepperbus.errors import PepperbusError, UsageError
from pepperbus.operations import alarms
from pepperbus.operations.alarms import Alarm
from pepperbus.web import frame
from pepperbus.web.desk import Desk
from pepperbus.web.pages import alarm_rules
from pepperbus.web.pages.answers import did
from pepperbus.web.said import said
from pepperbus.web.words import _, spoken

#: For how long one may silence from the page.
TIMES = {1800: "30 min", 3600: "1 h", 4 * 3600: "4 h", 86400: "24 h", 7 * 86400: "7 d"}
_PAGE = 50
_KEPT_S = 2.0


def _build(desk: Desk) -> dict[str, Any]:
    language, words = spoken(), request.args
    state = alarms.state(desk.office, language=language)
    past = alarms.history(
        desk.office, words.get("subject", ""), words.get("rule", ""), words.get("before", 0, int), _PAGE, language
    )
    status = desk.status()
    return {
        "state": state,
        "past": past,
        "systems": {queue.name: queue.system for queue in status.queues},
        "rules": {rule: name(rule, language) for rule in RULES},
        "href": href,
        "lasted": lasted,
        "left": lambda ms: max(0.0, ms / 1000 - time.time()),
    }


def _whole(desk: Desk) -> dict[str, Any]:
    """With the forms below the live part."""
    topics = [topic.name for queue in desk.status().queues for topic in queue.topics]
    return {
        **_build(desk),
        "operates": desk.office.actor.may_somewhere(Right.OPERATE),
        "topics": topics,
        "times": TIMES,
        **alarm_rules.facts(desk),
    }


def href(alarm: Alarm) -> str:
    """Where its cause is shown."""
    match RULES[alarm.rule].about:
        case About.TOPIC if alarm.rule == "dead":
            return f"/topics/{alarm.subject}/jobs?state=dead"
        case About.TOPIC if alarm.rule == "failures":
            return f"/errors?topic={alarm.subject}"
        case About.TOPIC:
            return f"/topics/{alarm.subject}"
        case About.STORAGE:
            return "/storage"
        case About.NODE:
            return "/nodes"
    return f"/queues?q={alarm.subject.partition('/')[0]}"


def lasted(alarm: Alarm) -> float:
    """Seconds; of what goes on, until now."""
    return max(0.0, (alarm.ended_ms or time.time() * 1000) - alarm.began_ms) / 1000


class Badge:
    """How many alarms are open, for the navigation of every page; per set of roles at most every two seconds."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._known: dict[str, tuple[float, int]] = {}

    def __call__(self) -> int:
        office = self._desk.office
        key, now = repr(office.actor.roles), time.monotonic()
        at, n = self._known.get(key, (-_KEPT_S, 0))
        if now - at >= _KEPT_S:
            try:
                n = alarms.count(office).total() if office.actor.roles else 0
            except PepperbusError:
                n = 0  # a page is no reason to fail because the alarms' file cannot be read
            self._known = {old: value for old, value in self._known.items() if now - value[0] < _KEPT_S}
            self._known[key] = now, n
        return n


def _silence(desk: Desk) -> Response:
    form = request.form
    seconds = form.get("for_s", 0, int)
    if seconds not in TIMES:
        raise UsageError(_("for how long?"))
    made = alarms.silence(
        desk.office, form.get("subject", "").strip(), form.get("rule", ""), float(seconds), form.get("why", "")
    )
    return did(_("{subject} is silenced", subject=made.subject or _("everything")), form.get("back", "/alarms"))


def register(pages: Blueprint, desk: Desk) -> None:
    badge = Badge(desk)

    @pages.app_context_processor
    def alarms_badge() -> dict[str, Any]:
        return {"open_alarms": badge}

    alarm_rules.register(pages, desk)

    @pages.get("/alarms")
    def alarms_page() -> Response:
        return frame.show("alarms.html", lambda: _whole(desk), every=3.0, shared=True)

    @pages.post("/alarms/silence")
    def alarms_silence() -> Response:
        return _silence(desk)

    @pages.post("/alarms/silences/<int:number>/end")
    def alarms_unsilence(number: int) -> Response:
        alarms.unsilence(desk.office, number)
        return did(_("The silence is over"), "/alarms")

    @pages.post("/alarms/test/<channel>")
    def alarms_test(channel: str) -> Response:
        error = alarms.send_test(desk.office, channel).channels[channel]
        if error:
            return did(_("{channel} did not take it: {why}", channel=channel, why=said(error)), "/alarms", good=False)
        return did(_("{channel} took the test", channel=channel), "/alarms")
