"""Routes of the API for nodes, systems and percentiles by node, marks, saved samples, storages and drains.

Floor 5; part of routes.py's table.
"""

from __future__ import annotations

import base64

from pepperbus.errors import UsageError
from pepperbus.operations import deploys, drain, itself, nodes, paces, samples, status, storage_files, storages
from pepperbus.operations import systems as by_system
from pepperbus.operations.results import QueueFile
from pepperbus.web import systems
from pepperbus.web.neighbourhood import FIRST_S
from pepperbus.web.table import Call, Route
from pepperbus.web.table import Needs as N
from pepperbus.web.takes import DrainBody, MarkBody, MarksQuery, SampleBody, SettingsBody


def list_marks(call: Call) -> list[deploys.DeployMark]:
    return deploys.marks(call.desk.office, call.query.since_ms, call.query.name)


def set_mark(call: Call) -> deploys.DeployMark:
    return deploys.mark(call.desk.office, call.body.text, call.body.system)


def list_samples(call: Call) -> list[samples.Sample]:
    return samples.samples(call.desk.office, call.topic)


def save_sample(call: Call) -> samples.Sample:
    content = call.body.content
    try:
        data = base64.b64decode(content, validate=True) if call.body.encoding else content.encode()
    except ValueError as error:
        raise UsageError(f"content is not base64: {error}") from error
    return samples.save(call.desk.office, call.topic, call.names["sample"], data)


def remove_sample(call: Call) -> samples.Sample:
    return samples.forget(call.desk.office, call.topic, call.names["sample"])


def list_percentiles(call: Call) -> list[paces.NodePace]:
    monitor = call.desk.monitor
    return paces.by_node(call.desk.office, call.topic, monitor.own(call.topic), monitor.neighbours.of(call.topic))


def list_nodes(call: Call) -> list[nodes.NodeReport]:
    office = call.desk.office
    own = nodes.NodeReport(office.config.bus.node, True, True, told=itself.itself(office))  # looks at the right
    return [own, *call.desk.neighbourhood.reports(status.others(office), FIRST_S)]


def list_systems(call: Call) -> list[by_system.SystemOnNode]:
    return by_system.by_node(call.desk.office, systems.answers(call.desk, FIRST_S))


def list_growth(call: Call) -> list[storages.Growth]:
    return storages.growth(call.desk.office)


def add_storage(call: Call) -> QueueFile:
    return storage_files.add(call.desk.office, call.names["storage"], call.body.settings)


def change_storage(call: Call) -> QueueFile:
    return storage_files.change(call.desk.office, call.names["storage"], call.body.settings, call.body.unset)


def remove_storage(call: Call) -> QueueFile:
    return storage_files.remove(call.desk.office, call.names["storage"])


def list_drains(call: Call) -> list[drain.DrainStatus]:
    return drain.drains(call.desk.office)


def drain_queue(call: Call) -> QueueFile:
    return drain.drain(call.desk.office, call.names["queue"], call.body.to, alone=call.body.alone)


def drain_topic(call: Call) -> QueueFile:
    return drain.drain(call.desk.office, call.topic, call.body.to, alone=call.body.alone)


_STORAGE = "/storages/{storage}"
_SAMPLES = "/topics/{queue}/{topic}/samples"

ROUTES: tuple[Route, ...] = (
    Route("GET", "/marks", N.LOGIN, list_marks, list[deploys.DeployMark], "What was deployed when.", query=MarksQuery),
    Route("POST", "/marks", N.OPERATE, set_mark, deploys.DeployMark, "Set a mark on the time line.", body=MarkBody),
    Route(
        "GET",
        "/topics/{queue}/{topic}/percentiles",
        N.VIEW,
        list_percentiles,
        list[paces.NodePace],
        "How long its jobs waited and ran in the last minute: on each node, then (node empty) on all together.",
    ),
    Route(
        "GET",
        "/nodes",
        N.VIEW_NODE,
        list_nodes,
        list[nodes.NodeReport],
        "Every node: its processes and versions as it told them, or why it did not.",
    ),
    Route(
        "GET",
        "/systems",
        N.LOGIN,
        list_systems,
        list[by_system.SystemOnNode],
        "What each system did in the last minute: on each node, then (node empty) on all together.",
    ),
    Route("GET", "/storages/growth", N.LOGIN, list_growth, list[storages.Growth], "How fast each storage fills."),
    Route(
        "POST", _STORAGE, N.ADMIN_NODE, add_storage, QueueFile, "Add a storage to the node's file.", body=SettingsBody
    ),
    Route(
        "PUT", _STORAGE, N.ADMIN_NODE, change_storage, QueueFile, "Set and unset keys of a storage.", body=SettingsBody
    ),
    Route("DELETE", _STORAGE, N.ADMIN_NODE, remove_storage, QueueFile, "Take a storage out that holds nothing."),
    Route("GET", "/drains", N.LOGIN, list_drains, list[drain.DrainStatus], "What moves from storage to storage."),
    Route(
        "POST",
        "/queues/{queue}/drain",
        N.ADMIN,
        drain_queue,
        QueueFile,
        "All of it to another storage.",
        body=DrainBody,
    ),
    Route("POST", "/topics/{queue}/{topic}/drain", N.ADMIN, drain_topic, QueueFile, "One topic.", body=DrainBody),
    Route("GET", _SAMPLES, N.VIEW, list_samples, list[samples.Sample], "Contents saved for the test console."),
    Route("PUT", _SAMPLES + "/{sample}", N.OPERATE, save_sample, samples.Sample, "Save one.", body=SampleBody),
    Route("DELETE", _SAMPLES + "/{sample}", N.OPERATE, remove_sample, samples.Sample, "Delete one."),
)
