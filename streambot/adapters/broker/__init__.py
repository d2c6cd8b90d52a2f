"""Brokers that streambot starts and stops itself, as child processes on a loopback port."""

from streambot.adapters.broker.apache import ApacheBroker
from streambot.adapters.broker.embedded import EmbeddedBroker

__all__ = ["ApacheBroker", "EmbeddedBroker"]
