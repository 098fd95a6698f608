"""What comes from outside, nearly right: Hypothesis strategies that build bytes each parser half understands.

Random bytes seldom come past a first line; most bugs lie behind it. `SHAPES` has one strategy a target.
"""

from __future__ import annotations

import struct

import msgspec
from hypothesis import strategies as st

from pepperbus import stats
from pepperbus.config import load as loading
from pepperbus.job import Job
from tests.fuzz.targets import CANARY, TARGETS, framed

_words = st.lists(st.binary(max_size=40), min_size=1, max_size=5)


def pack(words: list[bytes]) -> bytes:
    """A command as clients send it."""
    return b"*%d\r\n%b" % (len(words), b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))


def joined(parts: st.SearchStrategy[bytes], most: int = 8) -> st.SearchStrategy[bytes]:
    return st.lists(parts, max_size=most).map(b"".join)


def bent(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Whole, cut short, or with a few bytes overwritten: what torn writes and bad memory leave."""

    def overwrite(data: bytes, at: int, by: bytes) -> bytes:
        at %= len(data) + 1
        return data[:at] + by + data[at + len(by) :]

    return st.one_of(
        whole,
        st.tuples(whole, st.integers(0, 1 << 16)).map(lambda one: one[0][: one[1] % (len(one[0]) + 1)]),
        st.builds(overwrite, whole, st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8)),
    )


_resp = st.one_of(
    _words.map(pack),
    _words.map(pack),
    st.sampled_from(
        [
            b"PING\r\n",
            b"PING\n",
            b"\r\n",
            b"*0\r\n",
            b"*-5\r\n",
            b"*1\r\n$4\r\nPINGxx",
            b"*1\r\n$04\r\nPING\r\n",
            b"$3\r\nabc\r\n",
            b"*1\r\n*1\r\n$1\r\na\r\n",
            b"*1\r\n:5\r\n",
            b"*300000000\r\n",
            b"POST / HTTP/1.1\r\n",
            b"SET \"a b\" 'c'\r\n",
            b"*1\r\n$-1\r\n",
            b"*2\r\n$4\r\nECHO\r\n",
            b"+OK\r\n",
            b"*21\r\n",
            b"x" * 70,
            b"*1\r\n$201\r\n",
            b"*+1\r\n",
            b"*1\rX",
            b"*\r\n",
            b"%1\r\n",
            b"_\r\n",
            b'"\\x0',
            b'"\\xzz"\n',
            b"*1\n$1\na\n",
            b"*1\r\n$0\r\n\r\n",
            b"*99999999999999999999\r\n",
            b"*1\r\n$99999999999999999999\r\n",
            b"\0PING\r\n",
            b"*11\r\n",
            b"*1\r\n$16385\r\n",
            b"(3\r\n",
            b"#t\r\n",
            b"*1048577\r\n",
            b"*-1\r\n",
            b"*00\r\n",
        ]
    ),
    st.binary(max_size=30),
)


def _record(kind: int, request: int, content: bytes, padding: int, version: int = 1) -> bytes:
    return struct.pack(">BBHHBx", version, kind, request, len(content), padding) + content + b"\0" * padding


_cgi = st.one_of(
    st.sampled_from(
        [
            b"Status: 200 OK\r\nCode: 200\r\n\r\nok",
            b"Status: 404\n\nx",
            b"\r\n",
            b"\n\nbody",
            b": x\r\n\r\n",
            b"Status:\r\n\r\n",
            b"Status: \xb2\xb3\xb9\r\n\r\n",
            b"Status: 99999999999999999999\r\n\r\n",
            b"X-A: 1\r\nX-A: 2\r\n\r\n",
            b"no colon\r\n\r\n",
            b"A:b\r\nStatus: -20\r\n\r\n",
            b"A:\rb\r\n\r\n",
            b"Status: 200\r\nStatus: 500\r\n\r\n",
        ]
    ),
    st.binary(max_size=60),
)
_fastcgi = st.one_of(
    st.builds(_record, st.just(6), st.just(1), _cgi, st.integers(0, 255)),
    st.integers(1, 9).map(lambda n: _record(6, 1, b"A: " + b"x" * 9000, 0) * n),
    st.builds(
        _record,
        st.sampled_from([3, 6, 7, 11, 0, 255]),
        st.sampled_from([1, 1, 1, 0, 2]),
        st.binary(max_size=40),
        st.integers(0, 9),
        st.sampled_from([1, 1, 1, 1, 0, 2]),
    ),
    st.just(_record(3, 1, bytes(8), 0)),
    st.just(_record(6, 1, b"", 0)),
    st.binary(max_size=20),
)

_http_head = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 204 No\r\n",
        b"HTTP/1.1 999 \r\n",
        b"HTTP/1.1 200\r\n",
        b"HTTP/2 200 OK\r\n",
        b"HTTP/1.1 099 x\r\n",
        b"HTTP/1.1 200 \xff\r\n",
        b"HTTP/1.1 101 Up\r\n",
        b"ICY 200 OK\r\n",
    ]
)
_http_line = st.sampled_from(
    [
        b"Content-Length: 2\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 2, 2\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Connection: close\r\n",
        b" folded: x\r\n",
        b"Keep-Alive: timeout=99999999999999999999\r\n",
        b"Keep-Alive: timeout=\xb2\r\n",
        b"X: \0\r\n",
        b"X\xff: y\r\n",
        b"X: \xff\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        b"Code: 200\n",
        b"A: b\r\r\n",
        b"\xc2\xb2: 1\r\n",
        b": x\r\n",
    ]
)
_http_body = st.sampled_from(
    [
        b"ok",
        b"2\r\nok\r\n0\r\n\r\n",
        b"ffffffffffffffffff\r\n",
        b"2;x=y\r\nok\r\n0\r\nT: 1\r\n\r\n",
        b"-2\r\nok\r\n",
        b"2\r\nokX",
        b"",
    ]
)
_http = st.builds(
    lambda infos, head, lines, end, body, tail: infos + head + lines + end + body + tail,
    st.sampled_from([b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 E\r\n\r\n" * 12]),
    _http_head,
    joined(_http_line, 4),
    st.sampled_from([b"\r\n", b"\r\n", b"\n", b""]),
    st.one_of(_http_body, st.binary(max_size=20)),
    st.sampled_from([b"", b"", b"HTTP/1.1 200 OK\r\n\r\n"]),
)

_options = loading.spec()
_scraps = [
    "yes",
    "no",
    "0",
    "-1",
    "1",
    "99999999999999999999",
    "30s",
    "1h30m",
    "5",
    "1e9s",
    "64KiB",
    "8M",
    "1.5.5M",
    ",",
    ",,",
    '""',
    "''",
    '"',
    "'",
    '"""',
    "exponential 5s..1h jitter",
    "exponential 1h..5s",
    "linear 0s",
    "fixed",
    "1s, 10s, 1m",
    "unix:/run/x.sock",
    "unix:",
    "[::1]:1",
    "[::1]",
    "127.0.0.1:65536",
    "a:b:c",
    "http://h/x",
    "https://u:p@h/",
    "http://[::1",
    "http://h:99999/",
    "http://\u00e4/",
    "http://a..b/x",
    "http://-/",
    f"http://{'a' * 70}.example/",
    "redis://u:p%zz@h:1/0",
    "unix:///x?db=x",
    "unix://x/",
    "whsec_!!",
    "whsec_QUJD",
    "whsec_",
    "push|pop",
    "pw, push, *",
    "pw, pull, *",
    "[",
    "]",
    "[[x]]",
    "#",
    "a#b",
    "%(x)s",
    "${HOME}",
    "$ENV",
    "\u0661s",
    "\u00b2",
    "\u00b2s",
    "..",
    "/",
    "/x.php",
    "../x",
    "\t",
    "\x7f",
    "\u2028",
    "\u202e",
    "x" * 300,
    "400, 413",
    "http://h/a b",
    "fastcgi",
    "http",
    "redis",
    "auto",
]
_scrap = st.one_of(st.sampled_from(_scraps), st.text(max_size=12))
_keys = sorted({option.key for option in _options})
_node_sections = ["bus", "gateway", "web", "log", "journal", "storages", "fastcgi", "logins", "security", "nonsense"]


