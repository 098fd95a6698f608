"""`canary`: a topic's second consumer and its share of the jobs. Written form in, frozen value out.

Floor 1. `http://127.0.0.1:8081/jobs 5%`, `/data/app/next.php 5%` (in the topic's own pool) or `POOL /data/app/next.php 5%`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from pepperbus.names import is_name

_SHAPE = (
    "a second consumer and its share is wanted: http://127.0.0.1:8081/jobs 5%, /data/app/next.php 5%,"
    " or POOL /data/app/next.php 5%"
)


@dataclass(frozen=True)
class Canary:
    """`share`: 0 to 1 of the jobs; 0: only what is replayed to it. Either `url`, or `script` in `pool` ("": the topic's)."""

    text: str
    share: float
    url: str = ""
    pool: str = ""
    script: str = ""

    def __str__(self) -> str:
        return self.text


def parse(text: str, url: Callable[[str], str]) -> Canary | None:
    """None for an empty text. `url` checks one. Raises ValueError."""
    words = text.split()
    if not words:
        return None
    share = _share(words[-1])
    match words[:-1]:
        case [target] if target.startswith(("http://", "https://")):
            return Canary(text, share, url=url(target))
        case [script] if "/" in script and not script.endswith("/"):
            return Canary(text, share, script=script)
        case [pool, script] if is_name(pool) and "/" in script and not script.endswith("/"):
            return Canary(text, share, pool=pool, script=script)
    raise ValueError(_SHAPE)


def _share(word: str) -> float:
    try:
        share = float(word.removesuffix("%")) / 100
    except ValueError:
        share = -1.0
    if not word.endswith("%") or not 0 <= share <= 1:
        raise ValueError(f"{_SHAPE}; the share is 0% to 100%")
    return share


def placed(canary: Canary, directory: str, pool: str) -> Canary:
    """With the script's path made whole, as `script` is, and the pool named."""
    if canary.url:
        return canary
    script = os.path.normpath(os.path.join(directory, canary.script))
    return Canary(canary.text, canary.share, pool=canary.pool or pool, script=script)
