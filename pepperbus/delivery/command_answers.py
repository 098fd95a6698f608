"""What both ways to a process of ours answer alike: that it could not be started, took too long, or is there.

Floor 3. Judges nothing, and knows nothing of how a job gets to the process.
"""

from __future__ import annotations

from pepperbus.delivery.command_process import Process
from pepperbus.delivery.command_start import Command
from pepperbus.delivery.contract import Answer, Request, Transport

#: After a timeout the process has this long to leave by itself.
TIMEOUT_GRACE_S = 2.0
#: A worker that leaves cuts what still runs: seconds between SIGINT and SIGKILL.
CUT_S = 0.5


def pinged(command: Command, request: Request) -> Answer:
    """There is nobody to ask: the answer says whether it could be started."""
    if trouble := command.trouble():
        return Answer(Transport.FORBIDDEN, detail=trouble)
    return Answer(Transport.ANSWERED, 200, {"code": "200", "consume-topics": f"{request.queue}/{request.topic}"})


def not_started(address: str, error: OSError) -> Answer:
    """The system would not start it: out of processes or memory, or the program is not one."""
    busy = error.errno in (11, 12, 23, 24)  # EAGAIN, ENOMEM, ENFILE, EMFILE
    where = Transport.BUSY if busy else Transport.FORBIDDEN
    return Answer(where, detail=f"{address}: cannot be started: {error.strerror or error}")


def timed_out(address: str, process: Process, deadline_s: float) -> Answer:
    said = process.take_output()
    return Answer(Transport.TIMEOUT, stderr=said, detail=f"{address}: not done within {deadline_s:g} s; killed")
