"""`streambot replay [SCENARIO]`: publish a data set into the ticks of a run, for others to work on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streambot.cli.console import say, show, terminal_width, write_line
from streambot.cli.groups import AsJson
from streambot.cli.settings import ConfigFile, RunsDir, read_settings
from streambot.cli.stopping import EXIT_CODES, telling_stop
from streambot.domain.errors import UsageError

if TYPE_CHECKING:
    from streambot.domain.config import Resolved
    from streambot.report.piece import ReplaySummary

_WHAT, _PACE, _WHO, _WHERE = "What is replayed", "How fast", "Who will trade", "Where it goes"
Text = str | None


def publish(
    scenario: Annotated[
        Text,
        typer.Argument(
            metavar="SCENARIO", help="Bundled scenario or scenario file, where no --data is given."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", "-d", metavar="FILE", rich_help_panel=_WHAT,
            help="Bars, Parquet or CSV, file or folder. Repeatable.",
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
            help="Agent inside the workers, as in `streambot simulate`. Default: sma-cross",
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
            help="Its orders take effect when they arrive; else the workers wait for its answers.",
        ),
    ] = None,
    answer_timeout: Annotated[
        Text,
        typer.Option(
            "--answer-timeout", metavar="30s", rich_help_panel=_WHO,
            help="How long workers wait for an answer. Default: 30s",
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
    bootstrap_servers: Annotated[
        Text,
        typer.Option(
            "--bootstrap-servers", metavar="HOST:PORT", rich_help_panel=_WHERE,
            help="Apache Kafka. Default: the broker that `streambot broker start` started here.",
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
        _check_resume(flags)
    settings = read_settings(flags, config)
    summary = asyncio.run(_publish(settings, resume, quiet=quiet))
    _tell(summary, as_json=as_json)
    if summary.stopped_by in EXIT_CODES:
        raise typer.Exit(EXIT_CODES[summary.stopped_by])


def _check_resume(flags: dict[str, Any]) -> None:
    given = [
        n for n, v in flags.items() if v is not None and n not in {"speed", "gaps", "runs_dir"}
    ]
    if given:
        from streambot.domain.config import SETTINGS

        names = ", ".join(SETTINGS[name].flag for name in given)
        raise UsageError(
            f"a resumed replay keeps its settings: {names} cannot be given with --resume",
            hint="--speed and --gaps may be changed; for all else start a new run",
        )


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
