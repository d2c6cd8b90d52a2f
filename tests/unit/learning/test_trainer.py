"""A training goes on exactly where it was left, whatever ended it, and refuses to go on as another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

torch = pytest.importorskip("torch")

from streambot.agents.checkpoint import read_head, save_checkpoint  # noqa: E402
from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.agents.ppo import PPOAgent  # noqa: E402
from streambot.domain.errors import ConfigError, DataError  # noqa: E402
from streambot.env.settings import make_config  # noqa: E402
from streambot.env.vector_env import VectorTradingEnv  # noqa: E402
from streambot.learning.meta import MetaTrainConfig  # noqa: E402
from streambot.learning.policy import agent_config, load_policy  # noqa: E402
from streambot.learning.tasks import TaskConfig, TaskPool  # noqa: E402
from streambot.learning.trainer import Kept, Progress, TrainConfig, Trainer  # noqa: E402
from tests.conftest import SEED  # noqa: E402
from tests.unit.learning.test_tasks import SETTINGS, source  # noqa: E402

pytestmark = pytest.mark.train
ENV = SETTINGS | {"episode_bars": 17}
CONFIG = make_config(ENV)
TRAIN = TrainConfig(updates=6, rollout=12, checkpoint_every=2, seed=SEED)
META = MetaTrainConfig(
    updates=6, tasks=2, checkpoint_every=2, curve_every=3, curve_tasks=2, curve_steps=1, seed=SEED,
    task=TaskConfig(support=12, query=8, horizon=2, accounts=2),
)  # fmt: skip


def market() -> TaskPool:
    return TaskPool([source()], SETTINGS, META.task)


def trainer(folder: Path, *, resume: bool = False, **more: Any) -> Trainer:
    kept = Kept(folder, ENV, {"instruments": "S"})
    if resume:
        found = load_policy(folder)
        return Trainer(found.agent, CONFIG, kept, resume=found, **more)
    agent = MoEAgent(agent_config(CONFIG, hidden=(8,), gate_hidden=(8,), seed=3))
    return Trainer(agent, CONFIG, kept, **more)


def by_ppo(of: Trainer, config: TrainConfig = TRAIN) -> bool:
    envs = VectorTradingEnv(source(), 4, autoreset_mode="SameStep", **ENV)
    return of.train(envs, config)


def by_maml(of: Trainer, config: MetaTrainConfig = META) -> bool:
    return of.meta_train(market(), config, market())


WAYS = pytest.mark.parametrize("go", [by_ppo, by_maml])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@WAYS
def test_stopped_and_resumed_is_never_stopped(go: Callable[..., bool], tmp_path: Path) -> None:
    """Byte for byte: parameters, memories, environments, generators, counters; and what is told."""
    told: list[Progress] = []
    whole = tmp_path / "whole"
    assert go(trainer(whole, tell=told.append))
    again: list[Progress] = []
    parts = tmp_path / "parts"
    stops = iter([False, False, True])
    assert not go(trainer(parts, tell=again.append, stopping=lambda: next(stops)))
    assert read_head(parts).progress["updates"] == 3
    assert go(trainer(parts, resume=True, tell=again.append))
    assert files(parts) == files(whole)
    assert [p._replace(curve=None) for p in again] == [p._replace(curve=None) for p in told]
    assert [p.update for p in told] == [1, 2, 3, 4, 5, 6]
    assert told[-1].steps == 6 * (48 if go is by_ppo else 2 * 2 * 20)


@WAYS
@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError, DataError("no number")])
def test_what_was_learnt_before_a_failure_is_kept(
    go: Callable[..., bool], failure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The update that failed leaves nothing behind: it is made again."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    go(trainer(whole))
    name = "learn" if go is by_ppo else "outer_loss"
    right, calls = getattr(PPOAgent, name), []

    def fails(*arguments: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise failure
        return right(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(PPOAgent, name, fails)
        with pytest.raises(failure if isinstance(failure, type) else DataError):
            go(trainer(broken))
    assert read_head(broken).progress["updates"] == 3
    assert go(trainer(broken, resume=True))
    assert files(broken) == files(whole)


@WAYS
def test_what_was_learnt_is_kept_when_nobody_listens_any_more(
    go: Callable[..., bool], tmp_path: Path
) -> None:
    """A closed pipe or a full disk for the curves ends a training behind an update, not before it."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    go(trainer(whole))

    def tell(progress: Progress) -> None:
        if progress.update == 3:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        go(trainer(broken, tell=tell))
    assert read_head(broken).progress["updates"] == 3
    assert go(trainer(broken, resume=True))
    assert files(broken) == files(whole)


@pytest.mark.parametrize(
    "progress",
    [{"updates": -3}, {"steps": -1}, {"updates": 1e300}, {"returns_seen": -5.0},
     {"returns_squares": -1.0}, {"returns_mean": 1e308, "returns_squares": float("inf")}],
)  # fmt: skip
def test_counters_that_no_training_counted_are_refused(
    progress: dict[str, float], tmp_path: Path
) -> None:
    by_ppo(trainer(tmp_path))
    found = load_policy(tmp_path)
    edited = msgspec.structs.replace(found.head, progress=found.head.progress | progress)
    kept = Kept(tmp_path, ENV, {})
    with pytest.raises(DataError, match="edited"):
        Trainer(found.agent, CONFIG, kept, resume=found._replace(head=edited))


def test_goes_on_as_it_was_begun_or_not_at_all(tmp_path: Path) -> None:
    by_ppo(trainer(tmp_path))
    with pytest.raises(ConfigError, match="all 6 updates are done"):
        by_ppo(trainer(tmp_path, resume=True))
    with pytest.raises(ConfigError, match="was begun as `train`"):
        by_maml(trainer(tmp_path, resume=True))
    with pytest.raises(ConfigError, match="was begun as `train`"):
        by_ppo(trainer(tmp_path, resume=True), msgspec.structs.replace(TRAIN, seed=1, updates=9))
    assert by_ppo(trainer(tmp_path, resume=True), msgspec.structs.replace(TRAIN, updates=8))
    assert read_head(tmp_path).progress["updates"] == 8


@pytest.mark.parametrize("settings", ["x", "[]", "5", ""])
def test_settings_that_are_none_are_those_of_another_training(
    settings: str, tmp_path: Path
) -> None:
    by_ppo(trainer(tmp_path))
    found = load_policy(tmp_path)
    about = found.head.about | {"settings": settings}
    edited = found._replace(head=msgspec.structs.replace(found.head, about=about))
    with pytest.raises(ConfigError, match="was begun as `train`"):
        by_ppo(Trainer(found.agent, CONFIG, Kept(tmp_path, ENV, {}), resume=edited))


def test_a_checkpoint_without_its_training_is_refused(tmp_path: Path) -> None:
    by_ppo(trainer(tmp_path))
    found = load_policy(tmp_path)
    save_checkpoint(
        tmp_path, found.agent, progress=found.head.progress | {"updates": 2}, env=ENV,
        about=found.head.about,
    )  # fmt: skip
    with pytest.raises(DataError, match="environments of the training were others"):
        by_ppo(trainer(tmp_path, resume=True))


def test_held_out_tasks_are_looked_at_in_time(tmp_path: Path) -> None:
    told: list[Progress] = []
    by_maml(trainer(tmp_path, tell=told.append))
    assert [p.update for p in told if p.curve is not None] == [3, 6]
    assert all(p.curve.shape == (2, 2) for p in told if p.curve is not None)
