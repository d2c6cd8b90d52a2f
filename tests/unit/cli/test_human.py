"""Numbers, times and tables as people read them."""

from __future__ import annotations

import pytest

from streambot.cli import human
from tests.unit.cli.told import CLOSE, OPEN


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.08, "80 ms"), (3, "3 s"), (12.44, "12.4 s"), (234, "3 min 54 s"),
        (60, "1 min"), (34_800, "9 h 40 min"), (201_600, "2 d 8 h"), (3_600, "1 h"), (-90, "-1 min 30 s"),
        (59.96, "60 s"),
    ],
)  # fmt: skip
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert human.duration(seconds) == text


def test_amounts_keep_every_decimal() -> None:
    assert human.amount("-1234567.0050") == "-1,234,567.0050"
    assert human.amount("12.50", signed=True) == "+12.50"
    assert human.money("1000", "INR") == "1,000 INR"


def test_times_are_the_exchanges_with_its_zone() -> None:
    assert human.moment(OPEN, "America/New_York") == "2020-12-15 09:30:00 EST"
    assert human.moment(OPEN, "Asia/Kolkata") == "2020-12-15 20:00:00 IST"
    assert human.moment(OPEN + 5_000_000, "UTC", millis=True) == "2020-12-15 14:30:00.005 UTC"
    # A zone that has no letters is shown by its name, not by `+04`.
    assert human.moment(OPEN, "Asia/Dubai").endswith("Asia/Dubai")
    assert human.utc_text(OPEN) == "2020-12-15T14:30:00Z"
    assert human.utc_text(OPEN + 1) == "2020-12-15T14:30:00.000000001Z"


def test_a_span_says_the_day_once() -> None:
    assert human.span(OPEN, CLOSE, "America/New_York") == "2020-12-15 09:30 to 16:00 EST"
    assert "to 2020-12-16" in human.span(OPEN, CLOSE, "Asia/Kolkata")


def test_speeds_and_sizes() -> None:
    assert [human.speed(x) for x in (None, 1, 0.5, 99.98, 12_345.6)] == [
        "max", "1x", "0.5x", "99.98x", "12,346x",
    ]  # fmt: skip
    assert [human.size(n) for n in (840, 12_700, 84_000_000_000)] == [
        "840 B",
        "12.4 KiB",
        "78.2 GiB",
    ]


def test_flow_breaks_between_parts_only() -> None:
    parts = ["one part", "", "another part", "a third"]
    assert human.flow(parts, None) == ["one part   another part   a third"]
    assert human.flow(parts, 24, label=" x ") == [" x one part", "   another part", "   a third"]


def test_a_table_drops_optional_columns_where_the_terminal_is_narrow() -> None:
    headings, rows = (
        ("name", "bars", "net"),
        [("SPY", "390", "+1.00"), (), ("total", "390", "+1.00")],
    )
    assert human.table(headings, rows, right="bars|net") == [
        " name   bars    net",
        " ──────────────────",
        " SPY     390  +1.00",
        " ──────────────────",
        " total   390  +1.00",
    ]
    narrow = human.table(headings, rows, right="bars|net", width=16, optional="bars")
    assert narrow[0] == " name     net"


def test_flow_breaks_a_part_that_no_line_could_hold() -> None:
    part = "exactly once while this process lives and in the files"
    assert human.flow([part, "short"], 30, label=" x ") == [
        " x exactly once while this",
        "   process lives and in the",
        "   files   short",
    ]
