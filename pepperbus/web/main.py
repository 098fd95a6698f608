"""The web process: serve the inherited listeners until told to leave. Floor 5."""

from __future__ import annotations

import gevent
from gevent.event import Event
from gevent.pywsgi import WSGIServer

from pepperbus.child import Child
from pepperbus.web.app import create_app
from pepperbus.web.desk import Desk, SharedOffice
from pepperbus.web.monitor import Monitor


def main(child: Child) -> None:
    """Serve. On drain: no new connections, then wait for requests under way as long as the grace lasts."""
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
    servers = [WSGIServer(sock, app, log=None, error_log=None) for sock in child.listeners.values()]
    for server in servers:
        server.start()
    child.start()
    sampler = gevent.spawn(desk.monitor.run)
    leaving.wait()
    sampler.kill()
    stops = [gevent.spawn(server.stop, min(graces[0], 5.0)) for server in servers]
    for stop in stops:
        stop.join()
    office.close()
