"""`streambot verify`: a run done again, or the same data and orders in several ways: one digest."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streambot.cli.console import say, show, write_line
from streambot.cli.groups import AsJson, single
from streambot.cli.replayed import check_scenario
from streambot.cli.run_flags import (
    WHAT,
    WHERE,
    WHO,
    BarPath,
    Capital,
    Data,
    From,
    InferInstruments,
    Instruments,
    Lots,
    PnlEvery,
    Registry,
    Seed,
    Text,
    Timeframe,
    To,
)
from streambot.cli.settings import ConfigFile, RunsDir, read_settings
from streambot.cli.threads import one_thread_a_slot
from streambot.cli.whole_lines import WholeLines
from streambot.domain.errors import UsageError, VerificationError

if TYPE_CHECKING:
    from streambot.cli.which_broker import KnownRun
    from streambot.domain.config import Resolved
    from streambot.report.verification import Difference, RunVerification, WaysVerification

_RUN = "A run"
_OF_WAYS = (
    "scenario", "data", "instruments", "registry", "infer_instruments", "from", "to", "timeframe",
    "bar_path", "capital", "lots", "seed", "pnl_every",
)  # fmt: skip


def verify(
    scenario: Annotated[
        Text,
        typer.Argument(
            metavar="SCENARIO",
            help="Bundled scenario or scenario file, where neither --run nor --data is given.",
        ),
    ] = None,
    run: Annotated[
        Text,
        typer.Option(
            "--run", metavar="RUN", rich_help_panel=_RUN,
            help="Compare the fills and P&L of this run with what its ticks and orders give again.",
        ),
    ] = None,
    files: Annotated[
        bool,
        typer.Option(
            "--files", rich_help_panel=_RUN, help="Compare the run's files, not its topics."
        ),
    ] = False,
    data: Data = None,
    instruments: Instruments = None,
    registry: Registry = None,
    infer_instruments: InferInstruments = None,
    start: From = None,
    end: To = None,
    timeframe: Timeframe = None,
    bar_path: BarPath = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", rich_help_panel=WHAT,
            help="Leave out what takes longer: pace, workers, Apache Kafka.",
        ),
    ] = False,
    policy: Annotated[
        Text,
        typer.Option(
            "--policy", "-p", metavar="POLICY", rich_help_panel=WHO,
            help="As in `streambot simulate`; with --run: where the run's own is found here.",
        ),
    ] = None,
    capital: Capital = None,
    lots: Lots = None,
    seed: Seed = None,
    pnl_every: PnlEvery = None,
    bootstrap_servers: Annotated[
        Text,
        typer.Option(
            "--bootstrap-servers", metavar="HOST:PORT", rich_help_panel=WHERE,
            help="The broker. Default: the run's own, else the one `streambot broker start` started.",
        ),
    ] = None,
    namespace: Annotated[
        Text,
        typer.Option(
            "--namespace", metavar="NAME", rich_help_panel=WHERE,
            help="First part of the topics' names.",
        ),
    ] = None,
    runs_dir: RunsDir = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Prove that the same ticks and the same orders give the same fills.

    With --run: what stands in the topics (else the files) of a run is compared, line by line, with
    what its recorded ticks (else its data) and its policy or recorded orders give again. Without: the
    same data and orders at several speeds, brokers, framings, partitions and placements. Exit codes:
    0 one digest, 8 it differs, 2 usage, 3 configuration, 4 data, 5 broker, 6 no such topics.
    """
    flags: dict[str, Any] = {
        "scenario": scenario, "data": data, "instruments": instruments, "registry": registry,
        "infer_instruments": infer_instruments, "from": start, "to": end, "timeframe": timeframe,
        "bar_path": bar_path, "capital": capital, "lots": lots, "seed": seed, "pnl_every": pnl_every,
    }  # fmt: skip
    where = {
        "run": run, "bootstrap_servers": bootstrap_servers, "namespace": namespace,
        "runs_dir": runs_dir,
    }  # fmt: skip
    one_thread_a_slot()
    if run is None:
        if files:
            raise UsageError("which run's files?", where="--files", hint="--run RUN")
        check_scenario(scenario, None, data)
        settings = read_settings({**flags, **where, "policy": policy}, config)
        _told_ways(_ways(settings, quick=quick), as_json=as_json)
        return
    _check_run(flags, quick=quick)
    settings = read_settings(where, config)
    _told_run(_run(settings, policy, files=files), as_json=as_json)


