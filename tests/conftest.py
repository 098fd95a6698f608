"""The tests' own fixtures: real parts, started on free ports by the fixture modules and stopped after."""

pytest_plugins = ["tests.fixtures.redis", "tests.fixtures.fpm", "tests.fixtures.bus"]
