"""Market features against a slow second computation, written from their formulas.

What is guarded: every field of every bar, in every kind of market; that the features of a bar are a
function of the bars up to it, of its own instrument alone; that a snapshot goes on bit for bit.
"""

from __future__ import annotations

import math
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.domain.errors import DecodeError
from streambot.domain.units import NANOS_PER_DAY as DAY
from streambot.market.bars import TradingDates
from streambot.market.feature_config import REGIME_FIELDS, WINDOW_FIELDS, FeatureConfig
from streambot.market.features import Features
from tests.conftest import SEED

MINUTE = 60 * 10**9
HOUR = 60 * MINUTE
FEWEST_RETURNS = 16


class B(NamedTuple):
    """One decision bar."""

    open_ts: int
    close_ts: int
    open: int
    high: int
    low: int
    close: int
    volume: int = 100
    session_close: bool = False


def dates_of(sessions: list[tuple[int, int]]) -> TradingDates:
    opens, closes = (np.array([s[k] for s in sessions], np.int64) for k in (0, 1))
    return TradingDates(opens, opens.copy(), closes)


def push(features: Features, n: int, bar: B) -> tuple[np.ndarray, np.ndarray]:
    return features.push(
        n, open_ts=bar.open_ts, close_ts=bar.close_ts, prices=bar[2:6], volume=bar.volume,
        session_close=bar.session_close,
    )  # fmt: skip


def run(
    config: FeatureConfig, sessions: list[tuple[int, int]], bars: list[B]
) -> tuple[np.ndarray, np.ndarray]:
    features = Features(config, [dates_of(sessions)])
    rows = [push(features, 0, bar) for bar in bars]
    window, slow = (np.array([row[k] for row in rows]) for k in (0, 1))
    return window, slow


# --- the second computation ---------------------------------------------------------------------


def zscores(values: list[float], size: int, clip: float) -> list[float]:
    """z of each value among the last `size` known ones; NaN is not known, gets 0, takes no room."""
    known: list[float] = []
    out = []
    for value in values:
        if math.isnan(value):
            out.append(0.0)
            continue
        known.append(value)
        window = np.array(known[-size:], np.longdouble)
        window -= window[-1]
        sd = math.sqrt(math.fsum((window - window.mean()) ** 2) / len(window))
        if len(window) < 2 or sd <= 1e-15 * abs(value):
            out.append(0.0)
        else:
            out.append(max(-clip, min(clip, float(-window.mean()) / sd)))
    return out


def wilder(bars: list[tuple[int, int, int]]) -> list[float]:
    """ATR(14) of (high, low, close): the mean of the true ranges, then Wilder's smoothing."""
    ranges: list[float] = []
    out: list[float] = []
    for k, (high, low, close) in enumerate(bars):
        del close
        before = bars[k - 1][2] if k else None
        spread = [high - low]
        if before is not None:
            spread += [abs(high - before), abs(low - before)]
        ranges.append(max(spread))
        out.append(sum(ranges) / (k + 1) if k < 14 else (13 * out[-1] + ranges[-1]) / 14)
    return out


def scored_fields(rows: list[tuple[int, int, int, int]], size: int, clip: float) -> np.ndarray:
    """The first four window fields of bars of (high, low, close, volume)."""
    closes = [row[2] for row in rows]
    returns = [math.nan] + [math.log(b) - math.log(a) for a, b in pairwise(closes)]
    series = (
        returns,
        [math.log(high) - math.log(low) for high, low, _, _ in rows],
        [math.log(1 + max(0, volume)) for *_, volume in rows],
        [a / c for a, c in zip(wilder([row[:3] for row in rows]), closes, strict=True)],
    )
    return np.array([zscores(values, size, clip) for values in series]).T.reshape(-1, 4)


def session_times(bars: list[B]) -> list[float]:
    out = []
    length = 0
    begin: int | None = None
    for bar in bars:
        begin = bar.open_ts if begin is None else begin
        elapsed = bar.close_ts - begin
        out.append(min(2.0, elapsed / length) if length else 0.0)
        if bar.session_close:
            begin, length = None, elapsed
    return out


