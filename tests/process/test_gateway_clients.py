"""Real client libraries at their defaults: redis-py, redis-cli, redis-benchmark, phpredis, ioredis where it is there."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.process.gateway_running import Running, Wire, pack, running, spec


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Plain TCP and a unix socket, on the embedded storage."""
    where = tmp_path_factory.mktemp("clients")
    what = spec(
        where,
        durability="power",
        storages={"local": {"type": "embedded"}},
        listen=["127.0.0.1:0", f"unix:{where}/bus.sock"],
    )
    what["queues"]["open"] = {"open": True, "password": "x", "durability": "power", "topics": {"t": {}}}
    with running(what) as one:
        yield one


@pytest.mark.parametrize("protocol", [None, 2])
def test_redis_py_at_its_defaults(gateway: Running, protocol: int | None) -> None:
    words = {} if protocol is None else {"protocol": protocol}
    client = redis.Redis(port=gateway.port, password="orders:pw:1", **words)
    assert client.ping()
    assert client.lpush("orders", "a", "b") == 2
    assert json.loads(client.lpush("orders/x", "a"))["error"] == ""
    assert client.zadd("orders", {"later": time.time() + 60}) == 1
    with pipe(client) as batch:
        assert batch.execute() == [1, 1]
    assert client.llen("orders/mail") >= 6
    assert client.hgetall("orders")[b"delayed"] >= b"1"
    with pytest.raises(redis.exceptions.NoPermissionError):
        client.lpush("new", "x")
    topic = redis.Redis(port=gateway.port, username="orders/mail", password="tp", **words)
    assert b'"content":"p2"' in topic.rpop("orders/mail"), "RPUSH goes ahead"
    client.close()
    topic.close()


def pipe(client: redis.Redis) -> redis.client.Pipeline:
    batch = client.pipeline()
    batch.lpush("orders", "p1")
    batch.rpush("orders", "p2")
    return batch


def test_redis_py_hears_a_wrong_password(gateway: Running) -> None:
    client = redis.Redis(port=gateway.port, password="orders:no", retry=None)
    with pytest.raises(redis.exceptions.AuthenticationError):
        client.ping()


def test_unix_socket_and_an_open_queue(gateway: Running) -> None:
    client = redis.Redis(unix_socket_path=gateway.addresses[1])
    assert client.lpush("open", *range(50)) == 50
    job = json.loads(client.rpop("open/t"))["jobs"][0]
    assert job["content"] == "0"
    with pytest.raises(redis.exceptions.AuthenticationError):
        redis.Redis(unix_socket_path=gateway.addresses[1], retry=None).lpush("orders", "x")
    client.close()


