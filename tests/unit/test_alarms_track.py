"""Hysteresis against a naive model, limits as text, windows, the words: what of alarms is pure."""

from __future__ import annotations

import string
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pepperbus.alarms import words
from pepperbus.alarms.board import Board, Measure
from pepperbus.alarms.rules import RULES
from pepperbus.alarms.track import QUIET, Track, step
from pepperbus.alarms.window import Window
from pepperbus.config.alarm_settings import Limit
from pepperbus.config.limits import alarm, spell
from pepperbus.config.spec import schema
from pepperbus.stats import BUCKETS, COUNTERS, Histogram, Totals

values = st.one_of(st.none(), st.integers(0, 10).map(float))
passed = st.integers(0, 5).map(float)
looks = st.lists(st.tuples(values, passed), max_size=60)


@st.composite
def limits(draw: st.DrawFn) -> Limit:
    begin = draw(st.integers(1, 10))
    end = draw(st.integers(0, begin))
    return Limit(float(begin), float(draw(st.integers(0, 8))), float(end), float(draw(st.integers(0, 8))))


def run(limit: Limit, given_looks: list[tuple[float | None, float]], falls: bool = False) -> list[bool]:
    track, states = QUIET, []
    for value, seconds in given_looks:
        track = step(track, limit, value, seconds, falls=falls)
        states.append(track.is_open)
    return states


def model(limit: Limit, given_looks: list[tuple[float | None, float]]) -> list[bool]:
    """The whole past looked at anew each time, the slow way."""
    is_open, states = False, []
    run_of: list[float] = []  # what passed at each look of the unbroken run, the first counts nothing
    for value, seconds in given_looks:
        if value is not None:
            leans = value < limit.end if is_open else value >= limit.begin
            run_of = [*run_of, seconds] if leans else []
            if run_of and sum(run_of[1:]) >= (limit.end_for if is_open else limit.begin_for):
                is_open, run_of = not is_open, []
        states.append(is_open)
    return states


@given(limits(), looks)
def test_it_turns_exactly_when_the_model_does(limit: Limit, given_looks: list[tuple[float | None, float]]) -> None:
    assert run(limit, given_looks) == model(limit, given_looks)


@given(limits(), looks)
def test_what_falls_is_the_mirror_of_what_rises(limit: Limit, given_looks: list[tuple[float | None, float]]) -> None:
    mirrored = Limit(-limit.begin, limit.begin_for, -limit.end, limit.end_for)
    negative = [(None if value is None else -value, seconds) for value, seconds in given_looks]
    assert run(mirrored, negative, falls=True) == run(limit, given_looks)


@given(limits(), looks)
def test_between_two_turns_lies_at_least_the_time_asked_for(
    limit: Limit, given_looks: list[tuple[float | None, float]]
) -> None:
    states = run(limit, given_looks)
    turns = [i for i, (before, after) in enumerate(pairwise([False, *states])) if before != after]
    for earlier, later in pairwise(turns):
        wanted = limit.begin_for if states[later] else limit.end_for
        assert sum(seconds for _, seconds in given_looks[earlier + 1 : later + 1]) >= wanted


@given(limits(), st.builds(Track, st.booleans(), st.integers(-1, 5).map(float)), passed)
def test_the_unknown_changes_nothing(limit: Limit, track: Track, seconds: float) -> None:
    assert step(track, limit, None, seconds) == track


@given(limits(), looks, st.integers(0, 60))
def test_a_restart_in_between_changes_nothing(
    limit: Limit, given_looks: list[tuple[float | None, float]], at: int
) -> None:
    """The track is all there is to remember; what passed while nobody looked does not count."""
    track = QUIET
    states = []
    for number, (value, seconds) in enumerate(given_looks):
        if number == at:
            track = Track(*track)
        track = step(track, limit, value, seconds)
        states.append(track.is_open)
    assert states == run(limit, given_looks)


# -- limits as text ----------------------------------------------------------------------------------------------------

_times = st.integers(0, 86_400_000).map(lambda ms: ms / 1000)


