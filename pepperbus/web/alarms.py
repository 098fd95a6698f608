"""The API's rows for alarms. Floor 5."""

from __future__ import annotations

from pepperbus.errors import UsageError
from pepperbus.operations import alarm_files, alarms
from pepperbus.operations.alarms import AlarmPage, AlarmState, SilenceInfo, Tested
from pepperbus.operations.results import QueueFile
from pepperbus.web.table import Call, Route
from pepperbus.web.table import Needs as N
from pepperbus.web.takes import AlarmHistoryQuery, AlarmsQuery, AlarmTestBody, RuleBody, SilenceBody, SubjectSilenceBody


def get_alarms(call: Call) -> AlarmState:
    return alarms.state(call.desk.office, call.query.topic, call.query.language)


def find_alarms(call: Call) -> AlarmPage:
    query = call.query
    if not 1 <= query.limit <= 10_000:
        raise UsageError(f"limit: {query.limit} must be 1 to 10000")
    return alarms.history(call.desk.office, query.subject, query.rule, query.before, query.limit, query.language)


def silence_topic(call: Call) -> SilenceInfo:
    return _silence(call, call.topic)


def silence_queue(call: Call) -> SilenceInfo:
    return _silence(call, call.names["queue"])


def silence_alarms(call: Call) -> SilenceInfo:
    return _silence(call, call.body.subject)


def _silence(call: Call, subject: str) -> SilenceInfo:
    return alarms.silence(call.desk.office, subject, call.body.rule, call.body.for_s, call.body.why)


def end_silence(call: Call) -> SilenceInfo:
    number = call.names["silence"]
    return alarms.unsilence(call.desk.office, int(number) if number.isdecimal() and len(number) < 18 else 0)


def send_alarm_test(call: Call) -> Tested:
    return alarms.send_test(call.desk.office, call.body.channel)


def set_rule(call: Call) -> QueueFile:
    return alarm_files.set_rule(call.desk.office, call.names["rule"], call.body.text, call.body.system)


_ALARMS = "/alarms"
_TOPIC = "/topics/{queue}/{topic}/silence"
ROUTES: tuple[Route, ...] = (
    Route("GET", _ALARMS, N.LOGIN, get_alarms, AlarmState, "What is wrong; rules, silences, channels.", query=AlarmsQuery),
    Route("GET", _ALARMS + "/history", N.LOGIN, find_alarms, AlarmPage, "What was wrong.", query=AlarmHistoryQuery),
    Route("POST", _ALARMS + "/silences", N.OPERATE_NODE, silence_alarms, SilenceInfo, "Tell nobody.", body=SubjectSilenceBody),
    Route("DELETE", _ALARMS + "/silences/{silence}", N.OPERATE_NODE, end_silence, SilenceInfo,
          "End a silence; a topic's needs operator of its system only."),
    Route("PUT", _ALARMS + "/rules/{rule}", N.ADMIN_NODE, set_rule, QueueFile, "What counts as wrong.", body=RuleBody),
    Route("POST", _ALARMS + "/test", N.OPERATE_NODE, send_alarm_test, Tested, "Send a test.", body=AlarmTestBody),
    Route("POST", "/queues/{queue}/silence", N.OPERATE, silence_queue, SilenceInfo, "Tell nobody of it.", body=SilenceBody),
    Route("POST", _TOPIC, N.OPERATE, silence_topic, SilenceInfo, "Tell nobody of it for a time.", body=SilenceBody),
)  # fmt: skip
