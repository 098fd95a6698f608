"""A closed topic: left out of new jobs wherever jobs are made, worked off, and gone once it is empty."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pepperbus.accounts.model import HOST_ROLES, Actor, Via
from pepperbus.cli.inspect import _status
from pepperbus.config.joboptions import unique
from pepperbus.config.load import load_queue_text
from pepperbus.config.model import Config, Intake, Queue
from pepperbus.config.secret import Secret
from pepperbus.config.values import seconds
from pepperbus.errors import ConfigError, NotFound, PepperbusError, UsageError
from pepperbus.job import State
from pepperbus.log import Log
from pepperbus.master.changes import compare
from pepperbus.operations import closing, queues
from pepperbus.operations.status import StatusReader
from pepperbus.schedule import state as record
from pepperbus.storage import drains
from pepperbus.storage.contract import Push
from pepperbus.storage.memory import MemoryStorage
from pepperbus.ticker.intake_elements import Listed, read_raw
from pepperbus.ticker.intake_store import Store
from pepperbus.web import closing as leaving
from tests.unit import test_master_changes as changes
from tests.unit.test_gateway_express import QUICK, House, drained
from tests.unit.test_resp import pack
from tests.unit.test_schedule import Stage
from tests.unit.test_web import IDS, JSON, Place

QUEUE = """\
open = loopback
system = shop
[topics]
    [[mail]]
        run = http
        url = http://127.0.0.1:9/none
    [[log]]  # the other one
        run = http
        url = http://127.0.0.1:9/none
        {log}
[intakes]
    [[every]]
        url = redis://127.0.0.1:1
        key = a
    [[one]]
        url = redis://127.0.0.1:1
        key = b
        topic = log
[schedule]
    [[tick]]
        expression = @yearly