def _check_run(flags: dict[str, Any], *, quick: bool) -> None:
    """A run has its own data and settings."""
    given = [name for name in _OF_WAYS if flags[name] is not None]
    if given or quick:
        from streambot.domain.config import SETTINGS

        names = [SETTINGS[name].flag for name in given] + ["--quick"] * quick
        raise UsageError(
            f"a run has its own data and settings: {', '.join(names)} cannot be given with --run",
            hint="without --run they are gone through in several ways",
        )


def _run(settings: Resolved, policy: str | None, *, files: bool) -> RunVerification:
    from streambot.cli.which_broker import find_known
    from streambot.wiring.recording import RecordedAt
    from streambot.wiring.verified import RunToVerify
    from streambot.wiring.verifying import verify_run

    known = find_known(settings)
    servers = None if files else asyncio.run(_servers(settings, known))
    if servers is None and known.record is None:
        raise UsageError(f"there is no run {known.name} here", where=str(known.path.parent))
    wanted = RunToVerify(
        name=known.name,
        path=known.path,
        at=None if servers is None else RecordedAt(servers, settings.config.kafka),
        namespace=settings.config.namespace,
        policy=policy,
        cwd=Path.cwd(),
    )
    with contextlib.redirect_stdout(WholeLines(sys.stderr)):  # a strategy's words are narration
        return verify_run(wanted, lambda words: say(words, style="dim"))


async def _servers(settings: Resolved, known: KnownRun) -> str | None:
    """The broker that has the run's topics; None: its files are all that is left."""
    from streambot.cli.which_broker import IN_PROCESS, find_broker

    record = known.record
    asked = settings.origins["bootstrap_servers"].startswith("--")
    if record is not None and record.outputs == "files" and not asked:
        gone = record.embedded and not known.living
        if gone or record.broker == IN_PROCESS:
            return None
    return (await find_broker(settings, known)).servers


def _told_run(found: RunVerification, *, as_json: bool) -> None:
    if as_json:
        import msgspec

        write_line(msgspec.json.encode(found))
    else:
        from streambot.cli.verify_view import run_lines

        for line in run_lines(found):
            show(line)
    if not found.equal:
        raise _failure(found)


def _failure(found: RunVerification) -> VerificationError:
    difference: Difference | None = found.difference
    if difference is None:
        return VerificationError(
            f"run {found.run} gives another digest when it is done again",
            where=f"runs/{found.run}",
        )
    return VerificationError(
        f"run {found.run} does not come out again: {difference}",
        where=difference.where,
        hint="the outputs were altered, or another version of streambot or of the strategy wrote them",
    )


def _ways(settings: Resolved, *, quick: bool) -> WaysVerification:
    from streambot.cli.verify_view import way_line
    from streambot.report.verification import WayResult
    from streambot.wiring.ways import WaysToVerify, verify_ways

    def told(way: str) -> None:
        say(f"{way} …", style="dim")

    def done(result: WayResult) -> None:
        say(f"  {way_line(result)}", style="" if result.equal else "red")

    async def go() -> WaysVerification:
        from streambot.cli.which_broker import with_broker

        found = settings if quick else await with_broker(settings)
        wanted = WaysToVerify(settings, found.config.bootstrap_servers, quick, Path.cwd())
        return await verify_ways(wanted, told, done)

    with contextlib.redirect_stdout(WholeLines(sys.stderr)):
        return asyncio.run(go())


def _told_ways(found: WaysVerification, *, as_json: bool) -> None:
    if as_json:
        import msgspec

        write_line(msgspec.json.encode(found))
    else:
        from streambot.cli.verify_view import ways_lines

        for line in ways_lines(found):
            show(line)
    if not found.equal:
        wrong = [result for result in found.ways if not result.equal]
        raise VerificationError(
            f"{len(wrong)} of {len(found.ways)} ways do not give the digest of the first one",
            where=wrong[0].way,
            hint=wrong[0].error or "this is a fault of streambot: please report it",
        )


app = single(
    verify,
    examples=(
        "streambot verify --run 20201215-1f3a",
        "streambot verify --quick",
        "streambot verify -d mine.csv --infer-instruments -p mine.py:Mine",
    ),
)
