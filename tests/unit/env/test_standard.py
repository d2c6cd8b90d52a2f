"""The environments keep the contracts of Gymnasium, and of the learners that come on top of it."""

from __future__ import annotations

import copy
from multiprocessing.reduction import ForkingPickler
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import streambot.env
from streambot.domain.errors import StreambotError, UsageError
from streambot.env.trading_env import TradingEnv
from streambot.env.vector_env import VectorTradingEnv
from tests.conftest import SEED

SETTINGS: dict[str, Any] = {"scenario": "spy-four-sessions", "episode_bars": 40, "max_quantity": 3}


def make(**settings: Any) -> gymnasium.Env[Any, Any]:
    return gymnasium.make(streambot.env.ENV_ID, **(SETTINGS | settings))


def make_vec(num_envs: int, **settings: Any) -> VectorTradingEnv:
    made = gymnasium.make_vec(
        streambot.env.ENV_ID,
        num_envs,
        vectorization_mode="vector_entry_point",
        **(SETTINGS | settings),
    )
    assert isinstance(made, VectorTradingEnv)
    return made


@pytest.mark.parametrize("actions", ["joint", "multi"])
@pytest.mark.parametrize("timeframes", [(), ("5m", "1h")])
def test_gymnasiums_own_check_says_nothing(actions: str, timeframes: tuple[str, ...]) -> None:
    """No error, and no warning either: pytest makes errors of them."""
    env = make(actions=actions, timeframes=timeframes)
    check_env(env.unwrapped)
    env.close()


def test_every_number_of_an_observation_is_named_and_bounded() -> None:
    """What is seen lies in the space, and every field says what it is."""
    env = make(timeframes=("5m",)).unwrapped
    assert isinstance(env, TradingEnv)
    fields = env.observation_fields
    assert env.observation_space.shape == (len(fields),)
    assert len({field.name for field in fields}) == len(fields)
    rng = np.random.default_rng(SEED)
    obs, _ = env.reset(seed=SEED)
    for _ in range(400):
        assert env.observation_space.contains(obs)
        obs, _, terminated, truncated, _ = env.step(int(rng.integers(8)))
        if terminated or truncated:
            obs, _ = env.reset()


def rollout(env: Any, actions: list[int], seed: int | None) -> list[Any]:
    """Everything that an environment said, over several episodes."""
    obs, info = env.reset(seed=seed)
    said = [obs.tobytes(), str(info)]
    for action in actions:
        obs, reward, terminated, truncated, info = env.step(action)
        said += [obs.tobytes(), reward, terminated, truncated, str(info)]
        if terminated or truncated:
            obs, info = env.reset()
            said += [obs.tobytes(), str(info)]
    return said


def test_a_seed_gives_the_same_episodes_and_another_one_others() -> None:
    """Also in a second environment, and after others were drawn; without a seed they are random."""
    actions = np.random.default_rng(SEED).integers(8, size=150).tolist()
    env, other = make().unwrapped, make().unwrapped
    first = rollout(env, actions, 5)
    assert rollout(env, actions, 5) == first == rollout(other, actions, 5)
    assert rollout(env, actions, 6) != first
    assert rollout(env, actions, None) != first, "a reset without a seed goes on"
    assert rollout(make().unwrapped, actions, None) != rollout(make().unwrapped, actions, None)


def test_no_two_environments_of_a_training_collect_the_same_episodes() -> None:
    """Slots of a vector, actors with one seed, and neighbouring seeds draw apart from each other."""
    starts: dict[str, list[tuple[int, ...]]] = {}
    for actor in range(3):
        vec = make_vec(4, actor=actor)
        vec.reset(seed=SEED)
        drawn = []
        for _ in range(30):
            drawn.append(vec.core.envs["first_bar"].copy())
            vec.reset()
        for slot in range(4):
            starts[f"actor {actor} slot {slot}"] = [int(row[slot]) for row in drawn]
    for seed in (SEED + 1, SEED + 2):
        env = make().unwrapped
        env.reset(seed=seed)
        own = []
        for _ in range(30):
            own.append(int(env.core.envs["first_bar"][0]))
            env.reset()
        starts[f"seed {seed}"] = own
    sequences = [tuple(own) for own in starts.values()]
    assert len(set(sequences)) == len(sequences)
    # Not even shifted against each other.
    joined = ["|".join(map(str, own[:6])) for own in sequences]
    whole = ["|".join(map(str, own)) for own in sequences]
    for i, part in enumerate(joined):
        assert not any(part in text for j, text in enumerate(whole) if j != i)


