"""`streambot worker`: the engine tasks of a run, or a share of them, on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from streambot.cli.console import say, show, terminal_width, write_line
from streambot.cli.groups import AsJson, single
from streambot.cli.piece import (
    Namespace,
    PieceConsole,
    Quiet,
    RunToJoin,
    Servers,
    Text,
    Wait,
    parse_wait,
)
from streambot.cli.settings import ConfigFile, RunsDir, read_settings
from streambot.cli.stopping import EXIT_CODES, telling_stop
from streambot.cli.threads import one_thread_a_slot
from streambot.cli.whole_lines import WholeLines
from streambot.domain.errors import UsageError

if TYPE_CHECKING:
    from streambot.domain.config import Resolved
    from streambot.report.piece import WorkerPlan, WorkerProgress, WorkerSummary
    from streambot.wiring.working import Share

MOST_WORKERS = 1_024


def worker(
    run: RunToJoin = None,
    share: Annotated[
        Text,
        typer.Option(
            "--worker", metavar="i/N",
            help="Worker i of N, from 0: takes the partitions p with p mod N = i. Default: 0/1",
        ),
    ] = None,
    policy: Annotated[
        Text,
        typer.Option(
            "--policy", "-p", metavar="POLICY",
            help="Where the run's own strategy is found on this machine. Default: as the run names it.",
        ),
    ] = None,
    rollup: Annotated[
        bool,
        typer.Option(
            "--rollup/--no-rollup", help="Keep the portfolio roll-up and the alerts beside the tasks."
        ),
    ] = True,
    wait: Wait = None,
    bootstrap_servers: Servers = None,
    namespace: Namespace = None,
    runs_dir: RunsDir = None,
    config: ConfigFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Execute a run: fills and P&L of its partitions, exactly once.

    Start as many as you like, on any machine, each with its own --worker i/N; killed ones are started
    again and go on from what is committed. A second worker with the same share takes over, and the
    first one ends. Exit codes: 0 the run ended, 3 configuration, 4 data or strategy, 5 broker (or taken
    over), 6 no such run, 9 an agent did not answer, 130 interrupted.
    """
    parsed = _parse_share(share)
    wait_s = parse_wait(wait)
    settings = read_settings(
        {
            "run": run, "bootstrap_servers": bootstrap_servers, "namespace": namespace,
            "runs_dir": runs_dir,
        },
        config,
    )  # fmt: skip
    one_thread_a_slot()
    summary = asyncio.run(_work(settings, parsed, policy, wait_s, rollup=rollup, quiet=quiet))
    if as_json:
        import msgspec

        write_line(msgspec.json.encode(summary))
    else:
        from streambot.cli.piece_view import worker_lines

        for line in worker_lines(summary, width=terminal_width()):
            show(line)
        following = "verify" if summary.state == "complete" else "worker"
        say(f"next: streambot {following} --run {summary.run}", style="dim")
    if summary.stopped_by in EXIT_CODES:
        raise typer.Exit(EXIT_CODES[summary.stopped_by])


def _parse_share(text: str | None) -> Share:
    from streambot.wiring.working import Share

    if text is None:
        return Share()
    number, slash, workers = text.partition("/")
    if slash and number.isdigit() and workers.isdigit() and len(text) < 12:
        share = Share(int(number), int(workers))
        if share.number < share.workers <= MOST_WORKERS:
            return share
    raise UsageError(
        f"`{text[:60]}` is no share of the work", where="--worker",
        hint="i/N with i from 0 to N - 1: 0/2 and 1/2 for two workers",
    )  # fmt: skip


class _Console(PieceConsole["WorkerPlan", "WorkerProgress"]):
    def banner(self, plan: WorkerPlan) -> list[list[str]]:
        from streambot.cli.human import count
        from streambot.domain.words import few

        partitions = ", ".join(map(str, plan.partitions))
        return [
            [f"run {plan.run}", f"partitions {partitions} (of {plan.of})", few(plan.instruments)],
            [f"policy {plan.policy}", f"{count(plan.ticks, 'tick')} in the whole run"],
            [plan.broker, plan.delivery],
        ]

    def details(self, progress: WorkerProgress) -> list[str]:
        return [
            f"fills {progress.fills:,}",
            f"rejected {progress.rejected:,}",
            *([f"waits for {', '.join(progress.waits_for)}"] if progress.waits_for else []),
        ]


async def _work(
    settings: Resolved,
    share: Share,
    policy: str | None,
    wait_s: float,
    *,
    rollup: bool,
    quiet: bool,
) -> WorkerSummary:
    from pathlib import Path

    from streambot.cli.which_broker import find_broker, find_known
    from streambot.wiring.working import WorkerSettings, run_worker

    known = find_known(settings)
    place = await find_broker(settings, known)
    stop = telling_stop(say, "behind the frame it is at")
    wanted = WorkerSettings(
        servers=place.servers,
        security=settings.config.kafka,
        namespace=settings.config.namespace,
        run=known.name,
        share=share,
        policy=policy,
        rollup=rollup,
        wait_s=wait_s,
        cwd=Path.cwd(),
        runs_dir=known.path.parent,
    )
    # What a strategy prints is narration: stdout is for the summary.
    with contextlib.redirect_stdout(WholeLines(sys.stderr)):
        return await run_worker(wanted, _Console(quiet=quiet), stop)


app = single(
    worker,
    examples=(
        "streambot worker --run 20201215-1f3a",
        "streambot worker --run mine --worker 0/2 --bootstrap-servers kafka:9092",
        "streambot worker --run mine --wait 60s --no-rollup --json",
    ),
)
