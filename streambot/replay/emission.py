"""Frames on their way into the log, and where each partition stands behind the last one handed over.

Frames are numbered and hashed before they are published, so what is encoded may be ahead. Only what
was handed over counts: END frames, and whoever encodes anew, go on from `states` and `positions`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from streambot.replay.framing import Draft, Position
from streambot.replay.resumption import progress_headers
from streambot.streams.ports import event_time_ms
from streambot.streams.sequence import ChainState, FrameChain

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Container, Sequence

    from streambot.replay.backlog import Backlog
    from streambot.replay.clock import Clock
    from streambot.streams.ports import Sink

MAX_UNACKNOWLEDGED = 256


class Published(NamedTuple):
    """A frame that was handed to the log.

    Attributes:
        at: clock time of the emission, ns.
        late_ns: emission minus schedule, ns; None for a frame that had no due time: at full speed,
            in a step, and what completes an interval for a command or a stop.
        t_hi: the frame's watermark, event time.
    """

    partition: int
    frame_seq: int
    rows: int
    size: int
    t_hi: int
    at: int
    late_ns: int | None


class Encoded(NamedTuple):
    """A frame, ready to be published.

    Attributes:
        state, position: of the partition behind it.
        closed_at: close of the last barrier that it closes, UTC ns; None where it closes none.
    """

    partition: int
    rows: int
    value: bytes
    state: ChainState
    position: Position
    closed_at: int | None


def encode(chain: FrameChain, draft: Draft) -> Encoded:
    """Number and hash a frame."""
    value = chain.data(draft.closes, draft.ticks, t_lo=draft.t_lo, t_hi=draft.t_hi)
    closed_at = int(draft.closes[-1]) if len(draft.closes) else None
    return Encoded(draft.partition, len(draft.ticks), value, chain.state, draft.after, closed_at)


class Emission:
    """Hands frames to the log.

    Args:
        chains: where each partition starts, in order.
        positions: the same in barriers and rows.
        sink: where the frames go.
        stream: the topic of the ticks.
        backlog: how far the engine is behind.
        clock: wall time.
        on_published: told about every frame.
        complete: partitions whose stream has its END already (of a resumed run).

    Attributes:
        states, positions: where each partition stands.
    """

    def __init__(
        self,
        chains: Sequence[FrameChain],
        positions: Sequence[Position],
        *,
        sink: Sink,
        stream: str,
        backlog: Backlog,
        clock: Clock,
        on_published: Callable[[Published], None],
        complete: Container[int] = (),
    ) -> None:
        self.states = [chain.state for chain in chains]
        self.positions = list(positions)
        self._chains = chains
        self._sink = sink
        self._stream = stream
        self._backlog = backlog
        self._clock = clock
        self._on_published = on_published
        self._stored: deque[asyncio.Future[int]] = deque()
        self._closed_at = [None if p.rows else s.t_hi for s, p in self._where()]
        self._going = [p for p in range(len(chains)) if p not in complete]

    def chains(self) -> list[FrameChain]:
        """Writers that go on behind what was published."""
        return [
            FrameChain(chain.run, chain.partition, chain.n_instruments, state=state)
            for chain, state in zip(self._chains, self.states, strict=True)
        ]

    @property
    def frontier(self) -> int:
        """The first barrier at which all partitions can meet: none may go back."""
        return max((self._reach(p) for p in self._going), default=self.barrier)

    @property
    def aligned(self) -> bool:
        """Every partition has closed the same barriers, and published nothing behind them."""
        meeting = self.frontier
        return all(self.positions[p] == (meeting, 0) for p in self._going)

    @property
    def barrier(self) -> int:
        """Barriers that every partition has closed."""
        return min(position.barrier for position in self.positions)

    @property
    def event_time(self) -> int | None:
        """Close of the last of them, UTC ns; None before the first."""
        last = self.barrier
        return max(
            (
                at
                for at, position in zip(self._closed_at, self.positions, strict=True)
                if position.barrier == last and at is not None
            ),
            default=None,
        )

    async def append(self, frame: Encoded, *, due: int | None) -> None:
        """Publish a frame; waits while the engine or the log is too far behind."""
        await self._backlog.room()
        t_hi = frame.state.t_hi or 0
        at = self._clock.now()
        self._on_published(
            Published(
                partition=frame.partition,
                frame_seq=frame.state.frame_seq - 1,
                rows=frame.rows,
                size=len(frame.value),
                t_hi=t_hi,
                at=at,
                late_ns=None if due is None else at - due,
            )
        )
        self._backlog.published(len(frame.value))
        self.states[frame.partition] = frame.state
        self.positions[frame.partition] = frame.position
        if frame.closed_at is not None:
            self._closed_at[frame.partition] = frame.closed_at
        stored = await self._sink.append(
            self._stream,
            frame.partition,
            frame.value,
            timestamp_ms=event_time_ms(t_hi),
            headers=progress_headers(frame.state, frame.position),
        )
        self._stored.append(stored)
        while self._stored and (self._stored[0].done() or len(self._stored) > MAX_UNACKNOWLEDGED):
            await self._stored.popleft()

    async def end(self) -> None:
        """Write END, with the totals of what was published, into every partition that has none."""
        chains = self.chains()
        for partition in self._going:
            value = chains[partition].end()
            state, position = chains[partition].state, self.positions[partition]
            await self.append(Encoded(partition, 0, value, state, position, None), due=None)

    async def stored(self) -> None:
        """Wait until everything handed over is stored."""
        while self._stored:
            await self._stored.popleft()

    def _where(self) -> zip[tuple[ChainState, Position]]:
        return zip(self.states, self.positions, strict=True)

    def _reach(self, partition: int) -> int:
        barrier, rows = self.positions[partition]
        return barrier + (rows > 0)
