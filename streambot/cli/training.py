"""What `train` and `meta-train` share: how a training begins and ends, and Ctrl-C."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from streambot.cli.console import emit, say, show
from streambot.cli.env_settings import read_data
from streambot.cli.human import count, duration
from streambot.cli.run_flags import parse_device
from streambot.cli.settings import read_settings
from streambot.cli.training_view import TrainingView
from streambot.domain.errors import UsageError
from streambot.domain.words import few

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager

    from streambot.agents.devices import Device
    from streambot.agents.ppo import PPOAgent
    from streambot.learning.meta import MetaTrainConfig
    from streambot.learning.policy import LoadedPolicy
    from streambot.learning.trainer import Kept, Progress, TrainConfig, Trainer
    from streambot.wiring.policy_log import PolicyLog
    from streambot.wiring.training import Split, TrainingRequest

COMMANDS = {"train": "train --local", "actor-learner": "train", "meta-train": "meta-train"}
"""By what a checkpoint says of how it was trained, what goes on with it."""
FOLDERS = Path("policies")


def new_folder(out: str | None, run: str | None, agent: str) -> Path:
    """Where a new policy is kept, and nobody else's.

    Args:
        out: the folder, as somebody asked for it.
        run: else it has the name of its training.
        agent: else it is the next one of its kind.

    Raises:
        UsageError: something is there already.
    """
    if out is None and run is None:
        for n in range(1, 1 << 20):
            folder = FOLDERS / f"{agent}-{n}"
            with contextlib.suppress(FileExistsError):
                folder.mkdir(parents=True)  # another training may look for a name at this moment
                return folder
    folder = Path(out) if out is not None else FOLDERS / str(run)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            "there is something already", where=str(folder),
            hint=f"--resume {folder} goes on with it; --out names another folder",
        )  # fmt: skip
    return folder


class Begun(NamedTuple):
    """A training that is about to begin, or to go on.

    Attributes:
        request: what is asked for.
        folder: of the policy.
        device: where it computes.
        agent: what is trained.
        split: the data.
        command: what goes on with it.
        found: the checkpoint that it goes on from; None: it is new.
    """

    request: TrainingRequest
    folder: Path
    device: Device
    agent: PPOAgent
    split: Split
    command: str
    found: LoadedPolicy | None


def begin(
    given: dict[str, Any],
    ask: Callable[[dict[str, Any]], TrainingRequest],
    flags: dict[str, Any],
    config: str | None,
    device: str | None,
    *,
    command: str,
    kind: str,
    goes_with: Collection[str] = (),
) -> Begun:
    """Read what is needed, of a new training or of one that is resumed.

    Args:
        given: the flags that were given, by name.
        ask: the request, of the settings of the data.
        flags: of the data.
        config: file of settings.
        device: where to compute.
        command: what goes on with it.
        kind: what checkpoints of such a training say of how it is trained.
        goes_with: flags that may be given with --resume besides --updates.

    Raises:
        StreambotError: anything that is wrong with flags, data or checkpoint.
    """
    from streambot.agents.devices import resolve_device
    from streambot.processor.folder import check_run_name
    from streambot.wiring import training as wiring
    from streambot.wiring.parting import split_data
    from streambot.wiring.trained_on import check_same

    if (name := given.get("run")) is not None:
        check_run_name(name)
    where, found, kafka = resolve_device(parse_device(device)), None, None
    resume = given.get("resume")
    if resume is not None:
        others = sorted(set(given) - {"resume", "updates", *goes_with})
        if others:
            allowed = ", ".join(
                f"--{name.replace('_', '-')}" for name in ("updates", *goes_with, "device")
            )
            raise UsageError(
                f"--{others[0].replace('_', '-')} would change the training that is resumed",
                where="--resume", hint=f"only {allowed} and --json go with it",
            )  # fmt: skip
        request, found = wiring.resumed(Path(resume), where)
        begun = found.head.about.get("training")
        if begun is not None and begun != kind:
            before = COMMANDS.get(begun, begun)
            raise UsageError(
                f"the training was begun with `{before}`", where=resume,
                hint=f"streambot {before} --resume {resume}",
            )  # fmt: skip
        kafka = read_settings({}, config).config.kafka
    else:
        data, kafka = read_data(flags, config)
        request = ask(wiring.rooted(data, Path.cwd()))
    if "updates" in given:
        request = wiring.with_updates(request, given["updates"])
    agent = wiring.make_agent(request, where) if found is None else found.agent
    split = split_data(request, Path.cwd(), kafka)
    if found is not None:
        check_same(found.head.about, split.about, Path(resume or ""))
    folder = (
        Path(resume) if resume is not None
        else new_folder(given.get("out"), given.get("run"), request.agent)
    )  # fmt: skip
    return Begun(request, folder, where, agent, split, command, found)


class Stop:
    """Ctrl-C and SIGTERM: the first one ends the training behind the update, the second at once.

    Attributes:
        number: of the first signal; None so far.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self) -> bool:
        """True once it was asked for."""
        return self.number is not None

    def _heard(self, number: int, _: object) -> None:
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number
        say("stopping behind this update; again to abort")

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """While this lasts, signals are heard."""
        before = {n: signal.signal(n, self._heard) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else trains in the folder meanwhile; one that nothing was written to goes again.

    The lock is the folder's own, and goes with the process: it leaves no file behind.

    Raises:
        UsageError: another training is at work in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as cause:
            raise UsageError(
                "another training keeps its policy there", where=str(folder),
                hint="wait for its end or stop it; or name another folder, with --out",
            ) from cause  # fmt: skip
        yield
    finally:
        os.close(descriptor)
        with contextlib.suppress(OSError):
            folder.rmdir()


def open_training(begun: Begun) -> None:
    """Say what will be done."""
    request, split = begun.request, begun.split
    say(begun.device.said, style="dim")
    say(
        f"{begun.agent.kind}, seed {request.seed}, on {few(split.instruments)}; bars of "
        f"{split.about['timeframes']}, {split.said}"
    )
    say(f"policy: {begun.folder}", style="dim")


def run_training(
    begun: Begun,
    settings: TrainConfig | MetaTrainConfig,
    train: Callable[[Trainer], bool],
    *,
    as_json: bool,
    publishing: Callable[[Begun, Kept], AbstractContextManager[PolicyLog | None]] | None = None,
) -> None:
    """Train until all is done or somebody stops it, and say what came of it.

    Args:
        begun: the training.
        settings: of it.
        train: of the trainer, what trains.
        as_json: objects instead of words.
        publishing: makes the log that the policy is published on; None: there is none.

    Raises:
        typer.Exit: it was stopped by a signal.
    """
    from streambot.agents.checkpoint import read_head
    from streambot.env.settings import make_config
    from streambot.learning.board import Board
    from streambot.learning.declaration import State
    from streambot.learning.trainer import Trainer
    from streambot.wiring.training import kept_of

    open_training(begun)
    folder, found = begun.folder, begun.found
    stop, started = Stop(), time.monotonic()
    view = TrainingView(settings.updates, as_json=as_json)
    before = 0 if found is None else int(found.head.progress.get("steps", 0))
    kept = kept_of(begun.request, begun.split, folder, found)
    with (
        alone(folder),
        contextlib.nullcontext() if publishing is None else publishing(begun, kept) as log,
        stop.listening(),
        Board(folder / "tensorboard", from_step=before) as board,
    ):

        def publish(update: int) -> None:
            if log is not None:
                counted = {"updates": float(update), "steps": float(trainer.steps)}
                log.publish(update, trainer.names, counted)

        def tell(progress: Progress) -> None:
            board(progress)
            view(progress)
            if progress.update == 1 or progress.update % settings.checkpoint_every == 0:
                publish(progress.update)

        trainer = Trainer(
            begun.agent, make_config(begun.request.env), kept, tell=tell, stopping=stop,
            resume=found,
        )  # fmt: skip
        with view.shown():
            whole = train(trainer)
        publish(trainer.done)
        if log is not None:
            log.end(State.COMPLETE if whole else State.STOPPED)
    head, seconds = read_head(folder), time.monotonic() - started
    if as_json:
        emit(
            "policy", folder=str(folder), kind=head.kind, updates=trainer.done,
            steps=trainer.steps, wall_s=seconds, digest=head.digest, names=head.names,
            complete=whole,
        )  # fmt: skip
    else:
        show(
            f"{head.kind} in {folder}: {count(trainer.done, 'update')}, "
            f"{count(trainer.steps, 'step')} in {duration(seconds)}"
        )
        if head.names:
            show(f"experts, by the regimes that they serve: {', '.join(head.names)}")
        again = f"{begun.command} --resume {folder}"
        say(f"next: streambot {f'evaluate {folder}' if whole else again}", style="dim")
    if stop.number is not None and not whole:
        raise typer.Exit(128 + stop.number)