"""
WITHOUT = QUEUE[: QUEUE.index("    [[one]]")] + QUEUE[QUEUE.index("[schedule]") :]


def with_closed(queue: Queue, **closed: str) -> Queue:
    """`queue` with these topics closed in that way."""
    topics = {name: replace(topic, closed=closed.get(name, topic.closed)) for name, topic in queue.topics.items()}
    return replace(queue, topics=topics)


def having(config: Config, queue: Queue) -> Config:
    return replace(config, queues={**config.queues, queue.name: queue})


# -- the file ----------------------------------------------------------------------------------------------------------


def test_what_would_make_jobs_for_nobody_rests(tmp_path: Path) -> None:
    node = Place(tmp_path).config
    queue = load_queue_text(QUEUE.format(log="closed = yes"), "orders", node)
    assert [topic.name for topic in queue.takers] == ["mail"]
    assert ([one.name for one in queue.intakes], list(queue.schedule)) == (["every"], ["tick"])
    text = QUEUE.format(log="closed = yes").replace("[[mail]]", "[[mail]]\nclosed = yes")
    queue = load_queue_text(text, "orders", node)
    assert (queue.takers, queue.intakes, queue.schedule) == ((), (), {})


def test_the_last_topic_cannot_go_by_itself(tmp_path: Path) -> None:
    node = Place(tmp_path).config
    text = WITHOUT.format(log="closed = remove").replace("[[mail]]", "[[mail]]\nclosed = remove")
    with pytest.raises(ConfigError) as wrong:
        load_queue_text(text, "orders", node)
    assert "[[log]] closed = remove: no topic would be left: close the whole queue" in str(wrong.value)
    assert load_queue_text("closed = remove\n" + text, "orders", node).closed == "remove"


def test_a_topic_with_an_intake_of_its_own_cannot_go(tmp_path: Path) -> None:
    """The file would be wrong without the topic, and it would wait for ever."""
    with pytest.raises(ConfigError, match="intake one takes for this topic alone: remove it first, or write yes"):
        load_queue_text(QUEUE.format(log="closed = remove"), "orders", Place(tmp_path).config)


def test_no_worker_is_replaced_because_a_topic_takes_no_jobs() -> None:
    old = changes.config(changes.queue("a"), changes.queue("b"))
    new = changes.config(changes.queue("a", closed="yes"), with_closed(changes.queue("b"), mail="remove"))
    change = compare(old, new)
    assert (change.changed, change.groups) == (["a", "b"], set())


# -- pushes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def house(tmp_path: Path):
    made = House(tmp_path, QUICK)
    yield made
    made.close()


def heard(house: House, connection: Any, theirs: Any, *said: bytes) -> bytes:
    connection.received(b"".join(pack(*one.split()) for one in said))
    house.settle()
    return drained(theirs)


def close_topics(house: House, name: str, **closed: str) -> None:
    house.config = having(house.config, with_closed(house.config.queues[name], **closed))
    house.reload()


def test_a_closed_topic_is_left_out_by_the_quick_and_by_the_usual_way(house: House) -> None:
    connection, theirs = house.client()
    heard(house, connection, theirs, b"AUTH all pw", b"LPUSH json/x first", b"LPUSH two/x first")
    close_topics(house, "json", b="yes")
    close_topics(house, "two", a="remove")
    said = b'"error":""'
    for push in (b"LPUSH json/x one", b"LPUSH json/x one two", b"RPUSH two/x one", b"ZADD two/x +60 one"):
        assert said in heard(house, connection, theirs, push)
    lies = [topic for topic, _id, _body in house.jobs()]
    assert {topic: lies.count(topic) for topic in ("json/a", "json/b", "two/a", "two/b")} == {
        "json/a": 4, "json/b": 1, "two/a": 1, "two/b": 3,
    }  # fmt: skip
    pushed = {name: totals[0] for name, totals in house.counts().items()}
    assert (pushed["json/a"], pushed["json/b"], pushed["two/a"]) == (4, 1, 1), "what is not copied is not counted"


def test_when_all_topics_are_closed_every_form_of_push_is_refused(house: House) -> None:
    connection, theirs = house.client()
    heard(house, connection, theirs, b"AUTH all pw", b"LPUSH json/x first", b"LPUSH json first")
    before = house.jobs()
    close_topics(house, "json", a="yes", b="remove")
    why = b"queue json takes no jobs any more: all its topics are closed"
    for push in (b"LPUSH json/x one", b"RPUSH json/x one two", b"ZADD json/x +60 one"):
        assert b'"jobs":null' in (answer := heard(house, connection, theirs, push))
        assert b'"error":"%b"' % why in answer
    assert heard(house, connection, theirs, b"LPUSH json one") == b"-TRYAGAIN %b\r\n" % why
    multi = heard(house, connection, theirs, b"MULTI", b"LPUSH json/x one", b"EXEC")
    assert multi.startswith(b"+OK\r\n-TRYAGAIN %b\r\n-EXECABORT" % why)
    assert house.jobs() == before
    close_topics(house, "json", a="no")
    assert b'"error":""' in heard(house, connection, theirs, b"LPUSH json/x again")
    assert len(house.jobs()) == len(before) + 1


def test_what_multi_holds_is_stored_by_the_configuration_of_exec(house: House) -> None:
    connection, theirs = house.client()
    heard(house, connection, theirs, b"AUTH all pw", b"MULTI", b"LPUSH json/x one", b"LPUSH two/x one")
    close_topics(house, "json", b="remove")
    answer = heard(house, connection, theirs, b"EXEC")
    assert answer.startswith(b"*2\r\n")
    assert sorted(topic for topic, _id, _body in house.jobs()) == ["json/a", "two/a", "two/b"]
    heard(house, connection, theirs, b"MULTI", b"LPUSH json/x two", b"LPUSH two/x two")
    close_topics(house, "json", a="yes")
    assert heard(house, connection, theirs, b"EXEC").startswith(b"-EXECABORT queue json takes no jobs any more")
    heard(house, connection, theirs, b"MULTI", b"LPUSH two/x three")
    house.config = replace(house.config, queues={n: q for n, q in house.config.queues.items() if n != "two"})
    house.reload()
    assert heard(house, connection, theirs, b"EXEC") == b"-EXECABORT queue or Topic not exist two\r\n"
    assert len(house.jobs()) == 3


def test_what_lies_in_a_closed_topic_keeps_no_name_of_unique(house: House) -> None:
    queue = house.config.queues["json"]
    rule = unique("content", seconds)
    topics = {name: replace(topic, unique=rule) for name, topic in queue.topics.items()}
    house.config = having(house.config, replace(queue, topics=topics))
    house.reload()
    connection, theirs = house.client()
    heard(house, connection, theirs, b"AUTH all pw", b"LPUSH json/x same")
    house.storages["s1"].lease("json/a", 1, "n/w/1")
    (job,) = house.storages["s1"].peek("json/b", State.READY).jobs
    house.storages["s1"].remove("json/a", [job.job_id])
    close_topics(house, "json", b="yes")
    heard(house, connection, theirs, b"LPUSH json/x same")
    assert [topic for topic, _id, _body in house.jobs()].count("json/b") == 1


# -- who else makes jobs -----------------------------------------------------------------------------------------------


def test_a_schedule_leaves_a_closed_topic_out_and_its_record_stays(tmp_path: Path) -> None:
    """Also when that was the only topic in the storage that has the record."""
    stage = Stage(tmp_path)
    other = MemoryStorage(stage.nodes[0].config.storages["local"], stage.clock)
    (node,) = stage.nodes = stage.nodes[:1]
    node.schedules._storages = {"local": stage.storage, "other": other}
    queue = node.config.queues["orders"]
    mail = queue.topics["mail"]
    queue = replace(queue, topics={"mail": mail, "far": replace(mail, name="far", storage="other")})
    node.config = having(node.config, queue)
    assert stage.look(60) == ["pushed"]
    node.config = having(node.config, with_closed(queue, mail="remove"))
    assert stage.look(120) == ["missed", "pushed"]
    lies = len(stage.jobs()), other.depth("orders/far").ready
    assert lies == (1, 2)
    assert [run.what for run in stage.state.runs][:2] == ["pushed", "missed"]

    text = stage.storage.recall("schedule/orders/tick")
    stage.storage.swap("schedule/orders/tick", text, text.replace("{", '{"paused":"ann",', 1))
    node.config = having(node.config, replace(queue, topics={"far": queue.topics["far"]}))
    stage.look(60)
    assert record.read(other.recall("schedule/orders/tick")).paused == "ann", "removed with its topic, it stays paused"
    assert other.depth("orders/far").ready == 2


def test_an_intake_of_a_topic_that_closed_lets_nothing_leave_the_list(tmp_path: Path) -> None:
    """Its greenlet may be in the middle of a batch when the configuration changes."""
    place = Place(tmp_path)
    config = having(place.config, load_queue_text(QUEUE.format(log=""), "orders", place.config))
    storage = MemoryStorage(config.storages["local"])
    storage.open()
    given = {"config": config}
    maker: Any = SimpleNamespace(bodies=lambda ids, contents, client: contents, stored=lambda *words: None)
    what = {
        name: Listed("orders", Intake(name, Secret("redis://x"), name, topic=name), name, read_raw)
        for name in ("log", "")
    }
    one, every = (
        Store(f"intake:{n}", what[n], maker, {"local": storage}, lambda: given["config"]) for n in ("log", "")
    )
    given["config"] = having(config, replace(with_closed(config.queues["orders"], log="yes"), durability="memory"))
    first = str(IDS.next())
    with pytest.raises(PepperbusError, match="orders/log takes no jobs any more"):
        one.store(first, [b"element"])
    assert every.store(first, [b"element"]) == []
    assert [storage.depth(f"orders/{name}").ready for name in ("mail", "log")] == [1, 0]
    given["config"] = having(config, replace(config.queues["orders"], topics={}))
    with pytest.raises(PepperbusError, match="orders takes no jobs any more"):
        every.store(str(IDS.next()), [b"element"])


# -- operations --------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path):
    made = Place(tmp_path)
    (tmp_path / "queues.d" / "orders.conf").write_text(WITHOUT.format(log=""))
    made.office.actor = Actor("ann", Via.CLI, roles=HOST_ROLES)
    take(made)
    yield made
    made.office.close()


def take(place: Place) -> None:
    """The bus takes the files."""
    file = place.directory / "queues.d" / "orders.conf"
    place.office.take(having(place.config, load_queue_text(file.read_text(), "orders", place.config)))


def test_a_topic_is_closed_opened_again_and_removed_once(shop: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    office, file = shop.office, shop.directory / "queues.d" / "orders.conf"
    before = file.read_text()
    ids = shop.push(2, "orders/log")
    assert closing.close(office, "orders/log", remove=True).what == "changed"
    assert "# the other one" in file.read_text()
    take(shop)
    assert closing.leaving(office.config) == ["orders/log"]
    assert not closing.finish(office, "orders/log"), "jobs lie there"
    closing.reopen(office, "orders/log")
    assert file.read_text() == before
    with pytest.raises(UsageError, match="log/closed is not set"):
        closing.reopen(office, "orders/log")
    office.storage("local").remove("orders/log", ids)
    assert not closing.finish(office, "orders/log"), "the file says otherwise, though the bus has not taken it"

    closing.close(office, "orders/log", remove=True)
    take(shop)
    looks = leaving.Leaving(office, Log("web", str(shop.directory / "log")), shop.desk.stuck)
    now = time.monotonic()
    monkeypatch.setattr(leaving.time, "monotonic", lambda: now)
    assert looks.look() == [], "a push may still be under way"
    now += 20
    shop.push(1, "orders/log")
    assert looks.look() == [], "it was"
    office.storage("local").remove("orders/log", [one.job_id for one in lying(office)])
    assert looks.look() == []
    now += 20
    assert (looks.look(), shop.desk.stuck) == (["orders/log"], {})
    assert (looks.look(), "[[log]]" in file.read_text()) == ([], False)
    take_without_log(shop)
    assert looks.look() == []
    removed = [one for one in office.audit.search().entries if one.what == "queue.remove"]
    assert [one.about for one in removed] == ["orders/log"]


def lying(office: Any) -> Any:
    return office.storage("local").peek("orders/log", State.READY).jobs


def take_without_log(place: Place) -> None:
    queue = place.office.config.queues["orders"]
    place.office.take(having(place.office.config, replace(queue, topics={"mail": queue.topics["mail"]})))


def test_a_topic_somebody_removed_meanwhile_is_not_made_again(shop: Place) -> None:
    """A key at the queue's level may give all that a topic needs; so it would be a topic again."""
    file = shop.directory / "queues.d" / "orders.conf"
    text = file.read_text().replace("open = loopback\n", "open = loopback\nrun = http\nurl = http://127.0.0.1:9/x\n")
    file.write_text(text[: text.index("    [[log]]")] + "[schedule]\n")
    with pytest.raises(NotFound, match="no topic 'log' any more: somebody removed it"):
        closing.close(shop.office, "orders/log", remove=True)
    assert "[[log]]" not in file.read_text()


