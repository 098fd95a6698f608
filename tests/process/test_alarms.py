"""Alarms of a real bus: its ticker, a webhook and a mail server beside it, the dashboard closed."""

from __future__ import annotations

import base64
import hmac
import json
import re
import socket
import socketserver
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from hashlib import sha256
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.fixtures.bus import NODE, Bus
from tests.fixtures.http import RawServer, Seen, answering, raw_server, read_request
from tests.fixtures.redis import ALWAYS, running
from tests.process.test_web import ask, bearer
from tests.process.test_web import until as wait_until
from tests.unit.test_alarm_files import metrics_in_dashboard, metrics_in_rules

SECRET = "a secret of the alarms"
FAILED = b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nboom"
TAKEN = b"HTTP/1.1 204 Taken\r\nContent-Length: 0\r\n\r\n"
BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
ALARMS = """\
[alarms]
    every = 200ms
    gather = 1s
    dashboard = https://bus.example.com
    [[channels]]
        [[[hook]]]
            url = http://127.0.0.1:@HOOK@/alarms
            sign = a secret of the alarms
        [[[post]]]
            type = mail
            server = 127.0.0.1:@MAIL@
            security = none
            sender = bus@example.com
            to = ops@example.com, boss@example.com
            language = zh
        [[[chat]]]
            type = apprise
            url = gotify://127.0.0.1:@CHAT@/Abcdefghijklmno
            rules = storage_left
            language = zh
    [[rules]]
        backlog = 1000 for 1m
        consumer_down = off
        failures = off
"""
QUEUE = """\
open = loopback
storage = local
system = shop
run = http
url = @URL@
contract = status
attempts = 1
[topics]
    [[mail]]
    [[audit]]
    [[stock]]
"""


LATER = """\
open = loopback
storage = local
paused = yes
[alarms]
    backlog = 2
[topics]
    [[on]]
        run = http
        url = http://127.0.0.1:9/
"""


