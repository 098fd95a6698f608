"""Schedules: when they fire, what is decided of each firing, and that of several nodes one pushes it."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest

from pepperbus.child import Child
from pepperbus.clock import ManualClock
from pepperbus.config.load import load
from pepperbus.config.notes import notes
from pepperbus.config.timing import Schedule, Timing, checked
from pepperbus.config.timing_words import words
from pepperbus.errors import ConfigError
from pepperbus.job import Job, State
from pepperbus.log import Log
from pepperbus.names import owner_name
from pepperbus.schedule import state as record
from pepperbus.storage import drains
from pepperbus.storage.contract import Outcome, Settle
from pepperbus.storage.memory import MemoryStorage
from pepperbus.ticker.maker import Maker
from pepperbus.ticker.schedules import Schedules
from tests.contract.flaky import FlakyStorage, lose_answer, lose_question, refuse

MINUTE = 60_000


def ms(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def fires(expression: str, zone: str, start: str, n: int) -> list[str]:
    found = Timing(expression, zone).after(ms(start, zone))
    return [datetime.fromtimestamp(next(found) / 1000, ZoneInfo(zone)).isoformat() for _ in range(n)]


# -- when --------------------------------------------------------------------------------------------------------------


def test_fields_are_those_of_a_crontab_in_their_zone() -> None:
    assert fires("30 3 * * 1-5", "Asia/Shanghai", "2026-11-20T03:30", 2) == [
        "2026-11-23T03:30:00+08:00",
        "2026-11-24T03:30:00+08:00",
    ]
    assert fires("@daily", "UTC", "2026-01-31T00:00", 1) == ["2026-02-01T00:00:00+00:00"]
    assert fires("*/20 * * * * *", "UTC", "2026-01-01T00:00:41", 1) == ["2026-01-01T00:01:00+00:00"]


def test_daylight_saving_loses_and_doubles_nothing() -> None:
    assert fires("30 2 * * *", "Europe/Berlin", "2026-03-28T03:00", 2) == [
        "2026-03-29T03:00:00+02:00",  # 02:30 does not exist on this day
        "2026-03-30T02:30:00+02:00",
    ]
    assert fires("30 2 * * *", "Europe/Berlin", "2026-10-24T03:00", 2) == [
        "2026-10-25T02:30:00+02:00",  # and once where it comes twice
        "2026-10-26T02:30:00+01:00",
    ]


def test_every_is_counted_alike_on_all_nodes() -> None:
    found = Timing("@every 90s").after(ms("2026-01-01T00:00:01"))
    assert [next(found) % 90_000 for _ in range(3)] == [0, 0, 0]
    assert Timing("@every 1h30m").every_ms == 5_400_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("61 * * * *", "the minute is wrong; allowed: 0-59"),
        ("* * *", "3 fields; five are wanted"),
        ("0 0 31 2 *", "one that the month has"),
        ("@nightly", "@nightly is not known"),
        ("@every 5", "such as @every 90s"),
        ("@every 0s", "from 1s"),
    ],
)
def test_an_expression_that_cannot_be_is_refused_with_what_would_be_right(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", "\\(")):
        checked(text)


# -- a queue file ------------------------------------------------------------------------------------------------------

NODE = (
    "queue_files = q/*.conf\n[bus]\nnode = {node}\ndata_dir = {node}/data\nrun_dir = {node}/run\n"
    "[storages]\n[[local]]\ntype = embedded\n{more}"
)
QUEUE = "password = x\ndurability = memory\n{keys}[topics]\n[[mail]]\nrun = http\nurl = http://127.0.0.1:1/\n[schedule]\n[[tick]]\n{tick}\n"


def configured(where: Path, tick: str, node: str = "a", keys: str = "", more: str = "", queue: str = QUEUE):
    (where / "q").mkdir(exist_ok=True)
    for part in ("data/journal", "run/stats"):
        (where / node / part).mkdir(parents=True, exist_ok=True)
    (where / "q" / "orders.conf").write_text(queue.format(tick=tick, keys=keys))
    (where / f"{node}.conf").write_text(NODE.format(node=node, more=more))
    return load(where / f"{node}.conf", {})


def test_a_crontabs_commas_need_no_quotes(tmp_path: Path) -> None:
    config = configured(tmp_path, 'expression = 0 9,17 * * 1,3\nzone = Asia/Shanghai\npayload = \'{"a": 1, "b": 2}\'')
    tick = config.queues["orders"].schedule["tick"]
    assert tick == Schedule("orders", "tick", Timing("0 9,17 * * 1,3", "Asia/Shanghai"), '{"a": 1, "b": 2}')


@pytest.mark.parametrize(
    ("tick", "said"),
    [
        ("payload = x", "expression is missing"),
        ("expression = 99 * * * *", "the minute is wrong"),
        ("expression = @daily\nzone = Berlin", "no time zone 'Berlin'"),
        ("expression = @daily\ngap = 5s", "it needs times = 2 or more"),
        ("expression = @daily\noverlap = skip\ncatch_up = all", "choose one"),
        ("expression = @daily\ncatchup = all", "did you mean catch_up"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, tick: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as found:
        configured(tmp_path, tick)
    assert "orders.conf" in str(found.value)


# -- firing ------------------------------------------------------------------------------------------------------------


class Node:
    """One node's schedules, looked at when a test says so."""

    def __init__(self, where: Path, name: str, storages, clock: ManualClock, tick: str, **more: str) -> None:
        self.config = configured(where, tick, name, **more)
        child = Child("ticker", "ticker", 0, "", "b", "b", owner_name(name, "ticker", "b"), self.config, Log("t", "-"))
        self.maker = Maker(child, clock)
        self.schedules = Schedules(child, self.maker, clock, storages, lambda: self.config)
        self.look = self.schedules.look


