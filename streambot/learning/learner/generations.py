"""Generations of a training's streams, on a broker that frees memory only when topics are deleted.

    experience.g0000, policy.g0000 -> (64 MiB written) -> experience.g0001, policy.g0001 -> ...

A generation is opened, declared, and told to actors with the weights; the one before it goes once a
checkpoint has learnt from all that it holds, and experience that could still come to it would be too
old to be used. Pins go with the weights into the newer one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from streambot.learning.declaration import EXPERIENCE, POLICY, declare_training, generation
from streambot.streams.ports import StreamSpec
from streambot.streams.reading import read_to_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from streambot.learning.declaration import Training
    from streambot.streams.ports import Log

ROLL_BYTES = 64 << 20
ROLLED = (EXPERIENCE, POLICY)


class Generations:
    """The newest generation of a training's streams, and when the next one is due.

    Args:
        log: where they are.
        training: as it is declared: its first generation.
        now_ms: wall time of a record.
        roll_bytes: written to a generation before the next one is opened.

    Attributes:
        training: as it is declared now.
    """

    def __init__(
        self,
        log: Log,
        training: Training,
        now_ms: Callable[[], int],
        *,
        roll_bytes: int = ROLL_BYTES,
    ) -> None:
        self._log, self._now_ms, self._roll_bytes = log, now_ms, roll_bytes
        self._number = 0
        self._bytes = 0
        self.training = training

    def wrote(self, size: int) -> None:
        """So many bytes went into the newest generation."""
        self._bytes += size

    @property
    def due(self) -> bool:
        """True once it is full."""
        return self._bytes >= self._roll_bytes

    async def roll(self) -> Training:
        """Open the next generation: its streams are there, pins are copied, and it is declared.

        Returns:
            The training as it is declared now.
        """
        before = self.training
        self._number, self._bytes = self._number + 1, 0
        topics = dict(before.topics)
        for stream in ROLLED:
            base = topics[stream].removesuffix(generation("", self._number - 1))
            topics[stream] = generation(base, self._number)
        await self._log.create([StreamSpec(name=topics[stream]) for stream in ROLLED])
        await self._copy_pins(before.topics[POLICY], topics[POLICY], before.policy.encode())
        self.training = msgspec.structs.replace(before, topics=topics)
        await declare_training(self._log, self.training, at_ms=self._now_ms())
        return self.training

    async def _copy_pins(self, before: str, after: str, policy: bytes) -> None:
        pins = {
            record.key: record
            async for batch in read_to_end(self._log, before)
            for record in batch
            if record.key is not None and record.key.startswith(policy + b"@")
        }
        if not pins:
            return
        sink = await self._log.sink()
        try:
            for key, record in pins.items():
                await sink.append(after, 0, record.value, timestamp_ms=record.timestamp_ms, key=key)
            await sink.flush()
        finally:
            await sink.close()
