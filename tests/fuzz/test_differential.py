"""The same bytes to a real redis-server and to our gateway: the same replies, errors of the same class, the same end.

Compared is what must agree: PING, ECHO, SELECT 0, unknown commands, wrong arity, inline commands, protocol errors and closing.
The texts of errors differ (only their first word counts), and so does what ACCEPTED lists, each with its reason.

PEPPERBUS_FUZZ_EXAMPLES=20000 looks longer.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator

import hiredis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fixtures.redis import running as running_redis
from tests.fuzz.grammar import bent, pack
from tests.fuzz.targets import pieces
from tests.process.gateway_running import Running, running, spec

EXAMPLES = int(os.environ.get("PEPPERBUS_FUZZ_EXAMPLES", "400"))
END = b"\r\n" + pack([b"ECHO", b"the end"])

#: Ours ends a connection with one of these where Redis does not, on purpose; nothing behind it is compared.
ACCEPTED = {
    b"Protocol error: expected CRLF after a bulk": "Redis skips the two bytes behind a bulk string unread; we read them",
    b"Protocol error: invalid multibulk length": "we take 65,536 words in a command, Redis any number",
    b"Protocol error: invalid bulk length": "we take 8 MiB in a word, Redis 512 MiB",
    b"Protocol error: this is not an HTTP server": "Redis closes without a word, we say why",
    b"Protocol error: too big": "Redis takes a longer line when its end happens to come in the same read",
}


@pytest.fixture(scope="module")
def redis_path() -> Iterator[str]:
    with running_redis({"requirepass": "pw"}) as server:
        yield str(server.path)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    where = tmp_path_factory.mktemp("ours")
    with running(spec(where, listen=[f"unix:{where}/g.sock"])) as one:
        yield one


def exchange(path: str, login: bytes, data: list[bytes]) -> bytes:
    """Everything it says to these pieces until it closes, the answer to the login left out."""
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(30)
        one.connect(path)
        if login:
            one.sendall(login)
            assert one.recv(5) == b"+OK\r\n"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in data:
                one.sendall(piece)
            one.shutdown(socket.SHUT_WR)
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while more := one.recv(65536):
                said += more
        return said


def meaning(said: bytes) -> list[object]:
    """Replies as values; of an error its first word."""
    reader = hiredis.Reader()
    reader.feed(said)
    found: list[object] = []
    while (reply := reader.gets()) is not False:
        found.append(str(reply).split(" ")[0] if isinstance(reply, hiredis.ReplyError) else reply)
    return found


def accepted(ours: bytes) -> bool:
    return any(text in ours for text in ACCEPTED)


_blank = st.sampled_from([b" ", b"  ", b"\t"])
_word = st.one_of(st.sampled_from([b"a", b"", b"\x00\xff\r\n", b"'", b'"', b"\\", b"x" * 300]), st.binary(max_size=20))
_name = st.sampled_from([b"PING", b"ping", b"PiNg", b"ECHO", b"echo", b"SELECT", b"zzz", b"zz\xff", b"z'z", b"QUIT"])
_command = st.one_of(
    st.just([b"PING"]),
    _word.map(lambda word: [b"ECHO", word]),
    st.just([b"SELECT", b"0"]),
    st.just([b"AUTH"]),
    st.just([b"AUTH", b"a", b"b", b"c"]),
    st.just([b"ECHO"]),
    st.just([b"ECHO", b"a", b"b"]),
    st.lists(_word, max_size=4).map(lambda words: [b"zz" + b"".join(words[:1]), *words[1:]]),
    st.just([b"QUIT"]),
)
_quoted = _word.map(lambda word: b'"' + b"".join(b"\\x%02x" % byte for byte in word) + b'"')
_plain = st.binary(max_size=12).map(lambda word: re.sub(rb"[\s\0]", b"_", word))
_inline = st.builds(
    lambda name, gap, words, end: name + gap + gap.join(words) + end,
    _name,
    _blank,
    st.lists(st.one_of(_quoted, _plain, st.sampled_from([b"'a b'", b'"\\n"', b"'\\''", b'"a"b', b'"a'])), max_size=3),
    st.sampled_from([b"\r\n", b"\n"]),
)
_broken = st.sampled_from([
    b"*1\r\n$-1\r\n", b"*-5\r\n", b"*0\r\n", b"*00\r\n", b"*+1\r\n", b"*x\r\n", b"*\r\n", b"*1\r\n*1\r\n", b"*1\r\nx4\r\n",
    b"*1\r\n$04\r\nPING\r\n", b"*1\r\n$+4\r\n", b"*1\r\n$x\r\n", b"\r\n", b"\n", b"$4\r\nPING\r\n", b"+OK\r\n", b":5\r\n",
    b"%1\r\n", b"_\r\n", b"*99999999999999999999\r\n", b"*1\r\n$99999999999999999999\r\n", b"*1\r\n$0\r\n\r\n", b"x" * 70_000,
    b"*" + b"1" * 70_000, b"*1\r\n$" + b"1" * 70_000, b"*1\rX", b"* 1\r\n", b"*1 \r\n", b"*2\r\n$4\r\nPING\r\n",
])  # fmt: skip
_sent = st.lists(
    st.one_of(bent(_command.map(pack)), _command.map(pack), _inline, bent(_inline), _broken), max_size=6
).map(b"".join)


#: PING with words (Redis sends them back, we answer PONG to any PING): outside of what must agree.
_OUTSIDE = re.compile(rb"(?i)ping[ \t\r\v\f\0]+[^\s\0]|\*2\r\n\$4\r\nping")


@pytest.mark.timeout(0 if EXAMPLES > 1000 else 120)
def test_the_same_outcome_as_redis(gateway: Running, redis_path: str) -> None:
    @given(_sent, st.booleans())
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    def run(data: bytes, cut: bool) -> None:
        if _OUTSIDE.search(data):
            return
        whole = data + END
        ours = exchange(str(gateway.addresses[0]), pack([b"AUTH", b"new:pw"]), pieces(whole) if cut else [whole])
        theirs = exchange(redis_path, pack([b"AUTH", b"pw"]), [whole])
        found, expected = meaning(ours), meaning(theirs)
        if accepted(ours):
            found = found[:-1]
            expected = expected[: len(found)]
        if b"\0" in data:
            found = found[: len(expected)]  # Redis never finds the end of an inline line behind a NUL, and waits for it
        assert found == expected, f"{data[:300]!r}\nours   {ours[-300:]!r}\ntheirs {theirs[-300:]!r}"

    run()


@pytest.mark.timeout(0 if EXAMPLES > 1000 else 120)
def test_strangers_are_sent_away_for_the_same_bytes(gateway: Running, redis_path: str) -> None:
    """Before a login only the wire is compared: how many replies, and whether the connection is closed."""

    @given(_sent)
    @settings(max_examples=EXAMPLES // 4, deadline=None, suppress_health_check=list(HealthCheck))
    def run(data: bytes) -> None:
        if _OUTSIDE.search(data):
            return
        ours = exchange(str(gateway.addresses[0]), b"", pieces(data + END))
        theirs = exchange(redis_path, b"", [data + END])
        if not accepted(ours) and b"\0" not in data:
            assert len(meaning(ours)) == len(meaning(theirs)), (
                f"{data[:300]!r}\nours   {ours[-300:]!r}\ntheirs {theirs[-300:]!r}"
            )

    run()