def test_the_second_of_two_who_close_the_two_topics_is_refused(shop: Place) -> None:
    closing.close(shop.office, "orders/log", remove=True)
    with pytest.raises(ConfigError, match="no topic would be left"):
        closing.close(shop.office, "orders/mail", remove=True)
    closing.close(shop.office, "orders/mail")


def test_what_is_still_on_its_way_from_another_storage_holds_it(shop: Place) -> None:
    """Removed now, the drain would stand and the jobs lie where nobody looks."""
    file = shop.directory / "queues.d" / "orders.conf"
    file.write_text("storage = local\n" + file.read_text())
    node = shop.config.storages["local"]
    old = MemoryStorage(replace(node, name="old"))
    shop.office.take(
        replace(shop.office.config, storages={**shop.office.config.storages, "old": replace(node, name="old")})
    )
    shop.office._storages["old"] = old
    old.push([Push(IDS.next(), b"x", ("orders/log",))])
    moving = drains.Drain("orders/log", "old", "local", 1)
    drains.update(shop.office.config.bus.data_dir, lambda known: known.update({"orders/log": moving}))
    assert queues.lying(shop.office, "orders/log") == {"orders/log": 1}
    closing.close(shop.office, "orders/log", remove=True)
    with pytest.raises(PepperbusError, match="jobs lie there"):
        queues.remove(shop.office, "orders/log")


