"""The tests' own fixtures: real parts, started on free ports by the fixture modules and stopped after.

Hypothesis sets no deadline, for a machine may be busy, and draws the same examples in every run: what it finds is found by
who looks longer (PEPPERBUS_FUZZ_EXAMPLES, which draws others each time), and stays found by a vector or an `@example`.
"""

import os
import signal

from hypothesis import HealthCheck, settings

settings.register_profile(
    "ours",
    deadline=None,
    database=None,
    derandomize="PEPPERBUS_FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
settings.load_profile("ours")

pytest_plugins = ["tests.fixtures.redis", "tests.fixtures.fpm", "tests.fixtures.bus", "tests.fixtures.systemd"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a script: what is ignored stays ignored in every process the tests start, and some of
    # them are sent Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
