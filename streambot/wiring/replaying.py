"""The replay of a run, in one process with its engine or by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streambot.replay.framing import Framing
from streambot.replay.service import MonotonicClock, ReplayService
from streambot.streams.sequence import FrameChain
from streambot.wiring.controlling import successor_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from streambot.domain.replay_settings import Moment, Speed
    from streambot.replay.backlog import Backlog
    from streambot.replay.emission import Published
    from streambot.replay.resumption import ResumePoint
    from streambot.streams.ports import Sink
    from streambot.wiring.opening import OpenRun


def replay_service(
    run: OpenRun,
    sink: Sink,
    topics: Mapping[str, str],
    points: Sequence[ResumePoint],
    *,
    speed: Speed,
    backlog: Backlog,
    on_published: Callable[[Published], None],
    before_end: Callable[[Moment], Awaitable[None]] | None = None,
) -> ReplayService:
    """The service that publishes a run.

    Args:
        run: what is replayed.
        sink: where the frames go.
        topics: full name of every stream.
        points: where each partition goes on.
        speed: at the start.
        backlog: how far the engine may be behind.
        on_published: told of every frame.
        before_end: see `ReplayService`.
    """
    manifest = run.manifest
    waiting = [point.position.barrier for point in points if not point.ended]
    return ReplayService(
        windows=run.prepared.timeline.windows(min(waiting)) if waiting else iter(()),
        framing=Framing(
            manifest.partition_of, manifest.partitions, start=[point.position for point in points]
        ),
        chains=[
            FrameChain(manifest.run_id, p, len(manifest.instruments), state=point.writer)
            for p, point in enumerate(points)
        ],
        sink=sink,
        stream=topics["ticks"],
        speed=speed,
        gaps=run.settings.config.gaps,
        backlog=backlog,
        clock=MonotonicClock(),
        on_published=on_published,
        complete={p for p, point in enumerate(points) if point.ended},
        successor=successor_of(run),
        before_end=before_end,
    )
