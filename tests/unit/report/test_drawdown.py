"""The portfolio's drawdown is that of the sums at barriers, whatever order the marks came in."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.report import drawdown
from streambot.report.drawdown import Fall, PortfolioDrawdown, SlotCapital

SLOTS = [
    SlotCapital("USD", 1_000, 2),
    SlotCapital("USD", 10_000_000, 5),
    SlotCapital("INR", 500, 2),
    SlotCapital("USD", 2_000, 2),
]


def slow(marks: list[tuple[int, int, int]]) -> dict[str, Fall]:
    """The definition: apply a barrier's marks, then look."""
    scale = [1_000, 1, 1, 1_000]
    equity = [s.capital * k for s, k in zip(SLOTS, scale, strict=True)]

    def total(currency: str) -> int:
        return sum(e for e, s in zip(equity, SLOTS, strict=True) if s.currency == currency)

    decimals = {"INR": 2, "USD": 5}
    falls = {c: Fall(0, total(c), d) for c, d in decimals.items()}
    peaks = {c: total(c) for c in decimals}
    for barrier in sorted({m[0] for m in marks}):
        for b, instrument, amount in marks:
            if b == barrier:
                equity[instrument] = amount * scale[instrument]
        for c, fall in falls.items():
            peaks[c] = max(peaks[c], total(c))
            if peaks[c] - total(c) > fall.amount:
                falls[c] = Fall(peaks[c] - total(c), peaks[c], decimals[c])
    return falls


@settings(max_examples=200, deadline=None)
@given(
    marks=st.lists(
        st.tuples(st.integers(-1, 20), st.integers(0, 3), st.integers(0, 5_000)), max_size=60
    ),
    partitions=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=10),
    settle=st.integers(1, 50),
    order=st.randoms(use_true_random=False),
)
def test_any_arrival_of_marks_gives_the_drawdown_of_the_definition(
    marks, partitions, sizes, settle, order
):
    marks.sort(key=lambda m: m[0])
    before = drawdown._SETTLE_MARKS
    drawdown._SETTLE_MARKS = settle
    try:
        portfolio = PortfolioDrawdown(SLOTS, partitions)
        queues = [[m for m in marks if m[1] % partitions == p] for p in range(partitions)]
        n = 0
        while any(queues):
            p = order.choice([p for p in range(partitions) if queues[p]])
            size = sizes[n % len(sizes)]
            n += 1
            taken, queues[p] = queues[p][:size], queues[p][size:]
            closed = queues[p][0][0] + 1 if queues[p] else 22
            rows = np.array(taken, np.int64).reshape(-1, 3)
            portfolio.add(p, rows.T.copy(), closed)
        falls = portfolio.finish()
    finally:
        drawdown._SETTLE_MARKS = before
    expected = slow(marks)
    assert {c: f.amount for c, f in falls.items()} == {c: f.amount for c, f in expected.items()}
    assert {c: f.peak for c, f in falls.items() if f.amount} == {
        c: f.peak for c, f in expected.items() if f.amount
    }


def test_marks_do_not_pile_up():
    portfolio = PortfolioDrawdown(SLOTS[:1], 1)
    for k in range(0, 100_000, 1_000):
        barrier = np.arange(k, k + 1_000)
        portfolio.add(0, np.stack((barrier, np.zeros(1_000, np.int64), barrier)), k + 1_000)
    assert portfolio.waiting < 10_000
