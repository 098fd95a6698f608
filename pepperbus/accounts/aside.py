"""Work that waits inside C (disk, argon2) away from gevent's hub. Floor 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar, cast

_Result = TypeVar("_Result")


def aside(work: Callable[[], _Result]) -> _Result:
    """Run `work` in a pool thread where gevent runs the process, else here. Raises what it raises."""
    if not is_patched():
        return work()
    import gevent

    result, error = cast(
        "tuple[_Result, BaseException | None]", gevent.get_hub().threadpool.apply(lambda: _quietly(work))
    )
    if error is not None:
        raise error
    return result


def is_patched() -> bool:
    """Whether gevent runs this process; does not import it."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _quietly(work: Callable[[], object]) -> tuple[object, BaseException | None]:
    """Errors as values: the pool prints a traceback of whatever escapes it."""
    try:
        return work(), None
    except BaseException as error:
        return None, error
