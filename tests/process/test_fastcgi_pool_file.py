"""The pool file that `pepperbus fpm-pool` prints: php-fpm takes it, and it fits the configuration."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pepperbus.config.model import FastcgiPool, Topic
from pepperbus.delivery.fpm_pool import pool_file
from tests.fixtures.fpm import BINARY

ROOT = Path(__file__).parent.parent.parent
TOPICS = (Topic("q", "a", "s", "fastcgi", timeout=30.0), Topic("q", "b", "s", "fastcgi", timeout=90.0))


def test_the_file_in_etc_is_what_is_printed() -> None:
    assert (ROOT / "etc" / "php-fpm.d" / "pepperbus.conf").read_text() == pool_file()


def test_it_fits_pool_topics_and_largest_job() -> None:
    text = pool_file(FastcgiPool("jobs", "127.0.0.1:9123", max_connections=10), TOPICS, 16 << 20)
    for line in (
        "[jobs]",
        "listen = 127.0.0.1:9123",
        "pm.max_children = 12",
        "request_terminate_timeout = 88s",
        "php_admin_value[post_max_size] = 48M",
    ):
        assert line in text.splitlines()


@pytest.mark.parametrize("address", ["unix:/tmp/pepperbus-test-pool.sock", "127.0.0.1:9123"])
def test_php_fpm_accepts_it(tmp_path: Path, address: str) -> None:
    if BINARY is None:
        pytest.skip("php-fpm is not installed (apt-get install php8.2-fpm)")
    (tmp_path / "pool.conf").write_text(pool_file(FastcgiPool("jobs", address)))
    main = tmp_path / "fpm.conf"
    main.write_text(f"[global]\nerror_log = {tmp_path}/log\ninclude={tmp_path}/pool.conf\n")
    run = subprocess.run([BINARY, "-t", "-y", str(main)], capture_output=True, text=True, timeout=20, check=False)
    assert run.returncode == 0, run.stderr + (tmp_path / "log").read_text()
