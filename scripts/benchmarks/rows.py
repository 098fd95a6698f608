"""The table of rows: one line a figure. A new row is a `Row(...)` here and, when nothing fits, a side in a module beside."""

from __future__ import annotations

from scripts.benchmarks import floor, http_echo, lag, push, scale, work
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.peers import contest
from scripts.benchmarks.servers import Redis
from scripts.benchmarks.stage import CHILDREN, ENGINES
from scripts.benchmarks.table import Goal, Row, sides

_LPUSH = "redis-benchmark -c 50 -P {} lpush KEY <100 B>; ours / {}"


def _everysec(bench: Bench) -> Redis:
    return bench.redis


def _always(bench: Bench) -> Redis:
    return bench.always


def all_rows() -> list[Row]:
    """Every row, in the order of the table."""
    return [
        *_pushing(),
        *_feeding(),
        *_against_a_loop(),
        *_waiting(),
        *_costs(),
        *_many(),
        *_http(),
        *_steering(),
        *_floor(),
    ]


def _pushing() -> list[Row]:
    p1, p2 = ("-P", "1"), ("-P", "16")
    everysec, always = "that same Redis (everysec)", "Redis appendfsync always"
    no_keep = ("-P", "1", "-k", "0")
    return [
        Row(
            "P1", "push one by one", "redis", _LPUSH.format(1, everysec), "/s", Goal(0.55, 0.75),
            sides(push.ours("redis", 60_000, *p1), push.theirs(_everysec, 60_000, *p1)),
        ),
        Row(
            "P2", "push pipelined", "redis", _LPUSH.format(16, everysec), "/s", Goal(0.40, 0.55),
            sides(push.ours("redis", 200_000, *p2), push.theirs(_everysec, 300_000, *p2)),
        ),
        Row(
            "P3", "push, fsync before the reply", "embedded", _LPUSH.format(1, always), "/s", Goal(0.65, 0.90),
            sides(push.ours("embedded", 50_000, *p1), push.theirs(_always, 50_000, *p1)),
        ),
        Row(
            "P3b", "the same pipelined", "embedded", _LPUSH.format(16, always), "/s", None,
            sides(push.ours("embedded", 200_000, *p2), push.theirs(_always, 200_000, *p2)),
        ),
        *[
            Row(
                "P15", "connect, AUTH, LPUSH, close", engine,
                f"redis-benchmark -c 50 -k 0 lpush KEY <100 B>; ours / {name}", "/s", Goal(0.5, 0.7),
                sides(push.ours(engine, 15_000, *no_keep), push.theirs(server, 15_000, *no_keep)),
            )
            for engine, server, name in (("redis", _everysec, everysec), ("embedded", _always, always))
        ],
    ]  # fmt: skip


def _floor() -> list[Row]:
    """What nobody can go below who is made of gevent; no goals."""
    return [
        Row(
            "F1", "gevent that only answers", "redis", _LPUSH.format(1, "that same Redis (everysec)"), "/s", None,
            sides(floor.push_rate(60_000), push.theirs(_everysec, 60_000, "-P", "1")), quick=False,
        ),
        Row(
            "F10", "its CPU for one LPUSH", "redis", "CPU clock of that process", "us", None,
            sides(floor.push_cpu_us(60_000)), quick=False,
        ),
        Row(
            "F4", "gevent that only sends and receives", "redis",
            f"callbacks / bare FastCGI loop, {CHILDREN} children, connections kept", "/s", None,
            sides(floor.fastcgi_rate(20_000), work.bare_rate(20_000, keep=True)), quick=False,
        ),
    ]  # fmt: skip


def _feeding() -> list[Row]:
    rows = []
    goals = {"redis": Goal(0.60, 0.80), "embedded": Goal(0.50, 0.65)}
    for engine in ENGINES:
        rows += [
            Row(
                "P4", "one job a FastCGI request, kept", engine,
                f"bus / bare FastCGI loop, {CHILDREN} children, connections kept", "/s", goals[engine],
                sides(work.bus_rate(f"work-{engine}", 20_000), work.bare_rate(20_000, keep=True)),
            ),
            Row(
                "P4b", "the same, PHP works 1 ms", engine,
                f"bus / bare FastCGI loop, {CHILDREN} children, connections kept, 4,000 md5 a job", "/s", None,
                sides(work.bus_rate(f"real-{engine}", 5_000), work.bare_rate(5_000, True, "real.php")), quick=False,
            ),
            Row(
                "P5", "the same, a connection each", engine,
                f"bus / bare FastCGI loop, {CHILDREN} children, a connection each", "/s", Goal(0.60, 0.80),
                sides(work.bus_rate(f"each-{engine}", 20_000), work.bare_rate(20_000, keep=False)),
            ),
            Row(
                "P6", "chunk = 16", engine, "bus with chunk = 16 / bus with one job a request", "/s", Goal(3, 4),
                sides(work.bus_rate(f"chunk-{engine}", 80_000), work.bus_rate(f"work-{engine}", 20_000)),
            ),
        ]  # fmt: skip
    return sorted(rows, key=lambda row: row.id)


