"""Meta-training on tasks that differ in something hidden, and adaptation to others of their kind.

The loop is short because what it consists of is the product's: `adapted_all`, `acting`, `meta_gradient`,
and the loss that `learn` moves a policy by. A mutant breaks one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.learning import hidden
from benchmarks.learning.decisions import ACTIONS
from benchmarks.learning.hidden import Drawn, Tasks, draw
from benchmarks.learning.mutants import AveragedAgent
from streambot.agents.adaptation import Parameters, as_parameters, frozen, taken
from streambot.agents.advantages import normalised
from streambot.agents.batch import AdaptConfig, Batch, LearnConfig
from streambot.agents.maml import MetaConfig, meta_gradient
from streambot.agents.moe import MoEAgent
from streambot.agents.ppo import AgentConfig, PPOAgent
from streambot.learning.meta import acting, adapted_all, first_rates

STEPS = (0, 1, 2, 3, 5)
TRAIN, VALIDATION, TEST = range(3)


class AdaptsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The experiment.

    Attributes:
        updates: of the meta-parameters, or of the parameters where nothing is adapted.
        tasks: of an update. decisions: of each support and each query.
        lr: of Adam.
        inner_lr: first rate of the inner loop.
        held_out, validation: tasks that are judged on, and that rates are chosen on.
        rates: inner rates that are tried for every arm and every number of steps, as multiples of
            what it was trained with.
        entropies: weights of the entropy bonus that are tried for every arm.
        tuning_seeds: seeds that they are tried with.
    """

    updates: int = 200
    tasks: int = 16
    decisions: int = 64
    lr: float = 2e-3
    inner_lr: float = 2.0
    held_out: int = 512
    validation: int = 128
    rates: tuple[float, ...] = (0.05, 0.15, 0.5, 1.5, 5.0, 15.0, 50.0, 150.0)
    entropies: tuple[float, ...] = (0.01, 0.1, 1.0)
    tuning_seeds: tuple[int, ...] = (1_001, 1_002)


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an arm is trained.

    Attributes:
        steps: of the inner loop while training; 0: on all tasks together.
        first_order: the gradients of the inner loop are constants.
        learn_rates: every parameter learns its own inner rate.
        trains: False: it stays as it begins.
        mutant: what is broken: `detached`, `swapped`, `contrary`, `even gate`; empty: nothing.
    """

    steps: int = 1
    first_order: bool = False
    learn_rates: bool = True
    trains: bool = True
    mutant: str = ""


def learner(recipe: Recipe, config: AdaptsConfig, entropy: float, seed: int) -> PPOAgent:
    """A small mixture, whose gate sees what the experts see: there are no regimes here."""
    kind = AveragedAgent if recipe.mutant == "even gate" else MoEAgent
    return kind(
        AgentConfig(
            features=hidden.FEATURES, actions=ACTIONS, regimes=tuple(range(hidden.FEATURES)),
            hidden=(32, 32), seed=seed, learn=LearnConfig(entropy=entropy),
            adapt=AdaptConfig(lr=config.inner_lr, first_order=recipe.first_order),
        )
    )  # fmt: skip


Acts = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def played(tasks: Tasks, act: Acts, rng: np.random.Generator, sign: float = 1.0) -> Batch:
    """What a policy did in tasks and what it was worth, by task, [K, N, 1]."""
    shape = tasks.obs.shape[:-1]
    mask = torch.ones(*shape, ACTIONS)
    action, log_prob = act(tasks.obs, mask, torch.from_numpy(rng.random(shape, np.float32)))
    reward = taken(tasks.earned, action)
    advantage = sign * torch.stack([normalised(some) for some in reward])
    episode = torch.arange(shape[1]).view(1, -1, 1).expand(shape)
    return Batch(tasks.obs, mask, action, log_prob, advantage, reward, episode)


def trained(
    recipe: Recipe, config: AdaptsConfig, entropy: float, seed: int
) -> tuple[PPOAgent, Parameters]:
    """An agent, meta-trained, and its inner rates."""
    who = learner(recipe, config, entropy, seed)
    rates = first_rates(who)
    learnt = [*who.network.parameters(), *(rates.values() if recipe.learn_rates else ())]
    optimizer = torch.optim.Adam(learnt, lr=config.lr)
    for update in range(config.updates if recipe.trains else 0):
        rng = np.random.default_rng([seed, TRAIN, update])
        _update(who, rates, recipe, draw(rng, config.tasks, config.decisions), rng)
        nn.utils.clip_grad_norm_(who.network.parameters(), 1.0)
        optimizer.step()
    return who, {name: rate.detach() for name, rate in rates.items()}


def _update(
    who: PPOAgent, rates: Parameters, recipe: Recipe, tasks: Drawn, rng: np.random.Generator
) -> None:
    """Write the gradients of a batch of tasks."""
    sign = sign_of(recipe)
    support = played(tasks.support, who.select_action, rng, sign)
    after = adapted_all(who, support, recipe.steps, rates)
    query = played(tasks.query, acting(who, after), rng, sign)
    if recipe.mutant == "swapped":
        support, query = query, support

    def outer(parameters: Mapping[str, Tensor], batch: Batch) -> Tensor:
        at = frozen(parameters) if recipe.mutant == "detached" else parameters
        loss = who.outer_loss(at, batch, clip=0.2, balance=0.0)
        if recipe.mutant == "detached":  # a gradient of zero, where there would be none
            loss = loss + 0.0 * torch.stack([p.sum() for p in parameters.values()]).sum()
        return loss

    found = meta_gradient(
        who.policy, as_parameters(who.network), rates, support, query,
        MetaConfig(steps=recipe.steps, kl=0.0), who.config.adapt,
        outer,
    )  # fmt: skip
    for name, parameter in who.network.named_parameters():
        parameter.grad = found.parameters[name].detach()
    for name, rate in rates.items():
        rate.grad = found.rates[name].detach()


def sign_of(recipe: Recipe) -> float:
    """What advantages are multiplied by, in training and where it is used."""
    return -1.0 if recipe.mutant == "contrary" else 1.0


def curve(
    who: PPOAgent, rates: Parameters, tasks: Drawn, rng: np.random.Generator, sign: float
) -> list[float]:
    """Mean expected reward of the queries after `STEPS` on the supports: exact over the actions."""
    support = played(tasks.support, who.select_action, rng, sign)
    mask = torch.ones(*tasks.query.obs.shape[:-1], ACTIONS)
    rewards = []
    for count in STEPS:
        after = adapted_all(who, support, count, rates)
        with torch.no_grad():
            says = torch.func.vmap(who.policy)(after, tasks.query.obs, mask)
        rewards.append(float((says.exp() * tasks.query.expected).sum(-1).mean()))
    return rewards


def with_rates(
    who: PPOAgent, rates: Parameters, config: AdaptsConfig, seed: int, on: int, sign: float = 1.0
) -> dict[int, dict[float, float]]:
    """Rewards by number of steps and multiple of the rates, on the tasks of a stream of chance."""
    count = config.validation if on == VALIDATION else config.held_out
    found: dict[int, dict[float, float]] = {steps: {} for steps in STEPS}
    for times in config.rates:
        rng = np.random.default_rng([seed, on])
        tasks = draw(rng, count, config.decisions)
        scaled = {name: rate * times for name, rate in rates.items()}
        for steps, reward in zip(STEPS, curve(who, scaled, tasks, rng, sign), strict=True):
            found[steps][times] = reward
    return found
