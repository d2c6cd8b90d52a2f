"""RLlib's APPO on fragments, and what both algorithms do with several learners."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ray")

from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.agents.ppo import PPOAgent  # noqa: E402
from streambot.domain.errors import ConfigError, DataError  # noqa: E402
from tests.unit.learning.test_stream_ppo import (  # noqa: E402, F401
    CONFIG,
    Market,
    N,
    T,
    pytestmark,
    ragged,
)


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    from streambot.learning.learner.cluster import ray_here

    with ray_here(learners=2):
        yield


def made(name: str) -> Callable[..., Any]:
    from streambot.learning.learner import algorithm, appo

    made: Callable[..., Any] = getattr(appo if name == "stream_appo" else algorithm, name)
    return made


def trained(updates: int, *, sign: float = 1.0, lag: int = 0) -> tuple[list[float], MoEAgent]:
    """Rewards of the batches; the policy that acts is `lag` updates old."""
    agent = MoEAgent(CONFIG)
    algorithm = made("stream_appo")(agent, batch=N * T)
    market = Market(agent, lambda: algorithm.updates, sign=sign)
    for update in range(updates):
        algorithm.update(*market.take(N * T))
        if update % (lag + 1) == lag:
            algorithm.fetch(agent)
    algorithm.stop()
    return market.earned, agent


@pytest.mark.usefixtures("ray")
def test_it_learns_what_it_is_paid_for() -> None:
    """0.80 to 0.86 of the best policy's over eight seeds, -0.71 to -0.76 of the opposite, 0.80 to 0.84 late."""
    earned, agent = trained(50)
    assert np.mean(earned[-5:]) > 0.6
    assert np.mean(trained(25, sign=-1.0)[0][-5:]) < -0.3
    assert np.mean(trained(50, lag=4)[0][-5:]) > 0.5
    mask = torch.tensor([0.0, 1.0, 1.0]).expand(256, 3)
    obs = 10 * torch.randn(256, 4, generator=torch.Generator().manual_seed(1))
    assert (agent.probabilities(obs, mask)[:, 0] == 0).all(), "what is illegal stays impossible"


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("kind", [MoEAgent, PPOAgent])
def test_a_restart_goes_on_exactly(kind: type[PPOAgent]) -> None:
    """Weights, optimizer and target network go over; no thread of RLlib's is left to change them."""
    stream_appo = made("stream_appo")
    agent = kind(CONFIG)
    algorithm = stream_appo(agent, batch=N * T)
    market = Market(agent, lambda: 0)
    for _ in range(3):
        measured = algorithm.update(*market.take(N * T))
    gate = {"gate_entropy"} if kind is MoEAgent else set()
    assert measured.keys() == gate | {
        "policy_loss", "value_loss", "entropy", "kl", "clipped", "gradient_norm",
    }  # fmt: skip
    assert 0 < measured["entropy"] <= np.log(2) + 1e-6, "two of three actions are legal"
    assert not [t for t in threading.enumerate() if "LearnerThread" in t.name]
    again = kind(CONFIG)
    algorithm.fetch(again)
    other = stream_appo(again, batch=N * T)
    memory = algorithm.memory()
    target = {n.removeprefix("target."): v for n, v in memory.items() if n.startswith("target.")}
    assert any(not torch.equal(target[n], v) for n, v in again.network.state_dict().items()), (
        "the target is an older policy"
    )
    other.remember(memory)
    assert other.updates == 3
    for _ in range(3):  # over a step of the target
        batch = market.take(N * T)
        assert algorithm.update(*batch) == other.update(*batch)
    ours, theirs = algorithm.memory(), other.memory()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)
    fetched = kind(CONFIG)
    algorithm.fetch(fetched)
    other.fetch(again)
    for name, value in fetched.state().items():
        if name.startswith(("network.", "critic.")):
            assert torch.equal(again.state()[name], value), name
    algorithm.stop()
    other.stop()


