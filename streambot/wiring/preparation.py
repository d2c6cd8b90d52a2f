"""What a run will be: instruments, timeline, manifest, and what every slot knows at its start."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
import numpy as np

from streambot.data.expiries import expiries
from streambot.data.recorded import RecordedTimeline
from streambot.data.sessions import calendars_version
from streambot.data.timeline import Plan, Timeline
from streambot.domain.config import SimulationConfig
from streambot.domain.errors import ConfigError, DataError
from streambot.domain.units import NANOS_PER_DAY
from streambot.engine.ordering import Calendar, SlotContext, empty_calendar
from streambot.engine.scripts import Script
from streambot.market.atr import ATR_PERIOD, true_range, update_atr
from streambot.processor.agents import StrategyFactory
from streambot.processor.manifest import PolicySettings, RunManifest
from streambot.processor.playback import RecordedOrders
from streambot.wiring.feeds import Feeds, feeds_of, find_feeds
from streambot.wiring.policies import check_decisions, find_agent, marks_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streambot.data.feed import Feed
    from streambot.domain.instruments import Instrument

_FINGERPRINT_BYTES = 1 << 20


class Prepared(NamedTuple):
    """Everything that is known before the run has a name.

    Attributes:
        agent: the co-located agent.
        context: what each slot knows, by symbol.
        warnings: what people should know.
        stop_fill: see `RunManifest`.
    """

    config: SimulationConfig
    timeline: Timeline | RecordedTimeline
    plan: Plan
    agent: Script | StrategyFactory | RecordedOrders
    context: dict[str, SlotContext]
    sources: tuple[str, ...]
    warnings: tuple[str, ...]
    stop_fill: Literal["stop", "tick"] = "stop"

    def manifest(self, run: str) -> RunManifest:
        """Identity of the run called `run`."""
        config = self.config
        instruments = self.timeline.instruments
        partitions = min(config.partitions, len(instruments))
        marks = marks_of(self.agent)
        return RunManifest(
            run=run,
            instruments=instruments,
            partitions=partitions,
            partition_of=tuple(number % partitions for number in range(len(instruments))),
            capital=tuple(_capital(instrument, config) for instrument in instruments),
            decision_ns=self.plan.decision_ns,
            stop_fill=self.stop_fill,
            pnl_every_ns=config.pnl_every_ns,
            max_quantity=config.max_quantity,
            max_gap_ns=config.max_gap_ns,
            drawdown_limit_bp=config.drawdown_limit_bp,
            on_breach="halt" if config.on_breach == "halt" else "alert",
            seed=config.seed,
            policy=PolicySettings(
                spec=config.policy, lots=config.lots, weights=marks.weights, sees=marks.sees
            ),
            sources=self.sources,
            agents=config.agents,
            free_run=config.free_run,
            answer_timeout_s=config.answer_timeout_ns / 10**9,
        )


def prepare(config: SimulationConfig, cwd: Path, *, kept: Path | None = None) -> Prepared:
    """Find, check and describe everything that the run needs. Reads every row of the data once.

    Args:
        config: of the run.
        cwd: where relative paths start.
        kept: where the weights of a training are that the policy names, if it names any.

    Raises:
        StreambotError: anything is wrong with configuration, data or strategy.
    """
    agent = find_agent(config.policy, folder=cwd, kept=kept)
    return _prepare(config, find_feeds(config, cwd), agent)


def prepare_again(config: SimulationConfig, manifest: RunManifest, cwd: Path) -> Prepared:
    """The same for a run that exists, whose instruments stand in its manifest.

    Raises:
        DataError: the data have changed since.
        ConfigError: so has the checkpoint of its policy.
        StreambotError: as `prepare`.
    """
    agent = find_agent(config.policy, folder=cwd, run=manifest.policy)
    # The manifest names the policy as it was given; the settings kept say where that was.
    config = msgspec.structs.replace(config, policy=manifest.policy.spec)
    prepared = _prepare(config, feeds_of(manifest.instruments, config, cwd), agent)
    check_same(prepared, manifest)
    return prepared


def check_same(prepared: Prepared, manifest: RunManifest) -> None:
    """Raise `DataError` or `ConfigError` where what was prepared is not the run of `manifest`."""
    again = msgspec.structs.replace(prepared.manifest(manifest.run), parent=manifest.parent)
    if again.sources != manifest.sources:
        changed = sorted(set(manifest.sources) ^ set(again.sources))
        raise DataError(
            f"what the run replayed has changed: {'; '.join(changed)}",
            hint="put the data back, or start a new run",
        )
    if again != manifest:
        raise ConfigError(
            "the settings no longer give the manifest of the run", hint="start a new run"
        )


def _prepare(config: SimulationConfig, found: Feeds, agent: Script | StrategyFactory) -> Prepared:
    timeline = Timeline(
        found.feeds,
        decision_ns=config.timeframe_ns,
        start=config.start,
        end=config.end,
        bar_path=config.bar_path,
        seed=config.seed,
        round_prices=config.round_prices,
    )
    plan = timeline.plan()
    check_decisions(agent, plan.decision_ns)
    check_capital(timeline.instruments, config)
    feeds = {feed.instrument.symbol: feed for feed in found.feeds}
    context = {
        instrument.symbol: _context(timeline, plan, feeds[instrument.symbol], config)
        for instrument in timeline.instruments
    }
    return Prepared(
        config, timeline, plan, agent, context, _sources(found.feeds), tuple(_warnings(found, plan))
    )


def _context(timeline: Timeline, plan: Plan, feed: Feed, config: SimulationConfig) -> SlotContext:
    instrument = feed.instrument
    if not instrument.is_option:
        return SlotContext(empty_calendar())
    sessions = timeline.sessions(instrument.symbol)
    contracts = expiries(instrument, sessions)
    # Copies that can be written, as `empty_calendar` is: compiled code tells the two apart.
    calendar = Calendar(
        sessions.opens.copy(), sessions.closes.copy(), contracts.ts.copy(), contracts.lot.copy()
    )
    if instrument.premium.daily_atr is not None:
        return SlotContext(calendar)
    until = plan.instruments[plan.symbols.index(instrument.symbol)].first_ns
    inside = (sessions.opens < until) & (until < sessions.closes)
    if inside.any():
        until = int(sessions.opens[inside][0])  # the day in which the run starts is not complete
    before = feed
    if instrument.premium.atr_data is not None:
        before = feed._replace(path=Path(instrument.premium.atr_data).expanduser(), symbol=None)
    atr, count, close = daily_history(before, until, config)
    return SlotContext(calendar, atr, count, close) if count else SlotContext(calendar)


def daily_history(feed: Feed, until: int, config: SimulationConfig) -> tuple[float, int, int]:
    """Wilder's ATR of the daily bars of `feed` before `until`, ticks; true ranges in it; last close."""
    history = Timeline(
        [feed], decision_ns=NANOS_PER_DAY, end=until, round_prices=config.round_prices
    )
    try:
        history.plan()
    except DataError:
        if feed.instrument.premium.atr_data is not None:
            raise
        return np.nan, 0, 0  # no bars before the run: the ATR warms up inside it
    atr, count, before = 0.0, 0, 0
    for high, low, close in _daily_bars(history):
        spread = true_range(float(high), float(low), float(before), count > 0)
        atr = update_atr(atr, count, spread, ATR_PERIOD)
        count += 1
        before = close
    return atr, count, before


