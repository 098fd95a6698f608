"""The bell: every worker hears of every queue that was rung for, once, also when another process rang."""

from __future__ import annotations

from pathlib import Path

from pepperbus.family.bell import Bell, Ear


def test_each_ear_hears_each_ring_once(tmp_path: Path) -> None:
    gateway, worker = Bell(tmp_path), Bell(tmp_path)
    gateway.ring("orders")
    one, two = Ear(worker, ["orders", "bills"]), Ear(worker, ["orders"])
    assert one.rung() == []
    gateway.ring("orders")
    gateway.ring("orders")
    assert one.rung() == ["orders"]
    assert one.rung() == []
    Bell(tmp_path).ring("bills")
    gateway.ring("nobody-here")
    assert one.rung() == ["bills"]
    assert two.rung() == ["orders"]
