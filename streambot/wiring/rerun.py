"""A run done again in this process: frames through its tasks, without a broker, files or clocks.

What comes out are the bytes of `fills` and `pnl`, in the order of each instrument. Whoever compares
needs nothing of the machinery that carried the run out the first time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.engine.ordering import SlotContext
from streambot.engine.scripts import Script
from streambot.processor.agents import StrategyFactory
from streambot.processor.journal import STREAMS
from streambot.processor.manifest import RunManifest
from streambot.processor.playback import RecordedOrders
from streambot.replay.framing import MAX_ROWS, Framing
from streambot.replay.pacing import GapClock
from streambot.streams.frame import FrameKind, decode_frame
from streambot.streams.sequence import FrameChain
from streambot.wiring.tasks import make_core

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from streambot.data.recorded import RecordedRun
    from streambot.processor.task import TaskCore
    from streambot.replay.framing import Draft, WindowLike
    from streambot.streams.frame import Frame


class Tasks(NamedTuple):
    """What the tasks of a run are made of.

    Attributes:
        agent: None: nobody gives orders.
    """

    manifest: RunManifest
    context: Mapping[str, SlotContext]
    agent: Script | StrategyFactory | RecordedOrders | None

    def core(self, partition: int) -> TaskCore:
        """A new task."""
        # Orders of agents outside are recorded ones here: for the task they come from inside.
        inside = self.manifest
        if inside.agents:
            inside = msgspec.structs.replace(inside, agents=(), free_run=False)
        return make_core(inside, partition, self.context, self.agent, None)


class Rerun:
    """Does a run again.

    Args:
        tasks: of the run.

    Attributes:
        frames, rows: so far.
    """

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self.frames = self.rows = 0

    def over_recorded(
        self, recorded: RecordedRun, most: Sequence[int | None]
    ) -> Iterator[tuple[str, bytes]]:
        """Stream and lines, over the frames that were recorded, partition by partition.

        Args:
            recorded: the ticks.
            most: frames of each partition that count; None: all.

        Raises:
            StreamError: a frame is missing, or was altered.
        """
        with recorded.open() as values:
            for partition in range(recorded.partitions):
                core, limit = self._tasks.core(partition), most[partition]
                for frame in recorded.frames(partition, values[partition]):
                    if limit is not None and frame.frame_seq >= limit:
                        break
                    yield from self._run(core, frame)

    def over_windows(
        self,
        windows: Iterable[WindowLike],
        *,
        max_rows: int = MAX_ROWS,
        spans: Sequence[int] = (),
    ) -> Iterator[tuple[str, bytes]]:
        """Stream and lines, over windows cut into frames of this process's own.

        Args:
            windows: of the run, in order.
            max_rows: rows in a frame, at most.
            spans: event time of one frame after the other, ns, over and over: frames end inside
                intervals, as those of a paced replay do. None: whole intervals.
        """
        manifest = self._tasks.manifest
        width = len(manifest.instruments)
        framing = Framing(manifest.partition_of, manifest.partitions, max_rows=max_rows)
        partitions = range(manifest.partitions)
        chains = [FrameChain(manifest.run_id, p, width) for p in partitions]
        cores = [self._tasks.core(p) for p in partitions]

        def sent(drafts: Iterable[Draft]) -> Iterator[tuple[str, bytes]]:
            for draft in drafts:
                p = draft.partition
                data = chains[p].data(draft.closes, draft.ticks, t_lo=draft.t_lo, t_hi=draft.t_hi)
                yield from self._run(cores[p], decode_frame(data, manifest.run_id, p, width))

        clock, count = GapClock(None), 0
        for window in windows:
            frames = framing.open(window)
            if not spans:
                yield from sent(frames.all())
                continue
            frames.schedule(clock)
            while (batch := frames.due(spans[count % len(spans)])) is not None:
                yield from sent(batch.drafts)
                count += 1
        for p in partitions:
            end = decode_frame(chains[p].end(), manifest.run_id, p, width)
            yield from self._run(cores[p], end)

    def _run(self, core: TaskCore, frame: Frame) -> Iterator[tuple[str, bytes]]:
        if frame.kind is FrameKind.CONTROL:
            return
        self.frames += 1
        self.rows += len(frame.ticks)
        output = core.finish() if frame.kind is FrameKind.END else core.step(frame)
        for stream, lines in zip(STREAMS, (output.fills, output.pnl), strict=True):
            if lines:
                yield stream, lines