@st.composite
def written(draw: st.DrawFn) -> tuple[str, Limit]:
    what = draw(st.sampled_from(["count", "time", "share", "left", "state"]))
    low, high = sorted((draw(st.integers(1, 9999)), draw(st.integers(1, 9999))))
    scale = {"share": 10_000, "time": 10, "left": 10}.get(what, 1)
    begin, end = (low, high) if what == "left" else (1, 1) if what == "state" else (high, low)
    return what, Limit(begin / scale, draw(_times), end / scale, draw(_times))


@given(written())
def test_what_is_spelled_reads_as_it_was(one: tuple[str, Limit]) -> None:
    what, limit = one
    text = spell(limit, what)
    for given_text in (text, text.split(",")):  # the configuration's syntax makes a list of commas
        assert _near(alarm(given_text, what), limit)


def _near(found: Limit | None, wanted: Limit) -> bool:
    names = ("begin", "begin_for", "end", "end_for")
    return found is not None and all(abs(getattr(found, n) - getattr(wanted, n)) < 1e-6 for n in names)


def test_the_short_forms() -> None:
    assert alarm("1000", "count") == Limit(1000, 0, 800, 0)
    assert alarm("10m for 1m", "time") == Limit(600, 60, 480, 60)
    assert alarm("20% end 10%", "share") == Limit(0.2, 0, 0.1, 0)
    assert alarm("3d for 1h", "left") == Limit(259_200, 3600, 324_000, 3600)
    assert alarm("1m, end 10s", "state") == Limit(1, 60, 1, 10)
    assert alarm("for 1m", "state") == Limit(1, 60, 1, 60)
    assert alarm("5 for 1m, end for 10s", "count") == Limit(5, 60, 4, 10)
    assert alarm("off", "count") == Limit(off=True)
    assert alarm("", "count") is None


@pytest.mark.parametrize("what", ["count", "time", "share", "left", "state"])
@given(text=st.text(alphabet=string.digits + string.ascii_lowercase + " %,.-", max_size=30))
def test_any_text_is_refused_or_means_what_it_is_spelled_as(what: str, text: str) -> None:
    try:
        found = alarm(text, what)
    except ValueError:
        return
    if found is not None and not found.off and found.begin_for < 1e6:
        again = alarm(spell(found, what), what)
        assert again is not None
        assert spell(again, what) == spell(found, what)


