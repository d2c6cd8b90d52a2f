"""Entry point of the command line: `streambot …`."""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from typer.main import get_command

from streambot.cli.failures import report
from streambot.cli.groups import CONTEXT_SETTINGS, Entry, LazyGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "simulate": Entry(
        "streambot.cli.simulate", "Replay bars through engine and agent: fills, P&L and a summary."
    ),
    "replay": Entry(
        "streambot.cli.replay",
        "Control a replay that goes: status, pause, resume, step, speed, seek.",
    ),
    "worker": Entry("streambot.cli.worker", "Execute a run, or a share of it, on this machine."),
    "actor": Entry("streambot.cli.actor", "Decide for a run, in a process of its own."),
    "tail": Entry(
        "streambot.cli.tail",
        "Follow a stream of a run: ticks, orders, fills, pnl, late, dead-letter.",
    ),
    "verify": Entry(
        "streambot.cli.verify",
        "Do a run again, or several ways: the same ticks give the same fills.",
    ),
    "env": Entry("streambot.cli.env", "Environments to train in: check one, play in it, list it."),
    "train": Entry("streambot.cli.train", "Train a policy: a mixture of experts, or one network."),
    "meta-train": Entry(
        "streambot.cli.meta_train", "Train a policy that adapts to a market in a few steps (MAML)."
    ),
    "evaluate": Entry(
        "streambot.cli.evaluate",
        "Judge a trained policy on data, beside controls, and how sure that is.",
    ),
    "policy": Entry(
        "streambot.cli.policy", "Weights of trainings: list them, show them, keep some."
    ),
    "broker": Entry("streambot.cli.broker", "Start a broker that stays, stop it, see how it is."),
    "topics": Entry(
        "streambot.cli.topics",
        "Topics of a run: compare with topics.yaml, put right, list, export.",
    ),
    "dlq": Entry(
        "streambot.cli.dlq", "Dead letters of a run: list them, look at one, write them out."
    ),
    "data": Entry("streambot.cli.data", "Look at bars before they are replayed."),
    "instruments": Entry("streambot.cli.instruments", "List, show and check instruments."),
    "config": Entry("streambot.cli.config", "Show the settings in force and where each came from."),
    "runs": Entry("streambot.cli.runs", "List runs, show one."),
    "doctor": Entry("streambot.cli.doctor", "Check this machine: packages, broker, caches, disk."),
    "version": Entry("streambot.cli.version", "Print the version."),
}


class Root(LazyGroup):
    """All commands of streambot."""

    entries = COMMANDS


app = typer.Typer(
    cls=Root,
    context_settings=CONTEXT_SETTINGS,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="stdout is data, stderr is narration; --json gives one object a line. First steps: streambot simulate",
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Print the traceback of a failure (any place in the line)."),
    ] = False,
) -> None:
    """Replay historical bars as Kafka ticks, and watch an engine fill orders and book P&L."""
    del debug  # taken off the line by `run`, so that it may stand behind a command as well
    if version:
        from streambot import __version__

        typer.echo(f"streambot {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: arguments without the program's name; None: those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without `─` gets a `?`, not an error
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001  # the last frame: whatever it is, say it in words
        code = report(error, debug=debug)
    return code


def _invoke(arguments: list[str]) -> int:
    command = get_command(app)
    try:
        if "_STREAMBOT_COMPLETE" in os.environ:
            command.main(arguments, prog_name="streambot")
        with command.make_context("streambot", arguments) as context:
            command.invoke(context)
    except typer.Exit as leave:
        return leave.exit_code
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 1
    return 0


if __name__ == "__main__":
    sys.exit(run())
