"""`streambot evaluate`: a trained policy on data, beside controls, and how sure the difference is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streambot.cli.console import say
from streambot.cli.env_settings import (
    BootstrapServers,
    FromRun,
    Scenario,
    parse_sets,
    read_data,
)
from streambot.cli.groups import AsJson, single
from streambot.cli.run_flags import (
    Data,
    InferInstruments,
    Instruments,
    Registry,
    Text,
    Timeframe,
    parse_device,
)
from streambot.cli.settings import ConfigFile
from streambot.domain.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from streambot.domain.replay_settings import Moment
    from streambot.env.sources import Source
    from streambot.learning.policy import LoadedPolicy

HOW = "How it is judged"
_RANGE = ("start", "end", "episode_bars")


def evaluate(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="Folder of a trained policy.")
    ],
    scenario: Scenario = None,
    data: Data = None,
    instruments: Instruments = None,
    registry: Registry = None,
    infer_instruments: InferInstruments = None,
    timeframe: Timeframe = None,
    from_run: FromRun = None,
    bootstrap_servers: BootstrapServers = None,
    from_: Annotated[
        Text,
        typer.Option(
            "--from", metavar="TIME", rich_help_panel=HOW,
            help="First close: 2020-12-15 or 2020-12-15T10:30 (zone of the exchange). Default: "
            "behind the training.",
        ),
    ] = None,
    to: Annotated[
        Text,
        typer.Option("--to", metavar="TIME", rich_help_panel=HOW, help="Last; of a date its end."),
    ] = None,
    sampled: Annotated[
        bool,
        typer.Option(
            "--sampled", rich_help_panel=HOW,
            help="Draw actions from the policy. Default: the likeliest.",
        ),
    ] = False,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", metavar="N", min=0, show_default=False, rich_help_panel=HOW,
            help="Of the random control, drawn actions and intervals. Default: 0",
        ),
    ] = 0,
    adapt: Annotated[
        int | None,
        typer.Option(
            "--adapt", metavar="K", min=1, max=1_000, rich_help_panel=HOW,
            help="Also judge it after K gradient steps on the bars before the range.",
        ),
    ] = None,
    support_bars: Annotated[
        int,
        typer.Option(
            "--support-bars", metavar="N", min=1, max=1_000_000, show_default=False,
            rich_help_panel=HOW, help="Bars of each instrument to adapt on. Default: 256",
        ),
    ] = 256,
    accounts: Annotated[
        int,
        typer.Option(
            "--accounts", metavar="N", min=1, max=4096, show_default=False, rich_help_panel=HOW,
            help="Accounts that trade those bars side by side. Default: 8",
        ),
    ] = 8,
    trials: Annotated[
        int,
        typer.Option(
            "--trials", metavar="N", min=1, show_default=False, rich_help_panel=HOW,
            help="Configurations that were tried before this one was chosen: deflates its Sharpe "
            "ratio. Default: 1",
        ),
    ] = 1,
    lots: Annotated[
        int | None,
        typer.Option(
            "--lots", metavar="N", min=1, rich_help_panel=HOW,
            help="Of the controls' orders. Default: as many as the policy may order and the capital "
            "buys.",
        ),
    ] = None,
    by_instrument: Annotated[
        bool,
        typer.Option(
            "--by-instrument", rich_help_panel=HOW, help="Every instrument by itself as well."
        ),
    ] = False,
    device: Annotated[
        str,
        typer.Option(
            "--device", metavar="auto|cpu|cuda|xla", show_default=False,
            help="Where the policy computes. Default: auto",
        ),
    ] = "auto",
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE",
            help="A setting that the policy does not see: capital=50000, drawdown_limit_bp=500. "
            "Repeatable. Default: those of its training.",
        ),
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Judge a trained policy on data, beside controls: flat, buy-hold, sma-cross, random.

    All of them trade the same bars of every instrument, each with its own capital, over the whole
    range. Without --from and --to the range lies behind what the policy was trained on; without data
    they are those of its training. Settings of the environment are those of the checkpoint; --set changes what the policy does not see, such as
    capital. Exit code 3: a setting, 4: checkpoint or data are wrong.
    """
    from streambot.cli.evaluate_view import Shown

    start, end = _moment("--from", from_), _moment("--to", to)
    policy = _loaded(checkpoint, device)
    known = {name: value for name, value in policy.head.env.items() if name not in _RANGE}
    for name in parse_sets(sets):
        if name in _RANGE:
            raise UsageError(
                f"the range of an evaluation is not set with `{name}`", where="--set",
                hint="--from and --to; it is one episode",
            )  # fmt: skip
    flags = {
        "scenario": scenario, "data": data, "instruments": instruments, "registry": registry,
        "infer_instruments": infer_instruments, "timeframe": timeframe, "from_run": from_run,
        "bootstrap_servers": bootstrap_servers,
    }  # fmt: skip
    settings = set_over(known, parse_sets(sets))
    source = _source(policy, settings, sets, flags, config)
    from streambot.learning.adapting import Adaptation
    from streambot.learning.evaluation import Asked

    how = None if adapt is None else Adaptation(adapt, support_bars, accounts, seed)
    asked = Asked(start, end, sampled, seed, lots, how, trials)
    shown = Shown(checkpoint, policy, asked, as_json=as_json, by_instrument=by_instrument)
    shown.go(source, settings)


