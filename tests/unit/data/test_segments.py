"""The segment store and its cache: the same columns however they were made, found again, made again.

What is guarded: a store is a function of the recording alone, never of windows, memory or disk; its
bars are those of the source; what it says of a slot is what an engine knows that ran from the
start; a store on disk that is not whole is never opened, and stores stay within their bound.
"""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.data import segment_build, segment_cache
from streambot.data.segment_build import Recording, SegmentBuilder, build_segments, trading_dates
from streambot.data.segment_cache import cached_segments, segments_folder, store_key
from streambot.data.segments import BAR_ROW, BY_INSTRUMENT, FORMAT, Segments, open_segments
from streambot.data.timeline import Window
from streambot.domain.errors import DataError
from streambot.domain.events import CLOSE, HOLD, Action, buy, sell
from streambot.domain.instruments import (
    Brokerage,
    Expiries,
    Instrument,
    InstrumentType,
    TrailAtr,
    TrailBp,
)
from streambot.domain.ticks import TickBlock, TickFlag
from streambot.engine.backtesting import BacktestingEngine
from streambot.engine.ordering import Calendar, SlotContext, empty_calendar
from streambot.env.config import EnvConfig
from streambot.market.feature_config import FeatureConfig
from streambot.market.features import Features
from tests.conftest import ROOT, SEED
from tests.env_world import Chart, aliases, prepared

MINUTE = 60 * 10**9
DAY = 1440 * MINUTE
FIRST = 18_000 * DAY + 14 * 60 * MINUTE
CONFIG = FeatureConfig(
    zscore_window=16, warmup=4, regime_windows=(16,), timeframes=(10 * MINUTE, DAY)
)


# --- a world of instruments ---------------------------------------------------------------------


class B(NamedTuple):
    """A decision bar and the ticks in it: (ts, price, size)."""

    open_ts: int
    close_ts: int
    ticks: list[tuple[int, int, int]]
    session_close: bool

    @property
    def row(self) -> tuple[int, ...]:
        """Open and close time, open, high, low, close, volume."""
        prices = [price for _, price, _ in self.ticks]
        volume = sum(size for *_, size in self.ticks if size > 0)
        return (
            self.open_ts, self.close_ts, prices[0], max(prices), min(prices), prices[-1], volume
        )  # fmt: skip


class World(NamedTuple):
    """Instruments, their bars, and what a recording would hold of them."""

    instruments: tuple[Instrument, ...]
    context: dict[str, SlotContext]
    bars: list[list[B]]
    whole: Window


def kind(n: int) -> Instrument:
    """Stocks and options, stops in ATR and in basis points."""
    fields: dict[str, Any] = {}
    if n % 3 == 2:
        fields = {"expiries": Expiries(expires_after=2), "underlying": "UND"}
    return Instrument(
        symbol=f"I{n:03d}",
        type=InstrumentType.OPTION if fields else InstrumentType.STOCK,
        lot_size=1 + n % 4,
        tick_size=Decimal("0.05"),
        brokerage=Brokerage(entry=Decimal(1), exit=Decimal(2)),
        trail=TrailBp(bp=30) if n % 2 else TrailAtr(atr=2.0),
        **fields,
    )


def bars_of(rng: np.random.Generator, count: int) -> list[B]:
    """Bars of one instrument, with gaps, some of them closing with those of others."""
    duration = int(rng.choice([1, 1, 2, 5])) * MINUTE
    t, price, made = FIRST + int(rng.integers(0, 8)) * MINUTE, int(rng.integers(500, 900)), []
    for k in range(count):
        # The last tick lies in the interval that the bar's own close ends.
        offsets = [0, *np.sort(rng.integers(0, duration, int(rng.integers(0, 5)))), duration - 1]
        ticks = []
        for offset in offsets:
            price = max(1, price + int(rng.integers(-9, 10)))
            ticks.append((t + int(offset), price, int(rng.integers(-1, 50))))
        last = bool(rng.random() < 0.2)
        made.append(B(t, t + duration, ticks, last or k == count - 1))
        t += duration + (DAY if last else 0) + int(rng.random() < 0.2) * 3 * MINUTE
    return made


