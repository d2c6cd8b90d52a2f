"""Windows made ready in a worker thread, one ahead of what is published.

Reading, expanding, splitting, and then what the way of publishing needs: at full speed all frames of
the window encoded, at pace all its rows with their schedule times. A `Treatment` says which. When
the way changes in the middle of a window, a new treatment is made: it goes on from what was
published, and whatever was made ready under the one before is made again, from the same windows.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from streambot.replay.emission import Encoded, encode
from streambot.replay.framing import WindowFrames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streambot.replay.framing import Framing, Position, WindowLike
    from streambot.replay.pacing import GapClock
    from streambot.streams.sequence import FrameChain

_T = TypeVar("_T")


class Treatment:
    """What is done to a window before it is published. Each belongs to one stretch of publishing.

    Args:
        chains: encode all of it with these; None: frame by frame, later.
        gaps: give its rows schedule times with this; None: nothing has a due time.
    """

    def __init__(
        self, *, chains: Sequence[FrameChain] | None = None, gaps: GapClock | None = None
    ) -> None:
        self.chains = chains
        self.gaps = gaps

    def of(self, frames: WindowFrames) -> Ready:
        """Make a window ready."""
        encoded: list[Encoded] = []
        if self.gaps is not None:
            frames.schedule(self.gaps)
        if self.chains is not None:
            encoded = [encode(self.chains[draft.partition], draft) for draft in frames.all()]
        return Ready(frames, encoded, self)


class Ready(NamedTuple):
    """A window under the treatment it had."""

    frames: WindowFrames
    encoded: list[Encoded]
    treatment: Treatment


class Ahead:
    """Draws windows in a thread.

    Args:
        windows: of the run, in order.
        framing: cuts them.

    Attributes:
        treatment: of the windows that follow.
    """

    def __init__(self, windows: Iterator[WindowLike], framing: Framing) -> None:
        self.treatment = Treatment()
        self._windows = windows
        self._framing = framing
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="replay")
        self._next: asyncio.Future[Ready | None] | None = None
        self._work: asyncio.Future[Any] | None = None

    async def next(self, positions: Sequence[Position]) -> Ready | None:
        """The next window, from `positions` on; None behind the last one.

        Raises:
            StreambotError: bars that cannot be trusted.
        """
        treatment = self.treatment
        drawn = await (self._next or self._in_thread(lambda: self._draw(treatment)))
        self._next = None
        if drawn is None:
            return None
        ready = await self.again(drawn, positions)
        self._next = self._in_thread(lambda: self._draw(treatment))
        return ready

    async def again(self, ready: Ready, positions: Sequence[Position]) -> Ready:
        """The same window under the present treatment, from `positions` on."""
        treatment = self.treatment
        if ready.treatment is treatment:
            return ready
        ready.frames.rewind(positions)
        return await self._in_thread(lambda: treatment.of(ready.frames))

    def close(self) -> None:
        """Let go of the thread, whatever it does."""
        for work in (self._next, self._work):
            if work is not None and not work.cancel() and not work.cancelled():
                work.exception()  # of a window that nobody needs any more
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _draw(self, treatment: Treatment) -> Ready | None:
        window = next(self._windows, None)
        return None if window is None else treatment.of(self._framing.open(window))

    def _in_thread(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        self._work = future
        return future
