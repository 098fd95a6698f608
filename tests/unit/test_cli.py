"""The command line as a shell sees it: one clear line on wrong use, exit statuses, pages of help, nothing written by slip."""

from __future__ import annotations

import json
import os
import pwd
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import pytest

from pepperbus.alarms.board import Incident
from pepperbus.alarms.store import Store
from pepperbus.cli import COMMANDS
from pepperbus.delivery.contract import Act
from pepperbus.journal.contract import Row
from pepperbus.journal.log import LogWriter

ROOT = Path(__file__).parents[2]
NODE = """
queue_files = queues.d/*.conf
[bus]
    data_dir = data
    run_dir = run
[gateway]
    listen = unix:gateway.sock
[storages]
    [[local]]
        type = embedded
"""
ORDERS = """
password = hidden
[topics]
    [[mail]]
        run = http
        url = http://127.0.0.1:9/mail
        ping = off
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("cli")
    (made / "queues.d").mkdir()
    (made / "pepperbus.conf").write_text(NODE)
    (made / "queues.d/orders.conf").write_text(ORDERS)
    return made


def pepperbus(directory: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pepperbus.cli", *words],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PEPPERBUS_CONF": str(directory / "pepperbus.conf")},
        capture_output=True,
        text=True,
        timeout=30,
        input=stdin,
    )


_MANY = """
import contextlib, io, json, sys
from pepperbus.cli import main
answers = []
for words in json.load(sys.stdin):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    answers.append((status, out.getvalue(), err.getvalue()))
json.dump(answers, sys.stdout)
"""


def pepperbus_many(directory: Path, lines: list[list[str]]) -> list[subprocess.CompletedProcess[str]]:
    """Many commands, one after the other in one interpreter: each costs half a second in its own."""
    done = subprocess.run(
        [sys.executable, "-c", _MANY],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PEPPERBUS_CONF": str(directory / "pepperbus.conf")},
        capture_output=True,
        text=True,
        timeout=60,
        input=json.dumps(lines),
    )
    assert done.returncode == 0, done.stderr
    return [
        subprocess.CompletedProcess(words, *answer)
        for words, answer in zip(lines, json.loads(done.stdout), strict=True)
    ]


#: words -> (exit status, what the line on standard error must say)
WRONG = {
    "statu": (2, "no command 'statu' (did you mean 'status'?)"),
    "serve now": (2, "unexpected extra argument"),
    "check --strict": (2, "No such option"),
    "reload": (3, "control.sock: start its service, or `pepperbus serve`"),
    "stop": (3, "no bus answers at"),
    "reload now": (2, "unexpected extra argument"),
    "stop --later": (2, "No such option"),
    "fpm-pool php": (1, "no [fastcgi] pool 'php'; the configuration names: none"),
    "push": (2, "Missing argument 'QUEUE'"),
    "push nix x": (1, "no queue 'nix'"),
    "push order x": (1, "did you mean 'orders'?"),
    "push orders x": (3, "): does the bus run? `pepperbus status`"),
    "push orders --front --delay 5 x": (2, "exclude each other"),
    "push orders --delay 0 x": (2, "Invalid value for '--delay'"),
    "push orders --file /nonexistent": (2, "/nonexistent: no such file"),
    "push orders --count 3 -": (2, "standard input can be read only once"),
    "status --seconds 99": (2, "Invalid value for '--seconds'"),
    "job": (2, "Missing argument 'ID'"),
    "job 17": (2, "'17' is not a job id (20 decimal digits)"),
    "job 10000000000000000001": (1, "no job 10000000000000000001"),
    "jobs orders": (1, "no topic 'orders' (did you mean 'orders/mail'?)"),
    "jobs orders/nix": (1, "no topic 'orders/nix'"),
    "jobs orders/mail --state gone": (2, "'gone' is not one of"),
    "jobs orders/mail --since yesterday": (2, "'yesterday' is no time: say 30m"),
    "tail nix": (1, "no queue 'nix'"),
    "tail --no-follow": (2, "--no-follow needs --since"),
    "queue": (2, "Usage: pepperbus queue"),
    "queue ad": (2, "No such command 'ad'"),
    "queue show nix": (1, "no queue 'nix'"),
    "queue add ../x": (2, "cannot name a queue"),
    "queue add orders": (1, "queue 'orders' exists already"),
    "queue add bills mail": (2, "KEY=VALUE or TOPIC/KEY=VALUE is wanted"),
    "queue add bills pdf/run=http pdf/url=http://127.0.0.1:9/ pdf/timout=3s": (1, "did you mean timeout?"),
    "queue set orders": (2, "nothing to set"),
    "queue set nix password=x": (1, "no queue 'nix'"),
    "queue set orders mail/timeout=long": (1, "timeout = long"),
    "queue set orders --unset mail/timeout": (2, "mail/timeout is not set"),
    "queue rm orders": (2, "say --yes, or --dry-run"),
    "queue rm orders/nix": (1, "no topic 'orders/nix'"),
    "pause": (2, "Missing argument"),
    "pause orders/nix": (1, "no topic 'orders/nix'"),
    "resume nix": (1, "no queue 'nix'"),
    "replay orders/mail --sample 200%": (2, "more than 0 and at most 100%"),
    "replay orders/mail --sample much": (2, "'much' is no share: say 5%"),
    "replay orders/mail --rate fast": (2, "'fast' is no rate: say 100/s"),
    "replay orders/mail --state ready": (2, "'ready' is not one of"),
    "replay orders/mail 17 --yes": (2, "'17' is not a job id"),
    "purge orders/mail --state leased": (2, "'leased' is not one of"),
    "purge orders/mail 10000000000000000001 --yes": (1, "no job 10000000000000000001 in orders/mail"),
    "ping orders": (1, "no topic 'orders'"),
    "send": (2, "Missing argument 'QUEUE/TOPIC'"),
    "send orders/nix x": (1, "no topic 'orders/nix'"),
    "-c /nonexistent.conf status": (3, "/nonexistent.conf"),
}


@pytest.fixture(scope="module")
def answers(directory: Path) -> dict[str, subprocess.CompletedProcess[str]]:
    return dict(zip(WRONG, pepperbus_many(directory, [words.split() for words in WRONG]), strict=True))


@pytest.mark.parametrize("words", WRONG)
def test_wrong_use_is_one_clear_line_and_a_status(
    answers: dict[str, subprocess.CompletedProcess[str]], directory: Path, words: str
) -> None:
    status, line = WRONG[words]
    done = answers[words]
    assert (done.returncode, line in done.stderr or line in done.stdout) == (status, True), done
    assert "Traceback" not in done.stderr
    if not line.startswith("Usage"):
        assert done.stdout == ""
        assert all(line.startswith("pepperbus: ") for line in done.stderr.splitlines())
        assert len(done.stderr.splitlines()) <= 2
    assert sorted(path.name for path in (directory / "queues.d").iterdir()) == ["orders.conf"]
    assert (directory / "queues.d/orders.conf").read_text() == ORDERS


def test_every_command_has_a_page_of_help_that_begins_like_its_line_in_the_list(directory: Path) -> None:
    listed, *pages = pepperbus_many(directory, [["--help"], *([name, "--help"] for name in COMMANDS)])
    for (name, entry), done in zip(COMMANDS.items(), pages, strict=True):
        assert (done.returncode, done.stderr) == (0, "")
        assert f"Usage: pepperbus {name}" in done.stdout
        assert len(done.stdout.split("\n\n")[1]) > 20
        assert name in listed.stdout
        assert entry.help.split()[-1] in listed.stdout


def test_version_and_no_words_at_all(directory: Path) -> None:
    assert pepperbus(directory, "--version").stdout == "pepperbus 0.1.0\n"
    done = pepperbus(directory)
    assert (done.returncode, done.stdout.startswith("Usage: pepperbus")) == (2, True)


def test_check_says_ok_or_every_mistake(directory: Path, tmp_path: Path) -> None:
    done = pepperbus(directory, "check")
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0,
        f"configuration ok: 1 queue, 1 topic, 1 storage ({directory / 'pepperbus.conf'})",
    )
    (tmp_path / "queues.d").mkdir()
    bad = tmp_path / "bad.conf"
    bad.write_text(NODE.replace("data_dir", "datadir") + "[gatway]\n    listen = x\n")
    done = pepperbus(directory, "-c", str(bad), "check")
    assert done.returncode == 1
    assert "did you mean data_dir?" in done.stderr
    assert "did you mean gateway?" in done.stderr
    answer = json.loads(pepperbus(directory, "-c", str(bad), "--json", "check").stdout)
    assert (answer["ok"], len(answer["mistakes"])) == (False, 2)


def test_serve_without_a_usable_configuration_ends_with_3(directory: Path, tmp_path: Path) -> None:
    done = pepperbus(directory, "-c", str(tmp_path / "none.conf"), "serve")
    assert done.returncode == 3
    assert "none.conf: cannot be read: No such file or directory" in done.stderr.splitlines()[0]


def test_status_of_a_bus_that_does_not_run_says_so_first(directory: Path) -> None:
    done = pepperbus(directory, "status")
    assert done.returncode == 3
    assert done.stdout.splitlines()[0].startswith("! no bus answers at")
    assert "orders/mail" in done.stdout
    answer = json.loads(pepperbus(directory, "--json", "status").stdout)
    assert (answer["running"], answer["storages"][0]["alive"]) == (False, True)


def test_status_counts_the_alarms_that_go_on(directory: Path) -> None:
    begun = Incident(1, "dead", "orders/mail", "", "n", 1_800_000_000_000, 3.0, 3.0, 1.0)
    store = Store(directory / "data")
    store.save({}, [begun])
    assert pepperbus(directory, "status").stdout.splitlines()[-1] == "alarms that go on: 1 (`pepperbus alarm list`)"
    store.save({}, [msgspec.structs.replace(begun, ended_ms=1_800_000_001_000)])
    assert "alarms that go on" not in pepperbus(directory, "status").stdout


def test_tail_says_that_it_waits_for_a_bus_and_ends_quietly_on_ctrl_c(directory: Path) -> None:
    started = subprocess.Popen(
        [sys.executable, "-m", "pepperbus.cli", "tail"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PEPPERBUS_CONF": str(directory / "pepperbus.conf")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    writer = LogWriter(directory / "data/journal", "worker.orders.0", 64)
    try:
        assert started.stderr
        assert started.stdout
        assert started.stderr.readline().endswith("or `pepperbus serve`; waiting for it\n")
        deadline = time.monotonic() + 30
        while not select.select([started.stdout], [], [], 0.1)[0] and time.monotonic() < deadline:
            writer.add(Row("attempt", 1 << 63, "orders/mail", 1, 1, outcome="done"))  # it begins somewhere between two
            writer.flush()
        assert "attempt 1 done" in started.stdout.readline()
        started.send_signal(signal.SIGINT)
        assert started.communicate(timeout=30)[1] == ""
        assert started.returncode == 0
    finally:
        started.kill()
        started.communicate()


def test_queues_by_hand(directory: Path) -> None:
    """add, set, show, rm: what the file says is what is shown."""
    made = pepperbus(directory, "queue", "add", "bills", "pdf/run=http", "pdf/url=http://127.0.0.1:9/", "tags=a, b")
    assert (made.returncode, "bills: created" in made.stdout) == (0, True)
    assert pepperbus(directory, "queue", "set", "bills", "pdf/concurrency=9", "--unset", "tags").returncode == 0
    shown = json.loads(pepperbus(directory, "--json", "queue", "show", "bills").stdout)
    assert (shown["settings"]["tags"], shown["topics"][0]["settings"]["concurrency"]) == ([], 9)
    assert "bills/pdf" in pepperbus(directory, "queue", "list").stdout
    dry = pepperbus(directory, "queue", "rm", "bills", "--dry-run")
    assert (dry.returncode, dry.stdout) == (0, "would remove bills/pdf\n")
    gone = pepperbus(directory, "queue", "rm", "bills", "--yes")
    assert (gone.returncode, "bills: removed" in gone.stdout) == (0, True)


def test_ping_and_send_show_that_nobody_listens(directory: Path) -> None:
    ping = pepperbus(directory, "ping", "orders/mail")
    assert (ping.returncode, "NOT registered at http://127.0.0.1:9/mail" in ping.stdout) == (1, True)
    sent = json.loads(pepperbus(directory, "--json", "send", "orders/mail", "-", stdin="x").stdout)
    assert (sent["act"], sent["transport"]) == (Act.BACK.value, "no listener")


def test_nothing_to_replay_or_purge_is_done_at_once(directory: Path) -> None:
    for verb in ("replay", "purge"):
        done = pepperbus(directory, verb, "orders/mail")
        assert (done.returncode, done.stdout) == (0, "0 job(s) match; nothing was changed\n")


def test_a_reader_that_leaves_is_no_error(directory: Path) -> None:
    line = f"{sys.executable} -m pepperbus.cli --help | head -c 10; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", line], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_serve_is_never_patched(directory: Path) -> None:
    """The master must not have gevent in it (a patched master misses SIGCHLD)."""
    script = (
        "import sys; from pepperbus.cli import cli; import click;"
        "cli.get_command(click.Context(cli), 'serve');"
        "print('gevent' in sys.modules, 'redis' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stdout == "False False\n", done


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_leaves_no_file_that_locks_the_daemon_out() -> None:
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory(prefix="pepperbus-root-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "queues.d").mkdir()
        (directory / "queues.d/orders.conf").write_text(ORDERS)
        (directory / "pepperbus.conf").write_text(NODE.replace("[bus]", "[bus]\n    user = nobody"))
        for made in (directory / "data", directory / "run"):
            made.mkdir()
            os.chown(made, nobody.pw_uid, nobody.pw_gid)
        for words in ("jobs orders/mail", "pause orders", "status --seconds 0", "queue rm orders --yes"):
            assert pepperbus(directory, *words.split()).returncode in (0, 3)
        found = list((directory / "data").rglob("*"))
        assert found
        assert {path.stat().st_uid for path in found} == {nobody.pw_uid}
        pepperbus(directory, "queue", "add", "bills", "pdf/run=http", "pdf/url=http://127.0.0.1:9/")
        stat = (directory / "queues.d/bills.conf").stat()
        assert (stat.st_uid, stat.st_gid, stat.st_mode & 0o777) == (0, nobody.pw_gid, 0o640)


def test_the_reference_names_every_command_and_option() -> None:
    page = (ROOT / "docs/CLI.md").read_text()

    script = "from pepperbus.cli.reference import text; print(text(), end='')"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert words_of(done.stdout) == words_of(page), "run python -m pepperbus.cli.reference --write"


def words_of(page: str) -> list[str]:
    """Commands, options and headings; how click breaks lines is left to its versions."""
    return re.findall(r"(?m)^## .*|^### .*|(?<=\s)--[a-z-]+", page)
