"""How to reach Kafka, and secrets that never show.

A password comes from the environment or from a file, never from a flag or from `streambot.yaml`:
command lines and configurations are read by others.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NoReturn, final

import msgspec

from streambot.domain.errors import UsageError

SHOWN = "***"
EMBEDDED_CLUSTER = "streambot-"
"""Cluster names of embedded brokers begin like this; Apache Kafka's are 22 characters of base64url."""


@final
class Secret:
    """A text that shows as `***`. It is no part of any message, file or pickle."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the client library."""
        return self._text

    def __repr__(self) -> str:
        return SHOWN

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text  # its own kind

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not serialised")


class SecurityProtocol(StrEnum):
    """How the client and the broker talk."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"


class SaslMechanism(StrEnum):
    """How the client proves who it is."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"


class KafkaSecurity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Security of the connection; certificates are always verified where there are any.

    Attributes:
        ssl_cafile: certificates to trust; None: the system's.
        ssl_certfile, ssl_keyfile: the client's own, for mutual TLS.
    """

    security_protocol: SecurityProtocol = SecurityProtocol.PLAINTEXT
    sasl_mechanism: SaslMechanism = SaslMechanism.SCRAM_SHA_512
    sasl_username: str | None = None
    sasl_password: Secret | None = None
    ssl_cafile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None

    def __post_init__(self) -> None:
        sasl = self.security_protocol.value.startswith("SASL")
        if sasl and (self.sasl_username is None or self.sasl_password is None):
            raise ValueError(
                f"`kafka_security_protocol` {self.security_protocol} needs `kafka_sasl_username` and a password"
            )
        if not sasl and self.sasl_password is not None:
            raise ValueError(
                f"a SASL password is given, but `kafka_security_protocol` is {self.security_protocol}: "
                "it would not be used"
            )
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ValueError("`kafka_ssl_keyfile` without `kafka_ssl_certfile`")

    @property
    def uses_tls(self) -> bool:
        """True where the connection is encrypted."""
        return self.security_protocol in {SecurityProtocol.SSL, SecurityProtocol.SASL_SSL}


def parse_bootstrap(text: str) -> str:
    """`host:port[,host:port]`.

    Raises:
        UsageError: anything else.
    """
    servers = [part.strip() for part in text.split(",")]
    for server in servers:
        host, colon, port = server.rpartition(":")
        if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
            raise UsageError(
                f"`{server[:60]}` is no broker address",
                hint="use host:port, such as localhost:9092",
            )
        if not host.isprintable() or any(c in host for c in " /@?#"):
            raise UsageError(
                f"`{server[:60]}` is no broker address", hint="only host:port, no scheme, no user"
            )
    return ",".join(servers)
