"""The flags that say what a run is, once: `simulate`, `replay` and `verify` take the same ones.

An alias is a type with the words of its help; every command gives its own default, which is None:
not said.
"""

from __future__ import annotations

from typing import Annotated

import typer

from streambot.domain.errors import UsageError

WHAT, PACE, WHO, WHERE = "What is replayed", "How fast", "Who trades", "Where it runs"
"""Headings of the help."""
Text = str | None

Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        "-d",
        metavar="FILE",
        rich_help_panel=WHAT,
        help="Bars, Parquet or CSV, file or folder. Repeatable.",
    ),
]
Instruments = Annotated[
    Text,
    typer.Option(
        "--instruments",
        "-i",
        metavar="A,B",
        rich_help_panel=WHAT,
        help="Which symbols, globs allowed. Default: all in the data.",
    ),
]
Registry = Annotated[
    Text,
    typer.Option(
        "--registry",
        metavar="FILE",
        rich_help_panel=WHAT,
        help="Default: ./instruments.yaml, else the bundled one.",
    ),
]
InferInstruments = Annotated[
    bool | None,
    typer.Option(
        "--infer-instruments",
        rich_help_panel=WHAT,
        help="Go on with a declaration made from the data for symbols that no registry knows.",
    ),
]
From = Annotated[
    Text,
    typer.Option(
        "--from",
        metavar="TIME",
        rich_help_panel=WHAT,
        help="First market time: 2020-12-15 or 2020-12-15T10:30 (zone of the exchange).",
    ),
]
To = Annotated[
    Text,
    typer.Option("--to", metavar="TIME", rich_help_panel=WHAT, help="Last; of a date its end."),
]
Timeframe = Annotated[
    Text,
    typer.Option(
        "--timeframe",
        metavar="5m",
        rich_help_panel=WHAT,
        help="Bars on which agents decide. Default: the coarsest of the data.",
    ),
]
BarPath = Annotated[
    Text,
    typer.Option(
        "--bar-path",
        metavar="ohlc|bridge:N",
        rich_help_panel=WHAT,
        help="How a bar becomes ticks: four, or a seeded path of N. Default: ohlc",
    ),
]
QuoteSide = Annotated[
    Text,
    typer.Option(
        "--quote-side",
        metavar="bid|ask",
        rich_help_panel=WHAT,
        help="Which side of bid and ask bars. Default: bid",
    ),
]
RoundPrices = Annotated[
    bool | None,
    typer.Option(
        "--round",
        rich_help_panel=WHAT,
        help="Round prices that are off the tick grid, however many they are.",
    ),
]
Speed = Annotated[
    Text,
    typer.Option(
        "--speed",
        "-s",
        metavar="100x|max",
        rich_help_panel=PACE,
        help="Market seconds per second: 1x, 0.5x, 100x, max. Default: 100x",
    ),
]
Gaps = Annotated[
    Text,
    typer.Option(
        "--gaps",
        metavar="skip|keep|max:30s",
        rich_help_panel=PACE,
        help="Closed hours: skip, keep, or wait that long at most. Default: skip",
    ),
]
Policy = Annotated[
    Text,
    typer.Option(
        "--policy",
        "-p",
        metavar="POLICY",
        rich_help_panel=WHO,
        help="flat, random, buy-hold, sma-cross, the folder of a trained policy: CHECKPOINT, weights "
        "of a training: NAME@newest, NAME@250, or a class of yours: path.py:Class, pkg.mod:Class; "
        "with --from-run also recorded. Default: sma-cross",
    ),
]
Agents = Annotated[
    list[str] | None,
    typer.Option(
        "--agent",
        metavar="NAME",
        rich_help_panel=WHO,
        help="An agent in a process of its own instead (`streambot actor`). Repeatable.",
    ),
]
FreeRun = Annotated[
    bool | None,
    typer.Option(
        "--free-run",
        rich_help_panel=WHO,
        help="Its orders take effect when they arrive; else the engine waits for its answers.",
    ),
]
AnswerTimeout = Annotated[
    Text,
    typer.Option(
        "--answer-timeout",
        metavar="30s",
        rich_help_panel=WHO,
        help="How long the engine waits for an answer. Default: 30s",
    ),
]
Capital = Annotated[
    Text,
    typer.Option(
        "--capital",
        metavar="AMOUNT",
        rich_help_panel=WHO,
        help="Cash of each slot: 100000, or 100000,SPY=50000. Default: 1000000",
    ),
]
Lots = Annotated[
    Text,
    typer.Option(
        "--lots", metavar="N", rich_help_panel=WHO, help="Lots of one scripted order. Default: 1"
    ),
]
Seed = Annotated[Text, typer.Option("--seed", metavar="N", rich_help_panel=WHO, help="Default: 0")]
PnlEvery = Annotated[
    Text,
    typer.Option(
        "--pnl-every",
        metavar="15m|bar",
        rich_help_panel=WHERE,
        help="Market time between two marks of the pnl stream. Default: 15m",
    ),
]
Partitions = Annotated[
    Text, typer.Option("--partitions", metavar="N", rich_help_panel=WHERE, help="Default: 4")
]
RunName = Annotated[
    Text,
    typer.Option("--run", metavar="NAME", rich_help_panel=WHERE, help="Default: one is made up."),
]
DEVICES = ("auto", "cpu", "cuda", "xla")


def parse_device(text: str | None) -> str:
    """Where a policy computes, of `--device`; None: wherever it can.

    Raises:
        UsageError: there is no such device.
    """
    device = text or "auto"
    if device not in DEVICES:
        raise UsageError(
            f"there is no device `{device[:60]}`",
            where="--device",
            hint=f"one of {', '.join(DEVICES)}",
        )
    return device
