"""`streambot env play`: an episode on the terminal, bar by bar, and its words."""

from __future__ import annotations

import re
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streambot.cli.console import emit, flush, say, show
from streambot.cli.human import amount, moment, money, span, utc_text
from streambot.domain.errors import UsageError
from streambot.domain.events import OrderFilled, OrderRejected, PositionSettled
from streambot.engine.slots import NONE
from streambot.env.config import ActionLayout
from streambot.env.history import History
from streambot.env.trading_env import TradingEnv

if TYPE_CHECKING:
    from collections.abc import Callable

    from streambot.domain.events import EngineEvent

HELP = "h hold (or Enter)   n 10 hold 10 bars   c close   b1 b2 … buy   s1 s2 … sell   q quit"
_WORD = re.compile(r"(?:(h|c|q)|([bs])\s*([0-9]{1,4})|n\s*([0-9]{1,6}))\Z")
POLICIES = ("random", "hold")


class Told(NamedTuple):
    """An answer: a joint action so many times; None: stop."""

    action: int
    times: int = 1


def parse_answer(text: str, quantity: int) -> Told | None:
    """What a person typed: an action, or None to stop.

    Args:
        quantity: Q, most lots of an order.

    Raises:
        UsageError: it means nothing.
    """
    word = text.strip().lower()
    found = _WORD.match(word or "h")
    if found is None:
        message = "the answers are" if word == "?" else f"`{word[:20]}` is no action"
        raise UsageError(message, hint=HELP)
    if found[1]:
        return {"h": Told(0), "c": Told(1)}.get(found[1])
    if found[4]:
        return Told(0, max(1, int(found[4])))
    lots = int(found[3])
    if not 1 <= lots <= quantity:
        raise UsageError(f"`{word}`: 1 to {quantity} lots", hint=HELP)
    return Told(1 + lots if found[2] == "b" else 1 + quantity + lots)


def action_word(action: int, quantity: int) -> str:
    """`h`, `c`, `b1`, `s1` of a joint index."""
    if action < 2:
        return "hc"[action]
    return f"b{action - 1}" if action < 2 + quantity else f"s{action - 1 - quantity}"


def legal_words(mask: np.ndarray[Any, Any]) -> str:
    """Legal actions, ranges together: `h b1-b5 s1-s5`."""
    quantity = (len(mask) - 2) // 2
    words = [name for name, legal in zip("hc", mask, strict=False) if legal]
    for letter, part in (("b", mask[2 : 2 + quantity]), ("s", mask[2 + quantity :])):
        most = int(np.count_nonzero(part))
        if most:
            words.append(f"{letter}1" if most == 1 else f"{letter}1-{letter}{most}")
    return " ".join(words)


