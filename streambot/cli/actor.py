"""`streambot actor`: an agent of a run in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
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
from streambot.cli.policy_serving import Serve, check_own_weights, check_serve, served
from streambot.cli.settings import ConfigFile, RunsDir, read_settings
from streambot.cli.stopping import EXIT_CODES, telling_stop
from streambot.cli.threads import one_thread_a_slot
from streambot.cli.training_actor import act_in_training, is_training
from streambot.cli.whole_lines import WholeLines
from streambot.domain.errors import BrokerError, UsageError

if TYPE_CHECKING:
    from streambot.cli.which_broker import BrokerPlace, KnownRun
    from streambot.domain.config import Resolved
    from streambot.report.piece import ActorOutline, ActorProgress, ActorSummary

_LOOK_S = 0.25


def actor(
    run: RunToJoin = None,
    agent: Annotated[
        Text,
        typer.Option(
            "--agent", metavar="NAME", help="Which of its agents this is. Default: the only one."
        ),
    ] = None,
    policy: Annotated[
        Text,
        typer.Option(
            "--policy", "-p", metavar="POLICY",
            help="What decides, as in `streambot simulate`: a script, CHECKPOINT, path.py:Class. "
            "Default: what the run names.",
        ),
    ] = None,
    serve: Serve = None,
    wait: Wait = None,
    bootstrap_servers: Servers = None,
    namespace: Namespace = None,
    runs_dir: RunsDir = None,
    config: ConfigFile = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Decide for a run that was started with --agent NAME, or trade for a training.

    Of a run it mirrors the engine: the policy sees what it would see inside a worker, and the engine's
    fills are held against the mirror's. Killed and started again it goes on behind its last answer; a
    second one of the same name takes over. With --serve it may be started again under newer weights: what
    it has answered stays. Of a training (`streambot train`) it trades the training's
    data with its newest weights, and publishes experience; --agent names it. Exit codes: 0 the run
    ended, 2 usage, 3 configuration, 4 data or strategy, 5 broker (or taken over), 6 no such run, 8
    engine and mirror disagree, or the policy changed its mind, 130 interrupted.
    """
    wait_s = parse_wait(wait)
    check_serve(serve, policy)
    settings = read_settings(
        {
            "run": run, "bootstrap_servers": bootstrap_servers, "namespace": namespace,
            "runs_dir": runs_dir,
        },
        config,
    )  # fmt: skip
    one_thread_a_slot()
    until = time.monotonic() + wait_s
    known, place = asyncio.run(_find(settings, until))
    if asyncio.run(is_training(settings, known, place, until)):
        check_own_weights(serve, known)
        act_in_training(
            settings, known, place, agent, policy, until - time.monotonic(), quiet=quiet,
            as_json=as_json,
        )  # fmt: skip
        return
    summary = asyncio.run(_act(settings, known, place, agent, policy, serve, until, quiet=quiet))
    if as_json:
        import msgspec

        write_line(msgspec.json.encode(summary))
    else:
        from streambot.cli.piece_view import actor_lines

        for line in actor_lines(summary, width=terminal_width()):
            show(line)
        if summary.state != "complete":
            again = "" if serve is None else f" --serve {serve}"
            next_one = f"--run {summary.run} --agent {summary.agent}{again}"
            say(f"next: streambot actor {next_one}", style="dim")
    if summary.stopped_by in EXIT_CODES:
        raise typer.Exit(EXIT_CODES[summary.stopped_by])


class _Console(PieceConsole["ActorOutline", "ActorProgress"]):
    def banner(self, plan: ActorOutline) -> list[list[str]]:
        from streambot.cli.human import count
        from streambot.domain.words import few

        return [
            [f"run {plan.run}", count(plan.partitions, "partition"), few(plan.instruments)],
            [
                f"agent {plan.agent}, {plan.merge}",
                *([f"beside {', '.join(plan.others)}"] if plan.others else []),
                f"policy {plan.policy}",
                f"{count(plan.ticks, 'tick')} in the whole run",
            ],
            [plan.broker],
        ]

    def details(self, progress: ActorProgress) -> list[str]:
        return [
            f"orders {progress.orders:,}",
            f"fills agree {progress.compared:,}",
            *(["waits for the others"] if progress.waits else []),
            *([f"waits for the engine: {progress.unconfirmed:,}"] if progress.mirrored else []),
        ]


async def _act(
    settings: Resolved,
    known: KnownRun,
    place: BrokerPlace,
    agent: str | None,
    policy: str | None,
    serve: str | None,
    until: float,
    *,
    quiet: bool,
) -> ActorSummary:
    from pathlib import Path

    from streambot.wiring.acting import ActorSettings, run_actor

    record = known.record
    async with served(serve, settings, place, quiet=quiet) as weights:
        wanted = ActorSettings(
            servers=place.servers,
            security=settings.config.kafka,
            namespace=settings.config.namespace,
            run=known.name,
            agent=agent,
            policy=policy,
            wait_s=max(0.0, until - time.monotonic()),
            cwd=Path.cwd(),
            folder=known.path if record is not None and record.embedded else None,
            serve=weights,
            runs_dir=known.path.parent,
        )
        stop = telling_stop(say, "behind the frame it is at")
        # What a strategy prints is narration: stdout is for the summary.
        with contextlib.redirect_stdout(WholeLines(sys.stderr)):
            return await run_actor(wanted, _Console(quiet=quiet), stop)


async def _find(settings: Resolved, until: float) -> tuple[KnownRun, BrokerPlace]:
    """The run and its broker. One that is not there yet may come to this folder, or to a broker."""
    from streambot.cli.which_broker import find_broker, find_known

    while True:
        known = find_known(settings)
        said = settings.origins["bootstrap_servers"].startswith("--")
        if known.record is not None or said or time.monotonic() >= until:
            return known, await find_broker(settings, known)
        with contextlib.suppress(UsageError, BrokerError):
            place = await find_broker(settings, known)
            if await _declares(settings, place, known.name):
                return known, place
        await asyncio.sleep(_LOOK_S)


async def _declares(settings: Resolved, place: BrokerPlace, run: str) -> bool:
    """Is the run declared on that broker?"""
    from pathlib import Path

    from streambot.cli.declared import read_on_log
    from streambot.cli.which_broker import open_broker
    from streambot.learning.declaration import read_training
    from streambot.wiring.places import runs_topic

    topic = runs_topic(settings.config.namespace, run, Path.cwd())
    async with open_broker(place, settings.config.kafka) as log:
        if await read_on_log(log, topic) is not None:
            return True
        return await read_training(log, topic) is not None


app = single(
    actor,
    examples=(
        "streambot actor --run mine --policy sma-cross",
        "streambot actor --run mine --agent me --policy my_strategy.py:Mine --wait 60s",
        "streambot actor --run mine --agent me --bootstrap-servers kafka:9092 --json",
        "streambot actor --run my-training --bootstrap-servers kafka:9092",
        "streambot actor --run mine --agent me --serve my-training",
    ),
)
