"""Delivery: jobs out to their consumers. `make_consumer` is the way in; what an answer means is `delivery.verdict`'s."""

from __future__ import annotations

from importlib import import_module

from pepperbus.config.model import Config, Topic
from pepperbus.delivery.contract import Consumer, Staff
from pepperbus.errors import ConfigError

#: `run =` of a topic -> what makes the one that delivers; called with (topic, config).
BACK_ENDS = {
    "fastcgi": "pepperbus.delivery.fastcgi:FastcgiConsumer",
    "http": "pepperbus.delivery.http:HttpConsumer",
    "command": "pepperbus.delivery.command:consumer",
}


def make_consumer(topic: Topic, config: Config) -> Consumer:
    """The way to one topic's consumer, for this process. Make it after the fork, in a process that runs a hub.

    Raises ConfigError when the topic cannot be delivered as it is configured.
    """
    if topic.kept:
        raise ConfigError(f"{topic.full_name}: feed = {topic.feed}: its processes find their work themselves")
    if topic.pulled:
        raise ConfigError(f"{topic.full_name}: run = pull: its consumers come to the gateway, nothing is sent to them")
    module, _, name = BACK_ENDS[topic.run].partition(":")
    consumer: Consumer = getattr(import_module(module), name)(topic, config)
    return consumer


def make_staff(topic: Topic, config: Config) -> Staff:
    """The processes of a topic that only keeps them alive (`topic.kept`)."""
    from pepperbus.delivery.command import Keeper

    return Keeper(topic, config)
