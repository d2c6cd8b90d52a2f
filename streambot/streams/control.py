"""The `control` and `status` streams: commands to a replay that goes, and what became of them.

Both hold JSON, one object a record. Whoever can write to the broker may write a command, so bytes
are held to this page: known commands, short names, numbers that can be. Fields that are not known
are ignored. A command has an id of its own, so that it can be sent twice and be applied once, and
the commands of one sender are numbered, so that an old one cannot overtake a newer one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from streambot.domain.errors import DecodeError, UsageError
from streambot.domain.replay_settings import Moment, Speed, parse_moment, parse_speed

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")

CONTROL, STATUS = "control", "status"
MAX_BYTES = 4_096
MAX_STEP = 1_000_000_000
_MAX_WORDS = 1_000

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}\Z")]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
WallTime = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class ReplayStatus(StrEnum):
    """Where a replay stands (`replay.control` has the transitions)."""

    RUNNING = "running"
    PAUSED = "paused"
    STEPPING = "stepping"
    """It publishes the barriers that a step asked for, and is paused behind them."""
    COMPLETE = "complete"
    STOPPED = "stopped"
    """Ended without END frames: the run can be resumed."""
    SOUGHT = "sought"
    """Ended by a seek, with END frames: another run goes on at another time."""


class _Command(msgspec.Struct, frozen=True, kw_only=True, tag_field="command"):
    """What every command has.

    Attributes:
        id: of this command alone.
        sender: who gives it.
        number: grows from command to command of one sender.
    """

    id: Name
    sender: Name
    number: Count = 0


class Pause(_Command, frozen=True, kw_only=True, tag="pause"):
    """Publish nothing more."""


class Resume(_Command, frozen=True, kw_only=True, tag="resume"):
    """Go on."""


class Step(_Command, frozen=True, kw_only=True, tag="step"):
    """Publish `count` barriers, at once, and be paused behind them."""

    count: Annotated[int, Meta(ge=1, le=MAX_STEP)] = 1


class SetSpeed(_Command, frozen=True, kw_only=True, tag="speed"):
    """Go on at another speed: `100x`, `0.5x`, `max`."""

    speed: Annotated[str, Meta(max_length=32)]

    def __post_init__(self) -> None:
        _checked(parse_speed, self.speed)

    @property
    def value(self) -> Speed:
        """The speed."""
        return parse_speed(self.speed)


class Seek(_Command, frozen=True, kw_only=True, tag="seek"):
    """End the stream here; another run goes on at market time `time` (ISO 8601)."""

    time: Annotated[str, Meta(max_length=64)]

    def __post_init__(self) -> None:
        _checked(parse_moment, self.time)

    @property
    def value(self) -> Moment:
        """The time."""
        return parse_moment(self.time)


class AskStatus(_Command, frozen=True, kw_only=True, tag="status"):
    """Say where the replay stands; nothing changes."""


Command = Pause | Resume | Step | SetSpeed | Seek | AskStatus
ACKNOWLEDGEMENT_SCHEMA: Final = "streambot.replay-acknowledgement/1"


class Acknowledgement(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="schema", tag=ACKNOWLEDGEMENT_SCHEMA
):
    """What became of a command, and where the replay stood then.

    Attributes:
        id, sender, number: of the command.
        command: its word.
        applied: False: it was refused, and changed nothing.
        reason: why it was refused, or what differs from what was asked; else empty.
        barrier: barriers that every partition has closed.
        event_time: close of the last of them, UTC ns; None before the first.
        at: wall time, UTC ns.
        status: after the command.
        speed: asked for, after the command.
        successor: the run that a seek goes on with.
    """

    id: Name
    sender: Name
    number: Count
    command: Name
    applied: bool
    reason: Annotated[str, Meta(max_length=_MAX_WORDS)] = ""
    barrier: Count
    event_time: int | None = None
    at: WallTime
    status: ReplayStatus
    speed: Annotated[str, Meta(max_length=32)]
    successor: Name | None = None

    def __post_init__(self) -> None:
        for name, words in (("reason", self.reason), ("speed", self.speed)):
            if not words.isprintable():
                raise ValueError(f"`{name}` has characters that cannot be printed")


class _Tagged(msgspec.Struct, frozen=True):
    schema: str = ""


_encoder = msgspec.json.Encoder()
_commands: msgspec.json.Decoder[Command] = msgspec.json.Decoder(Command, strict=True)
_acknowledgements = msgspec.json.Decoder(Acknowledgement, strict=True)
_tags = msgspec.json.Decoder(_Tagged, strict=True)


def word_of(command: Command) -> str:
    """The word of a command: `pause`, `speed`, ..."""
    return str(command.__struct_config__.tag)


def encode_command(command: Command) -> bytes:
    """Value of a record of the `control` stream."""
    return _encoder.encode(command)


def decode_command(value: bytes) -> Command:
    """The command of a record.

    Raises:
        DecodeError: `value` is something else. `reason` is `short` (empty), `length` (too long) or
            `schema` (no JSON, no command, a field that is missing or cannot be).
    """
    return _decode(_commands, value)


def encode_acknowledgement(acknowledgement: Acknowledgement) -> bytes:
    """Value of a record of the `status` stream."""
    return _encoder.encode(acknowledgement)


def decode_acknowledgement(value: bytes) -> Acknowledgement | None:
    """The acknowledgement of a record of `status`; None: the record says something else.

    Raises:
        DecodeError: as `decode_command`.
    """
    if _decode(_tags, value).schema != ACKNOWLEDGEMENT_SCHEMA:
        return None
    return _decode(_acknowledgements, value)


def _decode(decoder: msgspec.json.Decoder[_T], value: bytes) -> _T:
    if not value.strip():
        raise DecodeError("nothing", reason="short")
    if len(value) > MAX_BYTES:
        raise DecodeError(f"longer than {MAX_BYTES} bytes", reason="length")
    try:
        return decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as cause:
        raise DecodeError(str(cause)[:_MAX_WORDS], reason="schema") from cause


def _checked(parse: Callable[[str], object], text: str) -> None:
    try:
        parse(text)
    except UsageError as error:
        raise ValueError(error.message) from error
