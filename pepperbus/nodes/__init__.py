"""What nodes that share a storage leave there for each other, as small texts (`Storage.swap`). Beside alarms and schedules.

paces.py     how long jobs waited and ran on a node in the last minute, as histograms, which add up
errands.py   what one asks another to do: try a consumer from there, tell a topic's course, its processes, its systems
"""
