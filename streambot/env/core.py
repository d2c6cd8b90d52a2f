"""N environments over one segment store, stepped in one compiled call.

No Gymnasium, broker or clock in here: `TradingEnv` and `VectorTradingEnv` are shells around it.
"""

from __future__ import annotations

import ctypes
import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from streambot.domain.errors import ConfigError, DataError
from streambot.domain.replay_settings import parse_moment
from streambot.engine.drive import make_log
from streambot.engine.slots import (
    CAPACITY,
    EVENT,
    NO_MARKS,
    ORDER,
    RING,
    ROOM,
    SLOT,
    SlotLimits,
    make_params,
    new_slot,
)
from streambot.env.fields import joint_size
from streambot.env.kernel import reset_world, step_world
from streambot.env.reward import KINDS, TERMS
from streambot.env.world import ACCOUNT_N, ENV, RESET_BY_CALL, WORLD
from streambot.market.packed import pack_arrays, unpack_arrays

if TYPE_CHECKING:
    from collections.abc import Callable

    from streambot.data.segments import Segments
    from streambot.domain.instruments import Instrument
    from streambot.env.config import EnvConfig

_NEVER = 1 << 62
Records = npt.NDArray[np.void]


def seed_key(seed: int) -> int:
    """Key of 62 bits for the episodes of a seed."""
    digest = hashlib.blake2b(str(seed).encode(), digest_size=8, person=b"episodes").digest()
    return int.from_bytes(digest, "little") >> 2


