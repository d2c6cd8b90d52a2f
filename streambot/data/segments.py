"""The segment store: a recording, taken apart by instrument, as an environment reads it.

A recording is consumed once, in order, and becomes immutable columns: the ticks of each instrument,
one after the other, and for each decision bar where its ticks begin, what the engine's slot knew at
its close (indicators, daily bars), and the market features of a policy. None of it depends on what
anybody does, so every episode shares it; an episode that begins at bar k begins with what the whole
recording up to k has left behind, and reads nothing but its own rows. On disk the columns are mapped
into memory, not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from streambot.domain.errors import DataError
from streambot.domain.instruments import Instrument
from streambot.domain.ticks import TICK
from streambot.engine.ordering import Calendar
from streambot.market.feature_config import FeatureConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

Int64Array = npt.NDArray[np.int64]
Records = npt.NDArray[np.void]

BAR_ROW = np.dtype(
    [
        ("tick", "i8"),
        ("open_ts", "i8"),
        ("close_ts", "i8"),
        ("barrier", "i8"),
        ("open", "i8"),
        ("high", "i8"),
        ("low", "i8"),
        ("close", "i8"),
        ("volume", "i8"),
        ("atr", "f8"),
        ("atr_count", "i8"),
        ("prev_close", "i8"),
        ("day_open", "i8"),
        ("day_high", "i8"),
        ("day_low", "i8"),
        ("day_prev_close", "i8"),
        ("daily_atr", "f8"),
        ("daily_count", "i8"),
    ],
    align=True,
)
"""One decision bar: `tick` is its first row among the instrument's ticks; `atr` and what follows are
the fields of `engine.slots.SLOT` with the same names, at the bar's close."""

_COLUMNS = {
    "ticks": TICK,
    "bars": BAR_ROW,
    "window": np.dtype("f4"),
    "slow": np.dtype("f4"),
    "closes": np.dtype("i8"),
    "session_opens": np.dtype("i8"),
    "session_closes": np.dtype("i8"),
    "expiries": np.dtype("i8"),
    "lots": np.dtype("i8"),
}
BY_INSTRUMENT = tuple(name for name in _COLUMNS if name != "closes")
"""Columns that hold the rows of one instrument after the other."""
FORMAT = 1
_HEAD = "store.json"


class SegmentHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a store says of itself.

    Attributes:
        format: version of the layout.
        source: what was recorded, with its fingerprint.
        complete: False: the recording had no end yet; these are its first barriers.
        instruments: by number.
        features: which market features.
        decision_ns: decision timeframe.
        stop_at_tick: ticks are real; False: they were made from bars.
        starts: first row of each instrument in every column of `BY_INSTRUMENT`, and their total.
        barriers: of the recording.
    """

    format: int
    source: str
    complete: bool
    instruments: tuple[Instrument, ...]
    features: FeatureConfig
    decision_ns: int
    stop_at_tick: bool
    starts: dict[str, tuple[int, ...]]
    barriers: int


class Segments(NamedTuple):
    """A store, open.

    Attributes:
        head: what it is.
        ticks: `TICK` [t].
        bars: `BAR_ROW` [b].
        window: float32 [b, window fields].
        slow: float32 [b, slow fields].
        closes: close of every barrier, UTC ns, int64 [barriers].
        session_opens, session_closes: calendar of each instrument, UTC ns.
        expiries, lots: contracts of each instrument; see `engine.ordering.Calendar`.
        folder: where it lies; None: in memory.
    """

    head: SegmentHead
    ticks: Records
    bars: Records
    window: npt.NDArray[np.float32]
    slow: npt.NDArray[np.float32]
    closes: Int64Array
    session_opens: Int64Array
    session_closes: Int64Array
    expiries: Int64Array
    lots: Int64Array
    folder: Path | None

    def bars_of(self, n: int) -> Records:
        """The bars of instrument `n`."""
        low, high = self.rows("bars", n)
        return self.bars[low:high]

    def rows(self, column: str, n: int) -> tuple[int, int]:
        """First row of instrument `n` in a column, and the row behind its last."""
        starts = self.head.starts[column]
        return starts[n], starts[n + 1]

    def calendar(self, n: int) -> Calendar:
        """Sessions and contracts of instrument `n`."""
        opens, ends = self.rows("session_opens", n), self.rows("expiries", n)
        return Calendar(
            self.session_opens[slice(*opens)].copy(),
            self.session_closes[slice(*opens)].copy(),
            self.expiries[slice(*ends)].copy(),
            self.lots[slice(*ends)].copy(),
        )

    def number(self, symbol: str) -> int | None:
        """Number of the instrument `symbol`; None: the store has none."""
        for n, instrument in enumerate(self.head.instruments):
            if instrument.symbol == symbol:
                return n
        return None

    @property
    def nbytes(self) -> int:
        """Bytes of all columns."""
        return sum(column.nbytes for column in self if isinstance(column, np.ndarray))


def _shape(column: str, rows: int, features: FeatureConfig) -> tuple[int, ...]:
    if column == "window":
        return rows, len(features.window_fields)
    return (rows, len(features.slow_fields)) if column == "slow" else (rows,)


def rows_in(head: SegmentHead, column: str) -> int:
    """How many rows a column has."""
    return head.barriers if column == "closes" else head.starts[column][-1]


def in_memory(head: SegmentHead, parts: dict[str, Sequence[npt.NDArray[Any]]]) -> Segments:
    """A store of arrays: the parts of each column, in order."""
    columns = {}
    for name, dtype in _COLUMNS.items():
        shape = _shape(name, rows_in(head, name), head.features)
        joined = np.concatenate(parts[name]) if parts[name] else np.empty(shape, dtype)
        columns[name] = np.ascontiguousarray(joined.astype(dtype, copy=False).reshape(shape))
        columns[name].flags.writeable = False
    return Segments(head=head, **columns, folder=None)


def file_of(folder: Path, column: str) -> Path:
    """Where a column lies in a store's folder."""
    return folder / f"{column}.bin"


