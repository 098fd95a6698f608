"""What was read of queues' files before, so that a reload builds anew only the queues that changed.

Floor 1. Every file is still read: a time stamp would miss what was written twice within its step. What is not kept is what
does not follow from the text and the node's file alone: whoever names an environment variable or a file is built each time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pepperbus.config.content import Content
from pepperbus.config.model import Config, Queue


@dataclass
class Known:
    """Of one configuration that was wholly right. `node`: what the queues were built beside, itself without any."""

    node: Config | None = None
    queues: dict[Path, tuple[Content, Queue]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.queues)

    def queue(self, file: Path, content: Content) -> Queue | None:
        """The queue that this file made, when it reads as it did."""
        before = self.queues.get(file)
        return before[1] if before is not None and before[0] == content else None

    def beside(self, node: Config) -> Known:
        """What of it still holds beside that node: all or nothing."""
        return self if self.node == node else Known(node)
