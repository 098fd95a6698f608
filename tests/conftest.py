"""The tests' own fixtures: real parts, started on free ports by the fixture modules and stopped after."""

import signal

pytest_plugins = ["tests.fixtures.redis", "tests.fixtures.fpm", "tests.fixtures.bus", "tests.fixtures.systemd"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a script: what is ignored stays ignored in every process the tests start, and some of
    # them are sent Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