def write_head(folder: Path, head: SegmentHead) -> None:
    """Finish a store: one without its head is none."""
    (folder / _HEAD).write_bytes(msgspec.json.encode(head))


def open_segments(folder: Path) -> Segments:
    """Map the store in `folder` into memory.

    Raises:
        DataError: there is none, it is damaged, or another version wrote it.
    """
    try:
        head = msgspec.json.decode((folder / _HEAD).read_bytes(), type=SegmentHead)
    except (OSError, msgspec.DecodeError) as cause:
        raise DataError(
            "no segment store",
            where=str(folder),
            hint="make the environment anew: it is built again",
        ) from cause
    if head.format != FORMAT:
        raise DataError(f"a segment store of format {head.format}, not {FORMAT}", where=str(folder))
    if not _is_sane(head):
        raise DataError("a segment store whose columns do not fit together", where=str(folder))
    columns = {}
    for name, dtype in _COLUMNS.items():
        path, shape = file_of(folder, name), _shape(name, rows_in(head, name), head.features)
        wanted = int(np.prod(shape)) * dtype.itemsize
        found = path.stat().st_size if path.exists() else -1
        if found != wanted:
            raise DataError(
                f"the column `{name}` has {found:,} bytes, not {wanted:,}",
                where=str(path),
                hint="delete the folder: it is built again",
            )
        try:
            columns[name] = (
                np.memmap(path, dtype, "r", shape=shape).view(np.ndarray)
                if wanted
                else np.empty(shape, dtype)
            )
        except OSError as cause:
            raise DataError(
                f"the column `{name}` cannot be read: {cause.strerror}", where=str(path)
            ) from cause
    return Segments(head=head, **columns, folder=folder)


def _is_sane(head: SegmentHead) -> bool:
    """Compiled code asks nobody whether a row is there: the head must not say what is not."""
    size = len(head.instruments) + 1
    if set(head.starts) != set(BY_INSTRUMENT) or head.barriers < 0:
        return False
    return all(
        len(rows) == size and rows[0] == 0 and list(rows) == sorted(rows)
        for rows in head.starts.values()
    ) and (
        head.starts["bars"] == head.starts["window"] == head.starts["slow"]
        and head.starts["session_opens"] == head.starts["session_closes"]
        and head.starts["expiries"] == head.starts["lots"]
    )
