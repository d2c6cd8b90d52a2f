"""Settings of an environment: typed, frozen, parsed once."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from streambot.domain.replay_settings import Moment
from streambot.domain.units import NANOS_PER_DAY
from streambot.market.feature_config import FeatureConfig

Coefficient = Annotated[float, Meta(ge=0, le=1e6)]


class CoreReward(StrEnum):
    """What a step is paid for; the formulas are in `env.reward`."""

    LOG_RETURN = "log_return"
    PNL = "pnl"
    DIFFERENTIAL_SHARPE = "differential_sharpe"
    DIFFERENTIAL_SORTINO = "differential_sortino"
    PROFIT_FACTOR = "profit_factor"


class ActionLayout(StrEnum):
    """`joint`: Discrete(2 Q + 2) with a mask; `multi`: MultiDiscrete([4, Q])."""

    JOINT = "joint"
    MULTI = "multi"


class RewardConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reward of a step: `core_weight` x core, plus bonuses, less penalties (`env.reward`).

    The defaults of the shaping terms are small against a bar's log return (about 1e-4 on minutes):
    they break ties, they do not pay for a strategy. All may be 0.

    Attributes:
        core: what is paid.
        core_weight: factor of the core reward.
        eta: rate of the moving averages of the differential ratios.
        clip: bound of a differential ratio: their first values divide by next to nothing.
        profit_window: steps of the profit factor.
        idleness: penalty per step that ends without a position.
        realized_profit: bonus per profit that was realised, after both brokerages, as a share of the
            capital.
        overtrading: penalty of an entry at the bar of the one before it; falls to 0 over
            `overtrading_bars` bars between the two.
        overtrading_bars: see `overtrading`.
        trail: bonus for holding a profitable position while its trailing stop moves, times the move
            in widths of the stop, at most 1.
        early_close: penalty for closing a profitable position while `distance_to_trail` is at least
            `early_distance`.
        early_distance: see `early_close`.
        termination: penalty of a step that terminates.
    """

    core: CoreReward = CoreReward.LOG_RETURN
    core_weight: Coefficient = 1.0
    eta: Annotated[float, Meta(gt=0, lt=1)] = 0.01
    clip: Annotated[float, Meta(gt=0, le=1e6)] = 10.0
    profit_window: Annotated[int, Meta(ge=1, le=4096)] = 64
    idleness: Coefficient = 1e-6
    realized_profit: Coefficient = 0.05
    overtrading: Coefficient = 1e-5
    overtrading_bars: Annotated[int, Meta(ge=1, le=10**9)] = 30
    trail: Coefficient = 1e-5
    early_close: Coefficient = 1e-5
    early_distance: Annotated[float, Meta(ge=-3, le=1)] = 0.5
    termination: Coefficient = 1.0


class EnvConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an environment is, besides its data.

    Attributes:
        capital: cash at the start of an episode, in the instrument's currency.
        max_quantity: Q, most lots of one order (the instrument's `max_lots` may be lower).
        actions: layout of the action space.
        window: bars whose window features an observation holds.
        episode_bars: steps of an episode; None: to the end of the data.
        lookback: bars before an episode's first decision.
        start, end: episodes lie inside [start, end), by the bars' closes, in each instrument's zone
            (an end that is a date is included); None: all of the data. Bars before the start still
            warm indicators and normalisation.
        drawdown_limit_bp: drawdown of the risk equity that terminates, basis points of its peak.
        max_gap_ns: an entry whose next bar opens later than this expires; the episode is truncated.
        reward: how a step is paid.
        features: what is seen of the market.
    """

    capital: Decimal = Decimal(1_000_000)
    max_quantity: Annotated[int, Meta(ge=1, le=1000)] = 5
    actions: ActionLayout = ActionLayout.JOINT
    window: Annotated[int, Meta(ge=1, le=4096)] = 10
    episode_bars: Annotated[int, Meta(ge=1, le=2**40)] | None = 256
    lookback: Annotated[int, Meta(ge=0, le=2**40)] = 64
    start: Moment | None = None
    end: Moment | None = None
    drawdown_limit_bp: Annotated[int, Meta(ge=1, le=1_000_000)] = 2_000
    max_gap_ns: Annotated[int, Meta(ge=0, le=2**62)] = 7 * NANOS_PER_DAY
    reward: RewardConfig = RewardConfig()
    features: FeatureConfig = FeatureConfig()
