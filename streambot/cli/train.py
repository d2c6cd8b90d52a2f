"""`streambot train`: a policy from what actors bring over streams, or from environments in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from streambot.cli.env_settings import FromRun, Scenario, Settings, parse_sets
from streambot.cli.groups import AsJson, single
from streambot.cli.piece import Namespace
from streambot.cli.run_flags import (
    WHAT,
    Data,
    InferInstruments,
    Instruments,
    Registry,
    Text,
    Timeframe,
)
from streambot.cli.settings import ConfigFile, RunsDir
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
    from streambot.learning.trainer import Trainer


ACTORS = "Actors and learner"


def train(
    scenario: Scenario = None,
    data: Data = None,
    instruments: Instruments = None,
    registry: Registry = None,
    infer_instruments: InferInstruments = None,
    timeframe: Timeframe = None,
    from_run: FromRun = None,
    from_broker: Annotated[
        Text,
        typer.Option("--from-broker", metavar="HOST:PORT", rich_help_panel=WHAT,
                     help="The broker that has the recording. Default: that of the run, or of the training."),
    ] = None,
    sets: Settings = None,
    test_from: TestFrom = None,
    local: Annotated[
        bool,
        typer.Option("--local", rich_help_panel=ACTORS,
                     help="One process, without broker, actors and Ray."),
    ] = False,
    bootstrap_servers: Annotated[
        Text,
        typer.Option("--bootstrap-servers", metavar="HOST:PORT", rich_help_panel=ACTORS,
                     help="Apache Kafka, where experience lasts and actors anywhere take part. "
                     "Default: an embedded broker, for this training."),
    ] = None,
    run: Annotated[
        Text,
        typer.Option("--run", metavar="NAME", rich_help_panel=ACTORS,
                     help="Name of the training, and of its topics. Default: that of its folder."),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option("--actors", metavar="N", min=0, max=256, rich_help_panel=ACTORS,
                     show_default=False,
                     help="Actors to start here; `streambot actor --run NAME` adds others. Default: 2"),
    ] = None,
    algorithm: Annotated[
        Text,
        typer.Option("--algorithm", metavar="ppo|appo", rich_help_panel=ACTORS,
                     help="appo: V-trace, for experience that is many updates old. Default: ppo"),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch", metavar="STEPS", min=1, rich_help_panel=ACTORS, show_default=False,
                     help="Steps of an update. Default: 8192"),
    ] = None,
    learners: Annotated[
        int | None,
        typer.Option("--learners", metavar="N", min=0, max=64, rich_help_panel=ACTORS,
                     show_default=False,
                     help="Processes that share an update, on Ray ($RAY_ADDRESS: a cluster). Default: this one"),
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option("--gpus-per-learner", metavar="N", min=0, max=64, rich_help_panel=ACTORS,
                     show_default=False, help="GPUs of each of them. Default: 0"),
    ] = None,
    replay_from: Annotated[
        Text,
        typer.Option("--replay-from", metavar="beginning|OFFSET|TIME", rich_help_panel=ACTORS,
                     help="With --resume: learn from earlier experience of the training again."),
    ] = None,
    agent: Agent = None,
    updates: Updates = None,
    envs: Annotated[
        int | None,
        typer.Option("--envs", metavar="N", min=1, rich_help_panel=LEARN, show_default=False,
                     help="Environments side by side, of every actor. Default: 64"),
    ] = None,
    rollout: Annotated[
        int | None,
        typer.Option("--rollout", metavar="N", min=1, rich_help_panel=LEARN, show_default=False,
                     help="Steps of each between two looks at the weights. Default: 64 (--local: 128)"),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option("--checkpoint-every", metavar="N", min=1, rich_help_panel=LEARN,
                     show_default=False,
                     help="Updates between two checkpoints, and two looks at what is held out. Default: 25"),
    ] = None,
    hidden: Hidden = None,
    learn: Learn = None,
    start: Start = None,
    seed: Seed = None,
    out: Out = None,
    resume: Resume = None,
    device: DeviceName = None,
    namespace: Namespace = None,
    runs_dir: RunsDir = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Train a policy with PPO: a mixture of experts, or one network.

    Actors trade every instrument of the data in episodes and publish what came of it; the learner (RLlib)
    learns from all of it, and publishes weights that the actors pick up. The last fifth of the bars is left
    alone, for `streambot evaluate`. Ctrl-C keeps what was learnt; --resume goes on. TensorBoard:
    tensorboard --logdir policies. Exit codes: 2 usage, 3 configuration, 4 data or a training that has
    diverged, 5 broker or silence, 6 topics, 130 interrupted.
    """
    from streambot.wiring.extras import needs_train

    with needs_train("training"):
        from streambot.learning.trainer import TrainConfig
    from streambot.wiring.training import TrainingRequest, training_envs, training_settings

    of_streams = said(
        run=run, actors=actors, algorithm=algorithm, batch=batch, learners=learners,
        gpus_per_learner=gpus, replay_from=replay_from, from_broker=from_broker,
        namespace=namespace, runs_dir=runs_dir,
    )  # fmt: skip
    given = said(
        scenario=scenario, data=data, instruments=instruments, registry=registry,
        infer_instruments=infer_instruments, timeframe=timeframe, from_run=from_run,
        bootstrap_servers=bootstrap_servers, set=sets, test_from=test_from, agent=agent,
        updates=updates, envs=envs, rollout=rollout, checkpoint_every=checkpoint_every,
        hidden=hidden, learn=learn, start=start, seed=seed, out=out, resume=resume,
    )  # fmt: skip
    if local and (others := sorted(set(of_streams) - {"from_broker"})):
        raise UsageError(
            f"--{others[0].replace('_', '-')} is for actors and learner", where="--local",
            hint="leave one of them out",
        )  # fmt: skip

    def ask(of: dict[str, Any]) -> TrainingRequest:
        stream = said(actors=actors, algorithm=algorithm, learners=learners, gpus=gpus)
        return TrainingRequest(
            data=of, env=parse_sets(sets), test_from=test_from, agent=agent or "moe",
            network=parse_hidden(hidden), learn=parse_learn(learn), start=start,
            envs=envs or 64, seed=seed or 0, stream=None if local else stream,
            training=said(rollout=rollout, batch=batch, checkpoint_every=checkpoint_every),
        )  # fmt: skip

    flags = {
        "scenario": scenario, "data": data, "instruments": instruments, "registry": registry,
        "infer_instruments": infer_instruments, "timeframe": timeframe, "from_run": from_run,
        "from_broker": from_broker, "bootstrap_servers": bootstrap_servers,
    }  # fmt: skip
    if not local:
        from streambot.cli.train_streams import train_over_streams

        places = {
            "bootstrap_servers": bootstrap_servers, "namespace": namespace, "runs_dir": runs_dir,
        }  # fmt: skip
        train_over_streams(
            {**given, **of_streams}, ask, flags, places, config, device, as_json=as_json
        )
        return
    begun = begin(given, ask, flags, config, device, command="train --local", kind="train")
    settings = training_settings(begun.request, TrainConfig)

    def go(trainer: Trainer) -> bool:
        return trainer.train(training_envs(begun.request, begun.split), settings)

    run_training(begun, settings, go, as_json=as_json)


app = single(train)
