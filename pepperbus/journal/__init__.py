"""What the bus remembers of every attempt: rows in each process's log file, moved by the ticker into one database.

`contract.py` says what a row is, `log.py` writes and reads the files, `store.py` ingests, keeps and searches them.
"""
