"""A run on a log that lasts goes on behind what the log holds: nothing twice, nothing missing."""

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from streambot.domain.replay_settings import Gaps, Speed
from streambot.engine.scripts import Script
from streambot.processor import runner as runner_module
from streambot.processor.journal import event_digest
from streambot.processor.outputs import OUTPUTS
from streambot.processor.runner import EngineRunner
from streambot.processor.stream_files import StreamFiles
from streambot.processor.task import TaskCore
from streambot.processor.worker import TaskIdentity
from streambot.replay.backlog import Backlog
from streambot.replay.framing import Framing
from streambot.replay.service import MonotonicClock, ReplayService
from streambot.streams.frame import FrameKind, decode_frame
from streambot.streams.memory import MemoryLog
from streambot.streams.ports import StreamSpec, TopicPartition
from streambot.streams.sequence import FrameChain, SequenceGuard
from streambot.wiring.places import Place
from streambot.wiring.starts import FILES, cut_files, load_snapshots, new_starts, resumed_starts
from tests.unit.processor.market import Market

TOPICS = {s: f"sb.run.{s}" for s in ("ticks", *FILES)}


class FakePrepared(NamedTuple):
    context: dict
    agent: object


class Lasting:
    """A log, and processes that come and go."""

    def __init__(self, folder, market: Market, partitions: int = 2):
        self.folder = folder
        (folder / "state").mkdir()
        self.market = market
        self.manifest = market.manifest(partitions=partitions)
        self.prepared = FakePrepared({}, Script.RANDOM)
        self.log = MemoryLog()
        self.starts = []

    async def open(self):
        partitions = self.manifest.partitions
        await self.log.create([StreamSpec(name=n, partitions=partitions) for n in TOPICS.values()])

    async def process(self, *, resumed: bool, crash_after: int | None, speed: int = 30_000) -> bool:
        """One process: runs until END, or is gone after so many processed frames."""
        m = self.manifest
        place = Place(self.log, "here", False, True, True, False, "")
        snapshots = load_snapshots(self.folder, m) if resumed else None
        lines = cut_files(self.folder, m, snapshots) if resumed else None
        files = StreamFiles(self.folder, FILES, m.partitions, lines=lines)
        starts = (
            await resumed_starts(self.prepared, m, snapshots, self.folder, place, TOPICS)
            if resumed
            else new_starts(self.prepared, m)
        )
        self.starts = starts
        backlog = Backlog()
        crashed = asyncio.Event()
        count = 0

        def processed(frame) -> None:
            nonlocal count
            backlog.processed(1, frame.size)
            count += 1
            if count == crash_after:
                crashed.set()

        executor = ThreadPoolExecutor(2)
        runners = [
            EngineRunner(
                who=TaskIdentity(m.run, m.run_id, p, len(m.instruments)),
                core=start.core,
                guard=SequenceGuard(TOPICS["ticks"], m.run_id, p, state=start.reader),
                source=await self.log.source({TopicPartition(TOPICS["ticks"], p): start.offset}),
                offset=0 if start.offset == "beginning" else start.offset,
                sink=await self.log.sink(),
                topics=TOPICS,
                files=files,
                folder=self.folder,
                executor=executor,
                on_processed=processed,
                on_stored=lambda *_: None,
                written=start.written,
            )
            for p, start in enumerate(starts)
        ]
        waiting = [s.position.barrier for s in starts if not s.replayed]
        service = ReplayService(
            windows=self.market.windows(from_barrier=min(waiting)) if waiting else iter(()),
            framing=Framing(m.partition_of, m.partitions, start=[s.position for s in starts]),
            chains=[
                FrameChain(m.run_id, p, len(m.instruments), state=s.writer)
                for p, s in enumerate(starts)
            ],
            sink=await self.log.sink(),
            stream=TOPICS["ticks"],
            speed=Speed(speed),
            gaps=Gaps(None),
            backlog=backlog,
            clock=MonotonicClock(),
            on_published=lambda _: None,
            complete={p for p, s in enumerate(starts) if s.replayed},
        )
        work = [
            service.run(),
            *(r.run() for r, s in zip(runners, starts, strict=True) if not s.ended),
        ]
        tasks = [asyncio.create_task(w) for w in work]
        watch = asyncio.create_task(crashed.wait())
        everything = asyncio.gather(*tasks)
        await asyncio.wait((everything, watch), return_when=asyncio.FIRST_COMPLETED)
        done = everything.done()
        if done:
            everything.result()
        for task in (*tasks, watch):
            task.cancel()
        for task in (*tasks, watch):
            with contextlib.suppress(asyncio.CancelledError):
                await task
        executor.shutdown()
        files.close() if done else files._close_all()
        return done

    async def values(self, stream: str, partition: int) -> list:
        source = await self.log.source({TopicPartition(TOPICS[stream], partition): "beginning"})
        found = []
        while records := await source.read(timeout_s=0):
            found += records
        return found


