"""Feeds a replay with the commands of its `control` stream, and answers on its `status` stream.

Anybody who may write to the topic writes here, so nothing in it can end a run: what is no command is
counted and told. A command that comes again under its id is answered again, and applied once; one
that is older than what its sender has had applied is refused.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from streambot.domain.errors import DecodeError
from streambot.streams.control import (
    Acknowledgement,
    Command,
    decode_command,
    encode_acknowledgement,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from streambot.streams.ports import Record, Sink, Source

TOLD = 5
"""So many records that are no commands are told one by one; all are counted."""
_SENDERS = 1_024
_READ_RECORDS = 16
_READ_TIMEOUT_S = 1.0
_NANOS_PER_MS = 1_000_000


class Commanded(Protocol):
    """What commands go to: `ReplayService`."""

    def apply(self, command: Command) -> asyncio.Future[Acknowledgement]:
        """Do it."""

    def refuse(self, command: Command, reason: str) -> asyncio.Future[Acknowledgement]:
        """Do not do it, and say why."""


class CommandStream:
    """The commands of one run.

    Args:
        replay: what they go to.
        source: of the control stream, from its end on.
        sink: writes the status stream.
        status: topic of the status stream.
        told: what people should know.

    Attributes:
        undecodable: records that were no commands.
    """

    def __init__(
        self,
        replay: Commanded,
        *,
        source: Source,
        sink: Sink,
        status: str,
        told: Callable[[str], None],
    ) -> None:
        self._replay = replay
        self._source = source
        self._sink = sink
        self._status = status
        self._told = told
        self._numbers: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._answering: set[asyncio.Task[None]] = set()
        self.undecodable = 0

    async def run(self) -> None:
        """Work until cancelled.

        Raises:
            BrokerError: the log is gone.
        """
        while True:
            for record in await self._source.read(
                max_records=_READ_RECORDS, timeout_s=_READ_TIMEOUT_S
            ):
                command = self._decoded(record)
                if command is not None:
                    self._take(command)

    def give(self, command: Command) -> asyncio.Future[Acknowledgement]:
        """A command of this process: it is acknowledged on the status stream like any other."""
        return self._answer_later(self._replay.apply(command))

    async def settle(self) -> None:
        """Wait until what was answered is stored. The replay has ended: it keeps nobody waiting."""
        await asyncio.gather(*self._answering)
        await self._sink.flush()

    def _decoded(self, record: Record) -> Command | None:
        try:
            return decode_command(record.value)
        except DecodeError as failure:
            self.undecodable += 1
            if self.undecodable <= TOLD:
                place = f"{record.stream}/{record.partition}/{record.offset}"
                words = "".join(c if c.isprintable() else "?" for c in failure.message)
                self._told(f"{place} is no command, and is ignored: {words}")
            return None

    def _take(self, command: Command) -> None:
        before, last_id = self._numbers.pop(command.sender, (-1, ""))
        if command.number <= before and command.id != last_id:
            self._numbers[command.sender] = before, last_id
            reason = f"command {command.number} comes after command {before} of the same sender"
            self._answer_later(self._replay.refuse(command, reason))
            return
        self._numbers[command.sender] = command.number, command.id
        while len(self._numbers) > _SENDERS:
            self._numbers.popitem(last=False)
        self._answer_later(self._replay.apply(command))

    def _answer_later(
        self, answer: asyncio.Future[Acknowledgement]
    ) -> asyncio.Future[Acknowledgement]:
        task = asyncio.get_running_loop().create_task(self._answer(answer))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        return answer

    async def _answer(self, answer: asyncio.Future[Acknowledgement]) -> None:
        said = await answer
        await self._sink.append(
            self._status, 0, encode_acknowledgement(said), timestamp_ms=said.at // _NANOS_PER_MS
        )
