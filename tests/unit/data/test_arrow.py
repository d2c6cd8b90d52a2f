"""Arrow's values without pandas: slices, chunks, every width, and no import."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from streambot.data.arrow import values_of


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint16, np.float64])
def test_a_slice_is_its_own_values(dtype: type) -> None:
    whole = np.arange(50).astype(dtype)
    column = pa.array(whole)
    assert values_of(column, dtype).tolist() == whole.tolist()
    assert values_of(column.slice(7, 11), dtype).tolist() == whole[7:18].tolist()
    assert values_of(column.slice(3, 0), dtype).tolist() == []


def test_nulls_are_refused() -> None:
    with pytest.raises(ValueError, match="nulls"):
        values_of(pa.array([1, None]), np.int64)


def test_reading_bundled_bars_needs_no_pandas() -> None:
    program = (
        "import sys\n"
        "from streambot.data.loader import DataLoader\n"
        "from streambot.domain.bundled import bundled_path\n"
        "from streambot.domain.registry import bundled_registry\n"
        "path = bundled_path('replay') / 'bars' / 'eurusd_1h_2017.parquet'\n"
        "loader = DataLoader(path, instruments=bundled_registry())\n"
        "print(sum(len(bars.ts) for bars in loader), 'pandas' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["6225", "False"], done.stderr
