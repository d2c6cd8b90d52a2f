"""`streambot replay`: publish a data set, or control the replay of a run that is going.

The control words go to a living run over its `control` stream. Everything else is what
`streambot.cli.publish` takes: a scenario, or `--data`.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from typer.core import TyperGroup
from typer.main import get_command

from streambot.cli.console import emit, show, write_line
from streambot.cli.groups import CONTEXT_SETTINGS, AsJson, PlainCommand, single
from streambot.cli.settings import ConfigFile, RunsDir, read_settings
from streambot.domain.bundled import bundled_path
from streambot.domain.errors import UsageError
from streambot.domain.suggest import nearest

DEFAULT_WAIT = "30s"
PUBLISH = "publish"
_PUBLISH_MODULE = "streambot.cli.publish"

Run = Annotated[
    str | None,
    typer.Option("--run", metavar="NAME", help="Which run. Default: the newest that is going."),
]
Wait = Annotated[
    str | None,
    typer.Option("--wait", metavar="30s", help="How long to wait for the answer. Default: 30s"),
]


def status(
    run: Run = None, wait: Wait = None, config: ConfigFile = None,
    runs_dir: RunsDir = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Say where the replay stands."""
    from streambot.cli.seen_run import see_run

    if run is not None:
        folder = Path(read_settings({"runs_dir": runs_dir}, config).config.runs_dir)
        seen = see_run(folder, run)
        if not seen.living:
            if as_json:
                emit("replay-ended", run=run, status=seen.state)
            else:
                show(f"run {run}: {seen.state}")
            return
    _command("AskStatus", {}, run, wait, config, runs_dir, as_json=as_json)


def pause(
    run: Run = None, wait: Wait = None, config: ConfigFile = None,
    runs_dir: RunsDir = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Publish nothing more behind the next barrier."""
    _command("Pause", {}, run, wait, config, runs_dir, as_json=as_json)


def resume(
    run: Run = None, wait: Wait = None, config: ConfigFile = None,
    runs_dir: RunsDir = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Go on from a pause."""
    _command("Resume", {}, run, wait, config, runs_dir, as_json=as_json)


def step(
    barriers: Annotated[
        str | None, typer.Argument(metavar="N", help="How many barriers. Default: 1")
    ] = None,
    run: Run = None, wait: Wait = None, config: ConfigFile = None,
    runs_dir: RunsDir = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Publish N more barriers at once, then pause."""
    from streambot.streams.control import MAX_STEP

    count = "1" if barriers is None else barriers
    if not (count.isascii() and count.isdigit()) or not 1 <= int(count[:20]) <= MAX_STEP:
        raise UsageError(f"`{count[:60]}` is no count of barriers", hint="streambot replay step 5")
    _command("Step", {"count": int(count)}, run, wait, config, runs_dir, as_json=as_json)


def speed(
    asked: Annotated[str, typer.Argument(metavar="SPEED", help="100x, 0.5x, max.")],
    run: Run = None, wait: Wait = None, config: ConfigFile = None,
    runs_dir: RunsDir = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """Go on at another speed; what is paused stays paused."""
    from streambot.domain.config import parse_speed

    text = str(parse_speed(asked))
    _command("SetSpeed", {"speed": text}, run, wait, config, runs_dir, as_json=as_json)


def seek(
    time: Annotated[
        str,
        typer.Argument(metavar="TIME", help="Market time: 2020-12-15T10:30 (zone of the exchange)."),
    ],
    run: Run = None, wait: Wait = None, config: ConfigFile = None,
    runs_dir: RunsDir = None, as_json: AsJson = False,
) -> None:  # fmt: skip
    """End the run, and start another one at TIME.

    It is called RUN.s1, starts flat, and its indicators are warmed by the bars before.
    """
    from streambot.domain.config import parse_moment

    text = parse_moment(time).text
    _command("Seek", {"time": text}, run, wait, config, runs_dir, as_json=as_json)


def _command(
    kind: str,
    fields: dict[str, Any],
    run: str | None,
    wait: str | None,
    config: str | None,
    runs_dir: str | None,
    *,
    as_json: bool,
) -> None:
    """Send it, wait, and tell."""
    from streambot.cli.replay_client import ask, find_living, new_sender
    from streambot.cli.replay_words import told
    from streambot.domain.config import parse_duration
    from streambot.streams import control

    limit_s = parse_duration(wait or DEFAULT_WAIT) / 1e9
    settings = read_settings({"runs_dir": runs_dir}, config).config
    seen = find_living(Path(settings.runs_dir), run)
    sender = new_sender()
    command = getattr(control, kind)(id=sender, sender=sender, **fields)
    said = asyncio.run(ask(seen, command, settings.kafka, limit_s=limit_s))
    name = seen.record.run
    if as_json:
        write_line(msgspec.json.encode({**msgspec.to_builtins(said), "run": name}))
    if not said.applied:
        raise UsageError(f"run {name}: {said.reason}")
    if not as_json:
        show(told(said, seen.zone_name, name))


_CONTROL: dict[str, Callable[..., None]] = {
    "status": status,
    "pause": pause,
    "resume": resume,
    "step": step,
    "speed": speed,
    "seek": seek,
}


class ReplayGroup(TyperGroup):
    """Control words, and for all else the command that publishes, once there is one."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The control words; publishing is the group's own action."""
        return [*([PUBLISH] if _can_publish() else []), *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A control word's command, or the one that publishes."""
        if cmd_name != PUBLISH or not _can_publish():
            return super().get_command(ctx, cmd_name)
        command = get_command(single(importlib.import_module(_PUBLISH_MODULE).publish))
        command.name = PUBLISH
        return command

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `publish` before what is no control word."""
        word = args[0] if args else ""
        if word not in _CONTROL and word not in ctx.help_option_names:
            _check_word(word)
            args = [PUBLISH, *args] if _can_publish() else []
        return super().parse_args(ctx, args)


def _can_publish() -> bool:
    return importlib.util.find_spec(_PUBLISH_MODULE) is not None


def _check_word(word: str) -> None:
    """A mistyped control word is no scenario."""
    meant = nearest(word, _CONTROL, likeness=0.7) if word.isalpha() else None
    scenario = bundled_path("replay") / "scenarios" / f"{word}.yaml"
    if meant is not None and not scenario.is_file():
        raise UsageError(f"there is no `streambot replay {word}`", hint=f"did you mean `{meant}`?")


app = typer.Typer(
    cls=ReplayGroup,
    add_completion=False,
    rich_markup_mode=None,
    help="Publish a data set, or control the replay of a run that is going.\n\n"
    "`streambot replay [SCENARIO] [OPTIONS]` publishes: the word may be left out.",
    context_settings=CONTEXT_SETTINGS,
)


@app.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for _name, _function in _CONTROL.items():
    app.command(_name, cls=PlainCommand, context_settings=CONTEXT_SETTINGS)(_function)