def window_of(bars: list[list[B]], unfinished: dict[int, B] | None = None) -> Window:
    """All of it as one window; `unfinished` bars have not closed yet."""
    closes = np.unique(np.array([b.close_ts for own in bars for b in own], np.int64))
    rows = []
    open_bars = {n: [bar] for n, bar in (unfinished or {}).items()}
    for n, own in enumerate(bars):
        for bar in [*own, *open_bars.get(n, [])]:
            for k, (ts, price, size) in enumerate(bar.ticks):
                flags = TickFlag.BAR_OPEN if k == 0 else TickFlag(0)
                if k == len(bar.ticks) - 1 and bar not in open_bars.get(n, []):
                    flags |= TickFlag.BAR_CLOSE
                    flags |= TickFlag.SESSION_CLOSE if bar.session_close else TickFlag(0)
                interval = int(np.searchsorted(closes, ts, "right"))
                rows.append((interval, ts, n, k, int(flags), price, size))
    rows = sorted(row for row in rows if row[0] < len(closes))
    interval, ts, n, _, flags, price, size = (
        np.array(column, np.int64) for column in zip(*rows, strict=True)
    )
    block = TickBlock(
        n.astype(np.uint16), interval.astype(np.uint32), flags.astype(np.uint8), ts, price, size
    )
    return Window(0, closes, block, np.empty((0, 2), np.int64))


def world(seed: int, count: int, most: int = 40, *, without: tuple[int, ...] = ()) -> World:
    rng = np.random.default_rng([SEED, seed])
    instruments = tuple(kind(n) for n in range(count))
    days = 18_000 * DAY + np.arange(80) * DAY
    none = np.zeros(0, np.int64)
    calendar = Calendar(days, days + 20 * 60 * MINUTE, none, none)
    context = {
        i.symbol: SlotContext(calendar, float(rng.uniform(20, 60)), int(rng.integers(15)), 700)
        for i in instruments if i.is_option
    }  # fmt: skip
    bars = [
        [] if n in without else bars_of(rng, int(rng.integers(1, most + 1))) for n in range(count)
    ]
    return World(instruments, context, bars, window_of(bars))


def cut(whole: Window, at: Iterable[int]) -> Iterator[Window]:
    """The window in pieces; `at` are barriers, in any order."""
    bounds = sorted({0, len(whole.closes), *(k for k in at if 0 < k < len(whole.closes))})
    block = whole.ticks
    for low, high in pairwise(bounds):
        rows = (block.bar >= low) & (block.bar < high)
        instrument, bar, *rest = (column[rows] for column in block)
        part = TickBlock(instrument, (bar - low).astype(np.uint32), *rest)
        yield Window(low, whole.closes[low:high], part, whole.closed_spans)


def recording(w: World, windows: Iterable[Window] | None = None, **fields: Any) -> Recording:
    made = Recording(
        w.instruments, w.context, [w.whole] if windows is None else windows, "a test", True, MINUTE
    )
    return made._replace(**fields)


def columns(segments: Segments) -> dict[str, bytes]:
    """Everything a store says, as bytes."""
    said = {"head": msgspec.json.encode(segments.head)}
    for name, array in segments._asdict().items():
        if isinstance(array, np.ndarray):
            said[name] = array.tobytes()
    return said


# --- what is in it ------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.integers(1, 5), st.lists(st.integers(1, 250), max_size=30))
def test_windows_of_any_size_give_the_same_bytes(seed: int, count: int, at: list[int]) -> None:
    """Whole, cut anywhere, and barrier by barrier: bars that span windows too."""
    w = world(seed, count, 25)
    whole = columns(build_segments(recording(w), CONFIG, None))
    for windows in (cut(w.whole, at), cut(w.whole, range(10_000))):
        assert columns(build_segments(recording(w, windows), CONFIG, None)) == whole


