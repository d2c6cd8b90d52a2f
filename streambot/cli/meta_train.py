"""`streambot meta-train`: a policy that a few gradient steps on a market's past make good on it."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streambot.cli.console import warn
from streambot.cli.env_settings import BootstrapServers, FromRun, Scenario, Settings, parse_sets
from streambot.cli.groups import AsJson, single
from streambot.cli.piece import Namespace
from streambot.cli.run_flags import WHERE, Data, InferInstruments, Instruments, Registry, Text
from streambot.cli.settings import ConfigFile, read_settings
from streambot.cli.training import begin, run_training
from streambot.cli.training_flags import (
    LEARN,
    Agent,
    DeviceName,
    Hidden,
    Learn,
    Out,
    Resume,
    Seed,
    Start,
    TestFrom,
    Updates,
    parse_hidden,
    parse_learn,
    said,
)
from streambot.domain.errors import UsageError

if TYPE_CHECKING:
    from streambot.cli.training import Begun
    from streambot.learning.trainer import Kept, Trainer
    from streambot.wiring.policy_log import PolicyLog

TASKS = "Tasks"


def _count(flag: str, metavar: str, words: str, panel: str = TASKS) -> Any:
    return typer.Option(
        flag, metavar=metavar, min=1, rich_help_panel=panel, show_default=False, help=words
    )


def meta_train(
    scenario: Scenario = None,
    data: Data = None,
    instruments: Instruments = None,
    registry: Registry = None,
    infer_instruments: InferInstruments = None,
    timeframes: Annotated[
        Text,
        typer.Option("--timeframe", metavar="5m,15m", rich_help_panel=TASKS,
                     help="Bars on which agents decide; tasks are shared equally by them. Default: the data's."),
    ] = None,
    from_run: FromRun = None,
    bootstrap_servers: BootstrapServers = None,
    sets: Settings = None,
    test_from: TestFrom = None,
    hold_out: Annotated[
        Text,
        typer.Option("--hold-out", metavar="A,B", rich_help_panel=TASKS,
                     help="Instruments that are looked at, and never trained on."),
    ] = None,
    tasks: Annotated[int | None, _count("--tasks", "N", "Of a batch. Default: 16")] = None,
    support: Annotated[
        int | None, _count("--support", "BARS", "That are adapted to. Default: 128")
    ] = None,
    query: Annotated[
        int | None, _count("--query", "BARS", "That are judged on. Default: 128")
    ] = None,
    embargo: Annotated[
        int | None,
        _count("--embargo", "BARS", "Between the two. Default: window of an observation + 32"),
    ] = None,
    accounts: Annotated[
        int | None, _count("--accounts", "N", "That trade a task side by side. Default: 8")
    ] = None,
    agent: Agent = None,
    updates: Updates = None,
    steps: Annotated[
        int | None,
        _count("--steps", "N", "Gradient steps of the inner loop. Default: 1", LEARN),
    ] = None,
    inner_lr: Annotated[
        float | None,
        typer.Option("--inner-lr", metavar="X", rich_help_panel=LEARN, show_default=False,
                     help="Of those steps, before it is learnt. Default: 0.1"),
    ] = None,
    outer_lr: Annotated[
        float | None,
        typer.Option("--outer-lr", metavar="X", rich_help_panel=LEARN, show_default=False,
                     help="Of the outer loop. Default: 0.001"),
    ] = None,
    first_order: Annotated[
        bool,
        typer.Option("--first-order", rich_help_panel=LEARN,
                     help="FOMAML: no second derivatives; faster."),
    ] = False,
    hidden: Hidden = None,
    learn: Learn = None,
    start: Start = None,
    seed: Seed = None,
    out: Out = None,
    resume: Resume = None,
    run: Annotated[
        Text,
        typer.Option("--run", metavar="NAME", rich_help_panel=WHERE,
                     help="Publish the parameters as they become, as training NAME on --bootstrap-servers."),
    ] = None,
    namespace: Namespace = None,
    device: DeviceName = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Meta-train a policy (MAML): over instruments, timeframes and segments of the data.

    A task is a stretch of one instrument's bars: the policy adapts on its first part by a few gradient
    steps, and is judged on a later part, behind an embargo. Every 50 updates it is looked at how tasks are
    adapted to that it never learns from: those of --hold-out, in the time behind --test-from. Ctrl-C keeps
    what was learnt; --resume goes on exactly from there. Exit codes: 2 usage, 3 configuration, 4 data or
    a training that has diverged, 130 interrupted.
    """
    from streambot.wiring.extras import needs_train

    with needs_train("training"):
        from streambot.learning.meta import MetaTrainConfig
    from streambot.wiring.training import TrainingRequest, task_pools, training_settings

    given = said(
        scenario=scenario, data=data, instruments=instruments, registry=registry,
        infer_instruments=infer_instruments, timeframe=timeframes, from_run=from_run,
        bootstrap_servers=bootstrap_servers, set=sets, test_from=test_from, hold_out=hold_out,
        tasks=tasks, support=support, query=query, embargo=embargo, accounts=accounts,
        agent=agent, updates=updates, steps=steps, inner_lr=inner_lr, outer_lr=outer_lr, run=run,
        first_order=first_order, hidden=hidden, learn=learn, start=start, seed=seed, out=out,
        resume=resume,
    )  # fmt: skip

    def ask(of: dict[str, Any]) -> TrainingRequest:
        task = said(support=support, query=query, embargo=embargo, accounts=accounts)
        meta = said(steps=steps, lr=outer_lr)
        return TrainingRequest(
            data=of, timeframes=listed(timeframes), env=parse_sets(sets), test_from=test_from,
            hold_out=listed(hold_out), agent=agent or "moe", network=parse_hidden(hidden),
            learn=parse_learn(learn), adapt=said(lr=inner_lr, first_order=first_order),
            start=start, training=said(tasks=tasks, task=task or None, meta=meta or None),
            seed=seed or 0,
        )  # fmt: skip

    flags = {
        "scenario": scenario, "data": data, "instruments": instruments, "registry": registry,
        "infer_instruments": infer_instruments, "timeframe": None, "from_run": from_run,
        "bootstrap_servers": bootstrap_servers,
    }  # fmt: skip
    begun = begin(
        given,
        ask,
        flags,
        config,
        device,
        command="meta-train",
        kind="meta-train",
        goes_with=("run", "bootstrap_servers", "namespace"),
    )
    settings = training_settings(begun.request, MetaTrainConfig)

    def go(trainer: Trainer) -> bool:
        pool, held_out = task_pools(begun.request, begun.split, settings)
        return trainer.meta_train(pool, settings, held_out)

    before = None if begun.found is None else begun.found.head.about.get("run")
    name = before if run is None else run
    run_training(
        begun, settings, go, as_json=as_json,
        publishing=None if name is None else partial(_published, name, flags, namespace, config),
    )  # fmt: skip


