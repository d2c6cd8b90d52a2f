"""`streambot tail`: follow a stream of a run or a training, as `tail -f` follows a file.

It reads without a consumer group and writes nothing, so watching never disturbs a run. While the
run lives its broker is read; what has ended is read from the run's files. The streams of a training
are on its broker alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from streambot.cli.console import flush, say, show, terminal_width, write_line
from streambot.cli.groups import AsJson, single
from streambot.cli.human import count
from streambot.cli.settings import ConfigFile, RunsDir, read_settings
from streambot.cli.where import compile_where
from streambot.domain.errors import BrokerError, StreambotError, TopicError, UsageError
from streambot.domain.suggest import did_you_mean

if TYPE_CHECKING:
    from streambot.cli.lines import Traded, View
    from streambot.cli.seen_run import SeenRun
    from streambot.cli.tail_files import Batch, Row
    from streambot.cli.tail_training import SeenTraining
    from streambot.domain.config import Resolved
    from streambot.domain.kafka_settings import KafkaSecurity

EXIT_INTERRUPTED = 130
LAST_LINES = 10
STREAMS = (
    "ticks", "orders", "fills", "pnl", "late", "dead-letter", "portfolio", "alerts", "status",
    "experience", "policy",
)  # fmt: skip
_OF_TRAINING = frozenset({"experience", "policy"})
_ROLLED_UP = frozenset({"portfolio", "alerts"})
_NO_ROLLUP = "; `simulate --alerts` or `faust -A streambot.adapters.faust_app worker` writes it"
_NO_TIMES = frozenset({"orders", "late", "dead-letter", "status"}) | _OF_TRAINING


def tail(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help=f"{', '.join(STREAMS)}.")],
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="NAME", help="Which run, or training. Default: the newest."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="beginning|end|TIME",
            help="Where to begin. TIME is market time: 2020-12-15T10:30 (zone of the exchange).",
        ),
    ] = None,
    lines: Annotated[
        str | None,
        typer.Option(
            "-n",
            metavar="N",
            help=f"Without --from: begin with the last N lines (default {LAST_LINES}). "
            "With it: stop after N.",
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="EXPR", help="Only lines for which this holds."),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow/--no-follow", help="Go on while the run lives; it ends with the run."
        ),
    ] = True,
    bootstrap_servers: Annotated[
        str | None,
        typer.Option(
            "--bootstrap-servers", metavar="HOST:PORT",
            help="The broker of one that was started elsewhere. Default: that of the run.",
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", metavar="NAME", help="First part of the topics' names."),
    ] = None,
    config: ConfigFile = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Follow a stream of a run, as `tail -f` follows a file.

    Without --from the last lines come first, then new ones as long as the run lives; it ends when the
    run ends. --where compares fields of the --json form; a position's side is 1 or -1, time is UTC.
    A run of `streambot replay` and workers ends when all engine tasks have. `experience` and `policy`
    are streams of a training: what its actors have done, and the weights that they act with; `status`
    of one is what each update brought.
    """
    from streambot.cli.seen_run import SeenRun
    from streambot.cli.tail_views import make_view

    if stream not in STREAMS:
        raise UsageError(f"there is no stream `{stream}`", hint=did_you_mean(stream, STREAMS))
    resolved = read_settings(
        {
            "run": run, "bootstrap_servers": bootstrap_servers, "namespace": namespace,
            "runs_dir": runs_dir,
        },
        config,
    )  # fmt: skip
    settings = resolved.config
    seen, traded, zone = _find(stream, resolved)
    view = make_view(
        stream,
        traded,
        None if as_json else terminal_width(),
        training=not isinstance(seen, SeenRun),
    )
    session = _Session(
        seen, stream, view,
        start=start,
        first=_first(stream, zone, start),
        lines=_line_count(lines),
        matches=compile_where(where, view.fields) if where is not None else None,
        as_json=as_json,
    )  # fmt: skip
    try:
        rows = _rows(seen, stream, settings.kafka, session)
        asyncio.run(session.play(rows, follow=follow))
    except KeyboardInterrupt:
        say(f"{session.shown:,} shown", style="dim")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    session.say_end()


