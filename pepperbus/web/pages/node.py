"""The machine room: storages, consumers, processes. Floor 5."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from flask import Blueprint, Response, request

from pepperbus.accounts.model import EVERYWHERE, Right
from pepperbus.operations import consumers, drain, itself, steer, storage_files, storages
from pepperbus.operations.rights import may, require
from pepperbus.web import frame
from pepperbus.web.desk import Desk
from pepperbus.web.formats import sparkline
from pepperbus.web.pages.answers import did, fragment
from pepperbus.web.said import said
from pepperbus.web.words import _

_MOST = 50  # targets of a consumer, those in trouble first


def _storages(desk: Desk) -> dict[str, Any]:
    status = desk.status()
    topics = defaultdict(list)
    for queue in status.queues:
        for topic in queue.topics:
            topics[topic.storage].append(topic)
    for topic in status.detached:
        topics[topic.storage].append(topic)
    found = {one.name: one for one in storages.growth(desk.office)}
    sparks = {name: sparkline([float(used) for used in one.course]) for name, one in found.items()}
    names = {topic.name for queue in status.queues for topic in queue.topics}
    return {
        "status": status,
        "topics": topics,
        "growth": found,
        "sparks": sparks,
        "drains": drain.drains(desk.office)[:20],
        "movable": sorted(names | {name.partition("/")[0] for name in names}),
    }


def _put_storage(desk: Desk) -> Response:
    """Add one, or change one that is there; an empty field is not set, and what is there keeps its type."""
    name = request.form.get("name", "").strip()
    settings = {key: value for key in storage_files.KEYS if (value := request.form.get(key, "").strip())}
    known = name in desk.base.config.storages
    if known:
        settings.pop("type", None)
    done = (storage_files.change if known else storage_files.add)(desk.office, name, settings)
    desk.monitor.forget()
    text = _("Storage {name} is in force", name=name) if done.reloaded else f"{name}: {said(done.reload)}"
    return did(text, "/storage", good=done.reloaded)


def _drain(desk: Desk) -> Response:
    name, to = request.form.get("name", "").strip(), request.form.get("to", "")
    done = drain.drain(desk.office, name, to, alone=bool(request.form.get("alone")))
    desk.monitor.forget()
    text = _("{name} moves to {to}; pushes go there already", name=name, to=to)
    return did(text if not done.reload else f"{text}: {said(done.reload)}", "/storage", good=not done.reload)


def _consumers(desk: Desk) -> dict[str, Any]:
    found = consumers.consumers(desk.office)
    for consumer in found:
        consumer.targets.sort(key=lambda target: (target.closed in ("open", "busy", "unknown"), -target.in_flight))
    paused = {topic.name for queue in desk.status().queues for topic in queue.topics if topic.paused}
    return {"consumers": found, "rates": desk.monitor, "paused": paused, "most": _MOST}


def _nodes(desk: Desk) -> dict[str, Any]:
    status = desk.status()
    own = None
    if may(desk.office, Right.VIEW):
        own = itself.told(desk.office, status.master, status.processes, status.storages)
    others = desk.neighbourhood.reports(status.nodes)
    return {"status": status, "cpu": desk.monitor.cpu_percent(), "own": own, "others": others}


def register(pages: Blueprint, desk: Desk) -> None:
    @pages.get("/storage")
    def storage() -> Response:
        return frame.show("storage.html", lambda: _storages(desk), shared=True)

    @pages.post("/storage/put")
    def storage_put() -> Response:
        return _put_storage(desk)

    @pages.post("/storage/drain")
    def storage_drain() -> Response:
        return _drain(desk)

    @pages.get("/consumers")
    def consumers_page() -> Response:
        return frame.show("consumers.html", lambda: _consumers(desk), shared=True)

    @pages.get("/nodes")
    def nodes() -> Response:
        return frame.show("nodes.html", lambda: _nodes(desk), shared=True)

    @pages.post("/nodes/gateways/<any(more,less):change>")
    def nodes_gateways(change: str) -> Response:
        done = steer.scale(desk.office, 1 if change == "more" else -1)
        desk.monitor.forget()
        text = _("Gateway processes from now on: {n}", n=done.answer.get("gateways", "?"))
        return did(text if done.ok else said(done.message), "/nodes", good=done.ok)

    @pages.post("/nodes/restart/<process>")
    def nodes_restart(process: str) -> Response:
        done = steer.restart(desk.office, process)
        desk.monitor.forget()
        text = _("{name} ends what it is at; then another takes its place", name=process)
        return did(text if done.ok else said(done.message), "/nodes", good=done.ok)

    @pages.post("/nodes/stop")
    def nodes_stop() -> Response:
        node = desk.base.config.bus.node
        require(desk.office, Right.ADMIN, EVERYWHERE, "stop the bus")
        if request.form.get("typed", "").strip() != node:
            return fragment("dialogs/stop.html", 409 if "typed" in request.form else 200, node=node)
        done = steer.stop(desk.office, wait=False)  # this process is part of what has to end
        text = _("{node} ends what runs and stops; this page goes with it", node=node)
        return did(text if done.ok else said(done.message), "/nodes", good=done.ok)

    @pages.post("/nodes/reload")
    def nodes_reload() -> Response:
        done = steer.reload(desk.office)
        desk.monitor.forget()
        text = _("The files on disk are in force") if done.ok else said(done.message)
        return did(text, "/nodes", good=done.ok)
