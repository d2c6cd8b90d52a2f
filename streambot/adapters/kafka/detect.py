"""Which kind of broker answers at an address: the two need to be talked to differently."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streambot.adapters.kafka.connection import Connection
from streambot.adapters.kafka.profile import (
    APACHE,
    EMBEDDED,
    REQUEST_TIMEOUT_S,
    BrokerProfile,
    client_settings,
)
from streambot.domain.kafka_settings import EMBEDDED_CLUSTER, KafkaSecurity

if TYPE_CHECKING:
    from streambot.domain.errors import BrokerError


async def detect_profile(servers: str, security: KafkaSecurity | None = None) -> BrokerProfile:
    """Profile of the broker at `servers`, by the name of its cluster. Creates and changes nothing.

    Args:
        servers: `host:port[,host:port]`.
        security: how to talk to it; None: plain text, as on loopback.

    Raises:
        BrokerError: nobody answers there.
        ConfigError: certificates cannot be used.
    """
    settings = client_settings(servers, security or KafkaSecurity())
    connection = Connection(servers, APACHE, settings, _nobody_waits)
    await connection.open()
    try:
        answer = await connection.bounded(
            connection.admin._get_cluster_metadata([]),  # noqa: SLF001  # of no topic
            REQUEST_TIMEOUT_S,
            "asking for the cluster",
        )
    finally:
        await connection.close()
    # Only the oldest brokers of Apache Kafka have no name.
    cluster = str(getattr(answer, "cluster_id", None) or "")
    return EMBEDDED if cluster.startswith(EMBEDDED_CLUSTER) else APACHE


def _nobody_waits(_: BrokerError) -> None:
    """The one question is bounded by itself."""
