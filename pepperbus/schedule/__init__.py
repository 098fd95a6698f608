"""Schedules: what of a firing is decided, written down in the storage, and said in words. Between storage and engine.

state.py    a schedule's record in its storage, and how it is changed
decide.py   which firings are due and what becomes of each (pure)
words.py    an expression for people, in English and Chinese
"""