def _find(stream: str, settings: Resolved) -> tuple[SeenRun | SeenTraining, Traded, str]:
    """Whose stream it is, what is traded there, and the zone of its times."""
    from streambot.cli.finding import find_seen
    from streambot.cli.lines import Traded
    from streambot.cli.tail_training import find_training

    if stream in _OF_TRAINING:
        return find_training(settings), Traded({}, {}), "UTC"
    try:
        seen = find_seen(settings)
    except (UsageError, TopicError):
        # Both have a status; a name is of one of them.
        if stream == "status" and settings.config.run is not None:
            with suppress(StreambotError):
                return find_training(settings), Traded({}, {}), "UTC"
        raise
    return seen, seen.traded, seen.zone_name


class _Session:
    """What to print of the rows that come, and how many of them were printed.

    Args:
        start: where the person said to begin; None: with the last lines.
        first: market time of the first row to print, UTC ns; None: any.
        lines: how many, see `tail -n`.
        matches: the filter.
    """

    def __init__(
        self,
        seen: SeenRun | SeenTraining,
        stream: str,
        view: View,
        *,
        start: str | None,
        first: int | None,
        lines: int | None,
        matches: Callable[[Row], bool] | None,
        as_json: bool,
    ) -> None:
        self.stream = stream
        self.first = first
        self.start = start
        # Without a place to begin the last lines come first; with one, so many and no more.
        self.last = None if start else LAST_LINES if lines is None else lines
        self.most = lines if start else None
        self.matches = matches
        self.shown = 0
        self._seen = seen
        self._view = view
        self._as_json = as_json
        self._read = 0
        self._followed = seen.living
        self._ended = False

    async def play(self, batches: AsyncGenerator[Batch], *, follow: bool) -> None:
        """Print rows until they end, enough were printed, or, without `follow`, all were read."""
        if self.most == 0:
            return
        window: deque[Row] | None = deque(maxlen=self.last) if self.last is not None else None
        async with aclosing(batches):
            async for batch in batches:
                if batch is None:
                    self._print_all(window)
                    window = None
                    if not follow:
                        return
                    continue
                for row in filter(self._wanted, batch):
                    if window is not None:
                        window.append(row)
                    else:
                        self._print(row)
                    if self.most is not None and self.shown >= self.most:
                        return
                flush()
        self._ended = True
        self._print_all(window)  # the run ended before its end was reached

    def _print_all(self, window: deque[Row] | None) -> None:
        for row in window or ():
            self._print(row)
        flush()

    def _wanted(self, row: Row) -> bool:
        self._read += 1
        if self.first is not None and row["ts_event"] < self.first:
            return False
        return self.matches is None or self.matches(row)

    def _print(self, row: Row) -> None:
        self.shown += 1
        if self._as_json:
            write_line(self._view.machine(row))
            return
        if self.shown == 1:
            show(self._view.heading(), style="bold")
        show(self._view.human(row))

    def say_end(self) -> None:
        """Say why it ended, and why nothing was printed, which is otherwise a riddle."""
        from streambot.cli.seen_run import SeenRun
        from streambot.processor.folder import read_record, shown_state

        seen, what = self._seen, f"{self._seen.record.kind} {self._seen.record.run}"
        if isinstance(seen, SeenRun) and seen.is_apart and self.stream != "ticks" and self._ended:
            say(f"{what}: complete, {self.shown:,} shown", style="dim")
            if seen.on_log is not None and seen.on_log.successor is not None:
                after = seen.on_log.successor
                say(f"it ended with a seek: streambot tail {self.stream} --run {after}")
        elif self._followed and not seen.living:
            state = shown_state(seen.path, read_record(seen.path))
            say(f"{what}: {state}, {self.shown:,} shown", style="dim")
        elif self._ended and not isinstance(seen, SeenRun) and not seen.is_here:
            say(f"{what}: its learner has ended, {self.shown:,} shown", style="dim")
        elif self.shown or self.last == 0 or self.most == 0:
            return
        elif self._read:
            read = count(self._read, "line")
            say(f"{what}: none of {read} of {self.stream} matched", style="dim")
        else:
            why = _NO_ROLLUP if self.stream in _ROLLED_UP else ""
            say(f"{what} ({seen.state}): nothing in {self.stream}{why}", style="dim")


