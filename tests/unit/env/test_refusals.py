"""What would lead compiled code astray, or a learner, is refused; and what was found wrong stays right."""

from __future__ import annotations

import re
import threading
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from streambot.domain.bars import BarBlock
from streambot.domain.errors import ConfigError, DataError, DecodeError, StreambotError, UsageError
from streambot.domain.events import Action, buy
from streambot.domain.instruments import Expiries, Instrument, InstrumentType, TrailAtr, TrailBp
from streambot.domain.ticks import TickBlock, TickFlag
from streambot.env.config import EnvConfig
from streambot.env.core import Core
from streambot.env.sources import ArraySource
from streambot.env.trading_env import TradingEnv
from streambot.env.vector_env import VectorTradingEnv
from streambot.env.venues import AtTheSlot, LeftError, StreamVenue

MINUTE = 60 * 10**9


def stock(**fields: Any) -> Instrument:
    known = {
        "symbol": "S",
        "type": InstrumentType.STOCK,
        "lot_size": 1,
        "tick_size": Decimal("0.01"),
    }
    return Instrument(**(known | fields))


def bars(count: int = 300, *, gap_behind: int | None = None, price: int = 10_000) -> BarBlock:
    """A gentle wave; `gap_behind`: ten days follow that bar."""
    close = price + (40 * np.sin(np.arange(count) / 9)).astype(np.int64)
    open_ = np.concatenate([[price], close[:-1]])
    ts = np.arange(count) * MINUTE
    if gap_behind is not None:
        ts[gap_behind + 1 :] += 10 * 86_400 * 10**9
    return BarBlock(
        ts, np.full(count, MINUTE), open_, np.maximum(open_, close) + 3,
        np.minimum(open_, close) - 3, close, np.full(count, 10), np.zeros(count, np.uint8),
    )  # fmt: skip


def env(
    data: BarBlock | None = None, instrument: Instrument | None = None, **more: Any
) -> TradingEnv:
    source = ArraySource(instrument or stock(), bars() if data is None else data)
    return TradingEnv(source, **({"episode_bars": 20, "lookback": 5, "warmup": 0} | more))


@pytest.mark.parametrize(
    "change",
    [{"capital": 5_000}, {"max_quantity": 6}, {"reward": "pnl"}, {"drawdown_limit_bp": 100},
     {"data": bars(301)}, {"data": bars(30)}],
)  # fmt: skip
def test_a_state_of_something_else_is_refused(change: dict[str, Any]) -> None:
    """It names rows and limits: taken over, compiled code would read what is not there."""
    one, other = env(), env(**change)
    one.reset(seed=1)
    other.reset(seed=1)
    before = other.core.snapshot()
    with pytest.raises(DecodeError):
        other.core.restore(one.core.snapshot())
    assert other.core.snapshot() == before


