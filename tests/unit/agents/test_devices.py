"""Where tensors are computed is chosen in one place and said; cheaper products teach the same thing."""

from __future__ import annotations

import msgspec
import pytest

torch = pytest.importorskip("torch")

from streambot.agents.batch import Batch, LearnConfig  # noqa: E402
from streambot.agents.devices import WIDE, leave_cores, mixed_pays, resolve_device  # noqa: E402
from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.agents.ppo import AgentConfig, PPOAgent  # noqa: E402
from streambot.domain.errors import ConfigError  # noqa: E402

pytestmark = pytest.mark.train
CONFIG = AgentConfig(
    features=6, actions=4, regimes=(1, 2), hidden=(WIDE,), seed=3,
    learn=LearnConfig(minibatch=32, epochs=1, target_kl=10.0),
)  # fmt: skip


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    obs = torch.randn(4, 16, 6, generator=generator)
    action = torch.randint(4, (4, 16), generator=generator)
    log_prob = torch.full((4, 16), 0.25).log()
    advantage, target = (torch.randn(4, 16, generator=generator) for _ in range(2))
    return Batch(
        obs, torch.ones(4, 16, 4), action, log_prob, advantage, target, torch.zeros(4, 16).long()
    )


def test_the_cpu_is_named() -> None:
    found = resolve_device("cpu")
    assert found.torch == torch.device("cpu")
    assert found.said.startswith("device: cpu, ")
    assert found.mixed is None


@pytest.mark.parametrize("asked", ["cuda", "xla", "tpu"])
def test_a_device_that_is_not_here_is_refused(asked: str) -> None:
    if asked == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match="there is no"):
        resolve_device(asked)


def test_a_policy_can_be_placed_anywhere() -> None:
    """Shapes alone: every tensor of it is where it was asked to be."""
    agent = MoEAgent(CONFIG, device=resolve_device("meta").torch)
    obs, mask = torch.empty(5, 6, device="meta"), torch.empty(5, 4, device="meta")
    assert agent.log_probs(obs, mask).shape == (5, 4)
    assert {parameter.device.type for parameter in agent.parameters} == {"meta"}


def test_narrow_networks_are_left_in_full_precision() -> None:
    assert not mixed_pays((64, 64))
    assert mixed_pays((64, WIDE))
    narrow = msgspec.structs.replace(CONFIG, hidden=(8,))
    first, second = PPOAgent(narrow), PPOAgent(narrow, mixed=torch.bfloat16)
    first.learn(batch())
    second.learn(batch())
    for name, value in first.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value), name


@pytest.mark.parametrize("kind", [MoEAgent, PPOAgent])
def test_cheaper_products_teach_the_same_thing(kind: type[PPOAgent]) -> None:
    """In bfloat16, which has three digits: nearly the same losses, parameters in full precision."""
    full, mixed = kind(CONFIG), kind(CONFIG, mixed=torch.bfloat16)
    ours, theirs = mixed.learn(batch()), full.learn(batch())
    for name in ("policy_loss", "value_loss", "entropy", "gate_entropy"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=0.05, abs=0.01), name
    assert ours != theirs, "nothing was multiplied in bfloat16"
    assert {value.dtype for value in mixed.network.state_dict().values()} == {torch.float32}
    moved = [
        (mixed.network.state_dict()[n] - v).abs().max()
        for n, v in full.network.state_dict().items()
    ]
    assert max(moved) < 3 * CONFIG.learn.lr * 2


def test_cores_are_left_to_processes_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    try:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        for others, threads in ((1, 3), (3, 1), (9, 1)):
            leave_cores(others)
            assert torch.get_num_threads() == threads
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        leave_cores(1)
        assert torch.get_num_threads() == 1, "as it was: who has set it is obeyed"
    finally:
        torch.set_num_threads(before)
