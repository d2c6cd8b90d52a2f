"""`streambot policy ls|show|pin`: the weights of trainings, on a broker and in folders."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from streambot.cli.console import emit, say, show, terminal_width, warn
from streambot.cli.groups import AsJson, several
from streambot.cli.human import place, plain
from streambot.cli.settings import ConfigFile, RunsDir, read_settings
from streambot.domain.errors import StreambotError, TopicError

if TYPE_CHECKING:
    from streambot.cli.policy_view import Listed
    from streambot.domain.config import Resolved
    from streambot.learning.published import Pinned, Shelf
    from streambot.wiring.served import ServedName
    from streambot.wiring.serving import Asked, Brokers, Lookup

LOOK_S = 20.0
"""For what one of several brokers may take; a list must not wait for it."""

Servers = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-servers", metavar="HOST:PORT",
        help="Default: the training's broker, that of the settings, or of `broker start`.",
    ),
]  # fmt: skip
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", metavar="NAME", help="First part of the topics' names."),
]


def ls(
    run: Annotated[
        str | None, typer.Option("--run", metavar="TRAINING", help="Only this one. Default: all.")
    ] = None,
    bootstrap_servers: Servers = None,
    namespace: Namespace = None,
    config: ConfigFile = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """List the weights of trainings: the newest of each, and those that are pinned.

    Those of a broker; and the checkpoints below policies/, which need none.
    """
    from streambot.cli.policy_view import fields_of, list_lines, listed_folders

    settings = _settings(bootstrap_servers, namespace, config, runs_dir)
    listed = asyncio.run(_list(settings, run))
    if run is None:
        listed += listed_folders(Path.cwd())
    if as_json:
        for one in listed:
            emit("policy", **fields_of(one))
        return
    if not listed:
        say("no weights of a training, and no checkpoints in policies/; next: streambot train")
        return
    for line in list_lines(listed, terminal_width()):
        show(line)


def show_one(
    name: Annotated[
        str,
        typer.Argument(
            metavar="POLICY", help="TRAINING (the newest), TRAINING@SEQUENCE, or a folder."
        ),
    ],
    bootstrap_servers: Servers = None,
    namespace: Namespace = None,
    config: ConfigFile = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Show all that weights say of themselves: what they observe, and what they were trained on."""
    from streambot.cli.policy_view import fields_of, listed_folder, listed_weights, show_lines
    from streambot.learning.published import asked_of
    from streambot.wiring.policies import checkpoint_at

    folder = checkpoint_at(name, Path.cwd())
    pins: list[int] = []
    if folder is not None:
        one = listed_folder(folder)
    else:
        wanted = _served(name)
        settings = _settings(bootstrap_servers, namespace, config, runs_dir)
        found = asyncio.run(_look(settings, wanted))
        weights = asked_of(found.shelf, wanted.sequence)
        one, pins = listed_weights(found.shelf, weights, found.at), list(found.shelf.pins)
    if as_json:
        emit("policy-shown", **fields_of(one, whole=True), pins=pins)
        return
    for line in show_lines(one, pins, terminal_width()):
        show(line)


