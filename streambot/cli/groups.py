"""Command groups that import a command when it is invoked, and help without boxes.

`streambot --help` has to answer in a third of a second, so the list of commands is a static table
(`COMMANDS` in `cli.main`) and the modules behind it, which pull in numpy and friends, stay
unimported until one of them is run. Help is plain text: it goes through pipes, pagers and `NO_COLOR`
unchanged, and needs no `rich`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


AsJson = Annotated[bool, typer.Option("--json", help="Machine output: one JSON object a line.")]
"""The `--json` of every command."""


class Entry(NamedTuple):
    """A command that has not been imported: where its `app` is, and its line in the help."""

    module: str
    summary: str


class PlainCommand(TyperCommand):
    """A command whose options are listed under the headings given as `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments first, then each heading in the order of its first option."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            default = "Options"
            if param.param_type_name == "argument":
                default = "Arguments"
                record = (record[0].removesuffix(" <str>"), record[1])
            heading = getattr(param, "rich_help_panel", None) or default
            sections.setdefault(heading, []).append(record)
        # `--help` belongs to no heading; it comes last, under the plain one.
        if "Options" in sections:
            sections["Options"] = sections.pop("Options")
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


class LazyGroup(TyperGroup):
    """The root group: commands come from a table of `Entry`."""

    entries: Mapping[str, Entry] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        # The base class suggests names from this mapping when one is misspelt.
        self.commands = dict.fromkeys(self.entries, TyperCommand(None))

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the table."""
        return list(self.entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import the module of `cmd_name` and build its command; None where there is none."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        app = importlib.import_module(entry.module).app
        command = get_command(app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in self.entries.items()])


def single(function: Callable[..., None], *, examples: Sequence[str] = ()) -> typer.Typer:
    """The `app` of a module that is one command. `examples` stand below its options."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    # \b keeps the lines of a paragraph as they are.
    epilog = (
        "\n".join(("\b", "Examples:", *(f"  {line}" for line in examples))) if examples else None
    )
    app.command(cls=PlainCommand, context_settings=CONTEXT_SETTINGS, epilog=epilog)(function)
    return app


def several(help_text: str, functions: Mapping[str, Callable[..., None]]) -> typer.Typer:
    """The `app` of a module with several commands: name -> function."""
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        help=help_text,
        context_settings=CONTEXT_SETTINGS,
    )

    @app.callback(invoke_without_command=True)
    def group(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    for name, function in functions.items():
        app.command(name, cls=PlainCommand, context_settings=CONTEXT_SETTINGS)(function)
    return app
