"""When a schedule fires, in words for people: English as cronsim explains it, Chinese by our own few rules.

Floor 1. Pure.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cronsim import CronSim

from pepperbus.config.timing import Timing

_DAYS = "日一二三四五六日"
_DAY_NAMES = {name: str(i) for i, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"))}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_MONTH_NAMES = {name: str(i) for i, name in enumerate(_MONTHS, 1)}


def words(timing: Timing, language: str = "en") -> str:
    """Such as `At 03:30 on Monday through Friday`; in `zh` `周一至周五 03:30`."""
    if timing.every_ms:
        return _every(timing.every_ms // 1000, language)
    if language == "zh":
        return _chinese(timing.fields.upper().split())
    return str(CronSim(timing.fields, datetime.now(UTC)).explain())


def _every(seconds: int, language: str) -> str:
    chinese = {"d": "天", "h": "小时", "min": "分钟", "s": "秒"}
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds % size == 0:
            n = seconds // size
            return f"每 {n} {chinese[unit]}" if language == "zh" else f"Every {n} {unit}"
    raise AssertionError(seconds)


def _chinese(fields: list[str]) -> str:
    second, minute, hour, day, month, weekday = ["0", *fields] if len(fields) == 5 else fields
    months = "" if month == "*" else f"{_items(month, _MONTH_NAMES.get)} 月"
    days, weekdays = _day(day, "" if months else "每月 "), _weekday(weekday)
    # Both must fit when one begins with a star, else either will do: a crontab's rule.
    either = days and weekdays and not (day.startswith("*") or weekday.startswith("*"))
    date = " ".join(part for part in (months, days) if part) + ("或" if either else "") + weekdays
    time = _time(second, minute, hour)
    if not date and "每" not in time:
        date = "每天"
    return f"{date} {time}" if date else time


def _day(field: str, before: str) -> str:
    if field == "*":
        return ""
    return before + {"L": "最后一天", "LW": "最后一个工作日"}.get(field, f"{_items(field)} 日")


def _weekday(field: str) -> str:
    if field == "*":
        return ""
    return "、".join(_one_weekday(part) for part in field.split(","))


def _one_weekday(part: str) -> str:
    if part.endswith("L"):
        return f"每月最后一个周{_name(part[:-1])}"
    if "#" in part:
        day, _, nth = part.partition("#")
        return f"每月第 {nth} 个周{_name(day)}"
    if "/" in part:
        return f"周{_items(part, _DAY_NAMES.get)}"
    low, dash, high = part.partition("-")
    return f"周{_name(low)}至周{_name(high)}" if dash else f"周{_name(low)}"


def _name(day: str) -> str:
    number = _DAY_NAMES.get(day, day)
    return _DAYS[int(number)] if number.isdigit() and int(number) < 8 else day


def _time(second: str, minute: str, hour: str) -> str:
    tail = "" if second == "0" else f"，{_unit(second, '秒')}"
    minutes, hours = minute.split(","), hour.split(",")
    if all(one.isdigit() for one in (*minutes, *hours)) and len(minutes) * len(hours) <= 6:
        return "、".join(f"{int(h):02}:{int(m):02}" for h in hours for m in minutes) + tail
    if hour != "*":
        return f"{_unit(hour, '点')}，{_unit(minute, '分')}{tail}"
    if minute == "*":
        return _unit(second, "秒") if tail else "每分钟"
    if minute == "0":
        return f"每小时整点{tail}"
    return f"{'' if minute.startswith('*') else '每小时'}{_unit(minute, '分')}{tail}"


def _unit(field: str, unit: str) -> str:
    every = {"分": "分钟", "点": "小时", "秒": "秒"}[unit]
    if field == "*":
        return f"每{every}"
    if field.startswith("*/"):
        return f"每 {field[2:]} {every}"
    return f"第 {_items(field)} {unit}"


def _items(field: str, known=lambda name: None) -> str:  # type: ignore[no-untyped-def]  # dict.get of names, or nothing
    return "、".join(_item(part, known) for part in field.split(","))


def _item(part: str, known) -> str:  # type: ignore[no-untyped-def]
    span, slash, step = part.partition("/")
    text = " 至 ".join(known(end) or end for end in span.split("-"))
    return f"{'' if text == '*' else text + ' '}每隔 {step}" if slash else text