@pytest.fixture
def market():
    return Market(bars=150)


async def reference(tmp_path_factory, market) -> Lasting:
    whole = Lasting(tmp_path_factory.mktemp("whole"), market)
    await whole.open()
    assert await whole.process(resumed=False, crash_after=None)
    return whole


@pytest.mark.parametrize("crashes", [[5], [37], [60, 3, 80], [1, 1, 200]])
async def test_crashes_leave_one_log_without_gaps_and_without_repeats(
    tmp_path, tmp_path_factory, market, crashes, monkeypatch
):
    monkeypatch.setattr(runner_module, "SNAPSHOT_EVERY_NS", 5_000_000)
    other = await reference(tmp_path_factory, market)
    mine = Lasting(tmp_path, market)
    await mine.open()
    done = False
    for n, crash in enumerate(crashes):
        done = await mine.process(resumed=n > 0, crash_after=crash)
    if not done:
        assert await mine.process(resumed=True, crash_after=None, speed=100_000)
    for partition in range(2):
        guard = SequenceGuard("ticks", mine.manifest.run_id, partition)
        frames = [
            decode_frame(r.value, mine.manifest.run_id, partition, 5)
            for r in await mine.values("ticks", partition)
        ]
        assert all(guard.accept(frame) for frame in frames)
        assert [f.kind for f in frames].count(FrameKind.END) == 1
        for stream in OUTPUTS:
            numbers = [
                int(dict(r.headers)["frame_seq"]) for r in await mine.values(stream, partition)
            ]
            assert numbers == sorted(set(numbers)), stream
        for stream in ("fills", "pnl"):
            ours = b"".join(r.value for r in await mine.values(stream, partition))
            theirs = b"".join(r.value for r in await other.values(stream, partition))
            assert sorted(ours.splitlines()) == sorted(theirs.splitlines())
    for stream in ("fills", "pnl"):
        ours = (mine.folder / f"{stream}.ndjson").read_bytes().splitlines()
        theirs = (other.folder / f"{stream}.ndjson").read_bytes().splitlines()
        assert sorted(ours) == sorted(theirs)
    digests = [
        event_digest({k: v for s in bench.starts for k, v in s.core.digest.parts().items()})
        for bench in (mine, other)
    ]
    assert digests[0] == digests[1]


async def test_a_run_that_had_ended_has_nothing_left_to_do(tmp_path, market):
    mine = Lasting(tmp_path, market)
    await mine.open()
    assert await mine.process(resumed=False, crash_after=None, speed=200_000)
    before = await mine.log.end_offsets(TOPICS["ticks"])
    assert await mine.process(resumed=True, crash_after=None)
    assert all(start.ended for start in mine.starts)
    assert await mine.log.end_offsets(TOPICS["ticks"]) == before


def test_a_core_restored_from_its_snapshot_is_the_same(market):
    core = TaskCore(market.manifest(), 0, {}, Script.RANDOM)
    again = TaskCore.restore(market.manifest(), 0, {}, Script.RANDOM, core.snapshot())
    assert again.status() == core.status()
