"""The learning code: meta-gradients, the mixture, updates and rollouts.

All sides of a row run in this process, on one thread, in CPU time, and keep the memory that they free
(`agents.devices`), which otherwise costs them more than anything else. `learn-meta` is measured on two
threads besides, in wall time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from benchmarks import learn_peers as peers
from benchmarks.bars import random_walk
from benchmarks.engine import CAPITAL, as_block, stock
from benchmarks.env_peers import BARS, EPISODE
from benchmarks.harness import MIN_ROUNDS, Check, Row, SkippedError, interleave, ratio
from streambot.agents.adaptation import as_parameters
from streambot.agents.batch import AdaptConfig, Batch, LearnConfig
from streambot.agents.devices import resolve_device
from streambot.agents.losses import reach_of
from streambot.agents.maml import MetaConfig, meta_gradient, stacked
from streambot.agents.moe import MoEAgent
from streambot.agents.networks import MixtureNetwork
from streambot.agents.ppo import AgentConfig, PPOAgent
from streambot.env.sources import ArraySource
from streambot.env.vector_env import VectorTradingEnv
from streambot.learning.rollouts import Rollouts

META_TARGET, TASKS, INNER_LR = 1.8, 16, 0.1
MOE_TARGET, PPO_TARGET = 0.5, 1.2
ROLLOUT_TARGET, ROLLOUT_RATE = 0.5, 50_000.0
SIZES = (64, 1_024)
MOST_BUSY = 0.2
"""Cores that others may use where two threads are measured."""
FEATURES, ACTIONS, REGIMES = 64, 12, tuple(range(56, 64))
STEPS_OF_A_SET = (4, 64)
"""N and T of a support or query set: 256 steps."""


def _ready(threads: int = 1) -> None:
    resolve_device("cpu")
    torch.set_num_threads(threads)


def meta(rounds: int = MIN_ROUNDS, quick: bool = False) -> Iterator[Row]:
    """Meta-updates: 16 tasks, 256 steps of support and of query, Adam outside."""
    for steps in (1, 2, 3):
        yield _meta(steps, rounds, quick)
    # Threads that wait for one that does not run make any figure, and a thousand times as slow.
    busy = psutil.cpu_percent(2.0) / 100 * (psutil.cpu_count() or 1)
    if busy > MOST_BUSY:
        why = f"two threads need two cores for themselves: others use {busy:.1f}"
        yield Row(_named(2, 2), "", skipped=why)
        return
    try:
        yield _meta(2, rounds, quick, threads=2)
    finally:
        _ready()


def _named(steps: int, threads: int) -> str:
    plural, how = "s" if steps > 1 else "", ", two threads" if threads == 2 else ""
    return f"meta-gradient, {steps} inner step{plural}{how}"


def _meta(steps: int, rounds: int, quick: bool, threads: int = 1) -> Row:
    _ready(threads)
    config = MetaConfig(steps=steps)
    notes = _same_slopes(config)
    agent = _mixture(torch.float32)
    sets = [[_steps(agent, seed + k) for k in range(TASKS)] for seed in (0, 100)]
    tasks = _tasks(sets, config)
    updates = 2 if quick or threads == 2 else 8
    assert isinstance(agent.network, MixtureNetwork)
    usual, ours = peers.Mixture(agent.network), peers.LogProbs(agent.network)
    contestants: dict[str, Callable[[], int]] = {
        "streambot": _repeated(_meta_update(agent, sets, config), updates),
        "plain loop": _repeated(_outer(usual, peers.by_hand, tasks), updates),
    }
    for name, update in (("torchopt", peers.by_torchopt), ("higher", peers.by_higher)):
        if name in notes:
            continue
        contestants[name] = _repeated(_outer(usual, update, tasks), updates)
    if "torchopt" in contestants:
        contestants["torchopt on our network"] = _repeated(
            _outer(ours, peers.by_torchopt, tasks), updates
        )
    clock = time.process_time if threads == 1 else time.perf_counter
    rates = interleave(contestants, rounds, clock=clock)
    wanted = {"torchopt": META_TARGET if steps == 2 else None, "higher": 1.0, "plain loop": None}
    checks = [
        ratio(rates, "streambot", name, at_least=wanted.get(name))
        for name in contestants
        if name != "streambot"
    ]
    second = "wall" if threads == 2 else "CPU"
    return Row(
        _named(steps, threads), f"meta-updates per {second} second", rates, checks,
        [*notes.values(), "slopes of all are the same to 1e-9 in double precision"],
    )  # fmt: skip


def _mixture(dtype: torch.dtype) -> MoEAgent:
    """4 experts and a gate of two layers of 64, away from where they begin: there all is flat."""
    agent = MoEAgent(
        AgentConfig(features=FEATURES, actions=ACTIONS, regimes=REGIMES, gate_hidden=(64, 64))
    )
    agent.network.to(dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in agent.network.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=generator, dtype=dtype))
    return agent


def _steps(agent: PPOAgent, seed: int, shape: tuple[int, int] = STEPS_OF_A_SET) -> Batch:
    """Steps of chance, with actions of the agent; two episodes in each row."""
    generator = torch.Generator().manual_seed(seed)
    dtype = next(agent.network.parameters()).dtype

    def draw(*more: int) -> Tensor:
        return torch.randn(*shape, *more, generator=generator, dtype=dtype)

    obs, mask = draw(FEATURES), torch.ones(*shape, ACTIONS, dtype=torch.uint8)
    action, log_prob = agent.select_action(obs, mask, torch.rand(shape, generator=generator))
    rows, half = torch.arange(shape[0]).unsqueeze(-1), torch.arange(shape[1]) >= shape[1] // 2
    return Batch(obs, mask, action, log_prob, draw(), draw(), rows * 2 + half.long())


def _tasks(sets: list[list[Batch]], config: MetaConfig) -> peers.Tasks:
    supports, queries = sets
    lam = AdaptConfig().lam
    reaches = [reach_of(some.episode, lam, some.advantage.dtype) for some in supports]
    return peers.Tasks(supports, queries, reaches, config, INNER_LR)


def _meta_update(
    agent: MoEAgent, sets: list[list[Batch]], config: MetaConfig
) -> Callable[[], None]:
    supports, queries = (stacked(each) for each in sets)
    parameters = as_parameters(agent.network)
    adam = torch.optim.Adam(parameters.values(), lr=config.lr)
    adapt = AdaptConfig(lr=INNER_LR)

    def update() -> None:
        found = meta_gradient(agent.policy, parameters, {}, supports, queries, config, adapt)
        for name, value in parameters.items():
            value.grad = found.parameters[name]
        adam.step()

    return update


def _outer(
    network: nn.Module, slopes: Callable[[nn.Module, peers.Tasks], None], tasks: peers.Tasks
) -> Callable[[], None]:
    adam = torch.optim.Adam(network.parameters(), lr=tasks.config.lr)

    def update() -> None:
        slopes(network, tasks)
        adam.step()

    return update


def _repeated(update: Callable[[], object], times: int) -> Callable[[], int]:
    def work() -> int:
        for _ in range(times):
            update()
        return times

    return work


def _same_slopes(config: MetaConfig) -> dict[str, str]:
    """Compare the meta-gradients of all in double precision, on four tasks.

    Returns:
        Peers that cannot be measured here, and why.
    """
    agent = _mixture(torch.float64)
    sets = [[_steps(agent, seed + k) for k in range(4)] for seed in (0, 100)]
    tasks, missing = _tasks(sets, config), {}
    supports, queries = (stacked(each) for each in sets)
    found = meta_gradient(
        agent.policy, as_parameters(agent.network), {}, supports, queries, config,
        AdaptConfig(lr=INNER_LR),
    )  # fmt: skip
    assert isinstance(agent.network, MixtureNetwork)
    usual = peers.Mixture(agent.network)
    for name, update in (
        ("plain loop", peers.by_hand), ("torchopt", peers.by_torchopt), ("higher", peers.by_higher),
    ):  # fmt: skip
        try:
            update(usual, tasks)
        except SkippedError as reason:
            missing[name] = str(reason)
            continue
        for at, value in found.parameters.items():
            part, _, layer, field = at.split(".")
            if part == "gate":
                theirs = getattr(usual.gate[int(layer)], field).grad
            else:
                theirs = torch.stack(
                    [getattr(expert[int(layer)], field).grad for expert in usual.experts]  # type: ignore[index]
                )
            torch.testing.assert_close(value, theirs, rtol=1e-9, atol=1e-12, msg=f"{name}: {at}")
    return missing


def mixture(rounds: int = MIN_ROUNDS, quick: bool = False) -> Iterator[Row]:
    """Actions of the mixture, against one network with as many parameters."""
    _ready()
    moe = MoEAgent(AgentConfig(features=FEATURES, actions=ACTIONS, regimes=REGIMES))
    count = _count(moe)
    width = min(range(8, 512), key=lambda w: abs(_count_of(w) - count))
    single = PPOAgent(AgentConfig(features=FEATURES, actions=ACTIONS, hidden=(width, width)))
    for batch in SIZES:
        generator = torch.Generator().manual_seed(1)
        obs = torch.randn(batch, FEATURES, generator=generator)
        mask = torch.ones(batch, ACTIONS, dtype=torch.uint8)
        uniform = torch.rand(batch, generator=generator)
        times = max(1, (20_000 if quick else 200_000) // batch)

        def acts(
            agent: PPOAgent,
            given: tuple[Tensor, Tensor, Tensor] = (obs, mask, uniform),
            times: int = times,
        ) -> Callable[[], int]:
            act = _repeated(lambda: agent.select_action(*given), times)
            return lambda: act() * len(given[0])

        rates = interleave({"mixture": acts(moe), "one network": acts(single)}, rounds)
        yield Row(
            f"actions of the mixture, {batch:,} at once",
            "actions per CPU second",
            rates,
            [ratio(rates, "mixture", "one network", at_least=MOE_TARGET)],
            [f"{count:,} parameters, and {_count(single):,} in two layers of {width}"],
        )


def _count(agent: PPOAgent) -> int:
    return sum(value.numel() for value in agent.network.parameters())


def _count_of(width: int) -> int:
    return width * (FEATURES + 1) + width * (width + 1) + ACTIONS * (width + 1)


def updates(rounds: int = MIN_ROUNDS, quick: bool = False) -> Iterator[Row]:
    """Updates of PPO on the same batch: 4,096 steps, 4 epochs, minibatches of 512."""
    _ready()
    learn = LearnConfig(schedule="constant", target_kl=float("inf"), epochs=4, minibatch=512)
    config = AgentConfig(features=FEATURES, actions=ACTIONS, regimes=REGIMES, learn=learn)
    agent, moe = PPOAgent(config), MoEAgent(config)
    batch = _steps(agent, 1, (64, 64))
    times = 2 if quick else 10

    def learns(who: PPOAgent) -> Callable[[], int]:
        update = _repeated(lambda: who.learn(batch), times)
        return lambda: update() * batch.action.numel()

    contestants, notes = {"streambot": learns(agent), "its mixture": learns(moe)}, []
    checks: list[Check] = []
    try:
        train = _repeated(peers.sb3_updates(batch, learn.minibatch, learn.epochs), times)
        contestants["Stable-Baselines3"] = lambda: train() * batch.action.numel()
    except SkippedError as reason:
        notes.append(str(reason))
    rates = interleave(contestants, rounds)
    if "Stable-Baselines3" in rates:
        checks = [
            ratio(rates, "streambot", "Stable-Baselines3", at_least=PPO_TARGET),
            ratio(rates, "its mixture", "Stable-Baselines3"),
        ]
    checks = checks or [ratio(rates, "its mixture", "streambot")]
    yield Row("update of PPO", "steps learnt from per CPU second", rates, checks, notes)


def rollouts(rounds: int = MIN_ROUNDS, quick: bool = False) -> Iterator[Row]:
    """Experience of many environments and the mixture, ready to learn from."""
    _ready()
    for count in SIZES:
        yield _rollouts(count, rounds, quick)


def _rollouts(count: int, rounds: int, quick: bool) -> Row:
    steps = (16_384 if quick else 131_072) // count
    env = _envs(count)
    fields = env.observation_fields
    config = AgentConfig(
        features=len(fields), actions=env.core.masks.shape[1],
        regimes=tuple(field.position for field in fields if field.group == "regime"),
    )  # fmt: skip
    moe, single = MoEAgent(config), PPOAgent(config)
    collected, alone = Rollouts(env, steps, seed=1), Rollouts(_envs(count), steps, seed=1)
    some = collected.collect(moe).batch
    obs, mask = some.obs[:, 0].contiguous(), some.mask[:, 0].contiguous()
    uniform = torch.from_numpy(np.random.default_rng(1).random(count, np.float32))
    infer = _repeated(lambda: moe.select_action(obs, mask, uniform), steps)
    contestants: dict[str, Callable[[], int]] = {
        "mixture": lambda: collected.collect(moe).steps,
        "its inference alone": lambda: infer() * count,
        "one network": lambda: alone.collect(single).steps,
    }
    notes = ["experience ready to learn from, with advantages; one network has two layers of 64"]
    try:
        collect = peers.sb3_rollouts(_envs(count), steps)
        contestants["Stable-Baselines3"] = lambda: _repeated(collect, 1)() * steps * count
    except SkippedError as reason:
        notes.append(str(reason))
    rates = interleave(contestants, rounds)
    checks = [
        Check("mixture", rates["mixture"], at_least=ROLLOUT_RATE),
        ratio(rates, "mixture", "its inference alone", at_least=ROLLOUT_TARGET),
    ]
    if "Stable-Baselines3" in rates:
        checks.append(ratio(rates, "one network", "Stable-Baselines3", at_least=1.0))
        checks.append(ratio(rates, "mixture", "Stable-Baselines3"))
    return Row(
        f"rollouts of {count:,} environments", "env-steps per CPU second", rates, checks, notes
    )


def _envs(count: int) -> VectorTradingEnv:
    source = ArraySource(stock(enforce=True), as_block(random_walk(BARS)))
    return VectorTradingEnv(
        source, count, capital=CAPITAL, episode_bars=EPISODE, autoreset_mode="SameStep"
    )
