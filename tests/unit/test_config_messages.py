"""What a person reads when a configuration is wrong: file, line, key, value, what is allowed. Literally."""

from __future__ import annotations

from pathlib import Path

import pytest

from pepperbus.config.load import load
from pepperbus.errors import ConfigError

NODE = """\
[storages]
    [[local]]
    [[main]]
        type = redis
        url = redis://127.0.0.1:6379/0
[fastcgi]
    [[php]]
        address = unix:/run/php.sock
"""
QUEUE = """\
password = secret
storage = main
pool = php
script = /app/job.php
[topics]
    [[mail]]
"""
UNKNOWN_TOPIC_KEYS = (
    "run, pool, script, url, body, contract, ping, host, sign, concurrency, timeout, attempts, backoff, max_age, "
    "zombie_grace, chunk, max_length, password, tags, storage, paused, closed, consumer, dead_on, command, feed, "
    "children, max_task, max_memory, entry, directory, user, rate, quiet, canary, unique, order_by, halt, pop, lease"
)


def mistakes(tmp_path: Path, node: str = NODE, **queues: str) -> list[str]:
    """What loading these files says, with the directory cut off."""
    (tmp_path / "queues.d").mkdir(exist_ok=True)
    (tmp_path / "pepperbus.conf").write_text(node)
    for name, text in queues.items():
        (tmp_path / "queues.d" / f"{name}.conf").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "pepperbus.conf", {})
    return [mistake.replace(f"{tmp_path}/", "") for mistake in caught.value.mistakes]


