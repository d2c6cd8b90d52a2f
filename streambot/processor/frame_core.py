"""A task whose agent is told when a frame begins: what decides may change then, and at no other time.

A mirror may take a frame in parts, an interval at a time. All of them are of one frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streambot.processor.task import TaskCore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from streambot.domain.events import SubmitOrder
    from streambot.engine.ordering import SlotContext
    from streambot.engine.slot_agents import StrategyFactory
    from streambot.processor.manifest import RunManifest
    from streambot.processor.step_output import StepOutput
    from streambot.streams.frame import Frame


class FrameCore(TaskCore):
    """See the module.

    Args:
        manifest, partition, context, agent: see `TaskCore`.
        begins: called before the first part of each frame.
    """

    def __init__(
        self,
        manifest: RunManifest,
        partition: int,
        context: Mapping[str, SlotContext],
        agent: StrategyFactory,
        begins: Callable[[], None],
    ) -> None:
        super().__init__(manifest, partition, context, agent)
        self._begins = begins
        self._frame_seq = -1

    def step(self, frame: Frame, orders: Sequence[SubmitOrder] = ()) -> StepOutput:
        """See `TaskCore.step`."""
        if frame.frame_seq != self._frame_seq:
            self._frame_seq = frame.frame_seq
            self._begins()
        return super().step(frame, orders)
