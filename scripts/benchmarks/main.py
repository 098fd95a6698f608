"""`scripts/bench`: choose rows, run them in turn, show the table."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from scripts.benchmarks import growth, processes, table, web
from scripts.benchmarks.bench import Bench
from scripts.benchmarks.peers import contest
from scripts.benchmarks.rows import all_rows
from scripts.benchmarks.table import CannotRun, Row

ROOT = Path(__file__).parents[2]
VAR = ROOT / "var" / "bench"


class Stopped(BaseException):
    """By SIGTERM. Not SystemExit, which a row ends with that cannot be run."""


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0, 2 for what it does not know, 143 when SIGTERM stopped it. What it started is stopped."""
    given = _arguments(argv)
    signal.signal(signal.SIGTERM, _stop)
    try:
        return _run(given)
    except Stopped:
        return 143


def _stop(*_: object) -> None:
    raise Stopped


def _run(given: argparse.Namespace) -> int:
    rows = [row for row in all_rows() if _chosen(row, given)]
    if not (rows or given.peers or given.growth):
        print(f"bench: no such row: {given.rows}", file=sys.stderr)
        return 2
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))  # 10,000 connections have two ends
    VAR.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=VAR))
    began = time.monotonic()
    bench = None
    try:
        if given.web:
            return _web(directory, given)
        bench = Bench(directory, given.size)
        about = {**bench.about(), "rounds": given.rounds, "size": given.size}
        cores = psutil.cpu_times()
        measure(bench, rows, given.rounds)
        about["stolen"] = f"{processes.stolen(cores, psutil.cpu_times()):.0f} % of the cores' time, by the host"
        show(rows, about, time.monotonic() - began)
        table.write_json(given.json, rows, about, _further(bench, given))
        print(f"\nfigures of every round: {given.json}")
    finally:
        if bench is not None:
            bench.close()
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def _web(directory: Path, given: argparse.Namespace) -> int:
    """The dashboard alone: it brings a bus of its own."""
    load = os.getloadavg()[0]
    found = web.measure(directory, given.journal_rows, given.pairs, given.slice, not given.live)
    print(f"load before {load:.1f}\n\n{web.text(found)}")
    given.json.write_text(json.dumps({"load before": load, **web.as_dict(found)}, indent=1))
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--quick", action="store_true", help="the chief rows in under two minutes (default)")
    extent.add_argument("--full", action="store_true", help="every row, at least five rounds")
    parser.add_argument("--rows", help="only these, such as P1,P4")
    parser.add_argument("--peers", action="store_true", help="what users would pick instead (part of --full)")
    parser.add_argument("--growth", help=f"plots, with commas or all (part of --full): {','.join(growth.PLOTS)}")
    parser.add_argument("--plots", type=Path, default=VAR / "plots", help="the directory they are drawn in")
    parser.add_argument(
        "--web", action="store_true", help="the dashboard: 1,000 queues, 1,000,000 journal rows, 200 live pages"
    )
    parser.add_argument("--journal-rows", type=int, default=web.ROWS, help="with --web")
    parser.add_argument("--live", action="store_true", help="with --web: only what the live pages cost")
    parser.add_argument("--pairs", type=int, default=15, help="with --web: slices with and without live pages")
    parser.add_argument("--slice", type=float, default=4.0, help="with --web: seconds of a slice")
    parser.add_argument("--engine", choices=("embedded", "redis"), help="only rows of this storage")
    parser.add_argument("--rounds", type=int, help="of each row (quick 2, full 5)")
    parser.add_argument("--size", type=float, help="how much load a round is (quick 0.25, full 1)")
    parser.add_argument("--json", type=Path, default=VAR / "bench.json", help="where the figures go")
    given = parser.parse_args(argv)
    if given.full and not given.rows:
        given.peers, given.growth = True, given.growth or "all"
    names = list(growth.PLOTS) if given.growth == "all" else (given.growth or "").split(",") if given.growth else []
    if unknown := set(names) - set(growth.PLOTS):
        parser.error(f"no such plot: {', '.join(sorted(unknown))}")
    given.growth = names
    given.rounds = given.rounds or (5 if given.full else 2)
    given.size = given.size or (1.0 if given.full else 0.25)
    return given


def _chosen(row: Row, given: argparse.Namespace) -> bool:
    if given.engine and row.engine not in (given.engine, ""):
        return False
    if given.rows:
        return row.id in given.rows.split(",")
    if (given.peers or given.growth) and not given.full and not given.quick:
        return False
    return given.full or row.quick


def measure(bench: Bench, rows: list[Row], rounds: int) -> None:
    """All rows take turns, round by round; those with servers of their own come one after the other at the end."""
    for together in ([row for row in rows if not row.apart], *([row] for row in rows if row.apart)):
        running = [(row, row.measure(bench, rounds)) for row in together]
        while running:
            running = [(row, figures) for row, figures in running if _round(row, figures)]


def _round(row: Row, figures: Iterator[tuple[float, float | None]]) -> bool:
    """One round of a row; whether there is another."""
    try:
        row.add(*next(figures))
    except StopIteration:
        return False
    except (CannotRun, SystemExit) as trouble:
        row.trouble = str(trouble).removeprefix("bench: ")
        print(f"bench: {row.id} {row.engine}: not run: {row.trouble}", file=sys.stderr)
        return False
    print(f"  {row.id:4} {row.engine:9} {row.title:34} {table.number(row.figures[-1])}", file=sys.stderr)
    return True


def _further(bench: Bench, given: argparse.Namespace) -> dict[str, object]:
    """Peers and growth, shown and for the JSON file."""
    figures: dict[str, object] = {}
    if given.peers:
        scores, skipped = contest.contest(bench, VAR)
        print(f"\nwhat users would pick instead, a job that does nothing\n{contest.text(scores, skipped)}")
        figures["peers"] = {"scores": contest.as_dicts(scores), "skipped": skipped}
    if given.growth:
        figures["growth"] = growth.grow(bench, given.growth, given.plots)
        print(f"\nplots: {given.plots}")
    return figures


def show(rows: list[Row], about: dict[str, object], seconds: float) -> None:
    for name, value in about.items():
        print(f"{name:12} {value}")
    print(f"\n{table.text(rows)}\n\nwhat ran\n{table.commands(rows)}\n\n{seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
