"""`streambot data inspect|ls`: bars, before they are replayed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streambot.cli.console import emit, say, show, terminal_width
from streambot.cli.groups import AsJson, several
from streambot.cli.human import flow, place, size, table
from streambot.domain.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator


def inspect(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="Bars, Parquet or CSV, file or folder.")
    ],
    registry: Annotated[
        str | None,
        typer.Option(
            "--registry", metavar="FILE", help="Default: ./instruments.yaml, else bundled."
        ),
    ] = None,
    quote_side: Annotated[
        str | None,
        typer.Option("--quote-side", metavar="bid|ask", help="Which side of bid and ask bars."),
    ] = None,
    timeframe: Annotated[
        str | None, typer.Option("--timeframe", metavar="5m", help="As for simulate.")
    ] = None,
    round_prices: Annotated[
        bool | None, typer.Option("--round", help="Round prices that are off the tick grid.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at a file of bars as simulate would read it: mapping, sessions, doubts, durations."""
    from streambot.cli.inspection import inspect_files

    flags = {
        "data": files,
        "registry": registry,
        "quote_side": quote_side,
        "timeframe": timeframe,
        "round_prices": round_prices,
        "infer_instruments": True,
    }
    found = inspect_files(flags)
    if as_json:
        emit("data-inspect", **found.fields())
        return
    for line in found.lines(terminal_width()):
        show(line)


def ls(
    folder: Annotated[
        str | None,
        typer.Argument(
            metavar="FOLDER",
            help="Another folder. Default: bundled bars, and $STREAMBOT_DATA if set.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List bars: those that come with streambot, and the files of a folder."""
    listed = list(_listed(folder))
    if as_json:
        for row in listed:
            emit("data-file", **row)
        return
    if not listed:
        say(f"no bar files in {folder}")
        return
    headings = ("symbols", "bars", "rows", "first (UTC)", "last (UTC)", "size", "license", "file")
    rows = [
        (
            ", ".join(row["symbols"]) or "-",
            row["timeframe"] or "-",
            f"{row['rows']:,}" if row["rows"] is not None else "-",
            (row["first"] or "-")[:10],
            (row["last"] or "-")[:10],
            size(row["bytes"]),
            row["license"] or "-",
            place(row["path"]),
        )
        for row in listed
    ]
    unknown = [h for k, h in enumerate(headings) if all(row[k] == "-" for row in rows)]
    kept = [k for k, heading in enumerate(headings) if heading not in unknown]
    for line in table(
        [headings[k] for k in kept],
        [[row[k] for k in kept] for row in rows],
        right="rows|size",
        width=terminal_width(),
        optional="|".join(h for h in ("size", "last (UTC)", "license") if h not in unknown),
    ):
        show(line)
    scenarios = _scenarios() if folder is None else []
    if scenarios:
        for line in flow(["scenarios:", *scenarios], terminal_width(stderr=True)):
            say(line, style="dim")
        say("next: streambot simulate SCENARIO, or streambot data inspect FILE", style="dim")


def _listed(folder: str | None) -> Iterator[dict[str, Any]]:
    if folder is not None:
        yield from _folder(Path(folder))
        return
    yield from _bundled()
    other = os.environ.get("STREAMBOT_DATA")
    if other is not None:
        yield from _folder(Path(other))


def _bundled() -> Iterator[dict[str, Any]]:
    """The bars that come with streambot, as their page of sources describes them."""
    from streambot.domain.bundled import bundled_path
    from streambot.domain.yaml_positions import safe_load_positions

    bars = bundled_path("replay") / "bars"
    sources = safe_load_positions(bars / "SOURCES.yaml").data()
    for name, about in sources.items() if isinstance(sources, dict) else ():
        yield {
            "path": str(bars / name),
            "symbols": list(about["symbols"]),
            "timeframe": about["timeframe"],
            "rows": about["rows"],
            "first": about["first"],
            "last": about["last"],
            "bytes": (bars / name).stat().st_size,
            "license": about["license"],
            "source": about["package"],
            "bundled": True,
        }


def _folder(folder: Path) -> Iterator[dict[str, Any]]:
    """Bar files of a folder; files that hold something else are left out.

    Raises:
        DataError: there is no such folder.
    """
    from streambot.data.files import is_bar_file, open_bars

    if not folder.is_dir():
        raise DataError("there is no such folder", where=str(folder))
    for path in sorted(folder.iterdir()):
        if not (path.is_file() and is_bar_file(path)):
            continue
        try:
            bars = open_bars(path)
        except DataError:
            continue
        yield {
            "path": str(path),
            "symbols": sorted(bars.codes),
            "timeframe": None,
            "rows": getattr(bars, "rows", None),
            "first": None,
            "last": None,
            "bytes": path.stat().st_size,
            "license": None,
            "source": None,
            "bundled": False,
        }


def _scenarios() -> list[str]:
    from streambot.wiring.scenario import scenario_names

    return scenario_names()


app = several("Look at bars before they are replayed.", {"inspect": inspect, "ls": ls})
