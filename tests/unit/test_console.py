"""The test console: what is saved and remembered for whom, a request as a shell command, a pushed job followed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pepperbus.config.load import load
from pepperbus.errors import UsageError
from pepperbus.operations import consumer, samples
from tests.fixtures.http import RawServer, answering, raw_server
from tests.unit.test_web import QUEUE, Place, log_in

FORM = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
DONE = b"HTTP/1.1 200 OK\r\nCode: 200\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.office.close()


def at(place: Place, server: RawServer, more: str = "") -> None:
    """The consumer is `server`."""
    sign = "        sign = the-other-secret\n"
    text = QUEUE.replace("http://127.0.0.1:9/none", server.url).replace(sign, sign + more)
    (place.directory / "queues.d" / "orders.conf").write_text(text)
    place.office.take(load(place.directory / "node.conf", {}))


def send(client: Any, **words: str) -> str:
    answer = client.post("/console/send", data={"topic": "orders/mail", **words}, headers=FORM)
    return str(answer.get_data(as_text=True))


def test_a_sample_is_the_topics_and_a_try_is_ones_own(place: Place) -> None:
    with raw_server(answering(DONE)) as server:
        at(place, server)
        hand = log_in(place.app.test_client(), place.desk, "hand", shop="operator")
        viola = log_in(place.app.test_client(), place.desk, "viola", shop="viewer")
        otto = log_in(place.app.test_client(), place.desk, "otto", bank="admin")
        assert "the bus would say: done" in send(hand, content='{"order": 7}')
        kept = {"topic": "orders/mail", "name": " an  order ", "content": '{"order": 8}'}
        assert hand.post("/console/save", data=kept, headers=FORM).status_code == 303
        for client, of_topic, own in ((hand, True, True), (viola, True, False), (otto, False, False)):
            text = client.get("/console?topic=orders/mail").get_data(as_text=True)
            assert ("an order" in text) == of_topic
            assert ("{&#34;order&#34;: 7}" in text) == own
        for client in (viola, otto):
            assert client.post("/console/save", data=kept, headers=FORM).status_code == 403
            assert client.post("/console/forget", data={**kept, "name": "an order"}, headers=FORM).status_code == 403
            assert "may not" in send(client, content="x")
        assert len(server.requests) == 1
        assert hand.post("/console/forget", data={**kept, "name": "an order"}, headers=FORM).status_code == 303
        assert samples.samples(place.desk.itself, "orders/mail") == []
    mode = {path.stat().st_mode & 0o777 for path in (place.config.bus.data_dir / "console").glob("*.json")}
    assert mode == {0o600}


def test_a_request_can_be_sent_again_from_a_shell(place: Place) -> None:
    with raw_server(answering(DONE)) as server:
        at(place, server, "        [[[headers]]]\n            X-Api-Key = geheim\n            X-Plain = seen\n")
        for content in (b'{"name": "O\'Brien & S\xc3\xb6hne"}', b"\x00\xff raw"):
            sent = consumer.send(place.desk.itself, "orders/mail", content)
            before = server.requests[-1]
            assert "geheim" not in sent.command
            assert "the-other-secret" not in sent.command
            assert "X-Api-Key: ***" in sent.command
            subprocess.run(["bash", "-c", sent.command], check=True, capture_output=True, timeout=20)
            again = server.requests[-1]
            assert (again.body, again.head) == (before.body, before.head)
            assert (again.headers["x-plain"], again.headers["x-pepperbus-job-id"]) == ("seen", sent.id)
        pinged = consumer.ping(place.desk.itself, "orders/mail")
        assert "type=ping" in pinged.command


@pytest.mark.parametrize("timeout", [-1.0, 3601.0, 1e300, float("nan")])
def test_nobody_waits_for_ever(place: Place, timeout: float) -> None:
    with pytest.raises(UsageError, match="at most 3600 s"):
        consumer.send(place.desk.itself, "orders/mail", b"x", timeout=timeout)


def test_a_fastcgi_request_is_one_for_cgi_fcgi(place: Place) -> None:
    (place.directory / "node.conf").write_text(
        (place.directory / "node.conf").read_text() + "[fastcgi]\n    [[php]]\n        address = unix:/none/php.sock\n"
    )
    (place.directory / "queues.d" / "orders.conf").write_text(
        "password = x\nsystem = shop\n[topics]\n  [[mail]]\n    run = fastcgi\n    pool = php\n    script = /app/x.php\n"
        "    [[[params]]]\n      APP_ENV = test\n      DB_PASSWORD = geheim\n"
    )
    place.office.take(load(place.directory / "node.conf", {}))
    sent = consumer.send(place.desk.itself, "orders/mail", b"it's")
    assert sent.command.endswith("cgi-fcgi -bind -connect /none/php.sock")
    assert "SCRIPT_FILENAME=/app/x.php" in sent.command
    assert f"PEPPERBUS_JOB_ID={sent.id}" in sent.command
    assert "APP_ENV=test" in sent.command
    assert "geheim" not in sent.command


def test_a_pushed_job_is_followed_to_its_end(place: Place) -> None:
    (job,) = place.push(1)
    text = place.text(f"/console/follow/{job}")
    assert "orders/mail" in text
    assert f"/console/follow/{job}?look=2" in text, "it waits, so the page asks again"
    place.kill(1, "boom")
    text = place.text(f"/console/follow/{job}")
    assert "boom" in text
    assert "hx-get" not in text
    assert "hx-get" not in place.text(f"/console/follow/{job}?look=500")