def pin_weights(
    name: Annotated[
        str,
        typer.Argument(metavar="TRAINING[@SEQUENCE]", help="Whose. Default: the newest there are."),
    ],
    bootstrap_servers: Servers = None,
    namespace: Namespace = None,
    config: ConfigFile = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Keep weights under a name of their own, TRAINING@SEQUENCE, whatever the training does next.

    Pinned again, nothing changes. On a broker that keeps everything in memory a pin lasts as long as
    the training.
    """
    wanted = _served(name)
    settings = _settings(bootstrap_servers, namespace, config, runs_dir)
    pinned, at = asyncio.run(_pin(settings, wanted))
    weights = pinned.weights
    policy = f"{wanted.training}@{weights.sequence}"
    if as_json:
        emit(
            "policy-pinned", policy=policy, training=wanted.training, sequence=weights.sequence,
            digest=weights.head.digest, new=pinned.new, broker=at.servers,
        )  # fmt: skip
        return
    was = "pinned" if pinned.new else "is pinned already:"
    show(f"{was} {policy}   digest {weights.head.digest}   on {at.servers}")
    say(f"next: streambot simulate --policy {policy}", style="dim")


def _settings(
    servers: str | None, namespace: str | None, config: str | None, runs_dir: str | None
) -> Resolved:
    flags = {"bootstrap_servers": servers, "namespace": namespace, "runs_dir": runs_dir}
    return read_settings(flags, config)


def _served(name: str) -> ServedName:
    """The weights that a person means: of a training by its bare name, the newest."""
    from streambot.processor.folder import check_run_name
    from streambot.wiring.served import ServedName, served_name

    found = served_name(name, Path.cwd())
    return ServedName(check_run_name(name), None) if found is None else found


class _Found(NamedTuple):
    shelf: Shelf
    at: Asked


def _lookup(settings: Resolved) -> Lookup:
    from streambot.wiring.serving import Lookup

    return Lookup.by(settings.config, Path.cwd())


async def _brokers(settings: Resolved, name: str) -> Brokers:
    """Those that are asked for one training: the one that a flag names, and no other; else all."""
    from streambot.wiring.serving import Asked, Brokers, brokers_of

    servers, origin = settings.config.bootstrap_servers, settings.origins["bootstrap_servers"]
    if servers is not None and origin.startswith("--"):
        return Brokers((Asked(servers, origin),))
    return brokers_of(name, _lookup(settings).runs_dir, then=await _standing(settings))


async def _standing(settings: Resolved) -> list[Asked]:
    """That of the settings, and the one that was started here."""
    from streambot.cli.which_broker import started_here
    from streambot.wiring.serving import Asked

    servers, origin = settings.config.bootstrap_servers, settings.origins["bootstrap_servers"]
    found = [] if servers is None else [Asked(servers, origin)]
    started = await started_here()
    return found if started is None else [*found, Asked(*started)]


async def _look(settings: Resolved, wanted: ServedName) -> _Found:
    from streambot.learning.published import look
    from streambot.wiring.serving import open_training

    brokers = await _brokers(settings, wanted.training)
    async with open_training(wanted.training, brokers, _lookup(settings)) as training:
        shelf = await look(training.log, training.topic, wanted.sequence)
        if shelf is None:
            raise _declared_no_more(wanted.training, training.topic)
        return _Found(shelf, training.at)


async def _pin(settings: Resolved, wanted: ServedName) -> tuple[Pinned, Asked]:
    from streambot.learning.published import pin
    from streambot.wiring.serving import open_training

    brokers = await _brokers(settings, wanted.training)
    async with open_training(wanted.training, brokers, _lookup(settings)) as training:
        pinned = await pin(training.log, training.topic, wanted.sequence)
        if pinned is None:
            raise _declared_no_more(wanted.training, training.topic)
        return pinned, training.at


def _declared_no_more(name: str, topic: str) -> TopicError:
    return TopicError(f"training {name} is declared no more", where=topic)


async def _list(settings: Resolved, run: str | None) -> list[Listed]:
    from streambot.cli.policy_view import listed_shelf
    from streambot.wiring.served import ServedName
    from streambot.wiring.serving import Asked

    if run is not None:
        found = await _look(settings, ServedName(run, None))
        return listed_shelf(found.shelf, found.at)
    servers, origin = settings.config.bootstrap_servers, settings.origins["bootstrap_servers"]
    if servers is not None and origin.startswith("--"):
        return await _list_all(settings, Asked(servers, origin))
    listed: list[Listed] = []
    for at in await _all_brokers(settings):
        try:
            async with asyncio.timeout(LOOK_S):
                listed += await _list_all(settings, at)
        except TimeoutError:
            warn(f"{at.servers} (by {place(at.source)}) did not answer within {LOOK_S:g} s")
        except StreambotError as error:
            where = error.where or at.servers
            warn(f"{where} (by {place(at.source)}): {error.message}")
    return listed


async def _all_brokers(settings: Resolved) -> list[Asked]:
    """Those of the trainings that go here, of the settings, and of `broker start`."""
    from streambot.processor.folder import TRAINING, list_runs
    from streambot.wiring.serving import brokers_of

    runs_dir = _lookup(settings).runs_dir
    found: dict[str, Asked] = {}
    for record in list_runs(runs_dir, TRAINING):
        for at in brokers_of(record.run, runs_dir).asked:
            found.setdefault(at.servers, at)
    for at in await _standing(settings):
        found.setdefault(at.servers, at)
    return list(found.values())


async def _list_all(settings: Resolved, at: Asked) -> list[Listed]:
    """All trainings of a broker."""
    from streambot.cli.policy_view import listed_shelf
    from streambot.learning.declaration import RUNS
    from streambot.learning.published import declared_trainings, look
    from streambot.wiring.places import open_lasting

    listed: list[Listed] = []
    async with open_lasting(at.servers, settings.config.kafka) as opened:
        found = await declared_trainings(opened.log, settings.config.namespace)
        for name, why in found.unreadable.items():
            warn(f"training {plain(name)} on {at.servers}: {why}")
        for training in found.trainings.values():
            shelf = await look(opened.log, training.topics[RUNS], wait_s=0)
            if shelf is not None:
                listed += listed_shelf(shelf, at)
    return listed


app = several(
    "Weights of trainings: list them, show them, keep some.",
    {"ls": ls, "show": show_one, "pin": pin_weights},
)