# -- pages and API -----------------------------------------------------------------------------------------------------


def test_the_pages_offer_it_show_it_and_take_it_back(shop: Place) -> None:
    head = {"Origin": "http://localhost", "HX-Request": "true", "Accept": "text/html"}
    file = shop.directory / "queues.d" / "orders.conf"

    def post(path: str, **form: str) -> tuple[int, str]:
        answer = shop.client.post(path, data={"csrf_token": "", **form}, headers=head)
        return answer.status_code, answer.get_data(as_text=True)

    shop.push(3, "orders/log")
    shop.client.set_cookie("pepperbus_language", "zh")
    assert 'hx-post="/close/orders/log"' in (asked := post("/delete-ask/orders/log")[1])
    assert ("等执行完后删除" in asked, 'name="typed"' in asked) == (True, True)
    assert post("/delete/orders/log", keep="yes", typed="orders/mail")[0] == 409, "another name"
    assert post("/close/orders/log")[0] in (204, 409)  # 409: there is no bus to take it
    assert "closed = remove" in file.read_text()
    take(shop)
    shop.desk.monitor.forget()
    assert "此主题不再接收新任务，清空后即被删除" in shop.text("/topics/orders/log")
    assert "关闭中" in shop.text("/queues")
    assert "orders/log 不再接收新任务，清空后删除；剩余 3 个，其中死信 0 个" in shop.text("/")
    shop.client.set_cookie("pepperbus_language", "en")
    assert "This topic takes no new jobs any more" in shop.text("/topics/orders/log")
    post("/reopen/orders/log")
    assert "closed" not in file.read_text()


def test_the_api_drains_a_topic_and_says_so(shop: Place) -> None:
    told = shop.client.delete("/api/v1/topics/orders/log?drain=true", headers=JSON)
    assert (told.status_code, told.get_json()["what"]) == (200, "changed")
    take(shop)
    shop.desk.monitor.forget()
    assert shop.get("/api/v1/topics/orders/log").get_json()["closed"] == "remove"
    assert shop.get("/api/v1/topics/orders/mail").get_json()["closed"] == ""


def test_the_command_line_shows_it(shop: Place, capsys: pytest.CaptureFixture[str]) -> None:
    closing.close(shop.office, "orders/log", remove=True)
    take(shop)
    _status(StatusReader(shop.office).read())
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("orders/")}
    assert ("idle, closing" in lines["orders/log"], "closing" in lines["orders/mail"]) == (True, False)
