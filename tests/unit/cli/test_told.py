"""What a person reads about a run: banner, progress and summary."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import msgspec
import pytest

from streambot.cli.console import _console_of
from streambot.cli.fill_teller import FILLS_A_SECOND
from streambot.cli.progress import MOST_WARNINGS, ConsoleObserver, banner
from streambot.cli.summary_view import summary_lines
from streambot.report.summary import Latency
from tests.unit.cli.run_folders import a_fill, write_run
from tests.unit.cli.told import a_plan, a_progress, a_summary, an_instrument

HOUR = 3_600_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_paced_run_says_how_long_it_will_take_gaps_skipped_and_kept() -> None:
    text = "\n".join(banner(a_plan(wall_ns_keep=13 * HOUR)))
    assert "at 100x, gaps skipped: about 3 min 54 s" in text
    assert "(closed hours skipped 3 min 54 s, kept 13 h)" in text
    assert "would take one minute" not in text


def test_a_long_run_names_the_speed_that_takes_a_minute() -> None:
    text = "\n".join(banner(a_plan(wall_ns=2 * HOUR, speed_for_one_minute="12000x")))
    assert "--speed 12000x would take one minute" in text


def test_at_max_no_duration_is_promised() -> None:
    text = "\n".join(
        banner(a_plan(speed_asked="max", wall_ns=None, wall_ns_skip=None, wall_ns_keep=None))
    )
    assert "as fast as this machine goes" in text
    assert "about" not in text


def test_the_banner_names_run_instruments_broker_guarantee_and_folder() -> None:
    text = "\n".join(banner(a_plan(resumed_at_barrier=120)))
    for part in (
        "run spy-7f3a", "SPY, SPY-OPT", "780 bars", "3,120 ticks", "2020-12-15 09:30 to 16:00 EST",
        "policy sma-cross", "exactly once", "runs/spy-7f3a", "resumed: goes on at barrier 120",
    ):  # fmt: skip
        assert part in text


def test_off_a_terminal_there_is_a_line_every_ten_seconds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    observer = ConsoleObserver(lambda: None, clock=clock)
    observer.planned(a_plan())
    capsys.readouterr()
    for _ in range(41):
        observer.progressed(a_progress(late_ms=2_500.0))
        clock.now += 0.25
    observer.close()
    said = capsys.readouterr().err
    assert said.splitlines() == [
        (
            " 34 %  2020-12-15 11:42:00 EST  99.98x (asked 100x)  1,056 ticks, 13/s  fills 6  rejected 0  "
            "open 1  equity 2,000,912.40 USD  2,500 ms behind"
        )
    ]
    assert "\x1b" not in said


def test_a_warning_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    observer = ConsoleObserver(lambda: None)
    observer.warned("[odd] thing")
    observer.warned("[odd] thing")
    assert capsys.readouterr().err == "warning: [odd] thing\n"


def fills(first: int, last: int) -> bytes:
    return b"".join(msgspec.json.encode(a_fill(n)) + b"\n" for n in range(first, last))


def test_fills_of_a_paced_run_are_told_a_few_a_second(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = write_run(tmp_path)
    clock = Clock()
    observer = ConsoleObserver(lambda: None, clock=clock)
    observer.planned(a_plan(folder=str(folder)))
    capsys.readouterr()
    observer.recorded("pnl", 0, b"no mark is told")
    observer.recorded("fills", 0, fills(0, FILLS_A_SECOND + 5))
    clock.now += 1
    observer.recorded("fills", 0, fills(50, 51))
    observer.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("time")
    assert ["BUY_LONG 1" in line or "CLOSE 1" in line for line in lines[1:-2]] == [True] * (
        FILLS_A_SECOND + 1
    )
    assert lines[-2] == (
        "… and 5 more events: streambot tail fills --run spy-7f3a --from beginning"
    )


def test_fills_are_not_told_at_full_speed(capsys: pytest.CaptureFixture[str]) -> None:
    observer = ConsoleObserver(lambda: None)
    observer.planned(a_plan(speed_asked="max", wall_ns=None, wall_ns_skip=None, wall_ns_keep=None))
    capsys.readouterr()
    observer.recorded("fills", 0, fills(0, 3))
    assert capsys.readouterr().err == ""


def test_quiet_leaves_the_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    observer = ConsoleObserver(lambda: None, quiet=True)
    observer.planned(a_plan())
    observer.progressed(a_progress())
    observer.recorded("fills", 0, fills(0, 3))
    observer.warned("odd")
    observer.close()
    assert capsys.readouterr().err == "warning: odd\n"


def test_a_closed_stderr_stops_the_run_and_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    _console_of.cache_clear()
    stops: list[None] = []
    observer = ConsoleObserver(lambda: stops.append(None))
    observer.planned(a_plan())
    observer.warned("x")
    observer.close()
    assert stops
    _console_of.cache_clear()


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    _console_of.cache_clear()
    observer = ConsoleObserver(lambda: None)
    observer.planned(a_plan())
    observer.progressed(a_progress())
    assert "━" in stream.getvalue()
    assert "2020-12-15 11:42:00 EST" in stream.getvalue()
    assert "\x1b[?25l" in stream.getvalue()  # the cursor is hidden …
    observer.close()
    assert stream.getvalue().rstrip().endswith("\x1b[2K")  # … and the bar is wiped away
    assert "\x1b[?25h" in stream.getvalue()
    observer.close()
    _console_of.cache_clear()


def test_the_summary_has_every_count_zeros_included() -> None:
    text = "\n".join(summary_lines(a_summary(rounded=0), zone_name="America/New_York"))
    for part in (
        "run spy-7f3a   complete   2020-12-15 09:30 to 16:00 EST in 19.5 s   1,199x (asked 1200x)",
        "late 0", "duplicate 0", "dead letters 0", "rounded 0", "flagged 0", "rejected 0 rows",
        "rejected 2 (insufficient_cash 2)", "expired 1 (end_of_data 1)", "settled 0", "breached 0",
        "proxied 25 %", "net +217.0000 USD   brokerage 24.0000", "p50 1.2 ms   p99 4.3 ms",
        "exactly once", "b2:5f5f", "runs/spy-7f3a",
    ):  # fmt: skip
        assert part in text, part


def test_totals_are_by_currency() -> None:
    two = {"USD": "1.00", "INR": "-2.00"}
    summary = a_summary(
        by_instrument={"NIFTY": an_instrument(currency="INR"), "SPY": an_instrument()},
        pnl_gross=two, pnl_net=two, pnl_realized=two, pnl_unrealized=two, brokerage=two, equity=two,
        max_drawdown=two, max_drawdown_pct={"USD": 1.0, "INR": 2.0},
    )  # fmt: skip
    lines = summary_lines(summary)
    assert any(line.startswith(" total USD") and "+1.00 USD" in line for line in lines)
    assert any(line.startswith(" total INR") and "-2.00 INR" in line for line in lines)


def test_one_instrument_is_its_own_total() -> None:
    assert not any(
        "total" in line for line in summary_lines(a_summary(by_instrument={"SPY": an_instrument()}))
    )


def test_halted_and_insolvent_slots_are_marked() -> None:
    summary = a_summary(by_instrument={"SPY": an_instrument(halted=True, insolvent=True)})
    assert any(" SPY halted insolvent " in line for line in summary_lines(summary))


def test_what_was_not_measured_is_said() -> None:
    text = "\n".join(summary_lines(a_summary(latency_ms=Latency(), lateness_ms=Latency())))
    assert "tick to fill not measured" in text
    assert "behind schedule" not in text


def test_warnings_of_the_run_stand_in_its_summary() -> None:
    assert any(
        "inferred MINE" in line for line in summary_lines(a_summary(warnings=["inferred MINE"]))
    )


def test_many_warnings_are_counted_not_poured_out(capsys: pytest.CaptureFixture[str]) -> None:
    observer = ConsoleObserver(lambda: None)
    many = [f"warning number {n}" for n in range(30)]
    for message in many:
        observer.warned(message)
    observer.planned(a_plan())
    said = capsys.readouterr().err
    assert said.count("warning number") == MOST_WARNINGS
    assert "and 22 more like these, all in runs/spy-7f3a/summary.json" in said
    text = "\n".join(summary_lines(a_summary(warnings=many)))
    assert text.count("warning number") == MOST_WARNINGS
    assert "and 22 more" in text


def test_many_instruments_are_counted() -> None:
    text = banner(a_plan(instruments=tuple(f"S{n}" for n in range(50))))[0]
    assert "S0, S1, S2, S3, S4, S5 and 44 more" in text


@pytest.mark.parametrize("width", [80, 100, 120])
def test_the_summary_fits_its_terminal(width: int) -> None:
    lines = summary_lines(a_summary(), zone_name="America/New_York", width=width)
    assert max(map(len, lines)) <= width


def test_a_run_without_market_time_has_a_summary_too() -> None:
    assert "no market time" in summary_lines(a_summary(event_from=None, event_to=None))[0]