class Stage:
    """Two nodes on one storage. Begins on the half minute, a schedule a minute."""

    def __init__(self, where: Path, tick: str = "expression = * * * * *", **more: str) -> None:
        self.clock = ManualClock(ms("2026-01-01T00:00:30"))
        self.storage = MemoryStorage(configured(where, tick, **more).storages["local"], self.clock)
        self.flaky = FlakyStorage(self.storage)
        self.nodes = [Node(where, name, {"local": self.flaky}, self.clock, tick, **more) for name in ("a", "b")]
        self.finished: list[int] = []
        self.look()

    def look(self, seconds: float = 0.0) -> list[str]:
        """Time passes, then all nodes look. What was decided meanwhile, oldest first."""
        before = self.state.runs
        self.clock.advance(seconds)
        for node in self.nodes:
            node.look()
        return [run.what for run in reversed(self.state.runs) if run not in before]

    @property
    def state(self) -> record.State:
        return record.read(self.storage.recall("schedule/orders/tick"))

    def jobs(self, state: State = State.READY):
        return self.storage.peek("orders/mail", state, n=1000).jobs

    def finish(self) -> None:
        leased = self.storage.lease("orders/mail", 1000, "a/w/1")
        self.storage.settle("a/w/1", [Settle("orders/mail", one.job_id, Outcome.DONE) for one in leased])
        self.finished += [one.job_id for one in leased]

    @property
    def pushed(self) -> int:
        """How many jobs there ever were; one that came twice counts twice."""
        return len(self.finished) + len(self.jobs())


def test_a_drain_takes_the_record_along(tmp_path: Path) -> None:
    """The first firing in the new storage is not lost, and who was paused stays so; going back doubles nothing."""
    stage = Stage(tmp_path)
    other = MemoryStorage(stage.nodes[0].config.storages["local"], stage.clock)
    (node,) = stage.nodes = stage.nodes[:1]
    node.schedules._storages = {"local": stage.storage, "other": other}
    assert stage.look(60) == ["pushed"]

    def move(source: str, target: str) -> None:
        queue = node.config.queues["orders"]
        topics = {name: replace(topic, storage=target) for name, topic in queue.topics.items()}
        moved = [drains.Drain(topic.full_name, source, target, 1) for topic in queue.topics.values()]
        drains.update(node.config.bus.data_dir, lambda known: known.update({one.topic: one for one in moved}))
        node.config = replace(node.config, queues={"orders": replace(queue, topics=topics)})

    move("local", "other")
    stage.look(60)
    text = other.recall("schedule/orders/tick")
    state = record.read(text)
    assert [run.what for run in state.runs] == ["pushed", "pushed"]
    assert stage.storage.recall("schedule/orders/tick") == ""
    state.paused = "ann"
    other.swap("schedule/orders/tick", text, msgspec.json.encode(state).decode())
    move("other", "local")
    assert stage.look(60) == ["pushed", "pushed", "paused"]
    assert stage.state.paused == "ann"