class Mailbox(socketserver.ThreadingTCPServer):
    """As much of RFC 5321 as a client that sends needs; keeps what it was given."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        self.letters: list[tuple[list[str], EmailMessage]] = []
        super().__init__(("127.0.0.1", 0), _Talk)

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Talk(socketserver.StreamRequestHandler):
    server: Mailbox

    def handle(self) -> None:
        self._say("220 here")
        to: list[str] = []
        while line := self.rfile.readline().decode().strip():
            word = line.split(" ")[0].upper()
            if word == "RCPT":
                to.append(line.partition("<")[2].partition(">")[0])
            if word == "DATA":
                self._say("354 go on")
                data = b"".join(iter(self.rfile.readline, b".\r\n"))
                letter = message_from_bytes(data, policy=policy.default)
                assert isinstance(letter, EmailMessage)
                self.server.letters.append((to, letter))
            self._say("221 bye" if word == "QUIT" else "250 ok")
            if word == "QUIT":
                return

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    with Mailbox() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(5)


def until(get: Any, good: Any) -> Any:
    return wait_until(get, good, 30.0)


def alarms_to(hook: RawServer, box: Mailbox, chat: RawServer) -> str:
    ports = {"@HOOK@": hook.port, "@MAIL@": box.port, "@CHAT@": chat.port}
    return re.sub(r"@[A-Z]+@", lambda match: str(ports.get(match[0], match[0])), ALARMS)


def alarms(bus: Bus, *words: str) -> Any:
    """`pepperbus alarm …`, as JSON."""
    done = bus.cli("--json", "alarm", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def told(server: RawServer) -> list[dict[str, Any]]:
    return [json.loads(seen.body) for seen in server.requests]


def said(server: RawServer) -> list[tuple[str, str, str]]:
    """(kind, rule, subject) of every incident in every message that was taken, in order; a repeated try counts once."""
    messages = {message["id"]: message for message in told(server)}
    return [(one["kind"], line["rule"], line["subject"]) for one in messages.values() for line in one["incidents"]]


def busy_once(conn: socket.socket, server: RawServer, number: int) -> None:
    """The first message is refused, all others are taken."""
    while (seen := read_request(conn, number)) is not None:
        server.requests.append(seen)
        conn.sendall(BUSY if len(server.requests) == 1 else TAKEN)


def is_signed(seen: Seen) -> bool:
    text = f"{seen.headers['webhook-id']}.{seen.headers['webhook-timestamp']}.".encode() + seen.body
    wanted = base64.b64encode(hmac.digest(SECRET.encode(), text, sha256)).decode()
    return seen.headers["webhook-signature"] == f"v1,{wanted}"


def page(bus: Bus, path: str, language: str = "en") -> str:
    headers = {**bearer(bus), "Accept": "text/html", "Cookie": f"pepperbus_language={language}"}
    request = urllib.request.Request(f"http://127.0.0.1:{bus.web_port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(answer.read().decode())


def test_a_day_of_alarms(buses: Any) -> None:
    together = threading.Barrier(3, timeout=60)

    def refuse(conn: socket.socket, server: RawServer, number: int) -> None:
        while read_request(conn, number) is not None:
            together.wait()  # all three fail in one moment, however slow the machine is
            conn.sendall(FAILED)

    with (
        raw_server(refuse) as consumer,
        raw_server(busy_once) as hook,
        raw_server(answering(TAKEN.replace(b"204", b"200"))) as chat,
        mailbox() as box,
    ):
        node = NODE + alarms_to(hook, box, chat)
        queues = {"orders": QUEUE.replace("@URL@", consumer.url), "later": LATER, "other": LATER}
        bus = buses.start(node, queues)
        begun = [("begin", "dead", f"orders/{topic}") for topic in ("audit", "mail", "stock")]

        # Three topics fail together: one message, refused once and sent again with the same id; and one letter.
        bus.client().lpush("orders", "broken")
        until(lambda: told(hook), lambda found: len(found) == 2)
        assert sorted(said(hook)) == begun
        assert len({seen.headers["webhook-id"] for seen in hook.requests}) == 1
        assert all(is_signed(seen) for seen in hook.requests)
        assert told(hook)[0]["incidents"][0]["url"].startswith("https://bus.example.com/topics/orders/")
        ((to, letter),) = until(lambda: box.letters, bool)
        assert to == ["ops@example.com", "boss@example.com"]
        assert "3 条告警" in letter["Subject"]
        assert "死信" in letter.get_content()

        # Killed with everything it had: it goes on where it was, and says nothing twice.
        bus.kill_family()
        bus.start()
        bus.client().lpush("later", "a", "b")
        until(lambda: said(hook), lambda found: ("begin", "backlog", "later/on") in found)
        assert sorted(said(hook)) == [("begin", "backlog", "later/on"), *begun]
        state = ask(bus, "/api/v1/alarms")[1]
        assert sorted(one["subject"] for one in state["open"]) == ["later/on", *(subject for *_, subject in begun)]
        until(lambda: ask(bus, "/api/v1/alarms")[1]["channels"], lambda found: not any(one["waiting"] for one in found))

        # Silenced: seen, not told. Told once the silence is over.
        silenced = alarms(bus, "silence", "other", "--rule", "backlog", "--for", "1h", "--why", "an import")
        bus.client().lpush("other", "a", "b")
        until(lambda: ask(bus, "/api/v1/alarms")[1]["open"], lambda found: len(found) == 5)
        seen = alarms(bus, "list")
        assert [one["subject"] for one in seen["open"] if one["silenced"]] == ["other/on"]
        assert seen["silences"][0]["why"] == "an import"

        # The test button goes the way of an alarm; what was silenced is not before it.
        assert ask(bus, "/api/v1/alarms/test", {"channel": "hook"})[1]["channels"] == {"hook": ""}
        assert told(hook)[-1]["kind"] == "test"
        assert ask(bus, "/api/v1/alarms/test", {"channel": "chat"})[1]["channels"] == {"chat": ""}
        assert "一切正常" in json.loads(chat.requests[0].body)["message"]
        assert "other/on" not in str(said(hook))
        assert ask(bus, f"/api/v1/alarms/silences/{silenced['id']}", method="DELETE")[0] == 200
        until(lambda: said(hook), lambda found: ("begin", "backlog", "other/on") in found)

        # Over: each is told once.
        for topic in ("mail", "audit", "stock"):
            assert ask(bus, f"/api/v1/topics/orders/{topic}/purge", {"state": "dead"})[1]["removed"] == 1
        until(lambda: said(hook), lambda found: sum(kind == "end" for kind, *_ in found) == 3)
        assert sorted(one for one in said(hook) if one[0] == "end") == [("end", *one[1:]) for one in begun]
        assert sum(kind == "begin" for kind, *_ in said(hook)) == 5
        past = ask(bus, "/api/v1/alarms/history?subject=orders&language=zh")[1]["alarms"]
        assert [one["ended_ms"] > one["told_ms"] > one["began_ms"] > 0 for one in past] == [True] * 3
        assert "个死信" in past[0]["text"]

        # On the pages, and in what Prometheus gets: every metric that our files for it and for Grafana name.
        assert "later/on: 2 jobs wait" in page(bus, "/alarms")
        assert "later/on：2 个任务在等待" in page(bus, "/alarms", "zh")
        assert 'class="open-alarms"' in page(bus, "/queues")
        assert "later/on: 2 jobs wait" in page(bus, "/topics/later/on")
        exported = {
            sample.name for family in text_string_to_metric_families(page(bus, "/metrics")) for sample in family.samples
        }
        assert (metrics_in_rules() | metrics_in_dashboard()) - exported == set()


def test_of_two_nodes_that_share_a_redis_one_speaks(buses: Any) -> None:
    with running(ALWAYS) as redis, raw_server(answering(TAKEN)) as hook, mailbox() as box:
        alarms_ = alarms_to(hook, box, hook)
        shared = "[storages]\n    [[local]]\n        type = redis\n        url = " + redis.url + "\n"
        nodes = []
        for shard, name in ((2, "n1"), (3, "n2")):
            text = NODE.partition("[storages]")[0].replace("node = test", f"node = {name}\n    shard = {shard}")
            nodes.append(buses.start(text + shared + alarms_, {"later": LATER}))
        nodes[0].client().lpush("later", "a", "b")

        def seen() -> list[dict[str, Any]]:
            return [one for bus in nodes for one in ask(bus, "/api/v1/alarms")[1]["open"]]

        both = until(seen, lambda found: len(found) == 2 and all(one["told_ms"] for one in found))
        until(lambda: said(hook), bool)
        (speaker,) = {one["spoken_by"] for one in both} - {""}
        assert said(hook) == [("begin", "backlog", "later/on")]
        assert told(hook)[0]["node"] == speaker
        assert ask(nodes[1], "/api/v1/topics/later/on/purge", {"state": "ready"})[1]["removed"] == 2
        until(lambda: [ask(bus, "/api/v1/alarms")[1]["open"] for bus in nodes], lambda found: found == [[], []])
        until(lambda: said(hook), lambda found: len(found) == 2)
        assert said(hook) == [("begin", "backlog", "later/on"), ("end", "backlog", "later/on")]
        assert {message["node"] for message in told(hook)} == {speaker}
