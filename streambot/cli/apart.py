"""Where runs stand whose pieces are apart: what is replayed, and how far their engine tasks are.

Their own folder knows of the replay at most; the rest is on the broker, and is asked there. A broker
that does not answer leaves the engine unknown: nothing is made up.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from streambot.cli.console import warn
from streambot.cli.declared import RUNS, declared_runs, read_on_log
from streambot.cli.human import count, flow, moment, percent, place, plain, table, utc_minute
from streambot.cli.run_progress import PartitionProgress, RunProgress, read_progress
from streambot.cli.seen_run import SeenRun, see_elsewhere
from streambot.cli.which_broker import BrokerPlace, find_broker, open_broker
from streambot.domain.errors import StreambotError
from streambot.domain.words import few

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streambot.cli.declared import OnLog
    from streambot.domain.config import Resolved
    from streambot.domain.kafka_settings import KafkaSecurity

LOOK_S = 5.0
"""For what a broker that is only asked by the way may take; a list must not wait for it."""
_SHOWN_SYMBOLS = 3


class Standing(NamedTuple):
    """Where a run stands.

    Attributes:
        seen: the run.
        progress: on its broker; None: not known.
        why: why not.
        on_log: what it has declared there; None: nothing, or not known.
    """

    seen: SeenRun
    progress: RunProgress | None
    why: str = ""
    on_log: OnLog | None = None

    @property
    def state(self) -> str:
        """One word: of the replay as long as that goes, then `replayed`, and `complete` at the end."""
        progress = self.progress
        if progress is None:
            return "replayed" if self.seen.state == "complete" else self.seen.state
        if progress.executed:
            return "complete"
        if progress.replayed:
            return "replayed"
        return "open" if not self.seen.is_here else self.seen.state

    @property
    def words(self) -> str:
        """The state, and how far the engine is."""
        return self.state if self.state == "complete" else f"{self.state}, {self.engine}"

    @property
    def replay(self) -> str:
        """How far the replay is."""
        progress = self.progress
        if progress is None:
            return "unknown"
        if progress.replayed:
            return f"whole, {count(progress.replayed_barrier, 'barrier')}"
        done, on_log = progress.ticks, self.on_log
        share = ""
        if done is not None and on_log is not None and on_log.outline.ticks:
            share = f", {percent(done / on_log.outline.ticks)} of its ticks"
        return f"to barrier {progress.replayed_barrier:,}{share}"

    @property
    def engine(self) -> str:
        """How far the engine tasks are."""
        progress = self.progress
        if progress is None:
            return "engine unknown"
        if not progress.executable:
            return "engine unknown: the broker has no transactions"
        if progress.executed:
            return "engine complete"
        at = progress.engine_barrier
        return "engine not begun" if at is None else f"engine at barrier {at:,}"

    @property
    def ticks(self) -> int | None:
        """Ticks replayed so far."""
        return None if self.progress is None else self.progress.ticks

    def fields(self) -> dict[str, Any]:
        """What machines are told."""
        progress = self.progress
        if progress is None:
            return {"replay": None, "engine": None, "unknown_because": self.why}
        on_log = self.on_log
        return {
            "replay": {
                "complete": progress.replayed,
                "barrier": progress.replayed_barrier,
                "ticks": progress.ticks,
                "ticks_total": None if on_log is None else on_log.outline.ticks,
            },
            "engine": None
            if not progress.executable
            else {
                "complete": progress.executed,
                "barrier": progress.engine_barrier,
                "partitions": [
                    {
                        "partition": one.partition,
                        "barrier": None if one.engine is None else one.engine.chain.barrier,
                        "event_time": None if one.engine is None else one.engine.chain.t_hi,
                        "complete": one.engine is not None and one.engine.ended,
                    }
                    for one in progress.partitions
                ],
            },
        }

    def hints(self) -> list[str]:
        """What to do next."""
        run, progress = self.seen.record.run, self.progress
        servers = "" if self.seen.is_here else f" --bootstrap-servers {self.seen.record.broker}"
        if progress is None:
            return ["streambot broker status shows one that was started here"]
        hints = []
        if progress.executed:
            hints.append(f"next: streambot tail fills --run {run}{servers}")
        elif self.seen.is_here and self.seen.state in {"killed", "interrupted", "failed"}:
            hints.append(f"next: streambot replay --resume {run}")
        elif progress.executable:
            hints.append(f"next: streambot worker --run {run}{servers}")
        on_log = self.on_log
        if on_log is not None and on_log.successor is not None:
            hints.append(f"it ended with a seek: {plain(on_log.successor)} goes on")
        return hints


def look_at(seen: Iterable[SeenRun], security: KafkaSecurity) -> dict[str, Standing]:
    """Where those of the runs stand whose pieces are apart; each broker is asked once."""
    by_broker: dict[str, list[SeenRun]] = {}
    for one in seen:
        if one.is_apart:
            by_broker.setdefault(one.record.broker, []).append(one)
    if not by_broker:
        return {}

    async def look() -> list[Standing]:
        asked = [_ask(servers, runs, security) for servers, runs in by_broker.items()]
        return [standing for answers in await asyncio.gather(*asked) for standing in answers]

    return {standing.seen.record.run: standing for standing in asyncio.run(look())}


async def _ask(servers: str, runs: list[SeenRun], security: KafkaSecurity) -> list[Standing]:
    found: list[Standing] = []
    try:
        async with asyncio.timeout(LOOK_S), open_broker(BrokerPlace(servers, ""), security) as log:
            for seen in runs:
                topics = seen.record.topics
                on_log = seen.on_log or await read_on_log(log, topics.get(RUNS, ""))
                progress = await read_progress(log, topics, seen.partitions)
                found.append(Standing(seen, progress, on_log=on_log))
    except TimeoutError:
        why = f"{servers} did not answer within {LOOK_S:g} s"
    except StreambotError as failure:
        why = f"{failure.where}: {failure.message}" if failure.where else failure.message
    else:
        return found
    warn(f"{why}; where the engine is, is not known")
    return [*found, *(Standing(seen, None, why) for seen in runs[len(found) :])]


def list_elsewhere(settings: Resolved) -> list[Standing]:
    """The runs that are declared on the broker of the settings, the newest last.

    Raises:
        StreambotError: it cannot be reached.
    """

    async def look() -> list[Standing]:
        broker = await find_broker(settings, None)
        namespace, runs_dir = settings.config.namespace, Path(settings.config.runs_dir)
        async with open_broker(broker, settings.config.kafka) as log:
            found = []
            for run, on_log in (await declared_runs(log, namespace)).items():
                seen = see_elsewhere(runs_dir, broker.servers, namespace, run, on_log)
                progress = await read_progress(log, seen.record.topics, on_log.manifest.partitions)
                found.append(Standing(seen, progress, on_log=on_log))
            return found

    return asyncio.run(look())


def elsewhere_lines(found: list[Standing], width: int | None) -> list[str]:
    """A table of runs on a broker."""
    if not found:
        return ["no runs are declared there"]
    rows = [
        (
            plain(one.seen.record.run),
            one.state,
            utc_minute(one.seen.record.started_at),
            _symbols(one.seen),
            str(one.seen.partitions),
            one.replay,
            one.engine.removeprefix("engine "),
        )
        for one in found
    ]
    return table(
        ("run", "state", "declared (UTC)", "instruments", "partitions", "replay", "engine"), rows,
        right="partitions", width=width, optional="declared (UTC)|partitions|instruments",
    )  # fmt: skip


def standing_lines(standing: Standing, width: int | None) -> list[str]:
    """One run, and each of its partitions."""
    seen, progress = standing.seen, standing.progress
    record = seen.record
    where = [f"files in {place(seen.path)}"] if seen.is_here else []
    facts = [
        f"run {record.run}",
        standing.state,
        f"{'started' if seen.is_here else 'declared'} {utc_minute(record.started_at)} UTC",
        few(list(seen.traded.instruments)),
        f"broker {record.broker}",
        *where,
    ]
    lines = flow(facts, width)
    if seen.is_here:
        lines.append(f"replay here: {seen.state}")
    if record.error is not None:
        lines.append(f"it failed: {record.error}")
    if progress is None:
        return [*lines, f"on its broker: not known, {standing.why}"]
    lines += flow([f"replay {standing.replay}", standing.engine], width)
    rows = [_partition_row(one, seen.zone_name) for one in progress.partitions]
    headings = ("partition", "replayed to", "at barrier", "engine", "is at barrier", "behind")
    right = "partition|at barrier|is at barrier|behind"
    return [*lines, "", *table(headings, rows, right=right, width=width, optional="replayed to")]


def _partition_row(one: PartitionProgress, zone_name: str) -> tuple[str, ...]:
    replayed, engine = one.replayed, one.engine
    until = ("nothing yet", "") if replayed is None else (
        "the end" if replayed.ended else moment(replayed.t_hi, zone_name), f"{replayed.barrier:,}"
    )  # fmt: skip
    if engine is None:
        return (str(one.partition), *until, "not begun", "", "")
    behind = "" if replayed is None else f"{replayed.barrier - engine.chain.barrier:,}"
    word = "complete" if engine.ended else "begun"
    return (str(one.partition), *until, word, f"{engine.chain.barrier:,}", behind)


def _symbols(seen: SeenRun) -> str:
    symbols = list(seen.traded.instruments)
    more = len(symbols) - _SHOWN_SYMBOLS
    return ",".join(symbols[:_SHOWN_SYMBOLS]) + (f" +{more}" if more > 0 else "")
