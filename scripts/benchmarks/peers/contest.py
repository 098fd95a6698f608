"""Measuring the peers: enqueue with one producer, let the workers loose, count what is done, sum CPU and memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.benchmarks import processes, work
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.load import latencies
from scripts.benchmarks.servers import PASSWORD, claim, free_port, stop, wait_until
from scripts.benchmarks.table import CannotRun, number

HERE = Path(__file__).parent
_PACKAGES = ("rq", "celery[redis]", "dramatiq[redis]", "huey", "redis")


@dataclass(frozen=True)
class Score:
    """`cpu_us`: of workers and broker for one job; `memory_mb`: PSS of the workers."""

    name: str
    workers: str
    enqueue: float
    done: float
    cpu_us: float
    memory_mb: float
    note: str = ""


@dataclass
class Peer:
    """`push` prints the seconds it took for COUNT jobs. `left` says how many jobs are not done."""

    name: str
    workers: str
    jobs: int
    push: list[str]
    work: list[list[str]]
    left: Callable[[], int]
    broker: list[int]
    environment: dict[str, str]


def venv(root: Path) -> Path:
    """The peers' own venv, made on first use; its python. Raises CannotRun."""
    python = root / "venv" / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(root / "venv")], check=True, capture_output=True)
    if subprocess.run([str(python), "-c", "import rq, celery, dramatiq, huey"], capture_output=True).returncode:
        ran = subprocess.run([str(python), "-m", "pip", "install", "-q", *_PACKAGES], capture_output=True, text=True)
        if ran.returncode:
            raise CannotRun(f"pip install {' '.join(_PACKAGES)}: {ran.stderr.strip().splitlines()[-1:]}")
    return python


def contest(bench: Bench, root: Path) -> tuple[list[Score], list[str]]:
    """Every peer that can run here, ourselves among them; and why the others did not."""
    scores, skipped = [], []
    for name, make in PEERS.items():
        try:
            with contextlib.ExitStack() as closing:
                scores.append(_score(make(bench, root, closing)))
        except (CannotRun, SystemExit, OSError, subprocess.SubprocessError) as trouble:
            skipped.append(f"{name}: {trouble}")
            print(f"bench: peer {name} skipped: {trouble}", file=sys.stderr)
            continue
        print(f"  peer {name}: {number(scores[-1].done)} done/s", file=sys.stderr)
    for engine in ("redis", "embedded"):
        scores += [ourselves(bench, engine, "work", 10_000), ourselves(bench, engine, "chunk", 40_000)]
    return scores, skipped


def ourselves(bench: Bench, engine: str, queue: str, jobs: int) -> Score:
    """The bus with php-fpm: CPU and memory count php-fpm, the bus and, with it, Redis."""
    pids = [*bench.usual.pids, *processes.family(bench.fpm.pid)]
    pids += [bench.redis.process.pid] if engine == "redis" else []
    pushes = latencies(bench.usual.gateway, f"push-{engine}/x", bench.n(3000))
    jobs = bench.n(jobs, 2000 if queue == "work" else 10_000)
    before = processes.cpu_s(pids)
    found = work.through(bench.usual, f"{queue}-{engine}", jobs)
    used = processes.cpu_s(pids) - before
    size = processes.memory(pids).pss / 1e6
    name = f"Pepperbus, {engine}" + (", chunk = 16" if queue == "chunk" else "")
    return Score(name, "4 php-fpm", len(pushes) / sum(pushes), found.rate, used / jobs * 1e6, size, "all its processes")


def _score(peer: Peer) -> Score:
    environment = {**os.environ, **peer.environment}
    run = subprocess.run(
        [*peer.push, str(peer.jobs)], env=environment, cwd=HERE, capture_output=True, text=True, timeout=120
    )
    if run.returncode:
        raise CannotRun(f"{' '.join(peer.push)}: {(run.stderr or run.stdout).strip()[-300:]}")
    seconds = float(run.stdout.split()[-1])
    with _workers(peer, environment) as running:
        pids = [pid for process in running for pid in processes.family(process.pid)]
        wait_until(lambda: peer.left() <= peer.jobs * 0.8, 60, f"{peer.name} gets going", 0.01)
        pids = [pid for process in running for pid in processes.family(process.pid)] + peer.broker
        began, cpu, first = time.perf_counter(), processes.cpu_s(pids), peer.left()
        wait_until(lambda: peer.left() <= peer.jobs * 0.1, 120, f"{peer.name} ends", 0.01)
        last = peer.left()
        took, used = time.perf_counter() - began, processes.cpu_s(pids) - cpu
        size = processes.memory([pid for process in running for pid in processes.family(process.pid)]).pss / 1e6
    done = first - last
    return Score(peer.name, peer.workers, peer.jobs / seconds, done / took, used / done * 1e6, size)


