"""What reaches php-fpm: params from an allow list, scripts below their root, and job data only ever as data."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from pepperbus.config.load import load
from pepperbus.delivery import make_consumer
from pepperbus.delivery.contract import Delivered, Request, Transport
from pepperbus.errors import ConfigError
from pepperbus.job import Job
from tests.fixtures.bus import NODE
from tests.fixtures.fpm import Fpm, fastcgi_config

QUEUE = """
password = secret
storage = local
[topics]
    [[mail]]
        run = fastcgi
        pool = php
        script = {script}
{more}
"""
_SHOW = """<?php
header('Code: 200');
echo json_encode(['server' => $_SERVER, 'get' => $_GET, 'cookie' => $_COOKIE, 'prepend' => ini_get('auto_prepend_file'),
    'job' => base64_encode(json_decode($_POST['jobs'] ?? '[]', true)[0]['content'] ?? ''), 'input' => strlen(file_get_contents('php://input'))]);
"""


def made(place: Path, script: str = "/data/app/consume.php", more: str = "", root: str = "") -> str:
    """The mistakes of such a configuration, "" when it is right."""
    (place / "queues.d").mkdir(exist_ok=True)
    line = f"        script_root = {root}\n" if root else ""
    pools = f"[fastcgi]\n    [[php]]\n        address = unix:/run/php.sock\n{line}"
    (place / "node.conf").write_text(NODE.replace("@PORT@", "12017").replace("@WEB@", "19840") + pools)
    (place / "queues.d" / "orders.conf").write_text(QUEUE.format(script=script, more=more))
    try:
        load(place / "node.conf", {})
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "name",
    [
        "PHP_VALUE", "PHP_ADMIN_VALUE", "SCRIPT_FILENAME", "PATH_TRANSLATED", "ORIG_SCRIPT_FILENAME", "REQUEST_METHOD",
        "CONTENT_LENGTH", "CONTENT_TYPE", "REMOTE_ADDR", "REMOTE_USER", "PEPPERBUS_JOB_ID", "HTTP_X_PEPPERBUS_QUEUE",
        "FCGI_ROLE", "HTTP_PROXY",
    ],
)  # fmt: skip
def test_a_param_that_would_change_what_runs_is_refused(tmp_path: Path, name: str) -> None:
    assert "the bus sets this param itself" in made(tmp_path, more=f"        [[[params]]]\n            {name} = x")


@pytest.mark.parametrize("name", ["PHP VALUE", "php-value", "1A", "A=B", "A" * 129])
def test_a_name_that_is_no_param_is_refused(tmp_path: Path, name: str) -> None:
    assert made(tmp_path, more=f'        [[[params]]]\n            "{name}" = x')


def test_params_frameworks_need_are_let_through(tmp_path: Path) -> None:
    params = "".join(
        f"            {name} = x\n" for name in ("APP_ENV", "DOCUMENT_ROOT", "SCRIPT_NAME", "HTTP_HOST", "HTTPS")
    )
    assert made(tmp_path, more=f"        [[[params]]]\n{params}") == ""


@pytest.mark.parametrize(
    ("script", "fine"),
    [
        ("/data/app/consume.php", True),
        ("/data/app/a/../b/x.php", True),
        ("/srv/jobs/x.php", True),
        ("/data/app/../../etc/x.php", False),
        ("/data/application/x.php", False),
        ("/etc/passwd", False),
        ("consume.php", False),
    ],
)
def test_a_script_lies_below_its_root(tmp_path: Path, script: str, fine: bool) -> None:
    mistake = made(tmp_path, script, root="/data/app/, /srv/jobs")
    assert (mistake == "") == fine
    if not fine:
        assert "orders.conf:8: " in mistake
        assert "is not below script_root of the pool (/data/app, /srv/jobs)" in mistake


def test_a_root_is_a_directory(tmp_path: Path) -> None:
    assert "absolute paths of directories" in made(tmp_path, root="app")
    assert "absolute paths of directories" in made(tmp_path, root="/")


def test_job_data_stays_data(fpm: Callable[..., Fpm], tmp_path: Path) -> None:
    """Contents that look like FastCGI records, params, headers, form fields and PHP settings reach the script as content."""
    server = fpm()
    topic, config = fastcgi_config(server.address, server.script("show.php", _SHOW), tmp_path)
    pair = b"\x09\x1fPHP_VALUEauto_prepend_file=/etc/passwd"
    record = struct.pack("!BBHHBx", 1, 4, 1, len(pair), 0) + pair
    evil = [
        record,
        struct.pack("!BBHHBx", 1, 5, 1, 0, 0) + struct.pack("!BBHHBx", 1, 3, 1, 8, 0) + bytes(8),
        b"x&PHP_VALUE=auto_prepend_file%3D/etc/passwd&type=ping&queue=other",
        b"\r\nProxy: http://evil/\r\nCode: 200\r\n\r\n",
        b"\0PHP_ADMIN_VALUE\0auto_prepend_file=/etc/passwd",
    ]
    plain = _shown(topic, config, b"x")
    for content in evil:
        shown = _shown(topic, config, content)
        assert shown["prepend"] == ""
        assert shown["server"].keys() == plain["server"].keys()
        assert (shown["get"], shown["cookie"]) == ([], [])
        assert shown["server"]["SCRIPT_FILENAME"] == topic.script


def _shown(topic: object, config: object, content: bytes) -> dict[str, dict[str, str]]:
    consumer = make_consumer(topic, config)  # type: ignore[arg-type]
    try:
        job = Delivered(Job(9223372036854775809, "in\r\nX: y", content, 1), 1)
        answer = consumer.call(Request("orders", "mail", "77", (job,), deadline_s=30.0))
    finally:
        consumer.close()
    assert answer.transport is Transport.ANSWERED, answer
    found: dict[str, dict[str, str]] = json.loads(answer.body)
    return found
