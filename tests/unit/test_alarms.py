"""Alarms of the ticker, on a storage in memory and a clock of the tests': who is told what, when, by which node; channels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
import pytest

from pepperbus.alarms import channels, mail, message
from pepperbus.alarms.board import Incident
from pepperbus.alarms.message import MOST_LINES, Message
from pepperbus.alarms.store import Silence, Store, Waiting
from pepperbus.child import Child
from pepperbus.clock import ManualClock
from pepperbus.config.alarm_settings import Alarms as Settings
from pepperbus.config.alarm_settings import Channel
from pepperbus.config.load import load
from pepperbus.config.model import Config, Http
from pepperbus.config.secret import Secret
from pepperbus.errors import ConfigError, PepperbusError, StorageUnavailable
from pepperbus.job import Job
from pepperbus.journal import growth
from pepperbus.log import Log
from pepperbus.stats import Writer
from pepperbus.storage.contract import Health, Outcome, Push, Settle
from pepperbus.storage.memory import MemoryStorage
from pepperbus.ticker.alarms import Alarms
from tests.fixtures.http import answering, raw_server

NODE = """\
queue_files = queues.d/*.conf
[bus]
    node = {node}
    shard = {shard}
    data_dir = {node}/data
    run_dir = {node}/run
[storages]
    [[local]]
        type = embedded
[alarms]
    every = 1s
    gather = 5s
    [[channels]]
        [[[ops]]]
            url = http://127.0.0.1:9/
        [[[shop]]]
            url = http://127.0.0.1:9/
            systems = shop
            rules = backlog
            language = zh
    [[rules]]
        backlog = 10 for 5s, end 5 for 3s
        oldest = off
        dead = off
        consumer_down = 2s
        node_down = 2s
        storage_down = 2s
        storage_left = 3d
    [[systems]]
        [[[bank]]]
            backlog = 3
"""
QUEUE = """\
open = loopback
system = {system}
run = http
url = http://127.0.0.1:9/
[topics]
{topics}
"""


class Stage:
    """One storage and any number of nodes that share it."""

    def __init__(self, directory: Path, topics: int = 1, node: str = NODE) -> None:
        self.directory, self._node = directory, node
        (directory / "queues.d").mkdir()
        self.queue("orders", "shop", "".join(f"    [[t{i}]]\n" for i in range(topics)))
        self.clock = ManualClock()
        self.shared: MemoryStorage | None = None
        self.job_id = 1 << 63
        self.nodes: dict[str, Alarms] = {}

    def queue(self, name: str, system: str, topics: str) -> None:
        text = QUEUE.replace("{system}", system).replace("{topics}", topics)
        (self.directory / "queues.d" / f"{name}.conf").write_text(text)

    def load(self, name: str) -> Config:
        shard = str(2 + len(self.nodes))
        file = self.directory / f"{name}.conf"
        file.write_text(self._node.replace("{node}", name).replace("{shard}", shard))
        (self.directory / name / "data").mkdir(parents=True, exist_ok=True)
        return load(file, {})

    def start(self, name: str = "a") -> Alarms:
        config = self.load(name)
        if self.shared is None:
            self.shared = MemoryStorage(config.storages["local"], self.clock)
        log = Log("ticker", str(self.directory / name / "log"))
        child = Child("ticker", "ticker", 0, "", "b", "b", f"{name}/ticker/b", config, log)
        made = self.nodes[name] = Alarms(child, self.clock, lambda: config, {"local": self.shared}, dict)
        made._resume()
        self.shared.heartbeat(name)
        return made

    @property
    def storage(self) -> MemoryStorage:
        assert self.shared is not None
        return self.shared

    def push(self, n: int, topic: str = "orders/t0") -> None:
        for _ in range(n):
            self.job_id += 1
            body = Job(self.job_id, "t", b"x", self.clock.now_ms()).encode()
            self.storage.push([Push(self.job_id, body, (topic,))])

    def drain(self, n: int, topic: str = "orders/t0") -> None:
        leased = self.storage.lease(topic, n, "a/w/b")
        self.storage.settle("a/w/b", [Settle(one.topic, one.job_id, Outcome.DONE) for one in leased])

    def look(self, seconds: int, *silent: str) -> None:
        """Every node looks once a second; those that are `silent` do not."""
        for _ in range(seconds):
            self.clock.advance(1)
            for name, node in self.nodes.items():
                if name not in silent:
                    self.storage.heartbeat(name)
                    node._look()

    def told(self, name: str = "a") -> list[Waiting]:
        """What lies there to be sent, oldest first; nobody sends here."""
        return Store(self.directory / name / "data").waiting()

    def kinds(self, name: str = "a", channel: str = "ops") -> list[str]:
        return [one.message.kind for one in self.told(name) if one.channel == channel]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_one_message_when_it_begins_and_one_when_it_is_over(stage: Stage) -> None:
    stage.start()
    stage.push(12)
    stage.look(5)
    assert stage.told() == [], "it has to hold for five seconds"
    stage.look(1)
    assert stage.told() == [], "gathered for five more"
    stage.look(6)
    assert [(one.channel, one.message.title) for one in stage.told()] == [
        ("ops", "Alarm: orders/t0: 12 jobs wait (limit 10)"),
        ("shop", "告警: orders/t0：12 个任务在等待（阈值 10）"),
    ]
    stage.push(90)
    stage.look(60)
    assert stage.kinds() == ["begin"], "no repeat while it goes on"
    stage.drain(100)
    stage.look(20)
    assert stage.kinds() == ["begin", "end"]
    ended = stage.told()[-2].message
    assert ended.title == "Over: orders/t0: 2 jobs wait"
    assert (ended.incidents[0].worst, ended.incidents[0].ended_ms > 0) == (102.0, True)
    stage.look(60)
    assert stage.kinds() == ["begin", "end"]


def test_what_swings_between_the_thresholds_is_one_incident(stage: Stage) -> None:
    stage.start()
    stage.push(12)
    stage.look(20)
    for _ in range(5):
        stage.drain(5)
        stage.look(10)
        stage.push(5)
        stage.look(10)
    assert stage.kinds() == ["begin"]


def test_what_ends_before_anybody_was_told_is_only_remembered(stage: Stage) -> None:
    stage.start()
    stage.push(12)
    stage.look(6)
    stage.drain(12)
    stage.look(30)
    assert stage.told() == []
    (past,) = Store(stage.directory / "a/data").history(0, 10)
    assert (past.rule, past.closed, past.told_ms, past.ended_ms > past.began_ms) == ("backlog", True, 0, True)


def test_a_restart_at_any_moment_neither_repeats_nor_forgets(stage: Stage) -> None:
    stage.start()
    stage.push(12)
    for _ in range(16):
        stage.look(2)
        stage.start()  # as after a kill -9: only the file is left; what passed meanwhile does not count
    assert stage.kinds() == ["begin"]
    stage.drain(12)
    for _ in range(16):
        stage.look(2)
        stage.start()
    assert stage.kinds() == ["begin", "end"]


def test_a_flood_is_one_message(tmp_path: Path) -> None:
    stage = Stage(tmp_path, topics=200)
    stage.start()
    for i in range(200):
        stage.push(11, f"orders/t{i}")
    stage.look(20)
    assert stage.kinds() == ["begin"]
    told = stage.told()[0].message
    assert told.title == "Alarm: 200 alarms: orders/t0 …"
    assert len(told.incidents) == 200
    assert len(told.text.splitlines()) < MOST_LINES + 5
    assert "… and 180 more" in told.text
    for i in range(200):
        stage.drain(11, f"orders/t{i}")
    stage.look(20)
    assert stage.kinds() == ["begin", "end"]


def test_a_flood_that_trickles_is_gathered_for_longer(tmp_path: Path) -> None:
    stage = Stage(tmp_path, topics=20)
    stage.start()
    for i in range(20):
        stage.push(11, f"orders/t{i}")
        stage.look(12)
    assert len(stage.kinds()) == 10
    stage.clock.advance(600)
    stage.look(1)
    assert len(stage.kinds()) == 11
    told = [line.subject for one in stage.told() if one.channel == "ops" for line in one.message.incidents]
    assert sorted(told) == sorted(f"orders/t{i}" for i in range(20)), "every one of them, once"


def test_a_silence_keeps_it_back_and_lets_it_go_when_it_is_over(stage: Stage) -> None:
    stage.start()
    store = Store(stage.directory / "a/data")
    made = store.silence(Silence(0, "backlog", "orders", stage.clock.now_ms() + 60_000, "anna", "import"))
    stage.push(12)
    stage.look(30)
    assert stage.told() == []
    stage.look(40)
    assert stage.kinds() == ["begin"], "the silence is over and it still is so"
    store.silence(Silence(0, "", "", stage.clock.now_ms() + 600_000, "anna"))
    stage.drain(12)
    stage.look(30)
    assert stage.kinds() == ["begin"], "its end is silent too"
    store.end_silence(made.id, stage.clock.now_ms())
    stage.look(30)
    assert stage.kinds() == ["begin"]


@pytest.mark.parametrize(
    ("rule", "subject", "covered"),
    [
        ("", "", True),
        ("backlog", "", True),
        ("dead", "", False),
        ("", "orders", True),
        ("", "orders/t0", True),
        ("", "orders/t", False),
        ("", "order", False),
        ("dead", "orders/t0", False),
    ],
)
def test_what_a_silence_covers(rule: str, subject: str, covered: bool) -> None:
    assert Silence(1, rule, subject, 1, "anna").covers("backlog", "orders/t0") == covered


def test_a_systems_limit_and_a_topics_own(stage: Stage) -> None:
    stage.queue("money", "bank", "    [[in]]\n    [[out]]\n        [[[alarms]]]\n            backlog = off\n")
    stage.start()
    stage.push(3, "money/in")
    stage.push(30, "money/out")
    stage.look(20)
    assert [line.subject for line in stage.told()[0].message.incidents] == ["money/in"]
    assert [one.channel for one in stage.told()] == ["ops"], "the other one wants only what concerns the shop"


def test_a_storage_that_is_away_makes_no_topic_look_well(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.start()
    stage.push(12)
    stage.look(20)

    def away(topic: str) -> Any:
        raise StorageUnavailable("away")

    monkeypatch.setattr(stage.storage, "depths", away)
    monkeypatch.setattr(stage.storage, "health", lambda: Health(False, "", "", 0, 0, "connection refused"))
    stage.look(30)
    assert stage.kinds() == ["begin", "begin"]
    down = stage.told()[-1].message
    assert (down.incidents[0].rule, down.incidents[0].subject) == ("storage_down", "local")
    assert "connection refused" in down.text
    monkeypatch.undo()
    stage.look(30)
    assert stage.kinds() == ["begin", "begin", "end"], "the storage is back, the backlog never went"


def test_a_storage_that_will_soon_be_full(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It grew by 100 bytes an hour and has room for 1,000: full in ten hours. Then somebody makes room."""
    stage.start()
    now_ms = stage.clock.now_ms()
    for hour in range(6):
        fill = growth.Fill(now_ms - (6 - hour) * 3_600_000, "local", 5000 + hour * 100, 6500)
        growth.add(stage.directory / "a/data", fill)
    health = [Health(True, "", "memory", 5500, 6500, "")]
    monkeypatch.setattr(stage.storage, "health", lambda: health[0])
    stage.look(20)
    found = {line.rule: line for one in stage.told() if one.channel == "ops" for line in one.message.incidents}
    assert found.keys() == {"storage_left"}, "84.6 % is not full yet"
    assert found["storage_left"].text == "storage local is full in 10 h"
    health[0] = Health(True, "", "memory", 5500, 650_000, "")
    stage.clock.advance(growth.EVERY_S)
    stage.look(20)
    assert stage.kinds() == ["begin", "end"]


def test_a_consumer_that_is_down_says_why(stage: Stage) -> None:
    node = stage.start()
    record = Writer(stage.directory / "a/run/stats", "worker.orders.0").record("orders/t0")
    node._watch._ask = lambda request: {"answers": {"w": {"topics": {"orders/t0": {"why": "nobody listens at x"}}}}}
    record.set("state", 4)
    stage.look(10)
    assert stage.kinds() == ["begin"]
    assert "nobody listens at x" in stage.told()[0].message.text
    record.set("state", 1)
    stage.look(30)
    assert stage.kinds() == ["begin", "end"]


# -- several nodes -----------------------------------------------------------------------------------------------------


def test_of_two_nodes_that_share_a_storage_one_speaks(stage: Stage) -> None:
    stage.start("a")
    stage.start("b")
    stage.push(12)
    stage.look(30)
    stage.drain(12)
    stage.look(30)
    assert sorted([*stage.kinds("a"), *stage.kinds("b")]) == ["begin", "end"]
    for name in ("a", "b"):
        (past,) = Store(stage.directory / name / "data").history(0, 10, "backlog")
        assert past.closed, "both remember it"


def test_another_node_tells_the_end_when_the_one_that_told_has_gone(stage: Stage) -> None:
    stage.start("a")
    stage.look(1)
    stage.start("b")
    stage.push(12)
    stage.look(30)
    assert (stage.kinds("a"), stage.kinds("b")) == (["begin"], [])
    stage.look(60, "a")
    told = [line.rule for one in stage.told("b") if one.channel == "ops" for line in one.message.incidents]
    assert told == ["node_down"], "and no second message of the backlog"
    stage.drain(12)
    stage.look(30, "a")
    over = [line.rule for one in stage.told("b") if one.message.kind == "end" for line in one.message.incidents]
    assert "backlog" in over
    before = len(stage.told("a"))
    stage.look(30)
    assert [line.rule for one in stage.told("a")[before:] for line in one.message.incidents] == [], "a is back, late"


def test_a_node_that_ends_on_purpose_is_not_down(stage: Stage) -> None:
    stage.start("a")
    stage.start("b")
    stage.look(5)
    stage.storage.leave("b")
    stage.look(60, "b")
    assert stage.told("a") == []


# -- messages ----------------------------------------------------------------------------------------------------------


def incident(number: int = 1, **facts: Any) -> Incident:
    given: dict[str, Any] = {"rule": "backlog", "subject": "orders/mail", "system": "shop", "node": "n"}
    given |= {"began_ms": 1_800_000_000_000, "value": 12.0, "worst": 12.0, "threshold": 10.0}
    return Incident(number, **{**given, **facts})


def test_a_message_leads_to_its_cause() -> None:
    settings = Settings(dashboard="https://bus.example.com")
    made = message.compose(Channel("ops"), settings, "n", [incident(rule="dead")], 5, over=False)
    assert made.incidents[0].url == "https://bus.example.com/topics/orders/mail/jobs?state=dead"
    assert made.incidents[0].url in made.text
    assert made.url == "https://bus.example.com/alarms"


def test_a_letter_is_a_letter() -> None:
    channel = Channel("ops", "mail", server="127.0.0.1:25", sender="bus@example.com", to=("a@x.org", "b@x.org"))
    text = message.compose(channel, Settings(), "n", [incident(detail="because\r\nBcc: evil@x.org")], 5, over=False)
    letter = mail.letter(channel, text)
    assert (letter["To"], letter["From"], letter["Bcc"]) == ("a@x.org, b@x.org", "bus@example.com", None)
    assert letter["Message-ID"] == mail.letter(channel, text)["Message-ID"]
    assert "12 jobs wait" in letter["Subject"]


# -- channels ----------------------------------------------------------------------------------------------------------

TEST = Message("id-1", "test", 1, "n", "Test: 标题", "text 文")


def webhook(url: str, **facts: Any) -> Channel:
    return Channel("ops", "webhook", Secret(url), **facts)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "status 500"),
        (b"HTTP/1.1 302 There\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "status 302"),
        (b"", "after the request was sent"),
    ],
)
def test_a_webhook_that_does_not_take_it_says_why_and_not_where(answer: bytes, said: str) -> None:
    talk = answering(answer) if answer else lambda conn, server, number: None
    with raw_server(talk) as server, pytest.raises(PepperbusError) as refused:
        channels.send(webhook(f"http://127.0.0.1:{server.port}/token-1234"), TEST, Http(), 1)
    assert said in str(refused.value) or "closed" in str(refused.value)
    assert "token-1234" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "http"),
    [
        ("http://169.254.169.254/latest/meta-data", Http()),
        ("http://127.0.0.1:{port}/x", Http(deny=("127.0.0.0/8",))),
        ("http://127.0.0.1:{port}/x", Http(allow=("example.com",))),
        ("http://localhost:{port}/x", Http(deny=("127.0.0.0/8", "::1"))),
    ],
)
def test_a_webhook_goes_where_consumers_may_be_and_nowhere_else(url: str, http: Http) -> None:
    with raw_server(answering(b"HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n")) as server:
        with pytest.raises(PepperbusError, match=r"refused|link-local|not in"):
            channels.send(webhook(url.replace("{port}", str(server.port))), TEST, http, 1)
        assert server.requests == []


def test_apprise_sends_and_says_what_went_wrong() -> None:
    """Its services have fixed addresses; the scheme that posts anywhere, which `check` refuses, goes the same way."""
    taken = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with raw_server(answering(taken)) as server:
        channels.send(Channel("ops", "apprise", Secret(f"json://127.0.0.1:{server.port}/x")), TEST, Http(), 1)
        body = json.loads(server.requests[0].body)
    assert (body["title"], body["message"]) == ("Test: 标题", "text 文")
    with (
        raw_server(answering(taken.replace(b"200 OK", b"500 No"))) as server,
        pytest.raises(PepperbusError, match="500"),
    ):
        channels.send(Channel("ops", "apprise", Secret(f"json://127.0.0.1:{server.port}/tok")), TEST, Http(), 1)
    with pytest.raises(PepperbusError, match="does not know this address"):
        channels.send(Channel("ops", "apprise", Secret("nosuchthing://x")), TEST, Http(), 1)


@pytest.mark.parametrize(
    "url",
    [
        "dingtalk://secret@token",
        "wecombot://693axxx6-7aoc-4bc4-97a0-0ec2sifa5aaa",
        "feishu://abcdefghijklmnop",
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/",
        "mailto://user:pass@example.com",
        "tgram://123456789:abcdefg_hijklmnop/12315544/",
    ],
)
def test_apprise_knows_the_addresses_that_our_page_shows(url: str) -> None:
    import apprise

    assert apprise.Apprise().add(url)
    scheme = url.partition(":")[0] + "://"
    assert scheme in (Path(__file__).parents[2] / "docs/ALARMS.md").read_text(encoding="utf-8")


def test_waits_grow_and_end() -> None:
    waits = [channels.wait_s(tries) for tries in range(1, 20)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (2.0, 300.0)


# -- configuration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("url = http://127.0.0.1:9/\n", "url = ftp://x\n", "http://host"),
        ("url = http://127.0.0.1:9/\n", "url = http://169.254.169.254/\n", "metadata"),
        ("url = http://127.0.0.1:9/\n", "server = x:25\n", "type = webhook needs url"),
        ("url = http://127.0.0.1:9/\n", "type = apprise\nurl = jsons://x\n", "use that"),
        ("url = http://127.0.0.1:9/\n", "type = apprise\nurl = x\n", "dingtalk://TOKEN"),
        ("url = http://127.0.0.1:9/\n", "type = mail\nserver = x\nsender = a@b\nto = c@d\n", "host:port"),
        ("url = http://127.0.0.1:9/\n", "type = mail\nserver = x:25\nsender = a\nto = c@d\n", "no mail address"),
        ("rules = backlog\n", "rules = backlock\n", "did you mean backlog"),
        ("every = 1s", "dashboard = bus.example.com", "as people type it"),
        ("backlog = 3", "backlok = 3", "did you mean backlog"),
    ],
)
def test_mistakes_are_found_by_check(stage: Stage, old: str, new: str, said: str) -> None:
    stage._node = NODE.replace(old, new, 1)
    with pytest.raises(ConfigError) as refused:
        stage.load("a")
    assert said in str(refused.value)


def test_an_address_with_a_token_is_never_shown(stage: Stage) -> None:
    stage._node = NODE.replace("url = http://127.0.0.1:9/\n", "type = apprise\nurl = dingtalk:token-1234\n", 1)
    stage._node = stage._node.replace("backlog = 3", "backlog = x")
    with pytest.raises(ConfigError) as refused:
        stage.load("a")
    assert "token-1234" not in str(refused.value)


def test_secrets_may_stand_elsewhere(stage: Stage) -> None:
    (stage.directory / "hook").write_text("http://127.0.0.1:9/from-a-file\n")
    stage._node = NODE.replace("url = http://127.0.0.1:9/\n", "url = file:hook\n", 1)
    config = stage.load("a")
    assert config.alarms.channels[0].url.reveal() == "http://127.0.0.1:9/from-a-file"
    assert "from-a-file" not in repr(config)


def test_a_change_of_rules_replaces_no_worker(stage: Stage) -> None:
    from pepperbus.master.changes import compare

    before = stage.load("a")
    stage.queue("orders", "shop", "    [[t0]]\n        [[[alarms]]]\n            backlog = 5\n")
    change = compare(before, stage.load("a"))
    assert change.groups == set()
    assert dict(change.config.queues["orders"].topics["t0"].alarms)["backlog"].begin == 5.0


def test_a_full_disk_repeats_no_message(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The receiver took it, the file would not hear of it: it is not sent again."""
    node = stage.start()
    stage.push(12)
    stage.look(20)
    sent: list[str] = []
    monkeypatch.setattr(channels, "send", lambda channel, text, http, now_ms: sent.append(text.id))
    works: Callable[..., None] = node._store.sent

    def full(*words: Any) -> None:
        raise PepperbusError("database or disk is full")

    monkeypatch.setattr(node._store, "sent", full)
    for _ in range(3):
        with pytest.raises(PepperbusError):
            node._send_due()
    monkeypatch.setattr(node._store, "sent", works)
    last = gevent.spawn(node._send_due)
    with gevent.Timeout(20):
        while stage.told():
            gevent.sleep(0.01)
    last.kill()
    assert len(sent) == len(set(sent)) == 2, "one for each channel"
