"""The files of a run as what its topics hold: written behind every commit, filled up after a crash.

On a log with transactions the topics are the truth. A line is in a file only once it is committed,
so a file lacks lines at most, and only at the end of a partition's: a restart reads the topics once,
adds what is missing, and takes the event digest along.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from streambot.processor.outputs import DEAD_LETTER
from streambot.streams.dead_letter import buried_line
from streambot.streams.reading import read_to_end

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from streambot.processor.open_task import Committed
    from streambot.processor.snapshot import TaskSnapshot
    from streambot.processor.stream_files import StreamFiles
    from streambot.processor.task import TaskCore
    from streambot.streams.ports import Log, Record
    from streambot.wiring.watching import Watch

_DIGESTED = ("fills", "pnl")


class Projection:
    """Writes the files of a run from what its tasks commit.

    Args:
        log: where the topics are.
        topics: full name of every stream.
        files: of the run.
        watch: told what became visible.
        streams: those that have a file.
        announce: told the bytes that a restart found in a topic and not in its file.
    """

    def __init__(
        self,
        log: Log,
        topics: Mapping[str, str],
        files: StreamFiles,
        watch: Watch,
        streams: tuple[str, ...],
        announce: Callable[[str, int, bytes], None],
    ) -> None:
        self._log = log
        self._topics = topics
        self._files = files
        self._watch = watch
        self._streams = streams
        self._announce = announce

    def committed(self, done: Committed) -> None:
        """A transaction is visible."""
        at = time.monotonic_ns()
        for record in done.records:
            if record.stream in self._streams:
                self._files.append(record.stream, done.partition, record.line, record.lines)
        for frame in done.frames:
            self._watch.processed(frame)
            self._watch.stored(frame.partition, frame.frame_seq, at)

    async def opened(self, core: TaskCore, restored: TaskSnapshot | None) -> None:
        """A task starts at a state: bring files and digest there."""
        if restored is None:
            return
        for stream in self._streams:
            await self._fill(stream, core)

    async def _fill(self, stream: str, core: TaskCore) -> None:
        partition = core.partition
        have = self._files.lines_of(partition)[stream]
        # A core that starts from its first frame again makes these lines, and their digest, anew.
        digested = stream in _DIGESTED and core.started
        seen = 0
        async for batch in read_to_end(self._log, self._topics[stream], {partition: "beginning"}):
            for record in batch:
                lines = _lines(stream, record)
                if digested:
                    core.digest.read(stream, lines)
                new = lines[max(0, have - seen) :]
                seen += len(lines)
                if new:
                    data = b"".join(new)
                    self._files.append(stream, partition, data, len(new))
                    self._announce(stream, partition, data)


def _lines(stream: str, record: Record) -> list[bytes]:
    if stream == DEAD_LETTER:
        return [buried_line(record)]
    return record.value.splitlines(keepends=True)
