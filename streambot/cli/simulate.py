"""`streambot simulate`: replay, engine, agent and summary in one go.

This module turns flags into settings and a run into words. What a run is made of stands in
`streambot.wiring`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from streambot.cli.console import on_terminal, say, show, terminal_width, write_line
from streambot.cli.groups import AsJson, single
from streambot.cli.replayed import check_recording, check_resume, check_scenario
from streambot.cli.settings import ConfigFile, RunsDir, read_settings
from streambot.cli.stopping import EXIT_CODES, telling_stop
from streambot.cli.whole_lines import WholeLines
from streambot.domain.errors import StreambotError

if TYPE_CHECKING:
    from streambot.cli.progress import ConsoleObserver
    from streambot.domain.config import Resolved
    from streambot.report.summary import Summary
    from streambot.streams.control import Acknowledgement
    from streambot.wiring.controlling import ReplayControls

_WHAT, _PACE, _WHO, _WHERE = "What is replayed", "How fast", "Who trades", "Where it runs"
Text = str | None


def simulate(
    scenario: Annotated[
        Text,
        typer.Argument(
            metavar="SCENARIO",
            help="Bundled scenario or scenario file, where no --data is given. Default: one session "
            "of SPY minutes, as a stock and as a proxy option.",
        ),
    ] = None,
    named: Annotated[
        Text, typer.Option("--scenario", hidden=True, help="The same as the argument.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", "-d", metavar="FILE", rich_help_panel=_WHAT,
            help="Bars, Parquet or CSV, file or folder. Repeatable.",
        ),
    ] = None,
    from_run: Annotated[
        Text,
        typer.Option(
            "--from-run", metavar="RUN", rich_help_panel=_WHAT,
            help="The ticks that a run has recorded, instead of bars; alone it repeats that run.",
        ),
    ] = None,
    from_broker: Annotated[
        Text,
        typer.Option(
            "--from-broker", metavar="HOST:PORT", rich_help_panel=_WHAT,
            help="Where that recording is. Default: as that run's folder says, else --bootstrap-servers.",
        ),
    ] = None,
    instruments: Annotated[
        Text,
        typer.Option(
            "--instruments", "-i", metavar="A,B", rich_help_panel=_WHAT,
            help="Which symbols, globs allowed. Default: all in the data.",
        ),
    ] = None,
    registry: Annotated[
        Text,
        typer.Option(
            "--registry", metavar="FILE", rich_help_panel=_WHAT,
            help="Default: ./instruments.yaml, else the bundled one.",
        ),
    ] = None,
    infer_instruments: Annotated[
        bool | None,
        typer.Option(
            "--infer-instruments", rich_help_panel=_WHAT,
            help="Go on with a declaration made from the data for symbols that no registry knows.",
        ),
    ] = None,
    start: Annotated[
        Text,
        typer.Option(
            "--from", metavar="TIME", rich_help_panel=_WHAT,
            help="First market time: 2020-12-15 or 2020-12-15T10:30 (zone of the exchange).",
        ),
    ] = None,
    end: Annotated[
        Text,
        typer.Option("--to", metavar="TIME", rich_help_panel=_WHAT, help="Last; of a date its end."),
    ] = None,
    timeframe: Annotated[
        Text,
        typer.Option(
            "--timeframe", metavar="5m", rich_help_panel=_WHAT,
            help="Bars on which agents decide. Default: the coarsest of the data.",
        ),
    ] = None,
    bar_path: Annotated[
        Text,
        typer.Option(
            "--bar-path", metavar="ohlc|bridge:N", rich_help_panel=_WHAT,
            help="How a bar becomes ticks: four, or a seeded path of N. Default: ohlc",
        ),
    ] = None,
    quote_side: Annotated[
        Text,
        typer.Option(
            "--quote-side", metavar="bid|ask", rich_help_panel=_WHAT,
            help="Which side of bid and ask bars. Default: bid",
        ),
    ] = None,
    round_prices: Annotated[
        bool | None,
        typer.Option(
            "--round", rich_help_panel=_WHAT,
            help="Round prices that are off the tick grid, however many they are.",
        ),
    ] = None,
    speed: Annotated[
        Text,
        typer.Option(
            "--speed", "-s", metavar="100x|max", rich_help_panel=_PACE,
            help="Market seconds per second: 1x, 0.5x, 100x, max. Default: 100x",
        ),
    ] = None,
    gaps: Annotated[
        Text,
        typer.Option(
            "--gaps", metavar="skip|keep|max:30s", rich_help_panel=_PACE,
            help="Closed hours: skip, keep, or wait that long at most. Default: skip",
        ),
    ] = None,
    policy: Annotated[
        Text,
        typer.Option(
            "--policy", "-p", metavar="POLICY", rich_help_panel=_WHO,
            help="flat, random, buy-hold, sma-cross, or a class of yours: path.py:Class, "
            "pkg.mod:Class; with --from-run also recorded. Default: sma-cross",
        ),
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option(
            "--agent", metavar="NAME", rich_help_panel=_WHO,
            help="An agent in a process of its own instead (`streambot actor`). Repeatable.",
        ),
    ] = None,
    free_run: Annotated[
        bool | None,
        typer.Option(
            "--free-run", rich_help_panel=_WHO,
            help="Its orders take effect when they arrive; else the engine waits for its answers.",
        ),
    ] = None,
    answer_timeout: Annotated[
        Text,
        typer.Option(
            "--answer-timeout", metavar="30s", rich_help_panel=_WHO,
            help="How long the engine waits for an answer. Default: 30s",
        ),
    ] = None,
    capital: Annotated[
        Text,
        typer.Option(
            "--capital", metavar="AMOUNT", rich_help_panel=_WHO,
            help="Cash of each slot: 100000, or 100000,SPY=50000. Default: 1000000",
        ),
    ] = None,
    lots: Annotated[
        Text,
        typer.Option(
            "--lots", metavar="N", rich_help_panel=_WHO, help="Lots of one scripted order. Default: 1"
        ),
    ] = None,
    seed: Annotated[
        Text, typer.Option("--seed", metavar="N", rich_help_panel=_WHO, help="Default: 0")
    ] = None,
    pnl_every: Annotated[
        Text,
        typer.Option(
            "--pnl-every", metavar="15m|bar", rich_help_panel=_WHERE,
            help="Market time between two marks of the pnl stream. Default: 15m",
        ),
    ] = None,
    alerts: Annotated[
        bool | None,
        typer.Option(
            "--alerts", rich_help_panel=_WHERE,
            help="Keep the portfolio roll-up and the alerts beside the engine (streambot tail alerts).",
        ),
    ] = None,
    bootstrap_servers: Annotated[
        Text,
        typer.Option(
            "--bootstrap-servers", metavar="HOST:PORT", rich_help_panel=_WHERE,
            help="Apache Kafka. Default: an embedded broker, nothing to install.",
        ),
    ] = None,
    broker: Annotated[
        Text,
        typer.Option(
            "--broker", metavar="KIND", rich_help_panel=_WHERE,
            help="Without --bootstrap-servers: auto, embedded or in-process. Default: auto",
        ),
    ] = None,
    partitions: Annotated[
        Text, typer.Option("--partitions", metavar="N", rich_help_panel=_WHERE, help="Default: 4")
    ] = None,
    run: Annotated[
        Text,
        typer.Option("--run", metavar="NAME", rich_help_panel=_WHERE, help="Default: one is made up."),
    ] = None,
    runs_dir: RunsDir = None,
    resume: Annotated[
        Text,
        typer.Option(
            "--resume", metavar="RUN", rich_help_panel=_WHERE,
            help="Go on with an interrupted or killed run, from its last snapshot.",
        ),
    ] = None,
    config: ConfigFile = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No banner, progress and fills; warnings stay.")
    ] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Replay bars as ticks through Kafka, fill an agent's orders, and sum up.

    On a terminal the keys control a paced run (? shows them); elsewhere `streambot replay` does.
    Ctrl-C stops at the close of a bar and sums up; a second one aborts. Exit codes: 0 done, 2 usage,
    3 configuration, 4 data or strategy, 5 broker, 130 interrupted.
    """
    flags: dict[str, Any] = {
        "scenario": scenario or named, "data": data, "from_run": from_run, "from_broker": from_broker,
        "instruments": instruments, "registry": registry,
        "infer_instruments": infer_instruments, "from": start, "to": end, "timeframe": timeframe,
        "bar_path": bar_path, "quote_side": quote_side, "round_prices": round_prices,
        "speed": speed, "gaps": gaps, "policy": policy, "agents": agent,
        "free_run": free_run, "answer_timeout": answer_timeout, "capital": capital, "lots": lots,
        "seed": seed, "pnl_every": pnl_every, "alerts": alerts, "bootstrap_servers": bootstrap_servers,
        "broker": broker, "partitions": partitions, "run": run, "runs_dir": runs_dir,
    }  # fmt: skip
    check_scenario(scenario, named, data)
    check_recording(flags)
    if resume is not None:
        check_resume(flags)
    settings = read_settings(flags, config)
    ended = asyncio.run(_simulate(settings, resume, quiet=quiet, as_json=as_json))
    _tell(ended, as_json=as_json)
    if ended.stopped_by in EXIT_CODES:
        raise typer.Exit(EXIT_CODES[ended.stopped_by])


