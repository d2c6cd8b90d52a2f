"""Makes the compiled code ready before the clock of a paced run starts.

The first call of a compiled function loads it from the cache in a moment, or compiles it, which
takes seconds and happens once after an installation. In the middle of a run that would look like a
replay that cannot keep its schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streambot.domain.ticks import TickBlock, TickFlag
from streambot.engine.scripts import Script
from streambot.processor.task import TaskCore
from streambot.streams.frame import EMPTY_TICKS, decode_frame
from streambot.streams.sequence import FrameChain

if TYPE_CHECKING:
    from streambot.processor.manifest import RunManifest

_BARS = 3
_TICKS = 4


def warm_up(manifest: RunManifest) -> None:
    """Play a few made-up bars through a frame and a task that nobody keeps."""
    partition = manifest.partition_of[0]
    ticks = _BARS * _TICKS
    closing = int(TickFlag.BAR_CLOSE | TickFlag.SESSION_CLOSE)
    flags = np.array([int(TickFlag.BAR_OPEN), 0, 0, closing] * _BARS, np.uint8)
    chain = FrameChain(manifest.run_id, partition, len(manifest.instruments))
    bars = chain.data(
        np.arange(1, _BARS + 1, dtype=np.int64) * _TICKS,
        TickBlock(
            instrument=np.zeros(ticks, np.uint16),
            bar=np.repeat(np.arange(_BARS, dtype=np.uint16), _TICKS),
            flags=flags,
            ts=np.arange(ticks, dtype=np.int64),
            price=np.full(ticks, 1_000, np.int64),
            size=np.ones(ticks, np.int64),
        ),
    )
    empty = chain.data(np.array([_BARS * _TICKS + 1], np.int64), EMPTY_TICKS)
    core = TaskCore(manifest, partition, {}, Script.BUY_HOLD)
    for data in (bars, empty):
        core.step(decode_frame(data, manifest.run_id, partition, len(manifest.instruments)))
    core.status()
