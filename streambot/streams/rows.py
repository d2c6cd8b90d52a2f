"""Rows of a frame, taken apart by slot."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from streambot.jit import njit


@njit
def rows_by_slot(
    instrument: npt.NDArray[np.uint16], slot_of: npt.NDArray[np.int64], slots: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of each slot, in their order.

    Args:
        instrument: number of each row's instrument, uint16 [n].
        slot_of: slot of each instrument of the run, int64; -1: of another partition.
        slots: count of slots.

    Returns:
        Rows ordered by slot, int64 [n], and where each slot starts, int64 [slots + 1]; the last
        is less than n where a row belongs to no slot here.
    """
    starts = np.zeros(slots + 1, np.int64)
    for k in range(len(instrument)):
        slot = slot_of[instrument[k]]
        if slot >= 0:
            starts[slot + 1] += 1
    for slot in range(slots):
        starts[slot + 1] += starts[slot]
    at = starts.copy()
    rows = np.empty(len(instrument), np.int64)
    for k in range(len(instrument)):
        slot = slot_of[instrument[k]]
        if slot >= 0:
            rows[at[slot]] = k
            at[slot] += 1
    return rows, starts
