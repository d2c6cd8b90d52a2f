"""`streambot tail`: follow a stream of a run, as `tail -f` follows a file.

It reads without a consumer group and writes nothing, so watching never disturbs a run. While the
run lives its broker is read; what has ended is read from the run's files.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streambot.cli.console import say, show, terminal_width, write_line
from streambot.cli.groups import AsJson, single
from streambot.cli.human import count
from streambot.cli.settings import ConfigFile, RunsDir, read_settings
from streambot.cli.where import compile_where
from streambot.domain.errors import UsageError
from streambot.domain.suggest import did_you_mean

if TYPE_CHECKING:
    from streambot.cli.lines import View
    from streambot.cli.seen_run import SeenRun
    from streambot.cli.tail_files import Batch, Row
    from streambot.domain.config import SimulationConfig

EXIT_INTERRUPTED = 130
LAST_LINES = 10
STREAMS = ("ticks", "orders", "fills", "pnl", "late", "dead-letter")
_NO_TIMES = frozenset({"orders", "late", "dead-letter"})


def tail(
    stream: Annotated[str, typer.Argument(metavar="STREAM", help=f"{', '.join(STREAMS)}.")],
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="Which run. Default: the newest.")
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
        int | None,
        typer.Option(
            "-n",
            metavar="N",
            min=0,
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
    config: ConfigFile = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Follow a stream of a run, as `tail -f` follows a file.

    Filter with --where: price > 372.5 and side == 1, kind == OrderRejected, instrument in (SPY, FB),
    reason ~ cash, time >= 2020-12-15T15:00 (UTC). Both sides of a position: side 1 and -1.
    """
    from streambot.cli.seen_run import see_run
    from streambot.cli.tail_views import make_view

    if stream not in STREAMS:
        raise UsageError(f"there is no stream `{stream}`", hint=did_you_mean(stream, STREAMS))
    settings = read_settings({"runs_dir": runs_dir}, config).config
    seen = see_run(_folder(settings), run)
    view = make_view(stream, seen.traded, None if as_json else terminal_width())
    session = _Session(
        seen, stream, view,
        first=_first(stream, seen, start),
        whole=start is not None,
        lines=lines,
        matches=compile_where(where, view.fields) if where is not None else None,
        as_json=as_json,
    )  # fmt: skip
    try:
        asyncio.run(session.play(_rows(seen, stream, settings, session), follow=follow))
    except KeyboardInterrupt:
        say(f"{session.shown:,} shown", style="dim")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    session.say_end()


class _Session:
    """What to print of the rows that come, and how many of them were printed.

    Args:
        first: market time of the first row to print, UTC ns; None: any.
        whole: begin where the person said; else with the last lines.
        lines: how many, see `tail -n`.
        matches: the filter.
    """

    def __init__(
        self,
        seen: SeenRun,
        stream: str,
        view: View,
        *,
        first: int | None,
        whole: bool,
        lines: int | None,
        matches: Callable[[Row], bool] | None,
        as_json: bool,
    ) -> None:
        self.stream = stream
        self.first = first
        self.last = None if whole else LAST_LINES if lines is None else lines
        self.most = lines if whole else None
        self.matches = matches
        self.shown = 0
        self._seen = seen
        self._view = view
        self._as_json = as_json
        self._read = 0

    async def play(self, batches: AsyncIterator[Batch], *, follow: bool) -> None:
        """Print rows until they end, enough were printed, or, without `follow`, all were read."""
        window: deque[Row] | None = deque(maxlen=self.last) if self.last is not None else None
        async for batch in batches:
            if batch is None:
                for row in window or ():
                    self._print(row)
                window = None
                if not follow:
                    break
                continue
            for row in filter(self._wanted, batch):
                if window is not None:
                    window.append(row)
                elif self.most is not None and self.shown >= self.most:
                    return
                else:
                    self._print(row)
            if self.most is not None and self.shown >= self.most and window is None:
                return

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
        """Say why nothing was printed, which is otherwise a riddle."""
        if self.shown or self.last == 0 or self.most == 0:
            return
        record = self._seen.record
        if self._read:
            read = count(self._read, "line")
            say(f"run {record.run}: none of {read} of {self.stream} matched", style="dim")
        else:
            say(f"run {record.run} ({self._seen.state}): nothing in {self.stream}", style="dim")


def _folder(settings: SimulationConfig) -> Any:
    from pathlib import Path

    return Path(settings.runs_dir)


def _first(stream: str, seen: SeenRun, start: str | None) -> int | None:
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
        return parse_moment(start).start_ns(seen.zone_name)
    except UsageError as error:
        raise UsageError(error.message, where="--from", hint=error.hint) from error


async def _rows(
    seen: SeenRun, stream: str, settings: SimulationConfig, session: _Session
) -> AsyncIterator[Batch]:
    """Rows of the stream from where they are: the broker of a living run, else its files."""
    from streambot.cli.tail_files import file_rows
    from streambot.processor.stream_files import file_of

    del settings
    plain = session.matches is None and session.first is None and stream != "orders"
    last = session.last if plain else None
    async for batch in file_rows(file_of(seen.path, stream), living=lambda: seen.living, last=last):
        yield batch


app = single(tail)