def regime_fields(closes: list[int], size: int, config: FeatureConfig) -> np.ndarray:
    rows = []
    deviations = []
    for k in range(len(closes)):
        r = np.diff(np.log(np.array(closes[: k + 1], np.float64)))[-size:]
        if len(r) < FEWEST_RETURNS:
            deviations.append(math.nan)
            rows.append((0.0, 0.0, 0.0))
            continue
        path = math.fsum(abs(r))
        efficiency = abs(math.fsum(r)) / path if path else 0.0
        mean = math.fsum(r) / len(r)
        d = r - mean
        sd = math.sqrt(math.fsum(d * d) / len(r))
        if sd <= 1e-12:
            deviations.append(math.nan)
            rows.append((0.0, 0.0, efficiency))
            continue
        deviations.append(math.log(sd))
        correlation = math.fsum(d[1:] * d[:-1]) / math.fsum(d * d)
        drift = mean / sd * math.sqrt(len(r))
        rows.append((correlation, max(-config.clip, min(config.clip, drift)), efficiency))
    scores = zscores(deviations, config.zscore_window, config.clip)
    return np.column_stack([scores, np.array(rows)])


class Bucket(NamedTuple):
    phase: str
    session: int
    number: int
    end: float


def bucket_of(t: int, timeframe: int, sessions: list[tuple[int, int]]) -> Bucket:
    """The grid of the last session that opened by then (of the first one before it opens).

    Inside a session it ends with the session; a day of 1d is the session, and what lies between
    two sessions is one more.
    """
    if not sessions:
        return Bucket("none", 0, t // timeframe, (t // timeframe + 1) * timeframe)
    opened = [k for k, (open_, _) in enumerate(sessions) if open_ <= t]
    k = opened[-1] if opened else 0
    open_, close = sessions[k]
    if timeframe == DAY:
        if t < close:
            return Bucket("in", k, 0, close)
        return Bucket("after", k, 0, sessions[k + 1][0] if k + 1 < len(sessions) else math.inf)
    number = (t - open_) // timeframe
    end = open_ + (number + 1) * timeframe
    if t < open_:
        return Bucket("before", k, number, min(end, open_))
    return (
        Bucket("in", k, number, min(end, close)) if t < close else Bucket("after", k, number, end)
    )


def coarse_fields(
    bars: list[B], timeframe: int, sessions: list[tuple[int, int]], config: FeatureConfig
) -> np.ndarray:
    """Fields of the last coarser bar that was complete at each close; 0 before the first one."""
    rows, known_at, at = [], [], 0
    grouped = groupby(bars, key=lambda bar: bucket_of(bar.open_ts, timeframe, sessions))
    for key, members in grouped:
        part = list(members)
        at += len(part)
        rows.append((
            max(b.high for b in part), min(b.low for b in part), part[-1].close,
            sum(b.volume for b in part),
        ))  # fmt: skip
        # By time with its own last bar, or when the next one shows that nothing more comes.
        known_at.append(at - 1 if part[-1].close_ts >= key.end else at)
    fields = scored_fields(rows, config.zscore_window, config.clip)
    out = np.zeros((len(bars), 4))
    for fields_of, first in zip(fields, known_at, strict=True):
        out[first:] = fields_of
    return out


def slowly(
    config: FeatureConfig, sessions: list[tuple[int, int]], bars: list[B]
) -> tuple[np.ndarray, np.ndarray]:
    rows = [(b.high, b.low, b.close, b.volume) for b in bars]
    window = np.column_stack([
        scored_fields(rows, config.zscore_window, config.clip), session_times(bars)
    ])  # fmt: skip
    closes = [b.close for b in bars]
    slow = [regime_fields(closes, size, config) for size in config.regime_windows]
    slow += [coarse_fields(bars, frame, sessions, config) for frame in config.timeframes]
    return window, np.hstack([np.zeros((len(bars), 0)), *slow])


def check(config: FeatureConfig, sessions: list[tuple[int, int]], bars: list[B]) -> np.ndarray:
    """Both computations agree in every field of every bar; the fields."""
    got, expected = run(config, sessions, bars), slowly(config, sessions, bars)
    for kind, names, mine, other in zip(
        ("window", "slow"), (config.window_fields, config.slow_fields), got, expected, strict=True
    ):
        assert mine.dtype == np.float32
        assert mine.shape == other.shape == (len(bars), len(names)), kind
        for column, name in enumerate(names):
            worst = np.abs(mine[:, column] - other[:, column])
            assert worst.max(initial=0.0) < 2e-6, (name, int(worst.argmax()), worst.max())
    return np.hstack(got)


# --- markets ------------------------------------------------------------------------------------


def walk(
    rng: np.random.Generator,
    sessions: list[tuple[int, int]],
    *,
    step: int = MINUTE,
    keep: float = 1.0,
    before: int = 0,
    after: int = 0,
    price: int = 20_000,
    noise: float = 2e-3,
) -> list[B]:
    """A random walk of bars in sessions, and `before` and `after` them, of which a share is there."""
    bars: list[B] = []
    for open_, close in sessions:
        stamps = [
            t for t in range(open_ - before * step, close + after * step, step)
            if rng.random() < keep and (not bars or t >= bars[-1].close_ts)
        ]  # fmt: skip
        for t in stamps:
            close_price = max(50, round(price * math.exp(rng.normal(0, noise))))
            low = max(1, min(price, close_price) - int(rng.integers(0, 30)))
            high = max(price, close_price) + int(rng.integers(0, 30))
            volume = int(rng.integers(0, 5) * rng.integers(0, 10_000))
            bars.append(B(t, t + step, price, high, low, close_price, volume, t == stamps[-1]))
            price = max(1, close_price + int(rng.integers(-9, 10)))
    return bars


def days(
    count: int, *, open_: int = 14 * HOUR + 30 * MINUTE, length: int = 390 * MINUTE
) -> list[tuple[int, int]]:
    return [(d * DAY + open_, d * DAY + open_ + length) for d in range(count)]


SMALL = FeatureConfig(
    zscore_window=37, clip=3.0, regime_windows=(16, 48), timeframes=(5 * MINUTE, 30 * MINUTE)
)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        FeatureConfig(),
        FeatureConfig(zscore_window=2, regime_windows=(), timeframes=(HOUR,)),
        FeatureConfig(zscore_window=20, clip=0.5, regime_windows=(300, 17), timeframes=(DAY, HOUR)),
    ],
)
def test_every_field_of_every_bar(config: FeatureConfig, rng: np.random.Generator) -> None:
    """Also with bars missing, and the names say as many fields as there are."""
    sessions = days(5, length=150 * MINUTE)
    seen = check(config, sessions, walk(rng, sessions, keep=0.9))
    assert np.isfinite(seen).all()
    assert config.window_fields == WINDOW_FIELDS
    assert len(config.regime_fields) == len(REGIME_FIELDS) * len(config.regime_windows)
    moving = np.ptp(seen, axis=0) > 0.1
    assert moving.all(), "a field that hardly moves is not tested"