def test_of_two_nodes_one_pushes_each_firing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "expression = * * * * *\npayload = hello")
    assert stage.look(29) == []
    for n in range(1, 6):
        assert stage.look(60) == ["pushed"]
        assert len(stage.jobs()) == n
    job = Job.decode(stage.jobs()[0].body)
    assert (job.content, job.client) == (b"hello", "schedule:tick")
    assert stage.state.last_ids == [stage.jobs()[-1].job_id]


@pytest.mark.parametrize("fault", [lose_question, lose_answer])
def test_an_answer_that_is_lost_neither_loses_nor_doubles(tmp_path: Path, fault) -> None:
    stage = Stage(tmp_path)
    stage.flaky.fail("swap", 1, fault)
    stage.look(31)
    stage.look(1)
    stage.look(1)
    assert len(stage.jobs()) == 1


def test_a_new_schedule_has_missed_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "expression = @yearly\ncatch_up = all")
    assert stage.look(40 * 86400) == []


@pytest.mark.parametrize(
    ("catch_up", "decided", "jobs"),
    [("skip", ["missed", "pushed"], 1), ("once", ["missed", "pushed"], 1), ("all", ["late"] * 9 + ["pushed"], 10)],
)
def test_what_was_missed_is_made_up_for_as_asked(tmp_path: Path, catch_up: str, decided: list[str], jobs: int) -> None:
    stage = Stage(tmp_path, f"expression = * * * * *\ncatch_up = {catch_up}")
    assert stage.look(600) == decided
    assert len(stage.jobs()) == jobs
    assert stage.look(30) == ["pushed"]


def test_catch_up_once_runs_the_last_of_them(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "expression = @hourly\ncatch_up = once")
    assert stage.look(5.5 * 3600) == ["missed", "late"]
    assert stage.state.runs[0].slot == ms("2026-01-01T05:00")
    assert [run.count for run in stage.state.runs] == [1, 4]


def test_a_long_absence_is_worked_off_in_portions(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "expression = * * * * *\ncatch_up = once")
    stage.clock.advance(7000 * 60 + 89)
    for _ in range(4):
        stage.look()
    assert [(run.what, run.count) for run in stage.state.runs] == [("pushed", 1), ("missed", 7000)]
    assert len(stage.jobs()) == 1


def test_alarms_hear_how_late_a_run_is(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "expression = @hourly")
    node = stage.nodes[0].schedules
    fresh = Node(tmp_path, "c", {}, stage.clock, "expression = @hourly").schedules
    fresh.look()
    assert fresh.late() == {}, "a storage that is not open yet says nothing"
    assert stage.look(3600) == ["pushed"]
    assert node.late() == {"orders/tick": 0.0}
    stage.clock.advance(5400)
    assert node.late()["orders/tick"] == 1830.0  # due, and nobody has looked
    assert stage.look() == ["missed"]
    assert node.late()["orders/tick"] == 1830.0
    stage.clock.advance(1770)
    assert stage.look() == ["pushed"]
    assert node.late() == {"orders/tick": 0.0}


def test_overlap_skip_waits_for_the_job_before(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "expression = * * * * *\noverlap = skip")
    assert stage.look(60) == ["pushed"]
    assert stage.look(60) == ["overlap"]
    (leased,) = stage.storage.lease("orders/mail", 9, "a/w/1")
    assert stage.look(60) == ["overlap"]
    stage.storage.settle("a/w/1", [Settle("orders/mail", leased.job_id, Outcome.DEAD, reason="no")])
    assert stage.look(60) == ["pushed"]  # dead is finished
    stage.finish()
    assert stage.look(60) == ["pushed"]


