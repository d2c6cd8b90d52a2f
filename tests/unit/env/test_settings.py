"""Settings of an environment, as people write them.

What is guarded: every setting can be given by its name and in its friendly forms, alone or within
`features` and `reward`; what is unknown or wrong is a `ConfigError` that names the setting.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.domain.durations import format_duration
from streambot.domain.errors import ConfigError
from streambot.domain.replay_settings import Moment
from streambot.domain.units import NANOS_PER_DAY as DAY
from streambot.env.config import ActionLayout, CoreReward, EnvConfig, RewardConfig
from streambot.env.settings import FEATURES, NAMES, REWARDS, make_config
from streambot.market.feature_config import FeatureConfig

MINUTE = 60 * 10**9

# By name: what may be given, and what the configuration then holds.
GOOD: dict[str, list[tuple[Any, Any]]] = {
    "capital": [
        (50_000, Decimal(50_000)), ("50000.25", Decimal("50000.25")), (Decimal("0.5"), Decimal("0.5")),
        (1e6, Decimal(1_000_000)),
    ],
    "max_quantity": [(1, 1), (1000, 1000)],
    "actions": [("joint", ActionLayout.JOINT), ("multi", ActionLayout.MULTI),
                (ActionLayout.MULTI, ActionLayout.MULTI)],
    "window": [(1, 1), (4096, 4096)],
    "episode_bars": [(1, 1), (10**6, 10**6), (None, None)],
    "lookback": [(0, 0), (500, 500)],
    "start": [
        ("2020-12-15", Moment("2020-12-15")), ("2020-12-15T10:30", Moment("2020-12-15T10:30")),
        ("2020-12-15T14:30Z", Moment("2020-12-15T14:30Z")), (Moment("2020-12-15"), Moment("2020-12-15")),
        (dt.date(2020, 12, 15), Moment("2020-12-15")), (None, None),
    ],
    "end": [("20201216", Moment("2020-12-16")), (dt.date(2020, 12, 16), Moment("2020-12-16")), (None, None)],
    "drawdown_limit_bp": [(1, 1), (10_000, 10_000)],
    "max_gap": [("7d", 7 * DAY), ("1h30m", 90 * MINUTE), ("500ms", 500 * 10**6)],
    "reward": [
        ("pnl", RewardConfig(core=CoreReward.PNL)),
        (CoreReward.PROFIT_FACTOR, RewardConfig(core=CoreReward.PROFIT_FACTOR)),
        ({"core": "differential_sharpe", "eta": 0.5},
         RewardConfig(core=CoreReward.DIFFERENTIAL_SHARPE, eta=0.5)),
        ({"idleness": 0}, RewardConfig(idleness=0.0)),
        ({}, RewardConfig()),
        (RewardConfig(trail=0.25), RewardConfig(trail=0.25)),
    ],
    "features": [
        (FeatureConfig(clip=2.0), FeatureConfig(clip=2.0)),
        ({"warmup": 3, "timeframes": "5m"}, FeatureConfig(warmup=3, timeframes=(5 * MINUTE,))),
        ({}, FeatureConfig()),
    ],
    "zscore_window": [(2, 2), (65_536, 65_536)],
    "warmup": [(0, 0), (300, 300)],
    "clip": [(3, 3.0), (0.5, 0.5)],
    "regime_windows": [((16,), (16,)), ([64, 16], (64, 16)), ((), ())],
    "timeframes": [
        ("5m", (5 * MINUTE,)), (["1h", "1d"], (60 * MINUTE, DAY)), ((), ()),
        (["5m", 30 * MINUTE], (5 * MINUTE, 30 * MINUTE)),
    ],
}  # fmt: skip

# By name: what it cannot be.
BAD: dict[str, list[Any]] = {
    "capital": ["abc", "1,000", "", True, [1], None, 0, -5, "nan", "inf", "1e13"],
    "max_quantity": [0, 1001, "five", 2.5, None, True],
    "actions": ["joints", 3, None],
    "window": [0, 4097, "x", None],
    "episode_bars": [0, -1, "all"],
    "lookback": [-1, None, "some"],
    "start": ["2020-13-01", "yesterday", 5, "", "1066-10-14"],
    "end": ["2020-02-30", "10:30", 20201216.5],
    "drawdown_limit_bp": [0, "20%", 1_000_001, None],
    "max_gap": ["7", "a week", "0s", -1, None, dt.timedelta(days=7)],
    "reward": ["sharp", 5, None, ["pnl"], {"core": "sharp"}],
    "features": [None, 5, "5m", ["clip"]],
    "zscore_window": [1, 65_537, None],
    "warmup": [-1, "none", None],
    "clip": [0, -1, float("nan"), float("inf"), "5", None],
    "regime_windows": [16, [15], (16, 16), None, "64"],
    "timeframes": [["7m"], ["2d"], ["5m", "300s"], [0], [None], ["x"], "x", 5, None],
}

COEFFICIENTS = (
    "core_weight", "idleness", "realized_profit", "overtrading", "trail", "early_close", "termination",
)  # fmt: skip
BAD_REWARD: dict[str, list[Any]] = {
    **{name: [-0.1, float("nan"), float("inf"), "small", None] for name in COEFFICIENTS},
    "core": ["sharp", None, 3],
    "eta": [0, 1, 1.5, float("nan")],
    "clip": [0, float("nan"), float("inf")],
    "profit_window": [0, 4097, 2.5],
    "overtrading_bars": [0, "ten"],
    "early_distance": [-3.5, 1.5, None],
}


def of(config: EnvConfig, name: str) -> Any:
    """What the configuration holds for a setting."""
    if name in FEATURES:
        return getattr(config.features, name)
    return getattr(config, "max_gap_ns" if name == "max_gap" else name)


def test_every_setting_is_tested() -> None:
    """A new setting has no rows yet, and this fails."""
    assert set(GOOD) == set(BAD) == set(NAMES)
    assert set(BAD_REWARD) == set(REWARDS)
    fields = {"max_gap" if name == "max_gap_ns" else name for name in EnvConfig.__struct_fields__}
    assert fields | set(FEATURES) == set(NAMES)


def test_nothing_given_is_the_defaults() -> None:
    """Those that the documentation names, which are legal themselves."""
    assert make_config({}) == EnvConfig()
    assert msgspec.convert(msgspec.to_builtins(EnvConfig()), EnvConfig) == EnvConfig()


@pytest.mark.parametrize(
    ("name", "value", "expected"), [(n, *pair) for n, pairs in GOOD.items() for pair in pairs]
)
def test_a_setting_by_its_name(name: str, value: Any, expected: Any) -> None:
    """It arrives, typed, and nothing else changes."""
    config = make_config({name: value})
    assert of(config, name) == expected
    assert type(of(config, name)) is type(expected)
    for other in set(NAMES) - {name, "features"}:
        if name != "features" or other not in FEATURES:
            assert of(config, other) == of(EnvConfig(), other), other


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD.items() for v in values])
def test_a_wrong_value_is_an_error_that_names_the_setting(name: str, value: Any) -> None:
    """One error of the tree; its message is one line."""
    with pytest.raises(ConfigError) as caught:
        make_config({name: value})
    check_said(caught.value, name)


def check_said(error: ConfigError, name: str) -> None:
    """A sentence for people: the setting, what is wrong, perhaps a hint, and no decoder's paths."""
    text = str(error)
    assert name in text
    assert "$" not in text
    assert "\n" not in error.message
    assert not error.hint or text.count(error.hint) == 1


