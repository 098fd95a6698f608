"""Delivery: jobs out to their consumers. `make_consumer` is the way in; what an answer means is `delivery.verdict`'s."""

from __future__ import annotations

from importlib import import_module

from pepperbus.config.model import Config, Topic
from pepperbus.delivery.contract import Consumer
from pepperbus.errors import ConfigError

#: `run =` of a topic -> the class that delivers; called with (topic, config).
BACK_ENDS = {
    "fastcgi": "pepperbus.delivery.fastcgi:FastcgiConsumer",
    "http": "pepperbus.delivery.http:HttpConsumer",
}


def make_consumer(topic: Topic, config: Config) -> Consumer:
    """The way to one topic's consumer, for this process. Make it after the fork, in a process that runs a hub.

    Raises ConfigError when the topic cannot be delivered as it is configured.
    """
    if topic.pulled:
        raise ConfigError(f"{topic.full_name}: run = pull: its consumers come to the gateway, nothing is sent to them")
    module, _, name = BACK_ENDS[topic.run].partition(":")
    consumer: Consumer = getattr(import_module(module), name)(topic, config)
    return consumer
