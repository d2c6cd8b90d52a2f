"""Flags that `train` and `meta-train` share, and what they mean."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from streambot.cli.env_settings import parse_sets
from streambot.cli.run_flags import Text
from streambot.domain.errors import UsageError

LEARN = "How it learns"

Out = Annotated[
    Text,
    typer.Option(
        "--out", metavar="FOLDER",
        help="Where the policy is kept. Default: policies/NAME of --run, or policies/<agent>-<n>",
    ),
]  # fmt: skip
Resume = Annotated[
    Text,
    typer.Option(
        "--resume", metavar="FOLDER",
        help="Go on with a training as it was begun; --updates may be more.",
    ),
]  # fmt: skip
Start = Annotated[
    Text,
    typer.Option(
        "--from", metavar="CHECKPOINT", rich_help_panel=LEARN,
        help="Begin with the parameters of another policy.",
    ),
]  # fmt: skip
Agent = Annotated[
    Text,
    typer.Option(
        "--agent", metavar="moe|ppo", rich_help_panel=LEARN,
        help="A mixture of four experts, or one network. Default: moe",
    ),
]  # fmt: skip
Updates = Annotated[
    int | None,
    typer.Option("--updates", metavar="N", min=1, rich_help_panel=LEARN, show_default=False,
                 help="Updates of the parameters. Default: 250 (meta-train: 400)"),
]  # fmt: skip
Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", min=0, rich_help_panel=LEARN, show_default=False,
                 help="Of parameters, episodes and actions. Default: 0"),
]  # fmt: skip
Hidden = Annotated[
    Text,
    typer.Option("--hidden", metavar="64,64", rich_help_panel=LEARN,
                 help="Widths of the layers of every network. Default: 64,64"),
]  # fmt: skip
Learn = Annotated[
    list[str] | None,
    typer.Option("--learn", metavar="NAME=VALUE", rich_help_panel=LEARN,
                 help="A setting of learning: lr=1e-3, entropy=0.005, gamma=0.99. Repeatable."),
]  # fmt: skip
TestFrom = Annotated[
    Text,
    typer.Option("--test-from", metavar="TIME|none",
                 help="Nothing is trained from then on. Default: the last fifth of the bars."),
]  # fmt: skip
DeviceName = Annotated[
    Text,
    typer.Option("--device", metavar="auto|cuda|xla|cpu", help="Where it computes. Default: auto"),
]  # fmt: skip


def parse_hidden(text: str | None) -> dict[str, Any]:
    """Widths of layers, as settings of a network.

    Raises:
        UsageError: no widths.
    """
    if text is None:
        return {}
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) <= 65_536 for part in parts):
        raise UsageError(f"`{text[:60]}` are no widths of layers", where="--hidden", hint="64,64")
    return {"hidden": tuple(int(part) for part in parts)}


def parse_learn(given: list[str] | None, where: str = "--learn") -> dict[str, Any]:
    """Settings of learning by name.

    Raises:
        UsageError: no `NAME=VALUE`, or one setting twice.
    """
    try:
        return parse_sets(given)
    except UsageError as error:
        raise UsageError(error.message, where=where, hint="NAME=VALUE, as in lr=1e-3") from error


def said(**flags: Any) -> dict[str, Any]:
    """Those flags that were given."""
    return {
        name: value for name, value in flags.items() if value is not None and value is not False
    }
