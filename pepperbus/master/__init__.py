"""The master: one plain process that keeps all others alive.

Reading order: serve.py (the start), children.py (who should live), bus.py (what can be done to them), loop.py (one turn),
births.py, reload.py, upgrade.py, requests.py. Imports nothing itself: who wants only `control` should not wait for the rest.
"""
