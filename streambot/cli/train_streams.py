"""`streambot train` over streams: what it needs, what it says, and how it ends."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from streambot.cli.console import emit, say, show
from streambot.cli.human import count, duration
from streambot.cli.learner_view import LearnerView
from streambot.cli.settings import read_settings
from streambot.cli.stopping import EXIT_CODES, telling_stop
from streambot.cli.training import alone, begin, open_training
from streambot.cli.training_flags import said
from streambot.domain.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from streambot.cli.training import Begun
    from streambot.learning.policy import LoadedPolicy
    from streambot.streams.ports import Start
    from streambot.wiring.stream_training import Ended, Where
    from streambot.wiring.training import TrainingRequest

GOES_WITH = (
    "bootstrap_servers", "replay_from", "actors", "learners", "gpus_per_learner", "namespace",
    "runs_dir",
)  # fmt: skip
"""Where and by how many a training is done may be another when it is resumed."""
COMMAND = "train"


def train_over_streams(
    given: dict[str, Any],
    ask: Callable[[dict[str, Any]], TrainingRequest],
    flags: dict[str, Any],
    places: dict[str, Any],
    config: str | None,
    device: str | None,
    *,
    as_json: bool,
) -> None:
    """Train with actors and a learner until all is done or somebody stops it.

    Args:
        given: the flags that were given, by name.
        ask: the request, of the settings of the data.
        flags: of the data. places: of the broker and the folders.
        config: file of settings.
        device: where the learner computes.
        as_json: objects instead of words.

    Raises:
        StreambotError: anything that is wrong, or fails.
        typer.Exit: it was stopped by a signal.
    """
    from streambot.wiring import stream_training as wiring
    from streambot.wiring.actor_learner import check_broker, learn
    from streambot.wiring.extras import needs_train
    from streambot.wiring.training import training_envs

    with needs_train("training over streams"):
        from streambot.agents.devices import leave_cores
        from streambot.learning.learner.cluster import ray_here

        leave_cores(given.get("actors", wiring.StreamSettings().actors))
    if "replay_from" in given and "resume" not in given:
        raise UsageError(
            "experience of which training?", where="--replay-from",
            hint="--resume FOLDER names it; it is kept on Apache Kafka",
        )  # fmt: skip
    begun = begin(
        given, ask, flags, config, device, command=COMMAND, kind=wiring.KIND, goes_with=GOES_WITH
    )
    started = time.monotonic()
    with alone(begun.folder):
        # What is wrong with settings, environments and broker is told before anything starts.
        begun = begun._replace(request=_with_flags(begun.request, given))
        settings = wiring.stream_settings(begun.request)
        learner, _ = wiring.learner_config(begun.request)
        where = _where(given, places, config, begun.found)
        training_envs(begun.request, begun.split)
        asyncio.run(check_broker(where))
        view, stop = (
            LearnerView(learner.updates, as_json=as_json), telling_stop(say, "behind this update"),
        )  # fmt: skip
        open_training(begun)
        with ray_here(os.environ.get("RAY_ADDRESS"), settings.learners, settings.gpus):
            learns = wiring.make_learns(begun.request, begun.agent, learner.batch)
            job = wiring.Job(
                begun.request, begun.split, begun.agent, begun.folder, begun.found, learns, where
            )
            before = 0 if begun.found is None else int(begun.found.head.progress.get("steps", 0))
            with view.shown(begun.folder / "tensorboard", before):
                ended = asyncio.run(learn(job, view, stop))
        _tell(begun, ended, time.monotonic() - started, as_json=as_json)
    if stop.reason in EXIT_CODES and not ended.complete:
        raise typer.Exit(EXIT_CODES[stop.reason])


def _with_flags(request: TrainingRequest, given: dict[str, Any]) -> TrainingRequest:
    """The request, by as many actors and learners as are asked for now."""
    import msgspec

    new = said(
        actors=given.get("actors"), learners=given.get("learners"),
        gpus=given.get("gpus_per_learner"),
    )  # fmt: skip
    return msgspec.structs.replace(request, stream=(request.stream or {}) | new)


def _where(
    given: dict[str, Any], places: dict[str, Any], config: str | None, found: LoadedPolicy | None
) -> Where:
    """Where the training goes; one that is resumed, where it was.

    Raises:
        StreambotError: a setting is wrong.
    """
    from streambot.processor.folder import read_record
    from streambot.wiring.stream_training import Where

    settings = read_settings(places, config)
    servers, runs = settings.config.bootstrap_servers, settings.config.runs_dir
    if found is not None and "bootstrap_servers" not in given:
        before = Path(runs) / found.head.about.get("run", "") / "run.json"
        if before.is_file():
            record = read_record(before.parent)
            servers = None if record.embedded else record.broker
    again = _again(given["replay_from"]) if "replay_from" in given else None
    if again is not None and servers is None:
        raise UsageError(
            "experience on the embedded broker went with it", where="--replay-from",
            hint="train with --bootstrap-servers of Apache Kafka, which keeps it",
        )  # fmt: skip
    return Where(
        servers, settings.config.kafka, settings.config.namespace, runs, given.get("run"), config,
        Path.cwd(),
        again,
    )  # fmt: skip


def _again(text: str) -> Start | dt.datetime:
    """Where experience is read again from.

    Raises:
        UsageError: no place, and no time.
    """
    if text == "beginning":
        return "beginning"
    if text.isdecimal():
        return int(text)
    try:
        at = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"`{text[:60]}` is no place in a stream", where="--replay-from",
            hint="beginning, an offset, or a time of writing: 2026-07-17T09:15 (UTC)",
        ) from error  # fmt: skip
    return at if at.tzinfo is not None else at.replace(tzinfo=dt.UTC)


def _tell(begun: Begun, ended: Ended, seconds: float, *, as_json: bool) -> None:
    """What came of it."""
    from streambot.agents.checkpoint import read_head

    head, counts = read_head(begun.folder), ended.counts
    fates = {
        "fragments": counts.get("read", 0), "stale": counts.get("stale", 0),
        "duplicate": counts.get("duplicate", 0), "foreign": counts.get("foreign", 0),
        "broken": counts.get("broken", 0),
    }  # fmt: skip
    if as_json:
        emit(
            "policy", folder=str(begun.folder), kind=head.kind, updates=ended.updates,
            steps=ended.steps, wall_s=seconds, digest=head.digest, names=head.names,
            complete=ended.complete, training=ended.training.training, broker=ended.broker,
            restarts=ended.restarts, **fates,
        )  # fmt: skip
        return
    show(
        f"{head.kind} in {begun.folder}: {count(ended.updates, 'update')}, "
        f"{count(ended.steps, 'step')} in {duration(seconds)}"
    )
    show(
        f"experience: {count(fates['fragments'], 'fragment')} read; dropped "
        f"{fates['stale']:,} too old, {fates['duplicate']:,} repeated, {fates['foreign']:,} of others, "
        f"{fates['broken']:,} broken; {count(ended.restarts, 'restart')} of actors"
    )
    if head.names:
        show(f"experts, by the regimes that they serve: {', '.join(head.names)}")
    again = f"{COMMAND} --resume {begun.folder}"
    say(f"next: streambot {f'evaluate {begun.folder}' if ended.complete else again}", style="dim")
