"""The engine runner: everything once, in order, safe on disk, and ended by END alone."""

import asyncio
import base64
import contextlib
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from streambot.domain.errors import SequenceGapError, StrategyError, StreamError
from streambot.engine.scripts import Script
from streambot.processor import runner as runner_module
from streambot.processor.journal import event_digest
from streambot.processor.outputs import DEAD_LETTER, OUTPUTS
from streambot.processor.runner import EngineRunner
from streambot.processor.snapshot import load_snapshot
from streambot.processor.stream_files import StreamFiles, cut_back
from streambot.processor.task import TaskCore
from streambot.processor.worker import TaskIdentity
from streambot.replay.framing import Framing, Position
from streambot.streams.memory import MemoryLog
from streambot.streams.ports import StreamSpec, TopicPartition
from streambot.streams.sequence import ChainState, FrameChain, SequenceGuard
from tests.unit.processor.market import Market

TICKS = "sb.run.ticks"
STREAMS = (*OUTPUTS, DEAD_LETTER)


class Bench:
    """One partition of a run: its frames, its log, its runner."""

    def __init__(self, folder, market: Market, *, agent=Script.RANDOM, partitions=1, partition=0):
        self.folder = folder
        (folder / "state").mkdir(exist_ok=True)
        self.market = market
        self.manifest = market.manifest(partitions=partitions)
        self.partition = partition
        self.agent = agent
        self.log = MemoryLog()
        self.topics = {s: f"sb.run.{s}" for s in STREAMS}
        self.processed = []
        self.stored = []

    def frames(self, *, start: int = 0, max_rows: int = 60) -> list[bytes]:
        """All frames of the partition, END included."""
        m = self.manifest
        positions = [Position(start)] * m.partitions
        framing = Framing(m.partition_of, m.partitions, start=positions, max_rows=max_rows)
        first = ChainState.start(m.run_id, self.partition)
        chain = FrameChain(
            m.run_id, self.partition, len(m.instruments),
            state=ChainState(frame_seq=0, chain=first.chain, rows=0, barrier=start, t_hi=None),
        )  # fmt: skip
        out = []
        for window in self.market.windows(from_barrier=start):
            out += [
                chain.data(draft.closes, draft.ticks, t_lo=draft.t_lo, t_hi=draft.t_hi)
                for draft in framing.open(window).all()
                if draft.partition == self.partition
            ]
        return [*out, chain.end()]

    async def open(self, frames: list[bytes], *, resume=False, sink=True) -> EngineRunner:
        m, p = self.manifest, self.partition
        specs = [
            StreamSpec(name=n, partitions=m.partitions) for n in (TICKS, *self.topics.values())
        ]
        await self.log.create(specs)
        writer = await self.log.sink()
        for value in frames:
            await writer.append(TICKS, p, value, timestamp_ms=0)
        state, lines, core = ChainState.start(m.run_id, p), None, None
        counts = {}
        if resume:
            snapshot = load_snapshot(self.folder, m.run, p)
            limits = {s: [0] * m.partitions for s in STREAMS}
            for s in STREAMS:
                limits[s][p] = snapshot.lines[s]
                cut_back(self.folder, s, limits[s], lambda _: p)
            lines = limits
            core = TaskCore.restore(m, p, {}, self.agent, snapshot.core)
            for stream in ("fills", "pnl"):
                with (self.folder / f"{stream}.ndjson").open("rb") as file:
                    core.digest.read(stream, file)
            state = ChainState(
                frame_seq=0, chain=state.chain, rows=0, barrier=snapshot.barrier, t_hi=None
            )
            counts = {"dead_letters": snapshot.dead_letters, "duplicates": snapshot.duplicates}
        self.files = StreamFiles(self.folder, STREAMS, m.partitions, lines=lines)
        self.executor = ThreadPoolExecutor(1)
        return EngineRunner(
            who=TaskIdentity(m.run, m.run_id, p, len(m.instruments)),
            core=core or TaskCore(m, p, {}, self.agent),
            guard=SequenceGuard(TICKS, m.run_id, p, state=state),
            source=await self.log.source({TopicPartition(TICKS, p): "beginning"}),
            sink=await self.log.sink() if sink else None,
            topics=self.topics,
            files=self.files,
            folder=self.folder,
            executor=self.executor,
            on_processed=self.processed.append,
            on_stored=lambda *args: self.stored.append(args),
            **counts,
        )

    async def records(self, stream: str) -> list:
        source = await self.log.source(
            {TopicPartition(self.topics[stream], self.partition): "beginning"}
        )
        found = []
        while records := await source.read(timeout_s=0):
            found += records
        return found

    def close(self):
        self.files.close()
        self.executor.shutdown()

    def file(self, stream: str) -> bytes:
        return (self.folder / f"{stream}.ndjson").read_bytes()


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path, Market(bars=120))


