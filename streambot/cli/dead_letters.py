"""Dead letters of a run, from its broker or from its file: which there are, and their bytes.

Nothing is held in memory but what is said of them; the bytes are read again when they are wanted. A
letter is known by where its record stood (stream, partition, offset): one that was buried twice,
before and after a crash, is one letter.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from streambot.cli.console import warn
from streambot.cli.human import place
from streambot.cli.which_broker import (
    IN_PROCESS,
    BrokerPlace,
    KnownRun,
    find_broker,
    open_broker,
)
from streambot.domain.errors import BrokerError, DataError, DecodeError, TopicError, UsageError
from streambot.processor.stream_files import file_of
from streambot.streams.dead_letter import Burial, read_line, stated_burial

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from streambot.domain.config import Resolved
    from streambot.streams.ports import Record

STREAM = "dead-letter"
UNMARKED = "unmarked"
"""Reason of a record that somebody else has put there: it has no headers of a dead letter."""


class Letter(NamedTuple):
    """One dead letter.

    Attributes:
        number: from 1, in the order of stream, partition and offset.
        burial: what is said of it.
        size: of its value, bytes.
        intact: the value is the one that was buried.
    """

    number: int
    burial: Burial
    size: int
    intact: bool

    @property
    def place(self) -> str:
        """`stream/partition/offset` of the record that could not be read."""
        return f"{self.burial.stream}/{self.burial.partition}/{self.burial.offset}"


class Found(NamedTuple):
    """The dead letters of a run.

    Attributes:
        source: where they are: a file, or a topic on a broker.
        repeats: records that bury a letter once more.
    """

    source: Path | TopicAt
    letters: list[Letter]
    repeats: int

    @property
    def shown(self) -> str:
        """The source, for people."""
        if isinstance(self.source, TopicAt):
            return f"{self.source.topic} at {self.source.broker.servers}"
        return place(self.source)


class TopicAt(NamedTuple):
    """A topic on a broker."""

    broker: BrokerPlace
    topic: str


class Buried(NamedTuple):
    """One record of dead letters, with its bytes."""

    burial: Burial
    value: bytes

    @property
    def intact(self) -> bool:
        """True where these are the bytes that were buried."""
        return sha256(self.value).hexdigest() == self.burial.sha256

    @property
    def identity(self) -> tuple[str, int, int]:
        """Where the record stood."""
        return self.burial.stream, self.burial.partition, self.burial.offset


async def find_letters(settings: Resolved, known: KnownRun) -> Found:
    """The dead letters of a run: from its broker where that lives, else from its file.

    Raises:
        StreambotError: there is neither, or one of them is damaged.
    """
    file = file_of(known.path, STREAM)
    if known.record is not None and not _on_broker(settings, known):
        return await _survey(file, settings)
    broker = await find_broker(settings, known)
    topics = known.record.topics if known.record is not None else {}
    topic = topics.get(STREAM, f"{settings.config.namespace}.{known.name}.{STREAM}")
    try:
        return await _survey(TopicAt(broker, topic), settings)
    except BrokerError as failure:
        if known.record is None or settings.origins["bootstrap_servers"].startswith("--"):
            raise
        warn(f"{failure.message}; reading {place(file)}")
        return await _survey(file, settings)


async def read_values(found: Found, settings: Resolved) -> AsyncIterator[tuple[Letter, bytes]]:
    """Every letter with its bytes, each once, in the order in which they are stored.

    To be read to its end.
    """
    wanted = {
        (one.burial.stream, one.burial.partition, one.burial.offset): one for one in found.letters
    }
    async for buried in _read(found.source, settings):
        letter = wanted.pop(buried.identity, None)
        if letter is not None:
            yield letter, buried.value


def _on_broker(settings: Resolved, known: KnownRun) -> bool:
    """True where the run's broker may still have its letters."""
    if settings.origins["bootstrap_servers"].startswith("--"):
        return True
    record = known.record
    if record is None or record.broker == IN_PROCESS or STREAM not in record.topics:
        return False
    return known.living or not record.embedded


async def _survey(source: Path | TopicAt, settings: Resolved) -> Found:
    seen: dict[tuple[str, int, int], tuple[Burial, int, bool]] = {}
    repeats = 0
    async for buried in _read(source, settings):
        if buried.identity in seen:
            repeats += 1
        else:
            seen[buried.identity] = (buried.burial, len(buried.value), buried.intact)
    letters = [Letter(n, *seen[identity]) for n, identity in enumerate(sorted(seen), 1)]
    return Found(source, letters, repeats)


def _read(source: Path | TopicAt, settings: Resolved) -> AsyncIterator[Buried]:
    return _of_topic(source, settings) if isinstance(source, TopicAt) else _of_file(source)


async def _of_file(file: Path) -> AsyncIterator[Buried]:
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):  # it is being written, or a kill has cut it
                    return
                try:
                    yield Buried(*read_line(line))
                except DecodeError as cause:
                    raise DataError(cause.message, where=f"{file}:{number}") from cause
    except FileNotFoundError:
        return


async def _of_topic(at: TopicAt, settings: Resolved) -> AsyncIterator[Buried]:
    from streambot.streams.reading import read_to_end

    async with open_broker(at.broker, settings.config.kafka) as log:
        try:
            async for batch in read_to_end(log, at.topic):
                for record in batch:
                    yield Buried(_burial(record), record.value)
        except TopicError as cause:
            raise UsageError(
                f"{at.broker.servers} has no topic {at.topic}", hint="streambot topics ls"
            ) from cause


def _burial(record: Record) -> Burial:
    try:
        return stated_burial(record)
    except DecodeError as cause:
        return Burial(
            record.stream, record.partition, record.offset, UNMARKED, cause.message,
            sha256(record.value).hexdigest(),
        )  # fmt: skip
