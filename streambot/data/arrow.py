"""Values of Arrow columns as numpy arrays, without pandas.

`pyarrow.Array.to_numpy` imports pandas where it is installed: a third of a second of every start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa


def values_of(column: pa.Array, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """The values of a column of fixed-width numbers without nulls; a view of its buffer.

    Args:
        column: of the type that `dtype` names.
        dtype: numpy's name of the column's type.
    """
    if column.null_count:
        raise ValueError("a column with nulls has no plain values")
    wanted = np.dtype(dtype)
    if not len(column):
        return np.zeros(0, wanted)
    end = column.offset + len(column)
    values: npt.NDArray[Any] = np.frombuffer(column.buffers()[1], wanted, count=end)
    return values[column.offset :]