def test_the_vector_environment_is_the_single_ones_side_by_side() -> None:
    """Slot i of a vector is `TradingEnv(slot=i)`: observations, rewards, masks, infos, over resets."""
    n = 5
    vec = make_vec(n, autoreset_mode=AutoresetMode.NEXT_STEP)
    singles = [make(slot=i).unwrapped for i in range(n)]
    rng = np.random.default_rng(SEED)
    obs, infos = vec.reset(seed=SEED)
    own = [env.reset(seed=SEED) for env in singles]
    over = [False] * n
    for _ in range(200):
        assert obs.tobytes() == b"".join(o.tobytes() for o, *_ in own)
        masks = np.stack([said[-1]["action_mask"] for said in own])
        assert (infos["action_mask"] == masks).all()
        assert infos["equity"].tolist() == [said[-1]["equity"] for said in own]
        actions = rng.integers(8, size=n)
        obs, rewards, terminated, truncated, infos = vec.step(actions)
        own = [
            (*(o := env.reset())[:1], 0.0, False, False, *o[1:]) if done else env.step(int(action))
            for env, action, done in zip(singles, actions, over, strict=True)
        ]
        assert rewards.tolist() == [said[1] for said in own]
        assert terminated.tolist() == [said[2] for said in own]
        assert truncated.tolist() == [said[3] for said in own]
        for k, said in enumerate(own):
            paid = {name: infos["reward_terms"][name][k] for name in said[-1]["reward_terms"]}
            assert paid == said[-1]["reward_terms"]
            assert infos.get("rejected", [None] * n)[k] == said[-1]["rejected"]
        over = [said[2] or said[3] for said in own]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_autoreset_is_what_gymnasium_makes_of_single_environments(mode: AutoresetMode) -> None:
    """Against Gymnasium's own vector of the same environments, in every mode."""
    n = 3
    ours = make_vec(n, autoreset_mode=mode, episode_bars=15)
    theirs = SyncVectorEnv(
        [lambda i=i: make(slot=i, episode_bars=15).unwrapped for i in range(n)], autoreset_mode=mode
    )
    rng = np.random.default_rng(SEED)
    a, b = ours.reset(seed=[SEED] * n), theirs.reset(seed=[SEED] * n)
    ended = 0
    for _ in range(80):
        assert a[0].tobytes() == b[0].tobytes()
        actions = rng.integers(8, size=n)
        a, b = ours.step(actions), theirs.step(actions)
        assert a[1].tolist() == b[1].tolist()
        assert a[2].tolist() == b[2].tolist()
        assert a[3].tolist() == b[3].tolist()
        done = a[2] | a[3]
        ended += int(done.sum())
        if mode is AutoresetMode.SAME_STEP and done.any():
            assert a[4]["_final_obs"].tolist() == b[4]["_final_obs"].tolist() == done.tolist()
            for i in np.flatnonzero(done):
                assert a[4]["final_obs"][i].tobytes() == b[4]["final_obs"][i].tobytes()
            assert "final_info" in a[4]
        if mode is AutoresetMode.DISABLED and done.any():
            with pytest.raises(ResetNeeded):
                ours.step(actions)
            a = ours.reset(options={"reset_mask": done})
            b = theirs.reset(options={"reset_mask": done})
    assert ended >= 9


def test_it_runs_in_processes_of_its_own() -> None:
    """Gymnasium's `AsyncVectorEnv` gives what one process gives."""
    n = 2
    makers = [lambda i=i: make(slot=i).unwrapped for i in range(n)]
    apart, together = AsyncVectorEnv(makers), SyncVectorEnv(makers)
    rng = np.random.default_rng(SEED)
    assert apart.reset(seed=3)[0].tobytes() == together.reset(seed=3)[0].tobytes()
    for _ in range(60):
        actions = rng.integers(8, size=n)
        a, b = apart.step(actions), together.step(actions)
        assert a[0].tobytes() == b[0].tobytes()
        assert a[1].tolist() == b[1].tolist()
    apart.close()


@pytest.mark.parametrize(
    "travel", [lambda e: ForkingPickler.loads(bytes(ForkingPickler.dumps(e))), copy.deepcopy]
)
def test_it_travels_in_the_middle_of_an_episode(travel: Any) -> None:
    """What arrives goes on where it was, and the two do not know each other."""
    for env in (make().unwrapped, make_vec(3)):
        rng = np.random.default_rng(SEED)
        size = getattr(env, "num_envs", None)
        env.reset(seed=1)
        for _ in range(30):
            env.step(rng.integers(8, size=size) if size else int(rng.integers(8)))
        twin = travel(env)
        for _ in range(60):
            action = rng.integers(8, size=size) if size else int(rng.integers(8))
            a, b = env.step(action), twin.step(action)
            assert np.asarray(a[0]).tobytes() == np.asarray(b[0]).tobytes()
            assert np.asarray(a[1]).tolist() == np.asarray(b[1]).tolist()
            if size is None and (a[2] or a[3]):
                assert env.reset()[0].tobytes() == twin.reset()[0].tobytes()
        assert env.core.slots is not twin.core.slots


@pytest.mark.parametrize(
    "action", [-1, 8, 3.5, float("nan"), None, "buy", np.float64(1.0), [1], np.array([np.nan])]
)
def test_what_is_no_action_is_refused(action: Any) -> None:
    """By name, and nothing happens to the episode."""
    env, vec = make().unwrapped, make_vec(2)
    env.reset(seed=1)
    vec.reset(seed=1)
    before, many = env.core.snapshot(), vec.core.snapshot()
    with pytest.raises(InvalidAction, match="an action is a whole number from 0 to 7"):
        env.step(action)
    with pytest.raises(InvalidAction):
        vec.step(
            np.array([0, action], dtype=object) if not isinstance(action, int) else [0, action]
        )
    assert env.core.snapshot() == before
    assert vec.core.snapshot() == many