def test_paused_firings_are_decided_and_not_made_up_for(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "expression = * * * * *\ncatch_up = all")
    tick = stage.nodes[0].config.queues["orders"].schedule["tick"]

    def pause(who: str) -> None:
        def act(state: record.State):
            state.paused = who
            return ()

        record.change(stage.storage, tick, act)

    pause("anna")
    assert stage.look(60) == ["paused"]
    stage.look(180)
    assert stage.state.runs[0].count == 4
    pause("")
    assert stage.look(60) == ["pushed"]
    assert len(stage.jobs()) == 1


def test_several_jobs_with_a_gap(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "expression = * * * * *\ntimes = 3\ngap = 10s")
    assert stage.look(30) == ["pushed"]
    assert len(stage.jobs()) == 1
    assert [job.due_ms - stage.state.runs[0].slot for job in stage.jobs(State.DELAYED)] == [10_000, 20_000]
    assert len(stage.state.runs[0].ids) == 3


def test_jitter_is_a_job_for_later(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "expression = * * * * *\njitter = 1h")
    stage.look(30)
    (job,) = stage.jobs(State.DELAYED)
    assert 0 < job.due_ms - stage.state.runs[0].slot <= 3_600_000


def test_a_full_queue_is_said(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "expression = * * * * *", keys="max_length = 1\n")
    assert stage.look(60) == ["pushed"]
    assert stage.look(60) == ["full"]


def test_a_changed_expression_has_missed_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "expression = @yearly\ncatch_up = all")
    stage.clock.advance(3600)
    for name in ("a", "b"):
        stage.nodes["ab".index(name)].config = configured(tmp_path, "expression = * * * * *\ncatch_up = all", name)
    assert stage.look() == []
    assert stage.look(60) == ["pushed"]


def test_topics_in_two_storages_get_the_same_jobs(tmp_path: Path) -> None:
    two = QUEUE.replace("run = http", "storage = local\nrun = http").replace(
        "[schedule]", "[[stock]]\nstorage = far\nrun = http\nurl = http://127.0.0.1:1/\n[schedule]"
    )
    more = {"more": "[[far]]\ntype = embedded\n", "queue": two}
    clock = ManualClock(ms("2026-01-01T00:00:30"))
    tick = "expression = * * * * *"
    config = configured(tmp_path, tick, **more)
    near, far = (MemoryStorage(config.storages[name], clock) for name in ("local", "far"))
    broken = FlakyStorage(far)
    node = Node(tmp_path, "a", {"local": near, "far": broken}, clock, tick, **more)
    node.look()
    for minute in range(4):
        clock.advance(60)
        if minute == 2:
            broken.fail("swap", 1)  # the second storage is away for a moment: it gets the job later
        node.look()
    node.look()
    ids = [
        [job.job_id for job in one.peek(topic, State.READY).jobs]
        for one, topic in ((near, "orders/mail"), (far, "orders/stock"))
    ]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 4


def test_what_is_made_up_for_reaches_both_storages(tmp_path: Path) -> None:
    """More firings at once than a record remembers: the second storage knows them from there."""
    two = QUEUE.replace("run = http", "storage = local\nrun = http").replace(
        "[schedule]", "[[stock]]\nstorage = far\nrun = http\nurl = http://127.0.0.1:1/\n[schedule]"
    )
    more = {"more": "[[far]]\ntype = embedded\n", "queue": two}
    clock = ManualClock(ms("2026-01-01T00:00:30"))
    tick = "expression = * * * * *\ncatch_up = all"
    config = configured(tmp_path, tick, **more)
    near, far = (MemoryStorage(config.storages[name], clock) for name in ("local", "far"))
    node = Node(tmp_path, "a", {"local": near, "far": far}, clock, tick, **more)
    node.look()
    clock.advance(50 * 60)
    for _ in range(5):
        node.look()
    assert (near.depth("orders/mail").ready, far.depth("orders/stock").ready) == (50, 50)


