"""The real sidecar beyond loopback: only with an account, and with TLS or by one's word."""

from __future__ import annotations

import json
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.fixtures.bus import NODE, Bus

OPEN = NODE.replace("[web]\n    listen = 127.0.0.1:@WEB@", "[web]\n    listen = 0.0.0.0:@WEB@")


def refused(bus: Bus) -> str:
    bus.start(wait=False)
    assert bus.wait() == 3
    return bus.log


def cert(directory: Path) -> Path:
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    path = directory / "cert.pem"
    command = [*words.split(), "-keyout", directory / "key.pem", "-out", path]
    subprocess.run(command, check=True, capture_output=True)
    return path


def get(bus: Bus, path: str, context: ssl.SSLContext | None = None, **headers: str) -> tuple[int, str]:
    url = f"{'https' if context else 'http'}://localhost:{bus.web_port}{path}"
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=20, context=context
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_beyond_loopback_only_with_an_account_and_tls(buses: Any) -> None:
    bus = buses.make(OPEN)
    assert "there is no account yet: make the first one (`pepperbus user add NAME`)" in refused(bus)

    bus.write_node(NODE)
    made = bus.cli("--json", "user", "add", "anna")
    assert made.returncode == 0, made.stderr
    assert len(json.loads(made.stdout)["password"]) > 20
    bus.write_node(OPEN)
    assert "set cert and key (TLS), or public = yes" in refused(bus)

    path = cert(bus.directory)
    bus.write_node(OPEN.replace("@WEB@", "@WEB@\n    cert = cert.pem\n    key = key.pem"))
    bus.start()
    context = ssl.create_default_context(cafile=str(path))
    assert get(bus, "/healthz", context) == (200, "ok\n")
    assert get(bus, "/api/v1/status", context)[0] == 401
    token = bus.cli("--json", "token", "add", "ci", "--owner", "anna")
    secret = json.loads(token.stdout)["secret"]
    status, text = get(bus, "/api/v1/session", context, Authorization=f"Bearer {secret}")
    assert (status, json.loads(text)["roles"]) == (200, {"*": "viewer"})
    assert bus.cli("user", "set", "anna", "--role", "viewer").returncode == 1, "the last administrator"
    shown = bus.cli("audit", "--verify")
    assert shown.returncode == 0, shown.stderr
    assert bus.stop() == 0
