"""The sidecar in process: shapes, errors, guard, metrics; an embedded storage, no bus."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from flask import Flask
from flask.testing import FlaskClient
from gevent.event import Event
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket

from pepperbus import stats
from pepperbus.accounts.model import HOST_ROLES, Role
from pepperbus.accounts.sessions import begin, csrf_of
from pepperbus.config.load import load
from pepperbus.ids import IdGenerator
from pepperbus.job import Job
from pepperbus.log import Log
from pepperbus.storage.contract import Outcome, Push, Settle
from pepperbus.web import frame, live
from pepperbus.web.app import create_app
from pepperbus.web.desk import Desk, SharedOffice
from pepperbus.web.formats import sparkline
from pepperbus.web.minute import Minute
from pepperbus.web.monitor import Monitor
from pepperbus.web.routes import ROUTES
from tests.fixtures.ports import free_port

NODE = """\
queue_files = queues.d/*.conf
[bus]
    node = test
    data_dir = data
    run_dir = run
[gateway]
    listen = 127.0.0.1:@PORT@
[web]
    listen = 127.0.0.1:19840
[storages]
    [[local]]
        type = embedded
"""
QUEUE = """\
password = the-secret
storage = local
system = shop
[topics]
    [[mail]]
        run = http
        url = http://127.0.0.1:9/none
        sign = the-other-secret
[schedule]
    [[tick]]
        expression = @yearly
"""
JSON = {"Content-Type": "application/json"}
IDS = IdGenerator(2, 0, lambda: 1_800_000_000_000)


def log_in(client: FlaskClient, desk: Desk, name: str = "anna", **roles: str) -> FlaskClient:
    """A browser in which `name` is logged in; `roles` by system, else administrator of everything."""
    store = desk.base.accounts
    if not store.find(name):
        store.add(name, "no password", {system: Role(role) for system, role in roles.items()} or HOST_ROLES)
    secret = begin(store, name, "127.0.0.1")
    client.set_cookie("pepperbus", secret)
    client.environ_base["HTTP_X_CSRF_TOKEN"] = csrf_of(secret)
    return client


class Compiled(BytecodeCache):
    """What Jinja made of our templates, for all applications of this process: each test has one of its own."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self._kept:
            bucket.bytecode_from_string(self._kept[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._kept[bucket.key] = bucket.bytecode_to_string()


Flask.jinja_options = {"bytecode_cache": Compiled()}


class Place:
    """A sidecar without its process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        (directory / "queues.d").mkdir()
        (directory / "node.conf").write_text(NODE.replace("@PORT@", str(self.port)))
        (directory / "queues.d" / "orders.conf").write_text(QUEUE)
        self.config = load(directory / "node.conf", {})
        self.office = SharedOffice(self.config)
        log = Log("web", str(directory / "log"))
        self.desk = Desk(self.office, Monitor(self.office, log))
        self.app = create_app(self.desk, log)
        self.client = log_in(self.app.test_client(), self.desk)
        self.writer = stats.Writer(self.config.bus.run_dir / "stats", "worker.orders.0")

    def push(self, n: int, topic: str = "orders/mail") -> list[int]:
        jobs = [Job(IDS.next(), "t", b"content %d" % i, 1_800_000_000_000) for i in range(n)]
        self.office.storage("local").push([Push(job.id, job.encode(), (topic,)) for job in jobs])
        return [job.id for job in jobs]

    def kill(self, n: int, reason: str) -> None:
        storage = self.office.storage("local")
        leased = storage.lease("orders/mail", n, "test/w/1")
        storage.settle("test/w/1", [Settle(one.topic, one.job_id, Outcome.DEAD, reason=reason) for one in leased])

    def get(self, path: str, **headers: str) -> Any:
        return self.client.get(path, headers=headers)

    def text(self, path: str) -> str:
        return str(self.get(path).get_data(as_text=True))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.office.close()


@pytest.fixture
def client(place: Place) -> FlaskClient:
    return place.client


# -- health ------------------------------------------------------------------------------------------------------------


def test_healthz_says_only_that_this_process_lives(client: FlaskClient) -> None:
    answer = client.get("/healthz")
    assert (answer.status_code, answer.data) == (200, b"ok\n")


def test_not_ready_without_a_gateway(place: Place) -> None:
    answer = place.get("/readyz")
    assert answer.status_code == 503
    assert answer.get_data(as_text=True) == f"gateway 127.0.0.1:{place.port}: Connection refused\n"


@pytest.mark.parametrize(
    ("reply", "status", "text"),
    [
        (b"+PONG\r\n", 200, "ready\n"),
        (b"-NOAUTH Authentication required.\r\n", 200, "ready\n"),
        (b"HTTP/1.1 400 Bad Request\r\n", 503, "answered b'HTTP"),
    ],
)
def test_ready_when_the_gateway_answers(place: Place, reply: bytes, status: int, text: str) -> None:
    with gevent.socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", place.port))
        listener.listen()

        def serve() -> None:
            conn, _ = listener.accept()
            with conn:
                conn.recv(100)
                conn.sendall(reply)

        server = gevent.spawn(serve)
        answer = place.get("/readyz")
        server.join(5)
    assert answer.status_code == status
    assert text in answer.get_data(as_text=True)


def test_not_ready_when_a_storage_does_not_answer(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from pepperbus.errors import StorageUnavailable

    def broken(name: str) -> Any:
        raise StorageUnavailable("redis://127.0.0.1:1: connection refused")

    monkeypatch.setattr(place.office, "storage", broken)
    assert "storage local: redis://127.0.0.1:1: connection refused" in place.text("/readyz")


# -- metrics -----------------------------------------------------------------------------------------------------------


def named(line: str) -> str:
    """A line of the metrics without its labels and value, which go on moving."""
    return line if line.startswith("#") else re.split("[{ ]", line, maxsplit=1)[0]


def test_metrics_by_their_exact_names(place: Place) -> None:
    place.writer.record("orders").add("pushed", 7)
    record = place.writer.record("orders/mail")
    record.add("done", 5)
    record.add("failed", 2)
    for _ in range(10):
        record.observe("run", 0.010)
    record.observe("wait", 0.003)
    place.push(6)
    place.kill(2, "attempt 3 of 3 failed: boom")
    place.kill(1, "max_age: boom")
    text = place.text("/metrics")
    for line in (
        '# TYPE pepperbus_queue_add_count untyped\npepperbus_queue_add_count{queue="orders"} 7.0',
        '# TYPE pepperbus_job_success_count untyped\npepperbus_job_success_count{queue="orders",topic="mail"} 5.0',
        '# TYPE pepperbus_job_fail_count untyped\npepperbus_job_fail_count{queue="orders",topic="mail"} 2.0',
        "# TYPE pepperbus_job_consume_milliseconds summary",
        'pepperbus_job_consume_milliseconds_sum{queue="orders",topic="mail"} 100.0',
        'pepperbus_job_consume_milliseconds_count{queue="orders",topic="mail"} 10.0',
        "# TYPE pepperbus_job_wait_seconds histogram",
        'pepperbus_job_wait_seconds_bucket{le="0.004096",queue="orders",topic="mail"} 1.0',
        'pepperbus_job_wait_seconds_bucket{le="0.002048",queue="orders",topic="mail"} 0.0',
        'pepperbus_job_run_seconds_bucket{le="+Inf",queue="orders",topic="mail"} 10.0',
        'pepperbus_job_run_seconds_count{queue="orders",topic="mail"} 10.0',
        'pepperbus_topic_length{queue="orders",topic="mail"} 3.0',
        'pepperbus_topic_retry_length{queue="orders",topic="mail"} 2.0',
        'pepperbus_topic_timeout_length{queue="orders",topic="mail"} 1.0',
        "# TYPE pepperbus_cpu_usage gauge",
        "# TYPE pepperbus_mem_usage gauge",
        "# TYPE pepperbus_load_average gauge",
    ):
        assert line in text, line
    quantiles = {
        q: float(line.rpartition(" ")[2])
        for line in text.splitlines()
        for q in ("0.5", "0.9", "0.99")
        if f'"{q}"' in line
    }
    assert quantiles == pytest.approx({"0.5": 10.0, "0.9": 10.0, "0.99": 10.0}, rel=0.05)
    names = [named(line) for line in place.text("/global/metrics").splitlines()]
    assert [named(line) for line in text.splitlines()] == names


def test_a_removed_topics_series_disappear(place: Place) -> None:
    place.writer.record("orders/mail").add("done", 5)
    assert 'topic="mail"' in place.text("/metrics")
    (place.directory / "queues.d" / "orders.conf").write_text(QUEUE.replace("[[mail]]", "[[post]]"))
    place.office.take(load(place.directory / "node.conf", {}))
    gevent.sleep(1.05)
    text = place.text("/metrics")
    assert 'topic="mail"' not in text
    assert 'pepperbus_job_success_count{queue="orders",topic="post"} 0.0' in text


# -- guard -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "localhost:19840", "127.0.0.1:8080", "127.9.9.9", "[::1]:19840"])
def test_served_by_names_of_this_machine(client: FlaskClient, host: str) -> None:
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:19840", "localhost.evil.example", "10.0.0.1", "["])
def test_a_foreign_host_name_is_refused(client: FlaskClient, host: str) -> None:
    for path in ("/", "/metrics", "/api/v1/status"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code in (400, 403), path


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {},
        JSON | {"Origin": "http://evil.example"},
        JSON | {"Origin": "null"},
        JSON | {"Origin": "http://localhost:1234"},
        JSON | {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_a_page_elsewhere_cannot_change_anything(place: Place, headers: dict[str, str]) -> None:
    answer = place.client.post("/api/v1/queues/orders/pause", data="{}", headers=headers)
    assert answer.status_code == 403
    assert answer.get_json()["error"]["code"] == "forbidden"
    assert place.office.storage("local").paused() == set()


def test_our_own_page_can(place: Place) -> None:
    headers = JSON | {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    answer = place.client.post("/api/v1/queues/orders/pause", data="{}", headers=headers)
    assert answer.get_json() == {"topics": ["orders/mail"], "paused": True}


def test_every_answer_is_hardened(client: FlaskClient) -> None:
    for path in ("/", "/healthz", "/api/v1/none", "/static/app.js"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"], path
        assert headers["X-Content-Type-Options"] == "nosniff"


# -- API ---------------------------------------------------------------------------------------------------------------


def test_the_document_describes_every_route(client: FlaskClient) -> None:
    document = client.get("/api/v1/openapi.json").get_json()
    assert document["openapi"] == "3.1.0"
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES}
    operations = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(set(operations)) == len(ROUTES)
    known = document["components"]["schemas"]
    references = set(json.dumps(document).split('"#/components/schemas/')[1:])
    assert references
    assert {text.partition('"')[0] for text in references} <= known.keys()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/queues/none", None, 404, "not_found"),
        ("GET", "/nothing", None, 404, "not_found"),
        ("PUT", "/status", {}, 405, "method_not_allowed"),
        ("GET", "/jobs/17", None, 400, "usage"),
        ("GET", "/jobs/13600000000000000000", None, 404, "not_found"),
        ("GET", "/jobs/9223372036854775809", None, 400, "usage"),
        ("GET", "/topics/orders/mail/jobs?state=asleep", None, 400, "usage"),
        ("GET", "/topics/orders/mail/jobs?n=x", None, 400, "usage"),
        ("GET", "/topics/orders/mail/jobs?n=0", None, 400, "usage"),
        ("GET", "/tail?name=none", None, 404, "not_found"),
        ("POST", "/queues/orders/push", {"contents": []}, 400, "usage"),
        ("POST", "/queues/orders/push", {"contents": ["x"]}, 503, "not_reachable"),
        ("POST", "/queues/orders/push", {"contents": ["?"], "encoding": "base64"}, 400, "usage"),
        ("POST", "/queues/orders/push", {"content": "x"}, 400, "usage"),
        ("POST", "/topics/orders/mail/replay", {"state": "ready"}, 400, "usage"),
        ("POST", "/topics/orders/mail/purge", {"state": "leased"}, 400, "usage"),
        ("POST", "/topics/orders/mail/purge", {"ids": ["17"]}, 400, "usage"),
        ("POST", "/topics/orders/none/pause", {}, 404, "not_found"),
        ("POST", "/reload", {}, 503, "not_reachable"),
        ("POST", "/queues/orders", {"settings": {}}, 409, "refused"),
        ("PUT", "/queues/orders", {"settings": {"colour": "red"}}, 422, "configuration"),
    ],
)
def test_errors_have_one_shape(client: FlaskClient, method: str, path: str, body: Any, status: int, code: str) -> None:
    answer = client.open(
        "/api/v1" + path, method=method, data=json.dumps(body) if body is not None else None, headers=JSON
    )
    assert answer.status_code == status, answer.data
    error = answer.get_json()["error"]
    assert list(answer.get_json()) == ["error"]
    assert list(error) == ["code", "message", "details"]
    assert error["code"] == code
    assert error["message"]


def test_a_bug_is_logged_and_shows_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("inner facts")

    monkeypatch.setattr(place.desk.monitor, "status", broken)
    answer = place.get("/api/v1/status")
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (500, "bug")
    assert "inner facts" not in answer.get_data(as_text=True)
    assert "inner facts" in (place.directory / "log").read_text()


def test_secrets_never_leave(place: Place) -> None:
    place.push(1)
    for path in ("/", "/metrics", "/api/v1/queues", "/api/v1/queues/orders", "/api/v1/status", "/api/v1/topics"):
        text = place.text(path)
        assert "the-secret" not in text, path
        assert "the-other-secret" not in text, path


def test_jobs_page_by_page_and_purged(place: Place) -> None:
    ids = place.push(5)
    place.kill(3, "boom <b>")
    page = place.get("/api/v1/topics/orders/mail/jobs?n=2").get_json()
    assert [job["reason"] for job in page["jobs"]] == ["boom <b>"] * 2
    rest = place.get(f"/api/v1/topics/orders/mail/jobs?n=2&cursor={page['cursor']}").get_json()
    assert {job["id"] for job in page["jobs"] + rest["jobs"]} == {str(i) for i in ids[:3]}
    post = place.client.post
    purge = {"ids": [str(ids[0])]}
    assert post("/api/v1/topics/orders/mail/purge", json={"dry_run": True}).get_json()["matched"] == 3
    assert post("/api/v1/topics/orders/mail/purge", json=purge).get_json()["removed"] == 1
    assert post("/api/v1/topics/orders/mail/replay", json={"error": "BOOM"}).get_json()["jobs"] == 2
    topic = place.get("/api/v1/topics/orders/mail").get_json()
    assert (topic["ready"], topic["dead"]) == (2, 2), "the ticker carries it out"
    life = place.get(f"/api/v1/jobs/{ids[0]}").get_json()
    assert life["topics"][0]["state"] == "removed"


# -- page --------------------------------------------------------------------------------------------------------------


def test_the_page_shows_what_is_wrong_and_escapes_it(place: Place) -> None:
    place.push(3, "old/<b>x")
    text = place.text("/")
    assert "old/&lt;b&gt;x" in text
    assert "<b>x" not in text
    assert "no queue names this topic" in text
    assert 'href="/static/app.css?v=' in text
    assert " style=" not in text, "the policy forbids it"
    assert "<script>" not in text


def test_what_the_page_needs_is_there(client: FlaskClient) -> None:
    for path in ("/static/app.css", "/static/app.js", "/static/icon.svg"):
        plain = client.get(path)
        packed = client.get(path, headers={"Accept-Encoding": "gzip"})
        assert (plain.status_code, packed.headers["Content-Encoding"]) == (200, "gzip")
        assert gzip.decompress(packed.data) == plain.data
    for path in ("/static/none.css", "/static/../frame.py", "/static/%2e%2e/frame.py", "/static/vendor"):
        assert client.get(path).status_code == 404


def test_all_static_files_are_packed_before_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "_assets", {})
    frame.pack()
    assert {"app.css", "app.js", "charts.js", "icons.svg"} <= frame._assets.keys()
    assert all(one.packed and one.version for one in frame._assets.values())


def test_rates_and_percentiles_of_the_last_minute(place: Place) -> None:
    record = place.writer.record("orders/mail")
    for _ in range(100):
        record.observe("run", 5.0)  # before we looked
    began = time.monotonic()
    place.desk.monitor.sample()
    sampled = time.monotonic()
    record.add("done", 30)
    for _ in range(10):
        record.observe("run", 0.010)
    gevent.sleep(0.1)
    least = time.monotonic() - sampled
    place.desk.monitor.sample()
    assert 30 / (time.monotonic() - began) <= place.desk.monitor.rate("orders/mail", "done") <= 30 / least
    assert place.desk.monitor.percentiles("orders/mail")[1].p99_s == pytest.approx(0.010, rel=0.05)
    assert len(place.desk.monitor.minute.course("orders/mail", "done")) == 1
    for _ in range(200):
        place.desk.monitor.sample()
    assert len(place.desk.monitor.minute.course("orders/mail", "done")) == 60
    assert place.desk.monitor.rate("orders/mail", "done") == 0.0


def test_the_minute_of_a_system_is_that_of_its_queues() -> None:
    pushed, done, failed = (stats.COUNTERS.index(name) for name in ("pushed", "done", "failed"))

    def counts(n: int) -> dict[str, list[int]]:
        """Queues a and b of a shop, c of nobody; c stands still, and d is in no configuration."""
        found = {name: [0] * len(stats.COUNTERS) for name in ("a", "b", "c", "d", "a/t", "b/t", "c/t")}
        found["a"][pushed], found["b"][pushed], found["a/t"][pushed] = n, 2 * n, n
        found["a/t"][done], found["b/t"][done], found["b/t"][failed], found["d"][pushed] = n, n, 3 * n, n
        return found

    minute, systems = Minute(), dict.fromkeys(("a", "b", "a/t", "b/t"), "shop") | {"c": "", "c/t": ""}
    assert minute.by_system(systems)["shop"].failed_rate == 0.0, "nothing is known yet"
    for second in range(100):
        assert minute.remember(1000.0 + 2 * second, counts(4 * second)) == (
            {"a", "b", "d", "a/t", "b/t"} if second else set()
        )
    shop, nobody = minute.by_system(systems)["shop"], minute.by_system(systems)[""]
    assert (shop.pushed, shop.done, shop.failed) == ([6.0] * 60, [4.0] * 60, [6.0] * 60)
    assert shop.failed_rate == 6.0
    assert nobody.pushed == [0.0] * 60
    assert minute.by_system({"a": "other"})["other"].pushed == [2.0] * 60, "another configuration"
    assert minute.rates("failed", 60) == {"b/t": 6.0}
    assert minute.rate("b/t", "failed", 10) == 6.0
    assert minute.rate("c/t", "done") == minute.rate("nobody", "done") == 0.0
    assert minute.course("b/t", "failed") == [6.0] * 60
    still = counts(400)
    assert [minute.remember(1200.0 + second, still) for second in range(3)][1:] == [set(), set()]
    assert minute.course("b/t", "failed")[-3:] == [6.0, 0.0, 0.0]
    assert minute.rate("b/t", "failed", 1) == 0.0


def test_a_curve_without_anything_is_no_curve() -> None:
    assert sparkline([0.0, 0.0]) == ""
    assert sparkline([0.0, 2.0]).split()[-1] == "120.0,1.0"


# -- live pages --------------------------------------------------------------------------------------------------------


def test_live_pages_share_a_rendering_and_keep_to_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many pages opened at once must not hold up the hub: the heartbeat of this process goes through it."""
    rendered: list[tuple[float, float]] = []

    def dear(template: str, build: Any) -> bytes:
        began = time.monotonic()
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
        rendered.append((began, time.monotonic()))
        return f"data: {template}\n\n".encode()

    monkeypatch.setattr(live, "_render", dear)
    monkeypatch.setattr(live, "_pace", live._Pace())
    pages = [f"page{n % 3}" for n in range(60)]
    opened = [gevent.spawn(live._event, page, dict, 60.0, f"key {page}", Event()) for page in pages]
    beats: list[float] = []
    while not all(one.ready() for one in opened):
        gevent.sleep(0.005)
        beats.append(time.monotonic())
    assert [one.get().data for one in opened] == [f"data: {page}\n\n".encode() for page in pages]
    left = Event()
    left.set()
    assert live._event("page4", dict, 60.0, "key page4", left) is None, "nothing is rendered for who has gone"
    assert len(rendered) == 3
    for (_, ended), (begins, _) in itertools.pairwise(rendered):
        assert begins - ended >= 0.3, "nine times its own time is left to others"
        assert any(ended < beat < begins for beat in beats), "and they had it"
