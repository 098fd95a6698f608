"""The web API against its own OpenAPI document, by schemathesis, in process on an embedded storage and without a bus.

Every answer is one the document names, has its shape, and is no 5xx but those of a bus that is away.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from pepperbus.web.routes import ROUTES
from tests.unit.test_web import QUEUE, Place

EXAMPLES = max(int(os.environ.get("PEPPERBUS_FUZZ_EXAMPLES", "150")) // 15, 3)
#: A consumer that nobody listens to, a gateway and a master that do not run: said so, not a bug.
AWAY = {503: {"not_reachable", "storage_unavailable"}}
JSON = {"Content-Type": "application/json"}

CHECKS = [response_schema_conformance, content_type_conformance, status_code_conformance]
_place = Place(Path(tempfile.mkdtemp(prefix="pepperbus-api-")))
_cookies = {"pepperbus": _place.client.get_cookie("pepperbus").value}  # type: ignore[union-attr]
_csrf = {"X-CSRF-Token": _place.client.environ_base["HTTP_X_CSRF_TOKEN"]}
schema: Any = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", _place.client.application)


def _check(answer: Any) -> None:
    body = answer.get_json(silent=True)
    if answer.status_code >= 400:
        assert set(body) == {"error"}, answer.data[:200]
        assert body["error"]["code"]
        assert body["error"]["message"]
    assert answer.status_code < 500 or body["error"]["code"] in AWAY.get(answer.status_code, ()), answer.data[:300]


@schema.include(method_regex=".*").exclude(path_regex="/tail$").parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_answers_are_what_the_document_says(case: Any) -> None:
    answer = case.call(headers={**JSON, **_csrf}, cookies=_cookies)
    invented = "Authorization" in (case.headers or {}) or case.cookies
    assert invented or answer.status_code != 401, "schemathesis also tries logins of its own"
    error = (answer.json() or {}).get("error", {}) if answer.status_code >= 400 else {}
    assert answer.status_code < 500 or error.get("code") in AWAY.get(answer.status_code, ()), answer.text[:300]
    case.validate_response(answer, checks=CHECKS)


_bodies = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"[" * 50_000,
            b'{"a":' * 50_000,
            b'{"contents": ["\xff"]}',
            b"\xff",
            b'{"contents": ["\\ud800"]}',
            b"{} x",
            b'{"ids": [1e999]}',
            b'{"change": 99999999999999999999999}',
            b'{"ids": ["\\u0661"], "since_ms": 9223372036854775808}',
            b'{"settings": {"": ""}}',
            b'{"settings": {"mail/backoff": ","}}',
            b'{"sample": NaN}',
            b'{"timeout": 1e400}',
            b'{"attempt": -1}',
            b'{"rate": -1}',
            b'{"timeout": -5}',
            b'{"sample": 7, "state": "ready"}',
            b'{"due_ms": -1, "contents": ["x"]}',
        ]
    ),
)
_names = st.one_of(
    st.sampled_from(
        ["orders", "mail", "nobody", "..", "%2e%2e", "%00", "a%0ab", "\u0661", "%ff", "x" * 300, "9" * 25, "-1"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="/?#\\"), min_size=1, max_size=8),
)
_queries = st.sampled_from(
    [
        "",
        "?n=0",
        "?n=99999999999999999999",
        "?cursor=%ff",
        "?cursor=-1",
        "?state=none",
        "?since_ms=-1",
        "?since_ms=9223372036854775808",
        "?limit=1&error=%00",
        "?text=%25%27",
        "?n=1&n=2",
        "?n=\u0661",
        "?keep_jobs=maybe",
        "?unknown=1",
        "?cursor=" + "x" * 3000,
    ]
)


@pytest.mark.parametrize("route", [r for r in ROUTES if not r.stream], ids=lambda r: f"{r.method} {r.path}")
def test_nonsense_is_answered_and_never_a_bug(route: Any) -> None:
    @given(_names, _names, _queries, _bodies)
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    def run(first: str, second: str, query: str, body: bytes) -> None:
        (_place.directory / "queues.d" / "orders.conf").write_text(QUEUE)
        path = route.path.replace("{queue}", first).replace("{topic}", second).replace("{id}", first)
        path = path.replace("{user}", first).replace("{token}", first)
        _check(_place.client.open(f"/api/v1{path}{query}", method=route.method, data=body, headers=JSON))

    run()


def test_a_queue_file_that_is_gone_is_said_so() -> None:
    (_place.directory / "queues.d" / "orders.conf").unlink(missing_ok=True)
    answer = _place.client.delete("/api/v1/queues/orders", headers=JSON)
    assert answer.status_code == 409
    assert "orders.conf: No such file" in answer.get_json()["error"]["message"]


@pytest.mark.parametrize("name", ["%00", "..%5c..", "%2e%2e", ".hidden", "a%20b"])
def test_what_can_name_no_queue_is_none(name: str) -> None:
    answer = _place.client.put(f"/api/v1/queues/{name}", data=b"{}", headers=JSON)
    assert answer.status_code == 404


@pytest.mark.parametrize(
    "body",
    [b"[" * 50_000, b'{"contents": ["\xff"]}', b'{"contents": ["\\ud800"]}'],
    ids=["deep", "not utf-8", "half a pair"],
)
def test_what_once_was_a_bug(body: bytes) -> None:
    answer = _place.client.post("/api/v1/queues/orders/push", data=body, headers=JSON)
    assert answer.status_code == 400
    assert answer.get_json()["error"]["code"] == "usage"