async def reference(tmp_path_factory, market, **kinds) -> Bench:
    """The undisturbed run."""
    whole = Bench(tmp_path_factory.mktemp("whole"), market, **kinds)
    runner = await whole.open(whole.frames())
    assert await runner.run()
    whole.close()
    whole.runner = runner
    return whole


async def test_every_frame_leads_to_at_most_one_record_a_stream_under_its_number(bench):
    frames = bench.frames()
    runner = await bench.open(frames)
    assert await runner.run()
    bench.close()
    assert [p.frame_seq for p in bench.processed] == list(range(len(frames)))
    for stream in OUTPUTS:
        records = await bench.records(stream)
        assert records, stream
        numbers = [int(dict(r.headers)["frame_seq"]) for r in records]
        assert numbers == sorted(set(numbers))
        # The file holds the very lines of the records.
        assert b"".join(r.value for r in records) == bench.file(stream)
    assert {seq for _, seq, _ in bench.stored} == {
        int(dict(r.headers)["frame_seq"]) for r in await bench.records("fills")
    }
    last = load_snapshot(bench.folder, "run", 0)
    assert last.ended
    assert last.barrier == 120
    assert last.lines["fills"] == bench.file("fills").count(b"\n")
    assert runner.duplicates == runner.dead_letters == 0


async def test_without_a_sink_the_files_hold_the_same(bench, tmp_path_factory):
    other = await reference(tmp_path_factory, bench.market)
    runner = await bench.open(bench.frames(), sink=False)
    assert await runner.run()
    bench.close()
    for stream in OUTPUTS:
        assert bench.file(stream) == other.file(stream)


async def test_repeats_are_dropped_and_counted(bench, tmp_path_factory):
    other = await reference(tmp_path_factory, bench.market)
    frames = [f for frame in bench.frames() for f in (frame, frame)][:-1]
    runner = await bench.open(frames)
    assert await runner.run()
    bench.close()
    assert runner.duplicates == len(frames) // 2
    assert bench.file("fills") == other.file("fills")


async def test_a_missing_frame_stops_the_run_with_what_came_before_it_kept(bench):
    frames = bench.frames()
    runner = await bench.open(frames[:5] + frames[6:])
    with pytest.raises(SequenceGapError) as caught:
        await runner.run()
    bench.close()
    assert (caught.value.partition, caught.value.expected, caught.value.received) == (0, 5, 6)
    assert [p.frame_seq for p in bench.processed] == list(range(5))


async def test_nothing_ends_because_no_data_came(bench, monkeypatch):
    monkeypatch.setattr(runner_module, "READ_TIMEOUT_S", 0.01)
    frames = bench.frames()
    runner = await bench.open(frames[:-1])
    task = asyncio.create_task(runner.run())
    await asyncio.sleep(0.3)
    assert not task.done()
    sink = await bench.log.sink()
    await sink.append(TICKS, 0, frames[-1], timestamp_ms=0)
    assert await asyncio.wait_for(task, 5)
    bench.close()


async def test_an_end_with_other_totals_is_refused(bench):
    frames = bench.frames()
    other = bench.frames(max_rows=30)
    runner = await bench.open([*frames[:-1], other[-1]])
    with pytest.raises(StreamError):
        await runner.run()
    bench.close()


@pytest.mark.parametrize("good_every", [1, 7])
async def test_a_thousand_bad_frames_end_in_the_dead_letters_once_and_nowhere_else(
    bench, tmp_path_factory, rng, good_every
):
    other = await reference(tmp_path_factory, bench.market)
    good = bench.frames()
    bad = []
    while len(bad) < 1_000:
        data = bytearray(good[int(rng.integers(len(good)))])
        kind = rng.integers(4)
        if kind == 0:
            for at in rng.integers(0, len(data), int(rng.integers(1, 4))):
                data[at] ^= int(rng.integers(1, 256))
        elif kind == 1:
            data = data[: int(rng.integers(len(data)))]
        elif kind == 2:
            data += rng.bytes(int(rng.integers(1, 50)))
        else:
            data = bytearray(rng.bytes(int(rng.integers(300))))
        if bytes(data) not in good:
            bad.append(bytes(data))
    mixed, rest = [], list(bad)
    for n, frame in enumerate(good):
        take = len(bad) * (n + 1) // len(good) - (len(bad) - len(rest))
        mixed += rest[:take]
        rest = rest[take:]
        mixed.append(frame)
    runner = await bench.open(mixed)
    assert await runner.run()
    bench.close()
    for stream in OUTPUTS:
        assert bench.file(stream) == other.file(stream)
    assert runner.dead_letters == 1_000
    letters = [json.loads(line) for line in bench.file(DEAD_LETTER).splitlines()]
    assert [base64.b64decode(letter["value"]) for letter in letters] == bad
    assert len({letter["offset"] for letter in letters}) == 1_000
    records = await bench.records(DEAD_LETTER)
    assert [r.value for r in records] == bad
    assert all(dict(r.headers)["reason"] for r in records)


