"""Marks on the time line: somebody deployed, the configuration changed, the bus started or was upgraded.

Floor 3. A file of lines beside the journal. Charts draw them, so that "since when" finds its "because".
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from pepperbus.journal import lines

FILE = "deploys.jsonl"
TEXT_CAP = 200


class Deploy(msgspec.Struct, omit_defaults=True):
    """`kind`: mark, reload, upgrade or start. `system`: whose it is, "" for everybody's. `queues`: those a reload changed.

    `boot`, `code`: which bus ran what.
    """

    at_ms: int
    kind: str
    text: str = ""
    who: str = ""
    system: str = ""
    queues: tuple[str, ...] = ()
    boot: str = ""
    code: str = ""


def add(data_dir: Path, deploy: Deploy) -> None:
    """Remember it. Raises OSError."""
    lines.add(data_dir / FILE, deploy)


def read(data_dir: Path, since_ms: int = 0) -> list[Deploy]:
    """Since then, oldest first."""
    return [deploy for deploy in lines.read(data_dir / FILE, Deploy) if deploy.at_ms >= since_ms]
