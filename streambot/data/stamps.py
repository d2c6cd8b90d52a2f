"""Stamps as files write them -> int64 nanoseconds, and whether they say where they were written.

Texts are read by a format that is fixed by the first value of the file: no value is read by
another rule than its neighbour. A form that two conventions share (03/04/2024) is refused until
the format is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from streambot.data.arrow import values_of
from streambot.domain.errors import DataError
from streambot.domain.units import NANOS_PER_DAY, NANOS_PER_SECOND

Int64Array = npt.NDArray[np.int64]
Place = Callable[[int], str]
"""Names a row of a file for a message: `mine.csv:line 17`."""


class StampKind(Enum):
    """What a column of stamps leaves open."""

    INSTANT = "instant"
    """Moments: UTC, an offset, or an epoch."""
    NAIVE = "naive"
    """Wall times without a zone."""
    DATE = "date"
    """Dates without a time: days of an exchange, which need no zone to be told apart."""


class StampFormat(NamedTuple):
    """How texts are read: `iso`, `epoch` (a count since 1970), or a `strptime` pattern."""

    pattern: str
    kind: StampKind


_NANOS = {"s": NANOS_PER_SECOND, "ms": 1_000_000, "us": 1_000, "ns": 1}
# Counts since 1970 by magnitude: each unit covers 1973 to 2286 in the range given here.
_EPOCHS = (
    (10**8, 10**10, NANOS_PER_SECOND),
    (10**11, 10**13, 10**6),
    (10**14, 10**16, 10**3),
    (10**17, 10**19, 1),
)

_EPOCH = "epoch"
_CLOCK = r"\d{1,2}:\d{2}"
_OFFSET = re.compile(r"[T ]\d{2}:\d{2}.*(Z|[+-]\d{2}:?\d{2}|[+-]\d{2})$")
_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^\d{8}$"), "%Y%m%d"),
    (re.compile(r"^\d{8} \d{6}$"), "%Y%m%d %H%M%S"),
    (re.compile(rf"^\d{{8}} {_CLOCK}$"), "%Y%m%d %H:%M"),
    (re.compile(rf"^\d{{8}} {_CLOCK}:\d{{2}}$"), "%Y%m%d %H:%M:%S"),
    *(
        (re.compile(date + tail), pattern + suffix)
        for date, pattern in (
            (r"^\d{1,2}\.\d{1,2}\.\d{4}", "%d.%m.%Y"),
            (r"^\d{4}\.\d{1,2}\.\d{1,2}", "%Y.%m.%d"),
            (r"^\d{4}/\d{1,2}/\d{1,2}", "%Y/%m/%d"),
            (r"^\d{1,2}-[A-Za-z]{3}-\d{4}", "%d-%b-%Y"),
            (r"^\d{1,2} [A-Za-z]{3} \d{4}", "%d %b %Y"),
        )
        for tail, suffix in (
            ("$", ""),
            (rf" {_CLOCK}$", " %H:%M"),
            (rf" {_CLOCK}:\d{{2}}$", " %H:%M:%S"),
        )
    ),
)
_ISO = re.compile(
    r"^\d{4}-\d{2}-\d{2}([T ]\d{2}(:?\d{2}){0,2}(\.\d{1,9})?)?(Z|[+-]\d{2}(:?\d{2})?)?$"
)


def detect_format(sample: str, *, given: str | None, where: str) -> StampFormat:
    """How to read stamps that look like `sample`.

    Raises:
        DataError: no form fits, or two do.
    """
    if given is not None:
        kind = StampKind.INSTANT if "%z" in given else StampKind.NAIVE
        return StampFormat(given, kind if re.search(r"%[HITX]", given) else StampKind.DATE)
    text = sample.strip()
    if _ISO.match(text):
        if len(text) == 10:
            return StampFormat("iso", StampKind.DATE)
        return StampFormat("iso", StampKind.INSTANT if _OFFSET.search(text) else StampKind.NAIVE)
    for form, pattern in _FORMS:
        if form.match(text):
            return StampFormat(pattern, StampKind.NAIVE if "%H" in pattern else StampKind.DATE)
    if re.match(r"^\d{9,19}(\.0*)?$", text):
        return StampFormat(_EPOCH, StampKind.INSTANT)
    if re.match(r"^\d{1,2}[/-]\d{1,2}[/-]\d{2,4}", text):
        raise DataError(
            f"{sample!r} may be day first or month first",
            where=where,
            hint="give the format of the stamps, for example time_format='%d/%m/%Y %H:%M'",
        )
    raise DataError(
        f"{sample!r} is no time that is known here",
        where=where,
        hint="ISO 8601 (2024-01-31 09:15:00), an epoch, or give time_format",
    )


def parse_texts(texts: pa.Array, form: StampFormat, *, place: Place, first_row: int) -> Int64Array:
    """Nanoseconds of `texts` (of the wall time, or of UTC where they carry an offset).

    Raises:
        DataError: a value that does not fit `form`, by row.
    """
    texts = pc.utf8_trim_whitespace(texts)
    try:
        if form.pattern == _EPOCH:
            counts = pc.replace_substring_regex(texts, r"\.0*$", "").cast(pa.int64())
            first = counts.drop_null()
            factor = (
                epoch_factor(float(first[0].as_py()), where=place(first_row)) if len(first) else 1
            )
            return _integers(counts, factor, place=place, first_row=first_row)
        if form.pattern == "iso":
            target = pa.timestamp("ns", "UTC" if form.kind is StampKind.INSTANT else None)
            stamps = texts.cast(target)
        else:
            stamps = pc.strptime(texts, format=form.pattern, unit="us").cast(pa.timestamp("ns"))
    except pa.ArrowInvalid as error:
        row, text = _first_misfit(texts, form)
        raise DataError(
            f"{text!r} is not a time like the ones before it",
            where=place(first_row + row),
            hint="give every row the form of the first",
        ) from error
    return _integers(stamps, 1, place=place, first_row=first_row)


def _first_misfit(texts: pa.Array, form: StampFormat) -> tuple[int, str]:
    low, high = 0, len(texts)  # the first row that fails lies in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            parse_texts(texts.slice(low, middle - low), form, place=str, first_row=0)
        except DataError:
            high = middle
        else:
            low = middle
    return low, str(texts[low].as_py())


def _integers(column: pa.Array, factor: int, *, place: Place, first_row: int) -> Int64Array:
    if column.null_count:
        row = first_row + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise DataError("the stamp is missing", where=place(row))
    values = values_of(column.cast(pa.int64()), np.int64)
    if factor != 1 and len(values):
        bound = np.iinfo(np.int64).max // factor
        if int(values.max()) > bound or int(values.min()) < -bound:
            raise DataError("a stamp lies outside the years 1678 to 2262", where=place(first_row))
        return np.asarray(values * factor, dtype=np.int64)
    return np.asarray(values, dtype=np.int64)


def epoch_factor(value: float, *, where: str) -> int:
    """Nanoseconds of one unit of a count since 1970, from the size of a value.

    Raises:
        DataError: `value` is no date between 1973 and 2286 in any unit.
    """
    for low, high, factor in _EPOCHS:
        if low <= value < high:
            return factor
    raise DataError(
        f"{value:g} is no count of s, ms, us or ns since 1970",
        where=where,
        hint="map the column that holds the time",
    )


def column_kind(kind: pa.DataType) -> StampKind | None:
    """What an Arrow column type says by itself; None for texts, which the first value decides."""
    if pa.types.is_timestamp(kind):
        return StampKind.INSTANT if kind.tz is not None else StampKind.NAIVE
    if pa.types.is_date(kind):
        return StampKind.DATE
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return StampKind.INSTANT
    return None


def typed_stamps(
    column: pa.Array, *, place: Place, first_row: int, factor: int | None = None
) -> Int64Array:
    """Nanoseconds of a column of timestamps, dates or epochs (`factor`: the epoch's unit)."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return _integers(column, _NANOS[kind.unit], place=place, first_row=first_row)
    if pa.types.is_date(kind):
        days = column.cast(pa.date32()).cast(pa.int32())
        return _integers(days, NANOS_PER_DAY, place=place, first_row=first_row)
    if pa.types.is_floating(kind):
        column = column.cast(pa.int64(), safe=False)
    return _integers(column, factor or 1, place=place, first_row=first_row)


def times_of_day(column: pa.Array) -> pa.Array:
    """A column of times of day as texts, for joining with its dates."""
    return column.cast(pa.string())