def of_the_paper(learner: Any, fragments: Any, rewards: Any) -> tuple[float, float]:
    """Losses of policy and values, fragment by fragment and step by step in double precision."""
    learn, policies, values = learner.learn, [], []
    for fragment, reward in zip(fragments, rewards, strict=True):
        obs, mask = torch.from_numpy(fragment.obs), torch.from_numpy(fragment.mask)
        batch = {"obs": obs, "mask": mask}
        with torch.no_grad():
            v = learner.policy.compute_values(batch).double()
            now, old = (
                learner.policy.said(network, batch)["action_dist_inputs"][:-1]
                .gather(-1, torch.from_numpy(fragment.action).long().unsqueeze(-1)).squeeze(-1).double()
                for network in (learner.policy.network, learner.policy.target)
            )  # fmt: skip
        acted = torch.from_numpy(fragment.log_prob).double()
        steps, vs = fragment.head.steps, v.clone()
        rho = (old - acted).exp().clamp(max=1.0)
        for t in reversed(range(steps)):
            ends = fragment.head.terminated and t == steps - 1
            discount = 0.0 if ends else learn.gamma
            r_t = float(reward[t])
            delta = rho[t] * (r_t + discount * v[t + 1] - v[t])
            vs[t] = v[t] + delta + discount * rho[t] * (vs[t + 1] - v[t + 1])
            a_t = rho[t] * (r_t + discount * vs[t + 1] - v[t])
            ratio = (acted[t] - old[t]).exp().clamp(0.0, 2.0) * (now[t] - acted[t]).exp()
            clipped = ratio.clamp(1 - learn.clip, 1 + learn.clip)
            policies.append(-min(a_t * ratio, a_t * clipped))
            values.append(0.5 * (v[t] - vs[t]) ** 2)
    return float(torch.stack(policies).mean()), float(torch.stack(values).mean())


@pytest.mark.usefixtures("ray")
def test_v_trace_is_that_of_the_paper_for_fragments_of_all_lengths() -> None:
    """What an episode that goes on is worth behind its last step counts, whatever lies in the grid there."""
    from streambot.learning.learner.columns import Tensors, shares
    from streambot.learning.learner.updates import Turn

    agent = MoEAgent(CONFIG)
    algorithm = made("stream_appo")(agent, batch=N * T)
    market = Market(agent, lambda: 0)
    for _ in range(3):
        algorithm.update(*market.take(N * T))
    fragments, rewards = ragged(agent)
    learner = algorithm.learner_group._learner
    learner._turn = Turn(3, 0.0, 1)
    (steps,) = shares(fragments, rewards, 1)
    batch = learner.columns(Tensors.of(steps, learner.device))
    learner.compute_loss_for_module(
        module_id="default_policy", config=learner.config, batch=batch,
        fwd_out=learner.module["default_policy"].forward_train(batch),
    )  # fmt: skip
    said = learner._measured[-1]
    policy, value = of_the_paper(learner, fragments, rewards)
    assert float(said["policy_loss"]) == pytest.approx(policy, rel=1e-4, abs=1e-5)
    assert float(said["value_loss"]) == pytest.approx(value, rel=1e-4)
    algorithm.stop()


def watched(learner: Any) -> None:
    """Keeps what a learner sees."""
    learner.seen, measure = [], learner.measure

    def kept(log_probs: Any, batch: dict[str, Any], *more: Any, **named: Any) -> None:
        obs, valid = batch["obs"][..., 0], batch.get("loss_mask")
        learner.seen.append((obs if valid is None else obs[valid]).tolist())
        measure(log_probs, batch, *more, **named)

    learner.measure = kept


