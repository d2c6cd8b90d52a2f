"""`streambot train`: a policy from environments over bars or a recorded run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from streambot.cli.env_settings import BootstrapServers, FromRun, Scenario, Settings, parse_sets
from streambot.cli.groups import AsJson, single
from streambot.cli.run_flags import Data, InferInstruments, Instruments, Registry, Timeframe
from streambot.cli.settings import ConfigFile
from streambot.cli.training import (
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
    begin,
    parse_hidden,
    parse_learn,
    run_training,
    said,
)
from streambot.domain.errors import UsageError

if TYPE_CHECKING:
    from streambot.learning.trainer import Trainer


def train(
    scenario: Scenario = None,
    data: Data = None,
    instruments: Instruments = None,
    registry: Registry = None,
    infer_instruments: InferInstruments = None,
    timeframe: Timeframe = None,
    from_run: FromRun = None,
    bootstrap_servers: BootstrapServers = None,
    sets: Settings = None,
    test_from: TestFrom = None,
    local: Annotated[
        bool, typer.Option("--local", help="Environments in this process, without any broker.")
    ] = False,
    agent: Agent = None,
    updates: Updates = None,
    envs: Annotated[
        int | None,
        typer.Option("--envs", metavar="N", min=1, rich_help_panel=LEARN, show_default=False,
                     help="Environments side by side. Default: 64"),
    ] = None,
    rollout: Annotated[
        int | None,
        typer.Option("--rollout", metavar="N", min=1, rich_help_panel=LEARN, show_default=False,
                     help="Steps of each between two updates. Default: 128"),
    ] = None,
    hidden: Hidden = None,
    learn: Learn = None,
    start: Start = None,
    seed: Seed = None,
    out: Out = None,
    resume: Resume = None,
    device: DeviceName = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Train a policy with PPO: a mixture of experts, or one network.

    It trades every instrument of the data in episodes, and learns from all of them together. The last
    fifth of the bars is left alone, for `streambot evaluate`. Ctrl-C keeps what was learnt; --resume goes
    on exactly from there. TensorBoard: tensorboard --logdir policies. Exit codes: 2 usage, 3
    configuration, 4 data or a training that has diverged, 130 interrupted.
    """
    from streambot.wiring.extras import needs_train

    with needs_train("training"):
        from streambot.learning.trainer import TrainConfig
    from streambot.wiring.training import TrainingRequest, training_envs, training_settings

    given = said(
        scenario=scenario, data=data, instruments=instruments, registry=registry,
        infer_instruments=infer_instruments, timeframe=timeframe, from_run=from_run,
        bootstrap_servers=bootstrap_servers, set=sets, test_from=test_from, agent=agent,
        updates=updates, envs=envs, rollout=rollout, hidden=hidden, learn=learn, start=start,
        seed=seed, out=out, resume=resume,
    )  # fmt: skip
    if not local:
        raise UsageError(
            "say where the environments are", where="train",
            hint="--local: in this process, without any broker",
        )  # fmt: skip

    def ask(of: dict[str, Any]) -> TrainingRequest:
        return TrainingRequest(
            data=of, env=parse_sets(sets), test_from=test_from, agent=agent or "moe",
            network=parse_hidden(hidden), learn=parse_learn(learn), start=start,
            envs=envs or 64, training=said(rollout=rollout), seed=seed or 0,
        )  # fmt: skip

    flags = {
        "scenario": scenario, "data": data, "instruments": instruments, "registry": registry,
        "infer_instruments": infer_instruments, "timeframe": timeframe, "from_run": from_run,
        "bootstrap_servers": bootstrap_servers,
    }  # fmt: skip
    begun = begin(given, ask, flags, config, device, command="train --local")
    settings = training_settings(begun.request, TrainConfig)

    def go(trainer: Trainer) -> bool:
        return trainer.train(training_envs(begun.request, begun.split), settings)

    run_training(begun, settings, go, as_json=as_json)


app = single(train)
