"""Losses and mixtures are what their equations say, step by step."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from streambot.agents.losses import divergence, gate_balance, ppo_loss  # noqa: E402
from streambot.agents.networks import mix  # noqa: E402
from tests.conftest import SEED  # noqa: E402

pytestmark = pytest.mark.train

ACTIONS = 5


def test_the_surrogate_is_clipped_on_the_side_that_gains() -> None:
    """Each of its branches, step by step."""
    rng = np.random.default_rng(SEED)
    now, then, advantage = (torch.from_numpy(rng.normal(size=200)) for _ in range(3))
    expected = 0.0
    for a, b, gain in zip(now.tolist(), then.tolist(), advantage.tolist(), strict=True):
        ratio = float(np.exp(a - b))
        kept = min(max(ratio, 0.8), 1.2)
        expected -= min(ratio * gain, kept * gain) / 200
    assert float(ppo_loss(now, then, advantage, 0.2)) == pytest.approx(expected, rel=1e-12)


def test_the_divergence_of_what_was_done_is_that_of_the_policies_and_so_is_its_slope() -> None:
    """Over all actions of the policy that acted, weighted as it takes them: value, slope, and no less.

    Half the squared log-ratio has another slope, by a tenth and more: it would fail.
    """
    generator = torch.Generator().manual_seed(SEED)
    draw = partial(torch.randn, 40, ACTIONS, generator=generator, dtype=torch.float64)
    then = draw().log_softmax(-1)
    logits = (then + 0.8 * draw()).requires_grad_()

    def slope(loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, logits, retain_graph=True)[0]

    now = logits.log_softmax(-1)
    true = (then.exp() * (then - now)).sum()
    each = divergence(now, then)
    ours = (then.exp() * each).sum()
    torch.testing.assert_close(ours, true, rtol=1e-12, atol=0)
    torch.testing.assert_close(slope(ours), slope(true), rtol=1e-10, atol=1e-14)
    assert float(each.min().detach()) >= 0.0
    squared = (then.exp() * 0.5 * (now - then).pow(2)).sum()
    assert float((slope(squared) - slope(true)).norm()) > 0.1 * float(slope(true).norm())
    same = torch.autograd.grad(divergence(logits, logits.detach()).sum(), logits)[0]
    assert float(same.abs().max()) == 0.0


def test_a_mixture_is_a_distribution_and_keeps_the_mask() -> None:
    """For any gate, shut or open: probabilities sum to 1, and what is illegal has none."""
    generator = torch.Generator().manual_seed(SEED)
    for scale in (0.0, 1.0, 30.0, 1e4):
        log_gate = (scale * torch.randn(50, 4, generator=generator)).log_softmax(-1)
        mask = torch.rand(50, ACTIONS, generator=generator) > 0.5
        mask[:, 0] = True
        logits = 5 * torch.randn(50, 4, ACTIONS, generator=generator)
        experts = logits.masked_fill(~mask.unsqueeze(1), -1e9).log_softmax(-1)
        said = mix(log_gate.mT, experts.movedim(0, -1)).mT.exp()
        torch.testing.assert_close(said.sum(-1), torch.ones(50))
        assert float(said[~mask].max()) == 0.0
        average = (log_gate.exp().unsqueeze(-1) * experts.exp()).sum(1)
        torch.testing.assert_close(said, average, rtol=1e-4, atol=1e-6)


def test_the_balance_of_a_gate_is_the_entropy_of_its_mean() -> None:
    """Even where each observation uses one expert alone, as long as all are used."""
    hard = torch.eye(4).clamp(min=1e-20).log()
    assert float(gate_balance(hard)) == pytest.approx(np.log(4), rel=1e-5)
    assert float(gate_balance(hard[:1].expand(9, 4))) == pytest.approx(0.0, abs=1e-5)
