"""A policy over observations as the agent of a slot, wherever an engine task or a mirror asks one.

    close -> `Follower` (observation and mask, as the environment gives them) -> policy -> answer

The first `lookback` closes are answered with HOLD. At the next one at which the slot is flat an
episode begins that lasts as long as the run. What ends an episode in training does not end a run:
a halted slot, or cash that buys nothing, leaves HOLD as the only legal answer; under
`on_breach: alert` the engine goes on taking orders, and so the policy goes on giving them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from streambot.data.segment_build import check_timeframes
from streambot.domain.durations import format_duration
from streambot.domain.errors import ConfigError
from streambot.domain.events import HOLD, Action
from streambot.domain.units import exact_decimal
from streambot.env.fields import action_of, joint_size, layout_digest
from streambot.env.follower import Follower
from streambot.streams.orders import said_key

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from streambot.engine.slot_agents import SlotBrief
    from streambot.engine.strategy import Account, Bar, Records
    from streambot.env.config import EnvConfig

_SAID_DIGITS = 4


class Decided(NamedTuple):
    """What a policy answers to one close.

    Attributes:
        action: joint index.
        gate: weights of its experts, in their order; empty: it has none.
    """

    action: int
    gate: Sequence[float] = ()


class Policy(Protocol):
    """A policy over observations; asked by several threads at once.

    Attributes:
        experts: their names, as many as there are weights in `Decided.gate`.
        version: number of its weights in the training; None: it does not know.
    """

    experts: tuple[str, ...]
    version: int | None

    def decide(self, observation: npt.NDArray[np.float32], mask: npt.NDArray[np.uint8]) -> Decided:
        """The answer to a close.

        Args:
            observation: [1, fields].
            mask: [1, actions], 1 where an action is legal.

        Raises:
            StrategyError: it has no answer.
        """
        ...


class Recalled(NamedTuple):
    """What was answered before, and is answered again as it was, whatever the policy would say now.

    Attributes:
        through: last barrier answered; -1: none.
        answers: by symbol and barrier; none: HOLD.
    """

    through: int = -1
    answers: Mapping[tuple[str, int], Action] = MappingProxyType({})


class SlotTrader:
    """The agent of one slot, see the module; one `engine.strategy.Strategy`.

    Args:
        policy: what decides.
        follower: of the slot.
        config: of the environment that the policy knows.
        symbol: what the slot trades.
        only_alerts: a breach is told, and the slot goes on.
        recalled: what was answered before.
    """

    def __init__(
        self,
        policy: Policy,
        follower: Follower,
        config: EnvConfig,
        symbol: str,
        *,
        only_alerts: bool,
        recalled: Recalled,
    ) -> None:
        self._policy = policy
        self._recalled = recalled
        self._follower = follower
        self._lookback = config.lookback
        self._answers = [
            action_of(k, config.max_quantity) for k in range(joint_size(config.max_quantity))
        ]
        self._symbol = symbol
        self._only_alerts = only_alerts
        self._ordered: list[tuple[int, Sequence[float]]] = []
        self._last: tuple[int, Sequence[float]] | None = None

    def on_records(self, events: Records) -> None:
        """Events of the slot, before the close behind them is shown."""
        self._follower.note(events)

    def on_bar(self, bar: Bar, account: Account) -> Action:
        """See `engine.strategy.Strategy`."""
        decides = self._observe(account)
        if bar.barrier <= self._recalled.through:
            return self._recalled.answers.get((self._symbol, bar.barrier), HOLD)
        if not decides:
            return HOLD
        core = self._follower.core
        if not core.masks[0, 1:].any():
            return HOLD
        decided = self._policy.decide(core.observations, core.masks)
        answer = self._answers[decided.action]
        self._last = bar.barrier, decided.gate
        if answer is not HOLD:
            self._ordered.append(self._last)
        return answer

    def _observe(self, account: Account) -> bool:
        """See a close, whoever answers it; False: there the policy has nothing to decide."""
        follower, slot = self._follower, account.slot
        if self._only_alerts:
            # For the environment a breach that was told is the end; here it is not.
            slot = slot.copy()
            slot["alerted"] = 0
        follower.see(account.view, slot)
        return follower.bars > self._lookback and follower.go_on()

    def policy_said(self) -> dict[str, float]:
        """Weights of the experts where it gave an order, and at its last decision, since the last call."""
        if self._last is None:
            return {}
        said = {
            said_key(self._symbol, barrier, name): round(weight, _SAID_DIGITS)
            for barrier, gate in (*self._ordered, self._last)
            for name, weight in zip(self._policy.experts, gate, strict=True)
        }
        if self._policy.version is not None:
            said["weights"] = float(self._policy.version)
        self._ordered, self._last = [], None
        return said

    def state(self) -> bytes:
        """All that later answers depend on."""
        return self._follower.snapshot()

    def restore(self, state: bytes) -> None:
        """Go on from what `state` gave.

        Raises:
            DecodeError: it is of another slot or policy, or damaged.
        """
        self._follower.restore(state)


class SlotTraders:
    """A `SlotTrader` for every slot of a run; `engine.slot_agents.SlotAgents`.

    Args:
        policy: what decides in all of them.
        config: of the environment that the policy knows. Capital, drawdown limit, longest gap and
            decision timeframe are those of the run.
        weights: digest of the policy's weights.
        recalled: what was answered before.

    Attributes:
        sees: digest of what the policy observes, and how far it looks back.
    """

    def __init__(
        self,
        policy: Policy,
        config: EnvConfig,
        *,
        weights: str,
        recalled: Recalled = Recalled(),  # noqa: B008  # a value
    ) -> None:
        self._policy, self._config = policy, config
        self._recalled = recalled
        self.weights = weights
        text = msgspec.json.encode([layout_digest(config), config.lookback])
        self.sees = hashlib.blake2b(text, digest_size=12).hexdigest()

    def check(self, decision_ns: int) -> None:
        """Raise `ConfigError` where a run that decides on bars of `decision_ns` is none for the policy."""
        try:
            check_timeframes(self._config.features, decision_ns)
        except ConfigError as error:
            seen = ", ".join(map(format_duration, self._config.features.timeframes))
            raise ConfigError(
                f"the policy was trained to observe bars of {seen} besides those it decides on: "
                f"{error.message}",
                where="--timeframe",
                hint="a timeframe that all of them are multiples of",
            ) from error

    def strategy_for(self, slot: SlotBrief) -> SlotTrader:
        """See `SlotAgents.strategy_for`.

        Raises:
            ConfigError: see `check`.
        """
        self.check(slot.decision_ns)
        instrument, limits = slot.instrument, slot.limits
        config = msgspec.structs.replace(
            self._config,
            capital=Decimal(exact_decimal(slot.capital, instrument.money_decimals)),
            drawdown_limit_bp=limits.drawdown_limit_bp,
            max_gap_ns=limits.max_gap_ns,
            start=None,
            end=None,
            episode_bars=None,
        )
        # What the run takes no orders for is illegal, as it is for an instrument of fewer lots.
        most = min(instrument.max_lots, limits.max_quantity)
        follower = Follower(
            msgspec.structs.replace(instrument, max_lots=most),
            slot.context,
            config,
            decision_ns=slot.decision_ns,
        )
        return SlotTrader(
            self._policy, follower, config, instrument.symbol,
            only_alerts=not limits.halt_on_breach, recalled=self._recalled,
        )  # fmt: skip
