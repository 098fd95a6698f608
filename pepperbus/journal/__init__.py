"""What the bus remembers of every attempt: rows in each process's log file, moved by the ticker into one database.

`contract.py` says what a row is, `log.py` writes and reads the files, `follow.py` follows them, `store.py` ingests them and
lets old rows go, `reader.py` finds rows wherever they are.
"""