class _Ended(NamedTuple):
    """How a run ended. `stopped_by`: the signal that stopped it, if one did."""

    summary: Summary
    zone_name: str
    stopped_by: str | None


async def _simulate(
    settings: Resolved, resume: str | None, *, quiet: bool, as_json: bool
) -> _Ended:
    from streambot.cli.progress import ConsoleObserver
    from streambot.wiring import run_simulation

    if settings.config.from_run is not None:
        from streambot.cli.which_broker import with_recording_place

        settings = await with_recording_place(settings)
    if not quiet:
        _say_compiling()
    stop = telling_stop(say)
    observer = ConsoleObserver(stop.request, quiet=quiet)
    controls = _controls(observer, as_json=as_json)
    try:
        # What a strategy prints is narration: stdout is for the summary.
        with contextlib.redirect_stdout(WholeLines(sys.stderr)):
            summary = await run_simulation(
                settings, observer=observer, resume=resume, stop=stop, controls=controls
            )
    except (KeyboardInterrupt, asyncio.CancelledError):
        if observer.plan is not None:
            observer.say(f"aborted; next: streambot simulate --resume {observer.plan.run}")
        raise
    except StreambotError as error:
        if observer.plan is not None:
            _say_resume(error, observer.plan.run)
        raise
    finally:
        observer.close()
    zone_name = observer.plan.timezone if observer.plan is not None else "UTC"
    return _Ended(summary, zone_name, stop.reason)


