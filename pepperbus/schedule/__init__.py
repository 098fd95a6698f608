"""Schedules: what of a firing is decided, and how it is written down in the storage. Between storage and engine.

state.py    a schedule's record in its storage, and how it is changed
decide.py   which firings are due and what becomes of each (pure)
"""
