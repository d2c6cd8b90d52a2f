"""A trained policy in the engine task answers as it does in the environment; what is none is refused."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from streambot.agents.checkpoint import load_checkpoint, read_head, save_checkpoint  # noqa: E402
from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.domain.errors import ConfigError, DataError, StrategyError  # noqa: E402
from streambot.domain.events import OrdersThrough  # noqa: E402
from streambot.engine.slot_agents import SlotBrief  # noqa: E402
from streambot.env.fields import action_of  # noqa: E402
from streambot.env.settings import make_config  # noqa: E402
from streambot.env.trader import Decided, SlotTrader, SlotTraders  # noqa: E402
from streambot.env.trading_env import TradingEnv  # noqa: E402
from streambot.learning.acting import TrainedPolicy, load_traders  # noqa: E402
from streambot.learning.policy import load_policy  # noqa: E402
from streambot.processor.task import TaskCore  # noqa: E402
from streambot.streams.frame import FrameKind  # noqa: E402
from streambot.wiring.preparation import Prepared  # noqa: E402
from tests.conftest import ROOT, SEED  # noqa: E402
from tests.env_world import Chart, aliases, prepared, segments_of  # noqa: E402
from tests.trained import EXPERTS, SETTINGS, Given, frames_of, save_loud  # noqa: E402

pytestmark = pytest.mark.train
BUNDLED = [
    Chart(ROOT / "replay/bars/spy_1m_2020.parquet", "SPY", "0.0001", "XNYS", "America/New_York",
          "USD", "3.9", 100),
]  # fmt: skip
OF_THE_RUN = {"drawdown_limit_bp": 300, "capital": 100_000}


class Asked(NamedTuple):
    """What a policy was shown at a close, and what it answered."""

    barrier: int
    observation: bytes
    mask: bytes
    action: int


class Listening:
    """`SlotTraders` that note, slot by slot, what the policy is asked and answers."""

    def __init__(self, folder: Path) -> None:
        loaded = load_policy(folder)
        self.policy = TrainedPolicy(loaded, str(folder))
        self.config = loaded.config
        self.weights, self.sees = loaded.head.digest, ""
        self.asked: dict[str, list[Asked]] = {}

    def check(self, decision_ns: int) -> None:
        SlotTraders(self.policy, self.config, weights="").check(decision_ns)

    def strategy_for(self, slot: SlotBrief) -> SlotTrader:
        heard = self.asked.setdefault(slot.instrument.symbol, [])
        outer = self

        class Ear:
            experts, version = outer.policy.experts, outer.policy.version

            def decide(self, observation: Any, mask: Any) -> Decided:
                decided = outer.policy.decide(observation, mask)
                barrier = int(trader._follower.core.slots[0]["barrier"])
                heard.append(Asked(barrier, observation.tobytes(), mask.tobytes(), decided.action))
                return decided

        trader = SlotTraders(Ear(), self.config, weights="").strategy_for(slot)
        return trader


def run_of(folder: Path, count: int = 4) -> Prepared:
    rng = np.random.default_rng([SEED, 11])
    return prepared(
        BUNDLED, aliases(BUNDLED, count, rng), make_config(SETTINGS | OF_THE_RUN), folder
    )


def lines_of(run: Prepared, agents: Any, die: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Orders, fills, marks and last states of a run; a task that dies goes on in a new process."""
    manifest = run.manifest("run")
    cores = [TaskCore(manifest, p, run.context, agents()) for p in range(manifest.partitions)]
    out: dict[str, Any] = {"orders": [], "fills": [], "pnl": []}
    for p, frame in frames_of(run, manifest, max_rows=500, spans=(50 * 60 * 10**9 + 1,)):
        if die():
            state = cores[p].snapshot()
            cores[p] = TaskCore.restore(manifest, p, run.context, agents(), state)
        step = cores[p].finish() if frame.kind is FrameKind.END else cores[p].step(frame)
        for name, lines in out.items():
            lines.append(getattr(step, name))
    return out | {"states": [core.snapshot() for core in cores]}


def orders_of(out: dict[str, Any]) -> list[OrdersThrough]:
    return [msgspec.json.decode(line, type=OrdersThrough) for line in out["orders"] if line]


