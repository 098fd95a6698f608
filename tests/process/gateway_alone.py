"""One gateway process without master and mold, for tests and measurements.

`python -m tests.process.gateway_alone SPEC.json` binds the spec's addresses, prints one JSON line with the addresses it
got and serves. Lines on standard input: `{"config": SPEC}` takes a new configuration, `{"drain": seconds}` leaves.
The spec holds keyword arguments of the configuration's dataclasses; missing ones have their defaults.
"""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import os  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
from gevent.fileobject import FileObjectPosix  # noqa: E402

from pepperbus.child import Child  # noqa: E402
from pepperbus.config import model  # noqa: E402
from pepperbus.config.secret import Secret  # noqa: E402
from pepperbus.gateway.main import main  # noqa: E402
from pepperbus.log import Log  # noqa: E402
from pepperbus.names import owner_name  # noqa: E402


def make_queue(name: str, spec: dict) -> model.Queue:
    """A queue from its keyword arguments; topics likewise."""
    spec = dict(spec)
    topics = {}
    for topic_name, topic_spec in spec.pop("topics", {}).items():
        words = {"storage": spec.get("storage", "local"), "run": "fastcgi", **topic_spec}
        words["password"] = Secret(words.get("password", ""))
        if "backoff" in words:  # seconds
            words["backoff"] = model.Backoff("fixed", (words["backoff"],), False)
        topics[topic_name] = model.Topic(name, topic_name, **words)
    words = {"storage": "local", **spec}
    words["password"] = Secret(words.get("password", ""))
    words["keys"] = tuple(words.get("keys", ()))
    return model.Queue(name, topics=topics, **words)


def make_config(spec: dict) -> model.Config:
    where = Path(spec["dir"])
    gateway = dict(spec.get("gateway", {}))
    gateway["listen"] = tuple(spec["listen"])
    for word in ("cert", "key"):
        if word in gateway:
            gateway[word] = Path(gateway[word])
    storages = spec.get("storages") or {"local": {"type": "memory"}}
    logins = {
        name: model.Login(name, Secret(s["password"]), s["push"], s["pop"], tuple(s["queues"]))
        for name, s in spec.get("logins", {}).items()
    }
    return model.Config(
        file=where / "pepperbus.conf",
        queue_files="",
        bus=model.Bus(node="node-1", data_dir=where / "data", run_dir=where / "run"),
        gateway=model.Gateway(**gateway),
        web=model.Web(),
        log=model.Log(),
        journal=model.Journal(),
        storages={
            name: model.StorageConfig(
                name,
                **{**s, "url": Secret(s.get("url", "")), "path": where / "data" / name},
            )
            for name, s in storages.items()
        },
        pools={},
        logins=logins,
        queues={name: make_queue(name, q) for name, q in spec["queues"].items()},
    )


def bind(address: str) -> socket.socket:
    """A listening socket of its own for `host:port`, `[v6]:port` or `unix:/path`."""
    if address.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        sock = socket.socket(socket.AF_INET6 if host.startswith("[") else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host.strip("[]"), int(port)))
    sock.listen(1024)
    return sock


class LoneChild(Child):
    """A child whose master is its standard input."""

    def start(self) -> None:
        gevent.spawn(self._listen)
        addresses = [
            s.getsockname() if isinstance(s.getsockname(), str) else s.getsockname()[1] for s in self.listeners.values()
        ]
        print(json.dumps({"addresses": addresses, "wakes": self.wakes, "pid": os.getpid()}), flush=True)

    def _listen(self) -> None:
        for line in FileObjectPosix(sys.stdin.fileno(), "r"):
            request = json.loads(line)
            if "config" in request:
                self.on_config(make_config(request["config"]))
            elif "drain" in request:
                self.on_drain(request["drain"])
            print(json.dumps({"done": True, "woken": self._woken()}), flush=True)
        self.on_drain(0.0)  # the test is gone

    def _woken(self) -> dict[str, int]:
        counts = {}
        for group, fd in self.wakes.items():
            try:
                counts[group] = os.eventfd_read(fd)
            except BlockingIOError:
                counts[group] = 0
        return counts


def run(spec: dict) -> None:
    config = make_config(spec)
    wakes = {q.group: os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for q in config.queues.values()}
    boot = f"{os.getpid()}.1"
    child = LoneChild(
        role="gateway",
        name=f"gateway.{spec.get('index', 0)}",
        index=spec.get("index", 0),
        group="",
        boot=boot,
        bus_boot=str(os.getpid()),
        owner=owner_name("node-1", f"gateway.{spec.get('index', 0)}", boot),
        config=config,
        log=Log("gateway.0", file=spec.get("log", "-")),
        listeners={address: bind(address) for address in spec["listen"]},
        wakes=wakes,
    )
    main(child)


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text()))
