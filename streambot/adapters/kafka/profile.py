"""How to talk to each kind of broker: settings that were measured, in one place."""

from __future__ import annotations

import importlib.util
import ssl
from typing import TYPE_CHECKING, Any

import msgspec

from streambot.domain.errors import BrokerError, ConfigError
from streambot.streams.ports import MAX_RECORD_BYTES

if TYPE_CHECKING:
    from streambot.domain.kafka_settings import KafkaSecurity

_REQUEST_OVERHEAD = 65_536
_FETCH_PARTITION_BYTES = 8 << 20
"""aiokafka's 1 MiB would be four frames a round trip; at least as large as any record."""
_FETCH_BYTES = 16 << 20
"""What one reader may hold in memory, about."""


class BrokerProfile(msgspec.Struct, frozen=True, kw_only=True):
    """What a kind of broker needs.

    Attributes:
        name: for messages.
        idempotent: its producers can be (the embedded broker refuses this client's request).
        transactional: records can become visible together.
        batch_bytes: most bytes of a batch; Apache Kafka limits batches to 1 MiB by default.
        knows_ends: it answers a request for ends rightly (the embedded broker gives the first
            offset of the last batch, plus one).
        finds_times: it finds offsets by record time; else they are searched for.
        in_order: readers see records in the order of their offsets. Where several writers write at once, the
            embedded broker may give the later batch first, and the earlier one to nobody who read on.
        isolation: which records readers see; the embedded broker has no transactions for this client,
            and its last stable offset lags behind what is stored.
        fetch_wait_ms: how long a fetch waits for something new. Apache Kafka answers at once when it
            comes; the embedded broker looks at the start, half way and at the end.
        unreachable_s: after that long without any answer, the log is lost.
        transaction_timeout_s: a dead writer's open transaction holds back readers that long, unless its
            successor comes first.
    """

    name: str
    idempotent: bool
    transactional: bool
    batch_bytes: int
    knows_ends: bool
    finds_times: bool
    in_order: bool
    isolation: str
    fetch_wait_ms: int
    unreachable_s: float
    transaction_timeout_s: float = 30.0


EMBEDDED = BrokerProfile(
    name="the embedded broker", idempotent=False, transactional=False, batch_bytes=2 << 20, knows_ends=False, finds_times=False,
    in_order=False, isolation="read_uncommitted", fetch_wait_ms=10, unreachable_s=5.0,
)  # fmt: skip
APACHE = BrokerProfile(
    name="Kafka", idempotent=True, transactional=True, batch_bytes=1_000_000, knows_ends=True, finds_times=True,
    in_order=True, isolation="read_committed", fetch_wait_ms=250, unreachable_s=15.0,
)  # fmt: skip

REQUEST_TIMEOUT_S = 15.0
_COMMON: dict[str, Any] = {
    "client_id": "streambot",
    "request_timeout_ms": int(REQUEST_TIMEOUT_S * 1_000),
    "retry_backoff_ms": 50,
}


def require_extension() -> None:
    """Refuse to work without aiokafka's C extension: a hundred times slower is no service.

    Raises:
        BrokerError: it is not there.
    """
    if importlib.util.find_spec("aiokafka.record._crecords.default_records") is None:
        raise BrokerError(
            "aiokafka was installed without its C extension",
            hint="pip install --force-reinstall --only-binary :all: aiokafka",
        )


def client_settings(servers: str, security: KafkaSecurity) -> dict[str, Any]:
    """Settings that every client of aiokafka gets.

    Raises:
        ConfigError: a certificate or key cannot be read.
    """
    settings = _COMMON | {
        "bootstrap_servers": servers.split(","),
        "security_protocol": security.security_protocol.value,
    }
    if security.uses_tls:
        try:
            # Certificates and host names are verified, TLS 1.2 at least: Python's defaults.
            context = ssl.create_default_context(cafile=security.ssl_cafile)
            if security.ssl_certfile is not None:
                context.load_cert_chain(security.ssl_certfile, security.ssl_keyfile)
        except OSError as cause:
            raise ConfigError(f"a TLS certificate or key cannot be used: {cause}") from cause
        settings["ssl_context"] = context
    if security.sasl_password is not None:
        settings |= {
            "sasl_mechanism": security.sasl_mechanism.value,
            "sasl_plain_username": security.sasl_username,
            "sasl_plain_password": security.sasl_password.reveal(),
        }
    return settings


def producer_settings(profile: BrokerProfile) -> dict[str, Any]:
    """Settings of a producer: frames leave at once, several of them in a batch where they wait."""
    return {
        "acks": "all",
        "enable_idempotence": profile.idempotent,
        "linger_ms": 0,
        "max_batch_size": profile.batch_bytes,
        "max_request_size": MAX_RECORD_BYTES + _REQUEST_OVERHEAD,
    }


def transaction_settings(name: str, profile: BrokerProfile = APACHE) -> dict[str, Any]:
    """Settings of a producer with transactions under a name.

    The back-off is what a transaction waits behind the one before it, which the broker is still
    completing: at aiokafka's default it would be most of the time that a transaction takes.
    """
    return producer_settings(profile) | {
        "transactional_id": name,
        "transaction_timeout_ms": int(profile.transaction_timeout_s * 1_000),
        "retry_backoff_ms": 5,
    }


def consumer_settings(profile: BrokerProfile, *, rest_ms: int = 0) -> dict[str, Any]:
    """Settings of a reader: no group, nothing committed, checksums checked, big fetches.

    Args:
        profile: of the broker.
        rest_ms: see `Log.source`; a broker looks at least that often: see `BrokerProfile.fetch_wait_ms`.
    """
    return {
        "group_id": None,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "check_crcs": True,
        "isolation_level": profile.isolation,
        "max_partition_fetch_bytes": _FETCH_PARTITION_BYTES,
        "fetch_max_bytes": _FETCH_BYTES,
        "fetch_max_wait_ms": max(profile.fetch_wait_ms, 2 * rest_ms),
    }
