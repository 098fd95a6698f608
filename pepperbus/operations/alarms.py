"""Alarms as an operator sees and handles them: what is wrong now, what was, which rules hold, silences, a test.

Floor 4. The ticker looks and tells (`ticker.alarms`); here its file is read, and silences are written into it.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from pepperbus.accounts.model import EVERYWHERE
from pepperbus.alarms.board import Incident
from pepperbus.alarms.rules import RULES, About, limit
from pepperbus.alarms.store import Silence, Store
from pepperbus.alarms.words import LANGUAGES, line, name
from pepperbus.config.alarm_settings import Channel
from pepperbus.config.limits import spell
from pepperbus.errors import NotFound, PepperbusError, UsageError
from pepperbus.operations.office import Office
from pepperbus.operations.results import Result
from pepperbus.operations.rights import Right, may, operation, system_of

LONGEST_S = 90 * 86_400.0


class Alarm(Result):
    """One incident. `ended_ms` 0: it goes on. Values in the rule's unit (s, jobs, a share 0 to 1); `text` says it in words.

    `told_ms` 0: not told yet, `silenced` because of a silence; `channels`: to whom. `spoken_by`: the node that tells, when it
    is another one.
    """

    id: int
    rule: str
    subject: str
    system: str
    node: str
    began_ms: int
    ended_ms: int
    value: float
    worst: float
    threshold: float
    detail: str
    text: str
    name: str
    told_ms: int = 0
    silenced: bool = False
    spoken_by: str = ""
    channels: list[str] = []


class SilenceInfo(Result):
    """Nobody is told of `rule` ("" = any) at `subject` ("" = any; a queue means its topics) until then."""

    id: int
    rule: str
    subject: str
    until_ms: int
    who: str
    why: str
    made_ms: int = 0


class ChannelInfo(Result):
    """Who is told; `where` without anything secret. `error`: why the last message was not taken; `waiting`: how many wait."""

    name: str
    type: str
    where: str
    language: str
    systems: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    at_ms: int = 0
    error: str = ""
    waiting: int = 0


class RuleInfo(Result):
    """A rule: `text` as in the configuration, `off` or when it begins and ends. `others`: system, or queue/topic, -> text."""

    name: str
    title: str
    about: str
    text: str
    others: dict[str, str] = msgspec.field(default_factory=dict)


class AlarmState(Result):
    """How it stands. `channels` are shown to whoever may look at the node."""

    open: list[Alarm]
    silences: list[SilenceInfo]
    rules: list[RuleInfo]
    channels: list[ChannelInfo] = msgspec.field(default_factory=list)


class AlarmPage(Result):
    """Newest first; `cursor` 0: there is no more."""

    alarms: list[Alarm]
    cursor: int = 0


class Tested(Result):
    """Channel -> "" when the test was taken, else why not."""

    channels: dict[str, str]


@operation(Right.VIEW)
def state(office: Office, topic: str = "", language: str = "en") -> AlarmState:
    """Everything that is wrong now (at `topic`), and what is set. Raises UsageError for another language than en and zh."""
    _check_language(language)
    store, now_ms = Store(office.config.bus.data_dir), office.clock.now_ms()
    _, incidents, _ = store.load()
    silences = store.silences(now_ms)
    opened = [one for one in incidents if not one.ended_ms and topic in ("", one.subject) and _sees(office, one)]
    found = AlarmState(
        sorted((_alarm(one, silences, language) for one in opened), key=lambda one: -one.began_ms),
        [_shown(one) for one in silences if _sees_subject(office, one.subject) and topic in ("", one.subject)],
        _rules(office, topic, language),
    )
    if may(office, Right.VIEW) and not topic:
        found.channels = _channels(office, store)
    return found


@operation(Right.VIEW)
def count(office: Office) -> Counter[str]:
    """How many alarms are open that this person may see, by rule."""
    _, incidents, _ = Store(office.config.bus.data_dir).load()
    return Counter(one.rule for one in incidents if not one.ended_ms and _sees(office, one))


@operation(Right.VIEW)
def history(
    office: Office, subject: str = "", rule: str = "", before: int = 0, limit: int = 100, language: str = "en"
) -> AlarmPage:
    """What was and is wrong, newest first, from the incident before `before` on; `subject` may be a queue."""
    _check_language(language)
    _check_rule(rule)
    if not 0 <= before < 1 << 53:
        raise UsageError("before: the cursor of a page is wanted")
    found = Store(office.config.bus.data_dir).history(before, limit + 1, rule, subject)
    seen = [_alarm(one, [], language) for one in found[:limit] if _sees(office, one)]
    return AlarmPage(seen, found[limit - 1].id if len(found) > limit else 0)


@operation(Right.OPERATE, "subject", details=("rule", "for_s", "why"))
def silence(office: Office, subject: str, rule: str = "", for_s: float = 3600.0, why: str = "") -> SilenceInfo:
    """Tell nobody of `rule` at `subject` for so long; "" means any. The incidents are still shown and remembered.

    Raises NotFound for a subject that nothing is watched of, UsageError for a rule or time that cannot be.
    """
    _check_rule(rule)
    _check_subject(office, subject)
    if not 0 < for_s <= LONGEST_S:
        raise UsageError("for: a time up to 90 days is wanted")
    now_ms = office.clock.now_ms()
    made = Silence(0, rule, subject, now_ms + int(for_s * 1000), office.actor.name, why.strip()[:500], now_ms)
    return _shown(Store(office.config.bus.data_dir).silence(made))


def _system_of(given: Mapping[str, Any]) -> str:
    """Whose silence it is; one that is not there is the node's."""
    office: Office = given["office"]
    try:
        subject = Store(office.config.bus.data_dir).find_silence(given["number"]).subject
    except PepperbusError:
        return EVERYWHERE
    return system_of(office, subject)