async def test_a_bad_frame_in_the_place_of_a_good_one_stops_the_run_at_the_next(bench):
    frames = bench.frames()
    frames[3] = frames[3][:-1] + bytes([frames[3][-1] ^ 1])
    runner = await bench.open(frames)
    with pytest.raises(SequenceGapError):
        await runner.run()
    bench.close()
    assert runner.dead_letters == 1
    assert bench.file(DEAD_LETTER).count(b"\n") == 1


async def test_a_stop_ends_at_a_closed_barrier_and_a_resumed_run_changes_nothing(
    bench, tmp_path_factory, monkeypatch
):
    monkeypatch.setattr(runner_module, "READ_TIMEOUT_S", 0.01)
    monkeypatch.setattr(runner_module, "READ_RECORDS", 2)
    other = await reference(tmp_path_factory, bench.market)
    runner = await bench.open(bench.frames(max_rows=7))

    def stop_soon(processed):
        if processed.frame_seq == 40:
            runner.stop()

    runner._on_processed = stop_soon
    assert not await runner.run()
    bench.close()
    stopped = load_snapshot(bench.folder, "run", 0)
    assert 0 < stopped.barrier < 120
    # Someone dies while writing more.
    with (bench.folder / "fills.ndjson").open("ab") as file:
        file.write(b'{"kind":"OrderFilled","instrument":"A"}\n{"kin')
    bench.log = MemoryLog()
    again = await bench.open(bench.frames(start=stopped.barrier, max_rows=33), resume=True)
    assert await again.run()
    bench.close()
    for stream in ("fills", "pnl"):
        assert sorted(bench.file(stream).splitlines()) == sorted(other.file(stream).splitlines())
    assert event_digest(again.core.digest.parts()) == event_digest(other.runner.core.digest.parts())
    assert again.core.status() == other.runner.core.status()


async def test_snapshots_are_taken_at_closed_barriers_while_the_run_goes(
    bench, tmp_path_factory, monkeypatch
):
    monkeypatch.setattr(runner_module, "SNAPSHOT_EVERY_NS", 0)
    monkeypatch.setattr(runner_module, "READ_RECORDS", 3)
    other = await reference(tmp_path_factory, bench.market)
    taken = []

    def keep(folder, snapshot):
        taken.append(snapshot)

    monkeypatch.setattr(runner_module, "save_snapshot", keep)
    runner = await bench.open(bench.frames(max_rows=7))
    assert await runner.run()
    bench.close()
    assert len(taken) > 20
    assert [s.barrier for s in taken] == sorted(s.barrier for s in taken)
    for snapshot in taken[:: len(taken) // 5]:
        core = TaskCore.restore(bench.manifest, 0, {}, bench.agent, snapshot.core)
        assert core.manifest == bench.manifest
    assert sorted(bench.file("pnl").splitlines()) == sorted(other.file("pnl").splitlines())


class Broken:
    def __init__(self) -> None:
        self.bars = 0

    def on_bar(self, bar, account):
        self.bars += 1
        if self.bars > 50:
            raise RuntimeError("no idea")
        from streambot.domain.events import HOLD

        return HOLD


async def test_a_strategy_that_raises_stops_the_run_and_names_its_line(tmp_path):
    bench = Bench(tmp_path, Market(bars=120), agent=Broken)
    runner = await bench.open(bench.frames(max_rows=60))
    with pytest.raises(StrategyError, match="no idea") as caught:
        await runner.run()
    bench.close()
    assert "test_runner.py:" in caught.value.where
    assert bench.processed


async def test_a_cancelled_runner_leaves_nothing_running(bench, monkeypatch):
    monkeypatch.setattr(runner_module, "READ_TIMEOUT_S", 0.01)
    runner = await bench.open(bench.frames()[:-1])
    task = asyncio.create_task(runner.run())
    await asyncio.sleep(0.1)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    bench.close()
    assert np.all(np.diff([p.frame_seq for p in bench.processed]) == 1)
