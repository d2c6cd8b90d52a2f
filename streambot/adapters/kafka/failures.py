"""What aiokafka raises, in the words of `domain.errors`."""

from __future__ import annotations

from aiokafka import errors as kafka

from streambot.domain.errors import (
    BrokerError,
    FencedError,
    StreambotError,
    StreamError,
    TopicError,
)

_TOPIC = (
    kafka.UnknownTopicOrPartitionError,
    kafka.InvalidTopicError,
    kafka.InvalidPartitionsError,
    kafka.InvalidReplicationFactorError,
    kafka.InvalidConfigurationError,
    kafka.PolicyViolationError,
)
_REFUSED = (
    kafka.TopicAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.TransactionalIdAuthorizationFailed,
    kafka.UnsupportedSaslMechanismError,
    kafka.IllegalSaslStateError,
    kafka.SaslAuthenticationFailed,
)
_FENCED = (kafka.ProducerFenced, kafka.InvalidProducerEpoch)
_TOO_LARGE = (kafka.MessageSizeTooLargeError, kafka.RecordTooLargeError)
_SILENT = (
    kafka.KafkaConnectionError,
    kafka.KafkaTimeoutError,
    kafka.RequestTimedOutError,
    kafka.NodeNotReadyError,
    kafka.LeaderNotAvailableError,
    kafka.NotLeaderForPartitionError,
)


def told(cause: Exception, servers: str, where: str = "") -> StreambotError:
    """`cause`, which aiokafka raised while talking to `servers`, as an error for people."""
    if isinstance(cause, StreambotError):
        return cause
    text = _text(cause)
    answer: StreambotError
    if isinstance(cause, _FENCED):
        answer = FencedError(
            "another process took over", where=where or servers, hint="it goes on with the work"
        )
    elif isinstance(cause, _TOPIC):
        answer = TopicError(text, where=where or servers)
    elif isinstance(cause, _TOO_LARGE):
        answer = BrokerError(f"a record is too large: {text}", where=where or servers)
    elif isinstance(cause, _REFUSED):
        answer = BrokerError(
            f"{servers} refuses: {text}", where=where, hint="look at user, password and ACLs"
        )
    elif isinstance(cause, kafka.OffsetOutOfRangeError):
        answer = StreamError(
            "records that should be next are no longer kept",
            where=where or text,
            hint="the topic was cut, or its retention is finite: replay it again from its source",
        )
    elif isinstance(cause, kafka.CorruptRecordException):
        answer = StreamError(f"a record is damaged: {text}", where=where)
    elif isinstance(cause, _SILENT):
        answer = BrokerError(f"no answer from {servers}: {text}", where=where)
    else:
        answer = BrokerError(f"{servers}: {text}", where=where)
    return answer


def _text(cause: Exception) -> str:
    """Class and message, without repeating the class: aiokafka puts it in front of some."""
    name = type(cause).__name__
    said = (
        str(cause).removeprefix(f"{name}: ").removeprefix(f"[Error {getattr(cause, 'errno', '')}] ")
    )
    return name if said in {"", name} else f"{said} ({name})"
