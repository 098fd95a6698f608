"""The verdict on what a real php-fpm really answers: the same words that test_verdict.py has as literals."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pepperbus.delivery import make_consumer
from pepperbus.delivery.contract import Act, Delivered, Request, TargetEffect, Verdict
from pepperbus.delivery.verdict import ENDED_EARLY, NO_CODE, judge, judge_ping
from pepperbus.job import Job
from tests.fixtures.fpm import Fpm, fastcgi_config

MakeFpm = Callable[..., Fpm]
SETTINGS = {
    "quiet": {"display_errors": 0, "log_errors": 1, "output_buffering": 0},
    "html shown, not logged": {"display_errors": 1, "log_errors": 0, "html_errors": 1, "output_buffering": 0},
    "text shown, not logged": {"display_errors": 1, "log_errors": 0, "html_errors": 0, "output_buffering": 0},
}
#: What the script does after `Code: 200` and some output, and what the reason must say; @F@ is the script's path.
FATALS = {
    "exception": ("throw new Exception('boom');", "PHP Fatal error: Uncaught Exception: boom in @F@:1"),
    "lines": ('throw new Exception("two\\nlines");', "PHP Fatal error: Uncaught Exception: two lines in @F@:1"),
    "undefined": ("no_such_function();", "Call to undefined function no_such_function() in @F@:1"),
    "memory": ("$x = str_repeat('x', 512 << 20);", "Allowed memory size of"),
    "user": ("trigger_error('mine', E_USER_ERROR);", "PHP Fatal error: mine in @F@:1"),
    "nested": ("include __DIR__ . '/broken.php';", "PHP Parse error: Unclosed '('"),
}


def run(server: Fpm, script: str, content: bytes = b"x", dedicated: bool = True, **topic: Any) -> Verdict:
    made, config = fastcgi_config(server.address, script, server.directory, **topic)
    consumer = make_consumer(made, config)
    request = Request(
        "orders", "mail", "1", (Delivered(Job((1 << 63) + 7, "1", content), 1),), now_ms=time.time_ns() // 1_000_000
    )
    try:
        return judge(consumer.call(request), request, made, dedicated=dedicated)
    finally:
        consumer.close()


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_script_that_dies_after_it_said_200_has_failed(fpm: MakeFpm, settings: str) -> None:
    server = fpm(children=2, php=SETTINGS[settings])
    server.script("broken.php", "<?php\n\nif (")
    for contract in ("sdk", "status"):
        for name, (text, reason) in FATALS.items():
            path = server.script(f"{name}.php", f"<?php header('Code: 200'); echo 'working'; {text}")
            verdict = run(server, path, dedicated=settings == "quiet", contract=contract)
            assert (verdict.act, verdict.spent) == (Act.RETRY, True), (name, verdict)
            assert reason.replace("@F@", path) in verdict.reason, (name, verdict.reason)
            where = "broken.php:3" if name == "nested" else f"{path}:1"
            assert verdict.reason.endswith(where), (name, verdict.reason)


def test_warnings_and_logged_words_are_no_failure(fpm: MakeFpm) -> None:
    server = fpm(children=2, php={"display_errors": 1, "log_errors": 1, "html_errors": 1})
    text = "<?php echo $no; error_log('Primary script unknown'); echo 1/1, 'no error on line 3'; header_remove();"
    path = server.script("noisy.php", text)
    assert run(server, path, dedicated=False, contract="status").act is Act.DONE


def test_scripts_that_are_not_served_stop_the_topic(fpm: MakeFpm) -> None:
    server = fpm(children=2)
    (server.scripts / "secret.txt").write_text("<?php echo 1;")
    for script, words in (
        (server.script("missing.php"), "Primary script unknown"),
        (str(server.scripts), "has been denied (see security.limit_extensions)"),
        (server.script("secret.txt"), "has been denied (see security.limit_extensions)"),
    ):
        verdict = run(server, script)
        assert (verdict.act, verdict.effect, verdict.spent) == (Act.BACK, TargetEffect.STOPPED, False), script
        assert script in verdict.reason
        assert words in verdict.reason


@pytest.mark.parametrize("shown", [False, True])
def test_post_max_size_is_named_and_final(fpm: MakeFpm, shown: bool) -> None:
    php = {"post_max_size": "1M", "display_errors": int(shown), "log_errors": int(not shown)}
    php |= {"display_startup_errors": int(shown)}
    server = fpm(children=2, php=php)
    path = server.script("ok.php", "<?php header('Code: 200');")
    verdict = run(server, path, b"x" * (1 << 20), dedicated=not shown)
    assert (verdict.act, verdict.code) == (Act.DEAD, 413), verdict
    assert "post_max_size of the pool is 1048576 bytes" in verdict.reason
    raw = server.script("raw.php", "<?php header('X-Length: ' . strlen(file_get_contents('php://input')));")
    assert run(server, raw, b"x" * (1 << 20), body="raw", contract="status").act is Act.DONE


def test_exits_are_seen_by_sdk_topics_only(fpm: MakeFpm) -> None:
    server = fpm(children=2)
    path = server.script("exit.php", "<?php exit(255);")
    assert run(server, path, contract="status").act is Act.DONE
    verdict = run(server, path, contract="sdk")
    assert (verdict.act, verdict.reason) == (Act.RETRY, f"no Code in the answer (HTTP status 200): {ENDED_EARLY}")


def test_pings(fpm: MakeFpm, tmp_path: Path) -> None:
    server = fpm(children=2, php={"display_errors": 1, "html_errors": 1})
    sdk = "header('Code: 200'); echo $notice; echo 'orders/audit,orders/mail,';"
    for text, expected in ((sdk, (True, "")), ("echo 'hello';", (False, NO_CODE))):
        made, config = fastcgi_config(server.address, server.script("ping.php", "<?php " + text), server.directory)
        consumer = make_consumer(made, config)
        request = Request("orders", "mail", "1", ping=True)
        assert judge_ping(consumer.call(request), request) == expected
        consumer.close()