class Core:
    """State of n environments, and the compiled step.

    Args:
        segments: the data.
        config: settings.
        n: how many environments.
        actor: number of the process among those that collect with one seed.
        first_slot: number of the first environment among those of the actor.
        autoreset: `RESET_…` of `env.world`.
        outside: the engine runs elsewhere; before a step, `load` what it says.

    Raises:
        ConfigError: capital that buys not one lot of an instrument, or that the engine cannot count.
        DataError: an instrument has too few bars for one episode.

    Attributes:
        actions: int64 [n], joint indices; written by the caller before `step`.
        observations: float32 [n, fields]; as the rest below, of the last step or reset.
        rewards: float64 [n].
        terms: float64 [n, TERMS].
        masks: uint8 [n, actions], 1 where an action is legal.
        terminated, truncated: uint8 [n].
        equity: float64 [n], in the instrument's currency.
        rejections: uint8 [n], 1 where there is one.
        step: one step of all environments with `actions`; bits of `FOUND_…` of `env.world`, or
            `FOUND_NO_ACTION`, and nothing was done.
        reasons: uint8 [n], 1 + the code of the step's last rejection; 0: none.
        envs: `ENV` [n]. slots: `SLOT` [n]. quotes: `ORDER` [n]. events: `EVENT` [n, ROOM].
    """

    def __init__(
        self,
        segments: Segments,
        config: EnvConfig,
        n: int = 1,
        *,
        actor: int = 0,
        first_slot: int = 0,
        autoreset: int = RESET_BY_CALL,
        outside: bool = False,
    ) -> None:
        self.segments, self.config, self.n = segments, config, n
        head = segments.head
        if config.features != head.features:
            raise ConfigError(
                "the segment store has other features than the environment asks for",
                hint="make the environment from its data again",
            )
        limits = SlotLimits(
            max_quantity=config.max_quantity,
            max_gap_ns=config.max_gap_ns,
            drawdown_limit_bp=config.drawdown_limit_bp,
            stop_at_tick=head.stop_at_tick,
            mark_every_ns=NO_MARKS,
        )
        self.params = np.concatenate([
            make_params(i, _money(i, config), limits) for i in head.instruments
        ])  # fmt: skip
        self._blank = np.concatenate([
            new_slot(self.params[k : k + 1]) for k in range(len(self.params))
        ])  # fmt: skip
        self._starts(nowhere=outside)
        size = len(config.features.window_fields) * config.window
        size += len(config.features.slow_fields) + ACCOUNT_N
        self.slots, self.envs = np.zeros(n, SLOT), np.zeros(n, ENV)
        self.quotes, self.events = np.zeros(n, ORDER), np.zeros((n, ROOM), EVENT)
        self.actions = np.zeros(n, np.int64)
        self.observations = np.zeros((n, size), np.float32)
        self.rewards, self.terms = np.zeros(n), np.zeros((n, len(TERMS)))
        self.masks = np.zeros((n, joint_size(config.max_quantity)), np.uint8)
        self.terminated, self.truncated = np.zeros(n, np.uint8), np.zeros(n, np.uint8)
        self.equity, self.reasons = np.zeros(n), np.zeros(n, np.uint8)
        self.rejections = np.zeros(n, np.uint8)
        self._money = np.array([10.0**-i.money_decimals for i in head.instruments])
        self._rings, self._log = np.zeros(n, RING), make_log()
        self._changes = np.zeros((n, config.reward.profit_window))
        for name in ("asked_instrument", "asked_bar", "asked_bars"):
            self.envs[name] = -1
        self.envs["ended"] = 1
        self.envs["actor"] = actor
        self.envs["slot"] = np.arange(first_slot, first_slot + n)
        self._world = np.zeros(1, WORLD)
        self._fill_world(autoreset)
        self._world["outside"] = outside
        self._address = ctypes.c_void_p(self._world.ctypes.data)
        # One environment's step is over before the interpreter's lock could be handed on.
        call = ctypes.PYFUNCTYPE if n < _RELEASE_FROM else ctypes.CFUNCTYPE
        self.step: Callable[[], int] = partial(
            call(ctypes.c_int64, ctypes.c_void_p)(step_world.address), self._address
        )
        self._reset = call(None, ctypes.c_void_p)(reset_world.address)

    def reset(self, slots: npt.NDArray[np.bool_] | None = None) -> None:
        """Begin new episodes in all environments, or in those where `slots` is true."""
        self.envs["to_reset"] = 1 if slots is None else slots
        self._reset(self._address)

    def seed(self, i: int, seed: int) -> None:
        """Begin the draws of environment `i` anew."""
        self.envs[i]["key"] = seed_key(seed)
        self.envs[i]["episode"] = 0

    def instrument_of(self, i: int) -> Instrument:
        """What environment `i` trades."""
        return self.segments.head.instruments[int(self.envs[i]["instrument"])]

    def ask(self, i: int, *, instrument: str | None, bar: int | None, bars: int | None) -> None:
        """Name the episode that the next reset of environment `i` begins.

        Args:
            instrument: its symbol; None: the only one.
            bar: number of the bar at whose close it begins; None: the first with `lookback`.
            bars: its length; None: the setting's; 0: to the end of the data.

        Raises:
            ConfigError: no such instrument, or more than one and none named.
            DataError: the instrument has no such bars.
        """
        e = self.envs[i]
        if instrument is None and bar is None:
            e["asked_bars"] = -1 if bars is None else bars
            return
        n = self._number(instrument)
        first, last = int(self._first[n]), int(self._last_bar[n])
        at = max(first, 0) if bar is None else bar
        length = self.config.episode_bars or 0 if bars is None else bars
        if not 0 <= at < last or at + length > last or length < 0:
            raise DataError(
                f"no episode of {length or 'any'} bars begins at bar {at} of "
                f"{self.segments.head.instruments[n].symbol}: it has bars 0 to {last}",
                hint="`bars` is the episode's length, 0 to the end of the data; or begin sooner",
            )
        e["asked_instrument"], e["asked_bar"] = n, at
        e["asked_bars"] = -1 if bars is None else bars

    def bar_at(self, instrument: str | None, moment: str) -> int:
        """Number of the first bar of an instrument that closes at or after a time.

        Args:
            moment: `2020-12-15T10:30`, in the instrument's zone.

        Raises:
            UsageError: it is no time.
            ConfigError: no such instrument.
        """
        n = self._number(instrument)
        ts = parse_moment(moment).start_ns(self.segments.head.instruments[n].timezone)
        return int(np.searchsorted(self.segments.bars_of(n)["close_ts"], ts))

    def snapshot(self) -> bytes:
        """The state of all environments, as bytes; the data are not part of it."""
        return pack_arrays(self._state())

    def restore(self, snapshot: bytes) -> None:
        """Go on from a `snapshot` of a core over the same data with the same settings.

        Raises:
            DecodeError: of other ones, or damaged.
        """
        unpack_arrays(snapshot, self._state())

    def _state(self) -> list[npt.NDArray[Any]]:
        return [self._arrays[name] for name in _STATE]

    def _number(self, instrument: str | None) -> int:
        instruments = self.segments.head.instruments
        if instrument is None:
            if len(instruments) > 1:
                raise ConfigError(
                    "an episode that is named needs its instrument",
                    hint=f"one of {', '.join(i.symbol for i in instruments[:8])}",
                )
            return 0
        n = self.segments.number(instrument)
        if n is None:
            raise ConfigError(
                f"no instrument `{instrument}` in the data",
                hint=f"there are {', '.join(i.symbol for i in instruments[:8])}",
            )
        return n

    def load(self, slot: Records, events: Records) -> None:
        """What an engine elsewhere says of the step to come: its slot at the close, its events.

        Args:
            slot: `SLOT` [1].
            events: `EVENT` [n], of the bar.
        """
        self.slots[:] = slot
        count = min(len(events), CAPACITY)
        self._log["events"][0, :count] = events[:count]
        self._log["n_events"] = count

    def _starts(self, *, nowhere: bool) -> None:
        """Where episodes may begin: bars with `lookback` before and an episode behind them."""
        config, segments = self.config, self.segments
        if nowhere:
            none = np.zeros(len(segments.head.instruments), np.int64)
            self._first, self._last_bar, self._starts_before = none, none + _NEVER, none
            return
        first, last_bar, counts, short = [], [], [], []
        need = config.episode_bars or 1
        for n, instrument in enumerate(segments.head.instruments):
            closes = segments.bars_of(n)["close_ts"]
            low, high = 0, len(closes)
            if config.start is not None:
                low = int(np.searchsorted(closes, config.start.start_ns(instrument.timezone)))
            if config.end is not None:
                high = int(np.searchsorted(closes, config.end.end_ns(instrument.timezone), "right"))
            begin = max(low, config.lookback)
            starts = high - need - begin  # the first step ends at the bar behind the first
            if starts < 1:
                short.append(
                    f"{instrument.symbol} has {max(0, high - low):,} bars for episodes, with "
                    f"{low:,} before them"
                )
            first.append(begin)
            last_bar.append(high - 1)
            counts.append(starts if config.episode_bars else 1)
        if short:
            more = f" (and {len(short) - 3:,} more instruments)" if len(short) > 3 else ""
            raise DataError(
                f"{'; '.join(short[:3])}{more}: an episode needs {config.lookback:,} to look back on "
                f"and {need + 1:,} of its own",
                hint="shorten `episode_bars` or `lookback`, or leave out what is too short",
            )
        self._first = np.array(first, np.int64)
        self._last_bar = np.array(last_bar, np.int64)
        self._starts_before = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def _fill_world(self, autoreset: int) -> None:
        config, segments = self.config, self.segments
        w = self._world[0]
        w["slots_n"], w["instruments_n"] = self.n, len(segments.head.instruments)
        w["ticks_n"], w["bars_n"] = len(segments.ticks), len(segments.bars)
        w["closes_n"], w["sessions_n"] = len(segments.closes), len(segments.session_opens)
        w["contracts_n"], w["quantity"] = len(segments.expiries), config.max_quantity
        w["lookback"], w["look"] = config.lookback, config.window
        w["window_n"] = len(config.features.window_fields)
        w["slow_n"] = len(config.features.slow_fields)
        w["observation_n"] = self.observations.shape[1]
        w["warmup"], w["episode_bars"] = config.features.warmup, config.episode_bars or 0
        w["max_gap"], w["drawdown_bp"] = config.max_gap_ns, config.drawdown_limit_bp
        w["autoreset"], w["starts_n"] = autoreset, int(self._starts_before[-1])
        for name in w["reward"].dtype.names:
            if name != "kind":
                w["reward"][name] = getattr(config.reward, name)
        w["reward"]["kind"] = KINDS[config.reward.core]
        starts = self.row_starts = {
            f"{name}_starts": np.array(segments.head.starts[column], np.int64)
            for name, column in (
                ("tick", "ticks"),
                ("bar", "bars"),
                ("session", "session_opens"),
                ("contract", "expiries"),
            )
        }
        self._arrays: dict[str, npt.NDArray[Any]] = {
            **{name: getattr(segments, name) for name in _OF_SEGMENTS},
            **starts,
            "first_start": self._first,
            "last_bar": self._last_bar,
            "starts_before": self._starts_before,
            "params": self.params,
            "blank": self._blank,
            "slots": self.slots,
            "envs": self.envs,
            "quotes": self.quotes,
            "rings": self._rings,
            "log": self._log,
            "events": self.events,
            "changes": self._changes,
            "actions": self.actions,
            "observations": self.observations,
            "rewards": self.rewards,
            "terms": self.terms,
            "masks": self.masks,
            "terminated": self.terminated,
            "truncated": self.truncated,
            "equity": self.equity,
            "reasons": self.reasons,
            "rejections": self.rejections,
            "money": self._money,
        }
        for name, array in self._arrays.items():
            w[name] = array.ctypes.data


_RELEASE_FROM = 16
_STATE = (
    "slots", "envs", "quotes", "events", "changes", "observations", "rewards", "terms",
    "masks", "terminated", "truncated", "equity", "reasons", "rejections",
)  # fmt: skip
_OF_SEGMENTS = (
    "ticks",
    "bars",
    "window",
    "slow",
    "closes",
    "session_opens",
    "session_closes",
    "expiries",
    "lots",
)


def _money(instrument: Instrument, config: EnvConfig) -> int:
    try:
        amount = instrument.money(config.capital)
    except ValueError as cause:
        raise ConfigError(str(cause), where="capital") from cause
    if not 0 < amount < 2**53:
        raise ConfigError(
            f"capital {config.capital} of {instrument.symbol} is out of range", where="capital"
        )
    return amount
