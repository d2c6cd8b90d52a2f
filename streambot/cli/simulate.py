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
from streambot.cli.run_flags import (
    WHAT,
    WHERE,
    Agents,
    AnswerTimeout,
    BarPath,
    Capital,
    Data,
    FreeRun,
    From,
    Gaps,
    InferInstruments,
    Instruments,
    Lots,
    Partitions,
    PnlEvery,
    Policy,
    QuoteSide,
    Registry,
    RoundPrices,
    RunName,
    Seed,
    Speed,
    Text,
    Timeframe,
    To,
)
from streambot.cli.settings import ConfigFile, RunsDir, read_settings
from streambot.cli.stopping import EXIT_CODES, telling_stop
from streambot.cli.threads import one_thread_a_slot
from streambot.cli.whole_lines import WholeLines
from streambot.domain.errors import StreambotError

if TYPE_CHECKING:
    from streambot.cli.progress import ConsoleObserver
    from streambot.domain.config import Resolved
    from streambot.report.summary import Summary
    from streambot.streams.control import Acknowledgement
    from streambot.wiring.controlling import ReplayControls
    from streambot.wiring.serving import Asked


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
    data: Data = None,
    from_run: Annotated[
        Text,
        typer.Option(
            "--from-run", metavar="RUN", rich_help_panel=WHAT,
            help="The ticks that a run has recorded, instead of bars; alone it repeats that run.",
        ),
    ] = None,
    from_broker: Annotated[
        Text,
        typer.Option(
            "--from-broker", metavar="HOST:PORT", rich_help_panel=WHAT,
            help="Where that recording is. Default: as that run's folder says, else --bootstrap-servers.",
        ),
    ] = None,
    instruments: Instruments = None,
    registry: Registry = None,
    infer_instruments: InferInstruments = None,
    start: From = None,
    end: To = None,
    timeframe: Timeframe = None,
    bar_path: BarPath = None,
    quote_side: QuoteSide = None,
    round_prices: RoundPrices = None,
    speed: Speed = None,
    gaps: Gaps = None,
    policy: Policy = None,
    agent: Agents = None,
    free_run: FreeRun = None,
    answer_timeout: AnswerTimeout = None,
    capital: Capital = None,
    lots: Lots = None,
    seed: Seed = None,
    pnl_every: PnlEvery = None,
    alerts: Annotated[
        bool | None,
        typer.Option(
            "--alerts", rich_help_panel=WHERE,
            help="Keep the portfolio roll-up and the alerts beside the engine (streambot tail alerts).",
        ),
    ] = None,
    bootstrap_servers: Annotated[
        Text,
        typer.Option(
            "--bootstrap-servers", metavar="HOST:PORT", rich_help_panel=WHERE,
            help="Apache Kafka. Default: an embedded broker, nothing to install.",
        ),
    ] = None,
    broker: Annotated[
        Text,
        typer.Option(
            "--broker", metavar="KIND", rich_help_panel=WHERE,
            help="Without --bootstrap-servers: auto, embedded or in-process. Default: auto",
        ),
    ] = None,
    partitions: Partitions = None,
    run: RunName = None,
    runs_dir: RunsDir = None,
    resume: Annotated[
        Text,
        typer.Option(
            "--resume", metavar="RUN", rich_help_panel=WHERE,
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
    one_thread_a_slot()
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
    trainings_at = await _trainings_at(settings)
    if not quiet:
        _say_compiling()
    stop = telling_stop(say)
    observer = ConsoleObserver(stop.request, quiet=quiet)
    controls = _controls(observer, as_json=as_json)
    try:
        # What a strategy prints is narration: stdout is for the summary.
        with contextlib.redirect_stdout(WholeLines(sys.stderr)):
            summary = await run_simulation(
                settings, observer=observer, resume=resume, stop=stop, controls=controls,
                trainings_at=trainings_at,
            )  # fmt: skip
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


async def _trainings_at(settings: Resolved) -> list[Asked]:
    """The broker that was started here, where the policy names weights of a training."""
    if "@" not in settings.config.policy:
        return []
    from streambot.cli.which_broker import started_here
    from streambot.wiring.serving import Asked

    started = await started_here()
    return [] if started is None else [Asked(*started)]


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