def _line(key: str, value: str) -> str:
    return f"{key} = {value}\n"


_secret_line = st.builds(
    lambda key, quote, tail: f"{key} = {quote}{CANARY}{tail}\n",
    st.sampled_from(["password", "sign"]),
    st.sampled_from(['"', "'", ""]),
    st.sampled_from(['"', "'", "", " #x", ", b", "\u202e"]),
)
_pair = st.one_of(st.builds(_line, st.sampled_from(_keys), _scrap), _secret_line)
_section = st.one_of(
    st.sampled_from(_node_sections).map(lambda name: f"[{name}]\n"),
    st.sampled_from(
        [
            "[topics]\n",
            "[[mail]]\n",
            "[[local]]\n",
            "[[[headers]]]\n",
            "[[[params]]]\n",
            "[[[[x]]]]\n",
            "[\n",
            "[a]]\n",
            "[[ ]]\n",
        ]
    ),
)
_noise = st.one_of(
    st.sampled_from(["\n", "# x\n", "\r\n", "\ufeff", "x\n", "=\n", "= y\n", "x = '''\n", "\0"]), st.text(max_size=10)
)
_node = st.builds(
    lambda head, rest: (head + "".join(rest)).encode(errors="surrogatepass"),
    st.sampled_from(
        [
            "queue_files = queues.d/*.conf\n",
            "queue_files = queues.d/*.conf\n[storages]\n[[local]]\ntype = embedded\n",
            "",
        ]
    ),
    st.lists(st.one_of(_pair, _section, _noise), max_size=10),
)
_topic_keys = [
    "run",
    "url",
    "urls",
    "timeout",
    "attempts",
    "backoff",
    "max_age",
    "dead_on",
    "concurrency",
    "max_length",
    "chunk",
    "host",
    "sign",
]
_queue = st.builds(
    lambda head, topic, rest: (head + topic + "".join(rest)).encode(errors="surrogatepass"),
    st.sampled_from(["open = loopback\nstorage = local\n", "password = x\nstorage = local\n", ""]),
    st.sampled_from(["[topics]\n[[mail]]\nrun = http\nurl = http://127.0.0.1:9/x\n", "[topics]\n[[mail]]\n", ""]),
    st.lists(st.one_of(st.builds(_line, st.sampled_from(_topic_keys), _scrap), _pair, _section, _noise), max_size=6),
)

