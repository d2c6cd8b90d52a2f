"""One task of the exactly-once runner over any log: its frames, its attempts, what readers see."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256

from streambot.domain.events import OrdersThrough
from streambot.engine.scripts import Script
from streambot.processor.exactly_once import ExactlyOnceRunner
from streambot.processor.outputs import WRITTEN
from streambot.processor.outside import FreeRun, Lockstep, Outsiders
from streambot.processor.task import TaskCore
from streambot.processor.task_opening import TaskPlan
from streambot.processor.worker import TaskIdentity
from streambot.replay.framing import Framing
from streambot.streams.orders import decode_orders, encode_orders
from streambot.streams.ports import StreamSpec
from streambot.streams.reading import read_to_end
from streambot.streams.sequence import FrameChain
from tests.unit.processor.market import Market

STREAMS = ("ticks", *WRITTEN, "state")


def frames_of(market: Market, manifest, partition: int, *, max_rows: int = 60) -> list[bytes]:
    """All frames of a partition, END included."""
    framing = Framing(manifest.partition_of, manifest.partitions, max_rows=max_rows)
    chain = FrameChain(manifest.run_id, partition, len(manifest.instruments))
    out = []
    for window in market.windows():
        out += [
            chain.data(draft.closes, draft.ticks, t_lo=draft.t_lo, t_hi=draft.t_hi)
            for draft in framing.open(window).all()
            if draft.partition == partition
        ]
    return [*out, chain.end()]


def cut_frames(market: Market, manifest, partition: int, rng) -> list[bytes]:
    """The same rows and closes, cut anywhere: inside intervals too."""
    from streambot.replay.pacing import GapClock

    framing = Framing(manifest.partition_of, manifest.partitions)
    chain = FrameChain(manifest.run_id, partition, len(manifest.instruments))
    gaps, out = GapClock(None), []
    for window in market.windows():
        cutting = framing.open(window)
        cutting.schedule(gaps)
        while (batch := cutting.due(int(rng.integers(1, 150_000_000_000)))) is not None:
            out += [
                chain.data(draft.closes, draft.ticks, t_lo=draft.t_lo, t_hi=draft.t_hi)
                for draft in batch.drafts
                if draft.partition == partition
            ]
    return [*out, chain.end()]


def in_lockstep(values: list[bytes], partition: int = 0) -> bytes:
    """What one agent answers in lockstep to repeat what a free run accepted, whoever ordered."""
    lines = [line for value in values for line in decode_orders(value, partition)]
    taken = [order for line in lines for order in line.orders]
    orders = tuple(sorted(taken, key=lambda order: order.barrier))
    line = OrdersThrough(agent="me", partition=partition, through_barrier=1_000, orders=orders)
    return encode_orders([line])


class TaskBench:
    """A run of one partition on a log with transactions."""

    def __init__(self, log, market: Market, *, agent=Script.RANDOM, prefix="sb.run", **manifest):
        self.log = log
        self.market = market
        self.agent = agent
        self.manifest = market.manifest(partitions=1, **manifest)
        self.topics = {stream: f"{prefix}.{stream}" for stream in STREAMS}
        self.who = TaskIdentity(
            self.manifest.run, self.manifest.run_id, 0, len(self.manifest.instruments)
        )
        self.committed = []
        self.executor = ThreadPoolExecutor(1)

    async def create(self, frames: list[bytes]) -> None:
        await self.log.create([StreamSpec(name=name) for name in self.topics.values()])
        sink = await self.log.sink()
        for value in frames:
            await sink.append(self.topics["ticks"], 0, value, timestamp_ms=0)
        await sink.close()

    def plan(self, owner: str = "sb.engine.run.0") -> TaskPlan:
        return TaskPlan(
            who=self.who, owner=owner, group=owner, topics=self.topics,
            make_core=self._core, make_orders=self._orders() if self.manifest.agents else None,
            answer_timeout_s=self.manifest.answer_timeout_s,
        )  # fmt: skip

    def runner(self, log=None, kind=ExactlyOnceRunner, **more) -> ExactlyOnceRunner:
        more.setdefault("on_committed", self.committed.append)
        return kind(self.plan(), log or self.log, self.executor, **more)

    def _core(self, state):
        agent = None if self.manifest.agents else self.agent
        if state is None:
            return TaskCore(self.manifest, 0, {}, agent)
        return TaskCore.restore(self.manifest, 0, {}, agent, state)

    def _orders(self):
        symbols = frozenset(i.symbol for i in self.manifest.instruments)
        kind = FreeRun if self.manifest.free_run else Lockstep
        return partial(kind, Outsiders(self.manifest.agents, 0, symbols))

    async def visible(self, stream: str) -> list[tuple]:
        return [
            (record.key, record.value, record.headers, record.timestamp_ms)
            async for batch in read_to_end(self.log, self.topics[stream])
            for record in batch
        ]

    async def digests(self, *streams: str) -> dict[str, str]:
        """Record digest of every output stream, as a reader of committed records sees it."""
        return {
            stream: sha256(repr(await self.visible(stream)).encode()).hexdigest()
            for stream in streams or WRITTEN
        }

    def close(self) -> None:
        self.executor.shutdown()