@operation(Right.OPERATE, system=_system_of, details=("number",), tells=("rule", "subject"))
def unsilence(office: Office, number: int) -> SilenceInfo:
    """End a silence now; what is still wrong is told. Raises NotFound."""
    store = Store(office.config.bus.data_dir)
    found = store.find_silence(number)
    store.end_silence(number, office.clock.now_ms())
    return _shown(found)


@operation(Right.OPERATE, details=("channel",), tells=("channels",))
def send_test(office: Office, channel: str = "") -> Tested:
    """Send a test to one channel, or to all. The ticker sends it, as it would an alarm. Raises NotFound, NotReachable."""
    known = [one.name for one in office.config.alarms.channels]
    if channel and channel not in known:
        raise NotFound(f"no channel {channel!r}{_nearest(channel, known)}")
    if not known:
        raise UsageError("there is no channel: [alarms] [[channels]] of the node's file says who is told")
    command = {"op": "alarm_test", "channel": channel, "who": office.actor.name}
    answer = office.ask({"op": "tell", "name": "ticker", "command": command, "timeout": 40})
    told = answer.get("answer", answer)
    if "channels" not in told:
        raise PepperbusError(str(told.get("error") or "the ticker did not answer"))
    return Tested(told["channels"])


# -- what is shown -----------------------------------------------------------------------------------------------------


def _alarm(one: Incident, silences: Iterable[Silence], language: str) -> Alarm:
    silenced = not one.ended_ms and any(silence.covers(one.rule, one.subject) for silence in silences)
    return Alarm(
        one.id,
        one.rule,
        one.subject,
        one.system,
        one.node,
        one.began_ms,
        one.ended_ms,
        one.value,
        one.worst,
        one.threshold,
        one.detail,
        line(one.rule, one.subject, one.worst if one.ended_ms else one.value, one.threshold, language),
        name(one.rule, language),
        one.told_ms,
        silenced,
        one.spoken_by,
        one.channels,
    )


def _shown(one: Silence) -> SilenceInfo:
    return SilenceInfo(one.id, one.rule, one.subject, one.until_ms, one.who, one.why, one.made_ms)


def _sees(office: Office, one: Incident) -> bool:
    return office.actor.may(Right.VIEW, one.system or EVERYWHERE)


def _sees_subject(office: Office, subject: str) -> bool:
    return may(office, Right.VIEW, subject) if subject else may(office, Right.VIEW)


def _rules(office: Office, topic: str, language: str) -> list[RuleInfo]:
    """Every rule as it holds everywhere (or for `topic`), and where it is different."""
    config = office.config
    known = config.topic(topic) if topic and may(office, Right.VIEW, topic) else None
    found = []
    for rule in RULES.values():
        if topic and rule.about is not About.TOPIC:
            continue
        others = {} if topic else _others(office, rule.name, rule.unit)
        text = spell(limit(config, rule.name, known), rule.unit)
        found.append(RuleInfo(rule.name, name(rule.name, language), str(rule.about), text, others))
    return found


def _others(office: Office, rule: str, unit: str) -> dict[str, str]:
    found = {}
    for system, limits in office.config.alarms.systems:
        if rule in dict(limits) and office.actor.may(Right.VIEW, system):
            found[system] = spell(dict(limits)[rule], unit)
    for topic in office.topics():
        own = dict(topic.alarms).get(rule)
        if own is not None and may(office, Right.VIEW, topic.queue):
            found[topic.full_name] = spell(own, unit)
    return found


def _channels(office: Office, store: Store) -> list[ChannelInfo]:
    spoken, waiting = store.spoken(), store.waiting()
    found = []
    for one in office.config.alarms.channels:
        last = spoken.get(one.name)
        mine = sum(message.channel == one.name for message in waiting)
        facts = (last.at_ms, last.error) if last else (0, "")
        found.append(ChannelInfo(one.name, one.type, _where(one), one.language, one.systems, one.rules, *facts, mine))
    return found


def _where(channel: Channel) -> str:
    """Where it leads, without what is secret: of an address the host, or the service's name."""
    if channel.type == "mail":
        return f"{', '.join(channel.to)} ({channel.server})"
    parts = urlsplit(channel.url.reveal())
    if channel.type == "apprise":
        return f"{parts.scheme}://…"
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}/…"


# -- what may be asked -------------------------------------------------------------------------------------------------


def _check_language(language: str) -> None:
    if language not in LANGUAGES:
        raise UsageError(f"language: {language!r} must be one of {', '.join(LANGUAGES)}")


def _check_rule(rule: str) -> None:
    if rule and rule not in RULES:
        raise UsageError(f"no rule {rule!r}{_nearest(rule, RULES)}; known: {', '.join(RULES)}")


def _check_subject(office: Office, subject: str) -> None:
    config = office.config
    known = {"", *config.queues, *config.storages, *(topic.full_name for topic in office.topics())}
    if subject not in known:
        _, incidents, _ = Store(config.bus.data_dir).load()
        if subject not in {one.subject for one in incidents}:
            raise NotFound(f"no queue, topic or storage {subject!r}{_nearest(subject, known)}")


def _nearest(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""
