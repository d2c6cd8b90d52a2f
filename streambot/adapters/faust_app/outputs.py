"""Where roll-ups are written: `portfolio` and `alerts`, on the broker and in the run's folder.

Lines are numbered by series, and what is there already is not written again: a process that starts
reads what its predecessors wrote, and writes what comes after. A predecessor that still lives, or
wakes up, writes the same lines under the same numbers; a reader that drops numbers it has seen sees
each line once.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from streambot.adapters.faust_app.settings import OUTPUTS
from streambot.domain.errors import DecodeError
from streambot.processor.durable import disk_error
from streambot.processor.stream_files import file_of
from streambot.streams.ports import event_time_ms
from streambot.streams.reading import read_to_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from streambot.report.alerts import RollupLine
    from streambot.streams.ports import Log, Sink

MAX_UNACKNOWLEDGED = 256
_Series = tuple[str, str]


class _Said(msgspec.Struct, gc=False):
    seq: int
    kind: str = ""
    series: str = ""
    currency: str = ""
    since: int = 0


class Lag(msgspec.Struct, frozen=True):
    """What the log has of the series `lag`: number of the next alert, and of what it is not over."""

    seq: int = 0
    since: int | None = None


class Outputs:
    """Writer of a roll-up.

    Args:
        log: where the streams are.
        topics: full name of each output's topic.
        folder: of the run; None: no files.
        told: given every line that is written for the first time.
    """

    def __init__(
        self,
        log: Log,
        topics: Mapping[str, str],
        folder: Path | None,
        told: Callable[[str, bytes], None] | None = None,
    ) -> None:
        self._told = told
        self._log = log
        self._topics = topics
        self._folder = folder
        self._sink: Sink | None = None
        self._waiting: deque[RollupLine] = deque()
        self._stored: deque[asyncio.Future[int]] = deque()
        self._writing = asyncio.Lock()
        self._last: dict[_Series, int] = {}
        self._last_in_files: dict[_Series, int] = {}
        self._decode = msgspec.json.Decoder(_Said).decode
        self.written = 0

    async def look(self) -> Lag:
        """Read what is there: only what comes after it will be written.

        Raises:
            StreambotError: the log or the disk refuses.
        """
        last: dict[_Series, int] = {}
        lag = Lag()
        for stream in OUTPUTS:
            async for batch in read_to_end(self._log, self._topics[stream]):
                lag = self._count(stream, (record.value for record in batch), last, lag)
        self._last = last
        if self._folder is not None:
            self._last_in_files = await asyncio.to_thread(self._look_at_files, self._folder)
        return lag

    def put(self, lines: Iterable[RollupLine]) -> None:
        """Take lines over; `write` writes them."""
        for line in lines:
            series = (line.stream, line.series)
            behind = self._last.get(series, -1)
            if self._folder is not None:
                behind = min(behind, self._last_in_files.get(series, -1))
            if line.seq > behind:
                self._waiting.append(line)

    async def write(self) -> None:
        """Hand over everything that was put, in order; cancelled, it goes on at the next call.

        Raises:
            StreambotError: the log or the disk refuses.
        """
        if not self._waiting:
            return
        async with self._writing:
            if self._sink is None:
                self._sink = await self._log.sink()
            while self._waiting:
                line = self._waiting[0]
                series = (line.stream, line.series)
                if line.seq > self._last.get(series, -1):
                    await self._append(self._sink, line)
                    self._last[series] = line.seq
                    self.written += 1
                    if self._told is not None:
                        self._told(line.stream, line.data)
                if self._folder is not None and line.seq > self._last_in_files.get(series, -1):
                    self._append_to_file(self._folder, line)
                    self._last_in_files[series] = line.seq
                self._waiting.popleft()

    async def flush(self) -> None:
        """Write, and wait until everything is stored."""
        await self.write()
        while self._stored:
            await self._stored.popleft()

    async def _append(self, sink: Sink, line: RollupLine) -> None:
        stored = await sink.append(
            self._topics[line.stream], 0, line.data,
            timestamp_ms=event_time_ms(line.ts_event), key=line.series.encode(),
        )  # fmt: skip
        self._stored.append(stored)
        while self._stored and (self._stored[0].done() or len(self._stored) > MAX_UNACKNOWLEDGED):
            await self._stored.popleft()

    def _count(
        self, stream: str, lines: Iterable[bytes], last: dict[_Series, int], lag: Lag
    ) -> Lag:
        """Last number of each series, and the lag; lines are whole."""
        for line in lines:
            try:
                said = self._decode(line)
            except msgspec.MsgspecError as cause:
                raise DecodeError(
                    f"a line of {stream} is not what a roll-up writes: {cause}",
                    reason="schema", where=self._topics[stream],
                ) from cause  # fmt: skip
            series = (stream, said.series or said.currency)
            # A hole would be a line that was lost under way: from there on they are written again.
            if said.seq == last.get(series, -1) + 1:
                last[series] = said.seq
                if said.series == "lag":
                    lag = Lag(said.seq + 1, said.since if said.kind == "AlertRaised" else None)
        return lag

    def _look_at_files(self, folder: Path) -> dict[_Series, int]:
        last: dict[_Series, int] = {}
        for stream in OUTPUTS:
            path = file_of(folder, stream)
            try:
                data = path.read_bytes() if path.exists() else b""
                whole = data.rfind(b"\n") + 1
                if whole != len(data):
                    os.truncate(path, whole)  # a kill left a part of a line
            except OSError as cause:
                raise disk_error(path, cause) from cause
            self._count(stream, data[:whole].splitlines(), last, Lag())
        return last

    def _append_to_file(self, folder: Path, line: RollupLine) -> None:
        path = file_of(folder, line.stream)
        try:
            with path.open("ab", buffering=0) as file:
                file.write(line.data + b"\n")
        except OSError as cause:
            raise disk_error(path, cause) from cause