@pytest.mark.parametrize("timeframe", [5 * MINUTE, 20 * MINUTE, HOUR, 4 * HOUR, DAY])
@pytest.mark.parametrize("known", ["all", "none", "one unknown", "weekend"])
def test_coarser_bars_of_long_days(timeframe: int, known: str, rng: np.random.Generator) -> None:
    """Bars before the open and after the close, holes in sessions, dates nobody's calendar knows.

    The summer time of the exchange changes in between, and one session is short: the grid goes on
    from the open of the session that opened last.
    """
    sessions = [
        (open_ - (HOUR if d >= 3 else 0), close - (HOUR if d >= 3 else 0) - 3 * HOUR * (d == 2))
        for d, (open_, close) in enumerate(days(8))
    ]
    bars = walk(rng, sessions, step=10 * MINUTE, keep=0.6, before=30, after=20)
    calendar = {
        "all": sessions, "none": [], "one unknown": sessions[:3] + sessions[4:],
        "weekend": sessions[2:4] + sessions[6:],
    }[known]  # fmt: skip
    config = FeatureConfig(zscore_window=24, regime_windows=(), timeframes=(timeframe,))
    seen = check(config, calendar, bars)
    assert len(np.unique(seen[:, 5:], axis=0)) > 5, "hardly a coarser bar was complete"


def test_a_day_of_1d_is_known_with_its_last_bar(rng: np.random.Generator) -> None:
    """At the close of the session, not with the first bar of the next one; a day of holes later."""
    sessions = days(4, length=60 * MINUTE)
    bars = walk(rng, sessions)
    config = FeatureConfig(regime_windows=(), timeframes=(DAY,))
    _, slow = run(config, sessions, bars)
    ends = [k for k, bar in enumerate(bars) if bar.session_close]
    changes = [k for k in range(1, len(bars)) if (slow[k] != slow[k - 1]).any()]
    assert changes == ends[1:]  # the first day has no z-score yet
    cut = [bar for bar in bars if bar.close_ts not in {close for _, close in sessions}]
    _, slow = run(config, sessions, cut)
    changes = [k for k in range(1, len(cut)) if (slow[k] != slow[k - 1]).any()]
    assert changes == [
        k for k in range(1, len(cut)) if cut[k].open_ts in {s[0] for s in sessions[2:]}
    ]


