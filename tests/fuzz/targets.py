"""What every parser of bytes from outside must hold for any bytes; one function a parser, shared by Hypothesis and atheris.

A target takes bytes and returns nothing; any exception that leaves it is a bug found. Cuts and the like are drawn from
the bytes themselves, so the same bytes are always the same test: a file of them in tests/vectors/<target> is a replay.
"""

from __future__ import annotations

import json
import random
import re
import socket
import tempfile
import threading
import zlib
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import msgspec
from gevent import socket as gsocket
from gevent.event import AsyncResult

from pepperbus import stats
from pepperbus.config import checks, values
from pepperbus.config import load as loading
from pepperbus.config.model import Config
from pepperbus.delivery import verdict_php
from pepperbus.delivery.contract import Transport
from pepperbus.delivery.deadlines import UnderWay
from pepperbus.delivery.http_answer import KEEP_BODY, Failed, Known
from pepperbus.delivery.http_connection import Connection
from pepperbus.delivery.http_exchange import Exchange as HttpExchange
from pepperbus.delivery.http_request import Url
from pepperbus.errors import ConfigError, NotReachable, ProtocolError, StorageUnavailable, StorageUnknown
from pepperbus.job import Job, job_json
from pepperbus.journal import log as journal_log
from pepperbus.journal.contract import Row
from pepperbus.master import control
from pepperbus.operations.life import php_place
from pepperbus.storage.redis_url import Address
from pepperbus.storage.redis_wire import Connection as Connected
from pepperbus.wire import fastcgi, resp
from tests.unit.resp_oracle import read_all

SMALL = resp.Limits(max_inline=64, max_bulk=200, max_args=20)
READ = 64 << 10
_URL = Url.parse("http://consumer.example/x")


