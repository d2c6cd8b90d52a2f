"""Settings of Apache Kafka as one KRaft node, loopback only: the one place where they are.

`compose/kafka.yml` sets the same ones for Docker, and a test compares the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streambot.adapters.broker.loopback import HOST

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SETTINGS: dict[str, str] = {
    # One node, so one replica of everything.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Topics are declared by topics.yaml, never by a typo.
    "auto.create.topics.enable": "false",
    # Records carry the market's time: a week by it (the default) deletes a replay of last year at once.
    "log.retention.ms": "-1",
    # A lone consumer need not wait three seconds for company.
    "group.initial.rebalance.delay.ms": "0",
    # Classic-protocol sessions as short as a test needs.
    "group.min.session.timeout.ms": "1000",
    # A killed producer's open transaction holds back readers until it times out: keep it short.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # A killed broker comes back as soon as its old registration expires (default 9 s).
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
    # Frames stay below 1 MiB; policy weights may be larger.
    "message.max.bytes": "8388608",
    "replica.fetch.max.bytes": "8388608",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.threads": "1",
}
"""What makes a difference to streambot, whoever starts the broker."""

LOG4J = """\
Configuration:
  status: error
  Appenders:
    Console:
      name: STDOUT
      PatternLayout:
        pattern: "%d %p %m (%c)%n"
  Loggers:
    Root:
      level: WARN
      AppenderRef:
        - ref: STDOUT
"""
"""Warnings and errors only, on one stream, which goes to the broker's log file."""


_LISTS = ("listeners", "advertised.listeners", "listener.security.protocol.map")


def server_properties(
    port: int, controller_port: int, data: Path, settings: Mapping[str, str] | None = None
) -> str:
    """The file that Kafka is started with.

    Args:
        port, controller_port: loopback ports.
        data: folder of its log.
        settings: further ones, or others than `SETTINGS`; listeners come beside the two of its own.
    """
    place = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data),
    }
    properties = place | SETTINGS
    for name, value in (settings or {}).items():
        properties[name] = f"{place[name]},{value}" if name in _LISTS else value
    return "".join(f"{key}={value}\n" for key, value in properties.items())
