"""Replays as objects: what is to run once more, how far it came, who did what.

`model.py` says what a replay is and which states it has, `store.py` keeps replays and the snapshot of their jobs in the
tables of `tables.py`. `planning.py` looks for the jobs, `plans.py` keeps what was found of many until they are a snapshot.
Operators plan and steer (`operations.replays`), the ticker plans on and carries out (`ticker.replays`).
"""