@pytest.mark.parametrize("kind", ["moe", "ppo", "volatility"])
def test_the_task_sees_and_answers_what_the_environment_does(tmp_path: Path, kind: str) -> None:
    """Every observation and mask, bit for bit, every answer, and the weights of the experts."""
    folder = save_loud(tmp_path / "policy", kind)
    run, ear = run_of(tmp_path), Listening(folder)
    lines = orders_of(lines_of(run, lambda: ear))
    given = {(o.instrument, o.barrier): o for line in lines for o in line.orders}
    said = {key: value for line in lines for key, value in (line.policy or {}).items()}
    agent, entries, ends = load_checkpoint(folder).agent, 0, set()
    source = Given(segments_of(run, make_config(SETTINGS)))
    env = TradingEnv(source, **SETTINGS, **OF_THE_RUN, episode_bars=None)
    for instrument in run.timeline.instruments:
        symbol, over, asked = instrument.symbol, False, []
        options = {"instrument": symbol, "bar": SETTINGS["lookback"], "bars": 0}
        obs, info = env.reset(options=options)
        while not over:
            barrier, mask = int(env.core.slots[0]["barrier"]), info["action_mask"]
            batch = torch.from_numpy(obs[None]), torch.from_numpy(mask[None])
            action = int(agent.select_action(*batch)[0])
            if mask[1:].any():
                asked.append(Asked(barrier, obs.tobytes(), mask.tobytes(), action))
            if action:
                expected = action_of(action, SETTINGS["max_quantity"])
                order = given[symbol, barrier]
                assert (order.action, order.quantity) == (expected.kind, expected.quantity)
                entries += 1
                if kind == "moe":
                    gate = agent.mixed(*batch).log_gate[0].exp().tolist()
                    for name, weight in zip(EXPERTS, gate, strict=True):
                        assert said[f"{symbol}@{barrier}.{name}"] == round(weight, 4)
            obs, _, terminated, truncated, info = env.step(action)
            over = terminated or truncated
            ends.add(terminated)
        barriers = {one.barrier for one in asked}
        assert [one for one in ear.asked[symbol] if one.barrier in barriers] == asked
        assert {b for s, b in given if s == symbol and b in barriers} == {
            one.barrier for one in asked if one.action
        }
    assert entries > 200
    assert ends == {True, False}
    assert (set(said) == set()) is (kind != "moe")


def test_killed_and_restored_with_weights_read_anew_it_goes_on(tmp_path: Path) -> None:
    folder = save_loud(tmp_path / "policy", progress={"weights_seq_no": 12.0})
    run, rng = run_of(tmp_path), np.random.default_rng([SEED, 12])
    undisturbed = lines_of(run, lambda: load_traders(folder))
    killed = lines_of(run, lambda: load_traders(folder), lambda: bool(rng.random() < 0.2))
    assert killed == undisturbed
    assert {line.policy["weights"] for line in orders_of(killed) if line.policy} == {12.0}


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    loaded = load_policy(save_loud(tmp_path))
    policy = TrainedPolicy(loaded, "")
    config, rng = loaded.agent.config, np.random.default_rng([SEED, 13])
    seen = rng.normal(size=(64, 1, config.features)).astype(np.float32)
    mask = np.ones((1, config.actions), np.uint8)
    alone = [policy.decide(one, mask) for one in seen]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(4):
            assert list(threads.map(lambda one: policy.decide(one, mask), seen)) == alone
    assert len({decided.action for decided in alone}) > 3


def test_experts_have_names_or_numbers(tmp_path: Path) -> None:
    named = TrainedPolicy(load_policy(save_loud(tmp_path / "a")), "")
    assert named.experts == EXPERTS
    assert named.version is None
    nameless = load_policy(save_loud(tmp_path / "b", names=(), progress={"weights": 3}))
    assert TrainedPolicy(nameless, "").experts == ("expert-1", "expert-2", "expert-3", "expert-4")
    assert TrainedPolicy(nameless, "").version == 3
    counted = load_policy(save_loud(tmp_path / "b", progress={"updates": 9.0, "steps": 90.0}))
    assert TrainedPolicy(counted, "").version == 9
    assert TrainedPolicy(load_policy(save_loud(tmp_path / "c", "ppo")), "").experts == ()


