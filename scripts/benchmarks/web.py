"""`scripts/bench --web`: the dashboard with 1,000 queues and 1,000,000 journal rows.

Server time a page, first paint in a real Chromium, a job found by an indexed field, and what 200 open live pages cost the
data path and the sidecar.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pepperbus.accounts.model import HOST_ROLES
from pepperbus.accounts.sessions import begin
from pepperbus.accounts.store import Store
from pepperbus.clock import SystemClock
from pepperbus.ids import IdGenerator
from pepperbus.journal import store
from pepperbus.journal.contract import Row
from pepperbus.journal.fields import Fields
from pepperbus.journal.log import LogWriter
from scripts.benchmarks import live, processes
from scripts.benchmarks.load import VALUE, redis_benchmark
from scripts.benchmarks.scale import MANY, name
from scripts.benchmarks.servers import Redis, wait_until
from scripts.benchmarks.stage import CHILDREN, Stage, new_fpm, queue_file

ROWS = 1_000_000
_ASKS = 15  # of each page
_WARM = 2000  # jobs that run before
_SLICE = 50_000  # rows written before they are taken over
_TOPIC = f"{name(7)}/t"
_PAGES = (
    "/", "/queues", "/queues?sort=-wait", "/queues?q=00012", f"/topics/{_TOPIC}", f"/topics/{_TOPIC}/jobs?state=ready",
    f"/topics/{_TOPIC}/points/wait?back=3600", "/errors", "/search", "/search?field=order_id%3D777777", "/console", "/storage",
    "/consumers", "/nodes", "/replays", "/alarms", "/api/v1/status", "/metrics",
)  # fmt: skip
_LOOKED_AT = ("/", "/queues", "/queues?sort=-wait", f"/topics/{_TOPIC}", "/errors", "/consumers", "/storage", "/nodes")


@dataclass
class Figures:
    """All of a run; times in ms."""

    pages: dict[str, list[float]] = field(default_factory=dict)
    paints: dict[str, float] = field(default_factory=dict)
    find: list[float] = field(default_factory=list)
    live: live.Pairs = field(default_factory=live.Pairs)
    web_mb: float = 0.0
    trouble: list[str] = field(default_factory=list)


def measure(directory: Path, rows: int, pairs: int, seconds: float, pages: bool = True) -> Figures:
    """Everything, on a bus of its own; `pairs` and `seconds` are of the slices with and without live pages. Without `pages`
    those alone."""
    found = Figures()
    with contextlib.ExitStack() as closing:
        redis = Redis(directory / "redis", "everysec")
        closing.callback(redis.close)
        fpm = new_fpm(directory / "fpm")
        queues = _queues(fpm.script("work.php"))
        Path(fpm.script("topics.txt")).write_text(", ".join(f"{queue}/t" for queue in queues))
        fpm.start()
        closing.callback(fpm.stop)
        stage = Stage(directory / "bus", redis, fpm, queues)
        _say(f"filling the journal with {rows:,} rows")
        _fill(stage.directory / "data", rows)
        stage.open()
        closing.callback(stage.close)
        cookie = _cookie(stage)
        _warm(stage)
        if pages:
            _all_pages(stage, cookie, found)
        found.web_mb = _web_mb(stage)
        _say(f"opening {live.LIVE} live pages, {pairs} times")
        found.live = live.measure(stage, cookie, _LOOKED_AT, f"{name(3)}/t", pairs, seconds)
        found.trouble += found.live.trouble
        if found.trouble:
            _say((stage.directory / "bus.log").read_text()[-3000:])
    return found


def _all_pages(stage: Stage, cookie: str, found: Figures) -> None:
    _say("asking pages")
    for path in _PAGES:
        found.pages[path] = _times(stage, cookie, path, found)
    found.find = [ms for n in range(_ASKS) for ms in _ask(stage, cookie, f"/api/v1/find?word=order_id%3D{n * 997}", 1)]
    _say("painting pages")
    _paint(stage, cookie, found)


def _queues(script: str) -> dict[str, str]:
    usual = {"run": "fastcgi", "pool": "kept", "script": script, "concurrency": CHILDREN}
    text = queue_file("embedded", process_group="all", **usual)
    queues = {name(number): f"system = system{number % 20}\n{text}" for number in range(MANY)}
    queues[name(7)] = f"index = order_id\n{queues[name(7)]}"
    return queues


def _fill(data_dir: Path, rows: int) -> None:
    """Attempts of a fortnight, one in twenty failed, every one with an order number."""
    ids = IdGenerator(2, 14, SystemClock().now_ms)
    fields = Fields(("order_id",))
    begin_ms = SystemClock().now_ms() - 10 * 86_400_000
    for start in range(0, rows, _SLICE):
        writer = LogWriter(data_dir / "journal", "worker.filled.0", 1024)
        for n in range(start, min(start + _SLICE, rows)):
            content = b'{"order_id": %d, "customer": "c%d", "note": "%b"}' % (n, n % 5000, b"x" * 60)
            at_ms = begin_ms + n * 10 * 86_400_000 // rows
            good, code = bool(n % 20), f"E{n % 7}"
            why = "" if good else f"could not reach host {n % 7}"
            row = Row("attempt", ids.next(), f"{name(n % MANY)}/t", at_ms, 1, "bench", "bench/worker.filled.0")
            row.outcome = "done" if good else ("dead" if n % 100 == 0 else "retry")
            row.code, row.error_code, row.reason = 200 if good else 500, "" if good else code, why
            row.out_trace, row.in_trace, row.client, row.accepted_ms = f"{n}-w", f"{n}-i", "127.0.0.1:5000", at_ms
            row.wait_ms, row.run_ms, row.content, row.fields = 3.0, 5.0, content, fields.of(content)
            writer.add(row, False)
        writer.close()
        store.ingest(data_dir / "journal", data_dir / "journal.db", linger_s=0)


def _cookie(stage: Stage) -> str:
    accounts = Store(stage.directory / "data", SystemClock())
    accounts.add("bench", "no password", HOST_ROLES)
    return begin(accounts, "bench", "127.0.0.1")


def _warm(stage: Stage) -> None:
    """Some jobs run, so that there is something to see."""
    redis_benchmark(stage.gateway, "pusher", _WARM, ["lpush", "q__rand_int__/x", VALUE], "-r", "20")
    wait_until(lambda: stage.count("", "done") >= _WARM, 120, "the warm-up jobs are done", every=0.2)


def _times(stage: Stage, cookie: str, path: str, found: Figures) -> list[float]:
    try:
        _ask(stage, cookie, path, 1)
        return _ask(stage, cookie, path, _ASKS)
    except (RuntimeError, OSError, http.client.HTTPException) as trouble:
        found.trouble.append(f"{path}: {type(trouble).__name__} {trouble}")
        return []


def _ask(stage: Stage, cookie: str, path: str, times: int) -> list[float]:
    """Milliseconds of each, on one kept connection. A moment apart, as people ask."""
    connection = http.client.HTTPConnection("127.0.0.1", stage.web, timeout=60)
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        connection.request("GET", path, headers={"Cookie": f"pepperbus={cookie}", "Accept": "text/html, */*"})
        answer = connection.getresponse()
        answer.read()
        taken.append((time.perf_counter() - began) * 1000)
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status}")
        if times > 1:
            time.sleep(0.1)
    connection.close()
    return taken


def _paint(stage: Stage, cookie: str, found: Figures) -> None:
    """First contentful paint of a first visit: nothing is in the browser's cache."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        found.trouble.append("first paint: no Chromium here (Debian: apt install chromium)")
        return
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run"]
    base = f"http://127.0.0.1:{stage.web}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=flags)
        for path in _LOOKED_AT:
            context = browser.new_context(viewport={"width": 1440, "height": 900})
            context.add_cookies([{"name": "pepperbus", "value": cookie, "url": base}])
            page = context.new_page()
            page.goto(base + path, wait_until="load")
            script = "performance.getEntriesByName('first-contentful-paint').map((e) => e.startTime)[0] || 0"
            until = time.monotonic() + 10
            while not (paint := page.evaluate(script)) and time.monotonic() < until:
                page.wait_for_timeout(50)
            found.paints[path] = float(paint)
            context.close()
        browser.close()