NODE_CASES = {
    "[bsu]\n": ["1: [bsu]: unknown section; did you mean bus?"],
    "[bus]\nshrad = 3": ["2: [bus] shrad: unknown key; did you mean shard?"],
    "[bus]\nshard = 64": ["2: [bus] shard = 64: a whole number from 2 to 63 is wanted (default 2)"],
    "[bus]\nshard = two": ["2: [bus] shard = two: a whole number from 2 to 63 is wanted (default 2)"],
    "[bus]\nnode = a b": [
        "2: [bus] node = a b: not a name; allowed: 1 to 128 of A-Z a-z 0-9 . _ - and the first a letter or digit"
    ],
    "[bus]\ngrace = 30": [
        "2: [bus] grace = 30: a duration needs its unit: 30s, 30m, 30h (ms, s, m, h, d are known) (default 30s)"
    ],
    "[bus]\ngrace = soon": [
        "2: [bus] grace = soon: a duration is wanted, such as 500ms, 30s, 5m, 1h30m or 3d (default 30s)"
    ],
    "[bus]\ngrace = 2h": ["2: [bus] grace = 2h: a duration from 0s to 1h is wanted (default 30s)"],
    "[bus]\nmemory_limit = much": [
        "2: [bus] memory_limit = much: a size is wanted, such as 1024, 64KiB, 8MiB or 2GiB (default 512MiB)"
    ],
    "[bus]\nmemory_limit = 1MiB": [
        "2: [bus] memory_limit = 1MiB: a process needs more than that: 64MiB at least, or 0 for no limit"
    ],
    "[bus]\nconsumer = maybe": [
        "2: [bus] consumer = maybe: yes or no is wanted (also on, off, true, false, 1, 0) (default yes)"
    ],
    "[bus]\nuser = nobody-knows-me": [
        "2: [bus] user = nobody-knows-me: no such user on this machine; create it or leave the value empty"
    ],
    "[bus]\ndata_dir = var\nrun_dir = ./var": [
        "3: [bus] run_dir = ./var: run_dir and data_dir must be two directories: one may be lost at a reboot"
    ],
    "[bus]\ndata_dir = a, b": [
        "2: [bus] data_dir = a, b: the comma makes this a list, and a single text is wanted: "
        "put the whole value in quotes (default ../var/data)"
    ],
    "[gateway]\nlisten = 12017": [
        "2: [gateway] listen = 12017: an address is wanted: host:port (port 1 to 65535), [v6]:port or unix:/path "
        "(default 127.0.0.1:12017)"
    ],
    "[gateway]\nlisten = ::1:12017": [
        "2: [gateway] listen = ::1:12017: an address is wanted: host:port (port 1 to 65535), [v6]:port or unix:/path; "
        "write [v6]:port for an IPv6 address (default 127.0.0.1:12017)"
    ],
    "[gateway]\nlisten = 127.0.0.1:1, 127.0.0.1:1": [
        "2: [gateway] listen = 127.0.0.1:1, 127.0.0.1:1: 127.0.0.1:1 is named twice (default 127.0.0.1:12017)"
    ],
    "[gateway]\nlisten = 0.0.0.0:12017": [
        "2: [gateway] listen = 0.0.0.0:12017: 0.0.0.0:12017 can be reached from other machines: set cert and key (TLS), "
        "or public = yes if everything between here and the producers is trusted"
    ],
    "[gateway]\ncert = nowhere.pem": [
        "2: [gateway] cert = nowhere.pem: there is no file nowhere.pem",
        "2: [gateway] cert = nowhere.pem: TLS needs both files: key is missing",
    ],
    "[gateway]\nlisten = unix:" + "s" * 120: [
        "2: [gateway] listen = unix:" + "s" * 72 + "...: the socket path " + "s" * 120 + " is longer than 107 "
        "bytes, the system's limit"
    ],
    "[web]\nlisten = 10.0.0.1:19840": [
        "2: [web] listen = 10.0.0.1:19840: 10.0.0.1:19840 can be reached from other machines, and there is no account "
        "yet: make the first one (`pepperbus user add NAME`) while it listens on loopback only"
    ],
    "[web]\nlisten = 127.0.0.1:12017": [
        "2: [web] listen = 127.0.0.1:12017: 127.0.0.1:12017 is already the gateway's; choose another port"
    ],
    "[http]\nallow = 10.0.0.1/8": [
        "2: [http] allow = 10.0.0.1/8: '10.0.0.1/8': a host name, *.example.com, an address or a network such as "
        "10.0.0.0/8 is wanted: 10.0.0.1/8 has host bits set"
    ],
    "[log]\nlevel = warn": [
        "2: [log] level = warn: allowed: info, warning, error; did you mean warning? (default info)"
    ],
    "[log]\nfile = a\nfile = b": ["3: [log] file: this key stands already in line 2; keep one of them"],
    "[log]\n[bus]\n[log]": ["3: [log]: this section stands already in line 1; make it one"],
    "[log]\nfile = 'a' b": ["2: [log] file = 'a' b: text after the closing quote; put the whole value in quotes"],
    "[log]\nfile = 'a": ["2: [log] file = 'a: the quote is never closed; put the whole value in quotes"],
    "[log]\nfile = a#b": [
        "2: [log] file = a#b: everything from # on would be a comment; put the whole value in quotes"
    ],
    "[log]\nfile = #b": ["2: [log] file = #b: everything from # on would be a comment; put the whole value in quotes"],
    "[log]\nnonsense": ["2: nonsense: neither `key = value` nor `[section]`"],
    "[log]\n; level": ["2: ; level: neither `key = value` nor `[section]`; a comment begins with #"],
    "[log]\nlevel: a secret": ["2: level: ***: neither `key = value` nor `[section]`; = is wanted, not a colon"],
    "data_dir = x\n[bus]": ["1: data_dir: unknown key here; it stands below [bus]"],
    "[fastcgi]\n[[php]]\nsocket = /x": [
        "2: [fastcgi] [[php]]: address is missing: unix:/path or host:port, where php-fpm listens",
        "3: [fastcgi] [[php]] socket: unknown key; did you mean address?",
    ],
    "[log\n": ["1: [log: neither `key = value` nor `[section]`"],
    "[[log]]\n": [
        "1: [[log]]: brackets of this section do not fit: [section], [[one inside it]], [[[one inside that]]]"
    ],
    "bus = x": ["1: bus = x: bus is a section here, not a key: write it in brackets"],
    "[queue_files]": ["1: [queue_files]: queue_files is a key, not a section: write queue_files = …"],
    "[storages]\nmain = redis": ["2: [storages] main: a key cannot stand here; a section [[NAME]] is wanted"],
    "[storages]\n[[a]]\ntype = redis": [
        "2: [storages] [[a]]: type = redis needs a url, such as redis://127.0.0.1:6379/0"
    ],
    "[storages]\n[[a]]\nurl = redis://u:pw@h/0": [
        "3: [storages] [[a]] url = redis://***@h/0: url is for type = redis only; this storage is embedded"
    ],
    "[storages]\n[[a]]\ntype = redis\nurl = http://u:pw@h/0": [
        "4: [storages] [[a]] url = http://***@h/0: redis://[user:password@]host:port/db, rediss://… (TLS) or "
        "unix:///path/redis.sock?db=0 is wanted (other characters of a password percent-encoded)"
    ],
    "[storages]\n[[a]]\nshards = 2": ["3: [storages] [[a]] shards = 2: not yet known to this version; remove it"],
    "[storages]\n[[a b]]": [
        "2: [storages] [[a b]]: not a name; allowed: 1 to 128 of A-Z a-z 0-9 . _ - and the first a letter or digit"
    ],
    "[fastcgi]\n[[p]]": ["2: [fastcgi] [[p]]: address is missing: unix:/path or host:port, where php-fpm listens"],
    "[fastcgi]\n[[p]]\naddress = /run/fpm.sock": [
        "3: [fastcgi] [[p]] address = /run/fpm.sock: an address is wanted: host:port (port 1 to 65535), [v6]:port or "
        "unix:/path; did you mean unix:/run/fpm.sock?"
    ],
    "[fastcgi]\n[[p]]\naddress = h:9000\nkeepalive = on": [
        "4: [fastcgi] [[p]] keepalive = on: a kept connection holds a php-fpm child, so it needs dedicated = yes: "
        "a pool that serves the bus alone"
    ],
    "[fastcgi]\n[[p]]\naddress = h:9000\nstatus = 9001": [
        "4: [fastcgi] [[p]] status = 9001: pm.status_listen and pm.status_path are wanted: 127.0.0.1:9001/status"
    ],
    "[logins]\nshop = pw, push": [
        "2: [logins] shop = ***: NAME = password, push|pop, queue patterns is wanted, such as: "
        "shop = s3cret, push, orders*, mail"
    ],
    "[logins]\nshop = pw, pull, *": [
        "2: [logins] shop = ***: the second word is a right: push, pop or push|pop; NAME = password, push|pop, queue "
        "patterns is wanted, such as: shop = s3cret, push, orders*, mail"
    ],
    "queue_files = nowhere/*.conf": [
        "1: queue_files = nowhere/*.conf: there is no directory nowhere; create it, or say where the queues' files lie"
    ],
    "queue_files = queues.d/a.conf": [
        "1: queue_files = queues.d/a.conf: DIRECTORY/*.conf is wanted: one * and that in the last part"
    ],
}