def test_a_coarser_bar_that_is_open_shows_nothing(rng: np.random.Generator) -> None:
    """Within its bucket, whatever the bars do, the last complete one stays."""
    sessions = days(1, length=120 * MINUTE)
    bars = walk(rng, sessions)
    wild = [bar._replace(high=bar.high * 9, volume=10**9) for bar in bars]
    config = FeatureConfig(regime_windows=(), timeframes=(30 * MINUTE,))
    _, calm = run(config, sessions, bars)
    for k in range(60, 89):
        _, other = run(config, sessions, bars[:60] + wild[60 : k + 1])
        assert np.array_equal(other[-1], calm[k])
    _, other = run(config, sessions, bars[:60] + wild[60:90])
    assert not np.array_equal(other[-1], calm[89])


# --- what cannot be told ------------------------------------------------------------------------


def test_a_single_bar_says_nothing() -> None:
    """No return, no spread of anything, no session before: zeros, not NaN."""
    seen = check(SMALL, days(1), [B(0, MINUTE, 100, 120, 90, 110)])
    assert not seen.any()


def test_constant_prices_and_no_volume_say_nothing() -> None:
    """All zeros, but for the time of day: equal values have no score, no drift, no efficiency."""
    sessions = days(3, length=60 * MINUTE)
    bars = [
        B(t, t + MINUTE, 777, 777, 777, 777, 0, t + MINUTE == close)
        for open_, close in sessions for t in range(open_, close, MINUTE)
    ]  # fmt: skip
    seen = check(SMALL, sessions, bars)
    assert not np.delete(seen, WINDOW_FIELDS.index("session_time"), axis=1).any()
    assert seen[60:, WINDOW_FIELDS.index("session_time")].max() == 1.0


def test_a_market_that_begins_to_move_and_stops(rng: np.random.Generator) -> None:
    """What a flat stretch leaves is exact zero, not the rounding of what was before it."""
    sessions = days(1, length=390 * MINUTE)
    moving = walk(rng, sessions)
    flat = [bar._replace(open=500, high=500, low=500, close=500, volume=0) for bar in moving]
    config = FeatureConfig(zscore_window=30, regime_windows=(16, 64), timeframes=(5 * MINUTE,))
    bars = flat[:100] + moving[100:200] + flat[200:]
    window, slow = run(config, sessions, bars)
    expected = slowly(config, sessions, bars)
    names = WINDOW_FIELDS[:3]
    for k in (60, 99, 250, 389):
        assert not window[k, : len(names)].any(), k
        assert not slow[k, :4].any(), k
    assert np.abs(window[:, :3] - expected[0][:, :3]).max() < 2e-6
    assert np.abs(slow[:, 1:4] - expected[1][:, 1:4]).max() < 2e-6


def test_unknown_volume_counts_as_none(rng: np.random.Generator) -> None:
    """-1, "unknown", is what 0 is, for some bars or for all."""
    sessions = days(1)
    bars = walk(rng, sessions)
    for share in (0.4, 1.0):
        unknown = rng.random(len(bars)) < share
        given = [
            run(SMALL, sessions, [
                bar._replace(volume=volume if gone else bar.volume)
                for bar, gone in zip(bars, unknown, strict=True)
            ])[0]
            for volume in (-1, 0)
        ]  # fmt: skip
        assert np.array_equal(*given)
        assert given[0][:, WINDOW_FIELDS.index("volume")].any() == (share < 1.0)


def test_prices_that_have_no_logarithm_leave_no_trace_in_the_scores() -> None:
    """A price of 0 or below gives 0 there, and never NaN or infinity."""
    bars = [
        B(k * MINUTE, (k + 1) * MINUTE, p, p, p, p) for k, p in enumerate([5, 0, -3, 7, 9] * 30)
    ]
    features = Features(SMALL, [dates_of([])])
    for bar in bars:
        for row in push(features, 0, bar):
            assert np.isfinite(row).all()
            assert (np.abs(row) <= SMALL.clip).all()


