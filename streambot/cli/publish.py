"""`streambot replay [SCENARIO]`: publish a data set into the ticks of a run, for others to work on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streambot.cli.console import say, show, terminal_width, write_line
from streambot.cli.groups import AsJson
from streambot.cli.replayed import check_resume
from streambot.cli.run_flags import (
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
    Registry,
    RunName,
    Seed,
    Speed,
    Text,
    Timeframe,
    To,
)
from streambot.cli.settings import ConfigFile, RunsDir, read_settings
from streambot.cli.stopping import EXIT_CODES, telling_stop

if TYPE_CHECKING:
    from streambot.domain.config import Resolved
    from streambot.report.piece import ReplaySummary


def publish(
    scenario: Annotated[
        Text,
        typer.Argument(
            metavar="SCENARIO", help="Bundled scenario or scenario file, where no --data is given."
        ),
    ] = None,
    data: Data = None,
    instruments: Instruments = None,
    registry: Registry = None,
    infer_instruments: InferInstruments = None,
    start: From = None,
    end: To = None,
    timeframe: Timeframe = None,
    bar_path: BarPath = None,
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
    bootstrap_servers: Annotated[
        Text,
        typer.Option(
            "--bootstrap-servers", metavar="HOST:PORT", rich_help_panel=WHERE,
            help="Apache Kafka. Default: the broker that `streambot broker start` started here.",
        ),
    ] = None,
    partitions: Partitions = None,
    run: RunName = None,
    runs_dir: RunsDir = None,
    resume: Annotated[
        Text,
        typer.Option(
            "--resume", metavar="RUN", rich_help_panel=WHERE,
            help="Go on with an interrupted or killed replay, behind its last frame.",
        ),
    ] = None,
    config: ConfigFile = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No banner and progress; warnings stay.")
    ] = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Publish bars as the ticks of a run on Kafka; workers execute it, or others train on it.

    `streambot worker --run RUN` executes, on any machine; `streambot replay pause|resume|step|speed|seek`
    control it meanwhile. Ctrl-C stops at the close of a bar. Exit codes: 0 done, 2 usage,
    3 configuration, 4 data, 5 broker, 6 topics, 130 interrupted.
    """
    flags: dict[str, Any] = {
        "scenario": scenario, "data": data, "instruments": instruments, "registry": registry,
        "infer_instruments": infer_instruments, "from": start, "to": end, "timeframe": timeframe,
        "bar_path": bar_path, "speed": speed, "gaps": gaps, "policy": policy, "agents": agent,
        "free_run": free_run, "answer_timeout": answer_timeout, "capital": capital, "lots": lots,
        "seed": seed, "pnl_every": pnl_every, "bootstrap_servers": bootstrap_servers,
        "partitions": partitions, "run": run, "runs_dir": runs_dir,
    }  # fmt: skip
    if resume is not None:
        check_resume(flags, "replay")
    settings = read_settings(flags, config)
    summary = asyncio.run(_publish(settings, resume, quiet=quiet))
    _tell(summary, as_json=as_json)
    if summary.stopped_by in EXIT_CODES:
        raise typer.Exit(EXIT_CODES[summary.stopped_by])


async def _publish(settings: Resolved, resume: str | None, *, quiet: bool) -> ReplaySummary:
    from pathlib import Path

    from streambot.cli.keyboard import Keyboard
    from streambot.cli.progress import ConsoleObserver
    from streambot.cli.which_broker import with_broker
    from streambot.wiring.controlling import ReplayControls
    from streambot.wiring.publishing import run_publishing

    stop = telling_stop(say)
    observer = ConsoleObserver(stop.request, quiet=quiet)
    controls = ReplayControls()
    observer.keys = Keyboard(controls, observer.say, told=None)
    try:
        if resume is None:
            settings = await with_broker(settings)
        return await run_publishing(
            settings, observer, stop, Path.cwd(), resume=resume, controls=controls
        )
    finally:
        observer.close()


def _tell(summary: ReplaySummary, *, as_json: bool) -> None:
    if as_json:
        import msgspec

        write_line(msgspec.json.encode(summary))
        return
    from streambot.cli.piece_view import replay_lines

    for line in replay_lines(summary, width=terminal_width()):
        show(line)
    if summary.state != "complete":
        say(f"next: streambot replay --resume {summary.run}", style="dim")
    else:
        say(f"next: streambot worker --run {summary.run}", style="dim")
