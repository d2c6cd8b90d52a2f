"""A replay of small windows into the in-process log, for the tests of the service."""

import asyncio
import contextlib

from streambot.domain.replay_settings import MAX_SPEED, Gaps
from streambot.replay.backlog import Backlog
from streambot.replay.framing import Framing
from streambot.replay.service import Published, ReplayService
from streambot.streams.frame import decode_frame
from streambot.streams.memory import MemoryLog
from streambot.streams.ports import StreamSpec, TopicPartition
from streambot.streams.sequence import FrameChain, SequenceGuard
from tests.unit.replay.windows import STEP, make_window

RUN = b"r" * 16
TICKS = "sb.r.ticks"
KEEP = Gaps(None)


class FakeClock:
    """Time that passes only where someone waits, and a little at every look."""

    def __init__(self) -> None:
        self.time = 0

    def now(self) -> int:
        self.time += 1_000
        return self.time

    async def wait_until(self, due: int, wake: asyncio.Event) -> None:
        await asyncio.sleep(0)
        if not wake.is_set():
            self.time = max(self.time, due)


class Bench:
    """A replay of small windows into the in-process log."""

    def __init__(
        self, windows, *, instruments=2, partitions=2, speed=MAX_SPEED, gaps=KEEP, clock=None,
        run=RUN, owner=None, successor=None, **limits,
    ):  # fmt: skip
        self.run = run
        self.partitions = partitions
        self.instruments = instruments
        self.owner = owner or [i % partitions for i in range(instruments)]
        self.published: list[Published] = []
        self.backlog = Backlog(**limits)
        self.log = MemoryLog()
        self.chains = [FrameChain(run, p, instruments) for p in range(partitions)]
        self.windows = iter(windows)
        self.speed = speed
        self.gaps = gaps
        self.clock = clock or FakeClock()
        self.successor = successor
        self.service: ReplayService | None = None
        self.hook = None
        self.asked = 0
        self.noted: list[tuple[int, ...]] = []

    async def open(self, **framing) -> ReplayService:
        await self.log.create([StreamSpec(name=TICKS, partitions=self.partitions)])
        self.service = ReplayService(
            windows=self.windows,
            framing=Framing(self.owner, self.partitions, **framing),
            chains=self.chains,
            sink=await self.log.sink(),
            stream=TICKS,
            speed=self.speed,
            gaps=self.gaps,
            backlog=self.backlog,
            clock=self.clock,
            on_published=self.on_published,
            successor=self.successor,
            wall=self.wall,
        )
        return self.service

    def command(self, kind, **fields):
        """A command with an id of its own."""
        self.asked += 1
        return kind(id=f"c{self.asked}", sender="test", number=self.asked, **fields)

    def ask(self, kind, **fields):
        """Give the service a command; a future of its acknowledgement."""
        return self.service.apply(self.command(kind, **fields))

    def wall(self) -> int:
        """Called when a command is answered: `at` finds what was published by then in `noted`."""
        counts = [0] * self.partitions
        for frame in self.published:
            counts[frame.partition] += 1
        self.noted.append(tuple(counts))
        return len(self.noted) - 1

    def on_published(self, published: Published) -> None:
        self.published.append(published)
        if self.hook is not None:
            self.hook(published)

    async def frames(self, partition: int) -> list:
        """What the partition holds, checked frame by frame."""
        place = TopicPartition(TICKS, partition)
        source = await self.log.source({place: "beginning"})
        guard = SequenceGuard(TICKS, self.run, partition)
        frames = []
        while records := await source.read(timeout_s=0):
            for record in records:
                frame = decode_frame(record.value, self.run, partition, self.instruments)
                assert guard.accept(frame)
                frames.append(frame)
        return frames

    async def keep_up(self) -> None:
        """An engine that is through with every frame at once."""
        seen = 0
        while True:
            await asyncio.sleep(0)
            for published in self.published[seen:]:
                seen += 1
                self.backlog.processed(1, published.size)


def run_of(n: int, per_window: int = 10, step: int = 60 * STEP):
    return [make_window(k * per_window, [[4, 4]] * per_window, step=step) for k in range(n)]


async def keeping_up(bench: Bench, work):
    engine = asyncio.create_task(bench.keep_up())
    try:
        return await work
    finally:
        engine.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await engine


def barriers_closed(frames) -> int:
    """Barriers that those frames of a partition close; they end at a closed one."""
    assert not frames or frames[-1].barrier_hi == frames[-1].barrier_lo + len(frames[-1].closes) - 1
    return sum(len(frame.closes) for frame in frames)