_packed = st.one_of(
    st.recursive(
        st.one_of(
            st.none(), st.integers(-(1 << 63), (1 << 64) - 1), st.text(max_size=5), st.binary(max_size=5), st.floats()
        ),
        lambda inner: st.lists(inner, max_size=20),
        max_leaves=25,
    ).map(msgspec.msgpack.encode),
    st.just(msgspec.msgpack.encode(["attempt", 7, "orders/mail", 1]).replace(b"orders", b"\xff\xfe\xff\xfe\xff\xfe")),
    st.just(b"\x91" * 100_000),
)
_job = st.builds(
    lambda *parts: Job(*parts).encode(),
    st.integers(0, (1 << 64) - 1),
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.binary(max_size=40),
    st.integers(0, 1 << 50),
    st.text(st.characters(codec="ascii"), max_size=30),
)


def _slot(names: list[bytes], tail: bytes) -> bytes:
    """A statistics file with these names, its records filled with ones, and more behind."""
    page = stats._MAGIC.ljust(stats._PAGE, b"\0")
    records = b"".join(name[:264].ljust(264, b"\0") + b"\1" * (stats._RECORD - 264) for name in names)
    return page + records + tail


_json_line = st.one_of(
    st.sampled_from(
        [
            b'{"op": "status"}',
            b'{"op": 1}',
            b"[]",
            b"{}",
            b"null",
            b"1e999",
            b"NaN",
            b"\xff",
            b'{"op": "x", "a": "\\ud800"}',
            b"[" * 3000,
            b'{"op":' * 2000,
            b'{"op": "scale", "by": ' + b"9" * 5000 + b"}",
            b"",
            b"\0",
            b'{"ok": true}',
        ]
    ),
    st.binary(max_size=20),
)
_lines = st.lists(_json_line, max_size=5).map(b"\n".join)

_reply = st.recursive(
    st.sampled_from([
        b"+OK\r\n", b":5\r\n", b":-1\r\n", b"$-1\r\n", b"$3\r\nabc\r\n", b"$0\r\n\r\n", b"*-1\r\n", b"*0\r\n",
        b"_\r\n", b"-OOM command not allowed\r\n", b"-\r\n", b"-ERR \x1b[2J\xff\r\n", b"$99999999999\r\n",
        b"*99999999999\r\n", b":x\r\n", b"$-2\r\n", b"?\r\n", b"#t\r\n", b",1.5\r\n", b">2\r\n+a\r\n+b\r\n",
        b"%1\r\n+a\r\n:1\r\n",
    ]),
    lambda inner: st.lists(inner, max_size=3).map(lambda many: b"*%d\r\n%b" % (len(many), b"".join(many))),
    max_leaves=6,
)  # fmt: skip

_php = st.sampled_from(
    [
        *(
            b"PHP message: ",
            b"PHP Fatal error: ",
            b">Fatal error: ",
            b"<b>Parse error</b>: ",
            b" in /a/b.php",
            b"thrown",
        ),
        *(
            b" on line ",
            b"<b>",
            b"</b>",
            b":",
            b"\n",
            b" ",
            b"7",
            b"12",
            b"Access to the script '",
            b"' has been denied",
        ),
        *(b"Primary script unknown", b"POST Content-Length of ", b" bytes exceeds the limit of ", b" bytes", b"\xff"),
        *(b" in <b>Unknown</b> on line <b>0", b" in ", "\u0669".encode(), b"9" * 30, b"\x1b[2J"),
    ]
)

SHAPES: dict[str, st.SearchStrategy[bytes]] = {
    "resp_requests": st.builds(lambda flag, rest: flag + rest, st.sampled_from([b"\0", b"\1"]), joined(_resp)),
    "store_replies": bent(joined(_reply, 5)),
    "fastcgi_answer": joined(_fastcgi),
    "cgi_header": bent(_cgi),
    "php_words": bent(joined(_php, 12)),
    "http_answer": bent(_http),
    "node_file": _node,
    "queue_file": _queue,
    "option_values": _scrap.map(lambda text: text.encode(errors="surrogatepass")),
    "journal_file": bent(joined(st.one_of(_packed.map(framed), st.binary(max_size=12)), 3)),
    "journal_record": _packed,
    "job_envelope": bent(_job),
    "stats_file": bent(
        st.builds(
            _slot,
            st.lists(st.one_of(st.just(b"orders/mail"), st.binary(max_size=270)), max_size=3),
            st.binary(max_size=99),
        )
    ),
    "control_requests": _lines.map(lambda lines: lines + b"\n"),
    "control_answer": st.one_of(_lines, _lines.map(lambda lines: lines + b"\n")),
}
assert SHAPES.keys() == TARGETS.keys()
