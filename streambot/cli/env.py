"""`streambot env check|play|fields`: the environment that policies are trained in."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streambot.cli.console import emit, say, show, terminal_width
from streambot.cli.env_settings import (
    BootstrapServers,
    FromRun,
    Scenario,
    Settings,
    parse_sets,
    read_wanted,
)
from streambot.cli.groups import AsJson, several
from streambot.cli.human import count, table
from streambot.cli.run_flags import (
    Data,
    InferInstruments,
    Instruments,
    Registry,
    Text,
    Timeframe,
)
from streambot.cli.settings import ConfigFile
from streambot.domain.errors import UsageError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streambot.env.config import EnvConfig
    from streambot.env.fields import ObservationField

Seed = Annotated[
    int,
    typer.Option(
        "--seed", metavar="N", min=0, show_default=False, help="Of episodes and actions. Default: 0"
    ),
]


def check(
    scenario: Scenario = None,
    data: Data = None,
    instruments: Instruments = None,
    registry: Registry = None,
    infer_instruments: InferInstruments = None,
    timeframe: Timeframe = None,
    from_run: FromRun = None,
    bootstrap_servers: BootstrapServers = None,
    sets: Settings = None,
    steps: Annotated[
        int,
        typer.Option(
            "--steps",
            metavar="N",
            min=1,
            show_default=False,
            help="Of the comparison of environments. Default: 1000",
        ),
    ] = 1_000,
    seed: Seed = 0,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Check an environment on your own data and settings.

    gymnasium: Gymnasium's own check_env, without a warning. vector: the vector environment gives
    what single ones give, bit by bit. lookahead: other ticks behind a bar change nothing that is
    seen, paid or priced up to it. Exit code 8: a check failed; 3: a setting, 4: the data are wrong.
    """
    from streambot.cli.env_check import checks

    wanted = read_wanted(
        {
            "scenario": scenario, "data": data, "instruments": instruments, "registry": registry,
            "infer_instruments": infer_instruments, "timeframe": timeframe, "from_run": from_run,
            "bootstrap_servers": bootstrap_servers,
        },
        sets, config,
    )  # fmt: skip
    failed = []
    for result in checks(wanted, steps=steps, seed=seed):
        if not result.ok:
            failed.append(result)
        if as_json:
            emit("env-check", **result._asdict())
        else:
            show(
                f"{'ok' if result.ok else 'FAILED':<6}  {result.name:<9}  {result.detail}",
                style="" if result.ok else "red",
            )
    if failed:
        raise VerificationError(
            f"{count(len(failed), 'check')} failed",
            where=failed[0].name,
            hint=_HINTS[failed[0].name],
        )


_HINTS = {
    "gymnasium": "see https://gymnasium.farama.org/api/utils/#gymnasium.utils.env_checker.check_env",
    "vector": "this is a fault of streambot: please report it",
    "lookahead": "a policy that is trained on this learns what it cannot know: please report it",
}