def _moment(flag: str, text: str | None) -> Moment | None:
    from streambot.domain.replay_settings import parse_moment

    if text is None:
        return None
    try:
        return parse_moment(text)
    except UsageError as error:
        raise UsageError(error.message, where=flag, hint=error.hint) from error


def _loaded(checkpoint: str, device: str) -> LoadedPolicy:
    """The policy, on its device.

    Raises:
        UsageError: no such device.
        ConfigError: it is not here, or the packages of training are not installed.
        DataError: no checkpoint, or a damaged one.
    """
    from streambot.wiring.extras import needs_train

    with needs_train("a trained policy"):
        from streambot.agents.devices import resolve_device
        from streambot.learning.policy import load_policy
    folder = Path(checkpoint).expanduser()
    folder = folder.parent if folder.name == "checkpoint.json" else folder
    found = resolve_device(parse_device(device))
    policy = load_policy(folder, device=found.torch)
    say(found.said, style="dim")
    return policy


def set_over(known: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Settings of the environment that are known, with those that were given over them."""
    settings = {**known, **given}
    for group in ("reward", "features"):
        before, over = known.get(group), given.get(group)
        if isinstance(over, dict) and before is not None:
            parts = {"core": before} if isinstance(before, str) else dict(before)
            settings[group] = {**parts, **over}
    return settings


def _source(
    policy: LoadedPolicy,
    settings: dict[str, Any],
    sets: list[str] | None,
    flags: dict[str, Any],
    config_file: str | None,
) -> Source:
    """The data; where nobody names any, those that the policy was trained on.

    Raises:
        StreambotError: the data or a setting are wrong; the broker is not there.
    """
    from streambot.env.fields import layout_digest
    from streambot.env.settings import make_config
    from streambot.learning.seen import training_of
    from streambot.wiring.environments import split_settings, stored_source

    config = make_config(settings)
    if layout_digest(config) != policy.agent.config.layout:
        names = ", ".join(sorted(parse_sets(sets)))
        raise ConfigError(
            f"the policy was trained on other observations or actions than with {names}",
            where="--set",
            hint="change what it does not see: capital, lookback, max_gap, drawdown_limit_bp, reward",
        )
    data, kafka = read_data(flags, config_file)
    if not {"data", "scenario", "from_run"} & set(data):
        data = _trained_data(policy) | data
    known = training_of(policy.head.about).timeframes
    if len(known) == 1 and "timeframe" not in data and "from_run" not in data:
        data["timeframe"] = known[0]
    simulation = split_settings({**data, "kafka": kafka}).simulation
    return stored_source(simulation, config.features, Path.cwd())


def _trained_data(policy: LoadedPolicy) -> dict[str, Any]:
    """Settings of the data that a training kept; nothing where it kept none."""
    import msgspec

    from streambot.wiring.training import REQUEST, TrainingRequest

    try:
        data = msgspec.json.decode(policy.head.about[REQUEST], type=TrainingRequest).data
    except (KeyError, msgspec.MsgspecError):
        return {}
    say("the data of its training: --data names others", style="dim")
    return dict(data)


app = single(
    evaluate,
    examples=(
        "streambot evaluate policies/moe-1",
        "streambot evaluate policies/moe-1 --data bars.parquet --from 2020-01-01 --by-instrument",
        "streambot evaluate policies/moe-1 --data bars.parquet --adapt 3 --trials 20 --json",
    ),
)