@pytest.mark.parametrize("text", NODE_CASES)
def test_a_mistake_in_the_nodes_file(tmp_path: Path, text: str) -> None:
    expected = [f"pepperbus.conf:{line}" for line in NODE_CASES[text]]
    assert mistakes(tmp_path, text) == expected


QUEUE_CASES = {
    "": [
        "1: password is missing or empty: set one, or open = loopback to need none from this machine",
        "1: a queue needs at least one topic: [topics], and in it [[NAME]]",
    ],
    "password =\nopen = no\nstorage = main\n[topics]\n[[a]]\nrun = http\nurl = http://h/": [
        "1: password =: password is missing or empty: set one, or open = loopback to need none from this machine"
    ],
    QUEUE.replace("secret", "ab#c"): [
        "1: password = ***: everything from # on would be a comment; put the whole value in quotes"
    ],
    QUEUE.replace("secret", "a,b"): [
        "1: password = ***: the comma makes this a list, and a single text is wanted: put the whole value in quotes"
    ],
    QUEUE.replace("main", "mian"): ["2: storage = mian: no storage 'mian'; did you mean main?; known: local, main"],
    QUEUE.replace("storage = main\n", ""): [
        "5: [topics] [[mail]]: storage is missing: there are several, name one of local, main"
    ],
    QUEUE.replace("pool = php\n", ""): [
        "5: [topics] [[mail]]: run = fastcgi needs pool: the php-fpm pool, a name of [fastcgi] in the node's file"
    ],
    QUEUE.replace("pool = php", "pool = phq"): ["3: pool = phq: no pool 'phq'; did you mean php?; known: php"],
    QUEUE.replace("script = /app/job.php\n", ""): [
        "5: [topics] [[mail]]: run = fastcgi needs script: the script's path as php-fpm sees it"
    ],
    QUEUE + "run = http": [
        "6: [topics] [[mail]]: run = http needs url: where to POST, such as http://127.0.0.1:8080/jobs"
    ],
    QUEUE + "run = command": [
        '6: [topics] [[mail]]: run = command needs command: what to run, such as "php /data/app/worker.php"'
    ],
    QUEUE + "url = http://h/": [
        "7: [topics] [[mail]] url = http://h/: url is for run = http; this topic has run = fastcgi"
    ],
    QUEUE + "run = http\nurl = ftp://h/": [
        "8: [topics] [[mail]] url = ftp://h/: http://host[:port]/path is wanted (https:// as well; ASCII, other "
        "characters percent-encoded)"
    ],
    QUEUE + "run = http\nurl = http://u:p@h/": [
        "8: [topics] [[mail]] url = http://***@h/: no login inside the URL, it would be shown; send it in [[[headers]]] "
        "Authorization"
    ],
    QUEUE + "concurrency = 0": [
        "7: [topics] [[mail]] concurrency = 0: a whole number from 1 to 10000 is wanted (default 4)"
    ],
    QUEUE + "attempts = 0": [
        "7: [topics] [[mail]] attempts = 0: a whole number from 1 to 1000000 is wanted (default 20)"
    ],
    QUEUE + "backoff = sometimes": [
        "7: [topics] [[mail]] backoff = sometimes: allowed: exponential 5s..1h [jitter], linear 30s, fixed 30s, or a list "
        "such as 1s, 10s, 1m (default exponential 5s..1h jitter)"
    ],
    QUEUE + "backoff = exponential 1h..5s": [
        "7: [topics] [[mail]] backoff = exponential 1h..5s: the first wait is longer than the last; write exponential "
        "SHORT..LONG (default exponential 5s..1h jitter)"
    ],
    QUEUE + "backoff = fixed 1h\nmax_age = 10m": [
        "8: [topics] [[mail]] max_age = 10m: shorter than the first wait of backoff: no second attempt could ever be"
    ],
    QUEUE + "timeout = 0": ["7: [topics] [[mail]] timeout = 0: a duration from 100ms to 7d is wanted (default 60m)"],
    QUEUE + "body = raw\nchunk = 5": [
        "8: [topics] [[mail]] chunk = 5: body = raw carries one job a request; use chunk = 1 or body = form"
    ],
    QUEUE + "dead_on = 400": [
        "7: [topics] [[mail]] dead_on = 400: dead_on is for contract = status; under sdk the Code header decides"
    ],
    QUEUE + "lease = 3s": ["7: [topics] [[mail]] lease = 3s: lease is for run = pull; this topic has run = fastcgi"],
    "index = a, b..c\n" + QUEUE: [
        "1: index = a, b..c: 'b..c' is not a path into JSON; names with dots between are wanted: order_id, user.id"
    ],
    "rate = 5\n" + QUEUE: ["1: rate = 5: a number of jobs for a time is wanted: 100/s, 600/m, 5000/h or 1/d"],
    "quiet = 7-23\n" + QUEUE: [
        "1: quiet = 7-23: '7-23': hours are wanted, such as 23:00-07:00 or 23:00-07:00 Asia/Shanghai"
    ],
    "halt = 50%\n" + QUEUE: [
        "1: halt = 50%: a share (1% to 100%) of the last 4 to 60 attempts is wanted: 50% of 40, probe 1m"
    ],
    "unique = order_id 5\n" + QUEUE: [
        "1: unique = order_id 5: a duration needs its unit: 5s, 5m, 5h (ms, s, m, h, d are known)"
    ],
    "order_by = a..b\n" + QUEUE: [
        "1: order_by = a..b: 'a..b' is not a path into JSON; names with dots between are wanted: order_id, user.id"
    ],
    "order_by = uid\nchunk = 5\n" + QUEUE: [
        "1: order_by = uid: one job at a time of the same value: with chunk > 1 that cannot be"
    ],
    QUEUE + "[schedule]\n[[x]]": ["8: [schedule] [[x]]: expression is missing: such as 30 3 * * 1-5, or @every 90s"],
    QUEUE + "[schedule]\n[[x]]\nexpression = 61 * * * *": [
        "9: [schedule] [[x]] expression = 61 * * * *: the minute is wrong; allowed: 0-59, with * , - and /"
    ],
    QUEUE + "run = command\ncommand = php a | b": [
        '8: [topics] [[mail]] command = php a | b: no shell reads this; for pipes and redirections write sh -c "…" '
        "(the whole value in quotes)"
    ],
    QUEUE + "run = command\ncommand = php a\nchildren = 8..2": [
        "9: [topics] [[mail]] children = 8..2: the first number of the range is larger than the last; "
        "write SMALL..LARGE (default 1)"
    ],
    QUEUE + "run = command\ncommand = php a\nconcurrency = 3\nentry = A,b": [
        "9: [topics] [[mail]] concurrency = 3: concurrency is not for run = command: count children = instead",
        "10: [topics] [[mail]] entry = A, b: entry is for feed = pull; this topic has stdin",
    ],
    QUEUE + "run = command\ncommand = php a\nfeed = exec\nmax_task = 3\ncontract = sdk": [
        "10: [topics] [[mail]] max_task = 3: max_task is for feed = stdin or pull; this topic has exec",
        "11: [topics] [[mail]] contract = sdk: contract is not for run = command: feed says what its answer means",
    ],
    QUEUE.replace("password = secret", "open = loopback") + "run = command\ncommand = php a\nfeed = pull": [
        "6: [topics] [[mail]]: feed = pull gives the child a password to log in with (-a), and there is none; "
        "write one of its own here"
    ],
    QUEUE + "run = command\ncommand = php a\nfeed = none\nchildren = 1..2": [
        "10: [topics] [[mail]] children = 1..2: feed = none has no backlog that a range could follow; one number is wanted"
    ],
    QUEUE + "[[[environment]]]\nA = b": [
        "7: [topics] [[mail]] [[[environment]]]: environment is for run = command; this topic has run = fastcgi"
    ],
    QUEUE + "retry = 3": ["7: [topics] [[mail]] retry: unknown key; did you mean attempts?"],
    QUEUE + "num_of_workers = 3": ["7: [topics] [[mail]] num_of_workers: unknown key; did you mean concurrency?"],
    QUEUE + "[audit]": ["7: [audit]: unknown section; a topic is written [[audit]], below [topics]"],
    QUEUE + "colour = red": [f"7: [topics] [[mail]] colour: unknown key; known here: {UNKNOWN_TOPIC_KEYS}"],
    QUEUE + "[[[params]]]\nSCRIPT_FILENAME = /etc/passwd": [
        "8: [topics] [[mail]] [[[params]]] SCRIPT_FILENAME = ***: the bus sets this param itself; choose another name"
    ],
    QUEUE + "[[[params]]]\nA-B = x": [
        "8: [topics] [[mail]] [[[params]]] A-B = ***: not a param name; allowed: letters, digits and _, the first no digit"
    ],
    QUEUE + "run = http\nurl = http://h/\n[[[headers]]]\nHost = x": [
        "10: [topics] [[mail]] [[[headers]]] Host = ***: the bus sets this header itself; use the topic's key host"
    ],
    QUEUE + "run = http\nurl = http://h/\nsign = whsec_%%%": [
        "9: [topics] [[mail]] sign = ***: what follows whsec_ must be base64; or write the key itself without whsec_"
    ],
    QUEUE + "[[mail]]": ["7: [topics] [[mail]]: this section stands already in line 6; make it one"],
    QUEUE + "[[a/b]]": [
        "7: [topics] [[a/b]]: not a name; allowed: 1 to 128 of A-Z a-z 0-9 . _ - and the first a letter or digit"
    ],
    "keys = q\n" + QUEUE: ["1: keys = q: 'q' is the queue's own name and means it anyway; remove it"],
    "keys = a, a\n" + QUEUE: ["1: keys = a, a: 'a' is named twice"],
}


