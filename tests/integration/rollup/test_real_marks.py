"""The marks that the engine writes, rolled up: the totals are those of the summary."""

from __future__ import annotations

import msgspec
import pytest

from streambot.processor.folder import read_record
from streambot.report.rollup import RolledRun, Rollup
from tests.integration.simulate.bars import run, write_bars


@pytest.mark.parametrize("partitions", ["1", "3"])
def test_the_last_record_is_the_summary(tmp_path, partitions):
    """Equity, P&L and the largest drawdown by currency, exact to the last unit."""
    write_bars(tmp_path / "bars.parquet")
    summary = run(tmp_path, run="r", partitions=partitions, pnl_every="bar")
    folder = tmp_path / "runs" / "r"
    rolled = msgspec.json.decode(read_record(folder).manifest, type=RolledRun)
    partition_of = {
        i.symbol: p for i, p in zip(rolled.instruments, rolled.partition_of, strict=True)
    }
    core, last, alerts = Rollup(rolled), {}, []
    said = []
    for line in (folder / "pnl.ndjson").read_bytes().splitlines(keepends=True):
        symbol = msgspec.json.decode(line)["instrument"]
        said += core.marks(partition_of[symbol], line)
    said += core.fills((folder / "fills.ndjson").read_bytes())
    said += core.finish()
    for one in said:
        record = msgspec.json.decode(one.data)
        if one.stream == "portfolio":
            last[one.series] = record
        else:
            alerts.append(record["alert"])
    assert set(last) == set(summary.equity)
    for currency, record in last.items():
        assert record["equity"] == summary.equity[currency]
        assert record["max_drawdown"] == summary.max_drawdown[currency]
        assert record["max_drawdown_pct"] == summary.max_drawdown_pct[currency]
        assert record["pnl_net"] == summary.pnl_net[currency]
        assert record["pnl_realized"] == summary.pnl_realized[currency]
        assert record["pnl_unrealized"] == summary.pnl_unrealized[currency]
        assert record["brokerage"] == summary.brokerage[currency]
        slots = [s for s in summary.by_instrument.values() if s.currency == currency]
        assert record["open_positions"] == sum(slot.lots != 0 for slot in slots)
        assert record["missing"] == 0
    assert core.counts.missing == core.counts.repeats == 0
    assert alerts.count("breached") == summary.breached
