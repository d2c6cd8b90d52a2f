"""Frames: a run of ticks of one partition as bytes (`docs/concepts.md`, Frame).

A frame is `header | closes int64[] | Arrow record batch without schema`. The record batch has
fixed-width columns only, is not compressed and has no nulls, so that its buffers are the columns.

Reading trusts nothing: magic, version, schema and lengths, then the crc32c over everything behind
it, then whose frame it is, and only then does Arrow see a byte; Arrow's own full validation
follows, then the rules of `frame_rules`. About a quarter of randomly mutated record batches pass
Arrow's validation: the crc is not optional. A crc is no signature either, so a frame made with
malice must still end in `DecodeError`, never in a crash or a huge allocation.

The *digest* of a frame is the blake2b hash of everything but magic, crc and chain; the *chain* of a
partition is `blake2b(chain before | digest)`. The digest needs nothing but the frame, so frames can
be checked apart from each other, and their order afterwards (`sequence`).

    offset  bytes  field
         0      4  magic `SBF1`
         4      4  crc32c over everything behind it
         8     16  chain, this frame included
        24      2  version of the header
        26      2  schema of the record batch
        28      2  kind
        30      2  partition
        32      4  count of close times
        36      4  count of rows
        40      4  bytes of the body behind the close times
        44      4  count of instruments in the run
        48     16  run
        64      8  frame_seq
        72      8  barrier_lo
        80      8  barrier_hi
        88      8  t_lo
        96      8  t_hi
"""

from __future__ import annotations

import struct
from enum import IntEnum
from hashlib import blake2b
from typing import Any, NamedTuple

import google_crc32c
import msgspec
import numpy as np
import numpy.typing as npt  # msgspec reads the annotations of `Frame`
import pyarrow as pa

from streambot.domain.errors import DecodeError, OrderViolationError
from streambot.domain.ticks import TickBlock
from streambot.streams.frame_rules import MESSAGES, ORDER_RULES, first_breach

MAGIC = b"SBF1"
VERSION = 1
SCHEMA_ID = 1
MAX_ROWS = 8_192
"""Most rows of a frame."""
MAX_SPAN = 65_535
"""Most barriers that one frame closes: `bar` is uint16."""
MAX_FRAME_BYTES = 900_000
"""Brokers take records up to about 1 MiB unless told otherwise."""
MAX_PAYLOAD_BYTES = 65_536
CHAIN_BYTES = 16