def _line_count(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise UsageError(f"`{text[:60]}` is no count of lines", where="-n", hint="-n 100")
    return int(text)


def _first(stream: str, zone: str, start: str | None) -> int | None:
    """Market time that `--from` names, UTC ns; None where it names none."""
    if start in {None, "beginning", "end"}:
        return None
    from streambot.domain.config import parse_moment

    assert start is not None  # noqa: S101  # the set above, for the checker
    if start.isalpha():
        raise UsageError(
            f"`{start}` is no place to begin", where="--from",
            hint=did_you_mean(start, ("beginning", "end", "2020-12-15T10:30")),
        )  # fmt: skip
    if stream in _NO_TIMES:
        hint = "--where 'barrier >= 100'" if stream == "orders" else "--from beginning"
        raise UsageError(f"records of {stream} carry no market time", where="--from", hint=hint)
    try:
        return parse_moment(start).start_ns(zone)
    except UsageError as error:
        raise UsageError(error.message, where="--from", hint=error.hint) from error


async def _rows(
    seen: SeenRun | SeenTraining, stream: str, security: KafkaSecurity, session: _Session
) -> AsyncGenerator[Batch]:
    """Rows of the stream from where they are: the broker of a living run, else its files.

    Raises:
        BrokerError: ticks are asked for, and nobody keeps them any more.
    """
    from streambot.cli.seen_run import SeenRun
    from streambot.cli.tail_broker import IN_PROCESS, Place, apart_rows, broker_rows
    from streambot.cli.tail_files import file_rows
    from streambot.processor.stream_files import file_of

    record = seen.record
    # An order's record may hold none or many, so its last lines are found by reading them all.
    last = session.last if session.matches is None and stream != "orders" else None
    if last is not None and stream == "ticks":
        last += 1  # the END of a partition is a record without any tick
    at_end = session.start == "end"
    lasting = record.broker != IN_PROCESS and not record.embedded
    reachable = record.broker != IN_PROCESS and stream in record.topics
    place = Place(at="end" if at_end else "beginning", last=last, first_ts=session.first)
    if not isinstance(seen, SeenRun):
        from streambot.cli.tail_training import training_rows

        rows = training_rows(seen, stream, place, security)
    elif seen.is_apart:
        _require_stream(seen, stream)
        rows = apart_rows(seen, stream, place, security)
    elif reachable and (seen.living or (stream == "ticks" and lasting)):
        rows = broker_rows(seen, stream, place, security)
    elif stream == "ticks":
        raise _no_ticks(record.run, living=seen.living)
    else:
        rows = file_rows(
            file_of(seen.path, stream), living=lambda: seen.living, last=0 if at_end else last
        )
    async with aclosing(rows):
        async for batch in rows:
            yield batch if batch is None else [row for one in batch for row in _single(stream, one)]


def _require_stream(seen: SeenRun, stream: str) -> None:
    if stream not in seen.record.topics:
        raise UsageError(
            f"run {seen.record.run} has no stream {stream}",
            hint=f"it has {', '.join(sorted(seen.record.topics))}",
        )


def _no_ticks(run: str, *, living: bool) -> BrokerError:
    if living:
        return BrokerError(
            f"the ticks of run {run} stay inside its own process",
            hint="run it with --broker embedded, or with --bootstrap-servers of Apache Kafka",
        )
    return BrokerError(
        f"the ticks of run {run} went with its broker",
        hint="tail ticks while a run goes, or keep them on Kafka with --bootstrap-servers",
    )


def _single(stream: str, row: Row) -> list[Row]:
    """One row a line: an `orders` record holds all orders of its barriers, or none (HOLD)."""
    from streambot.cli.tail_views import order_rows, timed

    return order_rows(row) if stream == "orders" else [timed(row)]


app = single(
    tail,
    examples=(
        "streambot tail fills",
        "streambot tail pnl --from 2020-12-15T10:30 --json",
        "streambot tail fills --where 'price > 372.5 and side == 1 and not gap_fill == true'",
        "streambot tail fills --where 'kind == OrderRejected and reason ~ cash'",
        "streambot tail orders --where 'policy.trend > 0.5'",
        "streambot tail ticks --where 'instrument in (SPY, FB)' -n 100",
        "streambot tail alerts --from beginning",
        "streambot tail experience --where 'actor == a0 and reward_mean < 0'",
        "streambot tail fills --run mine --bootstrap-servers kafka:9092",
    ),
)
