"""The web process: serve the inherited listeners until told to leave. Floor 5."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import gevent
from gevent.event import Event

from pepperbus.child import Child
from pepperbus.errors import BootError
from pepperbus.log import Log
from pepperbus.web import closing, errands, frame
from pepperbus.web.app import create_app
from pepperbus.web.crowd import Crowd
from pepperbus.web.desk import Desk, SharedOffice
from pepperbus.web.monitor import Monitor
from pepperbus.web.server import WebServer

_LAST_WORDS_S = 0.3
_LONGEST_S = 2.0  # a browser's idle connection looks like one at work


class _Complaints:
    """Where the WSGI server writes what went wrong with a connection: one line of our log each."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def write(self, text: str) -> None:
        if text.strip():
            self._log.warning("web_connection", text.strip()[:2000])

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        """Every line is written at once."""


def _tls(child: Child, address: str) -> dict[str, Any]:
    """What makes a server speak TLS; nothing on unix sockets. Raises BootError for files that do not belong together."""
    web = child.config.web
    if not web.cert or not web.key or address.startswith("unix:"):
        return {}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(web.cert, web.key)
    except OSError as error:  # ssl.SSLError is one
        raise BootError(f"[web] cert {web.cert}, key {web.key}: {error.strerror or error}") from error
    return {"ssl_context": context}


def main(child: Child) -> None:
    """Serve. On drain: no new connections, then a short wait for requests under way."""
    office = SharedOffice(child.config, child.ask_master, who=child.name)
    desk = Desk(office, Monitor(office, child.log))
    app = create_app(desk, child.log)
    leaving = Event()
    graces: list[float] = []

    def drain(grace: float) -> None:
        graces.append(grace)
        leaving.set()

    child.on_config = office.take
    child.on_drain = drain
    child.title = lambda: " ".join(child.listeners)
    crowd = Crowd(lambda text: child.log.warning("web_crowded", text))
    servers = [
        WebServer(sock, app, crowd, error_log=_Complaints(child.log), **_tls(child, address))
        for address, sock in child.listeners.items()
    ]
    for server in servers:
        server.start()
    child.start()
    child.log.info("web_serving", listeners=" ".join(child.listeners))
    gevent.get_hub().threadpool.spawn(frame.pack)
    chores: list[Any] = [
        gevent.spawn(desk.monitor.run),
        gevent.spawn(closing.run, desk, child.log),
        gevent.spawn(errands.run, desk, child.log),
    ]
    leaving.wait()
    gevent.killall(chores)
    # Even without a grace the answer to "stop" itself must get out; a reader of events must not hold up the end.
    stops = [gevent.spawn(server.stop, min(max(graces[0], _LAST_WORDS_S), _LONGEST_S)) for server in servers]
    for stop in stops:
        stop.join()
    office.close()