def command(*args: str, given: str = "", **environment: str) -> str:
    done = subprocess.run(
        args, input=given, capture_output=True, text=True, timeout=30, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done
    return done.stdout


def test_redis_cli(gateway: Running) -> None:
    base = ("redis-cli", "-p", str(gateway.port), "-a", "orders:pw:1", "--no-auth-warning")
    assert command(*base, "LPUSH", "orders", "a b") == "1\n"
    assert command(*base, "-3", "LPUSH", "orders", "x") == "1\n"
    assert "NOPERM" in command(*base, "LPUSH", "new", "x")
    piped = pack("LPUSH", "orders", "p") * 500
    done = subprocess.run([*base, "--pipe"], input=piped, capture_output=True, timeout=30)
    assert b"errors: 0, replies: 500" in done.stdout


@pytest.mark.parametrize("pipelined", ["1", "16"])
def test_redis_benchmark(gateway: Running, pipelined: str) -> None:
    words = [
        "redis-benchmark",
        "-p",
        str(gateway.port),
        "-a",
        "new:pw",
        "-t",
        "lpush",
        "-n",
        "3200",
        "-P",
        pipelined,
        "-q",
    ]
    assert "requests per second" in command(*words)
    wire = gateway.connect()
    wire.ask("AUTH", "new:pw")
    assert int(wire.ask("LLEN", "new")[1:]) % 3200 == 0
    wire.close()


PHP = r"""
$r = new Redis(); $r->connect('127.0.0.1', (int) getenv('PORT'));
$out = [];
$out['auth'] = $r->auth('orders:pw:1');
$out['two'] = $r->auth(['orders', 'pw:1']);
$out['select'] = $r->select(0);
$out['typed'] = $r->lPush('orders', 'a', 'b');
$out['raw'] = json_decode($r->rawCommand('LPUSH', 'orders/default', "\xff\x00"), true)['error'];
$out['zadd'] = $r->zAdd('orders', '+60', 'v');
$out['multi'] = $r->multi()->lPush('orders', 'm1')->lPush('orders', 'm2')->exec();
$out['pipe'] = $r->pipeline()->lPush('orders', 'p1')->rPush('orders', 'p2')->exec();
$out['len'] = $r->lLen('orders/audit');
$r->setOption(Redis::OPT_PREFIX, 'app:');
$out['prefix'] = $r->lPush('orders', 'x');
$r->setOption(Redis::OPT_PREFIX, '');
try { $r->lPush('new', 'x'); $out['thrown'] = 'nothing'; } catch (RedisException $e) { $out['thrown'] = $e->getMessage(); }
$out['ping'] = $r->ping();
$p = new Redis(); $p->pconnect('127.0.0.1', (int) getenv('PORT')); $p->auth('orders/audit:pw:1');
$out['pop'] = strlen($p->rPop('orders/audit'));
echo json_encode($out);
"""


def test_phpredis(gateway: Running) -> None:
    extension = [] if "redis" in command("php", "-m").split() else ["-d", "extension=redis"]
    out = json.loads(command("php", *extension, "-r", PHP, PORT=str(gateway.port)))
    assert out.pop("len") >= 8
    assert out.pop("pop") > 50
    assert out.pop("thrown").startswith("NOPERM")
    assert out == {
        "auth": True,
        "two": True,
        "select": True,
        "typed": 2,
        "raw": "",
        "zadd": 1,
        "multi": [1, 1],
        "pipe": [1, 1],
        "prefix": 1,
        "ping": True,
    }


NODE = r"""
const Redis = require('ioredis');
const r = new Redis({port: +process.env.PORT, password: 'orders:pw:1'});
(async () => {
  const out = {push: await r.lpush('orders', 'a', 'b')};
  out.multi = await r.multi().lpush('orders', 'm').lpush('orders', 'n').exec();
  out.refused = await r.lpush('new', 'x').catch(e => e.message.split(' ')[0]);
  console.log(JSON.stringify(out)); r.disconnect();
})();
"""


@pytest.fixture(scope="session")
def ioredis() -> Path:
    """ioredis in a cache of its own, installed once by npm when that is possible."""
    where = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pepperbus-tests" / "node"
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    if not (where / "node_modules" / "ioredis").exists():
        where.mkdir(parents=True, exist_ok=True)
        words = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(where), "ioredis@5"]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            pytest.skip("npm install ioredis did not end within 60 s")
        if done.returncode:
            pytest.skip(f"npm cannot install ioredis: {done.stderr[-200:]}")
    return where


def test_ioredis(gateway: Running, ioredis: Path) -> None:
    out = json.loads(command("node", "-e", NODE, PORT=str(gateway.port), NODE_PATH=str(ioredis / "node_modules")))
    assert out == {"push": 2, "multi": [[None, 1], [None, 1]], "refused": "NOPERM"}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    where = tmp_path_factory.mktemp("tls")
    cert, key = where / "cert.pem", where / "key.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(
        [
            "openssl",
            "req",
            *kind,
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            str(key),
            "-out",
            str(cert),
        ],
        check=True,
        capture_output=True,
    )
    with running(spec(where, gateway={"cert": str(cert), "key": str(key)})) as one:
        yield one


def test_tls(tls: Running) -> None:
    cert = str(Path(tls.spec["dir"]) / "cert.pem")
    client = redis.Redis(port=tls.port, ssl=True, ssl_ca_certs=cert, password="new:pw")
    big = os.urandom(300_000)
    assert client.lpush("new", big) == 1
    assert client.lpush("new", *[b"x"] * 1000) == 1000
    client.close()
    topic = redis.Redis(port=tls.port, ssl=True, ssl_ca_certs=cert, password="new/t:tp")
    assert len(topic.rpop("new/t")) > 400_000
    topic.close()


def test_tls_listener_survives_what_is_no_tls(tls: Running) -> None:
    stalled = tls.connect()
    plain = tls.connect()
    plain.send(b"PING\r\n" * 100)
    assert not plain.rest().startswith(b"+")
    context = ssl.create_default_context(cafile=str(Path(tls.spec["dir"]) / "cert.pem"))
    with tls.connect().sock as raw, context.wrap_socket(raw, server_hostname="127.0.0.1") as sock:
        wire = Wire(sock)
        assert wire.ask("AUTH", "new:pw") == b"+OK\r\n"
    stalled.close()
