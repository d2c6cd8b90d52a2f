"""Why a connection could not be opened, in words that say what to look at."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any

from aiokafka import errors as kafka

from streambot.domain.errors import BrokerError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

_RUNNING = "is Kafka running there? without --bootstrap-servers none is needed"
_PROTOCOL = "kafka_security_protocol in streambot.yaml: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"


def not_opened(
    cause: BaseException | None, said: str, servers: str, settings: Mapping[str, Any]
) -> BrokerError:
    """The error to tell.

    Args:
        cause: what the last attempt raised; None: not known.
        said: what the client said of it, where `cause` is not known.
        servers: who was asked.
        settings: of the client.
    """
    protocol = str(settings.get("security_protocol", "PLAINTEXT"))
    refusal = _refusal(cause, servers, protocol, settings)
    if refusal is not None:
        return refusal
    why, hint = _silence(cause, protocol)
    return BrokerError(
        f"no broker answers at {servers}: {why or said or 'no reason given'}", hint=hint
    )


def _refusal(
    cause: BaseException | None, servers: str, protocol: str, settings: Mapping[str, Any]
) -> RefusedError | None:
    """Somebody is there, and says no."""
    if isinstance(cause, kafka.SaslAuthenticationFailed):
        user = settings.get("sasl_plain_username")
        return RefusedError(
            f"{servers} refuses user {user}: the password is wrong, or the user is not known there",
            hint="kafka_sasl_username, and $STREAMBOT_KAFKA_SASL_PASSWORD or kafka_sasl_password_file",
        )
    if isinstance(cause, kafka.UnsupportedSaslMechanismError):
        return RefusedError(
            f"{servers} does not know the SASL mechanism {settings.get('sasl_mechanism')}",
            hint="kafka_sasl_mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        )
    if isinstance(cause, kafka.IllegalSaslStateError):
        return RefusedError(
            f"{servers} asks for no password, and kafka_security_protocol is {protocol}",
            hint=_PROTOCOL,
        )
    if isinstance(cause, ssl.SSLCertVerificationError):
        return RefusedError(
            f"the certificate of {servers} is not trusted: {cause.verify_message}",
            hint="kafka_ssl_cafile names the certificates to trust; the host's name must be in it",
        )
    return None


def _silence(cause: BaseException | None, protocol: str) -> tuple[str, str]:
    """Nobody answers, and perhaps why."""
    encrypted = protocol in {"SSL", "SASL_SSL"}
    if isinstance(cause, socket.gaierror):
        return (
            f"the name of the host is not known ({cause.strerror})",
            "a typo? --bootstrap-servers",
        )
    if isinstance(cause, ConnectionRefusedError):
        return "nobody listens there", _RUNNING
    if encrypted and isinstance(cause, (ssl.SSLError, ConnectionError, EOFError)):
        return f"no TLS is spoken there, and kafka_security_protocol is {protocol}", _PROTOCOL
    if isinstance(cause, (kafka.KafkaConnectionError, ConnectionError, EOFError)):
        wanted = "TLS" if "SASL" in protocol else "a password, or TLS"
        hangs_up = f"somebody listens there and hangs up. It may want {wanted}"
        return f"{hangs_up}: kafka_security_protocol is {protocol}", _PROTOCOL
    if isinstance(cause, TimeoutError):
        return "it did not answer in time", _RUNNING
    return "" if cause is None else str(cause), _RUNNING
