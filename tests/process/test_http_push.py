"""POST /push/QUEUE on a real bus: the logins, single jobs and batches, the status codes; and a trace that goes on."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.error
import urllib.request
from typing import Any

from tests.fixtures.bus import NODE, Bus

PULL = "storage = local\n[topics]\n    [[mail]]\n        run = pull\n        pop = leased\n"
QUEUES = {
    "orders": f"password = pw\nsystem = shop\n{PULL}",
    "answers": f"password = pw\nreply = redis\n{PULL}",
    "near": f"open = loopback\npassword = pw\n{PULL}",
    "full": f"password = pw\n{PULL}        max_length = 1\n",
}
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def post(bus: Bus, path: str, body: bytes | str = b"x", **headers: str) -> tuple[int, Any]:
    """The status and the JSON of the answer."""
    data = body.encode() if isinstance(body, str) else body
    words = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(
        f"http://127.0.0.1:{bus.web_port}{path}", data, {"Content-Type": "text/plain", **words}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as answer:
        text = answer.read()
        if answer.code == 401:
            text = text if "WWW-Authenticate" in answer.headers else b"no challenge"
        return answer.code, json.loads(text)


def test_everything_over_http(buses: Any) -> None:
    node = NODE + "[logins]\n    shop = pw2, push, orders\n    taker = pw3, push|pop, *\n"
    bus: Bus = buses.start(node, queues=QUEUES)
    pw = basic("orders", "pw")

    # one job; the reply is LPUSH's
    status, answer = post(bus, "/push/orders", "hello", **pw)
    assert (status, answer["error"], len(answer["jobs"])) == (200, "", 1)
    assert answer["inTraceId"].split("-")[0].isdigit()
    taker = bus.client("taker", "pw3")
    assert taker.brpop("orders", 9) == (b"orders", b"hello")

    # as curl does it, bytes as they are
    raw = bytes(range(256))
    done = subprocess.run(
        ["curl", "-s", "-u", "orders:pw", "--data-binary", "@-", f"http://127.0.0.1:{bus.web_port}/push/orders"],
        input=raw, capture_output=True, timeout=30, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["error"] == ""
    assert taker.brpop("orders", 9) == (b"orders", raw)

    # the other ways to say who one is
    for headers in (
        basic("shop", "pw2"),
        {"Authorization": "Bearer pw"},
        {"X_Pepperbus_Password": "pw"},
        basic("", "pw"),
    ):
        assert post(bus, "/push/orders", "x", **headers)[0] == 200, headers
    chief = {"Authorization": f"Bearer {bus.token()}"}
    operator = {"Authorization": f"Bearer {bus.token(shop='operator')}"}
    assert post(bus, "/push/orders", "x", **operator)[0] == 200
    assert post(bus, "/push/near", "x")[0] == 200, "open to this machine"
    assert len(taker.rpop("orders", 9)) == 5

    # who may not
    viewer = {"Authorization": f"Bearer {bus.token(shop='viewer')}"}
    assert post(bus, "/push/orders", "x")[0] == 401
    assert post(bus, "/push/none", "x")[0] == 401
    assert post(bus, "/push/orders", "x", **basic("orders", "no")) == (
        401, {"jobs": None, "inTraceId": "", "error": "NOAUTH invalid password"},
    )  # fmt: skip
    assert post(bus, "/push/orders", "x", **viewer)[0] == 403
    assert post(bus, "/push/answers", "x", **basic("shop", "pw2"))[0] == 403
    assert post(bus, "/push/near", "x", X_Forwarded_For="203.0.113.9")[0] == 401, "a proxy is not this machine"
    assert post(bus, "/push/near", "x", X_Forwarded_For="203.0.113.9", **pw)[0] == 403, (
        "nor does another queue's password"
    )
    assert post(bus, "/push/near", "x", **basic("near", "no"))[0] == 401, "a wrong password is not none"
    assert post(bus, "/push/near", "x", **operator)[0] == 403, "another system's"
    assert post(bus, "/push/none", "x", **chief)[0] == 404
    assert post(bus, "/push/orders", "x", Origin="http://evil.example", **pw)[0] == 403

    # batches: stored together, in order
    status, answer = post(bus, "/push/answers?batch=1", '["a", {"n": 1}, 7]', **basic("answers", "pw"))
    assert (status, len(answer["jobs"])) == (200, 3), "the JSON also where a queue answers integers"
    assert taker.rpop("answers", 9) == [b"a", b'{"n": 1}', b"7"]
    lines = '{"n":1}\n\n{"n":2}\r\n'
    assert len(post(bus, "/push/orders", lines, Content_Type="application/x-ndjson", **pw)[1]["jobs"]) == 2
    assert taker.rpop("orders", 9) == [b'{"n":1}', b'{"n":2}']
    for path in ("/push/orders?batch=1&front=1", "/push/orders?batch=1"):
        assert post(bus, path, '["1", "2"]', **pw)[0] == 200
    assert taker.rpop("orders", 9) == [b"1", b"2", b"1", b"2"]

    # later
    assert post(bus, "/push/orders?delay=0.2", "later", **pw)[0] == 200
    assert taker.brpop("orders", 18) == (b"orders", b"later")
    assert post(bus, "/push/orders?at=4102444800", "much later", **pw)[0] == 200
    assert taker.hgetall("orders/mail")[b"delayed"] == b"1"

    # mistakes say what would be right
    for path, body, code, text in (
        ("/push/orders", "", 400, "empty jobs"),
        ("/push/orders?batch=1", "{}", 400, "batch=1 wants a JSON array"),
        ("/push/orders?delay=x", "x", 400, "delay is seconds"),
        ("/push/orders?at=1700000000000", "x", 400, "at is a unix time in seconds"),
        ("/push/orders?delay=5&front=1", "x", 400, "front is for jobs that may run at once"),
        ("/push/orders", b"x" * (8 * 1024 * 1024 + 1), 413, "larger than [gateway] max_bulk"),
    ):
        status, answer = post(bus, path, body, **pw)
        assert (status, answer["jobs"]) == (code, None), path
        assert text in answer["error"], path
    assert post(bus, "/push/full", "x", **basic("full", "pw"))[0] == 200
    assert post(bus, "/push/full", "x", **basic("full", "pw"))[0] == 429

    # a trace goes on: over HTTP, and in Redis' words
    assert post(bus, "/push/orders", "x", traceparent=PARENT, **pw)[1]["inTraceId"] == PARENT
    job = json.loads(taker.rpop("orders/mail"))["jobs"][0]
    assert job["inTraceId"] == PARENT
    assert post(bus, "/push/orders", "x", traceparent="nonsense", **pw)[1]["inTraceId"] != "nonsense"
    assert taker.execute_command("CLIENT", "TRACEPARENT", PARENT) == b"OK"
    assert json.loads(taker.lpush("orders/x", "y"))["inTraceId"] == PARENT
    assert taker.execute_command("CLIENT", "TRACEPARENT", "") == b"OK"
    assert json.loads(taker.lpush("orders/x", "y"))["inTraceId"] != PARENT
    taker.close()

    # no gateway: definite, nothing was stored
    assert bus.stop() == 0
