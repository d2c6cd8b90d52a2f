"""Compiled inner loops of a recording: what its rows are, and the order of several partitions' rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streambot.domain.ticks import TickFlag
from streambot.jit import njit

Int64Array = npt.NDArray[np.int64]

NO_TIME = int(np.iinfo(np.int64).min)
_OPEN = int(TickFlag.BAR_OPEN)
_CLOSE = int(TickFlag.BAR_CLOSE)
_SESSION = int(TickFlag.SESSION_CLOSE)


@njit
def note_rows(
    instrument: npt.NDArray[np.uint16],
    bar: npt.NDArray[np.uint16],
    flags: npt.NDArray[np.uint8],
    ts: Int64Array,
    barrier_lo: int,
    limit: int,
    counts: Int64Array,
    first: Int64Array,
    opened: Int64Array,
    closing: Int64Array,
) -> tuple[int, int]:
    """Count the rows of a frame whose interval lies before `limit`.

    `counts` [n, 2] gets bars of the source and decision bars, `first` [n] the first tick, `opened`
    [n] the begin of the session that is open (`NO_TIME`: none). `closing` gets a row for every decision bar
    that closes: instrument, begin of the session that ends with it (`NO_TIME`:
    none), interval.
    Returns (rows, rows of `closing`).
    """
    found = 0
    for row in range(len(ts)):
        interval = barrier_lo + np.int64(bar[row])
        if interval >= limit:
            return row, found
        i, flag = instrument[row], flags[row]
        if first[i] == NO_TIME:
            first[i] = ts[row]
        if opened[i] == NO_TIME:
            opened[i] = ts[row]
        if flag & _OPEN:
            counts[i, 0] += 1
        if flag & _CLOSE:
            counts[i, 1] += 1
            closing[found, 0] = i
            closing[found, 1] = NO_TIME
            closing[found, 2] = interval
            if flag & _SESSION:
                closing[found, 1] = opened[i]
                opened[i] = NO_TIME
            found += 1
    return len(ts), found


@njit
def merged_order(
    interval: Int64Array, ts: Int64Array, instrument: npt.NDArray[np.uint16], edges: Int64Array
) -> Int64Array:
    """The order of rows by interval, time and instrument; those of part p are `edges[p]` to `edges[p + 1]`.

    Each part is in that order already, and an instrument is in one part only.
    """
    parts = len(edges) - 1
    heads = edges[:-1].copy()
    out = np.empty(len(ts), np.int64)
    for at in range(len(ts)):
        best = -1
        for part in range(parts):
            row = heads[part]
            if row == edges[part + 1]:
                continue
            if best < 0:
                best = part
                continue
            other = heads[best]
            if interval[row] != interval[other]:
                earlier = interval[row] < interval[other]
            elif ts[row] != ts[other]:
                earlier = ts[row] < ts[other]
            else:
                earlier = instrument[row] < instrument[other]
            if earlier:
                best = part
        out[at] = heads[best]
        heads[best] += 1
    return out
