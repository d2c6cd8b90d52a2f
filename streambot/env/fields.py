"""What an observation and an action are made of, field by field."""

from __future__ import annotations

import hashlib
from math import isnan, nan
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.domain.events import CLOSE, HOLD, Action, buy, sell

if TYPE_CHECKING:
    from streambot.env.config import EnvConfig
    from streambot.market.feature_config import FeatureConfig


class Meaning(NamedTuple):
    """What a number of an observation is.

    Attributes:
        text: in words, with its scale.
        low, high: its bounds; NaN: those of z-scores, `FeatureConfig.clip`.
    """

    text: str
    low: float
    high: float


ACCOUNT_FIELDS = {
    "side": Meaning("1 long, -1 short, 0 flat", -1, 1),
    "lots": Meaning("lots of the open position / Q", 0, 1),
    "entry_distance": Meaning("side x (close - entry) / width of the trailing stop", -5, 5),
    "unrealized_pnl": Meaning("10 x P&L of the open position before brokerage / capital", -5, 5),
    "equity_ratio": Meaning("10 x (equity / capital - 1)", -5, 5),
    "drawdown": Meaning("drawdown of the risk equity from its peak / the limit", 0, 2),
    "distance_to_trail": Meaning("1 at the best price, 0 at the trailing stop; 0 when flat", -3, 3),
    "bars_held": Meaning("b / (b + 32), b bars since the entry; 0 when flat", 0, 1),
    "days_to_expiry": Meaning("calendar days to the open option's expiry / 30; else 0", 0, 5),
    "affordable": Meaning("lots that the cash would buy, of the cheaper side, at most Q / Q", 0, 1),
}
"""Account features; scaled by constants, never by data, and cut off at their bounds."""

_MARKET = {
    "log_return": Meaning("log(close / close before), z-score", nan, nan),
    "range": Meaning("log(high / low), z-score", nan, nan),
    "volume": Meaning("log(1 + volume), z-score", nan, nan),
    "atr_ratio": Meaning("ATR(14) / close, z-score", nan, nan),
    "session_time": Meaning("time since the session's first tick / the session before's", 0, 2),
    "volatility": Meaning("log of the standard deviation of the log returns, z-score", nan, nan),
    "autocorrelation": Meaning("of the log returns, lag 1", -1, 1),
    "drift": Meaning("t-statistic of the mean log return", nan, nan),
    "efficiency": Meaning("|sum| / sum of absolute values of the log returns", 0, 1),
}


class ObservationField(NamedTuple):
    """One number of an observation.

    Attributes:
        position: where it stands.
        name: `log_return[-3]` is of the bar three bars before the last one.
        group: `window`, `regime`, `coarse` or `account`.
        meaning: what it is, and its scale.
        low, high: its bounds.
    """

    position: int
    name: str
    group: str
    meaning: str
    low: float
    high: float


def observation_fields(window: int, features: FeatureConfig) -> tuple[ObservationField, ...]:
    """Every number of an observation, in order.

    Args:
        window: bars of the window features, oldest first.
        features: which market features.
    """
    named: list[tuple[str, str, Meaning, str]] = []
    for back in range(window - 1, -1, -1):
        for name in features.window_fields:
            at = f"[-{back}]" if back else "[0]"
            named.append((f"{name}{at}", "window", _MARKET[name], ""))
    for name in features.regime_fields:
        kind, bars = name.rsplit("_", 1)
        named.append((name, "regime", _MARKET[kind], f"; over {bars} bars"))
    for name in features.coarse_fields:
        kind, timeframe = name.rsplit("_", 1)
        named.append((name, "coarse", _MARKET[kind], f"; of the last whole bar of {timeframe}"))
    named += [(name, "account", meaning, "") for name, meaning in ACCOUNT_FIELDS.items()]
    return tuple(
        ObservationField(
            at,
            name,
            group,
            meaning.text + more,
            -features.clip if isnan(meaning.low) else meaning.low,
            features.clip if isnan(meaning.high) else meaning.high,
        )
        for at, (name, group, meaning, more) in enumerate(named)
    )


def layout_digest(config: EnvConfig) -> str:
    """Of all that decides what the numbers of an observation and of an action mean."""
    text = msgspec.json.encode([
        [field[1:] for field in observation_fields(config.window, config.features)],
        config.features, config.max_quantity, config.actions,
    ])  # fmt: skip
    return hashlib.blake2b(text, digest_size=12).hexdigest()


HOLD_INDEX, CLOSE_INDEX, FIRST_BUY = 0, 1, 2


def joint_size(max_quantity: int) -> int:
    """How many joint actions there are: HOLD, CLOSE, BUY 1..Q, SELL 1..Q."""
    return 2 * max_quantity + 2


def action_of(index: int, max_quantity: int) -> Action:
    """The action with a joint index."""
    if index == HOLD_INDEX:
        return HOLD
    if index == CLOSE_INDEX:
        return CLOSE
    if index < FIRST_BUY + max_quantity:
        return buy(index - 1)
    return sell(index - 1 - max_quantity)


def joint_index(kind: int, size: int, max_quantity: int) -> int:
    """Joint index of a MultiDiscrete action: kind HOLD 0, BUY 1, SELL 2, CLOSE 3; size lots - 1."""
    if kind == 1:
        return FIRST_BUY + size
    if kind == 2:
        return FIRST_BUY + max_quantity + size
    return CLOSE_INDEX if kind == 3 else HOLD_INDEX
