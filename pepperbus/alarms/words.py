"""What people read of alarms, in English and Chinese side by side. Floor 3, pure.

Messages leave without anybody who could choose a language, so their words are here and not with the dashboard's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from pepperbus.alarms.rules import RULES

LANGUAGES = ("en", "zh")
#: rule -> what it is called.
NAMES: Mapping[str, tuple[str, str]] = {
    "backlog": ("Backlog", "积压"),
    "oldest": ("Oldest waiting job", "最早等待任务"),
    "failures": ("Failure share", "失败率"),
    "wait_p99": ("Waiting time p99", "等待时间 p99"),
    "run_p99": ("Running time p99", "运行时间 p99"),
    "dead": ("Dead jobs", "死信"),
    "consumer_down": ("Consumer down", "消费者不可用"),
    "node_down": ("Node down", "节点失联"),
    "storage_down": ("Storage down", "存储不可用"),
    "storage_full": ("Storage filling", "存储将满"),
    "storage_left": ("Storage full soon", "存储剩余天数"),
    "schedule_missed": ("Schedule missed", "定时未执行"),
}
#: rule -> one incident in a line; {limit} is where it begins.
_LINES: Mapping[str, tuple[str, str]] = {
    "backlog": ("{subject}: {value} jobs wait (limit {limit})", "{subject}：{value} 个任务在等待（阈值 {limit}）"),
    "oldest": (
        "{subject}: the oldest job has waited {value} (limit {limit})",
        "{subject}：最早的任务已等待 {value}（阈值 {limit}）",
    ),
    "failures": ("{subject}: {value} of the attempts fail (limit {limit})", "{subject}：失败率 {value}（阈值 {limit}）"),
    "wait_p99": ("{subject}: jobs wait {value}, p99 (limit {limit})", "{subject}：等待时间 p99 为 {value}（阈值 {limit}）"),
    "run_p99": ("{subject}: attempts take {value}, p99 (limit {limit})", "{subject}：运行时间 p99 为 {value}（阈值 {limit}）"),
    "dead": ("{subject}: {value} dead jobs (limit {limit})", "{subject}：{value} 个死信（阈值 {limit}）"),
    "consumer_down": ("{subject}: its consumer takes nothing", "{subject}：消费者不接收任务"),
    "node_down": ("node {subject} has gone silent", "节点 {subject} 失去联系"),
    "storage_down": (
        "storage {subject} does not answer: its queues refuse pushes",
        "存储 {subject} 没有应答：其队列拒绝推送",
    ),
    "storage_full": ("storage {subject} is {value} full (limit {limit})", "存储 {subject} 已用 {value}（阈值 {limit}）"),
    "storage_left": ("storage {subject} is full in {value}", "存储 {subject} 将在 {value} 后写满"),
    "schedule_missed": ("schedule {subject} is {value} late (limit {limit})", "定时 {subject} 晚了 {value}（阈值 {limit}）"),
}  # fmt: skip
_OVER: Mapping[str, tuple[str, str]] = {
    "backlog": ("{subject}: {value} jobs wait", "{subject}：{value} 个任务在等待"),
    "oldest": ("{subject}: the oldest job has waited {value}", "{subject}：最早的任务已等待 {value}"),
    "failures": ("{subject}: {value} of the attempts fail", "{subject}：失败率 {value}"),
    "wait_p99": ("{subject}: jobs wait {value}, p99", "{subject}：等待时间 p99 为 {value}"),
    "run_p99": ("{subject}: attempts take {value}, p99", "{subject}：运行时间 p99 为 {value}"),
    "dead": ("{subject}: {value} dead jobs", "{subject}：{value} 个死信"),
    "consumer_down": ("{subject}: its consumer takes jobs again", "{subject}：消费者恢复接收任务"),
    "node_down": ("node {subject} is back", "节点 {subject} 已恢复联系"),
    "storage_down": ("storage {subject} answers again", "存储 {subject} 恢复应答"),
    "storage_full": ("storage {subject} is {value} full", "存储 {subject} 已用 {value}"),
    "storage_left": ("storage {subject} has room for {value}", "存储 {subject} 还可用 {value}"),
    "schedule_missed": ("schedule {subject} ran", "定时 {subject} 已执行"),
}
TEXTS: Mapping[str, tuple[str, str]] = {
    "alarm": ("Alarm", "告警"),
    "over": ("Over", "恢复"),
    "test": ("Test", "测试"),
    "many": ("{n} alarms: {first} …", "{n} 条告警：{first} ……"),
    "many_over": ("{n} alarms are over: {first} …", "{n} 条告警恢复：{first} ……"),
    "more": ("… and {n} more", "……还有 {n} 条"),
    "since": ("since {at}", "开始于 {at}"),
    "lasted": ("lasted {span}", "持续 {span}"),
    "system": ("system {system}", "系统 {system}"),
    "node": ("node {node}", "节点 {node}"),
    "tested": (
        "This is a test of the channel {channel}, sent by {who}. Nothing is wrong.",
        "这是 {who} 发起的通道 {channel} 测试，一切正常。",
    ),
    "none": ("nothing", "无"),
}
_UNITS = {"en": ("s", "min", "h", "d"), "zh": (" 秒", " 分钟", " 小时", " 天")}


def say(text: str, language: str, **facts: object) -> str:
    return TEXTS[text][LANGUAGES.index(language)].format(**facts)


def name(rule: str, language: str) -> str:
    return NAMES[rule][LANGUAGES.index(language)]


def line(rule: str, subject: str, value: float, threshold: float, language: str, over: bool = False) -> str:
    """One incident in a line; `over`: how it is now that it has ended."""
    unit = RULES[rule].unit
    facts = {"subject": subject, "value": measured(unit, value, language), "limit": measured(unit, threshold, language)}
    return (_OVER if over else _LINES)[rule][LANGUAGES.index(language)].format(**facts)


def measured(unit: str, value: float, language: str) -> str:
    """A measure as people read it."""
    match unit:
        case "count":
            return f"{value:,.0f}"
        case "share":
            return f"{value:.0%}" if value >= 0.1 or not value else f"{value:.1%}"
        case "state":
            return ""
        case _:
            return span(value, language)


def span(seconds: float, language: str) -> str:
    """A duration in one unit: `850 ms`, `45 s`, `12 min`, `9 h`, `3 d`."""
    second, minute, hour, day = _UNITS[language]
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for size, unit in ((86400.0, day), (3600.0, hour), (60.0, minute)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit.strip()}"
    return f"{seconds:.3g} {second.strip()}"


def moment(ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000))
