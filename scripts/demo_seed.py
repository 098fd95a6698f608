"""What scripts/demo shows when it stays: four more queues of two systems, people, deeds, and a trickle of jobs.

Every page of the dashboard then has something on it: a backlog, a paused queue, delayed and dead jobs, a PHP error with
its line, accounts with roles, an audit log, a file with a history.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import redis

from pepperbus.accounts.model import HOST_ROLES, Actor
from pepperbus.config.load import load
from pepperbus.errors import PepperbusError
from pepperbus.master.control import ask
from pepperbus.operations import queues, tokens, users
from pepperbus.operations.office import Office

QUEUES = ("orders", "pictures", "newsletter", "invoices", "payouts")
MORE_TOPICS = ("pictures/thumbnail", "newsletter/send", "invoices/pdf", "payouts/bank")
PEOPLE = {"anna": ["shop=operator"], "bert": ["finance=admin", "shop=viewer"], "carol": ["viewer"]}


def content(queue: str, n: int) -> str:
    """A job as that queue's producers would push it."""
    job: dict[str, object] = {"order": n}
    match queue:
        case "orders":
            job["item"] = "pepper"
        case "pictures":
            job = {"file": f"/upload/{n}.jpg", "width": 320}
        case "newsletter":
            job = {"to": f"reader{n}@example.com", "issue": 12}
        case "invoices":
            job |= {"customer": n % 97, "total": round(9.9 + n % 50, 2)}
        case "payouts":
            job |= {"amount": 10.0 + n % 90, "currency": ("EUR", "CNY", "EUR", "CHF")[n % 4]}
    return json.dumps(job)


def seed(config: Path, gateway: int) -> None:
    """Some of everything, at once. Raises SystemExit when a deed is refused."""
    for queue, n in (("pictures", 60), ("newsletter", 240), ("invoices", 200), ("payouts", 60)):
        client = redis.Redis(port=gateway, username=queue, password="demo")
        client.lpush(queue, *(content(queue, i) for i in range(1, n + 1)))
        if queue == "newsletter":
            client.zadd(queue, {content(queue, n + i): time.time() + 3600 + i for i in range(1, 31)})
        client.close()
    try:
        with _office(config) as office:
            for name, roles in PEOPLE.items():
                users.add(office, name, roles)
            tokens.add(office, "deploy script", "operator", 90, ("shop",), "anna")
        for settings in ({"pdf/timeout": "20s"}, {"pdf/attempts": "6"}):
            with _office(config) as office:  # the audit log compares with the files as this one read them
                queues.change(office, "invoices", settings)
    except PepperbusError as error:
        raise SystemExit(f"demo: {error}") from error


@contextmanager
def _office(config: Path) -> Iterator[Office]:
    loaded = load(config, os.environ)
    with closing(Office(loaded, lambda request: ask(loaded.bus.run_dir, request, 60.0))) as office:
        office.actor = Actor("demo", roles=HOST_ROLES)
        yield office


def trickle(gateway: int) -> None:
    """About eight jobs a second for as long as the demo stays, in waves, so that the curves have a shape."""
    threading.Thread(target=_trickle, args=(gateway,), daemon=True).start()


def _trickle(gateway: int) -> None:
    rates = {"orders": 4.0, "invoices": 2.0, "pictures": 1.6, "payouts": 0.5}
    n = 10_000
    while True:
        wave = 1.0 + 0.8 * random.uniform(-1, 1)
        for queue, rate in rates.items():
            client = redis.Redis(port=gateway, username=queue, password="demo")
            try:
                for _ in range(int(rate * wave + random.random())):
                    n += 1
                    client.lpush(queue, content(queue, n))
            except redis.RedisError:
                pass  # the bus is being killed and started: that is what one does to a demo
            finally:
                client.close()
        time.sleep(1.0)