_HEAD = struct.Struct("<4sI16sHHHHIIII16sQqqqq")
_TOTALS = struct.Struct("<QQQ")
_ORIGIN = struct.Struct("<16sH")
_HASHED = 24  # the digest starts behind magic, crc and chain
_CRC_FROM = 8
# Six columns of 29 bytes a row, each padded to 64 bytes, and the flatbuffer in front of them.
_ROW_BYTES = 29
_ARROW_OVERHEAD = 6 * 64 + 1_024
_SCHEMA = pa.schema(
    [
        pa.field("instrument", pa.uint16(), nullable=False),
        pa.field("bar", pa.uint16(), nullable=False),
        pa.field("flags", pa.uint8(), nullable=False),
        pa.field("ts", pa.int64(), nullable=False),
        pa.field("price", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
    ]
)
_DTYPES: tuple[Any, ...] = (np.uint16, np.uint16, np.uint8, np.int64, np.int64, np.int64)


class FrameKind(IntEnum):
    """DATA carries ticks and closes, END the totals of its partition, CONTROL an opaque note."""

    DATA = 0
    END = 1
    CONTROL = 2


class Totals(NamedTuple):
    """What a partition held: DATA and CONTROL frames before END, rows, barriers closed."""

    frames: int
    rows: int
    barriers: int


class Frame(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A decoded frame. Arrays are views of the bytes it was read from, and cannot be written.

    Attributes:
        run: 16 bytes that name the run.
        frame_seq: number in its partition, from 0 without gaps.
        barrier_lo: interval of `bar == 0`, and the first barrier the frame may close.
        barrier_hi: last interval with content: a close or a row.
        t_lo, t_hi: span of the frame, UTC ns; `t_hi` is the watermark: nothing earlier follows.
        closes: int64 [m], close times of the barriers `barrier_lo .. barrier_lo + m - 1`; m = 0
            where the frame ends inside its interval.
        ticks: rows; `bar` = interval minus `barrier_lo`, at most m.
        digest: hash of this frame alone.
        chain: running hash of the partition, this frame included.
        totals: of an END frame, else None.
        payload: of a CONTROL frame, else empty.
    """

    kind: FrameKind
    run: bytes
    partition: int
    frame_seq: int
    barrier_lo: int
    barrier_hi: int
    t_lo: int
    t_hi: int
    closes: npt.NDArray[np.int64]
    ticks: TickBlock
    digest: bytes
    chain: bytes
    totals: Totals | None = None
    payload: bytes = b""


def empty_ticks() -> TickBlock:
    """A block without rows, with the columns' types."""
    return TickBlock(*(np.empty(0, dtype) for dtype in _DTYPES))


EMPTY_TICKS = empty_ticks()
NO_CLOSES: npt.NDArray[np.int64] = np.empty(0, np.int64)


def first_chain(run: bytes, partition: int) -> bytes:
    """Chain before the first frame of a partition."""
    return blake2b(_ORIGIN.pack(run, partition), digest_size=CHAIN_BYTES).digest()


def next_chain(chain: bytes, digest: bytes) -> bytes:
    """Chain behind a frame with that digest."""
    return blake2b(chain + digest, digest_size=CHAIN_BYTES).digest()


def last_interval(barrier_lo: int, closes: npt.NDArray[np.int64], ticks: TickBlock) -> int:
    """`barrier_hi`: the last interval with a close or a row (at least `barrier_lo`)."""
    last_row = int(ticks.bar[-1]) if len(ticks) else 0
    return barrier_lo + max(len(closes) - 1, last_row, 0)


def encode_frame(
    *,
    run: bytes,
    partition: int,
    n_instruments: int,
    frame_seq: int,
    barrier_lo: int,
    t_lo: int,
    t_hi: int,
    chain: bytes,
    closes: npt.NDArray[np.int64] = NO_CLOSES,
    ticks: TickBlock = EMPTY_TICKS,
    kind: FrameKind = FrameKind.DATA,
    totals: Totals | None = None,
    payload: bytes = b"",
) -> bytes:
    """Bytes of one frame. `chain` is the chain *before* it; `chain_of(result)` the one behind.

    Most callers want `sequence.FrameChain`, which keeps number and chain.

    Raises:
        OrderViolationError: ticks go back in time.
        ValueError: any other breach of the rules of a frame: a fault of the caller.
    """  # fmt: skip
    closes = np.ascontiguousarray(closes, np.int64)
    ticks = _contiguous(ticks)
    _refuse_oversize(len(ticks), len(closes), len(payload))
    if kind is not FrameKind.DATA and (len(ticks) or len(closes)):
        raise ValueError(f"a {kind.name} frame has neither rows nor closes")
    if (kind is FrameKind.END) != (totals is not None):
        raise ValueError("END frames, and only they, have totals")
    if payload and kind is not FrameKind.CONTROL:
        raise ValueError("only CONTROL frames have a payload")
    if t_lo > t_hi or barrier_lo < 0:
        raise ValueError(f"impossible span: barrier {barrier_lo}, {t_lo} to {t_hi}")
    rule, row = first_breach(ticks, closes, t_lo, t_hi, n_instruments)
    if rule:
        error = OrderViolationError if rule in ORDER_RULES else ValueError
        raise error(f"frame {frame_seq} of partition {partition}, row {row}: {MESSAGES[rule]}")
    body: bytes | pa.Buffer = payload
    if totals is not None:
        body = _TOTALS.pack(*totals)
    elif len(ticks):
        arrays = [pa.array(column) for column in ticks]
        body = pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA).serialize()
    head = _HEAD.pack(
        MAGIC, 0, b"", VERSION, SCHEMA_ID, kind, partition, len(closes), len(ticks),
        len(body), n_instruments, run, frame_seq, barrier_lo,
        last_interval(barrier_lo, closes, ticks), t_lo, t_hi,
    )  # fmt: skip
    parts = (head[_HASHED:], closes.tobytes(), bytes(body))
    hashed = blake2b(digest_size=CHAIN_BYTES)
    for part in parts:
        hashed.update(part)
    after = next_chain(chain, hashed.digest())
    crc = google_crc32c.value(after)
    for part in parts:
        crc = google_crc32c.extend(crc, part)
    return b"".join((MAGIC, crc.to_bytes(4, "little"), after, *parts))


def chain_of(frame: bytes) -> bytes:
    """Chain of an encoded frame, itself included."""
    return frame[_CRC_FROM:_HASHED]


def decode_frame(data: bytes, run: bytes, partition: int, n_instruments: int) -> Frame:
    """The frame in `data`, which must belong to `run`, `partition` and that many instruments.

    Raises:
        DecodeError: `data` is no such frame; `reason` says in one word what is wrong with it.
    """
    (
        magic, crc, chain, version, schema, kind_code, of_partition, n_closes, n_rows, body_len,
        of_instruments, of_run, frame_seq, barrier_lo, barrier_hi, t_lo, t_hi,
    ) = _head(data)  # fmt: skip
    if magic != MAGIC:
        raise DecodeError("does not start like a frame", reason="magic")
    if version != VERSION:
        raise DecodeError(f"unknown version {version}", reason="version")
    if schema != SCHEMA_ID:
        raise DecodeError(f"unknown schema {schema}", reason="schema")
    whole = pa.py_buffer(data)  # slices without copying, also where only `bytes` would do
    _check_lengths(kind_code, len(data), n_closes, n_rows, body_len)
    if google_crc32c.value(whole.slice(_CRC_FROM)) != crc:
        raise DecodeError("checksum differs", reason="crc")
    if (of_run, of_partition, of_instruments) != (run, partition, n_instruments):
        raise DecodeError(
            f"belongs to run {of_run.hex()}, partition {of_partition}, "
            f"with {of_instruments} instruments",
            reason="foreign",
        )
    body_at = _HEAD.size + 8 * n_closes
    closes = np.frombuffer(data, np.int64, n_closes, _HEAD.size)
    ticks = _ticks(data, whole, body_at, n_rows) if n_rows else EMPTY_TICKS
    if barrier_lo < 0 or t_lo > t_hi:
        raise DecodeError(
            f"impossible span: barrier {barrier_lo}, {t_lo} to {t_hi}", reason="domain"
        )
    rule, row = first_breach(ticks, _aligned(closes), t_lo, t_hi, n_instruments)
    if rule:
        raise DecodeError(f"row {row}: {MESSAGES[rule]}", reason="domain")
    if barrier_hi != last_interval(barrier_lo, closes, ticks):
        raise DecodeError(f"last interval is not {barrier_hi}", reason="domain")
    kind = FrameKind(kind_code)
    return Frame(
        kind=kind, run=of_run, partition=of_partition, frame_seq=frame_seq,
        barrier_lo=barrier_lo, barrier_hi=barrier_hi, t_lo=t_lo, t_hi=t_hi, closes=closes,
        ticks=ticks, chain=chain,
        digest=blake2b(whole.slice(_HASHED), digest_size=CHAIN_BYTES).digest(),
        totals=Totals(*_TOTALS.unpack_from(data, body_at)) if kind is FrameKind.END else None,
        payload=data[body_at:] if kind is FrameKind.CONTROL else b"",
    )  # fmt: skip


def _contiguous(ticks: TickBlock) -> TickBlock:
    """Columns as the record batch and the compiled rules want them; copies only where it must."""
    if ticks.bar.dtype != np.uint16 and len(ticks) and ticks.bar.max() > np.iinfo(np.uint16).max:
        raise ValueError("`bar` of a frame does not fit into uint16")
    columns: list[Any] = [
        np.require(column, dtype, ("C", "A")) for column, dtype in zip(ticks, _DTYPES, strict=True)
    ]
    return TickBlock(*columns)


def _refuse_oversize(rows: int, closes: int, payload: int) -> None:
    if rows > MAX_ROWS or closes > MAX_SPAN or payload > MAX_PAYLOAD_BYTES:
        raise ValueError(
            f"a frame holds up to {MAX_ROWS} rows, {MAX_SPAN} closes and {MAX_PAYLOAD_BYTES} bytes "
            f"of payload, not {rows}, {closes} and {payload}"
        )


def _head(data: bytes) -> tuple:  # type: ignore[type-arg]  # one struct, unpacked by its caller
    if len(data) < _HEAD.size:
        raise DecodeError(f"{len(data)} bytes: shorter than a header", reason="short")
    return _HEAD.unpack_from(data)


def _check_lengths(kind: int, size: int, n_closes: int, n_rows: int, body_len: int) -> None:
    if kind == FrameKind.DATA:
        least, most = (
            (n_rows * _ROW_BYTES, n_rows * _ROW_BYTES + _ARROW_OVERHEAD) if n_rows else (0, 0)
        )
        fits = n_rows <= MAX_ROWS and n_closes <= MAX_SPAN and least <= body_len <= most
    elif kind == FrameKind.END:
        fits = n_rows == n_closes == 0 and body_len == _TOTALS.size
    elif kind == FrameKind.CONTROL:
        fits = n_rows == n_closes == 0 and body_len <= MAX_PAYLOAD_BYTES
    else:
        raise DecodeError(f"unknown kind {kind}", reason="schema")
    expected = _HEAD.size + 8 * n_closes + body_len
    if not fits or size > MAX_FRAME_BYTES:
        raise DecodeError(
            f"impossible lengths: {n_rows} rows, {n_closes} closes, {body_len} bytes of body",
            reason="length",
        )
    if size != expected:
        raise DecodeError(
            f"{size} bytes, expected {expected}", reason="short" if size < expected else "length"
        )


def _ticks(data: bytes, whole: pa.Buffer, body_at: int, n_rows: int) -> TickBlock:
    _refuse_compression(data, body_at)
    try:
        batch = pa.ipc.read_record_batch(whole.slice(body_at), _SCHEMA)
        batch.validate(full=True)
    except (pa.ArrowException, EOFError, OSError, ValueError, TypeError, IndexError) as cause:
        raise DecodeError(f"no record batch: {cause}", reason="arrow") from cause
    columns = batch.columns
    if batch.num_rows != n_rows or any(column.null_count for column in columns):
        raise DecodeError("record batch differs from its header", reason="arrow")
    arrays: list[Any] = [_aligned(column.to_numpy(zero_copy_only=True)) for column in columns]
    return TickBlock(*arrays)


def _aligned(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return column if column.flags.aligned else column.copy()


def _refuse_compression(data: bytes, at: int) -> None:
    """Refuse a batch whose buffers are compressed: a small frame could claim gigabytes.

    Arrow has no option for that, so this looks up the one field in the flatbuffer: message ->
    header (field 2) -> record batch -> compression (field 3), absent in what streambot writes.
    """
    try:
        message = at + 8 + _u32(data, at + 8)
        header = message + _field(data, message, 2)
        compressed = _field(data, header + _u32(data, header), 3)
    except struct.error as cause:
        raise DecodeError("no record batch: cut short", reason="arrow") from cause
    if compressed or header == message:
        raise DecodeError("no plain record batch", reason="arrow")


def _u32(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """Offset of a field inside a flatbuffer table; 0: absent."""
    vtable = table - int(struct.unpack_from("<i", data, table)[0])
    if vtable < 0:
        raise struct.error
    slot = 4 + 2 * number
    if slot >= int(struct.unpack_from("<H", data, vtable)[0]):
        return 0
    return int(struct.unpack_from("<H", data, vtable + slot)[0])