def pieces(data: bytes, most: int = 6) -> list[bytes]:
    """`data` cut at places that depend on nothing but `data`."""
    draw = random.Random(zlib.crc32(data))
    cuts = sorted(draw.randint(0, len(data)) for _ in range(draw.randint(0, most)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


# --- RESP


def resp_requests(data: bytes) -> None:
    """The first byte: odd = the client has logged in. Whole, cut and byte by byte give what the plain reader reads."""
    trusted, data = bool(data[:1] and data[0] & 1), data[1:]
    expected, broken = read_all(data, SMALL, trusted)
    texts = set()
    for cut in ([data], pieces(data), [data[i : i + 1] for i in range(len(data))]):
        found, parser = _commands(cut, trusted)
        assert found == expected
        assert (parser.error is not None) == broken
        texts.add(str(parser.error))
    assert len(texts) == 1, f"the words of the error depend on the cut: {texts}"


def _commands(cut: list[bytes], trusted: bool) -> tuple[list[list[bytes]], resp.RequestParser]:
    parser = resp.RequestParser(SMALL, trusted=trusted)
    found: list[list[bytes]] = []
    for piece in cut:
        parser.receive_data(piece)
        while commands := parser.commands():
            found += commands
        assert parser.pending <= max(SMALL.max_inline, SMALL.max_bulk + 2) + len(piece)
        if parser.error is not None:
            assert parser.pending == 0
    parser.receive_data(b"*1\r\n$4\r\nPING\r\n" if parser.error else b"")
    assert not parser.commands(), "something came out after an error"
    return found, parser


# --- FastCGI


def fastcgi_answer(data: bytes) -> None:
    """Any cut gives the same events or the same violation; what is kept stays under the caps; only ProtocolError leaves."""
    whole = _answer([data])
    assert _answer(pieces(data)) == whole
    if len(data) <= 4096:
        assert _answer([data[i : i + 1] for i in range(len(data))]) == whole


def _answer(cut: list[bytes]) -> tuple[list[fastcgi.Event], str, object]:
    reader, reply = fastcgi.Reader(), fastcgi.Reply()
    events: list[fastcgi.Event] = []
    violation = ""
    try:
        for piece in cut:
            reader.receive_data(piece)
            while (event := reader.next_event()) is not None:
                events.append(event)
                reply.take(event)
    except ProtocolError as error:
        violation = str(error)
    assert len(reply.stdout) <= fastcgi.MOST_HEADER + fastcgi.MOST_BODY
    assert len(reply.stderr) <= fastcgi.MOST_STDERR
    return events, violation, cgi_parsed(bytes(reply.stdout))


def cgi_parsed(stdout: bytes) -> object:
    """What a script's output means, or the words of its violation."""
    try:
        status, headers, body = fastcgi.Reply(bytearray(stdout)).parse()
    except ProtocolError as error:
        return str(error)
    assert 0 <= status <= 999
    assert all("\n" not in name + value for name, value in headers.items())
    assert len(body) <= fastcgi.MOST_BODY
    return status, headers, body


def cgi_header(data: bytes) -> None:
    """A script's output as it is, without the records around it."""
    cgi_parsed(data)


def php_words(data: bytes) -> None:
    """What a script prints on stderr or shows in its answer, looked through for PHP's own words."""
    for said in (verdict_php.script_refused(data), verdict_php.fatal(data), verdict_php.shown_fatal(data)):
        assert said is None or said.isprintable()
    sent = verdict_php.post_refused(data, data)
    assert sent is None or all(size >= 0 for size in sent)
    file, line = php_place(data.decode(errors="replace"))
    assert bool(file) or line == 0


# --- a storage's answers


_ASKED = 3


def store_replies(data: bytes) -> None:
    """A Redis gone mad: the same answers or the same failure, whole and cut."""
    whole = _replies([data])
    assert _replies(pieces(data)) == whole


def _replies(cut: list[bytes]) -> object:
    """What three commands ended in: their answers, or which of the two failures; nothing else may leave."""
    with tempfile.TemporaryDirectory(prefix="pepperbus-fuzz-") as name:
        path = f"{name}/s"
        with gsocket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            server = gevent.spawn(_rave, listener, cut)
            connection = Connected(Address(path=path), monotonic() + 30)
            try:
                answers = connection.tell(*[(b"LLEN", b"x")] * _ASKED)
            except (StorageUnavailable, StorageUnknown) as error:
                assert str(error).isprintable(), f"a message that a terminal would obey: {error!r}"
                return type(error).__name__
            finally:
                server.join()
                connection.drop()
            return repr(answers)


def _rave(listener: Any, cut: list[bytes]) -> None:
    sock, _ = listener.accept()
    with sock:
        try:
            sock.recv(READ)
            sock.sendall(b"+PONG\r\n")
            sock.recv(READ)
            for piece in cut:
                sock.sendall(piece)
                gevent.sleep(0)
        except OSError:
            pass  # we hung up on nonsense, as we should


# --- HTTP


def http_answer(data: bytes) -> None:
    """The same answer, or the same row, whole and cut; never more than the cap; never an exception but Failed."""
    whole = _exchange([data])
    assert _exchange(pieces(data)) == whole
    known = Known()
    assert _by_callbacks(pieces(data), known) == whole
    assert _by_callbacks([data], known) == whole
    assert _by_callbacks([data], known) == whole, "the same bytes say something else the second time"


def _exchange(cut: list[bytes]) -> tuple[Any, ...]:
    ours, theirs = gsocket.socketpair()
    connection = Connection(_URL, ours)
    consumer = gevent.spawn(_say, theirs, cut)
    try:
        answer = connection.exchange(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", monotonic() + 30)
    except Failed as failure:
        assert failure.transport in (Transport.CUT, Transport.TIMEOUT)
        assert failure.transport is Transport.CUT, "the peer had closed, and we waited for it"
        assert not connection.reusable
        return failure.transport, ""
    finally:
        consumer.kill()
        connection.close()
        theirs.close()
    assert answer.status is not None
    assert 200 <= answer.status <= 999
    assert len(answer.body) <= KEEP_BODY
    return answer.transport, answer.status, answer.headers, answer.body


def _by_callbacks(cut: list[bytes], known: Known) -> tuple[Any, ...]:
    ours, theirs = gsocket.socketpair()
    connection, under_way, ended = Connection(_URL, ours), UnderWay(gevent.get_hub().loop), AsyncResult()
    consumer = gevent.spawn(_say, theirs, cut)
    out = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
    try:
        HttpExchange(connection, out, 5.0, lambda exchange, answer: ended.set(answer), known, under_way)
        answer = ended.get(timeout=10)
        assert not list(under_way)
        assert connection.reusable <= (answer.transport is Transport.ANSWERED)
    finally:
        under_way.close()
        consumer.kill()
        connection.close()
        theirs.close()
    if answer.transport is not Transport.ANSWERED:
        return answer.transport, ""
    return answer.transport, answer.status, answer.headers, answer.body


def _say(sock: Any, cut: list[bytes]) -> None:
    try:
        sock.recv(READ)
        for piece in cut:
            sock.sendall(piece)
            gevent.sleep(0)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # we hung up on nonsense, as we should


# --- configuration


CANARY = "canary-Xq7"


@cache
def _desk() -> tuple[Path, Config]:
    """A valid node in a directory of its own, for the queue files."""
    directory = Path(tempfile.mkdtemp(prefix="pepperbus-fuzz-"))
    (directory / "queues.d").mkdir()
    (directory / "good.conf").write_text("queue_files = queues.d/*.conf\n[storages]\n[[local]]\ntype = embedded\n")
    return directory, loading.load(directory / "good.conf", {})


def node_file(data: bytes) -> None:
    """A node's file: a whole Config, or ConfigError whose every line is one line and shows no secret."""
    if re.search(rb"queue_files[^\n]*" + CANARY.encode(), data):
        return  # moved from the password's line to one that may be shown
    directory, _ = _desk()
    file = directory / "node.conf"
    file.write_bytes(data)
    try:
        config = loading.load(file, {})
    except ConfigError as error:
        _check_mistakes(error)
        return
    assert CANARY not in repr(config)
    assert all(isinstance(note, str) for note in loading.notes(config))


def queue_file(data: bytes) -> None:
    """A queue's file, as an edit would bring it: a whole Queue, or ConfigError."""
    _, config = _desk()
    try:
        queue = loading.load_queue_text(data.decode(errors="surrogateescape"), "orders", config)
    except ConfigError as error:
        _check_mistakes(error)
        return
    shown = replace(queue, topics={name: replace(t, params=(), headers=()) for name, t in queue.topics.items()})
    assert CANARY not in repr(shown)
    for topic in queue.topics.values():
        assert all(topic.backoff.wait_s(n) >= 0 for n in (1, 2, 50, topic.attempts))
    asdict(queue)


def _check_mistakes(error: ConfigError) -> None:
    assert error.mistakes
    for mistake in error.mistakes:
        assert mistake.isprintable(), f"a mistake that a terminal would obey: {mistake!r}"
        # A line that is no pair at all may be anything; what stands behind a key never shows.
        assert CANARY not in mistake or ("neither" in mistake and "=" not in mistake.split(": neither")[0]), mistake


def option_values(data: bytes) -> None:
    """Every kind of value: what it means, or ValueError that says what is allowed."""
    text = data.decode(errors="replace")
    raws: list[values.Raw] = [text]
    if "," in text:
        raws.append([part.strip() for part in text.split(",") if part.strip()])
    for raw in raws:
        for name, check in checks.CHECKS.items():
            try:
                value = check(raw)
            except ValueError as error:
                assert str(error), name
                continue
            if name == "duration":
                assert 0 <= value <= values.LONGEST
            elif name == "size":
                assert value >= 0
            elif name == "backoff":
                assert all(0 <= value.wait_s(n, 0.5) <= 31 * 86400 * n for n in (1, 2, 3, 100))
            elif name == "urls":
                for url in value:
                    assert Url.parse(url).netloc


# --- journal, jobs, statistics


def journal_file(data: bytes) -> None:
    """Rows until the first broken record, never an exception; and rows in front of garbage are all read."""
    rows = list(journal_log.read(data))
    ends = [end for _, end in rows]
    assert ends == sorted(set(ends))
    assert all(end <= len(data) for end in ends)
    good = [row for row, _ in rows]
    before = [Row("attempt", 7, "orders/mail", 1), Row("dead", 8, "orders/mail", 2, body=b"\xff")]
    ours = b"".join(framed(msgspec.msgpack.encode(row)) for row in before)
    assert [row for row, _ in journal_log.read(ours + data)] == [*before, *good]
    for cut in (1, len(ours) // 2, len(ours) - 1):
        assert [row for row, _ in journal_log.read(ours[:cut])] == before[: 1 if cut > len(ours) // 2 else 0][:1]
    assert [row for row, _ in journal_log.read(ours, len(ours))] == []


def journal_record(data: bytes) -> None:
    """The same inside a record whose length and checksum are right."""
    journal_file(framed(data))


def framed(record: bytes) -> bytes:
    """One journal record around `record`."""
    return len(record).to_bytes(4, "little") + zlib.crc32(record).to_bytes(4, "little") + record


def job_envelope(data: bytes) -> None:
    """A job or ValueError; a job that comes out goes in again as the same; a torn one is never taken for whole."""
    try:
        job = Job.decode(data)
    except ValueError:
        return
    again = Job.decode(job.encode())
    assert again._replace(client="") == job._replace(client="")
    assert job.client.startswith(again.client.rstrip("\ufffd"))  # a name that is no UTF-8 may lose its end
    assert json.loads(job_json(job))["id"] == str(job.id)
    head = len(data) - len(job.content)
    for cut in {0, head // 2, head - 1}:
        try:
            torn = Job.decode(data[:cut])
        except ValueError:
            continue
        raise AssertionError(f"{cut} of {head} bytes of the envelope were taken for a job: {torn}")


def stats_file(data: bytes) -> None:
    """A slot's file from another version, torn or overwritten: what can be read is counted, the rest is passed over."""
    with tempfile.TemporaryDirectory(prefix="pepperbus-fuzz-") as name:
        path = Path(name) / "worker.x.0.stats"
        path.write_bytes(data)
        for totals in stats.read_all(path.parent).values():
            assert all(count >= 0 for count in totals.counters)
            for histogram in totals.histograms.values():
                histogram.percentile(0.99)


# --- the control socket


def control_requests(data: bytes) -> None:
    """The master's end: lines in any cut give the same requests; nonsense is None; a flood without end is hung up on."""
    whole = _requests([data])
    assert _requests(pieces(data)) == whole


def _requests(cut: list[bytes]) -> list[dict[str, Any] | None]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        client = control.Client(ours)
        found: list[dict[str, Any] | None] = []
        for piece in cut:
            for at in range(0, len(piece), 16 << 10):
                theirs.sendall(piece[at : at + (16 << 10)])
                assert client.read() or len(data_of(cut)) > 1 << 20
                found += client.requests()
        return found


def data_of(cut: list[bytes]) -> bytes:
    return b"".join(cut)


def control_answer(data: bytes) -> None:
    """The asking end: a dict, or NotReachable in one line."""
    with tempfile.TemporaryDirectory(prefix="pepperbus-fuzz-") as name:
        run_dir = Path(name)
        with control.listen(run_dir) as server:
            server.setblocking(True)
            other = threading.Thread(target=_answer_once, args=(server, data))
            other.start()
            try:
                answer = control.ask(run_dir, {"op": "status"}, 30)
                assert isinstance(answer, dict)
            except NotReachable as error:
                assert str(error).isprintable()
            finally:
                other.join()


def _answer_once(server: socket.socket, data: bytes) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(READ)
        connection.sendall(data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        resp_requests, store_replies, fastcgi_answer, cgi_header, php_words, http_answer, node_file, queue_file, option_values,
        journal_file, journal_record, job_envelope, stats_file, control_requests, control_answer,
    )
}  # fmt: skip