def play(
    scenario: Scenario = None,
    data: Data = None,
    instruments: Instruments = None,
    registry: Registry = None,
    infer_instruments: InferInstruments = None,
    timeframe: Timeframe = None,
    from_run: FromRun = None,
    bootstrap_servers: BootstrapServers = None,
    sets: Settings = None,
    policy: Annotated[
        Text,
        typer.Option(
            "--policy", "-p", metavar="random|hold",
            help="Who answers. Default: you, a line of stdin a bar.",
        ),
    ] = None,
    bars: Annotated[
        int | None,
        typer.Option("-n", metavar="N", min=1, help="Bars at most. Default: the whole episode."),
    ] = None,
    at: Annotated[
        Text,
        typer.Option(
            "--at", metavar="TIME",
            help="Begin at 2020-12-15T10:30 (zone of the exchange). Default: the seed's episode.",
        ),
    ] = None,
    seed: Seed = 0,
    picture: Annotated[
        Text,
        typer.Option("--picture", metavar="FILE.png", help="Write what happened as a picture."),
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Play an episode, bar by bar, on the terminal.

    Every line is a close: time, price, position, equity, distance to the trailing stop (1 at the
    best price, 0 at the stop) and the legal actions. Answer with h or Enter to hold, n 10 to hold 10
    bars, c to close, b1 b2 … to buy, s1 s2 … to sell so many lots, q to quit, ? for help.
    """
    if picture is not None and not picture.lower().endswith(".png"):
        raise UsageError(f"`{picture}` is no PNG file", where="--picture", hint="--picture out.png")
    if picture is not None and not Path(picture).absolute().parent.is_dir():
        raise UsageError(f"{picture}: there is no such folder", where="--picture")
    from streambot.cli.env_play import HELP, Play, by_person, by_policy
    from streambot.env.trading_env import TradingEnv

    answer = None if policy is None else by_policy(policy, seed)
    wanted = read_wanted(
        {
            "scenario": scenario, "data": data, "instruments": instruments, "registry": registry,
            "infer_instruments": infer_instruments, "timeframe": timeframe, "from_run": from_run,
            "bootstrap_servers": bootstrap_servers,
        },
        sets, config,
    )  # fmt: skip
    env = TradingEnv(wanted.source, **wanted.settings)
    env.reset(seed=seed, options=_begin(env, at, bars))
    if answer is None:
        say(HELP, style="dim")
    episode = Play(env, as_json=as_json)
    interrupted = False
    try:
        episode.go(answer or by_person(env.config.max_quantity), bars)
    except KeyboardInterrupt:
        interrupted = True
    episode.summary()
    if picture is not None:
        from streambot.env.render import draw, write_png

        write_png(draw(episode.history), Path(picture))
        say(f"picture: {picture}", style="dim")
    if interrupted:
        raise KeyboardInterrupt


def _begin(env: Any, at: str | None, bars: int | None) -> dict[str, Any]:
    """Options of the reset: where the episode begins, if that was said."""
    if at is None:
        return {}
    instruments = env.core.segments.head.instruments
    if len(instruments) > 1:
        raise UsageError(
            "an episode that begins at a time needs its instrument, and the data have more", where="--at",
            hint=f"--instruments {instruments[0].symbol}",
        )  # fmt: skip
    return {"start": at} if bars is None else {"start": at, "bars": bars}


def fields(sets: Settings = None, as_json: AsJson = False) -> None:
    """List the numbers of an observation, and the actions."""
    from streambot.env.fields import action_of, joint_size, layout_digest, observation_fields
    from streambot.env.settings import make_config

    config = make_config(parse_sets(sets))
    found = observation_fields(config.window, config.features)
    actions = [action_of(k, config.max_quantity) for k in range(joint_size(config.max_quantity))]
    if as_json:
        for field in found:
            emit("env-field", **field._asdict())
        for index, action in enumerate(actions):
            emit("env-action", index=index, kind=action.kind.value, lots=action.quantity)
        return
    rows = list(_field_rows(config))
    for line in table(
        ("index", "field", "group", "bounds", "meaning"), rows, width=terminal_width(),
        optional="group|bounds",
    ):  # fmt: skip
        show(line)
    show()
    for line in table(("index", "action"), _action_rows(config.max_quantity)):
        show(line)
    say(
        f"{count(len(found), 'number')}, {count(len(actions), 'action')}, "
        f"layout {layout_digest(config)}; --json lists every one",
        style="dim",
    )


def _field_rows(config: EnvConfig) -> Iterator[tuple[str, ...]]:
    """A row a field; those of the window once, with where its oldest and newest bar stand."""
    from streambot.env.fields import observation_fields

    every = observation_fields(config.window, config.features)
    width = len(config.features.window_fields)
    for group, members in groupby(every, key=lambda field: field.group):
        listed: list[ObservationField] = list(members)
        shown = listed[:width] if group == "window" else listed
        for field in shown:
            index, name = str(field.position), field.name
            if group == "window" and config.window > 1:
                last = field.position + width * (config.window - 1)
                index = f"{field.position}, {field.position + width}, … {last}"
                name = f"{name.partition('[')[0]}[-{config.window - 1} … 0]"
            yield index, name, group, f"{field.low:g} to {field.high:g}", field.meaning


def _action_rows(quantity: int) -> list[tuple[str, str]]:
    return [
        ("0", "hold"),
        ("1", "close the position"),
        (_range(2, quantity), f"buy {_range(1, quantity)} lots"),
        (_range(2 + quantity, quantity), f"sell {_range(1, quantity)} lots"),
    ]


def _range(first: int, size: int) -> str:
    return str(first) if size == 1 else f"{first} to {first + size - 1}"


app = several(
    "Environments for reinforcement learning: check one, play in it, list what it shows.",
    {"check": check, "play": play, "fields": fields},
)