def test_in_memory_and_on_disk_are_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where every row went through a file of its own on the way, and after it was opened again."""
    w = world(1, 7)
    kept = build_segments(recording(w), CONFIG, None)
    for number, most in enumerate((1 << 20, 0, 700)):
        monkeypatch.setattr(segment_build, "_KEPT_BYTES", most)
        folder = tmp_path / str(number)
        folder.mkdir()
        built = build_segments(recording(w, cut(w.whole, range(0, 999, 7))), CONFIG, folder)
        assert columns(built) == columns(kept) == columns(open_segments(folder))
        assert built.nbytes == kept.nbytes > 0
        assert built.folder == folder
        assert not list(folder.glob("*.part"))
    for segments in (kept, built):
        for name, array in segments._asdict().items():
            assert (
                not isinstance(array, np.ndarray) or not array.flags.writeable or not array.size
            ), name


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_the_bars_of_the_source_come_back(seed: int, count: int) -> None:
    """Ticks, times, prices and volume of each instrument, and where the ticks of each bar begin."""
    w = world(seed, count)
    segments = build_segments(recording(w, cut(w.whole, [5, 9, 33])), CONFIG, None)
    assert segments.head.barriers == len(segments.closes)
    assert np.array_equal(segments.closes, w.whole.closes)
    for n, own in enumerate(w.bars):
        bars = segments.bars_of(n)
        names = ("open_ts", "close_ts", "open", "high", "low", "close", "volume")
        assert list(zip(*(bars[name].tolist() for name in names), strict=True)) == [
            bar.row for bar in own
        ]
        assert np.array_equal(segments.closes[bars["barrier"]], bars["close_ts"])
        low, high = segments.rows("ticks", n)
        ticks = segments.ticks[low:high]
        assert ticks[["ts", "price", "size"]].tolist() == [t for bar in own for t in bar.ticks]
        starts = np.cumsum([0, *(len(bar.ticks) for bar in own)])
        assert bars["tick"].tolist() == starts[:-1].tolist()
        assert (ticks["flags"][starts[:-1]] & TickFlag.BAR_OPEN).all()
        assert (ticks["flags"][starts[1:] - 1] & TickFlag.BAR_CLOSE).all()
        # The tick lies in the interval that its barrier closes, or in one before.
        assert (segments.closes[ticks["bar"]] > ticks["ts"]).all()
        before = np.concatenate([[-(2**62)], segments.closes])[ticks["bar"]]
        assert (before <= ticks["ts"]).all()


class Trader:
    """Notes what the slot knows at every close, and trades at random or not at all."""

    def __init__(self, rng: np.random.Generator | None) -> None:
        self._rng = rng
        self.slots: list[np.ndarray] = []

    def on_bar(self, bar: Any, account: Any) -> Action:
        del bar
        self.slots.append(account.slot.copy())
        if self._rng is None or self._rng.random() < 0.5:
            return HOLD
        return [CLOSE, buy(1), sell(2)][int(self._rng.integers(3))]


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.booleans())
def test_what_a_slot_knows_is_what_an_engine_knows_that_ran_from_the_start(
    seed: int, trades: bool
) -> None:
    """Every market field of every bar, whatever the engine trades meanwhile."""
    w = world(seed, 6)
    segments = build_segments(recording(w, cut(w.whole, [3, 20])), CONFIG, None)
    names = {name: name for name in (BAR_ROW.names or ())[9:]}
    names |= {
        "open_ts": "bar_open_ts", "close_ts": "close_ts", "barrier": "barrier", "open": "bar_open",
        "high": "bar_high", "low": "bar_low", "close": "last_price", "volume": "bar_volume",
    }  # fmt: skip
    assert set(names) == set(BAR_ROW.names or ()) - {"tick"}
    for n, instrument in enumerate(w.instruments):
        known = w.context.get(instrument.symbol, SlotContext(empty_calendar()))
        engine = BacktestingEngine(instrument, calendar=known.calendar)
        known.warm(engine._slot[0])
        block = w.whole.ticks
        own = TickBlock(*(column[block.instrument == n] for column in block))
        trader = Trader(np.random.default_rng(seed) if trades else None)
        engine.run(own, trader, closes=w.whole.closes)
        bars = segments.bars_of(n)
        slots = np.concatenate(trader.slots)
        assert len(bars) == len(slots) == len(w.bars[n])
        for mine, theirs in names.items():
            assert bars[mine].tolist() == slots[theirs].tolist(), (instrument.symbol, mine)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 250), max_size=9))
def test_features_are_those_of_the_bars(seed: int, at: list[int]) -> None:
    """Of each instrument alone, with the sessions of its calendar."""
    w = world(seed, 4, 25)
    segments = build_segments(recording(w, cut(w.whole, at)), CONFIG, None)
    for n, own in enumerate(w.bars):
        features = Features(CONFIG, [trading_dates(w.instruments[n], CONFIG)])
        low, high = segments.rows("bars", n)
        assert high - low == len(own)
        for k, bar in enumerate(own):
            window, slow = features.push(
                0, open_ts=bar.open_ts, close_ts=bar.close_ts, prices=bar.row[2:6],
                volume=bar.row[6], session_close=bar.session_close,
            )  # fmt: skip
            assert segments.window[low + k].tobytes() == window.tobytes()
            assert segments.slow[low + k].tobytes() == slow.tobytes()


def test_the_bundled_bars_come_back(tmp_path: Path) -> None:
    """From a file, through the timeline in windows of two sizes, for stocks and options on one chart."""
    path = ROOT / "replay" / "bars" / "spy_1m_2020.parquet"
    chart = Chart(path, "SPY", "0.0001", "XNYS", "America/New_York", "USD", "3.9", 100)
    env = EnvConfig(features=CONFIG)
    run = prepared([chart], aliases([chart], 5, np.random.default_rng(SEED)), env, tmp_path)
    made = []
    for ticks in (1500, 10**6):
        run.timeline._window_ticks = ticks
        whole = Recording(
            run.timeline.instruments, run.context, run.timeline.windows(), "bundled", True, MINUTE
        )
        made.append(build_segments(whole, CONFIG, None))
    assert columns(made[0]) == columns(made[1])
    table = pq.read_table(path)
    stamps = table["ts"].to_numpy().astype("datetime64[ns]").astype(np.int64)
    for n, instrument in enumerate(made[0].head.instruments):
        bars = made[0].bars_of(n)
        assert np.array_equal(bars["open_ts"], stamps)
        assert np.array_equal(bars["close_ts"], stamps + MINUTE)
        for name in ("open", "high", "low", "close"):
            ticks = np.rint(table[name].to_numpy() / float(instrument.tick_size))
            assert np.array_equal(bars[name], ticks.astype(np.int64))
        assert np.array_equal(bars["volume"], table["volume"].to_numpy())
        calendar = made[0].calendar(n)
        for mine, known in zip(calendar, run.context[instrument.symbol].calendar, strict=True):
            assert np.array_equal(mine, known)


def test_what_has_not_closed_yet_is_left_out() -> None:
    """Ticks of open bars make no row; when their bar has closed they do, with the ticks before."""
    w = world(3, 4)
    last = [own[-1] for own in w.bars]
    shorter = [own[:-1] if len(own) > 1 else own for own in w.bars]
    opened = {n: bar for n, bar in enumerate(last) if len(w.bars[n]) > 1}
    assert opened
    grown = window_of(shorter, opened)
    assert len(grown.ticks) > sum(len(b.ticks) for own in shorter for b in own)
    cut_off = build_segments(recording(w, [grown], complete=False), CONFIG, None)
    plain = build_segments(recording(w, [window_of(shorter)], complete=False), CONFIG, None)
    assert columns(cut_off) == columns(plain)
    assert not cut_off.head.complete


def test_hundreds_of_instruments_with_few_bars(tmp_path: Path) -> None:
    """Each has its own rows; files of columns do not multiply."""
    w = world(4, 400, most=3)
    segments = build_segments(recording(w, cut(w.whole, range(0, 999, 3))), CONFIG, tmp_path)
    assert [len(segments.bars_of(n)) for n in range(400)] == [len(own) for own in w.bars]
    assert len(list(tmp_path.iterdir())) == len(BY_INSTRUMENT) + 2  # closes, head
    assert [segments.number(i.symbol) for i in w.instruments] == list(range(400))
    assert segments.number("NONE") is None


@pytest.mark.parametrize("without", [(0,), (2,), (4,), (0, 1, 3, 4)])
def test_an_instrument_without_bars_among_others(without: tuple[int, ...], tmp_path: Path) -> None:
    """It has no rows, its calendar is there, and the others are as if it were not."""
    w = world(5, 5, without=without)
    segments = build_segments(recording(w), CONFIG, tmp_path)
    for n, instrument in enumerate(w.instruments):
        assert len(segments.bars_of(n)) == len(w.bars[n])
        known = w.context.get(instrument.symbol, SlotContext(empty_calendar())).calendar
        assert [c.tolist() for c in segments.calendar(n)] == [c.tolist() for c in known]
        if n in without:
            assert segments.rows("ticks", n)[0] == segments.rows("ticks", n)[1]


def nothing(case: str, w: World) -> list[Window]:
    none = TickBlock(*(column[:0] for column in w.whole.ticks))
    instrument, bar, flags, *rest = w.whole.ticks
    open_only = TickBlock(instrument, bar, flags & np.uint8(TickFlag.BAR_OPEN), *rest)
    return {
        "no window": [],
        "no tick": [w.whole._replace(ticks=none)],
        "no bar": [w.whole._replace(ticks=open_only)],
    }[case]


@pytest.mark.parametrize("case", ["no window", "no tick", "no bar"])
@pytest.mark.parametrize("where", ["memory", "disk", "cache"])
def test_a_recording_of_nothing_is_refused(case: str, where: str, tmp_path: Path) -> None:
    """With a word that says what is missing; nothing is left that could be taken for a store."""
    w = world(6, 3)
    empty = recording(w, nothing(case, w))
    build: dict[str, Callable[[], Any]] = {
        "memory": lambda: build_segments(empty, CONFIG, None),
        "disk": lambda: build_segments(empty, CONFIG, tmp_path),
        "cache": lambda: cached_segments(empty, CONFIG, folder=tmp_path),
    }
    with pytest.raises(DataError, match=r"a test: no whole bar"):
        build[where]()
    with pytest.raises(DataError):
        open_segments(tmp_path)
    assert where == "disk" or not list(tmp_path.iterdir())


def test_a_builder_says_how_far_it_is() -> None:
    """Barriers, closes and ticks of whole bars so far."""
    w = world(7, 3)
    builder = SegmentBuilder(
        w.instruments, w.context, CONFIG
    )  # fmt: skip
    rows = 0
    for window in cut(w.whole, range(0, 999, 2)):
        rows += sum(len(new["ticks"]) for _, new in builder.add(window))
        assert builder.barriers == window.barrier_lo + len(window.closes)
        assert np.array_equal(builder.closes, w.whole.closes[: builder.barriers])
        assert builder.ticks.sum() == rows
    assert rows == len(w.whole.ticks)


# --- the cache ----------------------------------------------------------------------------------


def never() -> Iterator[Window]:
    raise AssertionError("the recording was read again")
    yield


def test_a_store_is_built_once_and_found_again(tmp_path: Path) -> None:
    """The second time nothing is read but the store; that it was opened is noted."""
    w = world(10, 3)
    place = cached_segments(recording(w), CONFIG, folder=tmp_path)
    assert [place] == list(tmp_path.iterdir())
    assert place.name == store_key(recording(w), CONFIG, b"")
    os.utime(place, (1, 1))
    again = cached_segments(recording(w, never()), CONFIG, folder=tmp_path)
    assert again == place
    assert place.stat().st_mtime > 1
    assert columns(open_segments(place)) == columns(build_segments(recording(w), CONFIG, None))


def cut_off(place: Path) -> None:
    path = place / "bars.bin"
    path.write_bytes(path.read_bytes()[:-1])


def too_long(place: Path) -> None:
    with (place / "ticks.bin").open("ab") as column:
        column.write(b"\0" * 32)


def foreign(place: Path) -> None:
    head = msgspec.json.decode((place / "store.json").read_bytes())
    (place / "store.json").write_bytes(msgspec.json.encode({**head, "format": FORMAT + 1}))


def half_a_head(place: Path) -> None:
    head = (place / "store.json").read_bytes()
    (place / "store.json").write_bytes(head[: len(head) // 2])


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a column is cut off": cut_off,
    "a column is too long": too_long,
    "a column is missing": lambda place: (place / "window.bin").unlink(),
    "a column is empty": lambda place: (place / "closes.bin").write_bytes(b""),
    "another format": foreign,
    "no head: it was not finished": lambda place: (place / "store.json").unlink(),
    "half a head": half_a_head,
    "an empty head": lambda place: (place / "store.json").write_bytes(b""),
    "another thing as head": lambda place: (place / "store.json").write_bytes(b'{"format":1}'),
    "no text": lambda place: (place / "store.json").write_bytes(bytes(range(256))),
    "an empty folder": lambda place: [path.unlink() for path in place.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_store_that_is_not_whole_is_built_again(damage: str, tmp_path: Path) -> None:
    """It is refused by who opens it, and replaced by who needs it."""
    w = world(11, 3)
    place = cached_segments(recording(w), CONFIG, folder=tmp_path)
    whole = columns(open_segments(place))
    DAMAGES[damage](place)
    with pytest.raises(DataError):
        open_segments(place)
    assert cached_segments(recording(w), CONFIG, folder=tmp_path) == place
    assert columns(open_segments(place)) == whole
    assert list(tmp_path.iterdir()) == [place]


def test_a_store_that_is_being_built_is_no_store(tmp_path: Path) -> None:
    """What a killed process has left is not taken for one, and is in nobody's way."""
    w = world(12, 3)
    place = cached_segments(recording(w), CONFIG, folder=tmp_path)
    left = place.rename(tmp_path / ".building-abc")
    (left / "store.json").unlink()
    assert cached_segments(recording(w), CONFIG, folder=tmp_path) == place
    open_segments(place)


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """The error is the one of the data, and the next build begins anew."""
    w = world(13, 3)

    def broken() -> Iterator[Window]:
        yield from list(cut(w.whole, range(999)))[:7]
        raise DataError("the file changed")

    with pytest.raises(DataError, match="the file changed"):
        cached_segments(recording(w, broken()), CONFIG, folder=tmp_path)
    assert not list(tmp_path.iterdir())
    cached_segments(recording(w), CONFIG, folder=tmp_path)


