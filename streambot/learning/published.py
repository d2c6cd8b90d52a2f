"""What stands on the `policy` stream of a training: its newest weights, and those that are pinned.

Read without torch: a head says all that people ask, and a pin is the same bytes under a key of its
own. `serving` makes policies of them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from streambot.domain.errors import DataError, DecodeError, StreamError, TopicError
from streambot.learning.declaration import POLICY, Training, read_training
from streambot.streams.envelope import Envelope
from streambot.streams.reading import read_to_end

if TYPE_CHECKING:
    from pathlib import Path

    from streambot.streams.ports import Log, Record

CHECKPOINT = "checkpoint.json"
SERVED, PUBLISHED = "served", "published"
"""Texts of a checkpoint of published weights: `training@sequence`, and the digest of the record's."""
_RECORDS = 16
"""Read at a time: a record of weights may be large."""
_LOOKS = 5
FIRST_S = 3.0
_PAUSE_S = 0.25
_RUNS = ".runs"
_MOST_HEAD_BYTES = 1 << 20


class SeenAgent(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown of an agent's settings."""

    features: int = 0
    actions: int = 0
    experts: int = 0
    hidden: tuple[int, ...] = ()
    gate_hidden: tuple[int, ...] = ()
    layout: str = ""
    seed: int = 0


class SeenHead(msgspec.Struct, frozen=True, kw_only=True):
    """What weights say of themselves (`agents.checkpoint.Head`), as far as it is shown.

    `weights` is the file of them, or says that they are a record.
    """

    kind: str
    digest: str
    format: int = 0
    agent: SeenAgent = SeenAgent()
    weights: str = ""
    progress: dict[str, float] = {}
    about: dict[str, str] = {}
    env: dict[str, Any] = {}
    names: tuple[str, ...] = ()


class SeenWeights(msgspec.Struct, frozen=True, kw_only=True):
    """Whose weights a record holds (`weights.WeightsHead`), as far as it is shown."""

    training: str
    policy: str
    sequence: int
    head: SeenHead


ENVELOPE = Envelope(b"SBW1", SeenWeights, 8 << 20, most_header=64 << 10)
"""That of `weights`, whose whole header needs torch."""


class Published(NamedTuple):
    """Weights, as they stand on the stream.

    Attributes:
        sequence: updates behind them.
        pinned: they stay under a key of their own.
        at_ms: when they were published, wall time, UTC.
        head: what they say of themselves.
        value: the record.
    """

    sequence: int
    pinned: bool
    at_ms: int
    head: SeenHead
    value: bytes


class Shelf(NamedTuple):
    """What stands on the stream of a training.

    Attributes:
        newest: the weights with the highest sequence; None: there are none.
        pins: by their sequence.
        asked: those of the sequence that was asked for, the pinned ones first; None: not there.
        sequences: of weights that are not pinned, increasing.
        refused: records that are torn, or of somebody else, by reason.
    """

    training: Training
    newest: Published | None
    pins: dict[int, Published]
    asked: Published | None
    sequences: Sequence[int]
    refused: dict[str, int]

    @property
    def silent(self) -> bool:
        """True where nothing was published that could be meant."""
        return self.newest is None and not self.pins and not self.refused

    @property
    def there(self) -> str:
        """What can be asked for, in words."""
        pins = ", ".join(map(str, self.pins)) or "none"
        first = f"{self.sequences[0]} to " if len(self.sequences) > 1 else ""
        kept = f"{first}{self.sequences[-1]}" if self.sequences else "none"
        return f"weights on the log: {kept}; pinned: {pins}"


async def look(
    log: Log, topic: str, sequence: int | None = None, *, wait_s: float = FIRST_S
) -> Shelf | None:
    """What stands on the stream of a training; None: nothing is declared there, or a run is.

    Args:
        log: where it is.
        topic: its `runs` stream.
        sequence: that is looked for; None: the newest.
        wait_s: how long a stream that is empty is looked at: a generation that has just been opened
            is, for a moment.

    Raises:
        StreambotError: the log is gone, or the declaration cannot be read.
    """
    until = asyncio.get_running_loop().time() + wait_s
    for attempt in range(_LOOKS):
        training = await read_training(log, topic)
        if training is None:
            return None
        try:
            shelf = await read_shelf(log, training, sequence)
            while shelf.silent and asyncio.get_running_loop().time() < until:
                await asyncio.sleep(_PAUSE_S)
                training = await read_training(log, topic) or training
                shelf = await read_shelf(log, training, sequence)
        except TopicError:  # a generation that a newer one has taken the place of
            if attempt == _LOOKS - 1:
                raise
            await asyncio.sleep(_PAUSE_S)
        else:
            return shelf
    raise AssertionError("unreachable")


async def read_shelf(log: Log, training: Training, sequence: int | None = None) -> Shelf:
    """What stands on the stream that a training names now.

    Raises:
        TopicError: the stream is not there (any more).
        StreambotError: the log is gone.
    """
    reading = _Reading(training, sequence)
    async for batch in read_to_end(log, training.topics[POLICY], max_records=_RECORDS):
        for record in batch:
            reading.take(record)
    return reading.shelf()


class _Reading:
    """Records in their order, of which the newest weights, the pins and what is asked for are kept."""

    def __init__(self, training: Training, sequence: int | None) -> None:
        self._training, self._asked = training, sequence
        self._newest: Published | None = None
        self._found: Published | None = None
        self._pins: dict[int, Published] = {}
        self._sequences: set[int] = set()
        self._refused: Counter[str] = Counter()

    def take(self, record: Record) -> None:
        key = "" if record.key is None else record.key.decode("utf-8", "replace")
        name, _, pinned = key.partition("@")
        if name != self._training.policy:
            return  # another policy
        try:
            found = self._read(record, pinned)
        except DecodeError as error:
            self._refused[error.reason] += 1
            return
        if found.pinned:
            self._pins[found.sequence] = found
            return
        self._sequences.add(found.sequence)
        if found.sequence == self._asked:
            self._found = found
        if self._newest is None or found.sequence >= self._newest.sequence:
            self._newest = found

    def _read(self, record: Record, pinned: str) -> Published:
        training = self._training
        seen, body = ENVELOPE.open(record.value)
        if hashlib.blake2b(body, digest_size=16).hexdigest() != seen.head.digest:
            raise DecodeError("the weights are not those that the header names", reason="crc")
        if (seen.training, seen.policy) != (training.training, training.policy):
            raise DecodeError("weights of another training", reason="foreign")
        if seen.head.agent.layout != training.layout:
            raise DecodeError("weights of other observations or actions", reason="foreign")
        if pinned and pinned != str(seen.sequence):
            raise DecodeError("a pin that names other weights", reason="foreign")
        return Published(seen.sequence, pinned != "", record.timestamp_ms, seen.head, record.value)

    def shelf(self) -> Shelf:
        asked = self._newest
        if self._asked is not None:
            asked = self._pins.get(self._asked, self._found)
        return Shelf(
            self._training, self._newest, dict(sorted(self._pins.items())), asked,
            sorted(self._sequences), dict(self._refused),
        )  # fmt: skip


def asked_of(shelf: Shelf, sequence: int | None) -> Published:
    """The weights that were asked for.

    Raises:
        TopicError: they are not there; says what is.
        StreamError: no record that is there can be used.
    """
    if shelf.asked is not None:
        return shelf.asked
    training = shelf.training
    where = training.topics[POLICY]
    if shelf.refused and shelf.newest is None:
        reasons = ", ".join(f"{name} {n:,}" for name, n in sorted(shelf.refused.items()))
        raise StreamError(
            f"no weights of training {training.training} can be used: {reasons}",
            where=where,
            hint="they are torn, of other observations, or written by another version of streambot",
        )
    if shelf.newest is None:
        raise TopicError(
            f"training {training.training} has not published weights yet",
            where=where,
            hint="its learner publishes the first ones as soon as it runs",
        )
    raise TopicError(
        f"training {training.training} has no weights {sequence} (any more)",
        where=where,
        hint=f"{shelf.there}; streambot policy pin keeps weights",
    )


class Pinned(NamedTuple):
    """Weights that are pinned. `new`: they were not before."""

    weights: Published
    new: bool


async def pin(log: Log, topic: str, sequence: int | None) -> Pinned | None:
    """Keep weights under a key of their own; None: no training is declared there.

    Args:
        log: where it is.
        topic: its `runs` stream.
        sequence: of the weights; None: the newest.

    Raises:
        TopicError: the weights are not there; or others are pinned as that number.
        StreambotError: the log is gone, or refuses.
    """
    shelf = await look(log, topic, sequence)
    if shelf is None:
        return None
    found = asked_of(shelf, sequence)
    there = shelf.pins.get(found.sequence)
    if there is not None:
        if sequence is None and there.head.digest != found.head.digest:
            raise TopicError(
                f"other weights are pinned as {found.sequence} already (digest "
                f"{there.head.digest}, not {found.head.digest})",
                where=shelf.training.topics[POLICY],
                hint="the training was taken back to an earlier update and has come there again",
            )
        return Pinned(there, new=False)
    for _ in range(_LOOKS):
        await _write(log, shelf.training, found)
        # A newer generation takes over the pins of the one before, as they were when it was opened.
        after = await look(log, topic, found.sequence)
        if after is None or found.sequence in after.pins:
            return Pinned(found._replace(pinned=True), new=True)
        shelf = after
    raise TopicError("the stream changes faster than a pin is kept", where=topic)


async def _write(log: Log, training: Training, weights: Published) -> None:
    sink = await log.sink()
    try:
        await sink.append(
            training.topics[POLICY], 0, weights.value, timestamp_ms=weights.at_ms,
            key=f"{training.policy}@{weights.sequence}".encode(),
        )  # fmt: skip
        await sink.flush()
    finally:
        await sink.close()


class Declared(NamedTuple):
    """The trainings of a namespace, by name; and those whose declaration cannot be read, and why."""

    trainings: dict[str, Training]
    unreadable: dict[str, str]


async def declared_trainings(log: Log, namespace: str) -> Declared:
    """All trainings that are declared in a namespace."""
    there = await log.streams()
    head = f"{namespace}."
    found = Declared({}, {})
    for topic in sorted(there):
        name = topic.removeprefix(head).removesuffix(_RUNS)
        weights = f"{head}{name}.{POLICY}"
        if topic != f"{head}{name}{_RUNS}" or not any(
            other == weights or other.startswith(f"{weights}.g") for other in there
        ):
            continue  # a run has no weights
        try:
            training = await read_training(log, topic)
        except StreamError as error:
            found.unreadable[name] = error.message
        else:
            if training is not None:
                found.trainings[name] = training
    return found


def read_seen(folder: Path) -> SeenHead:
    """What the checkpoint in a folder says of itself.

    Raises:
        DataError: there is none.
    """
    path = folder / CHECKPOINT
    try:
        if path.stat().st_size > _MOST_HEAD_BYTES:
            raise DataError("no checkpoint: its head is too large", where=str(path))
        return msgspec.json.decode(path.read_bytes(), type=SeenHead)
    except OSError as cause:
        raise DataError(
            f"no checkpoint: {cause.strerror or cause}", where=str(path),
            hint="a folder that `train` or `meta-train` wrote",
        ) from cause  # fmt: skip
    except msgspec.MsgspecError as cause:
        raise DataError(f"no checkpoint: {cause}", where=str(path)) from cause