def ticks(count: int) -> TickBlock:
    return TickBlock(
        np.zeros(count, np.uint16), np.arange(count, dtype=np.uint32),
        np.full(count, TickFlag.BAR_OPEN | TickFlag.BAR_CLOSE, np.uint8),
        np.arange(count) * MINUTE, np.full(count, 100), np.ones(count, np.int64),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "closes", "said"),
    [
        (ticks(9), None, "need `closes`"),
        (ticks(9), np.arange(1, 9) * MINUTE, "reach interval 8"),
        (ticks(9), np.full(9, MINUTE), "must increase"),
        (ticks(0), np.arange(3), "of none"),
        (bars(20).__class__(*(c[:0] for c in bars(20))), None, "of none"),
        (BarBlock(*(c[:-1] if k == 4 else c for k, c in enumerate(bars(20)))), None, "lengths"),
        (BarBlock(*(c + 90 if k == 4 else c for k, c in enumerate(bars(20)))), None, "low or high"),
        (
            BarBlock(*(c - 20_000 if 2 <= k <= 5 else c for k, c in enumerate(bars(20)))),
            None,
            "tick",
        ),
        (BarBlock(*(c[::-1] if k == 0 else c for k, c in enumerate(bars(20)))), None, "time order"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(data: Any, closes: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        TradingEnv(ArraySource(stock(), data, closes))


def test_ticks_of_an_array_trade() -> None:
    made = TradingEnv(
        ArraySource(stock(), ticks(50), np.arange(1, 51) * MINUTE),
        episode_bars=5,
        lookback=3,
        warmup=0,
    )
    made.reset(seed=1)
    made.step(2)
    assert [type(event).__name__ for event in made.events] == ["OrderFilled"]


def test_episodes_that_do_not_fit_are_told_how_long_they_may_be() -> None:
    with pytest.raises(DataError, match="5 to look back on and 301 of its own") as refused:
        env(episode_bars=300)
    (longest,) = re.findall(r"episode_bars=N, here (\d+) at most", refused.value.hint)
    env(episode_bars=int(longest)).reset(seed=1)
    with pytest.raises(DataError, match="bars for episodes"):
        env(episode_bars=int(longest) + 1)
    with pytest.raises(DataError) as refused:
        env(lookback=400)
    assert "at most" not in refused.value.hint, "none fits"


def test_an_option_without_its_contracts_is_refused() -> None:
    option = stock(type=InstrumentType.OPTION, expiries=Expiries(expires_after=2))
    with pytest.raises(DataError, match="without sessions and contracts"):
        TradingEnv(ArraySource(option, bars()))


@pytest.mark.parametrize("trail", [TrailAtr(atr=2.0), TrailBp(bp=50)])
def test_the_entry_distance_counts_widths_of_the_stop(trail: Any) -> None:
    made = env(instrument=stock(trail=trail), episode_bars=60)
    at = {field.name: field.position for field in made.observation_fields}["entry_distance"]
    made.reset(seed=3)
    seen = []
    made.step(2)
    for _ in range(40):
        obs, *_ = made.step(0)
        s = made.core.slots[0]
        moved = int(s["side"]) * (int(s["last_price"]) - int(s["entry_price"])) / int(s["width"])
        assert obs[at] == np.float32(moved)
        seen.append(float(obs[at]))
    assert max(seen) > 0.3
    assert np.ptp(seen) < 5


def test_capital_that_buys_nothing_is_a_mistake_of_the_settings() -> None:
    with pytest.raises(ConfigError, match="does not buy one lot of S at"):
        env(capital=50).reset(seed=1)
    vec = VectorTradingEnv(ArraySource(stock(), bars()), 3, capital=50, episode_bars=20)
    with pytest.raises(ConfigError, match="does not buy one lot"):
        vec.reset(seed=1)


def test_sizes_in_bytes_are_not_counted_in_bytes() -> None:
    vec = VectorTradingEnv(
        ArraySource(stock(), bars()),
        1,
        actions="multi",
        max_quantity=100,
        warmup=0,
        episode_bars=20,
    )
    for dtype in (np.uint8, np.int8, np.int64):
        vec.reset(seed=1)
        vec.step(np.array([[2, 99]], dtype))
        assert vec.core.slots["side"][0] * vec.core.slots["quantity"][0] == -100, dtype


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bar": 3.7}, "whole number"), ({"bar": True}, "whole number"), ({"bar": "x"}, "whole number"),
        ({"bars": -5}, "bars"), ({"bars": 10**6}, "bars"), ({"bars": 0}, "bars"),
        ({"bar": 30, "bars": -1}, "bars"), ({"start": None}, "no date"), ({"start": 5}, "no date"),
    ],
)  # fmt: skip
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], said: str) -> None:
    made = env()
    with pytest.raises(StreambotError, match=said):
        made.reset(seed=1, options=options)