def test_a_store_that_is_removed_stays_readable_where_it_is_open(tmp_path: Path) -> None:
    """Who has mapped one goes on with it."""
    w = world(14, 3)
    segments = open_segments(cached_segments(recording(w), CONFIG, folder=tmp_path))
    before = columns(segments)
    cached_segments(recording(w, source="another"), CONFIG, folder=tmp_path, most_bytes=0)
    assert segments.folder is not None
    assert not segments.folder.exists()
    assert columns(segments) == before


@pytest.mark.parametrize("damaged", [False, True])
def test_several_that_build_at_once_all_have_it(tmp_path: Path, damaged: bool) -> None:
    """All find it missing, or damaged, all build, and one store is left, whoever was first."""
    w = world(15, 3)
    if damaged:
        torn = cached_segments(recording(w), CONFIG, folder=tmp_path) / "bars.bin"
        torn.write_bytes(torn.read_bytes()[:-1])
    together = threading.Barrier(4)
    found: list[Path] = []

    def windows() -> Iterator[Window]:
        together.wait(30)
        yield w.whole

    def build() -> None:
        found.append(cached_segments(recording(w, windows()), CONFIG, folder=tmp_path))

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (place,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert found == [place] * 4
    assert columns(open_segments(place)) == columns(build_segments(recording(w), CONFIG, None))


_BUILD = """
import sys
from pathlib import Path
from streambot.data.segment_cache import cached_segments
from tests.unit.data.test_segments import CONFIG, open_segments, recording, world
w = world(16, 6)
print("ready", flush=True)
sys.stdin.readline()
place = cached_segments(recording(w), CONFIG, folder=Path(sys.argv[1]))
print(place.name, open_segments(place).nbytes, flush=True)
"""


def test_two_processes_that_build_at_once_both_have_it(tmp_path: Path) -> None:
    """Neither waits for the other, neither fails, and one store is left."""
    command = [sys.executable, "-c", _BUILD, str(tmp_path)]
    pipes: dict[str, Any] = {
        "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE,
        "text": True, "cwd": ROOT,
    }  # fmt: skip
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as two:
        for process in (one, two):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        said = [process.communicate(timeout=90) for process in (one, two)]
    kept = build_segments(recording(world(16, 6)), CONFIG, None)
    (place,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert [out for out, _ in said] == [f"{place.name} {kept.nbytes}\n"] * 2, said
    assert columns(open_segments(place)) == columns(kept)


def size_of(place: Path) -> int:
    return sum(path.stat().st_size for path in place.iterdir())


def test_what_was_not_opened_for_longest_goes_first(tmp_path: Path) -> None:
    """Until the rest is within the bound; the newest stays, whatever the bound and its size."""
    w = world(17, 3)
    places = []
    for k in range(5):
        place = cached_segments(recording(w, source=f"s{k}"), CONFIG, folder=tmp_path)
        os.utime(place, (1000 + k, 1000 + k))
        places.append(place)
    one = size_of(places[0])
    os.utime(places[0], (5000, 5000))  # the first one was opened again

    def build(k: int, most: int) -> Path:
        return cached_segments(
            recording(w, source=f"s{k}"), CONFIG, folder=tmp_path, most_bytes=most
        )

    six = build(5, 6 * one)
    assert set(tmp_path.iterdir()) == {*places, six}
    seven = build(6, 4 * one + one // 2)
    assert set(tmp_path.iterdir()) == {places[0], places[4], six, seven}
    os.utime(seven, (1, 1))
    eight = build(7, one - 1)
    assert set(tmp_path.iterdir()) == {eight}
    assert build(7, 0) == eight
    open_segments(eight)


def test_by_default_they_lie_beside_the_users_other_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where `XDG_CACHE_HOME` says, as the hint of an error does."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert segments_folder() == tmp_path / "streambot" / "segments"
    place = cached_segments(recording(world(18, 2)), CONFIG)
    assert place.parent == segments_folder()


def test_a_full_disk_is_said_in_one_sentence(tmp_path: Path) -> None:
    """No trace of a half store stays, and with room it is built."""
    w = world(19, 6)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(DataError) as caught:
            cached_segments(recording(w), CONFIG, folder=tmp_path / "stores")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.message == "the segment store could not be built: File too large"
    assert caught.value.where == str(tmp_path / "stores")
    assert "XDG_CACHE_HOME" in caught.value.hint
    assert not list((tmp_path / "stores").iterdir())
    cached_segments(recording(w), CONFIG, folder=tmp_path / "stores")


def test_a_folder_that_cannot_be_made_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"could not be built: Not a directory"):
        cached_segments(recording(world(20, 2)), CONFIG, folder=tmp_path / "file" / "stores")


def test_a_folder_that_is_not_ones_own_is_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs the tests: the superuser would write everywhere."""

    def refuse(**_: Any) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(segment_cache.tempfile, "mkdtemp", refuse)
    with pytest.raises(DataError, match=r"could not be built: Permission denied"):
        cached_segments(recording(world(20, 2)), CONFIG, folder=tmp_path)


# --- the key ------------------------------------------------------------------------------------


def variations(w: World) -> dict[str, tuple[Recording, FeatureConfig, bytes]]:
    """One change each of all that a store depends on."""
    base, option = recording(w), "I002"
    fields = {name: getattr(CONFIG, name) for name in FeatureConfig.__struct_fields__}

    def changed(n: int, **more: Any) -> Recording:
        made = list(w.instruments)
        made[n] = msgspec.structs.replace(made[n], **more)
        return base._replace(instruments=tuple(made))

    def known(**more: Any) -> Recording:
        return base._replace(context={**w.context, option: w.context[option]._replace(**more)})

    def calendar(**more: Any) -> Recording:
        return known(calendar=w.context[option].calendar._replace(**more))

    opens, closes, _, _ = w.context[option].calendar
    one = np.array([DAY], np.int64)
    made: dict[str, Recording] = {
        "lot size": changed(0, lot_size=77),
        "tick size": changed(0, tick_size=Decimal("0.01")),
        "exchange": changed(0, exchange="XNYS"),
        "zone": changed(0, timezone="Asia/Kolkata"),
        "stop": changed(0, trail=TrailAtr(atr=2.5)),
        "expiry": changed(2, expiries=Expiries(expires_after=3)),
        "symbol": changed(0, symbol="OTHER"),
        "order of instruments": base._replace(instruments=w.instruments[::-1]),
        "one more": base._replace(instruments=(*w.instruments, kind(99))),
        "source": base._replace(source="another"),
        "complete": base._replace(complete=False),
        "decision": base._replace(decision_ns=2 * MINUTE),
        "real ticks": base._replace(stop_at_tick=True),
        "daily ATR": known(daily_atr=1.25),
        "no daily ATR": known(daily_atr=float("nan")),
        "daily count": known(daily_count=99),
        "daily close": known(daily_close=701),
        "opens": calendar(opens=opens + 1),
        "closes": calendar(closes=closes + 1),
        "an expiry": calendar(expiries=one, lots=one),
        "another expiry": calendar(expiries=one + 1, lots=one),
        "lots": calendar(expiries=one, lots=one + 1),
        "shorter calendar": calendar(opens=opens[:-1], closes=closes[:-1]),
        "no context": base._replace(context={}),
        "context of another": base._replace(
            context={("I005" if s == option else s): c for s, c in w.context.items()}
        ),
    }
    out = {name: (changed_to, CONFIG, b"") for name, changed_to in made.items()}
    out["features"] = (base, FeatureConfig(**{**fields, "clip": 4.0}), b"")
    out["salt"] = (base, CONFIG, b"another path")
    return out


def test_the_key_changes_with_everything_that_matters() -> None:
    """No two of these find each other's store."""
    w = world(21, 3)
    keys = {name: store_key(*what) for name, what in variations(w).items()}
    keys["as it is"] = store_key(recording(w), CONFIG, b"")
    by_key: dict[str, list[str]] = {}
    for name, key in keys.items():
        by_key.setdefault(key, []).append(name)
    assert [names for names in by_key.values() if len(names) > 1] == []
    assert all(key.isalnum() for key in by_key)


def test_the_key_does_not_change_with_what_does_not_matter() -> None:
    """Order of the context, how often it is asked, and the windows, which are not even read."""
    w = world(22, 9)
    key = store_key(recording(w, never()), CONFIG, b"x")
    turned = recording(w._replace(context=dict(reversed(w.context.items()))))
    assert len(w.context) == 3
    assert store_key(turned, CONFIG, b"x") == key
    copied = {
        s: SlotContext(Calendar(*(c.copy() for c in k.calendar)), *k[1:])
        for s, k in w.context.items()
    }
    assert store_key(recording(w._replace(context=copied)), CONFIG, b"x") == key
