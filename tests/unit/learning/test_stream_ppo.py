"""RLlib's PPO on fragments: it learns what it is given, and its tensors are those of the agent."""

from __future__ import annotations

from itertools import chain
from typing import Any

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ray")

from streambot.agents.batch import LearnConfig  # noqa: E402
from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.agents.ppo import AgentConfig, PPOAgent  # noqa: E402
from streambot.domain.errors import ConfigError  # noqa: E402
from streambot.streams.fragment import Fragment, FragmentHead  # noqa: E402
from tests.conftest import SEED  # noqa: E402

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    # RLlib registers an environment of its own once for every algorithm.
    pytest.mark.filterwarnings(
        "ignore:.*Overriding environment rllib-single-agent-env:UserWarning"
    ),
]

N, T = 32, 16
CONFIG = AgentConfig(
    features=4, actions=3, regimes=(2, 3), experts=2, hidden=(32,), seed=1,
    learn=LearnConfig(lr=3e-3, minibatch=256, schedule="constant", target_kl=1e9),
)  # fmt: skip


class Market:
    """Follow the last move in one regime, fade it in the other; the best policy earns 1, action 0 is illegal."""

    def __init__(self, agent: PPOAgent, weights: Any, *, sign: float = 1.0) -> None:
        self._agent, self._weights, self._sign = agent, weights, sign
        self._generator = torch.Generator().manual_seed(SEED)
        self._sequence = 0
        self.earned: list[float] = []

    def take(self, steps: int) -> tuple[list[Fragment], list[Any]]:
        assert steps == N * T
        obs = torch.randn(N, T + 1, 4, generator=self._generator)
        obs[..., 2] = (torch.rand(N, 1, generator=self._generator) < 0.5).float() * 2 - 1
        obs[..., 3] = -obs[..., 2]
        mask = torch.tensor([0.0, 1.0, 1.0]).expand(N, T + 1, 3)
        move = (obs[..., 0].sign() * obs[..., 2])[:, :T]
        with torch.no_grad():
            log_probs = self._agent.log_probs(obs[:, :T], mask[:, :T])
        uniform = torch.rand(N, T, generator=self._generator)
        action, log_prob = self._agent.select_action(obs[:, :T], mask[:, :T], uniform)
        assert (action > 0).all()
        reward = torch.where(action == 1, move, -move)
        self.earned.append(float(reward.mean()))
        out = []
        for i in range(N):
            head = FragmentHead(
                training="t", actor="a", incarnation=0, sequence=self._sequence, layout="x", env=i,
                episode=self._sequence // N, t_started=0, steps=T, features=4, actions=3,
                weights=self._weights(), truncated=True,
            )  # fmt: skip
            self._sequence += 1
            out.append(
                Fragment(
                    head, obs[i].numpy(), mask[i].numpy().astype(np.uint8),
                    action[i].numpy().astype(np.int32), log_prob[i].numpy(), log_probs[i].numpy(),
                    np.zeros((T, 0), np.float32), reward[i].numpy(),
                )
            )  # fmt: skip
        return out, [self._sign * f.reward for f in out]


def trained(kind: type[PPOAgent], updates: int, *, sign: float = 1.0) -> list[float]:
    from streambot.learning.learner.algorithm import stream_ppo

    agent = kind(CONFIG)
    algorithm = stream_ppo(agent, batch=N * T)
    market = Market(agent, lambda: algorithm.updates, sign=sign)
    algorithm.feed = market
    for _ in range(updates):
        algorithm.train()
        algorithm.fetch(agent)
    algorithm.stop()
    return market.earned


def test_it_learns_what_it_is_paid_for() -> None:
    """0.82 to 0.86 of the best policy's over eight seeds, and -0.69 to -0.76 of the opposite."""
    assert np.mean(trained(MoEAgent, 50)[-5:]) > 0.6
    assert np.mean(trained(MoEAgent, 25, sign=-1.0)[-5:]) < -0.3