def _published(
    name: str,
    flags: dict[str, Any],
    namespace: str | None,
    config: str | None,
    begun: Begun,
    kept: Kept,
) -> PolicyLog:
    """The log that the policy is published on.

    Raises:
        UsageError: no broker is named.
    """
    from streambot.cli.which_broker import with_broker
    from streambot.processor.folder import check_run_name
    from streambot.wiring.policy_log import PolicyLog

    settings = read_settings(
        {"bootstrap_servers": flags["bootstrap_servers"], "namespace": namespace}, config
    )
    servers = settings.config.bootstrap_servers or begun.request.data.get("from_broker")
    if servers is None:
        servers = asyncio.run(with_broker(settings)).config.bootstrap_servers
    if servers is None:
        raise UsageError(
            "on which broker is the policy published?", where="--run",
            hint="--bootstrap-servers HOST:PORT",
        )  # fmt: skip
    kept.about["run"] = check_run_name(name)
    return PolicyLog(
        servers, settings.config.kafka, settings.config.namespace, name, Path.cwd(), begun.request,
        begun.split, begun.agent, kept, resumed=begun.found is not None, warned=warn,
    )  # fmt: skip


def listed(text: str | None) -> tuple[str, ...]:
    """`A,B` as parts."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


app = single(meta_train)
