"""Bar files for tests, and a slow, plain reading of the timeline's rules to compare with."""

from __future__ import annotations

from bisect import bisect_right
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streambot.data.sessions import exchange_sessions
from streambot.data.timeline import Window
from streambot.domain.instruments import Instrument, InstrumentType
from streambot.domain.ticks import TickBlock

MINUTE = 60 * 10**9
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def stock(symbol: str, **fields: object) -> Instrument:
    known = {"tick_size": Decimal("0.05"), "lot_size": 1, "type": InstrumentType.STOCK}
    return Instrument(symbol=symbol, **(known | fields))


class Rows(NamedTuple):
    """Bars in ticks: open time, open, high, low, close, volume (-1: none)."""

    rows: list[tuple[int, int, int, int, int, int]]

    def table(self, symbol: str | None = None, *, tick: float = 0.05) -> pa.Table:
        ts, *prices, volume = zip(*self.rows, strict=True) if self.rows else ([],) * 6
        columns = {"ts": pa.array(np.array(ts, "datetime64[ns]"), pa.timestamp("ns", "UTC"))}
        for name, values in zip(("open", "high", "low", "close"), prices, strict=True):
            columns[name] = pa.array([value * tick for value in values], pa.float64())
        columns["volume"] = pa.array([None if v < 0 else v for v in volume], pa.int64())
        if symbol is not None:
            columns["symbol"] = pa.array([symbol] * len(self.rows), pa.string())
        return pa.table(columns)


def write_parquet(path: Path, table: pa.Table, *, group: int = 1000) -> Path:
    pq.write_table(table, path, row_group_size=group)
    return path


def random_rows(
    rng: np.random.Generator, start: int, count: int, step: int, *, keep: float = 1.0
) -> Rows:
    """Bars on the grid `start + n x step`, of which a share `keep` is there."""
    rows = []
    price = 2000
    for number in range(count):
        open_, close = price, max(10, price + int(rng.integers(-6, 7)))
        high = max(open_, close) + int(rng.integers(0, 4))
        low = min(open_, close) - int(rng.integers(0, 4))
        price = close
        if rng.random() < keep:
            volume = int(rng.integers(-1, 50))
            rows.append((start + number * step, open_, high, low, close, volume))
    return Rows(rows)


class Expected(NamedTuple):
    closes: list[int]
    ticks: list[tuple[int, int, int, int, int, int]]  # interval, ts, instrument, price, size, flags


def plain_timeline(charts: list[tuple[Instrument, Rows, int]], decision: int) -> Expected:
    """The timeline of (instrument, bars, timeframe), word by word from docs/market-rules.md."""
    placed = []
    for number, (instrument, rows, timeframe) in enumerate(charts):
        placed += [(number, *bar) for bar in place(instrument, rows, timeframe, decision)]
    closes = sorted({close for *_, close, _, _ in placed if close is not None})
    ticks = []
    for number, (t, o, h, l, c, v), end, _, last, session in placed:  # noqa: E741
        low_first = o - l < h - o or (o - l == h - o and c >= o)
        prices = [o, l, h, c] if low_first else [o, h, l, c]
        d = end - t
        times = [t, t + d // 3, t + 2 * d // 3, end - 1]
        sizes = [-1] * 4 if v < 0 else [v // 4] * 3 + [v - 3 * (v // 4)]
        flags = [1, 0, 0, (2 if last else 0) | (4 if session else 0)]
        for seq, (ts, price, size, flag) in enumerate(
            zip(times, prices, sizes, flags, strict=True)
        ):
            ticks.append((bisect_right(closes, ts), ts, number, seq, price, size, flag))
    return Expected(closes, [(i, ts, n, p, s, f) for i, ts, n, _, p, s, f in sorted(ticks)])


def place(instrument: Instrument, rows: Rows, timeframe: int, decision: int):
    """(row, end, decision close or None, closes a decision bar, closes its date) of every bar."""
    calendar = None
    if instrument.exchange:
        table = exchange_sessions(instrument.exchange)
        calendar = list(
            zip(table.opens.tolist(), table.closes.tolist(), table.dates.tolist(), strict=True)
        )
    offset = {"UTC": 0, "Asia/Kolkata": 5 * HOUR + 30 * MINUTE}[instrument.timezone]
    dated: list[tuple[int, tuple]] = []
    for row in rows.rows:
        day = (row[0] + offset) // DAY
        if calendar is not None:
            at = bisect_right(calendar, (row[0], 2**63, 0)) - 1
            if at >= 0 and row[0] < calendar[at][1]:
                day = calendar[at][2]
        dated.append((day, row))
    by_date = {day: [row for other, row in dated if other == day] for day, _ in dated}
    bounds = {}
    for day, members in by_date.items():
        known = (
            {d: (o, c) for o, c, d in calendar or []}
            if calendar is not None
            else {day: (day * DAY - offset, (day + 1) * DAY - offset)}
        )
        bounds[day] = known.get(day, (members[0][0], members[-1][0] + timeframe))
    out = []
    for index, (day, row) in enumerate(dated):
        t = row[0]
        opened, closed = bounds[day]
        following = dated[index + 1][1][0] if index + 1 < len(dated) else 2**63 - 1
        session = row is by_date[day][-1]
        end = t + timeframe
        trades_later = by_date[day][-1][0] >= closed
        if calendar is not None and opened <= t < closed and not trades_later:
            end = min(end, closed)
        if timeframe == DAY:
            t, end = opened, closed
        end = min(end, following)

        def bucket(moment: int, opened: int = opened, closed: int = closed) -> tuple[int, int]:
            side = -1 if moment < opened else 1 if moment >= closed else 0
            return side, (moment - opened) // decision

        if decision == timeframe:
            last, close = True, end
        elif decision == DAY:
            last, close = session, max(end, closed)
        else:
            last = session or bucket(t) != bucket(following)
            side, number = bucket(t)
            close = opened + (number + 1) * decision
            if side <= 0:
                close = min(close, opened if side else closed)
            close = max(close, end)
        out.append(((t, *row[1:]), end, min(close, following) if last else None, last, session))
    return out


def collected(windows) -> Expected:
    """Windows put one after the other; `interval` counts from the first window's first barrier."""
    closes: list[int] = []
    ticks: list[tuple[int, int, int, int, int, int]] = []
    first = None
    for window in windows:
        assert isinstance(window, Window)
        first = window.barrier_lo if first is None else first
        assert window.barrier_lo == first + len(closes)
        assert len(window.closes) > 0
        block: TickBlock = window.ticks
        assert int(block.bar.max(initial=0)) < len(window.closes)
        intervals = block.bar.astype(np.int64) + window.barrier_lo
        ticks += zip(
            intervals.tolist(),
            block.ts.tolist(),
            block.instrument.tolist(),
            block.price.tolist(),
            block.size.tolist(),
            block.flags.tolist(),
            strict=True,
        )
        closes += window.closes.tolist()
    return Expected(closes, ticks)
