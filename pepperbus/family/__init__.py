"""What the master, the mold and a child have in common: how they talk, what a child is told at birth, the beats.

Knows no gevent and no process calls, so that the plain master and the patched children can both import it.
"""