def test_the_first_returns_and_the_first_scores(rng: np.random.Generator) -> None:
    """A regime needs sixteen returns; a score two values; then both are there."""
    sessions = days(1)
    bars = walk(rng, sessions)[:80]
    config = FeatureConfig(zscore_window=512, regime_windows=(64,))
    window, slow = run(config, sessions, bars)
    assert not slow[:FEWEST_RETURNS].any()
    assert slow[FEWEST_RETURNS, 1:].all()
    assert not slow[FEWEST_RETURNS, 0]  # one volatility has no score yet
    assert slow[FEWEST_RETURNS + 1, 0]
    assert not window[0].any()
    assert not window[1, 0]  # one return has no score
    assert window[1, 3]
    assert window[2, 0]


def test_nothing_is_beyond_the_clip(rng: np.random.Generator) -> None:
    """Shocks are cut at the clip, on both sides, and reach it."""
    sessions = days(1)
    bars = walk(rng, sessions)
    for k in range(40, len(bars), 40):
        up = 4 if k % 80 else -4
        shift = int(bars[k].close * 0.1 * up)
        bars[k:] = [
            b._replace(open=b.open + shift, high=b.high + shift, low=b.low + shift, close=b.close + shift)
            for b in bars[k:]
        ]  # fmt: skip
    config = FeatureConfig(zscore_window=60, clip=1.5, regime_windows=(16,))
    seen = check(config, sessions, bars)
    scored = [0, 1, 2, 3, 5]
    assert seen[:, scored].max() == 1.5
    assert seen[:, 0].min() == -1.5
    assert np.abs(seen[:, scored]).max() == 1.5


def test_a_session_longer_than_the_one_before_stops_at_two(rng: np.random.Generator) -> None:
    """Half a day, then a whole one: elapsed / length before, at most 2; unknown in the first."""
    sessions = [(0, 60 * MINUTE), (DAY, DAY + 390 * MINUTE), (2 * DAY, 2 * DAY + 195 * MINUTE)]
    seen = check(SMALL, sessions, walk(rng, sessions))[:, WINDOW_FIELDS.index("session_time")]
    assert not seen[:60].any()
    assert seen[60] == pytest.approx(1 / 60)
    assert seen[60 + 119] == seen[60 + 389] == 2.0
    assert seen[-1] == pytest.approx(0.5)


# --- state --------------------------------------------------------------------------------------


def coarse_bars(draw: Any) -> list[B]:
    """Bars of any shape, gaps anywhere."""
    bars, t = [], 0
    for _ in range(draw(st.integers(3, 45))):
        t += draw(st.sampled_from([0, 0, 0, MINUTE, 7 * MINUTE, 3 * HOUR, DAY]))
        prices = draw(st.lists(st.integers(1, 300), min_size=4, max_size=4))
        bars.append(
            B(t, t + MINUTE, prices[0], max(prices), min(prices), prices[3],
              draw(st.sampled_from([-1, 0, 1, 5000])), draw(st.booleans()))
        )  # fmt: skip
        t += MINUTE
    return bars


any_bars = st.composite(coarse_bars)()
TINY = FeatureConfig(
    zscore_window=5, regime_windows=(16, 20), timeframes=(5 * MINUTE, HOUR, DAY), clip=4.0
)


@settings(max_examples=60)
@given(any_bars, any_bars, st.data())
def test_later_bars_change_nothing(first: list[B], other: list[B], data: st.DataObject) -> None:
    """The features of bar k are a function of the bars 0 to k."""
    cut = data.draw(st.integers(1, len(first)))
    behind = first[cut - 1].close_ts
    future = [b._replace(open_ts=b.open_ts + behind, close_ts=b.close_ts + behind) for b in other]
    sessions = days(4, open_=3 * HOUR, length=5 * HOUR)
    whole, changed = run(TINY, sessions, first), run(TINY, sessions, first[:cut] + future)
    for mine, theirs in zip(whole, changed, strict=True):
        assert mine[:cut].tobytes() == theirs[:cut].tobytes()