@pytest.mark.parametrize("text", QUEUE_CASES)
def test_a_mistake_in_a_queues_file(tmp_path: Path, text: str) -> None:
    assert mistakes(tmp_path, q=text) == [f"queues.d/q.conf:{line}" for line in QUEUE_CASES[text]]


@pytest.mark.parametrize(
    "name",
    [
        "SCRIPT_FILENAME",
        "PHP_VALUE",
        "PHP_ADMIN_VALUE",
        "REMOTE_ADDR",
        "CONTENT_LENGTH",
        "PEPPERBUS_JOB_ID",
        "REQUEST_METHOD",
    ],
)
def test_params_the_bus_owns(tmp_path: Path, name: str) -> None:
    (mistake,) = mistakes(tmp_path, q=f"{QUEUE}[[[params]]]\n{name} = x")
    assert mistake.endswith("the bus sets this param itself; choose another name")


def test_every_mistake_of_every_file_is_named_in_the_order_of_the_files(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path, NODE + "max_connections = none\n[web]\nlisten = x", a=QUEUE + "x = 1", b="y = 2\n" + QUEUE
    )
    assert [mistake.split(" ")[0] for mistake in found] == [
        "pepperbus.conf:9:",
        "pepperbus.conf:11:",
        "queues.d/a.conf:7:",
        "queues.d/b.conf:1:",
    ]


