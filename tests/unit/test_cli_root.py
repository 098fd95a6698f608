"""What root does for a bus that runs as its own user: nothing may be left behind that locks the bus out."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
NODE = """
queue_files = queues.d/*.conf
[bus]
    data_dir = data
    run_dir = run
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A node whose data belongs to `nobody`, as after an installation; pytest's own directories let nobody through."""
    made = Path(tempfile.mkdtemp(prefix="pepperbus-root-"))
    made.chmod(0o755)
    nobody = pwd.getpwnam("nobody")
    (made / "pepperbus.conf").write_text(NODE)
    for name in ("queues.d", "data", "run"):
        (made / name).mkdir(mode=0o750)
    os.chown(made / "queues.d", 0, nobody.pw_gid)
    for name in ("data", "run"):
        os.chown(made / name, nobody.pw_uid, nobody.pw_gid)
    yield made
    shutil.rmtree(made)


def pepperbus(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pepperbus.cli", "-c", str(directory / "pepperbus.conf"), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_a_new_queue_can_be_read_by_the_group_of_the_directory(directory: Path) -> None:
    done = pepperbus(directory, "queue", "add", "orders", "mail/run=http", "mail/url=http://127.0.0.1:9/")
    assert done.returncode == 0, done.stderr
    facts = (directory / "queues.d/orders.conf").stat()
    assert facts.st_gid == pwd.getpwnam("nobody").pw_gid
    assert facts.st_mode & 0o777 == 0o640


def test_a_look_before_the_first_start_makes_files_of_the_data_s_owner(directory: Path) -> None:
    (directory / "queues.d/orders.conf").write_text("password = x\n[topics]\n[[mail]]\nrun = http\nurl = http://a:9/\n")
    assert pepperbus(directory, "status").returncode == 3
    made = list((directory / "data").rglob("*"))
    assert made, "status opens the storage"
    assert {path.stat().st_uid for path in made} == {pwd.getpwnam("nobody").pw_uid}


def test_a_directory_that_cannot_be_written_is_one_line(directory: Path) -> None:
    """`serve` ends before anything starts, and names who could not write where."""
    (directory / "queues.d").chmod(0o755)
    os.chown(directory / "data", 0, 0)
    (directory / "data").chmod(0o755)
    text = (directory / "pepperbus.conf").read_text()
    (directory / "pepperbus.conf").write_text(text.replace("[bus]", "[bus]\n    user = nobody"))
    done = subprocess.run(
        [sys.executable, "-m", "pepperbus.cli", "-c", str(directory / "pepperbus.conf"), "serve"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        user="nobody",
        group=pwd.getpwnam("nobody").pw_gid,
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.strip().splitlines() == [
        f"pepperbus: [bus] data_dir: nobody may not write to {directory}/data, which belongs to root, mode 0755: "
        f"chown nobody {directory}/data"
    ]
