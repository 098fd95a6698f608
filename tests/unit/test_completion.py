"""Completion as a shell does it: the script is sourced by a real bash, which asks for what fits."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODE = """
queue_files = queues.d/*.conf
[bus]
    data_dir = data
    run_dir = run
[fastcgi]
    [[php]]
        address = unix:/run/php.sock
"""
QUEUE = "password = x\n[topics]\n    [[mail]]\n        run = http\n        url = http://127.0.0.1:9/\n"
BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
complete -p pepperbus >/dev/null || exit 9
_pepperbus_completion pepperbus "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "queues.d").mkdir()
    (tmp_path / "node.conf").write_text(NODE)
    for name in ("orders", "bills"):
        (tmp_path / "queues.d" / f"{name}.conf").write_text(QUEUE)
    program = tmp_path / "bin" / "pepperbus"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pepperbus.cli "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return tmp_path


def environment(place: Path) -> dict[str, str]:
    path = f"{place}/bin:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PEPPERBUS_CONF": str(place / "node.conf")}


def script(place: Path, shell: str) -> Path:
    done = subprocess.run(["pepperbus", "completion", shell], env=environment(place), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    file = place / f"completion.{shell}"
    file.write_text(done.stdout)
    return file


def offered(place: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    file = script(place, "bash")
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH, "bash", str(file), "pepperbus", *words],
        env=environment(place),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["re"], ["reload", "restart", "resume", "replay", "replays"]),
        (["queue", "s"], ["set", "show"]),
        (["ping", "or"], ["orders/mail"]),
        (["push", ""], ["bills", "orders"]),
        (["pause", "b"], ["bills", "bills/mail"]),
        (["queue", "show", "b"], ["bills"]),
        (["check", "fpm", ""], ["php"]),
        (["purge", "--dry"], ["--dry-run"]),
        (["-c", "/nowhere", "ping", ""], []),
    ],
)
def test_bash_offers_what_fits(place: Path, words: list[str], found: list[str]) -> None:
    assert offered(place, *words) == found


def test_completing_a_command_imports_none_of_them() -> None:
    code = (
        "import sys, os; os.environ.update(_PEPPERBUS_COMPLETE='bash_complete', COMP_WORDS='pepperbus s', COMP_CWORD='1')\n"
        "from pepperbus.cli import main\n"
        "try: main([])\n"
        "finally: assert not {'gevent', 'redis', 'lmdb'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "plain,serve" in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("shell", "word"), [("zsh", "#compdef pepperbus"), ("fish", "complete --no-files --command pepperbus")]
)
def test_the_other_shells_scripts(place: Path, shell: str, word: str) -> None:
    file = script(place, shell)
    assert word in file.read_text()
    if shutil.which(shell):
        assert subprocess.run([shell, "-n", str(file)], capture_output=True).returncode == 0
