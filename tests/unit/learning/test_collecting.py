"""An actor's fragments are its rollouts, every step once, and say what the policy said when it acted."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.agents.ppo import AgentConfig, PPOAgent  # noqa: E402
from streambot.env.fields import layout_digest  # noqa: E402
from streambot.learning.collecting import Collector  # noqa: E402
from streambot.learning.learner.buffer import ExperienceBuffer  # noqa: E402
from streambot.learning.rollouts import Rollouts  # noqa: E402
from streambot.streams.fragment import Fragment, encode_fragment  # noqa: E402
from streambot.streams.ports import Record  # noqa: E402
from tests.conftest import SEED  # noqa: E402
from tests.unit.learning.test_rollouts import N, T, agent_for, envs  # noqa: E402

pytestmark = pytest.mark.train


def collector(**more: object) -> Collector:
    named = {"training": "t", "actor": "a", "incarnation": 3, "seed": SEED}
    return Collector(envs(), T, **named | more)


def flat_agent() -> PPOAgent:
    return PPOAgent(AgentConfig(features=len(envs().observation_fields), actions=12, hidden=(16,)))


def whole(fragments: list[Fragment], name: str) -> np.ndarray:
    """A column of the steps, [N, steps, ...]."""
    rows = [
        np.concatenate([getattr(f, name)[: f.head.steps] for f in fragments if f.head.env == i])
        for i in range(N)
    ]
    return np.stack(rows)


@pytest.mark.parametrize("make", [lambda: agent_for(envs()), flat_agent])
def test_fragments_are_the_rollouts(make) -> None:
    """Two of them: the columns put together again, the last observations, where episodes end."""
    agent = make()
    of = collector()
    fragments = [f for number in range(2) for f in of.collect(agent, number).fragments]
    rollouts = Rollouts(envs(), T, seed=SEED)
    plays = [rollouts.play(agent.select_action, agent.device)[0] for _ in range(2)]
    for name in ("obs", "mask", "action", "log_prob", "reward"):
        right = np.concatenate([getattr(play, name) for play in plays]).swapaxes(0, 1)
        np.testing.assert_array_equal(whole(fragments, name), right)
    ends = {
        (f.head.env, f.head.episode): f for f in fragments if f.head.terminated or f.head.truncated
    }
    assert len(ends) == sum(int(play.over.sum()) for play in plays)
    terminated = [f for f in ends.values() if f.head.terminated]
    assert len(terminated) == sum(int(play.terminated.sum()) for play in plays) > 0
    reached = np.concatenate([play.reached for play in plays])
    over = np.concatenate([play.over for play in plays])
    for (env, _), fragment in ends.items():
        assert (reached[over[:, env], env] == fragment.obs[-1]).all(1).any()


def test_it_says_what_the_policy_said() -> None:
    agent = agent_for(envs())
    for fragment in collector().collect(agent, 7).fragments:
        steps = fragment.head.steps
        obs, mask = torch.from_numpy(fragment.obs[:steps]), torch.from_numpy(fragment.mask[:steps])
        mixed = agent.mixed(obs, mask)
        np.testing.assert_allclose(fragment.log_probs, mixed.log_probs, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(fragment.gate, mixed.log_gate.exp(), rtol=1e-4, atol=1e-5)
        picked = np.take_along_axis(fragment.log_probs, fragment.action[:, None].astype(int), 1)
        np.testing.assert_array_equal(picked[:, 0], fragment.log_prob)
        legal = np.take_along_axis(fragment.mask[:steps], fragment.action[:, None].astype(int), 1)
        assert legal.all()
        assert (fragment.head.weights, fragment.head.incarnation) == (7, 3)
        assert fragment.head.layout == layout_digest(envs().config)
        assert fragment.head.instrument == "S"


def test_a_task_is_the_segment_that_the_episode_plays() -> None:
    """Whoever asks an environment for the task's bars, and acts as the fragment did, sees the same."""
    agent, of = agent_for(envs()), collector()
    fragments = [f for number in range(2) for f in of.collect(agent, number).fragments]
    twin = envs()
    tasks: dict[str, str] = {}
    for fragment in fragments:
        head = fragment.head
        # An episode stays what it was, in all of its fragments.
        assert tasks.setdefault(head.episode_id, head.task) == head.task
        if head.t_started:
            continue
        symbol, timeframe, segment = head.task.split("/")
        bar, bars = map(int, segment.split("+"))
        assert (symbol, timeframe, bars) == (head.instrument, "1m", 17)
        options = {"instrument": symbol, "bar": bar, "bars": bars}
        obs, infos = twin.reset(seed=0, options=options)
        for t, action in enumerate(fragment.action):
            np.testing.assert_array_equal(obs[0], fragment.obs[t])
            np.testing.assert_array_equal(infos["action_mask"][0], fragment.mask[t])
            after, reward, terminated, truncated, infos = twin.step(np.full(N, action, np.int64))
            assert np.float32(reward[0]) == fragment.reward[t]
            over = terminated[0] | truncated[0]
            obs = infos["final_obs"] if over else after
        np.testing.assert_array_equal(obs[0], fragment.obs[-1])
        assert (terminated[0], truncated[0]) == (head.terminated, head.truncated)
    assert len(set(tasks.values())) > N


def test_a_learner_reads_every_step_once() -> None:
    """Through bytes: no gap, no repeat, nothing foreign."""
    agent, of = agent_for(envs()), collector()
    assert isinstance(agent, MoEAgent)
    buffer = ExperienceBuffer("t", layout_digest(envs().config))
    offset = 0
    for number in range(3):
        for fragment in of.collect(agent, number).fragments:
            record = Record("experience", 0, offset, 0, b"a", encode_fragment(fragment), ())
            buffer.offer([record], number)
            offset += 1
    assert buffer.counts == {"read": offset, "steps": 3 * N * T}
    taken = buffer.take(3 * N * T, 3)
    seen = {(f.head.episode_id, f.head.t_started + k) for f in taken for k in range(f.head.steps)}
    assert len(seen) == 3 * N * T