def _daily_bars(history: Timeline) -> Iterator[tuple[int, int, int]]:
    for window in history.windows():
        edges = np.searchsorted(window.ticks.bar, np.arange(len(window.closes) + 1))
        for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            prices = window.ticks.price[low:high]
            if len(prices):
                yield int(prices.max()), int(prices.min()), int(prices[-1])


def _capital(instrument: Instrument, config: SimulationConfig) -> int:
    return instrument.money(config.capital.of(instrument.symbol))


def check_capital(instruments: tuple[Instrument, ...], config: SimulationConfig) -> None:
    """Raise `ConfigError` where an instrument's cash is none of its currency."""
    for instrument in instruments:
        try:
            amount = _capital(instrument, config)
        except ValueError as cause:
            raise ConfigError(str(cause), where="--capital") from cause
        if not 0 < amount < 2**53:
            raise ConfigError(
                f"capital {config.capital.of(instrument.symbol)} of {instrument.symbol} is out of range",
                where="--capital",
            )


def _sources(feeds: tuple[Feed, ...]) -> tuple[str, ...]:
    """Names and fingerprints of the files, and the version of the calendars."""
    files = sorted({feed.path for feed in feeds})
    return (*(fingerprint(path) for path in files), f"exchange_calendars {calendars_version()}")


def fingerprint(path: Path) -> str:
    """A file's name, size, and digest of its first and last megabyte: enough to notice a change."""
    size = path.stat().st_size
    digest = blake2b(digest_size=12)
    with path.open("rb") as file:
        digest.update(file.read(_FINGERPRINT_BYTES))
        file.seek(max(0, size - _FINGERPRINT_BYTES))
        digest.update(file.read(_FINGERPRINT_BYTES))
    return f"{path.name} {size} {digest.hexdigest()}"


def _warnings(found: Feeds, plan: Plan) -> Iterator[str]:
    yield from found.warnings
    for report in plan.instruments:
        if not report.bars:
            yield f"{report.symbol} has no bars between the start and the end of the replay"
        if report.rounded:
            yield f"{report.symbol}: {report.rounded:,} bars had a price off the tick grid, rounded"
        if report.unknown_dates:
            yield (
                f"{report.symbol}: {report.unknown_dates:,} trading dates that the calendar does not "
                "know; kept, the data win"
            )
        if report.jumps:
            yield f"{report.symbol}: {report.jumps:,} prices more than 15 % from the one before; kept"
        for reason, count in report.rejected.items():
            if count:
                yield f"{report.symbol}: {count:,} rows rejected ({reason})"