@pytest.mark.parametrize(
    ("text", "what", "said"),
    [
        ("5 end 9", "count", "wrong side"),
        ("3d end 1d", "left", "wrong side"),
        ("lots", "count", "10000 for 5m"),
        ("0%", "share", "20% for 2m"),
        ("200%", "share", "20% for 2m"),
        ("yes", "state", "such as"),
        ("end 5", "count", "10000 for 5m"),
        ("10 for ever", "count", "duration"),
    ],
)
def test_mistakes_say_what_would_be_right(text: str, what: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        alarm(text, what)


# -- the tables --------------------------------------------------------------------------------------------------------


def test_the_schema_has_every_rule_everywhere() -> None:
    node = schema()["node"].sections["alarms"]
    rules = node.sections["rules"].options
    assert list(rules) == list(RULES)
    for rule in RULES.values():
        assert rules[rule.name].check.startswith(f"alarm({rule.unit},"), rule.name
    own = [rule.name for rule in RULES.values() if rule.about in ("topic", "schedule")]
    inner = node.sections["systems"].any_section
    assert inner is not None
    assert sorted(inner.options) == sorted(schema()["topic"].sections["alarms"].options) == sorted(own)
    for name in own:
        assert schema()["topic"].sections["alarms"].options[name].check == f'alarm({RULES[name].unit}, default="")'


@pytest.mark.parametrize("language", words.LANGUAGES)
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_has_its_words(rule: str, language: str) -> None:
    for over in (False, True):
        text = words.line(rule, "orders/mail", 0.5, 0.25, language, over)
        assert "orders/mail" in text
        assert "{" not in text
        assert (language == "zh") == any("\u4e00" <= letter <= "\u9fff" for letter in text), text
    assert words.name(rule, language)


# -- board -------------------------------------------------------------------------------------------------------------

ALWAYS = Limit(10.0, 0.0, 5.0, 0.0)
KEY = ("backlog", "orders/mail")


def test_an_incident_is_one_from_its_beginning_to_its_end() -> None:
    board = Board("n", {}, [], 7)
    (begun,) = board.look({KEY: Measure(ALWAYS, 12.0, "shop")}, 1.0, 1000)
    assert (begun.id, begun.rule, begun.subject, begun.system, begun.began_ms, begun.value) == (
        8,
        *KEY,
        "shop",
        1000,
        12.0,
    )
    assert board.look({KEY: Measure(ALWAYS, 30.0, "shop")}, 1.0, 2000) == [begun]
    assert board.look({KEY: Measure(ALWAYS, 30.0, "shop")}, 1.0, 3000) == [], "nothing new to write down"
    assert board.look({KEY: Measure(ALWAYS, None)}, 1.0, 4000) == []
    assert board.look({KEY: Measure(ALWAYS, 7.0)}, 1.0, 5000) == [begun], "above the second threshold"
    (over,) = board.look({KEY: Measure(ALWAYS, 4.0)}, 1.0, 6000)
    assert (over.id, over.ended_ms, over.worst, over.value) == (8, 6000, 30.0, 4.0)
    assert board.tracks == board.open == {}


def test_what_is_watched_no_more_is_over() -> None:
    board = Board("n", {}, [], 0)
    board.look({KEY: Measure(ALWAYS, 12.0)}, 1.0, 1000)
    (over,) = board.look({}, 1.0, 2000)
    assert (over.ended_ms, board.tracks) == (2000, {})


def test_too_little_begins_nothing_but_ends_what_is_open() -> None:
    key, limit = ("failures", "orders/mail"), Limit(0.25, 0.0, 0.2, 0.0)
    board = Board("n", {}, [], 0)
    assert board.look({key: Measure(limit, 1.0, firm=False)}, 1.0, 1) == []
    assert len(board.look({key: Measure(limit, 1.0)}, 1.0, 2)) == 1
    (over,) = board.look({key: Measure(limit, 0.0, firm=False)}, 1.0, 3)
    assert over.ended_ms == 3


# -- window -------------------------------------------------------------------------------------------------


def counted(done: int, failed: int) -> list[int]:
    words_ = [0] * len(COUNTERS)
    words_[COUNTERS.index("done")], words_[COUNTERS.index("failed")] = done, failed
    return words_


def test_a_window_forgets_and_says_when_it_reaches_back_far_enough() -> None:
    window = Window(60.0)
    window.add(0.0, {"q/t": counted(1000, 1000)}, {})
    assert (window.attempts("q/t"), window.is_whole(59.0)) == ((0, 0), False), "what was before is not ours to date"
    window.add(10.0, {"q/t": counted(1003, 1001)}, {})
    window.add(20.0, {"q/t": counted(1003, 1001), "q/new": counted(2, 2)}, {})
    assert (window.attempts("q/t"), window.attempts("q/new"), window.attempts("none")) == ((4, 1), (4, 2), (0, 0))
    window.add(75.0, {"q/t": counted(1003, 1001)}, {})
    assert (window.attempts("q/t"), window.attempts("q/new"), window.is_whole(75.0)) == ((0, 0), (4, 2), True)


def test_percentiles_are_those_of_the_window() -> None:
    window = Window(60.0)

    def timed(slow: int, quick: int) -> Totals:
        """So many in a slow bucket, and in one of 6 ms."""
        buckets = [0] * BUCKETS
        buckets[200], buckets[100] = slow, quick
        totals = Totals()
        totals.histograms["wait"] = Histogram(buckets, slow + quick)
        return totals

    window.add(0.0, {"q/t": counted(5, 0)}, {"q/t": timed(100, 0)})
    window.add(10.0, {"q/t": counted(15, 0)}, {"q/t": timed(100, 0)})
    assert window.percentile("q/t", "wait", 0.99) == (0.0, 0)
    window.add(20.0, {"q/t": counted(25, 0)}, {"q/t": timed(100, 10)})
    seconds, n = window.percentile("q/t", "wait", 0.99)
    assert n == 10
    assert 0.005 < seconds < 0.008