def test_a_key_can_mean_one_queue_only(tmp_path: Path) -> None:
    texts = {"a": "keys = shared, c\n" + QUEUE, "b": "keys = shared\n" + QUEUE, "c": QUEUE}
    assert mistakes(tmp_path, **texts) == [
        "queues.d/a.conf:1: keys = shared, c: 'c' already means the queue c",
        "queues.d/b.conf:1: keys = shared: 'shared' is a key of queue a too",
    ]


def test_a_login_cannot_be_called_like_a_queue(tmp_path: Path) -> None:
    assert mistakes(tmp_path, NODE + "[logins]\na = pw, push, *", a=QUEUE) == [
        "pepperbus.conf:10: [logins] a = ***: there is a queue of this name; choose another name for the login"
    ]


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "queues.d").mkdir()
    (tmp_path / "queues.d" / "latin.conf").write_bytes(b"password = x\nsystem = caf\xe9\n")
    (tmp_path / "queues.d" / "nul.conf").write_bytes(b"password = x\n\0\n")
    (tmp_path / "queues.d" / "dir.conf").mkdir()
    (tmp_path / "queues.d" / "huge.conf").write_bytes(b"#" * (5 << 20))
    assert mistakes(tmp_path) == [
        "queues.d/dir.conf: cannot be read: Is a directory",
        "queues.d/huge.conf: the file is larger than 4 MiB; this cannot be a configuration",
        "queues.d/latin.conf: byte 0xe9 in line 2 is not UTF-8; save the file as UTF-8",
        "queues.d/nul.conf: NUL byte in line 2; this is no text file",
    ]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.conf: cannot be read: No such file or directory"):
        load(tmp_path / "nothing.conf", {})


def test_a_name_no_queue_can_have(tmp_path: Path) -> None:
    (mistake,) = mistakes(tmp_path, **{"a b": QUEUE})
    assert mistake.startswith("queues.d/a b.conf:1: the file's name names the queue, and 'a b' is not a name")


def test_messages_never_hold_a_secret(tmp_path: Path) -> None:
    node = NODE.replace("redis://127", "redis://:hunter2@127").replace("type = redis", "type = rediz")
    queue = (
        "password = hunter2#\nsign = 'hunter2' x\n"
        + QUEUE
        + "password = hunter2, x\n[[[headers]]]\nX = hunter2 # x\nX = hunter2"
    )
    assert "hunter2" not in "\n".join(mistakes(tmp_path, node + "[logins]\nx = hunter2", q=queue))


def test_a_message_stays_one_short_line(tmp_path: Path) -> None:
    found = mistakes(tmp_path, f"[bus]\nnode = '{chr(27)}[31m{'x' * 500}'")
    assert "\\x1b[31m" in found[0]
    assert len(found[0]) < 300
