"""The promise of the product: the same ticks give the same events, however they travel."""

from functools import cache

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.engine.scripts import Script
from streambot.processor.close_rows import CloseRows
from streambot.processor.journal import event_digest
from streambot.processor.task import TaskCore
from streambot.replay.framing import Framing
from streambot.replay.pacing import GapClock
from streambot.streams.frame import decode_frame
from streambot.streams.sequence import FrameChain
from tests.unit.processor.market import MINUTE, Market

SYMBOLS = "ABCDE"


def digest_of(
    seed: int, *, partitions: int, max_rows: int, spans: list[int] | None, restart_every: int = 0,
    per_window: int = 40, symbols: str = SYMBOLS,
) -> str:  # fmt: skip
    """Event digest of a market, framed in some way, through bytes and tasks."""
    market = Market(symbols, bars=90, seed=seed, missing=0.2)
    manifest = market.manifest(partitions=partitions, max_gap_ns=3 * MINUTE)
    framing = Framing(manifest.partition_of, partitions, max_rows=max_rows)
    width = len(manifest.instruments)
    chains = [FrameChain(manifest.run_id, p, width) for p in range(partitions)]
    cores = [TaskCore(manifest, p, {}, Script.RANDOM) for p in range(partitions)]
    holds = [CloseRows() for _ in range(partitions)]
    clock = GapClock(None)
    count = 0

    def feed(drafts) -> None:
        nonlocal count
        for d in drafts:
            p = d.partition
            data = chains[p].data(d.closes, d.ticks, t_lo=d.t_lo, t_hi=d.t_hi)
            frame = decode_frame(data, manifest.run_id, p, width)
            cores[p].step(holds[p].settle(frame))
            count += 1
            closed = d.barrier_hi < d.barrier_lo + len(d.closes)
            if restart_every and closed and count % restart_every == 0:
                restored = TaskCore.restore(manifest, p, {}, Script.RANDOM, cores[p].snapshot())
                restored.digest = cores[p].digest
                cores[p] = restored

    for window in market.windows(per_window):
        frames = framing.open(window)
        if spans is None:
            feed(frames.all())
            continue
        frames.schedule(clock)
        n = 0
        while (batch := frames.due(spans[n % len(spans)])) is not None:
            feed(batch.drafts)
            n += 1
    for core in cores:
        core.finish()
    return event_digest({k: v for core in cores for k, v in core.digest.parts().items()})


@cache
def reference(seed: int) -> str:
    return digest_of(seed, partitions=1, max_rows=8_192, spans=None, per_window=1_000)


@settings(max_examples=60)
@given(
    seed=st.integers(1, 3),
    partitions=st.integers(1, 5),
    max_rows=st.integers(1, 200),
    spans=st.one_of(st.none(), st.lists(st.integers(0, 3 * MINUTE), min_size=1, max_size=6)),
    restart_every=st.integers(0, 9),
    per_window=st.integers(1, 90),
)
def test_any_framing_partitioning_and_restart_gives_the_same_events(
    seed, partitions, max_rows, spans, restart_every, per_window
):
    assert reference(seed) == digest_of(
        seed, partitions=partitions, max_rows=max_rows, spans=spans,
        restart_every=restart_every, per_window=per_window,
    )  # fmt: skip


def test_an_instrument_does_the_same_whoever_else_is_in_the_run():
    """Numbers, partitions and neighbours change; its own lines do not."""
    manifest_of = {s: Market(s, bars=90).manifest(partitions=1) for s in ("C", "ABCDE", "CE")}
    parts = {}
    for symbols, manifest in manifest_of.items():
        market = Market(symbols, bars=90, missing=0.0)
        framing = Framing(manifest.partition_of, 1)
        chain = FrameChain(manifest.run_id, 0, len(symbols))
        core = TaskCore(manifest, 0, {}, Script.RANDOM)
        for window in market.windows():
            for d in framing.open(window).all():
                data = chain.data(d.closes, d.ticks)
                core.step(decode_frame(data, manifest.run_id, 0, len(symbols)))
        parts[symbols] = core.digest.parts()["C"]
    assert len(set(parts.values())) == 1


def test_the_seed_decides():
    """The comparison can fail: another market is another digest."""
    assert reference(1) != reference(2)
    assert msgspec.json.encode(reference(1)) == msgspec.json.encode(reference(1))
