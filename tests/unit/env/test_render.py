"""The picture of an episode: always of one size, never of matplotlib's global state, honest about time."""

from __future__ import annotations

import logging
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from streambot.domain.instruments import Instrument, InstrumentType
from streambot.env import render
from streambot.env.axes import _local, _round_times
from streambot.env.history import Moment, Trade
from streambot.env.render import Window, draw

MINUTE = 60 * 10**9
OPEN_NS = 1_608_042_600 * 10**9  # 2020-12-15 09:30 in New York
SHAPE = (600, 900, 3)
LONG, SHORT = (31, 119, 180), (224, 123, 0)
SPY = Instrument(
    symbol="SPY", type=InstrumentType.STOCK, lot_size=1, tick_size=Decimal("0.01"), currency="USD",
    exchange="XNYS", timezone="America/New_York",
)  # fmt: skip


def episode(count: int, *, every: int = 0, seed: int = 0) -> Any:
    """Moments of a random walk; a position of either side every so many bars, half as long."""
    rng = np.random.default_rng(seed)
    price = 370 * np.exp(np.cumsum(rng.normal(0, 1e-4, count)))
    moments, trades, position = [], [], 0
    for k in range(count):
        if every and k and k % every == 0:
            position = 2 if (k // every) % 2 else -2
            trades.append(Trade(k, float(price[k]), "entry", 1 if position > 0 else -1))
        elif position and k % every == every // 2:
            trades.append(Trade(k, float(price[k]), "exit", 1 if position > 0 else -1))
            position = 0
        stop = float(price[k]) - 0.1 * np.sign(position) if position else None
        ts = OPEN_NS + k // 390 * 1440 * MINUTE + (k % 390 + 1) * MINUTE
        moments.append(Moment(ts, float(price[k]), 1e6 - 2.5 * len(trades), position, stop))
    return SimpleNamespace(instrument=SPY, moments=moments, trades=trades)


def has(image: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((np.abs(image.astype(int) - colour).sum(axis=2) < 12).any())


@pytest.mark.parametrize(
    ("count", "every"), [(0, 0), (1, 0), (2, 0), (300, 0), (300, 40), (300, 2), (5_000, 30)]
)
def test_the_picture_has_one_size_whatever_the_episode(count: int, every: int) -> None:
    image = draw(episode(count, every=every))
    assert image.shape == SHAPE
    assert image.dtype == np.uint8
    assert image.flags.owndata
    assert image.min() < 100 < image.max()


def test_trades_are_seen_and_their_absence_too() -> None:
    # The legend holds the marks of both sides; the panels below it must not.
    panels = slice(80, None)
    with_trades, without = draw(episode(300, every=40))[panels], draw(episode(300))[panels]
    for colour in (LONG, SHORT):
        assert has(with_trades, colour)
        assert not has(without, colour)


def test_the_same_episode_gives_the_same_picture() -> None:
    assert np.array_equal(draw(episode(50, every=10)), draw(episode(50, every=10)))


def test_a_position_that_ends_without_a_fill_has_an_exit() -> None:
    expired = episode(60, every=20)
    expired.trades = [trade for trade in expired.trades if trade.effect == "entry"]
    ends = [
        k
        for k in range(1, 60)
        if expired.moments[k - 1].position and not expired.moments[k].position
    ]
    assert [at + 0.5 for at, _ in render._settled(expired)] == ends != []


def test_no_global_figure_is_made() -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    draw(episode(10))
    assert plt.get_fignums() == before


def test_labels_stand_at_round_times_of_the_exchange() -> None:
    from zoneinfo import ZoneInfo

    ts = np.array([m.ts for m in episode(780).moments])
    local = _local(ts, ZoneInfo("America/New_York"))
    at, step = _round_times(local)
    assert 3 <= len(at) <= 9
    assert step % (30 * MINUTE) == 0
    # All but the first ones of a session are round.
    assert all(local[k] % step == 0 or k % 390 == 0 for k in at)


def test_wall_times_follow_the_clock_change() -> None:
    from zoneinfo import ZoneInfo

    before, after = 1_603_600_200, 1_604_269_800  # 2020-10-25 and 2020-11-01 22:30 UTC
    local = _local(np.array([before, after]) * 10**9, ZoneInfo("America/New_York"))
    assert (local // 10**9 - [before, after]).tolist() == [-4 * 3600, -5 * 3600]


def test_without_a_display_it_is_said_once_and_nothing_happens(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "_has_display", lambda: False)
    render._tell_headless.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            window = Window()
            window.show(episode(3))
            window.show(episode(4))
            window.close()
    assert len(caplog.records) == 1
    assert "rgb_array" in caplog.text


def test_a_window_shows_the_episode_and_stays_closed_once_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    monkeypatch.setattr(render, "_has_display", lambda: True)
    monkeypatch.setattr(plt, "show", lambda **_: None)
    window = Window()
    window.show(episode(3))
    assert plt.get_fignums()
    plt.close("all")  # as its user does
    window.show(episode(4))
    assert not plt.get_fignums()
    window.close()
    window.close()
