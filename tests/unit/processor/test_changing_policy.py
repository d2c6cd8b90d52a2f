"""A policy that changes while it serves: between two frames, and never what it had answered before."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import numpy as np
import pytest

from streambot.domain.errors import VerificationError
from streambot.domain.events import Action
from streambot.env.settings import make_config
from streambot.env.trader import Decided, Recalled, SlotTraders
from streambot.processor.frame_core import FrameCore
from streambot.processor.mirror import Alone, Asked
from streambot.processor.mirror_orders import OnArrival, OthersInLockstep, Sent
from streambot.processor.outside import Outsiders
from streambot.streams.orders import decode_orders
from tests.trained import EXPERTS, SETTINGS
from tests.unit.processor.actor_bench import Actor, run_beside
from tests.unit.processor.market import Market
from tests.unit.processor.task_bench import cut_frames, frames_of
from tests.unit.processor.test_actor import (
    Weighing,
    _small_steps,  # noqa: F401  # for every test here, too
    bench_of,
    lines,
    repeated,
)

CONFIG = make_config(SETTINGS | {"lookback": 20, "warmup": 10})
ROWS = 24
"""Of a frame, at most: some two bars of each instrument."""
MODES = ["alone", "with another", "free run"]


@pytest.fixture
def market() -> Market:
    return Market("ABC", bars=90)


class Weights:
    """The newest weights there are: a number, with which every answer changes."""

    def __init__(self) -> None:
        self.newest = 1


class Seat:
    """`learning.serving.Seat`, without torch; it notes under which frame it decided with what."""

    experts = EXPERTS

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self.version: int | None = weights.newest

    def next_frame(self) -> None:
        self.version = self._weights.newest

    def decide(self, observation: Any, mask: Any) -> Decided:
        salt = str(self.version).encode()
        draw = zlib.crc32(observation.tobytes() + mask.tobytes() + salt)
        legal = np.flatnonzero(mask[0])
        action = 0 if draw % 3 else int(legal[(draw >> 3) % len(legal)])
        return Decided(action, [0.25] * 4)


class Serving(Actor):
    """An actor that decides with whatever weights are the newest."""

    def with_weights(self, weights: Weights, *, recalls: bool = True) -> Serving:
        self.__dict__["weights"], self.__dict__["recalls"] = weights, recalls
        return self

    def plan(self):
        plan = super().plan()
        return plan._replace(make_mirror=self._serving, recalls=self.__dict__["recalls"])

    def _serving(self, sent: Sent):
        bench, manifest = self.bench, self.bench.manifest
        seat = Seat(self.__dict__["weights"])
        answers = {(o.instrument, o.barrier): Action(o.action, o.quantity) for o in sent.orders}
        recalled = Recalled(sent.through, answers)
        agents = SlotTraders(seat, CONFIG, weights="w", recalled=recalled)
        core = FrameCore(manifest, 0, {}, agents, seat.next_frame)
        given = (bench.who, core, self.name, bench.topics["ticks"])
        if manifest.free_run:
            return Asked(*given, OnArrival(self.name, "orders/0", sent))
        if len(manifest.agents) == 1:
            return Alone(*given)
        symbols = frozenset(i.symbol for i in manifest.instruments)
        return Asked(*given, OthersInLockstep(Outsiders(manifest.agents, 0, symbols), core))


def frames_for(market: Market, rng: np.random.Generator, *, cut: bool) -> list[bytes]:
    manifest = market.manifest(partitions=1)
    return (
        cut_frames(market, manifest, 0, rng)
        if cut
        else frames_of(market, manifest, 0, max_rows=ROWS)
    )


async def feed(bench: Any, frames: list[bytes]) -> None:
    """Ticks that come slowly enough to be answered in time, mostly."""
    sink = await bench.log.sink()
    for value in frames:
        await sink.append(bench.topics["ticks"], 0, value, timestamp_ms=0)
        await asyncio.sleep(0.005)


async def bench_for(market: Market, frames: list[bytes], mode: str) -> Any:
    agents = ("me", "other") if mode == "with another" else ("me",)
    return await bench_of(market, frames, agents=agents, free_run=mode == "free run")


async def answered(bench: Any) -> list[Any]:
    """The lines of the agent, in their order."""
    values = [value for _, value, *_ in await bench.visible("orders")]
    return [line for value in values for line in decode_orders(value, 0) if line.agent == "me"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("cut", [False, True], ids=["whole intervals", "cut anywhere"])
async def test_started_again_under_newer_weights_it_answers_as_it_had(market, rng, mode, cut):
    """Killed three times, each time under other weights: nobody is contradicted, nobody diverges."""
    frames = frames_for(market, rng, cut=cut)
    bench = await bench_for(market, [] if mode == "free run" else frames, mode)
    weights = Weights()
    me = Serving(bench).with_weights(weights)
    tasks = [asyncio.create_task(bench.runner().run())]
    if mode == "with another":
        tasks.append(asyncio.create_task(Actor(bench, Weighing, "other").runner().run()))
    if mode == "free run":
        tasks.append(asyncio.create_task(feed(bench, frames)))
    deaths = 0
    least = (20, 28) if mode != "alone" else (12, 17) if cut else (9, 13)  # it answers whole frames
    for _ in range(3):
        deaths += await me.die({"answered": int(rng.integers(*least))})
        before = await answered(bench)
        weights.newest += 1
    runner = me.runner()
    assert await runner.run()
    for task in tasks:
        await task
    after = await answered(bench)
    assert deaths == 3
    assert after[: len(before)] == before, "what stands on the log stays"
    through = [line.through_barrier for line in after]
    assert through == sorted(set(through)), "and is not answered twice"
    used = [line.policy["weights"] for line in after if line.policy]
    assert used == sorted(used)
    assert len(set(used)) > 1
    assert used[-1] == 4
    found = await lines(bench)
    assert runner.comparison.compared == found["fills"].count(b"\n")
    assert runner.comparison.compared > 10 or mode == "free run"
    if mode == "free run":
        again = await repeated(market, frames, bench)
        assert await lines(again) == found
        again.close()
    bench.close()


async def test_without_recalling_it_would_have_changed_its_mind(market, rng):
    bench = await bench_for(market, frames_for(market, rng, cut=False), "alone")
    weights = Weights()
    me = Serving(bench).with_weights(weights, recalls=False)
    engine = asyncio.create_task(bench.runner().run())
    assert await me.die({"answered": 20})
    weights.newest = 2
    with pytest.raises(VerificationError, match="me answers barrier"):
        await me.runner().run()
    engine.cancel()
    await asyncio.gather(engine, return_exceptions=True)
    bench.close()


@pytest.mark.parametrize("mode", MODES)
async def test_weights_change_between_two_frames_only(market, rng, mode, monkeypatch):
    """They change at every single decision; every frame is decided with those that it began with."""
    frames = frames_for(market, rng, cut=False)
    bench = await bench_for(market, frames, mode)
    weights = Weights()
    decided: list[tuple[int, int]] = []
    me = Serving(bench).with_weights(weights)
    step, decide = FrameCore.step, Seat.decide
    now = [0]

    def stepped(core, frame, orders=()):
        now[0] = frame.frame_seq
        return step(core, frame, orders)

    def noted(seat, observation, mask):
        decided.append((now[0], seat.version))
        weights.newest += 1
        return decide(seat, observation, mask)

    monkeypatch.setattr(FrameCore, "step", stepped)
    monkeypatch.setattr(Seat, "decide", noted)
    others = [Actor(bench, Weighing, "other")] if mode == "with another" else []
    runners = await run_beside(bench, me, *others)
    by_frame: dict[int, set[int]] = {}
    for frame, version in decided:
        by_frame.setdefault(frame, set()).add(version)
    assert len(by_frame) > 3
    assert max(sum(f == frame for f, _ in decided) for frame in by_frame) > 1
    assert all(len(versions) == 1 for versions in by_frame.values())
    told = [line.policy["weights"] for line in await answered(bench) if line.policy]
    assert {next(iter(versions)) for versions in by_frame.values()} == set(told)
    assert runners[0].comparison.compared or mode == "free run"
    bench.close()


async def test_what_decides_is_told_of_every_frame_once(market, rng, monkeypatch):
    """Also of a frame that is taken interval by interval, and of one without a close."""
    frames = frames_for(market, rng, cut=True)
    bench = await bench_for(market, frames, "with another")
    begins = []
    monkeypatch.setattr(Seat, "next_frame", lambda seat: begins.append(seat))  # noqa: PLW0108
    me = Serving(bench).with_weights(Weights())
    await run_beside(bench, me, Actor(bench, Weighing, "other"))
    assert len(begins) == len(frames) - 1, "END is no frame to decide in"
    bench.close()
