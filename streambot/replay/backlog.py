"""How far the engine is behind the replay, and the limit of it: the only brake at full speed.

One event loop, no threads. Records and bytes are counted, not barriers: a barrier may be one row or
a hundred thousand.
"""

from __future__ import annotations

import asyncio

MAX_FRAMES = 64
MAX_BYTES = 64 << 20


class Backlog:
    """Frames published that the engine has not processed yet.

    Args:
        max_frames: frames behind at which the replay waits.
        max_bytes: bytes behind at which it waits.
    """

    def __init__(self, *, max_frames: int = MAX_FRAMES, max_bytes: int = MAX_BYTES) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._room = asyncio.Event()
        self._room.set()
        self._drained = asyncio.Event()
        self._drained.set()
        self.frames = 0
        self.bytes = 0

    async def room(self) -> None:
        """Wait until the engine is near enough for another frame."""
        await self._room.wait()

    async def drained(self) -> None:
        """Wait until the engine is through with everything that was published."""
        await self._drained.wait()

    def published(self, size: int) -> None:
        """A frame of `size` bytes was handed to the log."""
        self._move(1, size)

    def processed(self, frames: int, size: int) -> None:
        """The engine is through with `frames` frames of `size` bytes together."""
        self._move(-frames, -size)

    def _move(self, frames: int, size: int) -> None:
        # A resumed run also processes frames that an earlier process had published.
        self.frames = max(0, self.frames + frames)
        self.bytes = max(0, self.bytes + size)
        if self.frames == 0:
            self._drained.set()
        else:
            self._drained.clear()
        if self.frames < self._max_frames and self.bytes < self._max_bytes:
            self._room.set()
        else:
            self._room.clear()
