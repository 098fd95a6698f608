"""The on-call story as a person does it: a queue by form, jobs pushed, PHP broken, the error found, mended, run again."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pepperbus.web.words import catalogue
from tests.browser.chromium import Browsing, browser, wait  # noqa: F401
from tests.fixtures.bus import NODE

GOOD = "<?php header('Code: 200'); header('Consume-Topics: orders/mail');"
BROKEN = "<?php if ($_POST['type'] !== 'ping') {\n  throw new RuntimeException('no mail server');\n}\n" + GOOD[6:]
PATIENT = 30_000


@pytest.mark.parametrize(
    "look", [(1440, "light", "en"), (390, "dark", "zh")], ids=lambda look: "-".join(map(str, look))
)
def test_an_order_was_not_mailed(buses: Any, fpm: Any, browser: Any, look: tuple[int, str, str]) -> None:  # noqa: F811
    words = catalogue(look[2])
    server = fpm()
    script = server.script("mail.php", GOOD)
    pool = f"[fastcgi]\n    [[php]]\n        address = {server.address}\n"
    bus = buses.start(NODE + pool, {})
    browsing = Browsing(browser, f"http://127.0.0.1:{bus.web_port}")
    browsing.log_in()

    page = browsing.page("/queues/new", *look)
    page.fill("[name=queue]", "orders")
    page.fill("[name='name:main']", "mail")
    page.fill("[name='key:main/script']", script)
    page.fill("[name='key:main/attempts']", "two")
    wait(page, "document.querySelector('#f-main--attempts-wrong').textContent !== ''")
    page.fill("[name='key:main/attempts']", "2")
    page.fill("[name='key:main/backoff']", "fixed 1s")
    page.click("details:has([name='key:open']) > summary")
    page.select_option("[name='key:open']", "loopback")
    wait(page, "document.querySelector('#preview .diff')?.textContent.includes('open = loopback')")
    assert page.inner_text("#f-main--attempts-wrong") == ""
    page.click("#save")
    page.wait_for_selector("#push-shell:has-text('lpush orders')", timeout=PATIENT)
    page.click("a:has-text('orders/mail')")

    _push(bus, '{"order": 1}')
    wait(page, "document.querySelector('#live').textContent.match(/" + words.get("done", "done") + "\\s*1\\b/)")
    server.script("mail.php", BROKEN)
    _push(bus, '{"order": 123}')

    page.wait_for_selector(f"a.tile.bad:has-text('{words.get('dead', 'dead')}')", timeout=PATIENT)
    page.goto(browsing.base + "/errors")
    page.wait_for_selector("text=no mail server", timeout=PATIENT)
    page.click("tbody a.mono")
    page.wait_for_selector(f"b:text-is('{script}:2')")
    assert '"order": 123' in page.inner_text("#content-text")

    server.script("mail.php", GOOD)
    page.click(f"button:has-text('{words.get('Run again', 'Run again')}')")
    page.click("#dialog button.go")
    page.wait_for_selector(".state-done", timeout=PATIENT)
    assert not browsing.troubles
    page.context.close()


def _push(bus: Any, content: str) -> None:
    """As soon as the gateway has the queue: a saved form and its reload are two moments."""
    until = time.monotonic() + 20
    while b'"error":""' not in bus.client().lpush("orders/x", content):
        assert time.monotonic() < until
        time.sleep(0.05)