@pytest.mark.parametrize("algorithm", ["stream_ppo", "stream_appo"])
def test_a_learner_in_this_process_needs_no_ray_that_runs(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's processes take hundreds of megabytes, listen, and end whoever uses them when one of them dies."""
    import ray
    from ray._private import auto_init_hook

    from streambot.learning.learner import algorithm as ppo
    from streambot.learning.learner import appo
    from streambot.learning.learner.cluster import ray_here

    def starts(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(ray, "init", starts)
    monkeypatch.setattr(auto_init_hook, "enable_auto_connect", True)
    agent = MoEAgent(CONFIG)
    with ray_here("127.0.0.1:1"):  # a cluster for several learners, which nobody asks for
        made: Any = getattr(appo if algorithm == "stream_appo" else ppo, algorithm)
        learner = made(agent, batch=N * T)
        learner.feed = Market(agent, lambda: learner.updates)
        learner.train()
        learner.fetch(agent)
        assert learner.trained_steps == N * T
        with pytest.raises(ray.exceptions.RaySystemError, match="has not been started"):
            ray.put(1)
        learner.stop()
    assert not ray.is_initialized()


@pytest.mark.parametrize("kind", [MoEAgent, PPOAgent])
def test_weights_and_memory_go_over_and_come_back(kind: type[PPOAgent]) -> None:
    """The next update of a learner with both is that of the one they are from."""
    from streambot.learning.learner.algorithm import stream_ppo

    first = kind(CONFIG)
    algorithm = stream_ppo(first, batch=N * T)
    fetched = kind(msgspec.structs.replace(CONFIG, seed=9))
    algorithm.fetch(fetched)
    for name, value in first.network.state_dict().items():
        assert torch.equal(fetched.network.state_dict()[name], value), name
    market = Market(first, lambda: 0)
    measured = algorithm.update(*market.take(N * T))
    algorithm.fetch(fetched)
    assert algorithm.updates == 1
    gate = {"gate_entropy"} if kind is MoEAgent else set()
    assert measured.keys() == gate | {
        "policy_loss", "value_loss", "entropy", "kl", "clipped", "gradient_norm",
    }  # fmt: skip
    assert 0 < measured["entropy"] <= np.log(2) + 1e-6, "two of three actions are legal"
    assert 0 <= measured["clipped"] <= 1
    assert measured["kl"] > 0, "the policy has moved"
    assert min(measured["gradient_norm"], measured["value_loss"]) > 0
    assert 0 < measured.get("gate_entropy", 0.1) <= np.log(CONFIG.experts) + 1e-6
    assert any(
        not torch.equal(fetched.network.state_dict()[n], v)
        for n, v in first.network.state_dict().items()
    )
    again = kind(CONFIG)
    algorithm.fetch(again)
    other = stream_ppo(again, batch=N * T)
    other.remember(algorithm.memory())
    ours, theirs = algorithm.memory(), other.memory()
    assert ours.keys() == theirs.keys()
    assert len(ours) > 2
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)
    batch = market.take(N * T)
    assert algorithm.update(*batch) == other.update(*batch)
    algorithm.fetch(fetched)
    other.fetch(again)
    for name, value in fetched.state().items():
        if name.startswith(("network.", "critic.")):
            assert torch.equal(again.state()[name], value), name
    algorithm.stop()
    other.stop()


def ragged(agent: PPOAgent) -> tuple[list[Fragment], list[Any]]:
    """Fragments of all lengths from 1 to T, of episodes that go on, were cut, and have terminated."""
    fragments, rewards = Market(agent, lambda: 0).take(N * T)
    generator = np.random.default_rng(SEED)
    cut = []
    for k, fragment in enumerate(fragments):
        steps = 1 + k % T
        over = int(generator.integers(3)) if k else 2
        head = msgspec.structs.replace(
            fragment.head, steps=steps, terminated=over == 2, truncated=over == 1
        )
        some = {name: getattr(fragment, name)[:steps] for name in Fragment._fields[3:]}
        cut.append(
            Fragment(head, obs=fragment.obs[: steps + 1], mask=fragment.mask[: steps + 1], **some)
        )
    return cut, [r[: f.head.steps] for r, f in zip(rewards, cut, strict=True)]


def made_by_rllib(learner: Any, fragments: list[Fragment], rewards: list[Any]) -> dict[str, Any]:
    """The batch of RLlib's own connectors for PPO, of episodes step by step."""
    from ray.rllib.connectors.connector_pipeline_v2 import ConnectorPipelineV2
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    assert isinstance(learner._learner_connector, ConnectorPipelineV2)
    episodes = [
        SingleAgentEpisode(
            id_=str(fragment.head.sequence), observations=list(fragment.obs),
            actions=list(fragment.action.astype(np.int64)), rewards=[float(r) for r in reward],
            extra_model_outputs={
                "action_logp": list(fragment.log_prob), "action_dist_inputs": list(fragment.log_probs),
            },
            terminated=fragment.head.terminated, truncated=fragment.head.truncated,
            len_lookback_buffer=0,
        ).to_numpy()
        for fragment, reward in zip(fragments, rewards, strict=True)
    ]  # fmt: skip
    batch: dict[str, dict[str, Any]] = learner._learner_connector(
        rl_module=learner.module, batch={}, episodes=episodes, shared_data={}, metrics=None
    )
    kept = batch["default_policy"].pop("loss_mask").bool()
    return {name: column[kept] for name, column in batch["default_policy"].items()}


@pytest.mark.parametrize("kind", [MoEAgent, PPOAgent])
def test_batch_and_loss_are_those_of_rllib_s_own_way(kind: type[PPOAgent]) -> None:
    """Columns from arrays against RLlib's connectors, and our loss against its own."""
    from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

    from streambot.learning.learner.algorithm import stream_ppo
    from streambot.learning.learner.columns import Tensors, shares
    from streambot.learning.learner.updates import Turn

    config = msgspec.structs.replace(
        CONFIG, learn=msgspec.structs.replace(CONFIG.learn, balance=0.0)
    )
    agent = kind(config)
    algorithm = stream_ppo(agent, batch=N * T)
    algorithm.update(*Market(agent, lambda: 0).take(N * T))  # values and policy are not as begun
    algorithm.fetch(agent)
    fragments, rewards = ragged(agent)
    learner = algorithm.learner_group._learner
    learner._turn = Turn(0, 0.0, 1)
    theirs = made_by_rllib(learner, fragments, rewards)
    (steps,) = shares(fragments, rewards, 1)
    ours = learner.columns(Tensors.of(steps, learner.device))
    assert len(ours["actions"]) == sum(f.head.steps for f in fragments)
    for name in ("obs", "actions"):
        assert torch.equal(ours[name].to(theirs[name].dtype), theirs[name]), name
    # RLlib takes what was said when it was acted; said again it is the same but for rounding.
    torch.testing.assert_close(ours["action_logp"], theirs["action_logp"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours["value_targets"], theirs["value_targets"], atol=1e-5, rtol=1e-5)
    # RLlib's mean and deviation are over the rows too that it has added behind every episode.
    centred = theirs["advantages"] - theirs["advantages"].mean()
    theirs["advantages"] = centred / centred.pow(2).mean().sqrt()
    torch.testing.assert_close(ours["advantages"], theirs["advantages"], atol=1e-5, rtol=1e-4)

    theirs["mask"] = ours["mask"]
    slopes = []
    for batch, loss_of in (
        (ours, type(learner).compute_loss_for_module), (theirs, PPOTorchLearner.compute_loss_for_module)
    ):  # fmt: skip
        of_rllib = learner.config.get_config_for_module("default_policy")
        fwd_out = learner.module["default_policy"].forward_train(batch)
        loss = loss_of(
            learner, module_id="default_policy", config=of_rllib, batch=batch, fwd_out=fwd_out
        )
        learner.module["default_policy"].zero_grad()
        loss.backward()
        slopes.append([loss.detach(), *(p.grad for p in learner.policy.parameters())])
    for mine, its in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, its, atol=1e-5, rtol=1e-4)
    algorithm.stop()


@pytest.mark.parametrize("kind", [MoEAgent, PPOAgent])
def test_an_update_moves_away_from_the_policy_of_now(kind: type[PPOAgent]) -> None:
    """However far the one that acted is: it weighs the steps, and is not what the clip is around."""
    from streambot.learning.learner.algorithm import stream_ppo
    from streambot.learning.learner.columns import Tensors, shares
    from streambot.learning.learner.updates import MOST_WEIGHT

    acted = kind(CONFIG)
    fragments, rewards = ragged(acted)
    once = msgspec.structs.replace(CONFIG.learn, epochs=1, minibatch=N * T, lr=1e-2)
    now = kind(msgspec.structs.replace(CONFIG, seed=5, learn=once))
    algorithm = stream_ppo(now, batch=N * T)
    for _ in range(30):
        algorithm.update(*Market(now, lambda: 0).take(N * T))
        algorithm.fetch(now)
    learner = algorithm.learner_group._learner
    steps = Tensors.of(shares(fragments, rewards, 1)[0], learner.device)
    found = learner.columns(steps)
    with torch.no_grad():
        said = now.log_probs(found["obs"], found["mask"])
    log_prob = said.gather(-1, found["actions"].unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(found["action_logp"], log_prob, atol=1e-5, rtol=1e-5)
    ratio = (log_prob - steps.log_prob).exp()
    assert ratio.max() > MOST_WEIGHT
    assert ratio.min() < 0.5
    new = learner.columns(steps._replace(log_prob=found["action_logp"]))
    torch.testing.assert_close(
        found["advantages"], new["advantages"] * ratio.clamp(max=MOST_WEIGHT), atol=1e-5, rtol=1e-4
    )
    assert torch.equal(found["value_targets"], new["value_targets"])
    measured = algorithm.update(fragments, rewards)
    assert measured["clipped"] == 0, "the only gradient begins where the policy is"
    assert measured["kl"] == pytest.approx(0, abs=1e-6)
    assert measured["gradient_norm"] > 0
    algorithm.stop()


@pytest.mark.parametrize(("target_kl", "gradients"), [(1e-9, 2), (1e9, 8), (float("inf"), 8)])
def test_an_update_ends_where_the_policy_has_moved_far_enough(
    target_kl: float, gradients: int
) -> None:
    """As in one process; the first minibatch meets the policy where it is."""
    from streambot.learning.learner.algorithm import stream_ppo

    learn = msgspec.structs.replace(CONFIG.learn, epochs=4, target_kl=target_kl)
    agent = PPOAgent(msgspec.structs.replace(CONFIG, learn=learn))
    algorithm = stream_ppo(agent, batch=N * T)
    learner = algorithm.learner_group._learner
    made = []
    apply = learner.apply_gradients
    learner.apply_gradients = lambda gradients: made.append(apply(gradients))
    algorithm.update(*Market(agent, lambda: 0).take(N * T))
    assert len(made) == gradients
    algorithm.stop()


def test_steps_that_are_no_multiple_of_anything_are_all_learnt_from() -> None:
    """Minibatches are alike: none of a few steps, whose gradient would weigh as much as any."""
    from streambot.learning.learner.algorithm import stream_ppo

    agent = PPOAgent(CONFIG)
    algorithm = stream_ppo(agent, batch=N * T)
    learner = algorithm.learner_group._learner
    seen: list[list[int]] = []
    measure = learner.measure

    def kept(log_probs: Any, batch: dict[str, Any], **more: Any) -> None:
        seen.append(batch["obs"][:, 0].tolist())
        measure(log_probs, batch, **more)

    learner.measure = kept
    fragments, rewards = ragged(agent)
    algorithm.update(fragments, rewards)
    steps = sum(f.head.steps for f in fragments)
    assert len(seen) == CONFIG.learn.epochs * round(steps / CONFIG.learn.minibatch)
    assert max(map(len, seen)) - min(map(len, seen)) <= 1
    assert sorted(chain.from_iterable(seen)) == sorted(
        value for f in fragments for value in f.obs[:-1, 0].tolist() * CONFIG.learn.epochs
    )
    algorithm.stop()


def test_schedules_follow_the_progress_of_the_training() -> None:
    """At the end of a linear one nothing moves any more."""
    from streambot.learning.learner.algorithm import stream_ppo

    learn = msgspec.structs.replace(CONFIG.learn, schedule="linear")
    agent = PPOAgent(msgspec.structs.replace(CONFIG, learn=learn))
    algorithm = stream_ppo(agent, batch=N * T)
    market = Market(agent, lambda: 0)
    fetched = PPOAgent(agent.config)
    moved = []
    for progress in (0.0, 1.0):
        before = {n: v.clone() for n, v in fetched.critic.state_dict().items()}
        algorithm.update(*market.take(N * T), progress=progress)
        algorithm.fetch(fetched)
        moved.append(
            any(not torch.equal(before[n], v) for n, v in fetched.critic.state_dict().items())
        )
    assert moved == [True, False]
    algorithm.stop()


def _grows() -> None:
    torch.empty(1 << 60)


def _no_card() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")


def _full() -> None:
    raise MemoryError


def _wrong() -> None:
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize(
    ("fails", "told"),
    [(_grows, "memory ran out"), (_full, "memory ran out"), (_no_card, "the GPU has no memory"), (_wrong, None)],
)  # fmt: skip
def test_memory_that_runs_out_is_said_in_a_line_and_a_bug_stays_one(
    fails: Any, told: str | None
) -> None:
    from streambot.learning.learner.algorithm import stream_ppo

    agent = PPOAgent(CONFIG)
    algorithm = stream_ppo(agent, batch=N * T)
    algorithm.learner_group._learner.columns = lambda _: fails()
    batch = Market(agent, lambda: 0).take(N * T)
    with pytest.raises(ConfigError if told else RuntimeError, match=told) as raised:
        algorithm.update(*batch)
    if told:
        assert "\n" not in raised.value.message
        assert "batch" in raised.value.hint
    algorithm.stop()
