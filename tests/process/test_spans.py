"""Spans of traced jobs, as a receiver of OTLP over HTTP gets them from a running bus."""

from __future__ import annotations

import json
import socket

import pytest

from tests.fixtures.bus import NODE, Buses
from tests.fixtures.http import RawServer, answering, raw_server, read_request
from tests.process.bus_rig import until

pytest.importorskip("opentelemetry.proto", reason="the extra is not installed (pip install 'pepperbus[otel]')")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
RECORDED, NOT_RECORDED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"
AWAY = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
QUEUE = "open = loopback\npassword = x\nrun = http\ncontract = status\nbackoff = fixed 100ms\n[topics]\n[[mail]]\n"
BAD = b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"


def attributes(span: Span) -> dict[str, str | int]:
    return {one.key: one.value.string_value or one.value.int_value for one in span.attributes}


def test_a_receiver_gets_the_spans_of_traced_jobs(buses: Buses) -> None:
    refused: list[bytes] = []

    def receive(conn: socket.socket, server: RawServer, number: int) -> None:
        while (seen := read_request(conn, number)) is not None:
            if len(refused) < 2:  # it is not up yet
                refused.append(seen.body)
                conn.sendall(AWAY)
            else:
                server.requests.append(seen)
                conn.sendall(OK)

    with raw_server(receive) as receiver, raw_server(answering(BAD, OK)) as consumer:
        node = f"{NODE}[tracing]\nendpoint = http://127.0.0.1:{receiver.port}\nservice = the bus\n"
        bus = buses.start(node, {"orders": f"{QUEUE}url = {consumer.url}\n"})
        with bus.client() as client:
            client.lpush("orders", "without a trace")
            ids = {}
            for trace in (NOT_RECORDED, RECORDED):
                client.execute_command("CLIENT", "TRACEPARENT", trace)
                ids[trace] = json.loads(client.execute_command("LPUSH", "orders/x", "traced"))["jobs"][0]

        def spans() -> list[Span]:
            found = [ExportTraceServiceRequest.FromString(seen.body) for seen in receiver.requests]
            return [s for one in found for r in one.resource_spans for scope in r.scope_spans for s in scope.spans]

        def processed(found: list[Span]) -> bool:
            return any(s.name.startswith("process") and s.status.code != Status.STATUS_CODE_ERROR for s in found)

        found = until(spans, processed, bus)
        assert len(refused) == 2, "what is not taken is sent again"
        assert receiver.requests[0].head.startswith("POST /v1/traces ")
        first = ExportTraceServiceRequest.FromString(receiver.requests[0].body)
        resource = {one.key: one.value.string_value for one in first.resource_spans[0].resource.attributes}
        assert resource["service.name"] == "the bus"
        assert {(s.trace_id.hex(), s.parent_span_id.hex()) for s in found} == {(TRACE, SPAN)}
        assert {attributes(s)["messaging.message.id"] for s in found} == {ids[RECORDED]}, "the others are not recorded"
        assert len({s.span_id for s in found}) == len(found)
        runs = [s for s in found if s.name == "process orders/mail"]
        waits = [s for s in found if s.name == "wait orders/mail"]
        assert [attributes(s)["pepperbus.attempt"] for s in waits] == [attributes(s)["pepperbus.attempt"] for s in runs]
        for wait, run in zip(waits, runs, strict=True):
            assert wait.start_time_unix_nano <= wait.end_time_unix_nano == run.start_time_unix_nano
            assert run.start_time_unix_nano <= run.end_time_unix_nano
            assert (wait.kind, run.kind) == (Span.SPAN_KIND_INTERNAL, Span.SPAN_KIND_CONSUMER)
        done = runs[-1]
        assert attributes(done)["messaging.destination.name"] == "orders/mail"
        assert attributes(done)["pepperbus.outcome"] == "done"
        assert [attributes(s)["pepperbus.outcome"] for s in runs[:-1]] == ["retry"] * (len(runs) - 1)
        assert all(s.status.code == Status.STATUS_CODE_ERROR and "500" in s.status.message for s in runs[:-1])
