"""Dead letters: records that could not be read, as they came, and why in their headers.

The value is the original one, byte for byte, so that it can be looked at or replayed. Where it
came from (stream, partition, offset) is its identity: whoever buries a record twice can be found.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.domain.errors import DecodeError
from streambot.streams.ports import Headers

if TYPE_CHECKING:
    from streambot.streams.ports import Record

MAX_MESSAGE_BYTES = 1_024
_NAMES = ("stream", "partition", "offset", "reason", "message", "sha256")


class DeadLetter(NamedTuple):
    """A record for the `dead-letter` stream: append it with these, to the partition it came from."""

    value: bytes
    key: bytes | None
    timestamp_ms: int
    headers: Headers


class Burial(NamedTuple):
    """What the headers of a dead letter say.

    Attributes:
        stream, partition, offset: where the record stood.
        reason: word of a closed set (`DecodeError`).
        message: for people.
        sha256: of the value, in hexadecimal.
    """

    stream: str
    partition: int
    offset: int
    reason: str
    message: str
    sha256: str


class _Line(msgspec.Struct, frozen=True):
    stream: str
    partition: int
    offset: int
    reason: str
    message: str
    sha256: str
    value: bytes


def _burial(record: Record, cause: DecodeError) -> Burial:
    return Burial(
        record.stream, record.partition, record.offset, cause.reason,
        cause.message, sha256(record.value).hexdigest(),
    )  # fmt: skip


def dead_letter_line(record: Record, cause: DecodeError) -> bytes:
    """The same as a line of `dead-letter.ndjson`: what the headers say, and the value in base64."""
    return msgspec.json.encode(_Line(*_burial(record, cause), record.value)) + b"\n"


def buried_line(record: Record) -> bytes:
    """The line of `dead-letter.ndjson` for a record of the `dead-letter` stream.

    Raises:
        DecodeError: it is none.
    """
    return msgspec.json.encode(_Line(*read_burial(record), record.value)) + b"\n"


def dead_letter(record: Record, cause: DecodeError) -> DeadLetter:
    """`record`, which could not be read because of `cause`. A function of the two, nothing else."""
    buried = _burial(record, cause)
    headers = tuple(
        (name, str(field).encode()[:MAX_MESSAGE_BYTES])
        for name, field in zip(_NAMES, buried, strict=True)
    )
    return DeadLetter(record.value, record.key, record.timestamp_ms, headers)


def read_line(line: bytes) -> tuple[Burial, bytes]:
    """What a line of `dead-letter.ndjson` says, and the value as it came.

    Raises:
        DecodeError: it is no such line.
    """
    try:
        said = msgspec.json.decode(line, type=_Line)
    except msgspec.MsgspecError as cause:
        raise DecodeError(f"no dead letter: {cause}", reason="schema") from cause
    buried = Burial(
        said.stream, said.partition, said.offset, said.reason, said.message, said.sha256
    )
    return buried, said.value


def read_burial(record: Record) -> Burial:
    """Why a record of the `dead-letter` stream is there.

    Raises:
        DecodeError: headers are missing, or its value is not the one that was buried.
    """
    buried = stated_burial(record)
    if buried.sha256 != sha256(record.value).hexdigest():
        raise DecodeError("the value is not the one that was buried", reason="crc")
    return buried


def stated_burial(record: Record) -> Burial:
    """What the headers say, whether the value is the one that was buried or not.

    Raises:
        DecodeError: headers are missing.
    """
    headers = dict(record.headers)
    try:
        said = {name: headers[name].decode("utf-8", "replace") for name in _NAMES}
        buried = Burial(
            said["stream"], int(said["partition"]), int(said["offset"]), said["reason"],
            said["message"], said["sha256"],
        )  # fmt: skip
    except (KeyError, ValueError) as cause:
        raise DecodeError(f"no dead letter: {cause}", reason="schema") from cause
    return buried