def test_a_second_storage_that_is_away_for_long_gets_every_firing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also over a restart of the bus, and while the first storage's topics go on; what cannot be kept is said."""
    two = QUEUE.replace("run = http", "storage = local\nrun = http").replace(
        "[schedule]", "[[stock]]\nstorage = far\nrun = http\nurl = http://127.0.0.1:1/\n[schedule]"
    )
    more = {"more": "[[far]]\ntype = embedded\n", "queue": two}
    clock = ManualClock(ms("2026-01-01T00:00:30"))
    tick = "expression = * * * * *"
    config = configured(tmp_path, tick, **more)
    near, far = (MemoryStorage(config.storages[name], clock) for name in ("local", "far"))
    broken = FlakyStorage(far)

    def node() -> Node:
        return Node(tmp_path, "a", {"local": near, "far": broken}, clock, tick, **more)

    def pass_by(minutes: int) -> None:
        for _ in range(minutes):
            clock.advance(60)
            living.look()

    def ready() -> tuple[int, int]:
        return near.depth("orders/mail").ready, far.depth("orders/stock").ready

    def runs() -> int:
        return len(record.read(near.recall("schedule/orders/tick")).runs)

    living = node()
    living.look()
    pass_by(3)
    broken.fail_all("recall")
    pass_by(40)
    assert ready() == (43, 3), "the first storage's topics go on"
    living.maker.close()
    living = node()
    pass_by(40)
    assert "firings_lost" not in capfd.readouterr().err
    broken.fail_all("recall", None)
    pass_by(1)
    assert ready() == (84, 84)
    pass_by(1)
    assert runs() == record.KEPT, "nothing more than people want to see is kept"
    monkeypatch.setattr(record, "MOST_BEHIND", 30)
    broken.fail_all("recall")
    pass_by(50)
    assert "firings_lost" in capfd.readouterr().err
    broken.fail_all("recall", None)
    living.look()
    near_ids, far_ids = ready()
    assert near_ids == 135
    assert far_ids == 85 + 30


# -- words -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "english", "chinese"),
    [
        ("30 3 * * 1-5", "At 03:30 on Monday through Friday", "周一至周五 03:30"),
        ("*/5 * * * *", "Every fifth minute of every hour", "每 5 分钟"),
        ("@daily", "At 00:00 every day", "每天 00:00"),
        ("@every 90s", "Every 90 s", "每 90 秒"),
        ("@every 2h", "Every 2 h", "每 2 小时"),
        ("0 9,17 * * MON#1", "At 09:00 and 17:00 on the first Monday of the month", "每月第 1 个周一 09:00、17:00"),
        ("0 0 13 * 5", "At 00:00 on the 13th day of month and on Friday", "每月 13 日或周五 00:00"),
    ],
)
def test_an_expression_in_words(expression: str, english: str, chinese: str) -> None:
    timing = Timing(checked(expression))
    assert (words(timing), words(timing, "zh")) == (english, chinese)


def test_check_says_when_it_fires_next(tmp_path: Path) -> None:
    config = configured(tmp_path, "expression = 30 3 * * 1-5\nzone = Asia/Shanghai")
    found = [note for note in notes(config, ms("2026-11-20T00:00")) if "tick" in note]
    assert found == [
        "orders/tick: At 03:30 on Monday through Friday, Asia/Shanghai; next"
        " 2026-11-23 03:30:00, 2026-11-24 03:30:00, 2026-11-25 03:30:00"
    ]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_lost_and_whoever_sleeps_every_minute_is_pushed_once(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    stage = Stage(tmp_path, "expression = * * * * *\ncatch_up = all")
    began = stage.clock.now_ms()
    for _ in range(150):
        stage.clock.advance(chance.choice([0.3, 2.0, 20.0, 61.0, 400.0]))
        if chance.random() < 0.3:
            stage.flaky.fail(chance.choice(["swap", "recall"]), 1, chance.choice([lose_answer, lose_question, refuse]))
        for node in chance.sample(stage.nodes, chance.randint(0, 2)):
            node.look()
        if chance.random() < 0.2:
            stage.finish()
    stage.look(1)
    stage.look(1)
    minutes = (stage.clock.now_ms() // MINUTE) - began // MINUTE
    assert stage.pushed == minutes