@contextmanager
def _workers(peer: Peer, environment: dict[str, str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    quiet = subprocess.DEVNULL
    running = [
        subprocess.Popen(command, env=environment, cwd=HERE, stdin=quiet, stdout=quiet, stderr=quiet)
        for command in peer.work
    ]
    try:
        yield running
    finally:
        for process in running:
            stop(process, 3)


# -- each of them ------------------------------------------------------------------------------------------------------


def _in_redis(bench: Bench, name: str) -> tuple[Path, dict[str, str]]:
    done = bench.directory / f"done-{name}"
    done.touch()
    return done, {
        "BENCH_DONE": str(done),
        "BENCH_REDIS": bench.redis.url.removesuffix("/0") + "/7",
        "BENCH_PORT": str(bench.redis.port),
        "BENCH_PASSWORD": PASSWORD,
        "RQ_REDIS_URL": bench.redis.url.removesuffix("/0") + "/7",
        "PYTHONPATH": str(HERE),
    }


def python_peer(name: str, workers: str, jobs: int, *command: str) -> Callable[[Bench, Path, object], Peer]:
    def make(bench: Bench, root: Path, closing: object) -> Peer:
        python = venv(root)
        done, environment = _in_redis(bench, name)
        n = bench.n(jobs)
        bin_ = str(python.parent / command[0])
        url = environment["BENCH_REDIS"]
        work_ = [bin_, *[word.replace("URL", url) for word in command[1:]]]
        push = [str(python), f"with_{name}.py"]
        return Peer(
            name, workers, n, push, [work_], lambda: n - done.stat().st_size, [bench.redis.process.pid], environment
        )

    return make


def php_loop(mode: str, count: int = 4) -> Callable[[Bench, Path, object], Peer]:
    def make(bench: Bench, root: Path, closing: object) -> Peer:
        if not shutil.which("php"):
            raise CannotRun("no php (Debian: php-cli php-redis)")
        name, port, n = f"bench:loop:{mode}", str(bench.redis.port), bench.n(60_000)
        daemon = ["php", str(HERE / "loop.php"), port, PASSWORD, name, mode]
        push = ["php", str(HERE / "push.php"), port, PASSWORD, name]
        title = "php-cli loop, BRPOPLPUSH + LREM" if mode == "safe" else "php-cli loop, BRPOP (loses jobs)"
        workers = f"{count} processes"
        left = lambda: int(bench.redis.client.llen(name))  # noqa: E731
        return Peer(title, workers, n, push, [daemon] * count, left, [bench.redis.process.pid], {})

    return make


def beanstalkd(bench: Bench, root: Path, closing: contextlib.ExitStack) -> Peer:
    if not shutil.which("beanstalkd"):
        raise CannotRun("no beanstalkd (Debian: beanstalkd)")
    port, folder, n = free_port(), bench.directory / "beanstalkd", bench.n(40_000)
    folder.mkdir()
    server = subprocess.Popen(["beanstalkd", "-l", "127.0.0.1", "-p", str(port), "-b", str(folder)])
    closing.callback(stop, server)

    def up() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    wait_until(up, 10, "beanstalkd answers")
    claim(server.pid, port, "beanstalkd")

    def left() -> int:
        with socket.create_connection(("127.0.0.1", port), 5) as sock:
            sock.sendall(b"stats\r\n")
            lines = sock.recv(1 << 16).decode().splitlines()
        facts = dict(line.split(": ", 1) for line in lines if ": " in line)
        return int(facts["current-jobs-ready"]) + int(facts["current-jobs-reserved"])

    script = [sys.executable, str(HERE / "with_beanstalkd.py"), str(port)]
    return Peer(
        "beanstalkd -b, plain sockets",
        "4 Python",
        n,
        [*script, "push"],
        [[*script, "work"]] * 4,
        left,
        [server.pid],
        {},
    )


def messenger(bench: Bench, root: Path, closing: object) -> Peer:
    component = Path("/usr/share/php/Symfony/Component/Messenger")
    if not component.is_dir():
        raise CannotRun("no Symfony Messenger (Debian: php-symfony-messenger)")
    if not (component / "Bridge" / "Redis" / "Transport" / "RedisTransport.php").exists():
        raise CannotRun("Debian's Symfony Messenger has no Redis transport here (php-symfony-redis-messenger)")
    done, environment = _in_redis(bench, "messenger")
    n, script = bench.n(10_000), ["php", str(HERE / "with_messenger.php")]
    left = lambda: n - done.stat().st_size  # noqa: E731
    redis_ = [bench.redis.process.pid]
    return Peer(
        "Symfony Messenger", "4 php-cli", n, [*script, "push"], [[*script, "work"]] * 4, left, redis_, environment
    )


PEERS: dict[str, Callable[..., Peer]] = {
    "php-cli loop, BRPOP": php_loop("unsafe"),
    "php-cli loop, BRPOPLPUSH + LREM": php_loop("safe"),
    "beanstalkd": beanstalkd,
    "Symfony Messenger": messenger,
    "RQ": python_peer(
        "rq", "pool of 2", 600, "rq", "worker-pool", "-n", "2", "-u", "URL", "-q", "-w", "rq.worker.SimpleWorker"
    ),
    "Celery": python_peer(
        "celery", "prefork 4", 5000, "celery", "-A", "with_celery", "worker", "-P", "prefork", "-c", "4",
        "-l", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat",
    ),
    "Dramatiq": python_peer("dramatiq", "2 x 4 threads", 8000, "dramatiq", "with_dramatiq", "-p", "2", "-t", "4"),
    "Huey": python_peer(
        "huey", "4 processes", 10_000, "huey_consumer", "with_huey.huey", "-w", "4", "-k", "process", "-d", "0.1", "-q"
    ),
}  # fmt: skip


def safe_loop_rate(bench: Bench) -> float:
    """Jobs a second of four careful php-cli loops on the same Redis."""
    with contextlib.ExitStack() as closing:
        return _score(php_loop("safe")(bench, Path(), closing)).done


def text(scores: list[Score], skipped: list[str]) -> str:
    lines = [f"{'':34} {'workers':14} {'enqueue/s':>10} {'done/s':>8} {'CPU us/job':>10} {'MB':>6}"]
    for score in scores:
        lines.append(
            f"{score.name:34} {score.workers:14} {number(score.enqueue):>10} {number(score.done):>8}"
            f" {number(score.cpu_us):>10} {number(score.memory_mb):>6}  {score.note}"
        )
    return "\n".join([*lines, *[f"skipped: {one}" for one in skipped]])


def as_dicts(scores: list[Score]) -> list[dict[str, object]]:
    return [asdict(score) for score in scores]
