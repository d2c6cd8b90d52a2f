"""Weights that serve: swapped between frames, refused where what was observed could not go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from streambot.agents.checkpoint import read_head
from streambot.domain.errors import ConfigError, DataError, DecodeError
from streambot.learning.acting import load_traders
from streambot.learning.serving import Seat, Supply, keep, loaded
from streambot.learning.weights import Weights, decode_weights
from tests.served import ENV, layout_of, training_of, weights_of
from tests.trained import loud_agent

pytestmark = pytest.mark.train
TRAINING = training_of()


def weights(sequence: int, **more: Any) -> Weights:
    return decode_weights(weights_of(TRAINING, sequence, **more))


def shown(seed: int) -> tuple[Any, Any]:
    """An observation, and a mask under which everything is legal."""
    config = loud_agent(env=ENV).config
    rng = np.random.default_rng(seed)
    observation = rng.normal(size=(1, config.features)).astype(np.float32)
    return observation, np.ones((1, config.actions), np.uint8)


def test_newer_weights_decide_from_the_next_frame_on() -> None:
    told: list[tuple[int, int]] = []
    supply = Supply(weights(5), "t", lambda now, before: told.append((now, before)))
    one, other = Seat(supply), Seat(supply)
    both = [Supply(weights(n), "t").policy for n in (5, 6)]
    asked = [shown(n) for n in range(200)]
    answers = [[policy.decide(*what).action for what in asked] for policy in both]
    assert answers[0] != answers[1]
    assert [one.decide(*what).action for what in asked] == answers[0]
    assert supply.offer(weights(6)) == ""
    assert [one.decide(*what).action for what in asked] == answers[0], "the frame is not over"
    assert (one.version, supply.sequence, told) == (5, 6, [])
    one.next_frame()
    assert [one.decide(*what).action for what in asked] == answers[1]
    assert (one.version, other.version) == (6, 5)
    assert told == [(6, 5)]
    other.decide(*asked[0])
    other.next_frame()
    other.decide(*asked[0])
    assert told == [(6, 5)], "told once, whichever partition comes first"
    assert supply.used == [5, 6]


def test_older_weights_and_those_of_another_environment_change_nothing() -> None:
    supply = Supply(weights(5), "t")
    before = supply.policy
    assert supply.offer(weights(4)) == supply.offer(weights(5)) == ""
    why = supply.offer(weights(6, env=ENV | {"zscore_window": 70}))
    assert why == "weights 6 are of another environment"
    broken = weights(7)._replace(tensors={})
    assert "weights 7 cannot be used: weights of another agent" in supply.offer(broken)
    assert supply.policy is before
    assert supply.sequence == 5
    assert supply.offer(weights(8)) == ""
    assert supply.sequence == 8


def test_a_record_is_kept_as_a_checkpoint_of_its_own_number(tmp_path: Path) -> None:
    record = weights_of(TRAINING, 250, progress={"updates": 3})
    for name in ("one", "two"):
        keep(record, tmp_path / name, name="moe-1@250", layout=layout_of(), where="t")
    head = read_head(tmp_path / "one")
    assert head == read_head(tmp_path / "two")
    assert head.about["served"] == "moe-1@250"
    assert head.about["published"] == decode_weights(record).head.head.digest
    traders = load_traders(tmp_path / "one")
    assert traders.weights == head.digest
    assert traders._policy.version == 250
    asked = shown(1)
    assert traders._policy.decide(*asked) == Supply(weights(250), "t").policy.decide(*asked)


def test_what_is_no_policy_here_is_refused(tmp_path: Path) -> None:
    record = weights_of(TRAINING, 1)
    with pytest.raises(DecodeError, match="other observations"):
        keep(record, tmp_path / "no", name="n", layout="f" * 24, where="t")
    with pytest.raises(DecodeError, match="checksum"):
        keep(record[:-1], tmp_path / "no", name="n", layout=layout_of(), where="t")
    with pytest.raises(DataError, match="other observations than|trained on other"):
        loaded(weights(1, env=ENV | {"window": 5}, agent=loud_agent(env=ENV)), "t")
    with pytest.raises(ConfigError, match="no setting `windou`"):
        loaded(weights(1, env=ENV | {"windou": 5}, agent=loud_agent(env=ENV)), "t")
    assert not (tmp_path / "no").exists()
