"""What `streambot evaluate` shows: what is judged on what, the table, and what it does not tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streambot.cli.console import emit, say, show, terminal_width, warn
from streambot.cli.human import amount, count, flow, percent, span, table, utc_text
from streambot.cli.work import Work
from streambot.domain.durations import format_duration
from streambot.domain.words import few

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from streambot.env.sources import Source
    from streambot.learning.evaluation import Asked, Evaluation, Plan
    from streambot.learning.measures import Interval
    from streambot.learning.policy import LoadedPolicy
    from streambot.learning.results import Result

_BASIS = 10_000
_SMALL = 0.05
"""Orders worth less than this share of the capital are told: returns are small against it."""
_TABLE = (
    "policy", "return", "Sharpe", "Sortino", "drawdown", "turnover", "trades", "brokerage",
    "in market", "rejected", "breached",
)  # fmt: skip
_LEAVES = "rejected|breached|Sortino|turnover|brokerage|in market"


class Shown:
    """An evaluation, told as it goes.

    Args:
        checkpoint: as it was named.
        policy: what it holds.
        asked: see `Asked`.
        as_json: objects on stdout instead of tables.
        by_instrument: every instrument by itself as well.
    """

    def __init__(
        self,
        checkpoint: str,
        policy: LoadedPolicy,
        asked: Asked,
        *,
        as_json: bool,
        by_instrument: bool,
    ) -> None:
        self._checkpoint, self._policy, self._asked = checkpoint, policy, asked
        self._as_json, self._by_instrument = as_json, by_instrument

    def go(self, source: Source, settings: Mapping[str, Any]) -> None:
        """Evaluate on a source, and show it.

        Raises:
            StreambotError: data, settings or checkpoint are wrong.
        """
        from streambot.learning.evaluation import evaluate, plan

        on = plan(self._policy, source, settings, self._asked)
        self._warn(on)
        if not self._as_json:
            for line in flow(what(on), terminal_width()):
                show(line)
        with Work("evaluating") as work:
            found = evaluate(self._policy, source, settings, on, self._asked, on_step=work.told)
        portfolio = found.results.portfolio()
        single = found.results.by_instrument() if self._by_instrument else []
        if self._as_json:
            self._emit(on, found, portfolio, single)
            return
        self._show(on, found, portfolio, single)

    def _warn(self, on: Plan) -> None:
        """What a table must not be read without."""
        if on.nothing_behind:
            warn(
                "no bars lie behind the training: all bars are judged, and those that were trained on "
                "say how well it remembers, not how well it trades"
            )
        elif on.seen.seen:
            warn(f"{percent(on.seen.seen / on.seen.bars, 1)} of the bars were trained on")
        if on.left_out:
            warn(f"too few bars in the range, left out: {few(on.left_out)}")
        bars, known = format_duration(on.segments.head.decision_ns), on.training.timeframes
        if known and bars not in known:
            warn(f"bars of {bars}: the policy was trained on {', '.join(known)}")
        free = [
            symbol
            for symbol, at in zip(on.symbols, on.spans, strict=True)
            if _is_free(on, at.instrument)
        ]
        if free:
            warn(f"no brokerage and no slippage are declared, trades cost nothing: {few(free)}")

    def _show(
        self, on: Plan, found: Evaluation, portfolio: Sequence[Result], single: Sequence[Result]
    ) -> None:
        width = terminal_width()
        show()
        _show_table(_TABLE, [_row(r) for r in portfolio], _LEAVES)
        show()
        for line in table(
            ("policy", "a day, bp", "95 %", "less buy-hold, bp", "95 % "),
            [_daily_row(r) for r in portfolio], width=width, right="a day, bp|95 %|less buy-hold, bp|95 % ",
        ):  # fmt: skip
            show(line)
        for symbol in dict.fromkeys(r.instrument for r in single):
            own = [r for r in single if r.instrument == symbol]
            show()
            show(f" {symbol}, {count(own[0].days, 'day')}, brokerage in {own[0].currency}")
            _show_table(_TABLE, [_row(r) for r in own], _LEAVES)
        show()
        for line in self._notes(on, found, portfolio):
            for part in flow([line], width, label=" "):
                show(part)
        for line in self._method(found, portfolio):
            say(line, style="dim")

    def _notes(self, on: Plan, found: Evaluation, portfolio: Sequence[Result]) -> Iterable[str]:
        """What happened that a column has no room for."""
        if found.deflated is not None:
            yield (
                f"deflated Sharpe ratio of `{found.judged}` after {self._asked.trials:,} trials: "
                f"{found.deflated:.3f}, the probability that it is more than the luck of the best"
            )
        elif self._asked.trials > 1:
            yield "no deflated Sharpe ratio: too few days, or no trades"
        for result in portfolio:
            if result.breached:
                yield f"{result.policy}: halted by its drawdown limit on {few(result.breached)}"
            if result.rejected:
                reasons = ", ".join(f"{k} {n:,}" for k, n in result.rejected.items())
                yield f"{result.policy}: {count(sum(result.rejected.values()), 'order')} rejected ({reasons})"
        held = next(r for r in portfolio if r.policy == "buy-hold")
        each = held.turnover * len(on.spans) / held.fills if held.fills else 0.0
        if 0 < each < _SMALL:
            yield (
                f"an order of buy-hold is worth {percent(each, 2)} of the capital: all returns are "
                f"small against it (--set capital=… changes it)"
            )

    def _method(self, found: Evaluation, portfolio: Sequence[Result]) -> Iterable[str]:
        days = portfolio[0].days
        boots = found.results.bootstrap(days)
        if portfolio[0].daily.low is None:
            yield f"no intervals: {count(days, 'day')} are too few"
        else:
            yield (
                f"a day: mean return in basis points; 95 %: stationary bootstrap over {days:,} days, "
                f"blocks of {boots.block:g} on average, {boots.resamples:,} resamples, seed "
                f"{self._asked.seed}; flat earns nothing, so `a day` is what a policy has more than flat"
            )
        yield "what the columns mean, and what they do not tell: docs/evaluation.md"

    def _emit(
        self,
        on: Plan,
        found: Evaluation,
        portfolio: Sequence[Result],
        single: Sequence[Result],
    ) -> None:
        asked, head, seen = self._asked, self._policy.head, on.seen
        boots = found.results.bootstrap(portfolio[0].days)
        emit(
            "evaluation",
            checkpoint=self._checkpoint,
            kind=head.kind,
            weights=head.digest,
            source=on.segments.head.source,
            instruments=on.symbols,
            left_out=on.left_out,
            timeframe=format_duration(on.segments.head.decision_ns),
            **dict(zip(("from", "to"), map(utc_text, ends(on)), strict=True)),
            bars=seen.bars,
            behind_training=asked.start is None and asked.end is None and on.start is not None,
            bars_trained_on=seen.seen,
            bars_same_time=seen.same_time,
            trained_on_by_instrument=seen.by_instrument,
            capital=on.config.capital,
            lots=dict(zip(on.symbols, found.results.lots, strict=True)) if asked.lots is None
            else dict.fromkeys(on.symbols, asked.lots),
            sampled=asked.sampled,
            seed=asked.seed,
            adapt=None if asked.adapt is None else asked.adapt._asdict(),
            dates=[_date(day) for day in found.results.dates.tolist()],
            bootstrap={
                "method": "stationary", "block_days": boots.block, "resamples": boots.resamples,
            },
            trials=asked.trials,
            deflated_sharpe=found.deflated,
        )  # fmt: skip
        for result in portfolio:
            emit("evaluation-policy", **_fields(result))
        for result in single:  # their dates are their own: no returns without them
            emit("evaluation-instrument", **_fields(result, without="returns"))


def what(on: Plan) -> list[str]:
    """On what a policy is judged, and whether it has seen it."""
    first, last = ends(on)
    zone = on.segments.head.instruments[on.spans[0].instrument].timezone
    bars = f"{count(on.seen.bars, 'bar')} of {format_duration(on.segments.head.decision_ns)}"
    return [few(on.symbols), bars, span(first, last, zone), seen_text(on)]


def seen_text(on: Plan) -> str:
    """Whether the policy has seen these bars."""
    seen = on.seen
    if seen.seen is None:
        return "seen in training: not said by the checkpoint"
    also = ""
    if seen.same_time:
        also = f"; {percent(seen.same_time / seen.bars)} lie at times at which it saw other instruments"
    if not seen.seen:
        return f"never seen in training{also}"
    return f"{percent(seen.seen / seen.bars, 1)} of the bars were trained on{also}"


def ends(on: Plan) -> tuple[int, int]:
    """First decision and last close, UTC ns."""
    closes = [on.segments.bars_of(s.instrument)["close_ts"][[s.first, s.last]] for s in on.spans]
    return int(min(c[0] for c in closes)), int(max(c[1] for c in closes))


def _is_free(on: Plan, n: int) -> bool:
    instrument = on.segments.head.instruments[n]
    fees = instrument.brokerage
    slips = instrument.slippage_ticks or instrument.premium_slippage_ticks
    return not (fees.entry or fees.exit or slips)


def _show_table(headings: tuple[str, ...], rows: list[tuple[str, ...]], optional: str) -> None:
    for line in table(
        headings, rows, width=terminal_width(), right="|".join(headings[1:]), optional=optional
    ):
        show(line)


def _row(result: Result) -> tuple[str, ...]:
    paid = result.brokerage_paid
    return (
        result.policy,
        f"{100 * result.total_return:+,.2f} %",
        _ratio(result.sharpe),
        _ratio(result.sortino),
        percent(result.max_drawdown, 2),
        f"{result.turnover:,.1f}x",
        f"{result.trades:,}",
        percent(result.brokerage, 2) if paid is None else amount(paid),
        percent(result.exposure),
        f"{sum(result.rejected.values()):,}",
        f"{len(result.breached):,}",
    )


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"


def _daily_row(result: Result) -> tuple[str, ...]:
    less = result.less_buy_hold
    held = ("-", "-") if less is None or result.policy == "buy-hold" else _interval(less)
    return (result.policy, *_interval(result.daily), *held)


def _interval(found: Interval) -> tuple[str, str]:
    mean = "-" if found.mean is None else f"{_BASIS * found.mean:+,.2f}"
    if found.low is None or found.high is None:
        return mean, "-"
    return mean, f"[{_BASIS * found.low:+,.2f}, {_BASIS * found.high:+,.2f}]"


def _fields(result: Result, *, without: str = "") -> dict[str, Any]:
    return {name: getattr(result, name) for name in result.__struct_fields__ if name != without}


def _date(day: int) -> str:
    from streambot.data.sessions import date_of

    return date_of(day).isoformat()
