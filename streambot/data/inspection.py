"""What is in a bar file, before anybody trusts it: spans, timeframe, gaps, defects.

Unlike a scan for a run, an inspection does not stop at the first fault: it counts all of them and
names the first of each kind.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from streambot.data.files import open_bars, symbol_of_file
from streambot.data.reading import split_by_code
from streambot.data.steps import StepCounter
from streambot.data.ticksize import tick_search, volume_search
from streambot.domain.errors import ConfigError, DataError
from streambot.domain.instruments import Instrument, InstrumentType
from streambot.domain.units import NANOS_PER_DAY

if TYPE_CHECKING:
    import numpy.typing as npt

    from streambot.data.source import BarFile, Batch

    Mask = npt.NDArray[np.bool_]


class Defect(msgspec.Struct, frozen=True):
    """Rows with one fault.

    Attributes:
        kind: what is wrong: `price_not_finite`, `price_not_positive`, `high_not_highest`,
            `low_not_lowest`, `volume_negative`, `unsorted`, `duplicate`, `crossed_quote`.
        rows: how many.
        first: file and row of the first one.
    """

    kind: str
    rows: int
    first: str


class SymbolInspection(msgspec.Struct, frozen=True, kw_only=True):
    """Bars of one symbol, as the file has them.

    Attributes:
        rows: of the file.
        first, last: stamps as the file writes them, ns: UTC, or wall time where it names no zone.
        timeframe_ns: the most common step; None with one row.
        timeframe_share: share of the steps that have that length.
        dates: distinct dates, as written.
        gaps: steps longer than the timeframe, nights and weekends among them.
        longest_gap: the longest step, and the stamp before it, ns.
        lowest, highest: prices.
        tick_size: the coarsest step that all prices are multiples of; None below 1e-8.
        volume_step: the same for volumes; None without volumes.
        zero_volume, no_volume, flat: rows that traded nothing, have no volume, have one price.
        newest_first: the rows go back in time from end to end.
        defects: faults, by kind.
    """

    symbol: str
    rows: int
    first: int
    last: int
    timeframe_ns: int | None
    timeframe_share: float
    dates: int
    gaps: int
    longest_gap: tuple[int, int]
    lowest: float
    highest: float
    tick_size: Decimal | None
    volume_step: Decimal | None
    zero_volume: int
    no_volume: int
    flat: int
    newest_first: bool
    defects: tuple[Defect, ...]


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """A bar file.

    Attributes:
        columns: which column is what.
        unused: columns that are not read.
        stamps: `instant` (UTC or an offset), `naive` (wall time, needs a zone) or `date`.
        rows: of the file.
        symbols: sorted.
        source, license: where the file itself says so, else empty.
    """

    path: str
    columns: str
    unused: tuple[str, ...]
    stamps: str
    rows: int
    symbols: tuple[SymbolInspection, ...]
    source: str
    license: str


def inspect(
    path: Path | str, *, quote_side: str = "bid", time_format: str | None = None
) -> Inspection:
    """Read all of `path` and say what is in it.

    Raises:
        DataError: it cannot be read as bars at all.
    """
    path = Path(path)
    file = open_bars(path, quote_side=quote_side, time_format=time_format)
    found: dict[str, _Symbol] = {}
    only = symbol_of_file(path, file)
    rows = 0
    for batch in file.batches():
        rows += len(batch.ts)
        names = {code: name for name, code in file.codes.items()}
        for code, index in split_by_code(batch):
            name = only if code is None else names[code]
            found.setdefault(name, _Symbol(file, name)).add(batch, index)
    metadata: dict[bytes, bytes] = getattr(file, "metadata", {})
    return Inspection(
        path=str(path),
        columns=file.columns.describe(),
        unused=file.columns.unused,
        stamps=file.stamps.value,
        rows=rows,
        symbols=tuple(found[name].result() for name in sorted(found)),
        source=metadata.get(b"source", b"").decode("utf-8", "replace"),
        license=metadata.get(b"license", b"").decode("utf-8", "replace"),
    )


def infer_instrument(
    path: Path | str, symbol: str | None = None, *, quote_side: str = "bid"
) -> Instrument:
    """The declaration that a file suggests: a stock, lot 1, with the steps seen in its numbers.

    Currency USD and zone UTC are assumed, which is for the caller to say.

    Args:
        path: the file.
        symbol: which of its instruments; None: the only one.

    Raises:
        DataError: no such symbol, or prices on no grid that a declaration could name.
        ConfigError: the symbol cannot be one.
    """
    inspected = {item.symbol: item for item in inspect(path, quote_side=quote_side).symbols}
    if symbol is None and len(inspected) == 1:
        symbol = next(iter(inspected))
    item = inspected.get(symbol or "")
    if item is None:
        raise DataError(
            f"no bars of {symbol}" if symbol else f"{len(inspected)} instruments",
            where=str(path),
            hint=f"one of {', '.join(sorted(inspected)[:8])}",
        )
    return declaration_of(item, path)


def declaration_of(item: SymbolInspection, path: Path | str) -> Instrument:
    """The declaration that what was seen of a symbol suggests. See `infer_instrument`.

    Raises:
        DataError: prices on no grid that a declaration could name.
        ConfigError: the symbol cannot be one.
    """
    if item.tick_size is None:
        raise DataError(
            f"prices of {item.symbol} are finer than 8 decimals",
            where=str(path),
            hint="declare it in instruments.yaml with a tick size, and give --round",
        )
    fields = {
        "symbol": item.symbol,
        "type": InstrumentType.STOCK,
        "lot_size": 1,
        "tick_size": item.tick_size,
        "volume_step": item.volume_step or Decimal(1),
    }
    try:
        return msgspec.convert(fields, Instrument)
    except (ValueError, msgspec.ValidationError) as error:
        raise ConfigError(
            f"`{item.symbol}` cannot be declared: {error}",
            where=str(path),
            hint="rename the symbol, or the file if it has one instrument",
        ) from error


class _Symbol:
    """Counts over the rows of one symbol."""

    def __init__(self, file: BarFile, name: str) -> None:
        self._file = file
        self._name = name
        self._rows = self._dates = self._zero = self._none = self._flat = 0
        self._first = self._last = 0
        self._day: int | None = None
        self._steps = StepCounter()
        self._longest = (0, 0)
        self._ticks, self._volumes = tick_search(), volume_search()
        self._low, self._high = np.inf, -np.inf
        self._back = self._forward = 0
        self._has_volume = False
        self._defects: dict[str, list[Any]] = {}

    def add(self, batch: Batch, index: npt.NDArray[np.intp] | None) -> None:
        """Count the rows `index` of `batch`."""

        def pick(column: Any) -> Any:  # noqa: ANN401  an array or None
            return column if column is None or index is None else column[index]

        ts = pick(batch.ts)
        prices = np.stack([pick(getattr(batch, name)) for name in ("open", "high", "low", "close")])

        def place(row: int) -> str:
            within = row if index is None else int(index[row])
            return self._file.place(batch.first_row + batch.row_step * within)

        finite = np.isfinite(prices).all(axis=0)
        positive = finite & (prices > 0).all(axis=0)
        open_, high, low, close = prices
        with np.errstate(invalid="ignore"):
            noise = 1e-9 * high
            tops = positive & (high < np.maximum(open_, np.maximum(close, low)) - noise)
            bottoms = positive & (low > np.minimum(open_, close) + noise)
        self._note("price_not_finite", ~finite, place)
        self._note("price_not_positive", finite & ~positive, place)
        self._note("high_not_highest", tops, place)
        self._note("low_not_lowest", bottoms, place)
        other = pick(batch.other_close)
        if other is not None:
            ask_is_other = self._file.columns.close.lower().startswith("bid")
            with np.errstate(invalid="ignore"):
                self._note(
                    "crossed_quote", (close > other) if ask_is_other else (close < other), place
                )
        self._add_volume(pick(batch.volume), len(ts), place)
        self._flat += int(np.count_nonzero(positive & (high == low)))
        if positive.any():
            self._low = min(self._low, float(low[positive].min()))
            self._high = max(self._high, float(high[positive].max()))
        for column in prices:
            self._ticks.add(column)
        self._add_stamps(ts, place)

    def _add_volume(self, volume: Any, rows: int, place: Any) -> None:  # noqa: ANN401
        if volume is None:
            self._none += rows
            return
        with np.errstate(invalid="ignore"):
            self._note("volume_negative", volume < 0, place)
        self._zero += int(np.count_nonzero(volume == 0))
        self._none += int(np.count_nonzero(np.isnan(volume)))
        self._has_volume = self._has_volume or bool(np.isfinite(volume).any())
        self._volumes.add(volume)

    def _add_stamps(self, ts: npt.NDArray[np.int64], place: Any) -> None:  # noqa: ANN401
        before = ts[:1] if self._rows == 0 else np.array([self._last], dtype=np.int64)
        steps = np.diff(np.concatenate([before, ts]))
        if self._rows == 0:
            steps = steps[1:]
        offset = len(ts) - len(steps)
        self._forward += int(np.count_nonzero(steps > 0))
        self._back += int(np.count_nonzero(steps < 0))
        self._note("unsorted", np.concatenate([np.zeros(offset, dtype=bool), steps < 0]), place)
        self._note("duplicate", np.concatenate([np.zeros(offset, dtype=bool), steps == 0]), place)
        sizes = np.abs(steps)
        self._steps.add_steps(sizes[sizes > 0])
        if len(sizes) and int(sizes.max()) > self._longest[0]:
            at = int(sizes.argmax())
            stamps = np.concatenate([before, ts]) if offset == 0 else ts
            self._longest = (int(sizes[at]), int(min(stamps[at], stamps[at + 1])))
        days = ts // NANOS_PER_DAY
        self._dates += int(np.count_nonzero(np.diff(days))) + int(self._day != int(days[0]))
        self._day = int(days[-1])
        if self._rows == 0:
            self._first = int(ts[0])
        self._rows += len(ts)
        self._last = int(ts[-1])

    def _note(self, kind: str, where: Mask, place: Any) -> None:  # noqa: ANN401
        count = int(np.count_nonzero(where))
        if not count:
            return
        if kind not in self._defects:
            self._defects[kind] = [0, place(int(np.argmax(where)))]
        self._defects[kind][0] += count

    def result(self) -> SymbolInspection:
        """The counts."""
        newest_first = self._back > 0 and self._forward == 0
        defects = {
            kind: found
            for kind, found in sorted(self._defects.items())
            if not (newest_first and kind == "unsorted")
        }
        timeframe = self._steps.most_common
        return SymbolInspection(
            symbol=self._name,
            rows=self._rows,
            first=min(self._first, self._last),
            last=max(self._first, self._last),
            timeframe_ns=timeframe,
            timeframe_share=self._steps.share_of(timeframe) if timeframe else 0.0,
            dates=self._dates,
            gaps=self._steps.longer_than(timeframe) if timeframe else 0,
            longest_gap=self._longest,
            lowest=float(self._low),
            highest=float(self._high),
            tick_size=self._ticks.step,
            volume_step=self._volumes.step if self._has_volume else None,
            zero_volume=self._zero,
            no_volume=self._none,
            flat=self._flat,
            newest_first=newest_first,
            defects=tuple(Defect(kind, *found) for kind, found in defects.items()),
        )
