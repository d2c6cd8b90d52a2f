"""Weights survive the way over a topic; torn or foreign ones are refused and change nothing."""

from __future__ import annotations

import struct

import google_crc32c
import msgspec
import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.agents.ppo import AgentConfig, PPOAgent  # noqa: E402
from streambot.domain.errors import DecodeError  # noqa: E402
from streambot.learning.weights import decode_weights, encode_weights  # noqa: E402

pytestmark = pytest.mark.train
CONFIG = AgentConfig(
    features=6, actions=4, regimes=(1, 2), hidden=(5,), gate_hidden=(3,), layout="x"
)


def record(kind: type[PPOAgent] = MoEAgent, seed: int = 1, **head: object) -> bytes:
    agent = kind(msgspec.structs.replace(CONFIG, seed=seed))
    return encode_weights(agent, training="t", policy="p", sequence=7, **head)


@pytest.mark.parametrize("kind", [MoEAgent, PPOAgent])
def test_an_agent_comes_back_that_says_the_same(kind: type[PPOAgent]) -> None:
    original = kind(msgspec.structs.replace(CONFIG, seed=3))
    found = decode_weights(record(kind, 3, names=("trend",), env={"window": 4}), layout="x")
    assert (found.head.training, found.head.policy, found.head.sequence) == ("t", "p", 7)
    assert found.head.head.names == ("trend",)
    obs, mask = torch.randn(9, 6), torch.ones(9, 4)
    again = found.agent()
    assert again.kind == kind.kind
    assert torch.equal(again.probabilities(obs, mask), original.probabilities(obs, mask))
    assert torch.equal(again.values(obs), original.values(obs))


def test_an_agent_takes_newer_weights_and_refuses_foreign_ones() -> None:
    mine = MoEAgent(CONFIG)
    decode_weights(record(seed=5)).give(mine)
    kept = {n: v.clone() for n, v in mine.network.state_dict().items()}
    for foreign in (record(PPOAgent), encode_weights(
        MoEAgent(msgspec.structs.replace(CONFIG, hidden=(9,))), training="t", policy="p", sequence=1
    )):  # fmt: skip
        with pytest.raises(DecodeError, match="weights of another agent"):
            decode_weights(foreign).give(mine)
    assert all(torch.equal(kept[n], v) for n, v in mine.network.state_dict().items())


def test_another_layout_is_refused() -> None:
    with pytest.raises(DecodeError, match="other observations or actions"):
        decode_weights(record(), layout="y")


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_torn_and_forged_records_are_refused_or_harmless(data: st.DataObject) -> None:
    """Cut anywhere, a bit flipped, or written again with a right checksum."""
    good = record()
    how = data.draw(st.sampled_from(["cut", "flip", "forge"]))
    at = data.draw(st.integers(8, len(good) - 1))
    bad = bytearray(good[:at] if how == "cut" else good)
    if how != "cut":
        bad[at] ^= 1 << data.draw(st.integers(0, 7))
    if how == "forge":
        struct.pack_into("<I", bad, 4, google_crc32c.value(bytes(bad[8:])))
    try:
        decode_weights(bytes(bad)).agent()
    except DecodeError:
        return
    assert how == "forge"


def test_weights_that_are_no_numbers_are_refused() -> None:
    agent = MoEAgent(CONFIG)
    with torch.no_grad():
        next(agent.network.parameters()).fill_(float("nan"))
    with pytest.raises(DecodeError, match="no numbers"):
        decode_weights(encode_weights(agent, training="t", policy="p", sequence=1))
