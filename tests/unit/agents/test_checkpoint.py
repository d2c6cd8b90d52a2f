"""Checkpoints come back whole or not at all, and nothing in them runs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from streambot.agents.batch import Batch  # noqa: E402
from streambot.agents.checkpoint import load_checkpoint, read_head, save_checkpoint  # noqa: E402
from streambot.agents.experts import EXPERTS  # noqa: E402
from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.agents.ppo import AgentConfig, PPOAgent  # noqa: E402
from streambot.domain.errors import ConfigError, DataError  # noqa: E402
from tests.conftest import SEED  # noqa: E402

pytestmark = pytest.mark.train

CONFIG = AgentConfig(features=6, actions=5, regimes=(4, 5), hidden=(8,), layout="abc", seed=3)


def some(agent: PPOAgent, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(4, 16, 6, generator=generator)
    mask = torch.ones(4, 16, 5)
    action, log_prob = agent.select_action(obs, mask, torch.rand(4, 16, generator=generator))
    advantage, target = torch.randn(2, 4, 16, generator=generator)
    return Batch(obs, mask, action, log_prob, advantage, target, torch.zeros(4, 16).long())


@pytest.mark.parametrize("kind", [PPOAgent, MoEAgent, *EXPERTS])
def test_an_agent_that_comes_back_goes_on_as_if_nothing_had_been(
    kind: type[PPOAgent], tmp_path: Path
) -> None:
    """Parameters, Adam's memory and the order of minibatches: the next update is the same, bit for bit."""
    agent = kind(CONFIG)
    agent.learn(some(agent, SEED), progress=0.1)
    save_checkpoint(tmp_path, agent, progress={"updates": 1.0}, about={"data": "x"})
    loaded = load_checkpoint(tmp_path, layout="abc")
    assert type(loaded.agent) is kind
    assert loaded.head.progress == {"updates": 1.0}
    batch = some(agent, SEED + 1)
    assert agent.learn(batch, progress=0.2) == loaded.agent.learn(batch, progress=0.2)
    ours, theirs = agent.state(), loaded.agent.state()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_checkpoint_replaces_the_one_before(tmp_path: Path) -> None:
    agent = MoEAgent(CONFIG)
    save_checkpoint(tmp_path, agent)
    agent.learn(some(agent, 1))
    head = save_checkpoint(tmp_path, agent)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.json", head.weights]
    assert load_checkpoint(tmp_path).head == head


def test_other_observations_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, MoEAgent(CONFIG))
    with pytest.raises(DataError, match="other observations or actions"):
        load_checkpoint(tmp_path, layout="abd")


@pytest.mark.parametrize("damage", ["bit", "short", "empty", "gone", "foreign"])
def test_damaged_weights_are_refused(damage: str, tmp_path: Path) -> None:
    head = save_checkpoint(tmp_path, MoEAgent(CONFIG))
    path = tmp_path / head.weights
    data = bytearray(path.read_bytes())
    if damage == "bit":
        data[len(data) // 2] ^= 1
    elif damage == "short":
        del data[-1:]
    elif damage == "empty":
        data.clear()
    elif damage == "foreign":
        data = bytearray(b"\x80\x04cposix\nsystem\n")
    path.write_bytes(bytes(data))
    if damage == "gone":
        path.unlink()
    with pytest.raises(DataError) as caught:
        load_checkpoint(tmp_path)
    assert str(tmp_path) in str(caught.value)


def rewrite(tmp_path: Path, **changes: object) -> None:
    """A head by somebody who knows the digest."""
    plain = msgspec.to_builtins(read_head(tmp_path)) | changes
    (tmp_path / "checkpoint.json").write_bytes(msgspec.json.encode(plain))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2}, {"kind": "os.system"}, {"weights": "../../etc/passwd"}, {"surprise": 1},
        {"agent": {"features": "6"}},
    ],
)  # fmt: skip
def test_a_head_that_is_not_ours_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    save_checkpoint(tmp_path, MoEAgent(CONFIG))
    rewrite(tmp_path, **changes)
    with pytest.raises(DataError):
        load_checkpoint(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, MoEAgent(CONFIG))
    rewrite(tmp_path, agent=msgspec.to_builtins(msgspec.structs.replace(CONFIG, hidden=(9,))))
    with pytest.raises(DataError, match="do not fit the agent"):
        load_checkpoint(tmp_path)


def test_no_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no checkpoint"):
        load_checkpoint(tmp_path / "nowhere")


def test_a_gate_without_regimes_and_nonsense_batches_are_refused() -> None:
    with pytest.raises(ConfigError, match="regime"):
        MoEAgent(msgspec.structs.replace(CONFIG, regimes=()))
    agent = MoEAgent(CONFIG)
    batch = some(agent, 2)
    before = {name: value.clone() for name, value in agent.state().items()}
    for broken in (
        batch._replace(advantage=batch.advantage * np.nan),
        batch._replace(obs=batch.obs + np.inf),
        Batch(*(part[:, :0] for part in batch)),
    ):
        with pytest.raises(DataError):
            agent.learn(broken)
        with pytest.raises(DataError):
            agent.adapt(broken, 1)
    assert all(torch.equal(before[name], value) for name, value in agent.state().items())


def test_a_draw_follows_the_distribution_and_never_leaves_the_mask() -> None:
    """Also at the ends of the unit interval."""
    agent = MoEAgent(CONFIG)
    obs = torch.randn(1, 6).expand(200_000, 6)
    mask = torch.tensor([1, 0, 1, 1, 0]).expand(200_000, 5)
    uniform = torch.rand(200_000, generator=torch.Generator().manual_seed(SEED))
    action, log_prob = agent.select_action(obs, mask, uniform)
    share = torch.bincount(action, minlength=5) / len(action)
    torch.testing.assert_close(share, agent.probabilities(obs[0], mask[0]), atol=0.005, rtol=0)
    assert share[1] == share[4] == 0
    ends = torch.tensor([0.0, 1.0 - 2**-24, 0.999999])
    edge, _ = agent.select_action(obs[:3], mask[:3], ends)
    assert edge.tolist()[0] == 0
    assert set(edge.tolist()[1:]) == {3}
    assert torch.isfinite(log_prob).all()


def test_shapes_on_a_device_that_computes_nothing() -> None:
    """Everything goes where it is sent."""
    agent = MoEAgent(CONFIG, device=torch.device("meta"))
    obs, mask = torch.empty(7, 6, device="meta"), torch.empty(7, 5, device="meta")
    said = agent.mixed(obs, mask)
    assert said.log_probs.shape == (7, 5)
    assert said.log_experts.shape == (7, 4, 5)
    assert {p.device.type for p in agent.parameters} == {"meta"}
