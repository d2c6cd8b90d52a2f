"""Where a replay goes on behind what the log holds: every frame carries the progress of its partition.

The number, the hash and the watermark stand in the frame; how many rows the partition and its open
interval have so far stand in two headers of the record. So the last record alone says it, and it
was stored together with what it tells of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from streambot.domain.errors import DecodeError, StreamError
from streambot.replay.framing import Position
from streambot.streams.frame import FrameKind, decode_frame
from streambot.streams.sequence import ChainState

if TYPE_CHECKING:
    from streambot.streams.ports import Headers, Record

_ROWS, _OPEN_ROWS = "rows", "open_rows"


class ResumePoint(NamedTuple):
    """Where a partition goes on.

    Attributes:
        writer: number, hash, rows and watermark of the next frame.
        position: the same in barriers and rows of the open interval.
        ended: its END is there: nothing is left to publish.
    """

    writer: ChainState
    position: Position
    ended: bool


def progress_headers(state: ChainState, position: Position) -> Headers:
    """Headers of a frame behind which the partition stands so."""
    return ((_ROWS, str(state.rows).encode()), (_OPEN_ROWS, str(position.rows).encode()))


def resume_point(
    last: Record | None, run: bytes, partition: int, n_instruments: int
) -> ResumePoint:
    """Where a partition goes on behind its last record; None: it has none.

    Raises:
        StreamError: the last record is no frame of this run, or does not say.
    """
    if last is None:
        return ResumePoint(ChainState.start(run, partition), Position(), ended=False)
    where = f"{last.stream}/{partition}/{last.offset}"
    try:
        frame = decode_frame(last.value, run, partition, n_instruments)
        headers = dict(last.headers)
        rows, open_rows = int(headers[_ROWS]), int(headers[_OPEN_ROWS])
    except (DecodeError, KeyError, ValueError) as cause:
        raise StreamError(
            f"the replay cannot go on behind it: {cause}",
            where=where,
            hint="somebody else wrote to the ticks of this run: start another run",
        ) from cause
    writer = ChainState(
        frame_seq=frame.frame_seq + 1,
        chain=frame.chain,
        rows=rows,
        barrier=frame.barrier_lo + len(frame.closes),
        t_hi=frame.t_hi,
    )
    return ResumePoint(
        writer, Position(writer.barrier, open_rows), ended=frame.kind is FrameKind.END
    )
