"""Many incidents, one message. Floor 3, pure."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from pepperbus.alarms.board import Incident
from pepperbus.alarms.rules import RULES, About
from pepperbus.alarms.words import line, moment, name, say, span
from pepperbus.config.alarm_settings import Alarms, Channel

#: Lines of a message; chats cut longer ones.
MOST_LINES = 20


class Line(msgspec.Struct):
    """One incident as a program reads it. `ended_ms` 0: it goes on. `threshold`: where it began; units as in the rule."""

    id: str
    rule: str
    subject: str
    system: str
    began_ms: int
    ended_ms: int
    value: float
    worst: float
    threshold: float
    detail: str
    text: str
    url: str = ""


class Message(msgspec.Struct):
    """What a channel is sent. `id` is the same at every try; `kind`: begin, end or test. `incidents`: all of them."""

    id: str
    kind: str
    at_ms: int
    node: str
    title: str
    text: str
    incidents: list[Line] = msgspec.field(default_factory=list)
    url: str = ""


def compose(
    channel: Channel, alarms: Alarms, node: str, incidents: Sequence[Incident], now_ms: int, over: bool
) -> Message:
    """What `channel` is told of these, which all begin or (`over`) all end."""
    language = channel.language
    shown = [_line(incident, alarms.dashboard, node, language, over) for incident in incidents]
    mark = say("over" if over else "alarm", language)
    if len(shown) == 1:
        title = f"{mark}: {shown[0].text}"
        text = "\n".join(_alone(shown[0], incidents[0], language))
    else:
        first = shown[0].subject
        title = f"{mark}: {say('many_over' if over else 'many', language, n=len(shown), first=first)}"
        text = "\n".join(_together(shown, language))
    url = f"{alarms.dashboard}/alarms" if alarms.dashboard else ""
    footer = [say("node", language, node=node), *([url] if url else [])]
    kind = "end" if over else "begin"
    number = min(incident.id for incident in incidents)
    return Message(
        f"{node}-{now_ms}-{number}-{kind}-{channel.name}",
        kind,
        now_ms,
        node,
        title,
        f"{text}\n{' · '.join(footer)}",
        shown,
        url,
    )


def test(channel: Channel, alarms: Alarms, node: str, who: str, now_ms: int) -> Message:
    """What the test button sends."""
    language = channel.language
    text = say("tested", language, channel=channel.name, who=who)
    url = f"{alarms.dashboard}/alarms" if alarms.dashboard else ""
    number = f"{node}-test-{channel.name}-{now_ms}"
    return Message(number, "test", now_ms, node, f"{say('test', language)}: Pepperbus {node}", text, [], url)


def _line(one: Incident, dashboard: str, node: str, language: str, over: bool) -> Line:
    text = line(one.rule, one.subject, one.value, one.threshold, language, over)
    url = f"{dashboard}{page(one.rule, one.subject)}" if dashboard else ""
    return Line(
        f"{node}-{one.id}",
        one.rule,
        one.subject,
        one.system,
        one.began_ms,
        one.ended_ms,
        one.value,
        one.worst,
        one.threshold,
        one.detail,
        text,
        url,
    )


def page(rule: str, subject: str) -> str:
    """Where the dashboard shows the cause."""
    name = quote(subject)
    if rule == "dead":
        return f"/topics/{name}/jobs?state=dead"
    if rule == "failures":
        return f"/errors?topic={name}"
    return {About.TOPIC: f"/topics/{name}", About.STORAGE: "/storage", About.NODE: "/nodes"}.get(
        RULES[rule].about, "/alarms"
    )


def _alone(shown: Line, incident: Incident, language: str) -> list[str]:
    facts = [say("since", language, at=moment(incident.began_ms))]
    if incident.ended_ms:
        facts.append(say("lasted", language, span=span((incident.ended_ms - incident.began_ms) / 1000, language)))
    if incident.system:
        facts.append(say("system", language, system=incident.system))
    detail = [incident.detail] if incident.detail and not incident.ended_ms else []
    return [shown.text, *detail, " · ".join(facts), *([shown.url] if shown.url else [])]


def _together(shown: Sequence[Line], language: str) -> list[str]:
    """By rule, so that a flood reads as what it is."""
    by_rule: dict[str, list[Line]] = {}
    for one in shown:
        by_rule.setdefault(one.rule, []).append(one)
    lines: list[str] = []
    left = MOST_LINES
    for rule, mine in by_rule.items():
        lines.append(f"{name(rule, language)} ({len(mine)})")
        lines += [f"- {one.text}" for one in mine[: max(left, 1)]]
        if len(mine) > max(left, 1):
            lines.append(say("more", language, n=len(mine) - max(left, 1)))
        left -= len(mine)
    return lines