def test_an_episode_does_not_begin_outside_its_span() -> None:
    """Training and test must not mix, whoever asks."""
    made = env(start="1970-01-01T01:00")
    made.reset(seed=1, options={"bar": 60})
    for options in ({"bar": 10}, {"start": "1970-01-01T00:10"}):
        with pytest.raises(DataError, match="has bars 59 to"):
            made.reset(options=options)


def test_no_episode_that_is_drawn_steps_over_a_gap() -> None:
    """Wherever it begins: up to the gap, or behind it."""
    made = env(bars(80, gap_behind=40), episode_bars=10)
    before = 0
    for seed in range(200):
        made.reset(seed=seed)
        over = False
        while not over:
            close = int(made.core.slots["close_ts"][0])
            *_, over, info = made.step(0)
            assert int(made.core.slots["close_ts"][0]) - close == MINUTE
        before += info["end_reason"] == "gap"
    assert before > 5


def test_seeds_that_are_none_are_random() -> None:
    def firsts(seed: Any) -> list[int]:
        vec = VectorTradingEnv(ArraySource(stock(), bars()), 3, episode_bars=20)
        vec.reset(seed=seed)
        return [int(bar) for bar in vec.core.envs["first_bar"]]

    drawn = [tuple(firsts([None, 1, None])) for _ in range(4)]
    assert len({(a, c) for a, _, c in drawn}) > 1
    assert len({b for _, b, _ in drawn}) == 1
    for wrong in (-1, 1.5, "a", [-1, 1, 2], [1.5, 1, 2], True):
        with pytest.raises(UsageError, match="seed"):
            firsts(wrong)


@pytest.mark.parametrize("actor", [-1, 2**32, "a", 1.5])
def test_an_actor_has_a_number_of_its_own(actor: Any) -> None:
    with pytest.raises(ConfigError, match="actor"):
        env(actor=actor)


class Bar:
    def __init__(self, barrier: int) -> None:
        self.barrier = barrier


class Eyes:
    """A follower that only counts."""

    def __init__(self) -> None:
        made = env()
        made.reset(seed=1)
        self.core: Core = made.core
        self.seen: list[int] = []
        self.bars = 0

    def note(self, events: Any) -> None:
        self.seen.append(-1)

    def forget(self) -> None: ...

    def see(self, view: Any, slot: Any) -> None:
        self.bars += 1
        self.seen.append(view)

    def begin(self, bars: int | None) -> None:
        self.core.envs["ended"] = 0


class Account:
    def __init__(self, barrier: int) -> None:
        self.view, self.slot = barrier, None


def ask(life: AtTheSlot, barrier: int, into: list[Any]) -> threading.Thread:
    def work() -> None:
        try:
            into.append(life.on_bar(Bar(barrier), Account(barrier)))
        except LeftError:
            into.append(LeftError)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_mirror_made_anew_waits_for_the_answer_that_is_still_thought_about() -> None:
    """The old one leaves, no close is skipped, and the answer goes to the close that it is for."""
    eyes = Eyes()

    class Session:
        def end(self) -> None: ...

    venue = StreamVenue(eyes, EnvConfig(lookback=0), lambda _: Session())  # type: ignore[arg-type]
    first = venue.strategy()
    old: list[Action | type[LeftError]] = []
    new: list[Action | type[LeftError]] = []
    waiting = ask(first, 0, old)
    venue.begin(None)
    second = venue.strategy()
    waiting.join(5)
    assert old == [LeftError]
    first.on_records(None)  # type: ignore[arg-type]  # too late: nobody listens
    again = ask(second, 0, new)
    again.join(0.2)
    assert again.is_alive(), "it must wait for the answer"
    venue.core.actions[0] = 2
    step = threading.Thread(target=venue.step)
    step.start()
    again.join(5)
    assert new == [buy(1)]
    following = ask(second, 1, new)
    step.join(5)
    assert eyes.seen == [0, 1]
    venue.close()
    following.join(5)
    assert new == [buy(1), LeftError]
    assert second.on_bar(Bar(0), Account(0)) == buy(1)  # type: ignore[arg-type]