def _controls(observer: ConsoleObserver, *, as_json: bool) -> ReplayControls:
    """What the keys work on; and what is told of a run that a seek has ended."""
    from streambot.cli.keyboard import Keyboard
    from streambot.cli.replay_words import told
    from streambot.wiring.controlling import ReplayControls

    stdout = sys.stdout

    def sought(summary: Summary, successor: str) -> None:
        observer.sought(summary, successor)
        if as_json:
            import msgspec

            with contextlib.redirect_stdout(stdout):  # a strategy's words go elsewhere meanwhile
                write_line(msgspec.json.encode(summary))

    def acknowledged(said: Acknowledgement) -> None:
        if observer.plan is not None:
            observer.say(told(said, observer.plan.timezone, observer.plan.run))

    controls = ReplayControls(sought)
    on_screen = on_terminal(stderr=True)  # the bar shows what becomes of a key
    observer.keys = Keyboard(controls, observer.say, told=None if on_screen else acknowledged)
    return controls


def _say_resume(error: StreambotError, run: str) -> None:
    """A run that failed on its way can go on once the cause is gone: say how, by name."""
    error.hint = error.hint.replace("--resume RUN", f"--resume {run}")
    if f"--resume {run}" not in error.hint:
        go_on = f"then go on with `streambot simulate --resume {run}`"
        error.hint = f"{error.hint}\n{go_on}" if error.hint else go_on


def _say_compiling() -> None:
    """The first run of a version compiles its kernels, and silence would look like a hang."""
    from streambot.jit import CACHE_FOLDER

    if not any(CACHE_FOLDER.rglob("*.nbi")):
        say("first run here: compiling the engine takes some 20 seconds, once", style="dim")


def _tell(ended: _Ended, *, as_json: bool) -> None:
    summary = ended.summary
    if as_json:
        import msgspec

        write_line(msgspec.json.encode(summary))
    else:
        from streambot.cli.summary_view import summary_lines

        for line in summary_lines(summary, zone_name=ended.zone_name, width=terminal_width()):
            show(line)
    if summary.state != "complete":
        say(f"next: streambot simulate --resume {summary.run}", style="dim")
    elif not as_json:
        say(f"next: streambot tail fills --run {summary.run} --from beginning", style="dim")


app = single(
    simulate,
    examples=(
        "streambot simulate --speed max",
        "streambot simulate us-stocks-daily --policy buy-hold",
        "streambot simulate -d mine.csv --infer-instruments -p mine.py:Mine -s 1000x",
    ),
)
