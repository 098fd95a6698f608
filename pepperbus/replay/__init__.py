"""Replays as objects: what is to run once more, how far it came, who did what.

`model.py` says what a replay is and which states it has, `store.py` keeps replays and the snapshot of their jobs.
Operators plan and steer (`operations.replays`), the ticker carries out (`ticker.replays`).
"""
