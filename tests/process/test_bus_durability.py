"""Whole bus: a queue that demands more than its storage gives is refused with the line to type, until it is typed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import redis

from tests.fixtures.bus import Buses
from tests.fixtures.fpm import Fpm
from tests.fixtures.redis import Redis
from tests.process.bus_rig import ask, node, push, queue, until, until_count


def test_power_on_a_redis_that_syncs_every_second(
    buses: Buses, fpm: Callable[..., Fpm], start_redis: Callable[..., Redis]
) -> None:
    php, server = fpm(), start_redis(appendonly="yes", appendfsync="everysec")
    script = php.script("wire.php")
    queues = {"orders": queue(script, head="durability = power"), "bills": queue(script, head="durability = process")}
    bus = buses.start(node(php, server), queues)
    client = bus.client()
    answer = json.loads(client.execute_command("LPUSH", "orders/x", "x"))
    assert answer["jobs"] is None
    assert "CONFIG SET appendfsync always" in answer["error"]
    with pytest.raises(redis.RedisError, match="CONFIG SET appendfsync always"):
        client.lpush("orders", "x")
    bus.wait_log("action=durability_refused")
    (line,) = [line for line in bus.log.splitlines() if "durability_refused" in line]
    assert "CONFIG SET appendfsync always" in line
    topics = {one["name"]: one["topics"][0] for one in ask(bus, "status", "--seconds", "0")["queues"]}
    assert topics["orders"]["state"] == "stopped"
    assert "CONFIG SET appendfsync always" in topics["orders"]["why"]
    push(bus, "x", key="bills/x")
    until_count(bus, "bills/mail", done=1)

    assert server.ask("CONFIG", "SET", "appendfsync", "always") == b"OK"

    def accepted() -> bool:
        return bool(json.loads(client.execute_command("LPUSH", "orders/x", "x"))["jobs"])

    until(accepted, bool, bus)
    until_count(bus, done=1)
    client.close()


def test_an_eviction_policy_is_refused_with_the_line_to_type(buses: Buses, start_redis: Callable[..., Redis]) -> None:
    server = start_redis(appendonly="yes", maxmemory="50mb", maxmemory_policy="allkeys-lru")
    bus = buses.start(node(redis=server))
    answer = json.loads(bus.client().execute_command("LPUSH", "orders/x", "x"))
    assert "CONFIG SET maxmemory-policy noeviction" in answer["error"]
    assert server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction") == b"OK"
    until(lambda: json.loads(bus.client().execute_command("LPUSH", "orders/x", "x"))["jobs"], bool, bus)
