"""What a policy names: a script, a person's own class, a trained policy's checkpoint, or weights.

A run that a trained policy trades keeps the digest of its weights, so that whoever goes on with the
run, executes it elsewhere or does it again has the same ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from streambot.domain.errors import ConfigError
from streambot.engine.slot_agents import SlotAgents
from streambot.processor.agents import SCRIPTS, load_agent
from streambot.processor.playback import RECORDED
from streambot.wiring.extras import needs_train
from streambot.wiring.served import KEPT, served_name

if TYPE_CHECKING:
    from streambot.domain.config import SimulationConfig
    from streambot.engine.scripts import Script
    from streambot.env.trader import SlotTraders
    from streambot.processor.agents import StrategyFactory
    from streambot.processor.manifest import PolicySettings

HEAD = "checkpoint.json"


def checkpoint_at(spec: str, folder: Path) -> Path | None:
    """Folder of the checkpoint that a policy names; None: it names something else.

    Args:
        spec: the policy.
        folder: what a relative path starts from.
    """
    if spec in {*SCRIPTS, RECORDED}:
        return None
    path = (folder / Path(spec).expanduser()).resolve()
    if path.name == HEAD:
        path = path.parent
    # A path to nothing is a mistake in a path; a word to nothing may be one in a script's name.
    named = ":" not in spec and ("/" in spec or spec.startswith(("~", ".")))
    return path if path.is_dir() or named else None


def find_agent(
    spec: str, *, folder: Path, run: PolicySettings | None = None, kept: Path | None = None
) -> Script | StrategyFactory:
    """The agent that a policy names.

    Args:
        spec: a script's name, `path.py:Class`, `pkg.mod:Class`, the folder of a checkpoint, or
            `training@sequence`.
        folder: what a relative path starts from.
        run: what a run that exists says of its policy: a trained one must be the same.
        kept: where the weights of a training are that `spec` names, if it names any.

    Raises:
        ConfigError: there is no such policy, it is not the run's, or torch is not installed.
        DataError: a checkpoint that is none, or damaged.
    """
    place = checkpoint_at(spec, folder)
    if served_name(spec, folder) is not None:
        place = _kept(spec, kept)
    trained = run is not None and run.weights != ""
    if place is None and trained and ":" not in spec and spec not in SCRIPTS:
        place = (folder / spec).resolve()  # that it is gone is the mistake
    agent = load_agent(spec, folder=folder) if place is None else _trained(place)
    if run is not None:
        _check_same(agent, run, spec if place is None else str(place))
    return agent


class Marks(NamedTuple):
    """By what a run knows its agent besides the name, see `PolicySettings`; empty: by nothing."""

    weights: str = ""
    sees: str = ""


def marks_of(agent: object) -> Marks:
    """The marks of an agent."""
    return Marks(agent.weights, agent.sees) if isinstance(agent, SlotAgents) else Marks()


def check_decisions(agent: object, decision_ns: int) -> None:
    """Raise `ConfigError` where an agent cannot decide on bars of `decision_ns`."""
    if isinstance(agent, SlotAgents):
        agent.check(decision_ns)


def rooted(config: SimulationConfig, cwd: Path) -> str:
    """The policy of a run by its whole path, so that it is found from any folder."""
    place = checkpoint_at(config.policy, cwd)
    if place is not None:
        return str(place)
    module, colon, name = config.policy.rpartition(":")
    if colon and module.endswith(".py"):
        return f"{(cwd / Path(module).expanduser()).resolve()}:{name}"
    return config.policy


def _kept(spec: str, kept: Path | None) -> Path:
    if kept is None:
        raise ConfigError(
            "weights of a training are read when a run is started with them, and kept in its folder",
            where=spec,
            hint=f"--policy runs/RUN/{KEPT}; `simulate` and `replay` take {spec}, and `actor --serve`",
        )
    return kept


def _trained(place: Path) -> SlotTraders:
    if not place.is_dir():
        raise ConfigError(
            "there is no such folder", where=str(place),
            hint="--policy CHECKPOINT: the folder of a trained policy",
        )  # fmt: skip
    with needs_train("a trained policy", where=str(place)):
        from streambot.learning.acting import load_traders
    return load_traders(place)


def _check_same(agent: object, run: PolicySettings, named: str) -> None:
    marks = marks_of(agent)
    if marks == (run.weights, run.sees):
        return
    if "" in {marks.weights, run.weights}:
        kinds = {True: "a trained policy", False: "no trained policy"}
        raise ConfigError(
            f"the run's own policy `{run.spec}` is {kinds[run.weights != '']}, and this one is "
            f"{kinds[marks.weights != '']}",
            where=named,
            hint="give it the policy that the run was started with",
        )
    what = "its weights are" if marks.weights != run.weights else "what it observes is"
    raise ConfigError(
        f"the checkpoint is another one than when the run began: {what} not the same",
        where=named,
        hint=f"put back the one with weights {run.weights}, or start a new run",
    )