def test_multi_discrete_means_the_same() -> None:
    """The pair of kind and size, and the joint index of it, lead to the same step."""
    joint, multi = make().unwrapped, make(actions="multi").unwrapped
    vec = make_vec(1, actions="multi")
    rng = np.random.default_rng(SEED)
    a, b = joint.reset(seed=2)[0], multi.reset(seed=2)[0]
    vec.reset(seed=2)
    for _ in range(30):
        kind, size = int(rng.integers(4)), int(rng.integers(3))
        index = {0: 0, 1: 2 + size, 2: 5 + size, 3: 1}[kind]
        a, b = joint.step(index)[0], multi.step([kind, size])[0]
        c = vec.step(np.array([[kind, size]]))[0]
        assert a.tobytes() == b.tobytes() == c.tobytes()
    with pytest.raises(InvalidAction):
        multi.step([0, 3])
    with pytest.raises(InvalidAction):
        vec.step(np.array([[4, 0]]))


def test_nothing_is_stepped_before_a_reset_or_behind_an_end() -> None:
    env, vec = make(episode_bars=3).unwrapped, make_vec(2)
    with pytest.raises(ResetNeeded):
        env.step(0)
    with pytest.raises(ResetNeeded):
        vec.step(np.zeros(2, np.int64))
    env.reset(seed=1)
    for _ in range(3):
        *_, info = env.step(0)
    assert info["end_reason"] == "length"
    with pytest.raises(ResetNeeded):
        env.step(0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"instrument": "SPX"}, "no instrument `SPX`"),
        ({"bar": 10**9, "instrument": "SPY"}, "no episode of 40 bars begins at bar 1000000000"),
        ({"bar": -1, "instrument": "SPY"}, "begins at bar -1"),
        ({"start": "2020-12-15", "bar": 3, "instrument": "SPY"}, "give one"),
        ({"start": "yesterday", "instrument": "SPY"}, "no date or time"),
        ({"begin": 3}, "no option `begin`"),
    ],
)
def test_an_episode_that_is_not_there_is_refused(options: dict[str, Any], said: str) -> None:
    env = make().unwrapped
    env.reset(seed=1)
    with pytest.raises(StreambotError, match=said):
        env.reset(options=options)


def test_a_named_episode_begins_where_it_was_told() -> None:
    """By bar, and by time in the exchange's zone."""
    env = make().unwrapped
    env.reset(seed=1, options={"instrument": "SPY", "start": "2020-12-15T10:30", "bars": 7})
    close = int(env.core.slots["close_ts"][0])
    assert np.datetime64(close, "ns") == np.datetime64("2020-12-15T15:30")
    steps = 0
    truncated = False
    while not truncated:
        *_, truncated, _ = env.step(0)
        steps += 1
    assert steps == 7


def test_bad_shapes_and_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="at least one"):
        make_vec(0)
    vec = make_vec(2)
    with pytest.raises(UsageError, match="seeds"):
        vec.reset(seed=[1, 2, 3])
    with pytest.raises(UsageError, match="reset_mask"):
        vec.reset(options={"reset_mask": np.array([1, 0])})
    vec.reset(seed=1)
    with pytest.raises(InvalidAction):
        vec.step(np.zeros(3, np.int64))


@pytest.mark.train
def test_stable_baselines_takes_it() -> None:
    """SB3's own check, and its rollouts."""
    from stable_baselines3.common.env_checker import check_env as sb3_check
    from stable_baselines3.common.vec_env import DummyVecEnv

    sb3_check(make().unwrapped, warn=True)
    vec = DummyVecEnv([make for _ in range(2)])
    vec.seed(3)
    vec.reset()
    for _ in range(100):
        vec.step(np.zeros(2, np.int64))


@pytest.mark.train
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
# RLlib registers an environment of its own once for every algorithm and runner.
@pytest.mark.filterwarnings("ignore:.*Overriding environment rllib-single-agent-env:UserWarning")
def test_rllib_takes_it() -> None:
    """RLlib's own runner steps it, and cloudpickle, which Ray sends environments by, brings it over."""
    from ray import cloudpickle
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
    from ray.tune.registry import register_env

    env = make().unwrapped
    env.reset(seed=1)
    twin = cloudpickle.loads(cloudpickle.dumps(env))
    assert twin.step(0)[0].tobytes() == env.step(0)[0].tobytes()
    register_env("trading", lambda _: make())
    config = PPOConfig().environment("trading").env_runners(num_envs_per_env_runner=2)
    runner = SingleAgentEnvRunner(config=config)
    episodes = runner.sample(num_timesteps=100, random_actions=True)
    assert sum(len(episode) for episode in episodes) >= 100
    runner.stop()
