"""The section [tracing] of the node's file: where spans go.

Floor 1.
"""

from __future__ import annotations

from importlib.util import find_spec
from urllib.parse import urlsplit

from pepperbus.config.check import Values
from pepperbus.config.model import Tracing
from pepperbus.config.source import Document

#: What must be installed before spans can be sent.
EXTRA = "pip install 'pepperbus[otel]'"
_PATH = "/v1/traces"  # of OTLP over HTTP, where no path is given


def build(document: Document, values: Values) -> Tracing:
    """Mistakes are noted."""
    endpoint = values["endpoint"]
    if endpoint:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            document.mistake(("tracing", "endpoint"), "http://host[:port] or https://… is wanted, as of OTLP over HTTP")
        elif parts.path in ("", "/"):
            values["endpoint"] = f"{endpoint.rstrip('/')}{_PATH}"
    return Tracing(**values)


def is_installed() -> bool:
    """Whether this machine has what sends spans."""
    try:
        return None not in (find_spec("opentelemetry.sdk"), find_spec("opentelemetry.exporter.otlp.proto.http"))
    except ModuleNotFoundError:
        return False
