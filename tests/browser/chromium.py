"""A real Chromium for the tests: headless, of a fresh profile, watched for errors and for requests that leave this machine.

def test_x(browsing): browsing.page(bus, "/queues", width=390)      # console errors and foreign requests fail the test
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

AXE = Path(os.environ.get("PEPPERBUS_VENV", Path(__file__).parents[2] / ".venv")) / "axe.min.js"
PASSWORD = "correct horse 9"
_FLAGS = ("--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run")
#: What Chromium says of any form with a password; it is advice, nothing is wrong.
_ADVICE = "[DOM]"


def chromium() -> str:
    """Where the browser is; skips the test with the reason where there is none."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed (scripts/setup test)")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no Chromium here (Debian: apt install chromium)")
    return found


class Browsing:
    """One browser, logged in at one bus."""

    def __init__(self, browser: Any, base: str) -> None:
        self._browser = browser
        self.base = base
        self.troubles: list[str] = []
        self._state: Any = None

    def log_in(self) -> None:
        """Make the first administrator, as a person would."""
        page = self.page("/", settle=False)
        assert page.url.endswith("/setup"), page.url
        page.fill("[name=name]", "admin")
        page.fill("[name=password]", PASSWORD)
        page.fill("[name=again]", PASSWORD)
        page.click("main button.btn-primary")
        page.wait_for_url(self.base + "/")
        self._state = page.context.storage_state()
        page.context.close()

    def page(
        self,
        path: str,
        width: int = 1440,
        theme: str = "light",
        language: str = "en",
        settle: bool = True,
        scripts: bool = True,
    ) -> Any:
        """An open page; close its context when done."""
        context = self._browser.new_context(
            viewport={"width": width, "height": 900}, storage_state=self._state, java_script_enabled=scripts
        )
        for name, value in (("theme", theme), ("language", language)):
            context.add_cookies([{"name": f"pepperbus_{name}", "value": value, "url": self.base}])
        page = context.new_page()
        page.on("console", lambda message: self._heard(path, message))
        page.on("pageerror", lambda error: self.troubles.append(f"{path}: {error}"))
        page.on("request", lambda request: self._asked(path, request.url))
        answer = page.goto(self.base + path, wait_until="load")
        assert answer is not None
        assert answer.status == 200, f"{path}: {answer.status}\n{answer.text()[:2000]}"
        if settle and scripts:
            wait(page, "typeof stream !== 'undefined'")
        return page

    def _heard(self, path: str, message: Any) -> None:
        if message.type in ("error", "warning") and _ADVICE not in message.text:
            self.troubles.append(f"{path}: console: {message.text}")

    def _asked(self, path: str, url: str) -> None:
        if urlsplit(url).hostname not in ("127.0.0.1", None):
            self.troubles.append(f"{path}: asks {url}")


def wait(page: Any, expression: str, seconds: float = 30.0) -> None:
    """Until that JavaScript holds; what fails does not hold yet: the page may just be loading, or be painted anew.

    Playwright's own waiting evaluates text inside the page, which the page's policy forbids.
    """
    from playwright.sync_api import Error

    until = time.monotonic() + seconds
    while True:
        try:
            trouble = ""
            if page.evaluate(expression):
                return
        except Error as error:
            trouble = f"{error}\n"
        assert time.monotonic() < until, f"{expression}\n{trouble}{page.inner_text('main')[:3000]}"
        page.wait_for_timeout(50)


def findings(page: Any) -> list[str]:
    """What axe-core finds that is serious or worse."""
    if not AXE.exists():
        pytest.skip(f"no {AXE} (scripts/setup test fetches it)")
    page.evaluate(AXE.read_text())  # in an isolated call: the policy of the page forbids foreign scripts, not its tests
    found = page.evaluate("axe.run({resultTypes: ['violations']}).then((result) => result.violations)")
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One process for the tests of a module."""
    program = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=program, args=list(_FLAGS))
        yield made
        made.close()
