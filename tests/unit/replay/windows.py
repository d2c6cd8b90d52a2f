"""Windows of ticks for the tests of replay: small, odd, and of known content."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from streambot.domain.ticks import TickBlock


class FakeWindow(NamedTuple):
    barrier_lo: int
    closes: np.ndarray
    ticks: TickBlock
    closed_spans: np.ndarray


STEP = 1_000_000_000
NO_SPANS = np.empty((0, 2), np.int64)


def make_window(
    barrier_lo: int, counts: list[list[int]], *, start: int | None = None, step: int = STEP
) -> FakeWindow:
    """`counts[k][i]` ticks of instrument i in interval k; prices number the rows of the run."""
    begin = barrier_lo * step if start is None else start
    rows = []
    for k, by_instrument in enumerate(counts):
        for i, n in enumerate(by_instrument):
            rows += [(begin + k * step + step * j // max(n, 1), i, k, j) for j in range(n)]
    rows.sort(key=lambda r: (r[2], r[0], r[1], r[3]))
    columns = np.array(rows, np.int64).reshape(-1, 4)
    n = len(columns)
    ticks = TickBlock(
        instrument=columns[:, 1].astype(np.uint16),
        bar=columns[:, 2].astype(np.uint32),
        flags=np.zeros(n, np.uint8),
        ts=columns[:, 0].copy(),
        price=np.arange(1, n + 1, dtype=np.int64) + barrier_lo * 1_000_000,
        size=np.full(n, -1, np.int64),
    )
    closes = begin + step * np.arange(1, len(counts) + 1, dtype=np.int64)
    return FakeWindow(barrier_lo, closes, ticks, NO_SPANS)


@st.composite
def window_runs(draw, max_windows: int = 3):
    """Consecutive windows of a run with up to five instruments."""
    instruments = draw(st.integers(1, 5))
    row = st.lists(st.integers(0, 6), min_size=instruments, max_size=instruments)
    windows = []
    barrier = 0
    for _ in range(draw(st.integers(1, max_windows))):
        counts = draw(st.lists(row, min_size=1, max_size=12))
        windows.append(make_window(barrier, counts))
        barrier += len(counts)
    return instruments, windows