def _web_mb(stage: Stage) -> float:
    return processes.memory(processes.named(stage.pids, "pepperbus: web")).rss / 1e6


def text(found: Figures) -> str:
    """The table as it stands in docs/PERFORMANCE.md."""
    lines = ["| page | p50 ms | p95 ms | first paint ms |", "| --- | --- | --- | --- |"] if found.pages else []
    for path, times in found.pages.items():
        paint = found.paints.get(path)
        figures = f"{statistics.median(times):.0f} | {_p95(times):.0f}" if times else "not run | "
        lines.append(f"| `{path}` | {figures} | {'' if paint is None else f'{paint:.0f}'} |")
    if found.find:
        p50, p95 = statistics.median(found.find), _p95(found.find)
        lines += ["", f"- a job found by its indexed field: p50 {p50:.1f} ms, p95 {p95:.1f} ms", ""]
    lines += live.text(found.live)
    lines += ["", f"- sidecar: {found.web_mb:.0f} MB, with the live pages {found.live.sidecar_mb:.0f} MB"]
    return "\n".join([*lines, *(f"- not run: {one}" for one in found.trouble)])


def _p95(times: list[float]) -> float:
    return sorted(times)[max(0, int(len(times) * 0.95) - 1)]


def as_dict(found: Figures) -> dict[str, Any]:
    return asdict(found)


def _say(what: str) -> None:
    print(f"  {what}", file=sys.stderr)
