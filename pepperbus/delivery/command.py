"""`run = command`: jobs to processes of our own. `feed` decides: exec, stdin; pull and none are only kept alive.

Floor 3. Knows the ways, not what goes over them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pepperbus.config.model import Config, Topic
from pepperbus.delivery.command_crew import Crew
from pepperbus.delivery.command_exec import ExecConsumer
from pepperbus.delivery.command_process import Process
from pepperbus.delivery.command_seats import Seats
from pepperbus.delivery.command_start import Command
from pepperbus.delivery.command_stdin import StdinConsumer
from pepperbus.delivery.contract import Consumer
from pepperbus.log import Log


def consumer(topic: Topic, config: Config) -> Consumer:
    """The way to the processes of a topic with feed = stdin or exec."""
    return ExecConsumer(topic, config) if topic.feed == "exec" else StdinConsumer(topic, config)


class Keeper:
    """`feed = pull` and `none`: processes that are kept alive and find their work themselves."""

    def __init__(self, topic: Topic, config: Config) -> None:
        command = Command(topic, config)
        self.address = command.shown
        self._crew = Crew(
            topic.full_name, lambda: Process(command, lines=False, stdin=False), command.trouble, 0, topic.max_memory
        )
        self.facts = self._crew.facts
        self.end = self._crew.end
        self.gone = self._crew.gone
        self._most = topic.concurrency

    def keep(self, seats: Path, wanted: Callable[[], int], log: Log) -> None:
        self._crew.keep(Seats(seats, self._most), wanted, log)

    def leave(self) -> None:
        """SIGINT to each: the bus cannot see whether it is at work."""
        self._crew.leave()
