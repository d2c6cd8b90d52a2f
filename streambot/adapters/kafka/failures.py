"""What aiokafka raises, in the words of `domain.errors`."""

from __future__ import annotations

from aiokafka import errors as kafka

from streambot.domain.errors import (
    BrokerError,
    FencedError,
    RefusedError,
    StreambotError,
    StreamError,
    TopicError,
)

DELETED_HINT = "`streambot topics plan` shows what is there; start the run again under another name"
_TOPIC = (
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
_BROKEN = (kafka.KafkaStorageError, kafka.UnknownError)
_RIGHTS = (
    (kafka.TopicAuthorizationFailedError, "this user may not do that with the topic"),
    (kafka.ClusterAuthorizationFailedError, "this user may not do that with the cluster"),
    (kafka.GroupAuthorizationFailedError, "this user may not use the consumer group"),
    (kafka.TransactionalIdAuthorizationFailed, "this user may not write transactions of that name"),
)
_WORDS = (
    (kafka.NodeNotReadyError, "the connection is lost"),
    (kafka.KafkaConnectionError, "the connection is lost"),
    (kafka.LeaderNotAvailableError, "the partition has no leader"),
    (kafka.NotLeaderForPartitionError, "the partition has another leader"),
    (kafka.RequestTimedOutError, "a request took too long"),
)


def told(cause: Exception, servers: str, where: str = "") -> StreambotError:
    """`cause`, which aiokafka raised while talking to `servers`, as an error for people."""
    if isinstance(cause, StreambotError):
        return cause
    if type(cause) is kafka.KafkaError and isinstance(cause.__cause__, Exception):
        # What ends the background task of a producer comes wrapped in words that say nothing.
        return told(cause.__cause__, servers, where)
    text = _text(cause)
    if isinstance(cause, _FENCED):
        return FencedError(
            "another process took over", where=where or servers, hint="it goes on with the work"
        )
    return _of_stream(cause, text, servers, where) or _of_broker(cause, text, servers, where)


def _of_stream(cause: Exception, text: str, servers: str, where: str) -> StreambotError | None:
    """What is wrong with the stream itself."""
    if isinstance(cause, kafka.UnknownTopicOrPartitionError):
        return TopicError("the stream was deleted", where=where or servers, hint=DELETED_HINT)
    if isinstance(cause, _TOPIC):
        return TopicError(text, where=where or servers)
    if isinstance(cause, kafka.OffsetOutOfRangeError):
        return StreamError(
            "records that should be next are no longer kept",
            where=where or text,
            hint="the topic was cut, or its retention is finite: replay it again from its source",
        )
    if isinstance(cause, kafka.CorruptRecordException):
        return StreamError(f"a record is damaged: {text}", where=where)
    return None


def _of_broker(cause: Exception, text: str, servers: str, where: str) -> BrokerError:
    """What the broker says of itself, or of who asks."""
    if isinstance(cause, _TOO_LARGE):
        return RefusedError(
            f"the broker takes no batch of records as large as this one: {text}",
            where=where or servers,
            hint="raise max.message.bytes of the topic (`streambot topics plan` shows what differs), "
            "or message.max.bytes of the broker",
        )
    if isinstance(cause, _REFUSED):
        words = next((said for kind, said in _RIGHTS if isinstance(cause, kind)), text)
        return RefusedError(
            f"{servers} refuses: {words}",
            where=where,
            hint="the user lacks a right: docs/operations.md lists what each role needs",
        )
    if isinstance(cause, _SILENT):
        words = next((said for kind, said in _WORDS if isinstance(cause, kind)), text)
        return BrokerError(
            f"no answer from {servers}: {words}", where=where,
            hint="is it still running, and can this machine reach it?",
        )  # fmt: skip
    if isinstance(cause, _BROKEN):
        return BrokerError(
            f"{servers} cannot do its work: {text}",
            where=where,
            hint="its own log says why: is its disk full? `streambot broker status` shows one started here",
        )
    return BrokerError(f"{servers}: {text}", where=where)


def _text(cause: Exception) -> str:
    """Class and message, without repeating the class: aiokafka puts it in front of some."""
    name = type(cause).__name__
    said = str(cause).removeprefix(f"[Error {getattr(cause, 'errno', '')}] ")
    said = said.removeprefix(name).removeprefix(": ")
    return f"{said} ({name})" if said else name