@pytest.mark.usefixtures("ray")
def test_two_learners_end_an_update_together() -> None:
    """Where the policy has moved far enough by the mean of what they see; one alone would wait for ever."""
    learn = msgspec.structs.replace(CONFIG.learn, minibatch=32, target_kl=2e-3)
    agent = MoEAgent(msgspec.structs.replace(CONFIG, learn=learn))
    algorithm = made("stream_ppo")(agent, batch=N * T, learners=2)
    algorithm.each(watched)
    market = Market(agent, lambda: 0)
    counts = []
    for _ in range(4):
        algorithm.update(*market.take(N * T))
        first, second = algorithm.each(lambda learner: len(learner.seen))
        assert first == second
        counts.append(first)
    assert counts[-1] < 4 * learn.epochs * N * T // learn.minibatch, "some ended early"
    weights, others = algorithm.each(lambda learner: learner.policy.weights())
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    algorithm.stop()


@pytest.mark.usefixtures("ray")
@pytest.mark.parametrize("name", ["stream_ppo", "stream_appo"])
def test_two_learners_are_one(name: str) -> None:
    """Each step is learnt from by one of them, they move alike, and what is kept reaches both.

    What they earn after twelve updates was 0.54 to 0.63 over four seeds.
    """
    agent = MoEAgent(CONFIG)
    algorithm = made(name)(agent, batch=N * T, learners=2)
    algorithm.each(watched)
    fragments, rewards = ragged(agent)
    algorithm.update(fragments, rewards)
    first, second = algorithm.each(lambda learner: learner.seen)
    assert len(first) == len(second)
    steps = sum(f.head.steps for f in fragments)
    learn = CONFIG.learn
    assert len(first) == learn.epochs * round(steps / learn.minibatch)
    if name == "stream_ppo":
        assert {len(part) for part in first + second} <= {
            steps // (2 * len(first) // learn.epochs) + k for k in (0, 1)
        }
    counted = Counter(chain.from_iterable(first + second))
    assert counted == {float(v): learn.epochs for f in fragments for v in f.obs[:-1, 0]}

    market = Market(agent, lambda: 0)
    for _ in range(12):
        algorithm.update(*market.take(N * T))
        algorithm.fetch(agent)
    assert np.mean(market.earned[-3:]) > 0.3
    weights = algorithm.each(lambda learner: learner.policy.weights())
    memories = algorithm.each(lambda learner: learner.memory())
    for mine, its in (weights, memories):
        assert mine.keys() == its.keys()
        assert all(torch.equal(mine[n], its[n]) for n in mine)

    memory = {n: v + 1 for n, v in algorithm.memory().items()}
    algorithm.remember(memory)
    for of_one in algorithm.each(lambda learner: learner.memory()):
        assert all(torch.equal(of_one[n], memory[n]) for n in of_one)
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {c.laddr.ip for p in family for c in p.net_connections() if c.status == "LISTEN"}
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
    algorithm.give(MoEAgent(CONFIG))
    for of_one in algorithm.each(lambda learner: learner.policy.weights()):
        begun = MoEAgent(CONFIG).state()
        assert all(torch.equal(v, begun[n]) for n, v in of_one.items())
    algorithm.stop()


@pytest.mark.usefixtures("ray")
def test_a_learner_that_dies_ends_the_training_with_a_line() -> None:
    agent = PPOAgent(CONFIG)
    algorithm = made("stream_ppo")(agent, batch=N * T, learners=2)
    market = Market(agent, lambda: 0)
    batch = market.take(N * T)
    algorithm.update(*batch)
    few = msgspec.structs.replace(batch[0][0].head, steps=1)
    with pytest.raises(DataError, match="1 steps for 2 learners"):
        algorithm.update([batch[0][0]._replace(head=few)], [batch[1][0][:1]])
    pids = algorithm.each(lambda _: os.getpid())
    os.kill(pids[1], signal.SIGKILL)
    begun = time.monotonic()
    with pytest.raises(ConfigError, match="a learner has died") as told:
        algorithm.update(*batch)
    assert time.monotonic() - begun < 30
    assert "\n" not in told.value.message
    assert told.value.hint
    with pytest.raises(ConfigError):
        algorithm.update(*batch)
    with pytest.raises(ConfigError):
        algorithm.fetch(agent)
    algorithm.stop()
