"""`streambot runs ls|show`: what was run here, and how each of them ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from streambot.cli.console import emit, say, show, terminal_width, write_line
from streambot.cli.groups import AsJson, several
from streambot.cli.human import amount, duration, flow, place, table, utc_minute
from streambot.cli.seen_run import SeenRun, read_summary, see_runs
from streambot.cli.settings import ConfigFile, RunsDir, read_settings
from streambot.domain.words import few

if TYPE_CHECKING:
    from streambot.cli.apart import Standing
    from streambot.domain.kafka_settings import KafkaSecurity

_HEADINGS = (
    "run", "state", "started (UTC)", "took", "instruments", "policy", "speed", "ticks", "fills",
    "net P&L",
)  # fmt: skip
_SHOWN_SYMBOLS = 3


Servers = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-servers", metavar="HOST:PORT", help="Runs that are declared on that broker."
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", metavar="NAME", help="First part of the topics' names."),
]


def ls(
    bootstrap_servers: Servers = None,
    namespace: Namespace = None,
    config: ConfigFile = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """List runs, the newest last: state, instruments, policy, fills and P&L.

    Those of this folder; or, with --bootstrap-servers, those that are declared on a broker.
    """
    from streambot.cli.apart import list_elsewhere, look_at

    flags = {
        "bootstrap_servers": bootstrap_servers, "namespace": namespace, "runs_dir": runs_dir,
    }  # fmt: skip
    settings = read_settings(flags, config)
    folder = Path(settings.config.runs_dir)
    if bootstrap_servers is not None:
        _list_elsewhere(list_elsewhere(settings), as_json=as_json)
        return
    seen = see_runs(folder)
    apart: dict[str, Standing] = look_at(seen, settings.config.kafka)
    if as_json:
        for run in seen:
            summary = read_summary(run.path)
            standing = apart.get(run.record.run)
            emit(
                "run-listed",
                run=run.record.run,
                state=run.state if standing is None else standing.state,
                started_at=run.record.started_at,
                ended_at=run.record.ended_at,
                instruments=list(run.traded.instruments),
                folder=str(run.path),
                pnl_net=summary.pnl_net if summary is not None else None,
                digest=summary.digest if summary is not None else None,
                **({} if standing is None else standing.fields()),
            )
        return
    if not seen:
        say(f"no runs in {place(folder)}; the first one: streambot simulate")
        return
    rows = [_row(run, apart.get(run.record.run)) for run in seen]
    for line in table(
        _HEADINGS, rows, right="ticks|fills|net P&L|took", width=terminal_width(),
        optional="policy|speed|ticks|took",
    ):  # fmt: skip
        show(line)


def _list_elsewhere(found: list[Standing], *, as_json: bool) -> None:
    from streambot.cli.apart import elsewhere_lines

    if as_json:
        for one in found:
            emit(
                "run-declared", run=one.seen.record.run, broker=one.seen.record.broker,
                state=one.state, declared_at=one.seen.record.started_at,
                instruments=list(one.seen.traded.instruments), **one.fields(),
            )  # fmt: skip
        return
    for line in elsewhere_lines(found, terminal_width()):
        show(line)


def show_one(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Name of the run. Default: the newest.")
    ] = None,
    bootstrap_servers: Servers = None,
    namespace: Namespace = None,
    config: ConfigFile = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Show one run: its summary, or where it stands while it has none."""
    from streambot.cli.finding import find_seen
    from streambot.cli.summary_view import summary_lines

    flags = {
        "run": run, "bootstrap_servers": bootstrap_servers, "namespace": namespace,
        "runs_dir": runs_dir,
    }  # fmt: skip
    settings = read_settings(flags, config)
    seen = find_seen(settings)
    if seen.is_apart:
        _show_apart(seen, settings.config.kafka, as_json=as_json)
        return
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
        f"started {utc_minute(record.started_at)} UTC",
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


def _show_apart(seen: SeenRun, security: KafkaSecurity, *, as_json: bool) -> None:
    from streambot.cli.apart import look_at, standing_lines

    standing = look_at([seen], security)[seen.record.run]
    record = seen.record
    if as_json:
        emit(
            "run-apart", run=record.run, broker=record.broker, state=standing.state,
            instruments=list(seen.traded.instruments), topics=record.topics,
            started_at=record.started_at, replay_state=seen.state, error=record.error,
            **standing.fields(),
        )  # fmt: skip
        return
    for line in standing_lines(standing, terminal_width()):
        show(line)
    for hint in standing.hints():
        say(hint, style="dim")


def _row(seen: SeenRun, standing: Standing | None) -> tuple[str, ...]:
    record = seen.record
    summary = read_summary(seen.path)
    symbols = list(seen.traded.instruments)
    instruments = ",".join(symbols[:_SHOWN_SYMBOLS])
    if len(symbols) > _SHOWN_SYMBOLS:
        instruments += f" +{len(symbols) - _SHOWN_SYMBOLS}"
    state = seen.state if standing is None else standing.words
    common = (record.run, state, utc_minute(record.started_at))
    if standing is not None:
        ticks = standing.ticks
        return (*common, "", instruments, "", "", "" if ticks is None else f"{ticks:,}", "", "")
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


app = several("List runs, show one.", {"ls": ls, "show": show_one})
