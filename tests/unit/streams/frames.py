"""Frames for the tests of streams: valid ones, in every shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import strategies as st

from streambot.domain.ticks import TickBlock
from streambot.streams.sequence import FrameChain

if TYPE_CHECKING:
    import numpy.typing as npt

RUN = bytes(range(16))
MINUTE = 60_000_000_000
INSTRUMENTS = 5


def block(
    rng: np.random.Generator, intervals: int, rows: int, *, start: int = 0, trailing: int = 0
) -> tuple[npt.NDArray[np.int64], TickBlock]:
    """`rows` random ticks in `intervals` closed minutes and `trailing` ones behind the last close."""
    closes = start + (np.arange(intervals, dtype=np.int64) + 1) * MINUTE
    bar = np.sort(rng.integers(0, max(intervals, 1), rows)) if intervals else np.zeros(rows, int)
    bar = np.concatenate([bar, np.full(trailing, intervals)]).astype(np.uint16)
    ts = np.sort(start + bar.astype(np.int64) * MINUTE + rng.integers(0, MINUTE, len(bar)))
    flags = (rng.random(len(bar)) < 0.2).astype(np.uint8)
    ticks = TickBlock(
        instrument=rng.integers(0, INSTRUMENTS, len(bar)).astype(np.uint16),
        bar=bar,
        flags=flags,
        ts=ts,
        price=rng.integers(1, 1 << 40, len(bar)),
        size=rng.integers(-1, 1_000, len(bar)),
    )
    return closes, ticks


def replaced(ticks: TickBlock, **columns: npt.NDArray[np.generic]) -> TickBlock:
    """`ticks` with other columns (`_replace` of a named tuple needs its own `len`)."""
    return TickBlock(**(ticks._asdict() | columns))


def frames(count: int, *, rows: int = 12, intervals: int = 3, seed: int = 7) -> list[bytes]:
    """One partition: `count` frames of data and END."""
    rng = np.random.default_rng(seed)
    chain = FrameChain(RUN, 0, INSTRUMENTS)
    out = []
    for k in range(count):
        closes, ticks = block(rng, intervals, rows, start=k * intervals * MINUTE)
        out.append(chain.data(closes, ticks))
    return [*out, chain.end()]


@st.composite
def blocks(draw: st.DrawFn) -> tuple[npt.NDArray[np.int64], TickBlock]:
    """Any legal content of a frame: no rows, no closes, a part of an interval, or many."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    intervals = draw(st.integers(0, 20))
    rows = draw(st.integers(0, 60))
    trailing = draw(st.integers(0, 5)) if rows or intervals else draw(st.integers(1, 5))
    start = draw(st.integers(-(1 << 60), 1 << 60))
    return block(rng, intervals, rows, start=start, trailing=trailing)
