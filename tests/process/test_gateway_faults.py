"""Clients that misbehave, storages that fail, reloads, kills: the process lives, and no answer is a lie."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pepperbus import stats
from tests.fixtures.redis import running as running_redis
from tests.process.gateway_running import QUEUES, Running, Wire, pack, running, spec


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Running]:
    with running(spec(tmp_path)) as one:
        yield one


@pytest.fixture
def wire(gateway: Running) -> Iterator[Wire]:
    one = gateway.connect()
    yield one
    one.close()


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.01)


def memory_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


# -- the protocol, beside a real Redis -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Iterator[Path]:
    """A real redis-server with a password, on a unix socket."""
    with running_redis({"requirepass": "pw"}) as server:
        yield server.path


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(spec(tmp_path_factory.mktemp("ours"))) as one:
        yield one


BROKEN = [
    b"*1\r\n$536870913\r\n", b"*1\r\n$-1\r\n", b"*1\r\n$+4\r\nECHO\r\n", b"*-5\r\n", b"*0\r\n", b"*1\r\n*1\r\n$1\r\na\r\n",
    b"*99999999999999999999\r\n", b"*x\r\n", b"*1\r\nx4\r\n", b"x" * 300_000, b"*" + b"1" * 70_000, b'"unbalanced\r\n',
    b"*1\r\n$" + b"9" * 70_000, b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n", b"Host: x\r\n", b"\x16\x03\x01\x02\x01\r\n",
    b"\r\n\r\n", bytes(range(1, 10)) + b"\r\n", b"%1\r\n", b"_\r\n", b"",
]  # fmt: skip


@pytest.mark.parametrize("known", [False, True], ids=["stranger", "known"])
@pytest.mark.parametrize("data", BROKEN, ids=lambda data: repr(data[:24]))
def test_same_class_of_error_as_redis(ours: Running, real: Path, data: bytes, known: bool) -> None:
    """Error or none, and whether the connection stays open: as Redis does it."""
    theirs = socket.socket(socket.AF_UNIX)
    theirs.connect(str(real))
    outcomes = []
    for one, login in ((ours.connect(), b"AUTH new:pw\r\n"), (Wire(theirs), b"AUTH pw\r\n")):
        if known:
            one.send(login)
            assert one.reply() == b"+OK\r\n"
        with contextlib.suppress(OSError):
            one.send(data + b"ECHO end\r\n" if known else data + b"QUIT\r\n")
        outcomes.append(_outcome(one))
        one.close()
    if data[:5] in (b"POST ", b"Host:"):
        outcomes[0] = outcomes[0].replace(b"error ", b"")  # Redis closes without a word, we say why
    assert outcomes[0] == outcomes[1]


def _outcome(one: Wire) -> bytes:
    seen = b""
    try:
        while (reply := one.reply()) and not reply.startswith((b"$3\r\nend", b"+OK")):
            seen += b"error " if reply.startswith(b"-") else reply
    except ConnectionResetError:
        reply = b""
    return seen + (b"open" if reply else b"closed")


def test_announced_sizes_cost_nothing(gateway: Running) -> None:
    """300 clients announce 8 MiB each and send little; then counts that hiredis alone would allocate."""
    before = memory_of(gateway.pid)
    clients = [gateway.connect() for _ in range(300)]
    for one in clients:
        one.send(pack("AUTH", "new:pw") + b"*3\r\n$5\r\nLPUSH\r\n$3\r\nnew\r\n$8388608\r\nabc")
    for one in clients:
        assert one.reply() == b"+OK\r\n"
    for head in (b"*65537\r\n", b"*300000000\r\n", b"*2\r\n$8388609\r\n"):
        one = gateway.connect()
        one.send(pack("AUTH", "new:pw") + head)
        assert b"-ERR Protocol error" in one.rest()
        one.close()
    assert memory_of(gateway.pid) - before < 60 << 20
    for one in clients:
        one.close()


def test_a_client_that_never_reads(gateway: Running, wire: Wire) -> None:
    """It is no longer read from, costs little and disturbs nobody."""
    before = memory_of(gateway.pid)
    deaf = gateway.connect()
    deaf.send(pack("AUTH", "new:pw"))
    deaf.sock.settimeout(1)
    big = pack("ECHO", b"x" * 60_000) * 100
    with pytest.raises(TimeoutError):
        for _ in range(40):
            deaf.send(big)
    wire.ask("AUTH", "new:pw")
    assert wire.ask("LPUSH", "new", "x") == b":1\r\n"
    assert memory_of(gateway.pid) - before < 60 << 20
    deaf.close()


def test_a_flood_does_not_starve_others(gateway: Running, wire: Wire) -> None:
    wire.ask("AUTH", "new:pw")
    flood = gateway.connect()
    flood.send(pack("AUTH", "new:pw"))
    data = pack("LPUSH", "new", "v") * 20_000
    rounds: list[list[float]] = []
    while not rounds or sorted(rounds[-1])[len(rounds[-1]) * 9 // 10] >= 0.5:
        assert len(rounds) < 5, rounds  # a machine under load is slow at times, who starves always
        flood.sock.setblocking(False)
        sent, took = 0, []
        while sent < len(data):
            with contextlib.suppress(BlockingIOError):
                sent += flood.sock.send(data[sent:])
            began = time.monotonic()
            assert wire.ask("ECHO", "x") == b"$1\r\nx\r\n"
            took.append(time.monotonic() - began)
        flood.sock.settimeout(20)
        if not rounds:
            assert flood.reply() == b"+OK\r\n"
        assert all(flood.reply() == b":1\r\n" for _ in range(20_000))
        rounds.append(took)
    flood.close()


def test_random_bytes_kill_nobody(gateway: Running) -> None:
    chance = random.Random(7)
    for _ in range(150):
        one = gateway.connect()
        prefix = pack("AUTH", "new:pw") if chance.random() < 0.5 else b""
        noise = bytearray(pack("LPUSH", "new", "v") * 3 + chance.randbytes(chance.randrange(60)))
        for _ in range(chance.randrange(4)):
            noise[chance.randrange(len(noise))] = chance.randrange(256)
        with contextlib.suppress(OSError):
            one.send(prefix + noise)
        one.close()
    assert gateway.process.poll() is None
    assert "internal" not in gateway.log
    assert "command_failed" not in gateway.log


def test_too_many_clients_and_running_out_of_descriptors(tmp_path: Path) -> None:
    with running(spec(tmp_path, gateway={"max_clients": 60})) as gateway:
        crowd = [gateway.connect() for _ in range(60)]
        wait_for(lambda: crowd[-1].ask("ECHO", "x") == b"$1\r\nx\r\n")
        assert gateway.connect().rest() == b"-ERR max number of clients reached\r\n"
        for one in crowd:
            one.close()
        wait_for(lambda: is_let_in(gateway))
        used = len(os.listdir(f"/proc/{gateway.pid}/fd"))
        resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE, (used + 10, 4096))
        crowd = [gateway.connect() for _ in range(20)]
        wait_for(lambda: "accept_paused" in gateway.log)
        for one in crowd:
            one.close()
        late = gateway.connect()
        assert late.ask("AUTH", "new:pw") == b"+OK\r\n"
        late.close()


def is_let_in(gateway: Running) -> bool:
    """Those who left may still be counted: then we are sent away, in the middle of what we say."""
    with contextlib.suppress(OSError):
        return gateway.connect().ask("ECHO", "x") == b"$1\r\nx\r\n"
    return False


def test_slow_strangers_are_sent_home(gateway: Running) -> None:
    """Ten seconds for the first command; a client that has logged in may be idle for as long."""
    began = time.monotonic()
    silent, known = gateway.connect(), gateway.connect()
    assert known.ask("AUTH", "new:pw") == b"+OK\r\n"
    silent.sock.settimeout(60)
    silent.send(b"*1\r\n$4\r\nPI")
    assert silent.rest() == b""
    assert 9 < time.monotonic() - began < 40
    assert known.ask("PING") == b"+PONG\r\n"
    silent.close()
    known.close()


# -- storages ----------------------------------------------------------------------------------------------------


def test_a_storage_that_is_down_at_start(tmp_path: Path) -> None:
    """The gateway serves, says `storage unavailable`, and stores as soon as it can."""
    path = tmp_path / "r.sock"
    storages = {"local": {"type": "redis", "url": f"unix://{path}?db=0", "store_timeout": 1.0}}
    with running(spec(tmp_path, storages=storages)) as gateway, contextlib.ExitStack() as stack:
        wire = gateway.connect()
        wire.ask("AUTH", "new:pw")
        assert wire.ask("LPUSH", "new", "x").startswith(b"-TRYAGAIN storage unavailable")
        assert wire.ask("LLEN", "new").startswith(b"-TRYAGAIN storage unavailable")
        old = gateway.connect()
        old.ask("AUTH", "old:pw")
        assert b'"jobs":null' in old.ask("LPUSH", "old/x", "x")
        words = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(tmp_path)]
        server = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        stack.callback(server.wait, 20)
        stack.callback(server.kill)
        wait_for(lambda: wire.ask("LPUSH", "new", "x") == b":1\r\n")
        server.send_signal(signal.SIGSTOP)
        wait_for(lambda: Path(f"/proc/{server.pid}/stat").read_text().rpartition(") ")[2][0] in "Tt")
        began = time.monotonic()
        assert wire.ask("LPUSH", "new", "unsure").startswith(b"-UNKNOWN ")
        assert b'"jobs":null' in old.ask("LPUSH", "old/x", "unsure")  # unknown, or refused by then
        assert time.monotonic() - began < 18
        server.send_signal(signal.SIGCONT)
        wait_for(lambda: wire.ask("LPUSH", "new", "x") == b":1\r\n")


def test_a_durability_that_the_storage_lacks_is_said(tmp_path: Path) -> None:
    with running(spec(tmp_path, durability="power")) as gateway:
        wire = gateway.connect()
        wire.ask("AUTH", "new:pw")
        reply = wire.ask("LPUSH", "new", "x")
        assert reply.startswith(
            b"-TRYAGAIN storage unavailable: local gives durability memory, the queue asks for power"
        )


# -- life of the process -------------------------------------------------------------------------------------------


def test_reload_in_place(gateway: Running, wire: Wire) -> None:
    kept, gone, changed = wire, gateway.connect(), gateway.connect()
    kept.ask("AUTH", "new:pw")
    gone.ask("AUTH", "old:pw")
    changed.ask("AUTH", "small:pw")
    assert kept.ask("LPUSH", "new", "1") == b":1\r\n"
    queues = {
        **QUEUES,
        "small": {**QUEUES["small"], "password": "other"},
        "fresh": {"password": "p", "topics": {"t": {}}},
    }
    del queues["old"]
    where = Path(gateway.spec["dir"])
    assert gateway.tell({"config": spec(where, queues=queues)})["done"]
    assert kept.ask("LPUSH", "new", "2") == b":1\r\n"
    assert kept.ask("LLEN", "new") == b":2\r\n"
    assert b'"error":"queue or Topic not exist old"' in gone.ask("LPUSH", "old/x", "v")
    assert changed.ask("LPUSH", "small", "v").startswith(b"-NOAUTH")
    assert changed.ask("PING").startswith(b"-NOAUTH")
    assert changed.ask("AUTH", "fresh:p") == b"+OK\r\n"
    assert changed.ask("LPUSH", "fresh", "v") == b":1\r\n"


def test_drain_answers_what_was_sent_and_leaves(gateway: Running, wire: Wire) -> None:
    wire.send(pack("AUTH", "new:pw") + pack("LPUSH", "new", "v") * 500)
    assert wire.reply() == b"+OK\r\n"
    gateway.tell({"drain": 600})  # not all of which it takes
    assert wire.rest() == b":1\r\n" * 500
    assert gateway.process.wait(40) == 0


def test_ids_after_a_kill_lie_above_all_before(tmp_path: Path) -> None:
    last = 0
    for _ in range(3):
        with running(spec(tmp_path)) as gateway:
            wire = gateway.connect()
            wire.ask("AUTH", "orders:pw:1")
            wire.send(pack("LPUSH", "orders/x", *["v"] * 40_000))  # runs ahead of the clock
            ids = [int(word) for word in wire.reply().split(b'"') if word.isdigit()]
            assert len(ids) == 40_000
            assert min(ids) > last
            last = max(ids)
            os.kill(gateway.pid, signal.SIGKILL)
            gateway.process.wait(20)
            wire.close()


def test_workers_are_woken_and_pushes_counted(gateway: Running, wire: Wire) -> None:
    wire.ask("AUTH", "orders:pw:1")
    wire.ask("LPUSH", "orders", "a", "b")
    wire.ask("LPUSH", "orders", "c")
    wire.ask("LPUSH", "orders/x")
    assert gateway.tell({})["woken"] == {"orders": 2, "old": 0, "new": 0, "small": 0, "empty": 0}
    totals = stats.read_all(Path(gateway.spec["dir"]) / "run" / "stats")
    assert totals["orders"]["pushed"] == 3
    assert totals["orders/mail"]["pushed"] == totals["orders/audit"]["pushed"] == 3
    assert totals["orders"].histograms["push"].count == 3
    assert totals["orders"]["refused"] == 1


def test_one_client_cannot_fill_the_memory_with_one_command_or_one_transaction(gateway: Running) -> None:
    """64 MiB are as much as may wait for a storage: more of one command closes, more of one MULTI is refused."""
    value = b"x" * (8 << 20)
    before = memory_of(gateway.pid)
    wire = gateway.connect()
    assert wire.ask("AUTH", "orders:pw:1") == b"+OK\r\n"
    assert wire.ask("MULTI") == b"+OK\r\n"
    replies = [wire.ask("LPUSH", "orders/x", value) for _ in range(12)]
    assert replies[:7] == [b"+QUEUED\r\n"] * 7
    assert [r for r in replies if r.startswith(b"-")] == [b"-OOM more than 64 MiB between MULTI and EXEC\r\n"]
    assert wire.ask("EXEC").startswith(b"-EXECABORT")
    wire.send(b"*60000\r\n" + pack("LPUSH", "orders/x")[4:])
    with contextlib.suppress(OSError):
        for _ in range(20):
            wire.send(b"$%d\r\n%b\r\n" % (len(value), value))
    assert memory_of(gateway.pid) - before < 200 << 20
    with contextlib.suppress(OSError):
        assert wire.rest() in (b"", b"-ERR Protocol error: too big command: 67108864 bytes are the most\r\n")
    wire.close()
    again = gateway.connect()
    assert again.ask("AUTH", "orders:pw:1") == b"+OK\r\n"
    again.close()