def test_another_checkpoint_is_another_policy(tmp_path: Path) -> None:
    one, same, other = (save_loud(tmp_path / n, seed=s) for n, s in (("a", 1), ("b", 1), ("c", 2)))
    traders = [load_traders(folder) for folder in (one, same, other)]
    assert traders[0].weights == traders[1].weights == read_head(one).digest
    assert traders[2].weights != traders[0].weights
    assert len({t.sees for t in traders}) == 1
    longer = load_traders(save_loud(tmp_path / "d", env=SETTINGS | {"lookback": 31}))
    assert longer.weights == traders[0].weights
    assert longer.sees != traders[0].sees


def head_says(folder: Path, **changes: Any) -> None:
    head = msgspec.structs.replace(read_head(folder), **changes)
    (folder / "checkpoint.json").write_bytes(msgspec.json.encode(head))


def with_weights(folder: Path, change: Callable[[Any], None]) -> None:
    found = load_checkpoint(folder)
    with torch.no_grad():
        change(found.agent.network)
    save_checkpoint(folder, found.agent, env=found.head.env, names=found.head.names)


def spoil(network: Any) -> None:
    next(network.parameters())[0, 0] = float("nan")


def damage(folder: Path) -> None:
    (weights,) = folder.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")


def other_agent(folder: Path) -> None:
    """Numbers of another environment, under the name of this one."""
    head = read_head(folder)
    agent = MoEAgent(msgspec.structs.replace(head.agent, features=head.agent.features + 1))
    save_checkpoint(folder, agent, env=SETTINGS)


def other_gate(folder: Path) -> None:
    head = read_head(folder)
    agent = MoEAgent(msgspec.structs.replace(head.agent, regimes=(0, 1)))
    save_checkpoint(folder, agent, env=SETTINGS)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda f: (f / "checkpoint.json").unlink(), DataError, "no checkpoint"),
        (lambda f: (f / "checkpoint.json").write_text("{"), DataError, "no checkpoint"),
        (damage, DataError, "not those that the checkpoint names"),
        (lambda f: head_says(f, env=SETTINGS | {"window": 8}), DataError, "other observations"),
        (lambda f: head_says(f, env=SETTINGS | {"windw": 8}), ConfigError, "windw"),
        (lambda f: head_says(f, names=("a", "b")), DataError, "other names"),
        (lambda f: head_says(f, names=("a", "b", "c", "d@1.e")), DataError, "other names"),
        (lambda f: head_says(f, kind="sarsa"), DataError, "sarsa"),
        (lambda f: with_weights(f, spoil), DataError, "no numbers"),
        (other_agent, DataError, "takes other observations"),
        (other_gate, DataError, "takes other observations"),
    ],
)  # fmt: skip
def test_what_is_no_trained_policy_is_refused(
    tmp_path: Path, wrong: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    folder = save_loud(tmp_path / "policy")
    load_traders(folder)
    wrong(folder)
    with pytest.raises(error, match=message):
        load_traders(folder)


def drown(network: Any) -> None:
    """HOLD, the one legal action, gets less than what stands for "not legal"."""
    network.layers[2].bias[0] = -1e12


def overflow(network: Any) -> None:
    network.layers[2].weight.fill_(3e38)


@pytest.mark.parametrize("loud", [drown, overflow])
def test_weights_beyond_all_bounds_are_told_where_they_are(
    tmp_path: Path, loud: Callable[[Any], None]
) -> None:
    """What is no number must not look like HOLD, nor what drowns the mask like an order."""
    folder = save_loud(tmp_path / "policy", "ppo", gain=1.0)
    with_weights(folder, loud)
    loaded = load_policy(folder)
    policy, config = TrainedPolicy(loaded, "best"), loaded.agent.config
    seen = np.full((1, config.features), 5.0, np.float32)
    mask = np.eye(1, config.actions, dtype=np.uint8)
    with pytest.raises(StrategyError, match="no legal answer") as caught:
        policy.decide(seen, mask)
    assert caught.value.where == "best"
