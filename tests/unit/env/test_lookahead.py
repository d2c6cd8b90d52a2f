"""The look-ahead check finds nothing in an honest environment, and names what a dishonest one leaks."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from streambot.data.segment_build import Recording, build_segments
from streambot.data.segments import Segments
from streambot.domain.bars import BarBlock
from streambot.domain.instruments import (
    BachelierPremium,
    Expiries,
    Instrument,
    InstrumentType,
)
from streambot.engine.ordering import Calendar, SlotContext
from streambot.env.config import EnvConfig
from streambot.env.lookahead import check_lookahead
from streambot.env.settings import make_config
from streambot.env.sources import ArraySource
from streambot.market.feature_config import FeatureConfig

MINUTE = 60 * 10**9
DAY = 1440 * MINUTE
OPEN_NS = 1_608_042_600 * 10**9
SETTINGS = {"episode_bars": 20, "lookback": 10, "warmup": 5, "regime_windows": (16,)}


def bars(count: int, seed: int = 1) -> BarBlock:
    """A random walk of minutes, in sessions of 50."""
    rng = np.random.default_rng(seed)
    close = (20_000 * np.exp(np.cumsum(rng.normal(0, 1e-3, count)))).astype(np.int64)
    open_ = np.concatenate([[20_000], close[:-1]])
    high = np.maximum(open_, close) + rng.integers(0, 20, count)
    low = np.minimum(open_, close) - rng.integers(0, 20, count)
    at = np.arange(count)
    ts = OPEN_NS + at // 50 * DAY + at % 50 * MINUTE
    ends = (at % 50 == 49).astype(np.uint8)
    volume = rng.integers(1, 900, count)
    return BarBlock(ts, np.full(count, MINUTE), open_, high, low, close, volume, ends)


def instrument(**fields: Any) -> Instrument:
    made = {
        "symbol": "ABC", "type": InstrumentType.STOCK, "lot_size": 1, "tick_size": Decimal("0.01"),
        "currency": "USD", "timezone": "America/New_York",
    }  # fmt: skip
    return Instrument(**{**made, **fields})


def option() -> ArraySource:
    """Options that expire with the next session but one, priced by the data's own daily ATR."""
    days = OPEN_NS + np.arange(30) * DAY
    none = np.zeros(0, np.int64)
    calendar = Calendar(days, days + 50 * MINUTE, none, none)
    made = instrument(
        symbol="OPT", type=InstrumentType.OPTION, underlying="ABC",
        premium=BachelierPremium(k=0.75), expiries=Expiries(expires_after=2),
    )  # fmt: skip
    context = SlotContext(calendar, 150.0, 14, 20_000)
    return ArraySource(made, bars(300), context=context)


def opened(source: ArraySource, **more: Any) -> tuple[Segments, EnvConfig]:
    config = make_config({**SETTINGS, **more})
    return source.open(config.features), config


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"timeframes": ["5m"], "reward": "differential_sharpe"},
        {"actions": "multi", "reward": "profit_factor", "episode_bars": None},
    ],
)
def test_an_honest_environment_keeps_its_past(seed: int, settings: dict[str, Any]) -> None:
    segments, config = opened(ArraySource(instrument(), bars(300)), **settings)
    found = check_lookahead(segments, config, seed=seed, cuts=3)
    assert found.leak is None
    assert found.cuts == 3
    assert found.steps > 300
    assert found.symbols == ("ABC",)


def test_premiums_of_options_keep_their_past() -> None:
    segments, config = opened(option())
    found = check_lookahead(segments, config)
    assert found.leak is None
    assert found.steps > 300


def leaking(column: str, field: int) -> Any:
    """A builder whose column holds, at each bar, what the next bar will say."""

    def build(recording: Recording, config: FeatureConfig, folder: None) -> Segments:
        honest = build_segments(recording, config, folder)
        values = getattr(honest, column).copy()
        change = np.diff(np.log(honest.bars["close"])).astype(np.float32)
        values[:-1, field] = change
        return honest._replace(**{column: values})

    return build


@pytest.mark.parametrize(
    ("column", "field", "name"),
    [("window", 0, "log_return[0]"), ("window", 2, "volume[0]"), ("slow", 1, "autocorrelation_16")],
)
def test_a_leaking_feature_is_found_and_named(column: str, field: int, name: str) -> None:
    segments, config = opened(ArraySource(instrument(), bars(300)))
    build = leaking(column, field)
    dishonest = segments._replace(**{column: getattr(build(*_again(segments), None), column)})
    leak = check_lookahead(dishonest, config, build=build).leak
    assert leak is not None
    assert leak.field == name
    assert leak.symbol == "ABC"
    # It is one bar ahead: only the last bar before the cut can tell.
    assert leak.bar == leak.cut
    assert name in str(leak)


def _again(segments: Segments) -> tuple[Recording, FeatureConfig]:
    """The recording that the store of `bars(300)` was made of."""
    held: list[Recording] = []

    def keep(recording: Recording, config: FeatureConfig, folder: None) -> Segments:
        held.append(recording)
        return build_segments(recording, config, folder)

    config = make_config({**SETTINGS})
    check_lookahead(segments, config, cuts=1, players=1, build=keep)
    return held[0], config.features


def test_a_reward_that_reads_ahead_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    # What the step's own bar brings is known at its close: so the leak comes from the bar after it.
    from streambot.env.core import Core

    made = Core.__init__

    def leaks(self: Core, *arguments: Any, **more: Any) -> None:
        made(self, *arguments, **more)
        honest = self.step

        def step() -> int:
            found = honest()
            self.rewards += 1e-9 * self.segments.bars["close"][self.envs["bar"] + 1]
            return found

        self.step = step

    monkeypatch.setattr(Core, "__init__", leaks)
    segments, config = opened(ArraySource(instrument(), bars(300)))
    leak = check_lookahead(segments, config).leak
    assert leak is not None
    assert leak.field == "reward"
    assert leak.bar == leak.cut


def test_a_store_that_its_ticks_do_not_give_is_found() -> None:
    segments, config = opened(ArraySource(instrument(), bars(300)))
    window = segments.window.copy()
    window[77, 3] += 1
    leak = check_lookahead(segments._replace(window=window), config).leak
    assert leak is not None
    assert (leak.field, leak.bar, leak.cut) == ("atr_ratio[0]", 77, None)
    assert "in the store" in str(leak)


def test_of_many_instruments_some_are_looked_at_and_counted() -> None:
    from streambot.wiring.environments import trading_env

    env = trading_env(episode_bars=20)
    found = check_lookahead(env.core.segments, env.config, cuts=2, players=1, most_instruments=1)
    assert found.leak is None
    assert found.instruments == 2
    assert found.symbols == ("SPY",)
