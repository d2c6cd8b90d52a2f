"""Which market features are computed, and their names (`market.features` says what they are)."""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec
from msgspec import Meta

from streambot.domain.durations import format_duration
from streambot.domain.units import NANOS_PER_DAY
from streambot.market.atr import ATR_PERIOD

WINDOW_FIELDS = ("log_return", "range", "volume", "atr_ratio", "session_time")
REGIME_FIELDS = ("volatility", "autocorrelation", "drift", "efficiency")
SCORED = 4
"""Window fields that are z-scores: all but the last."""
_FORMAT = 1

_SECOND = 10**9
Timeframe = Annotated[int, Meta(gt=0, le=NANOS_PER_DAY)]


class FeatureConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which market features are computed.

    Attributes:
        zscore_window: bars of the rolling window of the z-scores.
        warmup: bars that must be in before entries are legal for a policy.
        clip: bound of z-scores and t-statistics.
        regime_windows: bars of the windows of the slow regime features.
        timeframes: coarser timeframes that are observed too, ns.
    """

    zscore_window: Annotated[int, Meta(ge=2, le=65_536)] = 512
    warmup: Annotated[int, Meta(ge=0, le=65_536)] = 64
    clip: Annotated[float, Meta(gt=0, le=1e6)] = 5.0
    regime_windows: tuple[Annotated[int, Meta(ge=16, le=65_536)], ...] = (64, 256)
    timeframes: tuple[Timeframe, ...] = ()

    def __post_init__(self) -> None:
        for name, values in (
            ("regime_windows", [str(bars) for bars in self.regime_windows]),
            ("timeframes", [format_duration(timeframe) for timeframe in self.timeframes]),
        ):
            if len(set(values)) != len(values):
                raise ValueError(f"`{name}` names one twice: {', '.join(values)}")
        for timeframe in self.timeframes:
            if timeframe % _SECOND or NANOS_PER_DAY % timeframe:
                raise ValueError(
                    f"`timeframes` has {format_duration(timeframe)}, which does not divide a day"
                )

    @property
    def window_fields(self) -> tuple[str, ...]:
        """Names of the fields of every bar."""
        return WINDOW_FIELDS

    @property
    def regime_fields(self) -> tuple[str, ...]:
        """Names of the slow regime features."""
        return tuple(f"{name}_{bars}" for bars in self.regime_windows for name in REGIME_FIELDS)

    @property
    def coarse_fields(self) -> tuple[str, ...]:
        """Names of the features of the coarser timeframes."""
        return tuple(
            f"{name}_{format_duration(timeframe)}"
            for timeframe in self.timeframes
            for name in WINDOW_FIELDS[:SCORED]
        )

    @property
    def slow_fields(self) -> tuple[str, ...]:
        """Names of all fields that are seen for the last bar only."""
        return self.regime_fields + self.coarse_fields

    @property
    def digest(self) -> str:
        """Of everything that decides the features of given bars."""
        text = msgspec.json.encode([_FORMAT, self, WINDOW_FIELDS, REGIME_FIELDS, ATR_PERIOD])
        return hashlib.blake2b(text, digest_size=12).hexdigest()
