"""N environments over one segment store, stepped in one compiled call.

No Gymnasium, broker or clock in here: `TradingEnv` and `VectorTradingEnv` are shells around it.
"""

from __future__ import annotations

import ctypes
import hashlib
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from streambot.domain.errors import ConfigError, DecodeError
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
from streambot.env.observe import affordable
from streambot.env.reward import KINDS, TERMS
from streambot.env.starts import Starts, whole
from streambot.env.world import ACCOUNT_N, CAUSES, ENV, RESET_BY_CALL, WORLD
from streambot.market.packed import pack_arrays, unpack_arrays

if TYPE_CHECKING:
    from collections.abc import Callable

    from streambot.data.segments import Segments
    from streambot.domain.instruments import Instrument
    from streambot.env.config import EnvConfig

_MOST_ACTORS = 1 << 32
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
        self.autoreset = autoreset
        if not 0 <= whole("actor", actor) < _MOST_ACTORS:
            raise ConfigError(f"an actor of number {actor}", where="actor", hint="0, 1, 2, …")
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
        self.starts = Starts(segments, config, nowhere=outside)
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

    def reset(
        self, slots: npt.NDArray[np.bool_] | None = None, *, may_be_poor: bool = False
    ) -> None:
        """Begin new episodes in all environments, or in those where `slots` is true.

        Args:
            may_be_poor: where the capital buys nothing, nothing but HOLD is legal, and that is all.

        Raises:
            ConfigError: the capital does not buy a single lot there.
        """
        self.envs["to_reset"] = 1 if slots is None else slots
        self._reset(self._address)
        if may_be_poor:
            return
        # The last field is what could be entered; 0 also where no premium is known yet.
        poor = (self.observations[:, -1] == 0) & (self.slots["side"] == 0)
        for i in np.flatnonzero(poor if slots is None else poor & slots).tolist():
            p = self.params[int(self.envs[i]["instrument"])]
            if max(affordable(p, self.slots[i], self.quotes[i], 1)) == 0:
                instrument = self.instrument_of(i)
                price = int(self.slots[i]["last_price"]) * instrument.tick_size
                raise ConfigError(
                    f"a capital of {self.config.capital:f} does not buy one lot of "
                    f"{instrument.symbol} at {price:f}",
                    where="capital",
                    hint="more capital, or smaller lots",
                )

    def seed(self, i: int, seed: int) -> None:
        """Begin the draws of environment `i` anew."""
        self.envs[i]["key"] = seed_key(seed)
        self.envs[i]["episode"] = 0

    def instrument_of(self, i: int) -> Instrument:
        """What environment `i` trades."""
        return self.segments.head.instruments[int(self.envs[i]["instrument"])]

    def ask(self, i: int, *, instrument: str | None, bar: int | None, bars: int | None) -> None:
        """Name the episode that the next reset of environment `i` begins, see `Starts.find`."""
        asked = self.starts.find(instrument, bar, bars)
        e = self.envs[i]
        e["asked_instrument"], e["asked_bar"], e["asked_bars"] = asked

    def snapshot(self) -> bytes:
        """The state of all environments, as bytes; the data are not part of it."""
        return pack_arrays([self._identity(), *self._state()])

    def restore(self, snapshot: bytes) -> None:
        """Go on from a `snapshot` of a core over the same data with the same settings.

        Raises:
            DecodeError: of other ones, or damaged.
        """
        kept = [self._identity(), *(np.empty_like(array) for array in self._state())]
        unpack_arrays(snapshot, kept)
        # What is taken over here, compiled code believes: rows, instruments, limits.
        if kept[0].tobytes() != self._identity().tobytes():
            raise DecodeError("a state of other data or settings", reason="foreign")
        if not self._world[0]["outside"] and not self._inside(kept[1 + _STATE.index("envs")]):
            raise DecodeError("a state that points behind the data", reason="domain")
        for array, value in zip(self._state(), kept[1:], strict=True):
            array[...] = value

    def _inside(self, envs: Records) -> bool:
        """Whether environments stand on bars that there are: compiled code asks nobody."""
        count, starts = len(self.params), self.starts
        instrument, bar = envs["instrument"], envs["bar"]
        if not ((instrument >= 0) & (instrument < count)).all():
            return False
        last = starts.last_bar[instrument]
        going = envs["ended"] == 0
        asked, asked_bar = envs["asked_instrument"], envs["asked_bar"]
        named = (asked >= 0) & (asked < count)
        bounds = [
            (bar >= 0) & (bar <= last),
            ~going | ((bar < envs["last_bar"]) & (envs["last_bar"] <= last)),
            (envs["events_n"] >= 0) & (envs["events_n"] <= ROOM),
            (envs["cause"] >= 0) & (envs["cause"] < len(CAUSES)),
            asked < count,
            ~named | ((asked_bar >= 0) & (asked_bar < starts.last_bar[np.where(named, asked, 0)])),
        ]
        return all(bool(bound.all()) for bound in bounds)

    def _identity(self) -> npt.NDArray[np.uint8]:
        """Digest of the data and the settings."""
        text = msgspec.json.encode([self.segments.head, self.config])
        return np.frombuffer(hashlib.blake2b(text, digest_size=16).digest(), np.uint8).copy()

    def _state(self) -> list[npt.NDArray[Any]]:
        return [self._arrays[name] for name in _STATE]

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

    def _fill_world(self, autoreset: int) -> None:
        config, segments = self.config, self.segments
        w = self._world[0]
        w["slots_n"], w["instruments_n"] = self.n, len(segments.head.instruments)
        w["ticks_n"], w["bars_n"] = len(segments.ticks), len(segments.bars)
        w["closes_n"], w["sessions_n"] = len(segments.closes), len(segments.session_opens)
        w["contracts_n"], w["quantity"] = len(segments.expiries), config.max_quantity
        w["look"] = config.window
        w["window_n"] = len(config.features.window_fields)
        w["slow_n"] = len(config.features.slow_fields)
        w["observation_n"] = self.observations.shape[1]
        w["warmup"], w["episode_bars"] = config.features.warmup, config.episode_bars or 0
        w["max_gap"], w["drawdown_bp"] = config.max_gap_ns, config.drawdown_limit_bp
        w["autoreset"], w["starts_n"] = autoreset, self.starts.total
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
            "first_start": self.starts.first,
            "last_bar": self.starts.last_bar,
            "starts_before": self.starts.before,
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
