"""Spans of traced jobs, made from the journal and sent to a receiver of OTLP over HTTP (`[tracing]`).

Floor 4. Nothing of it is on the way of a job: rows are read from the journal's database behind a position of its own, which
moves on once the receiver has taken them. Which spans there are is said in docs/TRACING.md. The libraries are imported when
they are first needed: they are an extra.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pepperbus.clock import Clock
from pepperbus.config.model import Config, Tracing
from pepperbus.config.tracing import EXTRA, is_installed
from pepperbus.errors import NotReachable
from pepperbus.job import is_traceparent
from pepperbus.journal import since
from pepperbus.journal.contract import Row
from pepperbus.log import Log

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

EVERY_S = 1.0
_ROWS = 2000  # of one look
_AT_ONCE = 200  # rows whose spans are made and sent in one go: the hub stands still while they are packed
_OLDEST_MS = 3_600_000  # what waited longer for the receiver is of no use there
_PATIENCE_S = 5.0
_SPENT = ("retry", "dead")


class Spans:
    """What has been sent, and what is next. `in_thread` runs what waits for the disk and gives its result."""

    def __init__(self, config: Callable[[], Config], clock: Clock, log: Log, in_thread: Callable[..., Any]) -> None:
        self._config = config
        self._clock = clock
        self._log = log
        self._in_thread = in_thread
        self._maker: _Maker | None = None
        self._is_missing = False
        self._at = -1  # the position in the journal; -1: not known yet

    def look(self) -> None:
        """Send what is new. Raises NotReachable when the receiver does not take it; it is sent again then."""
        config = self._config()
        if not config.tracing.endpoint:
            self._maker, self._at = None, -1
            return
        if not self._has_maker(config):
            return
        data_dir = config.bus.data_dir
        if self._at < 0:
            self._at = self._in_thread(_begin, data_dir)
        while True:
            rows, end = self._in_thread(since.rows, data_dir / "journal.db", "", self._at, _ROWS)
            self._send(rows)
            if end != self._at:
                self._in_thread(_save, data_dir, end)
                self._at = end
            if len(rows) < _ROWS:
                return

    def _has_maker(self, config: Config) -> bool:
        if self._maker is None or self._maker.of != (config.tracing, config.bus.node):
            if not is_installed():
                if not self._is_missing:
                    self._log.warning("no_spans", f"[tracing] needs the extra: {EXTRA}")
                self._is_missing = True
                return False
            self._maker = _Maker(config.tracing, config.bus.node)
        return True

    def _send(self, rows: list[Row]) -> None:
        maker, oldest_ms = self._maker, self._clock.now_ms() - _OLDEST_MS
        assert maker is not None
        traced = [row for row in rows if row.at_ms >= oldest_ms and is_recorded(row)]
        for at in range(0, len(traced), _AT_ONCE):
            maker.send([span for row in traced[at : at + _AT_ONCE] for span in maker.spans(row)])


def is_recorded(row: Row) -> bool:
    """Whether there are spans of it: an attempt of a job whose producer gave a trace and wants it recorded."""
    trace = row.in_trace
    if row.event not in ("attempt", "popped") or not is_traceparent(trace):
        return False
    try:
        return bool(int(trace[3:35], 16) and int(trace[36:52], 16) and int(trace[53:], 16) & 1)
    except ValueError:
        return False


class _Maker:
    """Rows to spans, and on to the receiver."""

    def __init__(self, tracing: Tracing, node: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource

        self.of = (tracing, node)
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)  # the bus says it, in its own log and words
        self._exporter = OTLPSpanExporter(tracing.endpoint, timeout=_PATIENCE_S)
        self._resource = Resource.create({"service.name": tracing.service, "service.instance.id": node})

    def send(self, spans: list[ReadableSpan]) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult

        if self._exporter.export(spans) is not SpanExportResult.SUCCESS:
            raise NotReachable(f"[tracing] {self.of[0].endpoint} does not take spans")

    def spans(self, row: Row) -> list[ReadableSpan]:
        """How long it waited for this attempt, and the attempt."""
        from opentelemetry.trace import SpanKind

        begin_ms = float(row.at_ms)
        wait = self._span(f"wait {row.topic}", row, begin_ms - row.wait_ms, begin_ms, SpanKind.INTERNAL)
        run = self._span(f"process {row.topic}", row, begin_ms, begin_ms + row.run_ms, SpanKind.CONSUMER)
        return [wait, run]

    def _span(self, name: str, row: Row, begin_ms: float, end_ms: float, kind: Any) -> ReadableSpan:
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

        trace, flags = int(row.in_trace[3:35], 16), TraceFlags(int(row.in_trace[53:], 16))
        failed = row.outcome in _SPENT and name.startswith("process")
        return ReadableSpan(
            name,
            SpanContext(trace, _span_id(name, row), False, flags),
            SpanContext(trace, int(row.in_trace[36:52], 16), True, flags),
            self._resource,
            _attributes(row, failed),
            kind=kind,
            status=Status(StatusCode.ERROR, row.reason) if failed else Status(StatusCode.UNSET),
            start_time=int(begin_ms * 1e6),
            end_time=int(end_ms * 1e6),
        )


def _attributes(row: Row, failed: bool) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "messaging.system": "pepperbus",
        "messaging.operation.name": "process",
        "messaging.destination.name": row.topic,
        "messaging.message.id": str(row.job_id),
        "pepperbus.attempt": row.attempt,
        "pepperbus.outcome": row.outcome or row.event,
        "pepperbus.trace": row.out_trace,
        "pepperbus.node": row.node,
    }
    return found | {"error.type": row.error_code or row.outcome} if failed else found


def _span_id(name: str, row: Row) -> int:
    """The same whenever it is sent: a receiver that gets it twice can tell."""
    text = f"{name} {row.job_id} {row.attempt} {row.out_trace} {row.at_ms}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) or 1


def _begin(data_dir: Path) -> int:
    """Where the one before had come to; the end of the journal for the first."""
    try:
        return int(msgspec.json.decode((data_dir / "spans").read_bytes(), type=int))
    except (OSError, msgspec.DecodeError):
        at = since.end(data_dir / "journal.db")
        _save(data_dir, at)
        return at


def _save(data_dir: Path, position: int) -> None:
    new = data_dir / "spans.new"
    new.write_bytes(msgspec.json.encode(position))
    new.replace(data_dir / "spans")
