"""The web process: serve the inherited listeners until told to leave. Floor 5."""

from __future__ import annotations

import gevent
from gevent.event import Event
from gevent.pywsgi import WSGIServer

from pepperbus.child import Child
from pepperbus.web.app import create_app
from pepperbus.web.desk import Desk, SharedOffice
from pepperbus.web.monitor import Monitor

_LAST_WORDS_S = 0.3
_LONGEST_S = 2.0  # a browser's idle connection looks like one at work
_MOST_CONNECTIONS = 256


def main(child: Child) -> None:
    """Serve. On drain: no new connections, then a short wait for requests under way."""
    office = SharedOffice(child.config, child.ask_master, who=child.name)
    desk = Desk(office, Monitor(office))
    app = create_app(desk, child.log)
    leaving = Event()
    graces: list[float] = []

    def drain(grace: float) -> None:
        graces.append(grace)
        leaving.set()

    child.on_config = office.take
    child.on_drain = drain
    child.title = lambda: " ".join(child.listeners)
    servers = [WSGIServer(sock, app, spawn=_MOST_CONNECTIONS, log=None) for sock in child.listeners.values()]
    for server in servers:
        server.start()
    child.start()
    sampler = gevent.spawn(desk.monitor.run)
    leaving.wait()
    sampler.kill()
    # Even without a grace the answer to "stop" itself must get out; a reader of events must not hold up the end.
    stops = [gevent.spawn(server.stop, min(max(graces[0], _LAST_WORDS_S), _LONGEST_S)) for server in servers]
    for stop in stops:
        stop.join()
    office.close()
