"""An update does what its equations say, whatever makes it fast; freed memory is kept."""

from __future__ import annotations

import platform
import subprocess
import sys
from copy import deepcopy

import msgspec
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from streambot.agents.batch import Batch, LearnConfig  # noqa: E402
from streambot.agents.losses import gate_balance, ppo_loss, value_loss  # noqa: E402
from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.agents.networks import entropy  # noqa: E402
from streambot.agents.ppo import AgentConfig, PPOAgent  # noqa: E402
from tests.conftest import SEED  # noqa: E402

pytestmark = pytest.mark.train

LEARN = LearnConfig(lr=1e-2, minibatch=9, epochs=3, balance=0.3, balance_end=0.1, target_kl=1e9)
CONFIG = AgentConfig(
    features=6, actions=5, regimes=(4, 5), experts=3, hidden=(7, 4), learn=LEARN, seed=3
)
N, T = 4, 8


def made(kind: type[PPOAgent], learn: LearnConfig = LEARN) -> PPOAgent:
    """An agent in double precision."""
    agent = kind(msgspec.structs.replace(CONFIG, learn=learn))
    agent.network.double()
    agent.critic.double()
    return agent


def some(agent: PPOAgent) -> Batch:
    generator = torch.Generator().manual_seed(SEED)
    obs = torch.randn(N, T, 6, generator=generator, dtype=torch.float64)
    mask = (torch.rand(N, T, 5, generator=generator) > 0.3).to(torch.uint8)
    mask[..., 0] = 1
    action, log_prob = agent.select_action(obs, mask, torch.rand(N, T, generator=generator))
    advantage, target = torch.randn(2, N, T, generator=generator, dtype=torch.float64)
    return Batch(obs, mask, action, log_prob, advantage, target, torch.zeros(N, T).long())


def plainly(agent: PPOAgent, batch: Batch, progress: float) -> None:
    """The update as a textbook writes it: `backward`, and an Adam that takes parameter by parameter."""
    learn = agent.config.learn
    optimizer = torch.optim.Adam(
        agent.parameters, lr=learn.lr * (1 - progress), eps=1e-5, foreach=False, fused=False
    )
    flat = batch.flat()
    centred = flat.advantage - flat.advantage.mean()
    flat = flat._replace(advantage=centred / (centred.square().mean().sqrt() + 1e-8))
    clip = learn.clip * (0.1 + 0.9 * (1 - progress))
    balance = learn.balance + progress * (learn.balance_end - learn.balance)
    for _ in range(learn.epochs):
        order = torch.randperm(N * T, generator=agent.generator)
        for low in range(0, N * T, learn.minibatch):
            part = Batch(*(column[order[low : low + learn.minibatch]] for column in flat))
            log_probs = agent.log_probs(part.obs, part.mask)
            log_prob = log_probs[torch.arange(len(part.action)), part.action]
            loss = ppo_loss(log_prob, part.log_prob, part.advantage, clip)
            loss = loss + learn.value * value_loss(agent.critic(part.obs), part.target)
            loss = loss - learn.entropy * entropy(log_probs).mean()
            if isinstance(agent, MoEAgent):
                loss = loss - balance * gate_balance(agent.network(part.obs, part.mask).log_gate)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters, learn.max_grad_norm)
            optimizer.step()


@pytest.mark.parametrize("kind", [PPOAgent, MoEAgent])
def test_an_update_is_that_of_the_textbook(kind: type[PPOAgent]) -> None:
    """To the last digits, over all minibatches: order, normalised advantages, schedules, Adam.

    It fails where a fused Adam takes a transposed gradient as it lies in memory, which experts side
    by side have.
    """
    agent, twin = made(kind), made(kind)
    batch = some(agent)
    before = deepcopy(agent.network.state_dict())
    stats = agent.learn(batch, progress=0.25)
    plainly(twin, batch, 0.25)
    assert stats.gradients == 3 * 4
    for ours, theirs in zip(agent.parameters, twin.parameters, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    assert not any(torch.equal(before[k], v) for k, v in agent.network.state_dict().items())


def test_an_update_ends_where_the_policy_has_moved_far_enough() -> None:
    """Behind the gradient that found it so; never where the limit is out of reach."""
    near = made(MoEAgent, msgspec.structs.replace(LEARN, target_kl=1e-12))
    stats = near.learn(some(near))
    assert stats.stopped
    assert stats.gradients == 2, "the first gradient meets the policy that acted"
    assert stats.kl > 0
    far = made(MoEAgent)
    assert not far.learn(some(far)).stopped


KEEPS = """
import ctypes, resource, torch
from streambot.agents.devices import resolve_device
torch.set_num_threads(1)
ctypes.CDLL(None).mallopt(-3, 1 << 17)  # as glibc begins; it may find out more by itself, or not
resolve_device("cpu")
def step():
    x = [torch.ones(1 << 18) for _ in range(16)]
for _ in range(20):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to")
def test_memory_of_tensors_is_kept_for_the_next_step() -> None:
    """16 MiB a step are met again, not as 4,096 new pages each time, which they are without the call."""
    done = subprocess.run(
        [sys.executable, "-c", KEEPS], capture_output=True, text=True, check=True, timeout=120
    )
    assert float(done.stdout) < 50