@settings(max_examples=60)
@given(any_bars, st.data())
def test_a_snapshot_anywhere_goes_on_bit_for_bit(bars: list[B], data: st.DataObject) -> None:
    """Also from a state that another series has been through."""
    sessions = days(4, open_=3 * HOUR, length=5 * HOUR)
    cut = data.draw(st.integers(0, len(bars)))
    one, two = (Features(TINY, [dates_of(sessions)]) for _ in range(2))
    for bar in bars[:cut]:
        push(one, 0, bar)
    for bar in bars[: data.draw(st.integers(0, len(bars)))]:
        push(two, 0, bar._replace(close=bar.low, volume=3))
    two.restore(one.snapshot())
    for bar in bars[cut:]:
        for mine, other in zip(push(one, 0, bar), push(two, 0, bar), strict=True):
            assert mine.tobytes() == other.tobytes()
    assert one.snapshot() == two.snapshot()


def test_instruments_do_not_know_each_other() -> None:
    """Alone or among many, in whatever order their bars come: the same features, bit for bit."""
    rng = np.random.default_rng([SEED, 7])
    sessions = [days(3, open_=int(o) * HOUR, length=90 * MINUTE) for o in (2, 9, 14, 14)]
    bars = [walk(rng, s, keep=0.8, before=5) for s in sessions]
    alone = [run(SMALL, s, b) for s, b in zip(sessions, bars, strict=True)]
    together = Features(SMALL, [dates_of(s) for s in sessions])
    at = [0] * len(bars)
    for n in rng.permutation([n for n, b in enumerate(bars) for _ in b]).tolist():
        window, slow = push(together, n, bars[n][at[n]])
        assert window.tobytes() == alone[n][0][at[n]].tobytes()
        assert slow.tobytes() == alone[n][1][at[n]].tobytes()
        at[n] += 1


@pytest.mark.parametrize(
    "other",
    [{"zscore_window": 38}, {"regime_windows": (16,)}, {"timeframes": (5 * MINUTE,)}],
)
def test_a_state_of_other_settings_or_damaged_is_refused(other: dict[str, Any]) -> None:
    """And what was there before stays."""
    features = Features(SMALL, [dates_of(days(1))])
    push(features, 0, B(0, MINUTE, 100, 120, 90, 110))
    before = features.snapshot()
    fields = {name: getattr(SMALL, name) for name in FeatureConfig.__struct_fields__}
    foreign = Features(FeatureConfig(**{**fields, **other}), [dates_of(days(1))]).snapshot()
    damaged = before[:40] + bytes([before[40] ^ 1]) + before[41:]
    for snapshot in (foreign, damaged, before[:-1], b""):
        with pytest.raises(DecodeError):
            features.restore(snapshot)
        assert features.snapshot() == before


# --- names --------------------------------------------------------------------------------------


def test_the_digest_changes_with_everything_that_decides() -> None:
    """What is kept under it is found again by equal settings, and by no others."""
    base = FeatureConfig(timeframes=(MINUTE, HOUR), regime_windows=(16, 32))
    others = [
        {"zscore_window": 511}, {"warmup": 65}, {"clip": 5.5}, {"regime_windows": (32, 16)},
        {"regime_windows": (16,)}, {"timeframes": (HOUR, MINUTE)}, {"timeframes": ()},
    ]  # fmt: skip
    fields = {name: getattr(base, name) for name in FeatureConfig.__struct_fields__}
    digests = [base.digest] + [FeatureConfig(**{**fields, **other}).digest for other in others]
    assert len(set(digests)) == len(digests)
    assert FeatureConfig(**fields).digest == base.digest
    assert {name for other in others for name in other} == set(fields)


def test_names_say_window_and_timeframe_and_are_different() -> None:
    """In the order in which the numbers stand."""
    config = FeatureConfig(regime_windows=(64, 16), timeframes=(90 * 10**9, DAY))
    assert config.regime_fields[:5] == (*(f"{name}_64" for name in REGIME_FIELDS), "volatility_16")
    assert config.coarse_fields == tuple(
        f"{name}_{frame}" for frame in ("1m30s", "1d") for name in WINDOW_FIELDS[:4]
    )
    assert config.slow_fields == config.regime_fields + config.coarse_fields
    assert len(set(config.slow_fields)) == len(config.slow_fields)


@pytest.mark.parametrize(
    "twice", [{"regime_windows": (16, 32, 16)}, {"timeframes": (MINUTE, MINUTE)}]
)
def test_a_window_or_timeframe_named_twice_is_refused(twice: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="twice"):
        FeatureConfig(**twice)