@pytest.mark.parametrize(
    ("name", "value"), [(n, v) for n, values in BAD_REWARD.items() for v in values]
)
def test_a_wrong_coefficient_is_an_error_that_names_it(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config({"reward": {name: value}})
    check_said(caught.value, name)
    assert "reward" in str(caught.value)


@pytest.mark.parametrize("name", FEATURES)
def test_a_wrong_feature_is_an_error_within_features_too(name: str) -> None:
    for value in BAD[name]:
        with pytest.raises(ConfigError) as caught:
            make_config({"features": {name: value}})
        check_said(caught.value, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_mistyped_setting_is_an_error_with_a_suggestion(name: str) -> None:
    """One letter lost, or another case."""
    for typo in (name[:-1], name.upper()):
        with pytest.raises(ConfigError) as caught:
            make_config({typo: 1})
        assert f"`{typo}`" in caught.value.message
        assert caught.value.hint == f"did you mean `{name}`?"


def test_a_setting_that_is_like_no_other_lists_what_there_is() -> None:
    with pytest.raises(ConfigError) as caught:
        make_config({"zzz": 1})
    assert "`zzz`" in caught.value.message
    assert "capital" in caught.value.hint


@pytest.mark.parametrize(
    ("where", "name"),
    [("reward", name) for name in REWARDS] + [("features", name) for name in FEATURES],
)
def test_a_mistyped_name_within_a_mapping_is_an_error_that_says_where(
    where: str, name: str
) -> None:
    """With a suggestion out of those of the mapping."""
    for typo in (name[:-1], name.upper()):
        with pytest.raises(ConfigError) as caught:
            make_config({where: {typo: 2}})
        check_said(caught.value, typo)
        assert where in caught.value.message
        suggested = caught.value.hint.removeprefix("did you mean `").removesuffix("`?")
        assert suggested in (REWARDS if where == "reward" else FEATURES)
        assert name.startswith(suggested)  # also a shorter name that the word begins with


def test_what_is_given_by_itself_wins_over_features() -> None:
    """Whatever the order; the rest of `features` stays."""
    for both in (
        {"clip": 2.0, "features": {"clip": 3.0, "warmup": 5}},
        {"features": FeatureConfig(clip=3.0, warmup=5), "clip": 2.0},
    ):
        assert make_config(both).features == FeatureConfig(clip=2.0, warmup=5)


def test_a_mapping_that_was_given_stays_as_it_was() -> None:
    """Settings are read, not changed."""
    features, reward = {"timeframes": ["5m"]}, {"core": "pnl"}
    settings_of = {"features": features, "reward": reward, "warmup": 3}
    make_config(settings_of)
    assert features == {"timeframes": ["5m"]}
    assert reward == {"core": "pnl"}
    assert settings_of == {"features": features, "reward": reward, "warmup": 3}


DIVISORS = [MINUTE * m for m in range(1, 1441) if 1440 % m == 0]
features_of = st.builds(
    FeatureConfig,
    zscore_window=st.integers(2, 65_536), warmup=st.integers(0, 65_536),
    clip=st.floats(0.01, 100),
    regime_windows=st.lists(st.integers(16, 999), unique=True, max_size=4).map(tuple),
    timeframes=st.lists(st.sampled_from(DIVISORS), unique=True, max_size=4).map(tuple),
)  # fmt: skip
rewards_of = st.builds(
    RewardConfig,
    core=st.sampled_from(CoreReward), eta=st.floats(0.001, 0.999), clip=st.floats(0.1, 1e6),
    profit_window=st.integers(1, 4096), overtrading_bars=st.integers(1, 999),
    early_distance=st.floats(-3, 1),
    **{name: st.floats(0, 1e6) for name in COEFFICIENTS},
)  # fmt: skip
moments = st.none() | st.dates(dt.date(1950, 1, 1), dt.date(2150, 1, 1)).map(
    lambda day: Moment(day.isoformat())
)
configs = st.builds(
    EnvConfig,
    capital=st.integers(1, 10**9).map(lambda cents: Decimal(cents).scaleb(-2)),
    max_quantity=st.integers(1, 1000), actions=st.sampled_from(ActionLayout),
    window=st.integers(1, 4096), episode_bars=st.none() | st.integers(1, 10**6),
    lookback=st.integers(0, 10**6), start=moments, end=moments,
    drawdown_limit_bp=st.integers(1, 1_000_000),
    max_gap_ns=st.integers(1, 10**6).map(lambda ms: ms * 10**6),
    reward=rewards_of, features=features_of,
)  # fmt: skip


@settings(max_examples=150)
@given(configs, st.data())
def test_any_configuration_can_be_written_and_reads_back(
    config: EnvConfig, data: st.DataObject
) -> None:
    """In words or in values, each feature by itself or all within `features`, in any order."""
    words = data.draw(st.booleans())
    given: dict[str, Any] = {
        name: getattr(config, name) for name in EnvConfig.__struct_fields__ if name != "max_gap_ns"
    }
    given["max_gap"] = format_duration(config.max_gap_ns)
    features = {name: getattr(config.features, name) for name in FEATURES}
    if words:
        given["actions"], given["capital"] = config.actions.value, str(config.capital)
        given["reward"] = {name: getattr(config.reward, name) for name in REWARDS}
        given["start"], given["end"] = (
            None if m is None else str(m) for m in (config.start, config.end)
        )
        features["timeframes"] = [f"{frame // MINUTE}m" for frame in config.features.timeframes]
        given["features"] = features
    if data.draw(st.booleans()):
        del given["features"]
        given |= features
    order = data.draw(st.permutations(list(given)))
    assert make_config({name: given[name] for name in order}) == config
