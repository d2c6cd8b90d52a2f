"""What the header of a frame says, of bytes that are no good frame: for people, trusting nothing."""

from __future__ import annotations

from typing import NamedTuple

import google_crc32c

# The layout stands in one place; `decode_frame` refuses what is to be looked at here.
from streambot.streams.frame import _CRC_FROM, _HEAD, MAGIC, FrameKind


class Peek(NamedTuple):
    """A header as it stands, right or wrong.

    Attributes:
        kind: `DATA`, `END`, `CONTROL`, or its number where that is none of them.
        crc_stored, crc_computed: equal where the bytes are as they were written.
        size_stated: bytes that a frame with these counts has.
        run: 16 bytes in hexadecimal.
    """

    version: int
    schema: int
    kind: str
    run: str
    partition: int
    instruments: int
    frame_seq: int
    barrier_lo: int
    barrier_hi: int
    t_lo: int
    t_hi: int
    closes: int
    rows: int
    size_stated: int
    crc_stored: int
    crc_computed: int

    @property
    def intact(self) -> bool:
        """True where the checksum holds."""
        return self.crc_stored == self.crc_computed


def peek(data: bytes) -> Peek | None:
    """The header at the start of `data`; None where it is too short, or starts like no frame."""
    if len(data) < _HEAD.size or not data.startswith(MAGIC):
        return None
    (
        _, crc, _, version, schema, kind, partition, closes, rows, body, instruments, run, frame_seq,
        barrier_lo, barrier_hi, t_lo, t_hi,
    ) = _HEAD.unpack_from(data)  # fmt: skip
    known = {int(one): one.name for one in FrameKind}
    return Peek(
        version=version, schema=schema, kind=known.get(kind, str(kind)), run=run.hex(),
        partition=partition, instruments=instruments, frame_seq=frame_seq, barrier_lo=barrier_lo,
        barrier_hi=barrier_hi, t_lo=t_lo, t_hi=t_hi, closes=closes, rows=rows,
        size_stated=_HEAD.size + 8 * closes + body, crc_stored=crc,
        crc_computed=google_crc32c.value(data[_CRC_FROM:]),
    )  # fmt: skip
