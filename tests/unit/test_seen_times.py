"""Times and what is left to do, as a page says them."""

from __future__ import annotations

import pytest
from flask import Flask, g

from pepperbus.operations.results import TopicStatus
from pepperbus.web import words
from pepperbus.web.topics import clear_s

NEVER = float("inf")


@pytest.mark.parametrize(
    ("seconds", "english", "chinese"),
    [
        (0.02, "20 ms", "20 ms"),
        (51, "51 s", "51 秒"),
        (3600, "60 min", "60 分钟"),
        (259_200, "3 d", "3 天"),
        (0, "–", "–"),
    ],
)
def test_a_time_has_its_unit_in_the_visitors_language(seconds: float, english: str, chinese: str) -> None:
    for language, text in (("en", english), ("zh", chinese)):
        with Flask(__name__).app_context():
            g.language = language
            assert words.span(seconds) == text


def test_what_is_asked_for_has_it_too() -> None:
    with Flask(__name__).app_context():
        g.language = "zh"
        assert [words.timed(text) for text in ("5 min", "24 h", "last")] == ["5 分钟", "24 小时", "last"]


@pytest.mark.parametrize(
    ("ready", "in_rate", "out_rate", "left"),
    [
        (0, 5.0, 0.0, 0.0),
        (3, 2.0, 2.0, 1.5),  # three that came this moment are no backlog
        (100, 1.0, 3.0, 50.0),
        (100, 3.0, 3.0, NEVER),
        (1, 0.0, 0.0, NEVER),
    ],
)
def test_until_it_is_empty(ready: int, in_rate: float, out_rate: float, left: float) -> None:
    topic = TopicStatus(
        "orders/mail", "local", "", "", "feeding", False, ready=ready, in_rate=in_rate, out_rate=out_rate
    )
    assert clear_s(topic) == left
