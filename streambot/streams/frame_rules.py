"""What the rows of a frame must obey, checked in one compiled pass on both sides of the log.

A crc tells a damaged frame from a whole one; it says nothing about a writer that is wrong. So the
writer is held to these rules before a byte leaves, and the reader again before a row reaches the
engine. Each rule has a number: the compiled pass returns (rule, row), the caller makes the message.

Rules (interval = `barrier_lo + bar`; interval k lies between the closes k - 1 and k):

- close times increase; `bar` never decreases and is at most the count of closes (a frame may end
  inside an interval that it does not close);
- `ts` never decreases, and lies between the closes around its interval, and in [t_lo, t_hi];
- prices are positive, sizes are `UNKNOWN_SIZE` or more, instruments and flags are known;
- SESSION_CLOSE comes with BAR_CLOSE, and BAR_CLOSE is the instrument's last row of its interval.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streambot.domain.ticks import KNOWN_FLAGS, UNKNOWN_SIZE, TickFlag
from streambot.jit import njit

if TYPE_CHECKING:
    import numpy.typing as npt

    from streambot.domain.ticks import TickBlock

MESSAGES = {
    1: "close times do not increase",
    2: "a close time lies outside the frame's span",
    3: "`bar` decreases",
    4: "`bar` lies behind the frame's last interval",
    5: "`ts` decreases",
    6: "`ts` lies outside the frame's span",
    7: "`ts` is later than the close of its interval",
    8: "`ts` is earlier than the close before its interval",
    9: "price is not positive",
    10: "size is below -1",
    11: "unknown instrument",
    12: "unknown flag",
    13: "SESSION_CLOSE without BAR_CLOSE",
    14: "a row behind the BAR_CLOSE of its instrument and interval",
}
ORDER_RULES = frozenset({3, 5, 7, 8, 14})
"""Rules whose breach means that ticks go back in time."""

_BAR_CLOSE = int(TickFlag.BAR_CLOSE)
_SESSION_CLOSE = int(TickFlag.SESSION_CLOSE)
_UNKNOWN_FLAGS = 0xFF & ~KNOWN_FLAGS


# Columns that come from Arrow cannot be written; numba lets a writable array pass as well.
_COLUMN = "Array({}, 1, 'C', readonly=True)"
_SIGNATURE = "UniTuple(int64, 2)({}, int64, int64, int64)".format(
    ", ".join(
        _COLUMN.format(kind)
        for kind in ("uint16", "uint16", "uint8", "int64", "int64", "int64", "int64")
    )
)


@njit(_SIGNATURE)
def _first_breach(  # noqa: C901, PLR0911, PLR0912  # one pass, one branch a rule
    instrument: npt.NDArray[np.uint16], bar: npt.NDArray[np.uint16], flags: npt.NDArray[np.uint8],
    ts: npt.NDArray[np.int64], price: npt.NDArray[np.int64], size: npt.NDArray[np.int64],
    closes: npt.NDArray[np.int64], t_lo: int, t_hi: int, n_instruments: int,
) -> tuple[int, int]:  # fmt: skip
    count = closes.shape[0]
    for k in range(count):
        if k > 0 and closes[k] <= closes[k - 1]:
            return 1, k
        if closes[k] < t_lo or closes[k] > t_hi:
            return 2, k
    closed_in = np.full(n_instruments, -1, np.int64)
    last_bar = np.int64(0)
    last_ts = t_lo
    for row in range(ts.shape[0]):
        interval = np.int64(bar[row])
        at = ts[row]
        if interval < last_bar:
            return 3, row
        if interval > count:
            return 4, row
        if at < last_ts:
            return (6 if row == 0 else 5), row
        if at > t_hi:
            return 6, row
        if interval < count and at > closes[interval]:
            return 7, row
        if interval > 0 and at < closes[interval - 1]:
            return 8, row
        if price[row] <= 0:
            return 9, row
        if size[row] < UNKNOWN_SIZE:
            return 10, row
        number = np.int64(instrument[row])
        if number >= n_instruments:
            return 11, row
        flag = flags[row]
        if flag & _UNKNOWN_FLAGS:
            return 12, row
        if flag & _SESSION_CLOSE and not flag & _BAR_CLOSE:
            return 13, row
        if closed_in[number] == interval:
            return 14, row
        if flag & _BAR_CLOSE:
            closed_in[number] = interval
        last_bar = interval
        last_ts = at
    return 0, 0


def first_breach(
    ticks: TickBlock, closes: npt.NDArray[np.int64], t_lo: int, t_hi: int, n_instruments: int
) -> tuple[int, int]:
    """First broken rule and its row (of `closes` for rules 1 and 2); (0, 0): none.

    Columns must be contiguous and aligned, `bar` uint16.
    """
    bar: Any = ticks.bar
    rule, row = _first_breach(
        ticks.instrument, bar, ticks.flags, ticks.ts, ticks.price, ticks.size,
        closes, t_lo, t_hi, n_instruments,
    )  # fmt: skip
    return int(rule), int(row)
