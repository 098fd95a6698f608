"""How many jobs one fault may repeat, derived from what the bus itself promises to keep few; every other fault: none.

A job runs twice when it ran and the bus did not live to store that it had. So a fault repeats at most
 - what runs at that moment: `concurrency` of each topic, a limit of the whole node (RUNNING), and
 - what has been answered and not yet stored: each worker holds at most UNSETTLED such outcomes (the worker's own constant).
Killing one worker loses its own outcomes, and at worst all that runs on the node ran in it; killing the family loses
those of all workers. Breaking php-fpm loses only answers on their way.
Whatever leaves worker and php-fpm alive repeats nothing.
"""

from __future__ import annotations

from pepperbus.storage.contract import CRASH_LIMIT
from pepperbus.worker.lane import _MOST_UNSETTLED as UNSETTLED  # gone? then say here what bounds such outcomes now

TOPICS = ("a", "b")
CONCURRENCY = 4
WORKERS = 2
ATTEMPTS = 4
RUNNING = len(TOPICS) * CONCURRENCY
#: An attempt that a crash cut short counts, and a crash alone is forgiven until the limit.
HIGHEST_ATTEMPT = ATTEMPTS + CRASH_LIMIT - 1

ONE_WORKER = RUNNING + UNSETTLED
ALL_WORKERS = RUNNING + WORKERS * UNSETTLED

MAY_REPEAT = {
    "kill worker": ONE_WORKER,
    "hang worker": ONE_WORKER,  # the master kills what has not beaten for 5 s
    "kill master": ALL_WORKERS,
    "kill everything": ALL_WORKERS,
    "fpm down": RUNNING,
    "fpm kill": RUNNING,
    "fpm reload": RUNNING,
    "fpm child": 1,
}
#: What may leave a script running that nobody waits for: only these explain two attempts of one job at once.
ORPHANS = {"kill worker", "hang worker", "kill master", "kill everything"}
#: Effects of these come after the blow: what is drained, or killed by the master when its patience ends. A request that was
#: sent before its worker died begins when its php-fpm child gets a core: 0.1 s later on two cores with a load of 12, and
#: where others share the machine as late as they let it.
TAIL_S = {"hang worker": 3.0, "fpm reload": 2.0} | dict.fromkeys(("kill worker", "kill master", "kill everything"), 1.0)

#: Measured from the blow where the bus mends it, else from the moment the fault is over.
FROM_THE_BLOW = {
    "kill worker",
    "kill gateway",
    "kill ticker",
    "kill web",
    "kill mold",
    "kill master",
    "kill everything",
}
#: Back to nine tenths of the load within this (s), p95 over a run.
RECOVERED_S = {"kill worker": 2.0, "kill gateway": 2.0, "kill master": 10.0, "kill everything": 10.0} | dict.fromkeys(
    ("redis kill", "redis freeze", "redis cut", "fpm down", "fpm kill", "fpm reload"), 3.0
)