class Play:
    """One episode, told bar by bar.

    Args:
        env: has been reset.
        as_json: an object a bar instead of a line.
    """

    def __init__(self, env: TradingEnv, *, as_json: bool) -> None:
        self._env, self._json = env, as_json
        self.history = History(env.core)
        self.history.begin()
        self.instrument = env.instrument
        self._money = -self.instrument.money_decimals
        self._quantity = env.config.max_quantity
        self._begun = self._equity()
        self._reward, self._fees = 0.0, 0
        self._entries = self._exits = self._rejected = 0
        self.end_reason = ""
        if not as_json:
            show(
                _LINE.format("time", "close", "position", "equity", "to trail", "legal")
                + "  what happened"
            )
        self._tell(None, 0.0, {"rejected": None})

    def go(self, answer: Callable[[np.ndarray[Any, Any]], Told | None], most: int | None) -> None:
        """Step until the episode ends, `most` bars are over, or the answer is None."""
        left = most
        while not self.end_reason and left != 0:
            told = answer(self._env.core.masks[0])
            if told is None:
                return
            for _ in range(told.times if left is None else min(told.times, left)):
                self._step(told.action)
                left = None if left is None else left - 1
                if self.end_reason:
                    break

    def _step(self, action: int) -> None:
        _, reward, _, _, info = self._env.step(self._given(action))
        self.history.note()
        self._reward += reward
        self.end_reason = info.get("end_reason", "")
        for event in self._env.events:
            self._count(event)
        self._tell(action, reward, info)

    def _given(self, action: int) -> Any:
        if self._env.config.actions is ActionLayout.JOINT:
            return action
        if action < 2:
            return (3 * action, 0)
        buying = action < 2 + self._quantity
        return (1, action - 2) if buying else (2, action - 2 - self._quantity)

    def _count(self, event: EngineEvent) -> None:
        if isinstance(event, OrderFilled):
            self._fees += event.brokerage
            self._entries += event.effect == "entry"
            self._exits += event.effect != "entry"
        elif isinstance(event, PositionSettled):
            self._fees += event.brokerage
            self._exits += 1
        elif isinstance(event, OrderRejected):
            self._rejected += 1

    def _equity(self) -> Decimal:
        return Decimal(int(self._env.core.envs[0]["equity"])).scaleb(self._money)

    def _tell(self, action: int | None, reward: float, info: dict[str, Any]) -> None:
        core = self._env.core
        s, e, tick = core.slots[0], core.envs[0], self.instrument.tick_size
        held, mask = int(s["side"]) != 0, core.masks[0]
        position = int(s["side"]) * int(s["quantity"])
        ts, close = int(s["close_ts"]), int(s["last_price"]) * tick
        events = self._env.events if action is not None else []
        if self._json:
            stop = int(s["stop"])
            emit(
                "env-bar", instrument=self.instrument.symbol, ts=utc_text(ts), bar=int(e["bar"]),
                action=None if action is None else action_word(action, self._quantity),
                close=str(close), position=position, equity=str(self._equity()),
                distance_to_trail=float(e["distance"]) if held else None,
                stop=str(stop * tick) if held and stop != NONE else None,
                legal=[action_word(k, self._quantity) for k in np.flatnonzero(mask).tolist()],
                reward=reward, rejected=info["rejected"], events=events,
                end_reason=self.end_reason or None,
            )  # fmt: skip
        else:
            happened = "; ".join(filter(None, (self._said(event) for event in events)))
            row = _LINE.format(
                moment(ts, self.instrument.timezone), amount(close), f"{position:+d}" if held else "flat",
                amount(self._equity()), f"{e['distance']:.2f}" if held else "-", legal_words(mask),
            )  # fmt: skip
            show(f"{row}  {happened}".rstrip())
        flush()

    def _said(self, event: EngineEvent) -> str:
        tick = self.instrument.tick_size
        if isinstance(event, OrderFilled):
            verb = "bought" if (event.side > 0) == (event.effect == "entry") else "sold"
            if event.effect == "entry":
                return f"{verb} {event.quantity} at {amount(event.price * tick)}"
            profit = Decimal((event.realized_pnl or 0) - event.brokerage).scaleb(self._money)
            why = "" if event.reason == "order" else f" ({event.reason.replace('_', ' ')})"
            return (
                f"{verb} {event.quantity} at {amount(event.price * tick)}{why}: "
                f"{money(profit, self.instrument.currency, signed=True)}"
            )
        if isinstance(event, OrderRejected):
            return f"rejected: {event.reason.value.replace('_', ' ')}"
        return re.sub(r"(?<!^)(?=[A-Z])", " ", type(event).__name__).lower()

    def summary(self) -> None:
        """Say how it went."""
        moments, currency = self.history.moments, self.instrument.currency
        equity = self._equity()
        share = float(equity / self._begun - 1)
        fees = Decimal(self._fees).scaleb(self._money)
        if self._json:
            emit(
                "env-episode", instrument=self.instrument.symbol, bars=len(moments) - 1,
                first=utc_text(moments[0].ts), last=utc_text(moments[-1].ts), currency=currency,
                equity=str(equity), pnl_net=str(equity - self._begun), brokerage=str(fees),
                **{"return": share}, reward=self._reward, entries=self._entries, exits=self._exits,
                rejected=self._rejected, end_reason=self.end_reason or None,
            )  # fmt: skip
            return
        ended = (
            f"ended: {self.end_reason.replace('_', ' ')}"
            if self.end_reason
            else "left before its end"
        )
        show(
            f"{self.instrument.symbol}  {span(moments[0].ts, moments[-1].ts, self.instrument.timezone)}  "
            f"{len(moments) - 1:,} bars, {ended}"
        )
        show(
            f"  return {100 * share:+.4f} %   net P&L {money(equity - self._begun, currency, signed=True)} "
            f"after brokerage {money(fees, currency)}   reward {self._reward:+.6g}"
        )
        show(
            f"  entries {self._entries:,}   exits {self._exits:,}   rejected orders {self._rejected:,}"
        )


_LINE = "{:<23}  {:>12}  {:>8}  {:>16}  {:>8}  {:<16}"


def by_policy(policy: str, seed: int) -> Callable[[np.ndarray[Any, Any]], Told]:
    """Answers of a policy: `hold`, or `random`, which holds half of the time.

    Raises:
        UsageError: there is no such policy.
    """
    if policy not in POLICIES:
        from streambot.domain.suggest import did_you_mean

        raise UsageError(
            f"no policy `{policy}` here", where="--policy", hint=did_you_mean(policy, POLICIES)
        )
    rng = np.random.default_rng(seed)

    def answer(mask: np.ndarray[Any, Any]) -> Told:
        if policy == "hold" or rng.random() < 0.5:
            return Told(0)
        return Told(int(rng.choice(np.flatnonzero(mask))))

    return answer


def by_person(quantity: int) -> Callable[[np.ndarray[Any, Any]], Told | None]:
    """Answers from stdin, asked for on a terminal; its end is `q`."""
    asking = sys.stdin.isatty()

    def asked() -> str:
        if not asking:
            return sys.stdin.readline()
        sys.stderr.write("action> ")
        sys.stderr.flush()
        line = ""
        try:
            line = sys.stdin.readline()
        finally:
            if not line:  # nobody pressed Enter: what follows begins a line of its own
                sys.stderr.write("\n")
        return line

    def answer(_mask: np.ndarray[Any, Any]) -> Told | None:
        while True:
            line = asked()
            if not line:
                return None
            try:
                return parse_answer(line, quantity)
            except UsageError as error:
                if not asking:
                    raise
                say(f"{error.message}: {error.hint}", style="dim")

    return answer
