"""Numbers and running hashes of the frames of one partition, on both sides of the log.

The writer numbers frames from 0 and chains their digests; the reader drops repeats (counted),
stops at a gap, and compares the chain. `ChainState` is where either side stands: with it a writer
or a reader goes on after a restart. Only frames that were accepted move it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import msgspec

from streambot.domain.errors import OrderViolationError, SequenceGapError, StreamError
from streambot.streams.frame import (
    EMPTY_TICKS,
    NO_CLOSES,
    Frame,
    FrameKind,
    Totals,
    chain_of,
    encode_frame,
    first_chain,
    next_chain,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from streambot.domain.ticks import TickBlock


class ChainState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a partition stands: everything a writer or a reader needs to go on.

    Attributes:
        frame_seq: number of the next frame.
        chain: running hash of the frames before it.
        rows: rows so far.
        barrier: first interval that is not closed yet; so also the count of closed ones.
        t_hi: watermark, UTC ns; None before the first frame.
    """

    frame_seq: int
    chain: bytes
    rows: int
    barrier: int
    t_hi: int | None

    @classmethod
    def start(cls, run: bytes, partition: int) -> Self:
        """Before the first frame."""
        return cls(frame_seq=0, chain=first_chain(run, partition), rows=0, barrier=0, t_hi=None)

    def after(self, frame: Frame) -> ChainState:
        """Where the partition stands behind its next frame."""
        return ChainState(
            frame_seq=self.frame_seq + 1,
            chain=frame.chain,
            rows=self.rows + len(frame.ticks),
            barrier=self.barrier + len(frame.closes),
            t_hi=frame.t_hi,
        )

    @property
    def totals(self) -> Totals:
        """What an END frame here says."""
        return Totals(self.frame_seq, self.rows, self.barrier)


class FrameChain:
    """Writer of one partition: numbers, hashes, totals. Every method returns the frame's bytes.

    Args:
        run: 16 bytes that name the run.
        n_instruments: of the whole run, not of the partition.
        state: where to go on; None: at the start.
    """

    def __init__(
        self, run: bytes, partition: int, n_instruments: int, *, state: ChainState | None = None
    ) -> None:
        self.run = run
        self.partition = partition
        self.n_instruments = n_instruments
        self.state = state or ChainState.start(run, partition)

    def data(
        self,
        closes: npt.NDArray[np.int64],
        ticks: TickBlock,
        *,
        t_lo: int | None = None,
        t_hi: int | None = None,
    ) -> bytes:
        """A frame with `ticks`, closing the next `len(closes)` barriers at those times.

        `ticks.bar` counts from `state.barrier`. The span is taken from rows and closes where it is
        not given; a frame without either needs it.

        Raises:
            OrderViolationError: the frame starts before the watermark, or its rows go back in time.
            ValueError: it breaks another rule of frames.
        """  # fmt: skip
        edges = [
            int(column[end]) for column in (closes, ticks.ts) if len(column) for end in (0, -1)
        ]
        if t_lo is None:
            t_lo = min(edges)
        if t_hi is None:
            t_hi = max(edges)
        return self._append(FrameKind.DATA, t_lo, t_hi, closes, ticks)

    def control(self, payload: bytes, *, at: int | None = None) -> bytes:
        """A frame with an opaque note, at time `at` (UTC ns; None: the watermark)."""
        at = self._watermark if at is None else at
        return self._append(FrameKind.CONTROL, at, at, NO_CLOSES, EMPTY_TICKS, payload)

    def end(self) -> bytes:
        """The last frame, with the totals."""
        at = self._watermark
        return self._append(FrameKind.END, at, at, NO_CLOSES, EMPTY_TICKS)

    @property
    def _watermark(self) -> int:
        return 0 if self.state.t_hi is None else self.state.t_hi

    def _append(
        self, kind: FrameKind, t_lo: int, t_hi: int, closes: npt.NDArray[np.int64],
        ticks: TickBlock, payload: bytes = b"",
    ) -> bytes:  # fmt: skip
        state = self.state
        if state.t_hi is not None and t_lo < state.t_hi:
            raise OrderViolationError(
                f"frame {state.frame_seq} starts at {t_lo}, before the watermark {state.t_hi}",
                where=f"partition {self.partition}",
            )
        data = encode_frame(
            kind=kind, run=self.run, partition=self.partition, n_instruments=self.n_instruments,
            frame_seq=state.frame_seq, barrier_lo=state.barrier, t_lo=t_lo, t_hi=t_hi,
            chain=state.chain, closes=closes, ticks=ticks, payload=payload,
            totals=state.totals if kind is FrameKind.END else None,
        )  # fmt: skip
        self.state = ChainState(
            frame_seq=state.frame_seq + 1,
            chain=chain_of(data),
            rows=state.rows + len(ticks),
            barrier=state.barrier + len(closes),
            t_hi=t_hi,
        )
        return data


class SequenceGuard:
    """Reader of one partition: lets every frame through once, in order, or stops the run.

    Args:
        stream: name of the stream, for messages.
        state: where to go on (of a snapshot); None: at the start.

    Attributes:
        state: where the reader stands.
        repeats: frames that had been seen before, and were dropped.
        ended: an END frame was accepted.
    """

    def __init__(
        self, stream: str, run: bytes, partition: int, *, state: ChainState | None = None
    ) -> None:
        self.stream = stream
        self.partition = partition
        self.state = state or ChainState.start(run, partition)
        self.repeats = 0
        self.ended = False

    def accept(self, frame: Frame) -> bool:
        """True: the next frame. False: a repeat, to be dropped.

        Raises:
            SequenceGapError: a frame is missing before this one.
            OrderViolationError: the frame goes back behind the watermark or the barrier.
            StreamError: another frame under a number already seen, a chain that does not fit,
                totals that differ, a frame behind END.
        """
        state = self.state
        if frame.frame_seq < state.frame_seq:
            if frame.frame_seq == state.frame_seq - 1 and frame.chain != state.chain:
                raise self._wrong(frame, "another frame was seen under this number")
            self.repeats += 1
            return False
        if frame.frame_seq > state.frame_seq:
            raise SequenceGapError(
                self.stream, self.partition, expected=state.frame_seq, received=frame.frame_seq
            )
        if self.ended:
            raise self._wrong(frame, "it follows the end of the partition")
        if frame.chain != next_chain(state.chain, frame.digest):
            raise self._wrong(frame, "its running hash does not continue the frames before it")
        if frame.barrier_lo != state.barrier or (
            state.t_hi is not None and frame.t_lo < state.t_hi
        ):
            raise OrderViolationError(
                f"frame {frame.frame_seq} starts at barrier {frame.barrier_lo}, time {frame.t_lo}; "
                f"the partition stands at barrier {state.barrier}, time {state.t_hi}",
                where=f"{self.stream}/{self.partition}",
            )
        if frame.totals is not None and frame.totals != state.totals:
            raise self._wrong(frame, f"it says {frame.totals}, counted {state.totals}")
        self.state = state.after(frame)
        self.ended = frame.kind is FrameKind.END
        return True

    def _wrong(self, frame: Frame, why: str) -> StreamError:
        return StreamError(
            f"frame {frame.frame_seq} is wrong: {why}",
            where=f"{self.stream}/{self.partition}",
            hint="the recording was altered: replay it again from its source",
        )
