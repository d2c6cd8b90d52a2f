"""`streambot runs ls|show`: what was run here, and how each of them ended."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import msgspec
import typer

from streambot.cli.console import emit, say, show, terminal_width, write_line
from streambot.cli.groups import AsJson, several
from streambot.cli.human import amount, duration, few, flow, place, table
from streambot.cli.seen_run import SeenRun, read_summary, see_run, see_runs
from streambot.cli.settings import RunsDir, runs_folder

_HEADINGS = (
    "run", "state", "started (UTC)", "took", "instruments", "policy", "speed", "ticks", "fills",
    "net P&L",
)  # fmt: skip
_SHOWN_SYMBOLS = 3


def ls(runs_dir: RunsDir = None, as_json: AsJson = False) -> None:
    """List runs, the newest last: state, instruments, policy, fills and P&L."""
    folder = runs_folder(runs_dir)
    seen = see_runs(folder)
    if as_json:
        for run in seen:
            summary = read_summary(run.path)
            emit(
                "run-listed",
                run=run.record.run,
                state=run.state,
                started_at=run.record.started_at,
                ended_at=run.record.ended_at,
                instruments=list(run.traded.instruments),
                folder=str(run.path),
                pnl_net=summary.pnl_net if summary is not None else None,
                digest=summary.digest if summary is not None else None,
            )
        return
    if not seen:
        say(f"no runs in {place(folder)}; the first one: streambot simulate")
        return
    rows = [_row(run) for run in seen]
    for line in table(
        _HEADINGS, rows, right="ticks|fills|net P&L|took", width=terminal_width(),
        optional="policy|speed|ticks|took",
    ):  # fmt: skip
        show(line)


def show_one(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Name of the run. Default: the newest.")
    ] = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Show one run: its summary, or where it stands while it has none."""
    from streambot.cli.summary_view import summary_lines

    seen = see_run(runs_folder(runs_dir), run)
    summary = read_summary(seen.path)
    if as_json:
        document = seen.record if summary is None else summary
        write_line(msgspec.json.encode(document))
        return
    width = terminal_width()
    if summary is not None:
        for line in summary_lines(summary, zone_name=seen.zone_name, width=width):
            show(line)
        return
    record = seen.record
    facts = [
        f"run {record.run}",
        seen.state,
        f"started {_utc(record.started_at)} UTC",
        few(list(seen.traded.instruments)),
        f"broker {record.broker}",
        f"files in {place(seen.path)}",
    ]
    for line in flow(facts, width):
        show(line)
    if record.error is not None:
        show(f"it failed: {record.error}")
    if seen.state in {"killed", "interrupted", "failed"}:
        say(f"next: streambot simulate --resume {record.run}", style="dim")
    elif seen.state == "running":
        say(f"next: streambot tail fills --run {record.run}", style="dim")


def _row(seen: SeenRun) -> tuple[str, ...]:
    record = seen.record
    summary = read_summary(seen.path)
    symbols = list(seen.traded.instruments)
    instruments = ",".join(symbols[:_SHOWN_SYMBOLS])
    if len(symbols) > _SHOWN_SYMBOLS:
        instruments += f" +{len(symbols) - _SHOWN_SYMBOLS}"
    common = (record.run, seen.state, _utc(record.started_at))
    if summary is None:
        return (*common, "", instruments, "", "", "", "", "")
    money = ", ".join(f"{amount(net, signed=True)} {code}" for code, net in summary.pnl_net.items())
    return (
        *common,
        duration(summary.wall_s),
        instruments,
        summary.policy,
        summary.speed_asked,
        f"{summary.ticks:,}",
        f"{summary.fills:,}",
        money,
    )


def _utc(text: str) -> str:
    """`2026-11-24 20:31` of an ISO text; the text itself where it is none."""
    try:
        return f"{dt.datetime.fromisoformat(text).astimezone(dt.UTC):%Y-%m-%d %H:%M}"
    except ValueError:
        return text


app = several("List runs, show one.", {"ls": ls, "show": show_one})
