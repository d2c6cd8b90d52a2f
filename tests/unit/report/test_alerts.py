"""Alerts: said once, with what, where, how much and since when."""

from __future__ import annotations

import msgspec
import pytest

from streambot.domain.errors import DecodeError
from streambot.report.rollup import Rollup
from tests.rollups import made, mark

SECOND = 1_000_000_000


def alerts(lines) -> list[dict]:
    return [msgspec.json.decode(line.data) for line in lines if line.stream == "alerts"]


def test_a_drawdown_beyond_the_limit_and_back():
    """Strictly beyond, once, with the peak's percent; then cleared, since the time it began."""
    rollup = Rollup(made((0, 0, 0, 1), limit_bp=1_000))
    lines = []
    for k, equity in enumerate([100_000, 70_000, 69_999, 60_000, 80_000]):
        lines += rollup.marks(0, mark(0, k, k, equity, ts=1_000 + k))
    lines += rollup.finish()
    raised, cleared = alerts(lines)
    assert raised["kind"] == "AlertRaised"
    assert raised["alert"] == "drawdown"
    assert (raised["series"], raised["seq"], raised["where"]) == ("portfolio/USD", 0, "USD")
    assert (raised["ts_event"], raised["since"]) == (1_002, 1_002), "10 % exactly is not beyond"
    assert (raised["amount"], raised["unit"]) == ("30001.0000", "USD")
    assert (raised["percent"], raised["limit_percent"]) == (10.0003, 10.0)
    assert cleared["kind"] == "AlertCleared"
    assert (cleared["seq"], cleared["ts_event"], cleared["since"]) == (1, 1_004, 1_002)


def test_gaps_and_halts_are_told_at_once_whatever_other_partitions_do():
    rollup = Rollup(made((0, 1, 2, 0)))
    first = rollup.marks(0, mark(0, 0, 5, 100_000, ts=77))
    assert first == [], "partition 1 and 2 have said nothing: no barrier is complete"
    (gap,) = alerts(rollup.marks(0, mark(0, 4, 6, 100_000, ts=99)))
    assert (gap["alert"], gap["where"], gap["amount"], gap["unit"]) == ("gap", "AAA", "3", "marks")
    assert (gap["since"], gap["ts_event"]) == (77, 99)
    (halt,) = alerts(rollup.marks(0, mark(0, 5, 7, 100_000, halted=True)))
    assert (halt["alert"], halt["series"], halt["seq"]) == ("halted", "pnl/AAA", 1)
    assert rollup.marks(0, mark(0, 6, 7, 100_000, halted=True)) == []
    assert rollup.counts.missing == 3


def test_breaches_come_from_the_fills():
    rollup = Rollup(made((0, 1, 2, 0)))
    lines = (
        b'{"kind":"OrderFilled","instrument":"AAA","seq":0,"ts_event":5,"reason":"order"}\n'
        b'{"kind":"SlotBreached","instrument":"AAA","seq":1,"ts_event":6,"barrier":3,'
        b'"reason":"drawdown","on_breach":"alert"}\n'
    )
    (breach,) = alerts(rollup.fills(lines))
    assert (breach["alert"], breach["where"], breach["since"]) == ("breached", "AAA", 6)
    assert "it goes on" in breach["message"]
    assert rollup.fills(lines) == []
    assert rollup.counts.repeats == 2
    with pytest.raises(DecodeError, match="no event"):
        rollup.fills(b"x\n")


def test_a_flood_of_dead_letters_is_told_at_powers_of_ten():
    """Counted by reason, repeats dropped by where they were found."""
    rollup = Rollup(made((0, 1, 2, 0)))
    told = []
    for offset in range(120):
        for _ in range(2):
            told += alerts(rollup.dead_letter(1, ("s.r.ticks", 1, offset), "crc", 1_000 + offset))
    assert [a["amount"] for a in told] == ["1", "10", "100"]
    assert [a["seq"] for a in told] == [0, 1, 2]
    assert told[2]["since"] == 1_000
    assert told[0]["series"] == "dead-letter/1"
    assert rollup.counts.dead_letters == {"crc": 120}


def test_a_partition_from_which_nothing_comes():
    """After 30 s of the clock, once; cleared when it goes on; a restart does not say it again."""
    rollup = Rollup(made((0, 1, 2, 0)))
    assert rollup.look(0) == []
    rollup.marks(0, mark(0, 0, 5, 100_000, ts=500 * SECOND))
    assert rollup.look(SECOND) == []
    (stalled,) = alerts(rollup.look(40 * SECOND))
    assert (stalled["alert"], stalled["where"], stalled["seq"]) == ("lag", "pnl/1,2", 0)
    assert rollup.look(80 * SECOND) == []
    again = Rollup(made((0, 1, 2, 0)))
    again.go_on(1, since=stalled["since"])
    again.marks(0, mark(0, 0, 5, 100_000, ts=500 * SECOND))
    assert again.look(0) == again.look(SECOND) == again.look(80 * SECOND) == []
    for one in (rollup, again):
        one.marks(1, mark(1, 0, 9, 100_000))
        one.marks(2, mark(2, 0, 9, 100_000))
        assert one.look(85 * SECOND) == [], "barrier 5 may still go on in partition 0"
        one.marks(0, mark(0, 1, 9, 100_000))
        (cleared,) = alerts(one.look(90 * SECOND))
        assert (cleared["kind"], cleared["seq"]) == ("AlertCleared", 1)
        assert cleared["since"] == stalled["since"]
