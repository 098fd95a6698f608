"""The on-call story as a person does it: a queue by form, jobs pushed, PHP broken, the alarm at a webhook, the error found with
its file and line, mended, one job run again first and the rest after a look. `PEPPERBUS_ALL_LOOKS=1`: in every look.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from typing import Any

import pytest
import redis

from pepperbus.web.words import catalogue
from tests.browser.chromium import Browsing, browser, findings, wait  # noqa: F401
from tests.fixtures.bus import NODE
from tests.fixtures.http import RawServer, answering, raw_server

GOOD = "<?php header('Code: 200'); header('Consume-Topics: orders/mail');"
BROKEN = "<?php if ($_POST['type'] !== 'ping') {\n  throw new RuntimeException('no mail server');\n}\n" + GOOD[6:]
TAKEN = b"HTTP/1.1 204 Taken\r\nContent-Length: 0\r\n\r\n"
MORE = """\
[fastcgi]
    [[php]]
        address = {address}
[alarms]
    every = 200ms
    gather = 200ms
    dashboard = http://127.0.0.1:@WEB@
    [[channels]]
        [[[hook]]]
            url = {hook}
    [[rules]]
        failures = off
        consumer_down = off
"""
ORDERS = (121, 122, 123)
PATIENT = 20_000
LOOKS = [(1440, "light", "en"), (390, "dark", "zh")]
if os.environ.get("PEPPERBUS_ALL_LOOKS"):
    LOOKS = list(itertools.product((1440, 390), ("light", "dark"), ("en", "zh")))


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: "-".join(map(str, look)))
def test_an_order_was_not_mailed(buses: Any, fpm: Any, browser: Any, look: tuple[int, str, str]) -> None:  # noqa: F811
    words = catalogue(look[2])
    server = fpm()
    script = server.script("mail.php", GOOD)
    with raw_server(answering(TAKEN)) as hook:
        bus = buses.start(NODE + MORE.format(address=server.address, hook=hook.url), {})
        browsing = Browsing(browser, f"http://127.0.0.1:{bus.web_port}")
        browsing.log_in()
        page = browsing.page("/queues/new", *look)
        page.set_default_timeout(PATIENT)
        _make_a_queue(page, script)
        page.click("a:has-text('orders/mail')")

        _push(bus, '{"order": 1}')
        done = words.get("done", "done")
        wait(page, f"document.querySelector('#live').textContent.match(/{done}\\s*1\\b/)")
        server.script("mail.php", BROKEN)
        for order in ORDERS:
            _push(bus, f'{{"order": {order}}}')
        page.wait_for_selector(f"a.tile.bad:has-text('{words.get('dead', 'dead')}')")
        told = _alarm(page, hook, 0)
        assert (told["kind"], told["incidents"][0]["rule"]) == ("begin", "dead"), told
        assert told["incidents"][0]["subject"] == "orders/mail", told

        _go(page, "/errors")
        page.wait_for_selector("text=no mail server")
        assert f"{script}:2" in page.inner_text("tbody")
        page.click("tbody a.mono")
        page.wait_for_selector(f"b:text-is('{script}:2')")
        assert '"order": 12' in page.inner_text("#content-text")
        assert not findings(page)

        server.script("mail.php", GOOD)
        _replay(browsing, page)
        assert not findings(page)
        assert _alarm(page, hook, 1)["kind"] == "end"
        assert not browsing.troubles
        page.context.close()


def _make_a_queue(page: Any, script: str) -> None:
    """By form, with a mistake that is said where it was made."""
    page.fill("[name=queue]", "orders")
    page.fill("[name='name:main']", "mail")
    page.fill("[name='key:main/script']", script)
    page.fill("[name='key:main/attempts']", "two")
    wait(page, "document.querySelector('#f-main--attempts-wrong').textContent !== ''", 20)
    page.fill("[name='key:main/attempts']", "1")
    page.click("details:has([name='key:open']) > summary")
    page.select_option("[name='key:open']", "loopback")
    wait(page, "document.querySelector('#preview .diff')?.textContent.includes('open = loopback')", 20)
    wait(page, "document.querySelector('#f-main--attempts-wrong').textContent === ''", 20)
    page.click("#save")
    page.wait_for_selector("#push-shell:has-text('lpush orders')")


def _replay(browsing: Browsing, page: Any) -> None:
    """All jobs of that error: one of them first, a look at how it fared, then the rest."""
    _go(page, "/errors")
    page.click("tbody [hx-post$='/ask/replay']")
    page.fill("#gray", "1")
    page.fill("#rate", "fast")
    page.click("#dialog button.go")
    page.wait_for_selector("#dialog > .toast-box.bad:has-text('fast')")  # in the dialog, and nothing typed is lost
    assert page.input_value("#gray") == "1"
    assert all(" 400 " in line for line in browsing.troubles), browsing.troubles  # Chromium tells of each refusal
    browsing.troubles.clear()
    page.fill("#rate", "50/s")
    page.click("#dialog button.go")
    page.wait_for_selector("h2 .state-waiting-for-decision")
    _tile(page, 1, "1")
    assert page.inner_text(".tile >> nth=0 >> b").replace(" ", "") == f"1/{len(ORDERS)}"
    page.click("form[action$='/go'] button")
    page.wait_for_selector("h2 .state-done")
    _tile(page, 1, str(len(ORDERS)))


def _tile(page: Any, number: int, text: str) -> None:
    wait(page, f"document.querySelectorAll('.tile')[{number}].querySelector('b').textContent === '{text}'", 20)


def _go(page: Any, path: str) -> None:
    """By the navigation; on a phone it is behind a button, which does nothing before the scripts have run."""
    wait(page, "typeof stream !== 'undefined'")
    if page.is_visible("[data-menu]"):
        page.click("[data-menu]")
    page.click(f"nav a[href='{path}']")
    page.wait_for_url(f"**{path}")


def _alarm(page: Any, hook: RawServer, number: int) -> Any:
    """What the webhook was told, the message of that number."""
    until = time.monotonic() + 30
    while len(hook.requests) <= number:
        assert time.monotonic() < until, "no message came"
        page.wait_for_timeout(100)
    return json.loads(hook.requests[number].body)


def _push(bus: Any, content: str) -> None:
    """As soon as the gateway has the queue: a saved form and its reload are two moments."""
    until = time.monotonic() + 20
    while not _is_taken(bus, content):
        assert time.monotonic() < until
        time.sleep(0.05)


def _is_taken(bus: Any, content: str) -> bool:
    try:
        return b'"error":""' in bus.client().lpush("orders/x", content)
    except (redis.ResponseError, redis.AuthenticationError):
        return False  # no queue is open to us yet, so nothing was stored
