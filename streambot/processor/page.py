"""Lines of several slots as one record, in the order of the rows that caused them, then of slots.

Lines stay bytes in arrays from the compiled code that wrote them to the record: an object per line
would cost more than writing the line did.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streambot.processor.lines import gather

Int64Array = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


class Page:
    """Collects the lines of one record.

    Args:
        slots: how many slots write to it.
    """

    def __init__(self, slots: int) -> None:
        self._slots = max(1, slots)
        self._data: list[Bytes] = []
        self._ends: list[Int64Array] = []
        self._keys: list[Int64Array] = []
        self._size = 0
        self.lines = 0

    def add(
        self, slot: int, rows: npt.NDArray[np.integer[Any]], data: Bytes, ends: Int64Array
    ) -> None:
        """Add lines of one slot, in their order.

        Args:
            slot: which one.
            rows: what caused each line, [n]; never decreasing from line to line of a slot.
            data: the bytes of the lines.
            ends: position behind each line in `data`, [n].
        """
        self._data.append(data)
        self._ends.append(ends + self._size)
        self._keys.append(rows.astype(np.int64) * self._slots + slot)
        self._size += len(data)
        self.lines += len(ends)

    def take(self) -> bytes | None:
        """The record, or None without lines; the page is empty afterwards."""
        if not self.lines:
            return None
        if len(self._data) == 1:
            record = self._data[0].tobytes()
        else:
            order = np.argsort(np.concatenate(self._keys), kind="stable")
            out = np.empty(self._size, np.uint8)
            gather(np.concatenate(self._data), np.concatenate(self._ends), order, out)
            record = out.tobytes()
        self._data, self._ends, self._keys = [], [], []
        self._size = self.lines = 0
        return record
