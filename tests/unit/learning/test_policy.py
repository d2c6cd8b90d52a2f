"""A checkpoint names the environment that its policy knows, and is refused where they part."""

from __future__ import annotations

import msgspec
import pytest

from streambot.agents.checkpoint import read_head, save_checkpoint
from streambot.agents.moe import MoEAgent
from streambot.domain.errors import ConfigError, DataError
from streambot.env.fields import layout_digest
from streambot.env.settings import make_config
from streambot.learning.policy import agent_config, load_policy

SETTINGS = {"window": 4, "max_quantity": 2, "regime_windows": [32]}


def saved(folder, **settings):
    config = agent_config(make_config(SETTINGS), hidden=(8,), **settings)
    save_checkpoint(folder, MoEAgent(config), env=SETTINGS, names=("trend",))
    return config


def test_comes_back_with_its_environment(tmp_path):
    saved(tmp_path)
    found = load_policy(tmp_path)
    assert found.agent.kind == "moe"
    assert found.config == make_config(SETTINGS)
    assert found.head.names == ("trend",)


@pytest.mark.parametrize("changed", [{"window": 5}, {"max_quantity": 3}, {"regime_windows": [16]}])
def test_other_settings_are_refused(tmp_path, changed):
    saved(tmp_path)
    head = read_head(tmp_path)
    head = msgspec.structs.replace(head, env=SETTINGS | changed)
    (tmp_path / "checkpoint.json").write_bytes(msgspec.json.encode(head))
    with pytest.raises(DataError, match="other observations or actions"):
        load_policy(tmp_path)


@pytest.mark.parametrize("regimes", [(0, 1), (500, 501)])
def test_a_gate_that_looks_elsewhere_is_refused(tmp_path, regimes):
    """Edited by hand: a gate on other numbers is another policy, or none at all."""
    config = saved(tmp_path)
    other = msgspec.structs.replace(config, regimes=regimes[: len(config.regimes)])
    save_checkpoint(tmp_path, MoEAgent(other), env=SETTINGS)
    with pytest.raises(DataError, match="takes other observations"):
        load_policy(tmp_path)


def test_silence_about_the_layout_is_refused(tmp_path):
    config = saved(tmp_path)
    save_checkpoint(tmp_path, MoEAgent(msgspec.structs.replace(config, layout="")), env=SETTINGS)
    with pytest.raises(DataError, match="does not say what it observes"):
        load_policy(tmp_path)


def test_settings_that_nobody_knows_are_refused(tmp_path):
    config = saved(tmp_path)
    save_checkpoint(tmp_path, MoEAgent(config), env=SETTINGS | {"windw": 3})
    with pytest.raises(ConfigError, match="windw"):
        load_policy(tmp_path)


def test_actions_must_be_joint():
    with pytest.raises(ConfigError, match="kind and size"):
        agent_config(make_config({"actions": "multi"}))


def test_the_gate_sees_the_regime_features_alone():
    config = agent_config(make_config(SETTINGS))
    assert len(config.regimes) == len(make_config(SETTINGS).features.regime_fields)
    assert config.layout == layout_digest(make_config(SETTINGS))
