"""How people reach a replay that goes: topics, keys, and the run that follows a seek.

Where other processes can read the streams of a run, there are a `control` and a `status` topic beside
them. Whoever holds `ReplayControls` in this process gives commands to whichever run is going, also
after a seek has started another one.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from streambot.domain.errors import StreambotError, UsageError
from streambot.domain.layers import Resolved
from streambot.processor.folder import check_run_name
from streambot.replay.commands import CommandStream
from streambot.streams.control import CONTROL, STATUS
from streambot.streams.ports import TopicPartition
from streambot.wiring.places import topic_names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from streambot.domain.replay_settings import Moment, Speed
    from streambot.replay.service import ReplayService
    from streambot.report.progress import Observer
    from streambot.report.summary import Summary
    from streambot.streams.control import Acknowledgement, Command
    from streambot.wiring.opening import OpenRun
    from streambot.wiring.places import Place

_SUCCESSOR = re.compile(r"(.+)\.s[0-9]+\Z")
_MOST_SUCCESSORS = 10_000
_GRACE_S = 20.0


class ReplayControls:
    """Commands of this process to the replay that goes.

    Args:
        on_sought: told the summary of a run that a seek ended, and the run that goes on.
    """

    def __init__(self, on_sought: Callable[[Summary, str], None] | None = None) -> None:
        self._on_sought = on_sought
        self._replay: ReplayService | None = None
        self._give: Callable[[Command], asyncio.Future[Acknowledgement]] | None = None

    @property
    def speed(self) -> Speed | None:
        """The speed asked for at the moment; None while nothing goes."""
        return None if self._replay is None else self._replay.speed

    @property
    def paused(self) -> bool:
        """A replay goes, and is paused."""
        return self._replay is not None and self._replay.status == "paused"

    def apply(self, command: Command) -> asyncio.Future[Acknowledgement] | None:
        """Give a command; None while nothing goes."""
        return None if self._give is None else self._give(command)

    def attach(
        self,
        replay: ReplayService,
        give: Callable[[Command], asyncio.Future[Acknowledgement]],
    ) -> None:
        """A replay goes."""
        self._replay, self._give = replay, give

    def detach(self) -> None:
        """It has ended."""
        self._replay = self._give = None

    def sought(self, summary: Summary, successor: str) -> None:
        """A seek has ended a run; `successor` is about to start."""
        if self._on_sought is not None:
            self._on_sought(summary, successor)


@asynccontextmanager
async def controlled(
    run: OpenRun, place: Place, service: ReplayService, controls: ReplayControls
) -> AsyncIterator[None]:
    """While this lasts, the replay takes commands: of this process, and of the run's control topic.

    Losing the control topic does not end the run: it is told, and the keys still work.
    """
    topics = run.folder.record.topics
    if not place.readable or CONTROL not in topics:
        controls.attach(service, service.apply)
        try:
            yield
        finally:
            controls.detach()
        return
    source = await place.log.source({TopicPartition(topics[CONTROL], 0): "end"})
    sink = await place.log.sink()
    commands = CommandStream(
        service, source=source, sink=sink, status=topics[STATUS], told=run.observer.warned
    )
    controls.attach(service, commands.give)
    reading = asyncio.create_task(_read(commands, run.observer), name="control")
    try:
        yield
        with suppress(StreambotError):  # a broker that is lost is told by those who need it
            await commands.settle()
    finally:
        controls.detach()
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        for user in (source, sink):
            with suppress(StreambotError):
                await user.close()


async def _read(commands: CommandStream, observer: Observer) -> None:
    try:
        await commands.run()
    except StreambotError as failure:
        # Where the broker is gone, the run ends or begins anew, and tells so itself.
        await asyncio.sleep(_GRACE_S)
        observer.warned(f"`streambot replay` cannot reach this run any more: {failure.message}")


def successor_of(run: OpenRun) -> Callable[[Moment], str]:
    """Names the run that a seek to a time would go on with; raises `UsageError` where none can."""
    return partial(_successor, run)


def _successor(run: OpenRun, target: Moment) -> str:
    if run.settings.config.from_run is not None:
        raise UsageError("a replay of a recording cannot seek: what a run knows is of its start")
    reports = zip(run.manifest.instruments, run.prepared.plan.instruments, strict=True)
    if not any(
        report.bars and target.start_ns(instrument.timezone) <= report.last_ns - report.timeframe_ns
        for instrument, report in reports
    ):
        raise UsageError(f"there is nothing to replay from {target} on")
    first = _SUCCESSOR.fullmatch(run.manifest.run) if run.manifest.parent is not None else None
    origin = run.manifest.run if first is None else first[1]
    folder = run.folder.path.parent
    for number in range(1, _MOST_SUCCESSORS):
        name = f"{origin}.s{number}"
        if not (folder / name).exists():
            check_run_name(name)
            topic_names(run.settings.config, name, run.cwd)
            return name
    raise UsageError(f"run {origin} has too many successors")


def next_run_after_seek(run: OpenRun, target: Moment, speed: Speed) -> Resolved:
    """The settings of the run that goes on at `target` with the speed of the moment, flat.

    Its indicators are warmed by the bars before, as those of any run that starts there.
    """
    config = msgspec.structs.replace(
        run.settings.config,
        start=target,
        speed=speed,
        run=_successor(run, target),
        # As it was given: the settings of a run name the file by its whole path.
        policy=run.manifest.policy.spec,
    )
    said = dict.fromkeys(("from", "speed", "run"), f"seek in {run.manifest.run}")
    return Resolved(config, {**run.settings.origins, **said})
