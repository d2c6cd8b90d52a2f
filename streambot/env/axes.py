"""Axes of a picture of an episode: numbers that can be read, and times of the exchange."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from math import ceil, floor, log10
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator

from streambot.domain.units import NANOS_PER_DAY, NANOS_PER_SECOND

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from streambot.env.history import Moment

_MINUTE = 60 * NANOS_PER_SECOND
_STEPS = (
    *(k * NANOS_PER_SECOND for k in (1, 5, 15, 30)),
    *(k * _MINUTE for k in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360)),
    *(k * NANOS_PER_DAY for k in (1, 2, 7, 14, 30, 91, 182, 365, 730, 1_826, 3_652)),
)
"""Distances between two labels of the time axis, ns."""
_MOST_LABELS = 8


def number_axis(axes: Axes, values: npt.NDArray[np.float64], most: int) -> None:
    """At most so many ticks, thousands separated, with the decimals that tell them apart."""
    if values.min() == values.max():  # what does not move has no scale of its own
        room = 1e-3 * abs(values[0]) or 1.0
        axes.set_ylim(values[0] - room, values[0] + room)
    low, high = axes.get_ylim()
    ticks = np.array(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high))
    step = float(ticks[1] - ticks[0])
    ticks = ticks[(ticks >= low) & (ticks <= high)]
    decimals = min(8, max(0, -floor(log10(step) + 1e-9)))
    if abs(step * 10**decimals - round(step * 10**decimals)) > 1e-6:
        decimals += 1  # 2.5 needs one more than 2
    axes.yaxis.set_major_locator(FixedLocator(ticks.tolist()))
    axes.yaxis.set_major_formatter(FixedFormatter([f"{tick:,.{decimals}f}" for tick in ticks]))


def time_axis(axes: Axes, moments: list[Moment], zone_name: str) -> None:
    """Labels at round times of the exchange; a new date is said below the first of its times."""
    zone = ZoneInfo(zone_name)
    local = _local(np.array([m.ts for m in moments], np.int64), zone)
    at, step = _round_times(local)
    clock = "%H:%M:%S" if np.any(local[at] % _MINUTE) else "%H:%M"
    labels = []
    before = None
    for k in at:
        time = dt.datetime.fromtimestamp(int(local[k]) // NANOS_PER_SECOND, tz=dt.UTC)
        text = f"{time:%Y-%m-%d}" if step >= NANOS_PER_DAY else time.strftime(clock)
        if step < NANOS_PER_DAY and time.date() != before:
            text += f"\n{time:%Y-%m-%d}"
        before = time.date()
        labels.append(text)
    axes.xaxis.set_major_locator(FixedLocator(at))
    axes.xaxis.set_major_formatter(FixedFormatter(labels))
    axes.annotate(
        f"bar closes, {zone_name}", (1, 0), (0, -34), xycoords="axes fraction",
        textcoords="offset points", ha="right", va="top", fontsize=8.5,
    )  # fmt: skip


def _local(ts: npt.NDArray[np.int64], zone: ZoneInfo) -> npt.NDArray[np.int64]:
    """Wall times of the zone, ns, as if they were UTC; its offset is looked up once an hour."""
    hour = 3_600 * NANOS_PER_SECOND
    hours, which = np.unique(ts // hour, return_inverse=True)
    offsets = np.array([_offset(int(h) * 3_600, zone) for h in hours], np.int64)
    shifted: npt.NDArray[np.int64] = ts + offsets[which] * NANOS_PER_SECOND
    return shifted


def _offset(seconds: int, zone: ZoneInfo) -> int:
    offset = dt.datetime.fromtimestamp(seconds, tz=zone).utcoffset()
    return int((offset or dt.timedelta()).total_seconds())


def _round_times(local: npt.NDArray[np.int64]) -> tuple[list[int], int]:
    """Moments that are labelled, and the step between round times, ns."""
    gap = max(1, ceil(len(local) / (_MOST_LABELS + 2)))
    at, step = [0], NANOS_PER_DAY
    for step in _STEPS:
        at = [0, *(np.flatnonzero(np.diff(local // step)) + 1).tolist()]
        if len(at) <= _MOST_LABELS + 1:
            break
    # The first moment is seldom at a round time: where there is no room for both, it goes.
    if len(at) > 2 and at[1] < gap:
        at = at[1:]
    kept = at[:1]
    kept += [k for before, k in pairwise(at) if k - before >= gap or k == before]
    return kept, step
