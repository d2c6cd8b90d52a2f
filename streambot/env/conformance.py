"""What an environment promises to those who train on it, checked on the data that they have.

Gymnasium's own checker, without a single warning; and the vector environment against single ones:
the same seeds and actions give the same observations, masks, rewards, ends and events.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from streambot.env.registration import ENV_ID
from streambot.env.trading_env import TradingEnv
from streambot.env.vector_env import VectorTradingEnv

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from streambot.env.sources import Source


def gymnasium_complaint(source: Source, settings: Mapping[str, Any]) -> str | None:
    """What Gymnasium's checker says against the environment; None: nothing.

    Args:
        source: the data.
        settings: of `TradingEnv`, by name.
    """
    # The checker makes more of them, one for each render mode, and wants to be told how.
    kwargs = {"source": source, **settings}
    made: Any = TradingEnv
    spec = EnvSpec(ENV_ID, entry_point=made, kwargs=kwargs, disable_env_checker=True)
    # That there is no display is no complaint about the environment.
    voice = logging.getLogger("streambot.env.render")
    level = voice.level
    voice.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            check_env(gymnasium.make(spec).unwrapped)
    except Exception as error:  # noqa: BLE001  # it asserts, and passes on whatever is raised
        return f"{type(error).__name__}: {error}"
    finally:
        voice.setLevel(level)
    return _plain(str(said[0].message)) if said else None


def _plain(text: str) -> str:
    """Without the colours that Gymnasium gives its warnings."""
    return text.replace("\x1b[33m", "").replace("\x1b[0m", "").removeprefix("WARN: ")


def vector_difference(
    source: Source, settings: Mapping[str, Any], *, num_envs: int, steps: int, seed: int
) -> str | None:
    """Where a vector environment and as many single ones first differ; None: nowhere.

    Args:
        source: the data.
        settings: of `TradingEnv`, by name.
        num_envs: how many.
        steps: of each of them, over as many episodes as that makes.
        seed: of the episodes and of the actions, legal and illegal.
    """
    vector = VectorTradingEnv(source, num_envs, **settings)
    single = [TradingEnv(source, slot=i, **settings) for i in range(num_envs)]
    rng = np.random.default_rng(seed)
    shown, info = vector.reset(seed=seed)
    own = [env.reset(seed=seed) for env in single]
    for i, (obs, its) in enumerate(own):
        where = f"environment {i} at its first close"
        for name, a, b in _pairs(shown[i], info, obs, its, i):
            if not _same(a, b):
                return f"{name} of {where}: {_short(a)} and {_short(b)}"
    over = [False] * len(single)
    for step in range(1, steps + 1):
        actions = _drawn(vector, rng)
        shown, rewards, terminated, truncated, info = vector.step(actions)
        for i, env in enumerate(single):
            reward, ended, cut = 0.0, False, False
            if over[i]:
                obs, its = env.reset()
            else:
                obs, reward, ended, cut, its = env.step(actions[i])
            ends = (
                ("reward", rewards[i], reward),
                ("terminated", terminated[i], ended),
                ("truncated", truncated[i], cut),
                ("the events", vector.events(i), env.events),
            )
            over[i] = ended or cut
            for name, a, b in (*_pairs(shown[i], info, obs, its, i), *ends):
                if not _same(a, b):
                    return f"{name} of environment {i} at step {step}: {_short(a)} and {_short(b)}"
    return None


def _drawn(vector: VectorTradingEnv, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """An action for every environment, legal or not; every other one holds, so positions get old."""
    space: Any = vector.single_action_space
    sizes = space.nvec if isinstance(space, spaces.MultiDiscrete) else space.n
    shape = (vector.num_envs, *space.shape)
    actions = rng.integers(0, sizes, shape, dtype=np.int64)
    actions[rng.random(len(actions)) < 0.5] = 0
    return actions


def _pairs(
    shown: object,
    info: dict[str, Any],
    obs: object,
    its: dict[str, Any],
    i: int,
) -> Iterator[tuple[str, Any, Any]]:
    """What both say of one close, by name."""
    yield "the observation", shown, obs
    yield "the mask", info["action_mask"][i], its["action_mask"]
    yield "equity", info["equity"][i], its["equity"]
    for term, value in its["reward_terms"].items():
        yield f"reward term {term}", info["reward_terms"][term][i], value
    for name in ("rejected", "end_reason"):
        told = info.get(name)
        yield name, None if told is None else told[i], its.get(name)


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.tobytes() == b.tobytes()
    return bool(a == b)


def _short(value: object) -> str:
    return str(value)[:80]
