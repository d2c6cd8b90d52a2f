"""The roll-up is a function of what the partitions hold: no interleaving, repeat or restart changes it."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.domain.errors import DecodeError
from streambot.domain.units import exact_decimal
from streambot.report.drawdown import PortfolioDrawdown, SlotCapital
from streambot.report.rollup import RolledRun, Rollup
from tests.rollups import CAPITAL, INSTRUMENTS, made, mark


@st.composite
def logs(draw) -> tuple[RolledRun, list[list[bytes]]]:
    """A run and the records of its partitions, with gaps here and there."""
    partition_of = tuple(draw(st.lists(st.integers(0, 2), min_size=4, max_size=4)))
    seqs, barriers, halted = [0] * 4, [-1] * 4, [False] * 4
    partitions: list[list[bytes]] = [[], [], []]
    for n in draw(st.lists(st.integers(0, 3), max_size=40)):
        barriers[n] += draw(st.integers(0, 3))
        seqs[n] += draw(st.sampled_from([0] * 12 + [2]))  # a gap
        halted[n] = halted[n] or draw(st.integers(0, 9)) == 9
        equity = draw(st.integers(60_000, 120_000))
        partitions[partition_of[n]].append(mark(n, seqs[n], barriers[n], equity, halted=halted[n]))
        seqs[n] += 1
    return made(partition_of), partitions


def fed(rollup: Rollup, partitions: list[list[bytes]]) -> list:
    out = []
    for p, lines in enumerate(partitions):
        for line in lines:
            out += rollup.marks(p, line)
    return out + rollup.finish()


def by_series(lines: list) -> dict:
    """Lines in the order they were said, by stream and series."""
    found: dict = {}
    for line in lines:
        found.setdefault((line.stream, line.series), []).append((line.seq, line.data))
    return found


class Arrival:
    """Hands out records of partitions in a random interleaving, with rewinds and in random pieces."""

    def __init__(self, partitions: list[list[bytes]], random) -> None:
        self.partitions = partitions
        self.random = random
        self.at = [0] * len(partitions)

    def __iter__(self):
        while True:
            open_ = [p for p, lines in enumerate(self.partitions) if self.at[p] < len(lines)]
            if not open_:
                return
            p = self.random.choice(open_)
            if self.random.random() < 0.2:
                self.at[p] = self.random.randint(0, self.at[p])
            size = self.random.randint(1, 5)
            record = b"".join(self.partitions[p][self.at[p] : self.at[p] + size])
            self.at[p] = min(self.at[p] + size, len(self.partitions[p]))
            yield p, record


@settings(max_examples=300, deadline=None)
@given(log=logs(), random=st.randoms(use_true_random=False))
def test_any_arrival_with_repeats_says_the_same_once(log, random):
    run, partitions = log
    expected = by_series(fed(Rollup(run), partitions))
    for said in expected.values():
        assert [seq for seq, _ in said] == list(range(len(said))), "numbered without gaps"
    rollup = Rollup(run)
    lines = [line for p, record in Arrival(partitions, random) for line in rollup.marks(p, record)]
    assert by_series(lines + rollup.finish()) == expected
    assert rollup.counts.waiting == 0
    assert rollup.counts.marks == sum(map(len, partitions))


@settings(max_examples=200, deadline=None)
@given(log=logs(), random=st.randoms(use_true_random=False), kills=st.integers(0, 4))
def test_killed_anywhere_and_read_again_from_the_start_it_goes_on_where_the_log_ends(
    log, random, kills
):
    """A new process reads everything again, and writes only numbers that the log has not."""
    run, partitions = log
    expected = by_series(fed(Rollup(run), partitions))
    written: dict = {}

    def write(lines) -> None:
        for line in lines:
            series = written.setdefault((line.stream, line.series), [])
            if line.seq == len(series):
                series.append((line.seq, line.data))

    for _ in range(kills):
        rollup = Rollup(run)
        for p, record in Arrival(partitions, random):
            said = rollup.marks(p, record)
            if random.random() < 0.1:
                write(said[: random.randint(0, len(said))])  # killed in the middle of a record
                break
            write(said)
    rollup = Rollup(run)
    for p, record in Arrival(partitions, random):
        write(rollup.marks(p, record))
    write(rollup.finish())
    assert written == expected


@settings(max_examples=200, deadline=None)
@given(log=logs())
def test_every_barrier_is_the_sum_of_its_slots_by_the_definition(log):
    """Against a slow model: sort all marks by the barrier they count at, look behind each barrier."""
    run, partitions = log
    marks = []
    for p, lines in enumerate(partitions):
        reached = -2
        for line in lines:
            one = msgspec.json.decode(line)
            reached = max(reached, one["barrier"])
            marks.append((reached, p, one))
    out = fed(Rollup(run), partitions)
    rolled = [msgspec.json.decode(x.data) for x in out if x.stream == "portfolio"]
    for currency in ("USD", "INR"):
        symbols = [i.symbol for i in INSTRUMENTS if i.currency == currency]
        equity = dict.fromkeys(symbols, Decimal(CAPITAL))
        lots = dict.fromkeys(symbols, 0)
        peak = sum(equity.values())
        own = [m for m in marks if m[2]["instrument"] in symbols]
        said = [r for r in rolled if r["currency"] == currency]
        assert [r["barrier"] for r in said] == sorted({m[0] for m in own})
        worst = Decimal(0)
        for record in said:
            for at, _, one in own:
                if at == record["barrier"]:
                    equity[one["instrument"]] = Decimal(one["equity"])
                    lots[one["instrument"]] = one["lots"]
            total = sum(equity.values())
            peak = max(peak, total)
            worst = max(worst, peak - total)
            assert Decimal(record["equity"]) == total
            assert Decimal(record["drawdown"]) == peak - total
            assert Decimal(record["max_drawdown"]) == worst
            assert record["open_positions"] == sum(n != 0 for n in lots.values())
            gross = total - CAPITAL * len(symbols) + Decimal(record["brokerage"])
            assert Decimal(record["pnl_realized"]) + Decimal(record["pnl_unrealized"]) == gross


@settings(max_examples=100, deadline=None)
@given(equities=st.lists(st.integers(50_000, 120_000), min_size=4, max_size=80))
def test_the_drawdown_is_the_one_of_the_summary(equities):
    """One rule, written for a stream here and for arrays in `report.drawdown`."""
    run = made((0, 1, 2, 1))
    partitions: list[list[bytes]] = [[], [], []]
    summary = PortfolioDrawdown(
        [SlotCapital(i.currency, c, i.money_decimals) for i, c in zip(run.instruments, run.capital, strict=True)],
        3,
    )  # fmt: skip
    for k, equity in enumerate(equities):
        n, barrier = k % 4, k // 4
        p = run.partition_of[n]
        partitions[p].append(mark(n, barrier, barrier, equity))
        units = equity * 10 ** INSTRUMENTS[n].money_decimals
        summary.add(p, np.array([[barrier], [n], [units]], np.int64), barrier + 1)
    falls = summary.finish()
    last = {}
    for line in fed(Rollup(run), partitions):
        if line.stream == "portfolio":
            last[line.series] = msgspec.json.decode(line.data)
    for currency, record in last.items():
        fall = falls[currency]
        assert record["max_drawdown"] == exact_decimal(fall.amount, fall.decimals)


def test_a_record_that_is_none_counts_nothing():
    """A line of another run, of another partition, or with other decimals stops, and leaves no trace."""
    good = mark(0, 0, 0, 100)
    for wrong in (
        good.replace(b"AAA", b"ZZZ"),
        good.replace(b'"100.00"', b'"100.0"'),
        good.replace(b'"100.00"', b'"1e2.00"'),
        b"{}\n",
        b"no json\n",
    ):
        rollup = Rollup(made((0, 1, 2, 0)))
        with pytest.raises(DecodeError, match="no mark"):
            rollup.marks(0, good + wrong, "pnl/0/5")
        assert rollup.counts.marks == 0
    with pytest.raises(DecodeError, match="pnl/1/5"):
        Rollup(made((0, 1, 2, 0))).marks(1, good, "pnl/1/5")
