"""A run before it goes: new or old, its settings, its folder and what was prepared for it."""

from __future__ import annotations

import asyncio
import datetime as dt
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from streambot.domain.config import Resolved, SimulationConfig, config_yaml, find_config, resolve
from streambot.domain.errors import ConfigError
from streambot.domain.layers import DEFAULT
from streambot.processor.durable import write_atomic
from streambot.processor.folder import RunFolder
from streambot.processor.manifest import RunManifest
from streambot.processor.snapshot import TaskSnapshot
from streambot.report.progress import Observer
from streambot.wiring.places import (
    topic_names,
)
from streambot.wiring.policies import rooted
from streambot.wiring.preparation import Prepared, prepare, prepare_again
from streambot.wiring.recording import (
    find_recording,
    prepare_recorded,
    prepare_recorded_again,
    with_recording,
)
from streambot.wiring.scenario import with_scenario
from streambot.wiring.served import KEPT, put
from streambot.wiring.serving import scratch, weights_for
from streambot.wiring.starts import (
    load_snapshots,
)
from streambot.wiring.stopping import StopRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streambot.wiring.serving import Asked

_RESUMABLE = ("speed", "gaps")
_T = TypeVar("_T")


class OpenRun(NamedTuple):
    """A run that is about to go, and everything that belongs to it."""

    settings: Resolved
    prepared: Prepared
    manifest: RunManifest
    folder: RunFolder
    snapshots: list[TaskSnapshot | None]
    observer: Observer
    stop: StopRequest
    cwd: Path
    resumed: bool


async def new_run(
    settings: Resolved,
    observer: Observer,
    stop: StopRequest,
    cwd: Path,
    *,
    parent: str | None = None,
    trainings_at: Sequence[Asked] = (),
) -> OpenRun:
    """A new run: scenario and settings, its bars looked through, its folder made.

    Args:
        settings: what to do.
        observer: told what happens.
        stop: may be asked for at any time.
        cwd: where relative paths start.
        parent: the run that a seek left for this one.
        trainings_at: further brokers to ask for the weights of a training.

    Raises:
        StreambotError: what is wrong; nothing is left behind.
        KeyboardInterrupt: a stop was asked for before there was anything to stop.
    """
    settings = with_scenario(settings, cwd)
    recording, own = None, None
    if settings.config.from_run is not None:
        recording = await _unless_stopped(partial(find_recording, settings.config, cwd), stop)
        repeated = settings.origins["policy"] == DEFAULT
        settings = with_recording(settings, recording)
        own = recording.manifest.policy if repeated else None
    with scratch() as empty:
        reading = partial(
            weights_for, settings.config, cwd, empty, parent=parent, then=trainings_at
        )
        taken = await _unless_stopped(reading, stop)
        config, kept = settings.config, None
        if taken is not None:
            config, kept = msgspec.structs.replace(config, policy=taken.name), taken.folder
        make = partial(prepare, config, cwd, kept=kept)
        if recording is not None:
            make = partial(prepare_recorded, config, recording, cwd, policy=own, kept=kept)
        prepared = await _unless_stopped(make, stop)
        if taken is not None:
            prepared = prepared._replace(warnings=(*prepared.warnings, *taken.warnings))
        day = dt.datetime.fromtimestamp(prepared.plan.first_ns // 10**9, dt.UTC).date()
        folder = RunFolder.create(cwd / config.runs_dir, config.run, day)
        try:
            manifest = msgspec.structs.replace(prepared.manifest(folder.path.name), parent=parent)
            topic_names(config, manifest.run, cwd)
            if kept is not None:
                config = msgspec.structs.replace(config, policy=str(put(kept, folder.path)))
            settings = Resolved(_rooted(config, cwd), settings.origins)
            write_atomic(folder.path / "config.yaml", config_yaml(settings).encode())
        except BaseException:
            folder.discard()
            raise
    return OpenRun(
        settings, prepared, manifest, folder, [None] * manifest.partitions, observer, stop, cwd,
        resumed=False,
    )  # fmt: skip


async def old_run(
    settings: Resolved, name: str, observer: Observer, stop: StopRequest, cwd: Path
) -> OpenRun:
    """A run that exists, to go on with: its own settings, with another speed or gaps where asked.

    Raises:
        StreambotError: it cannot be resumed, and stays as it is.
        KeyboardInterrupt: a stop was asked for before there was anything to stop.
    """
    folder = RunFolder.open(cwd / settings.config.runs_dir, name)
    try:
        folder.check_resumable()
        manifest = _stored_manifest(folder)
        kept = resolve({}, {}, find_config(folder.path / "config.yaml", cwd))
        changes = {
            field: getattr(settings.config, field)
            for field in _RESUMABLE
            if settings.origins[field] != DEFAULT
        }
        config = msgspec.structs.replace(
            kept.config, **changes, runs_dir=settings.config.runs_dir, kafka=settings.config.kafka
        )
        if (folder.path / KEPT).is_dir():  # also where the folder of all runs has moved
            config = msgspec.structs.replace(config, policy=str((folder.path / KEPT).resolve()))
        again = prepare_again if config.from_run is None else prepare_recorded_again
        prepared = await _unless_stopped(partial(again, config, manifest, cwd), stop)
        snapshots = load_snapshots(folder.path, manifest)
    except BaseException:
        folder.close()
        raise
    return OpenRun(
        Resolved(config, kept.origins), prepared, manifest, folder, snapshots, observer, stop, cwd,
        resumed=True,
    )  # fmt: skip


async def _unless_stopped(work: Callable[[], _T], stop: StopRequest) -> _T:
    """The result of `work` in a thread; a stop before there is anything to stop ends it at once."""
    working = asyncio.create_task(asyncio.to_thread(work))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise KeyboardInterrupt
        return working.result()
    finally:
        stopping.cancel()
        working.cancel()


def _stored_manifest(folder: RunFolder) -> RunManifest:
    try:
        return msgspec.json.decode(folder.record.manifest, type=RunManifest)
    except msgspec.MsgspecError as cause:
        raise ConfigError(
            f"its manifest cannot be read: {cause}", where=str(folder.path / "run.json")
        ) from cause


def _rooted(config: SimulationConfig, cwd: Path) -> SimulationConfig:
    """The same with absolute paths, so that a run can be resumed from any folder."""

    def absolute(text: str) -> str:
        return str((cwd / Path(text).expanduser()).resolve())

    return msgspec.structs.replace(
        config,
        data=tuple(absolute(item) for item in config.data),
        registry=absolute(config.registry) if config.registry else None,
        policy=rooted(config, cwd),
    )