def _waiting() -> list[Row]:
    rows = []
    for engine in ENGINES:
        idle = Goal(5, 2, most=True) if engine == "redis" else Goal(8, 4, most=True)
        how = "100 pushes a second on one connection, a connection each to php-fpm"
        rows += [
            Row("P8", "push to PHP, idle, p99", engine, how, "ms", idle, sides(lag.idle_ms(engine, 0.99))),
            Row("P8", "push to PHP, idle, p50", engine, how, "ms", None, sides(lag.idle_ms(engine, 0.5))),
            Row(
                "P9", "push to PHP, half load, p99", engine, "half of the rate that goes in and out at once", "ms",
                Goal(6, 2.5, most=True), sides(lag.busy_ms(engine, 0.99)),
            ),
        ]  # fmt: skip
    return sorted(rows, key=lambda row: row.id)


def _costs() -> list[Row]:
    rows = []
    for engine in ENGINES:
        rows += [
            Row(
                "P10", "CPU of the bus for one LPUSH", engine, "CPU clocks of all its processes, load of P1", "us",
                Goal(16, 12, most=True), sides(push.cpu_us(engine, 60_000, "-P", "1")),
            ),
            Row(
                "P10", "CPU of the bus for one job", engine, "CPU clocks of all its processes, load of P4", "us",
                Goal(28, 20, most=True), sides(work.bus_cpu_us(f"work-{engine}", 20_000)),
            ),
        ]  # fmt: skip
    return sorted(rows, key=lambda row: row.title)


def _against_a_loop() -> list[Row]:
    loop = "four php-cli loops, BRPOPLPUSH + LREM, on the same Redis"
    rows = []
    for engine in ENGINES:
        rows += [
            Row(
                "P7", "one job a request / php-cli loop", engine, f"bus / {loop}", "/s", Goal(0.6, 0.85),
                sides(work.bus_rate(f"work-{engine}", 20_000), contest.safe_loop_rate), quick=False,
            ),
            Row(
                "P7", "chunk = 16 / php-cli loop", engine, f"bus / {loop}", "/s", Goal(2.5, 4),
                sides(work.bus_rate(f"chunk-{engine}", 80_000), contest.safe_loop_rate), quick=False,
            ),
        ]  # fmt: skip
    return rows


def _many() -> list[Row]:
    queues, connections = scale.MANY, scale.CONNECTIONS
    idle = f"serve with {queues:,} idle queues in one worker; smaps of all its processes"
    rows = [
        Row(
            "P11", "USS of a further idle worker", "embedded", "serve with 20 queues, a worker each; smaps", "MB",
            Goal(6, 4.5, most=True), scale.idle_worker_mb(), quick=False, apart=True,
        ),
        Row(
            "P12", f"{connections:,} idle producers, each", "embedded", "USS of the gateway, all logged in", "KB",
            Goal(40, 15, most=True), sides(scale.connections_kb), quick=False,
        ),
        Row(
            "P12", f"p99 of a push beside {connections:,} idle", "embedded", "with them / without", "x",
            Goal(1.20, 1.05, most=True), sides(scale.connections_p99), quick=False,
        ),
    ]  # fmt: skip
    for engine in ENGINES:
        deep, shallow = scale.deep(engine, 1_000_000)
        rows += [
            Row(
                "P11", f"memory of {queues:,} idle queues", engine, idle, "MB", Goal(200, 150, most=True),
                scale.idle_queues("pss", engine), quick=False, apart=True,
            ),
            Row(
                "P11", f"CPU of {queues:,} idle queues", engine, idle.replace("smaps", "CPU clocks"), "%",
                Goal(2, 1, most=True), scale.idle_queues("cpu", engine), quick=False, apart=True,
            ),
            Row(
                "P13", "jobs with 1,000,000 waiting", engine, "bus as P4 / with 1,000 waiting", "/s", Goal(0.8, 0.95),
                sides(deep, shallow), quick=False,
            ),
            Row(
                "P13", f"pushes to {queues:,} queues", engine, _LPUSH.format(1, "all into one of them"), "/s",
                Goal(0.7, 0.9), scale.push_to_many(engine, 40_000), quick=False, apart=True,
            ),
        ]  # fmt: skip
    return sorted(rows, key=lambda row: row.id)


def _http() -> list[Row]:
    how = f"bus / bare h11 loop, {CHILDREN} kept connections, the same echo"
    rows = []
    for engine in ENGINES:
        rows += [
            Row(
                "P14", "HTTP delivery", engine, how, "/s",
                Goal(0.5, 0.8), http_echo.delivered(engine, 30_000), quick=False, apart=True,
            ),
            Row(
                "P14b", "the same, no answer like another", engine, f"{how} with numbered answers", "/s",
                None, http_echo.delivered(engine, 30_000, numbered=True), quick=False, apart=True,
            ),
        ]  # fmt: skip
    return rows


def _steering() -> list[Row]:
    rows = []
    for engine in ENGINES:
        rows += [
            Row(
                "S1", f"start with {scale.MANY:,} queues", engine, "pepperbus serve to the first accepted push", "s",
                Goal(2, 1, most=True), scale.start_s(engine), quick=False, apart=True,
            ),
            Row(
                "S2", f"reload with {scale.MANY:,} queues", engine, "pepperbus reload, one queue changed", "s",
                Goal(1, 0.5, most=True), scale.reload_s(engine), quick=False, apart=True,
            ),
        ]  # fmt: skip
    return sorted(rows, key=lambda row: row.id)
