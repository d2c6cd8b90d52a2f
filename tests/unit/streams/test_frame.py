"""Frames: what goes in comes out, and nothing else is ever taken for a frame."""

from __future__ import annotations

import struct

import google_crc32c
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.domain.errors import DecodeError, OrderViolationError
from streambot.domain.ticks import TickBlock, TickFlag
from streambot.streams.frame import (
    MAX_FRAME_BYTES,
    MAX_ROWS,
    MAX_SPAN,
    NO_CLOSES,
    FrameKind,
    Totals,
    decode_frame,
    empty_ticks,
    encode_frame,
    first_chain,
)
from streambot.streams.sequence import FrameChain
from tests.unit.streams.frames import INSTRUMENTS, RUN, block, blocks, frames, replaced

REASONS = {"short", "magic", "version", "schema", "crc", "length", "arrow", "domain", "foreign"}
OFFSETS = {"partition": ("<H", 30), "closes": ("<I", 32), "rows": ("<I", 36), "body": ("<I", 40),
           "instruments": ("<I", 44), "barrier_lo": ("<q", 72), "barrier_hi": ("<q", 80),
           "t_lo": ("<q", 88), "t_hi": ("<q", 96)}  # fmt: skip


def reseal(data: bytes) -> bytes:
    """The same bytes with a crc that fits: damage by a writer, not by the wire."""
    return data[:4] + google_crc32c.value(data[8:]).to_bytes(4, "little") + data[8:]


def patched(data: bytes, field: str, value: int) -> bytes:
    layout, at = OFFSETS[field]
    raw = struct.pack(layout, value)
    return reseal(data[:at] + raw + data[at + len(raw) :])


def reason(data: bytes, *, partition: int = 0, instruments: int = INSTRUMENTS) -> str:
    with pytest.raises(DecodeError) as caught:
        decode_frame(data, RUN, partition, instruments)
    return caught.value.reason


@given(blocks())
def test_round_trip(content):
    closes, ticks = content
    chain = FrameChain(RUN, 3, INSTRUMENTS)
    frame = decode_frame(chain.data(closes, ticks), RUN, 3, INSTRUMENTS)
    assert frame.kind is FrameKind.DATA
    assert frame.frame_seq == 0
    assert frame.chain == chain.state.chain
    np.testing.assert_array_equal(frame.closes, closes)
    for before, after in zip(ticks, frame.ticks, strict=True):
        np.testing.assert_array_equal(before, after)
        assert before.dtype == after.dtype
    edges = [*closes.tolist(), *ticks.ts.tolist()]
    assert (frame.t_lo, frame.t_hi) == (min(edges), max(edges))
    last = max([len(closes) - 1, *ticks.bar.tolist()])
    assert (frame.barrier_lo, frame.barrier_hi) == (0, last)


def test_columns_are_views_that_cannot_be_written():
    data = frames(1)[0]
    frame = decode_frame(data, RUN, 0, INSTRUMENTS)
    for column in (*frame.ticks, frame.closes):
        assert not column.flags.owndata
        assert not column.flags.writeable


def test_a_windows_wide_bar_is_narrowed_and_checked():
    closes, ticks = block(np.random.default_rng(1), 3, 10)
    wide = replaced(ticks, bar=ticks.bar.astype(np.uint32))
    assert FrameChain(RUN, 0, INSTRUMENTS).data(closes, wide) == FrameChain(
        RUN, 0, INSTRUMENTS
    ).data(closes, ticks)
    with pytest.raises(ValueError, match="uint16"):
        FrameChain(RUN, 0, INSTRUMENTS).data(closes, replaced(wide, bar=wide.bar + (1 << 16)))


def test_equal_content_gives_equal_bytes_however_the_columns_lie_in_memory():
    closes, ticks = block(np.random.default_rng(1), 3, 10)
    strided = TickBlock(*(np.repeat(column, 2)[::2] for column in ticks))
    assert FrameChain(RUN, 0, 5).data(closes, strided) == FrameChain(RUN, 0, 5).data(closes, ticks)


def test_a_full_frame_stays_below_the_brokers_limit():
    rng = np.random.default_rng(1)
    closes, ticks = block(rng, MAX_SPAN, MAX_ROWS)
    data = FrameChain(RUN, 0, INSTRUMENTS).data(closes, ticks)
    assert len(data) < MAX_FRAME_BYTES
    assert len(decode_frame(data, RUN, 0, INSTRUMENTS).closes) == MAX_SPAN
    with pytest.raises(ValueError, match="a frame holds up to"):
        FrameChain(RUN, 0, INSTRUMENTS).data(*block(rng, MAX_SPAN + 1, 1))
    with pytest.raises(ValueError, match="a frame holds up to"):
        FrameChain(RUN, 0, INSTRUMENTS).data(*block(rng, 1, MAX_ROWS + 1))


def test_a_run_of_empty_barriers_is_one_frame():
    closes, ticks = block(np.random.default_rng(1), 500, 0)
    frame = decode_frame(FrameChain(RUN, 0, 5).data(closes, ticks), RUN, 0, 5)
    assert len(frame.ticks) == 0
    assert (frame.barrier_lo, frame.barrier_hi) == (0, 499)


def test_end_and_control():
    chain = FrameChain(RUN, 0, INSTRUMENTS)
    closes, ticks = block(np.random.default_rng(1), 3, 10)
    chain.data(closes, ticks)
    note = decode_frame(chain.control(b'{"speed":"2x"}'), RUN, 0, INSTRUMENTS)
    assert (note.kind, note.payload, note.frame_seq) == (FrameKind.CONTROL, b'{"speed":"2x"}', 1)
    end = decode_frame(chain.end(), RUN, 0, INSTRUMENTS)
    assert (end.kind, end.totals) == (FrameKind.END, Totals(frames=2, rows=10, barriers=3))
    assert end.t_hi == closes[-1]


@pytest.mark.parametrize(
    ("breach", "error"),
    [
        ({"price": 0}, ValueError),
        ({"price": -5}, ValueError),
        ({"size": -2}, ValueError),
        ({"instrument": INSTRUMENTS}, ValueError),
        ({"flags": 8}, ValueError),
        ({"flags": TickFlag.SESSION_CLOSE}, ValueError),
        ({"ts": -1}, OrderViolationError),
        ({"bar": 4}, ValueError),
    ],
)
def test_the_writer_keeps_the_rules_of_rows(breach, error):
    closes, ticks = block(np.random.default_rng(1), 3, 10)
    (name, value), *_ = breach.items()
    column = getattr(ticks, name).copy()
    column[4] = value
    with pytest.raises(error):
        FrameChain(RUN, 0, INSTRUMENTS).data(
            closes, replaced(ticks, **{name: column}), t_lo=0, t_hi=1 << 50
        )


def _ticks(ts: list[int], bar: list[int], flags: list[int] | None = None) -> TickBlock:
    n = len(ts)
    return TickBlock(
        np.zeros(n, np.uint16), np.array(bar, np.uint16), np.array(flags or [0] * n, np.uint8),
        np.array(ts, np.int64), np.ones(n, np.int64), np.zeros(n, np.int64),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ticks", "why"),
    [
        (_ticks([5, 4], [0, 0]), "`ts` decreases"),
        (_ticks([11], [0]), "later than the close"),
        (_ticks([9], [1]), "earlier than the close"),
        (_ticks([11, 12], [1, 0]), "`bar` decreases"),
        (_ticks([1, 2], [0, 0], [2, 0]), "behind the BAR_CLOSE"),
        (_ticks([1, 2], [0, 0], [2, 2]), "behind the BAR_CLOSE"),
    ],
)
def test_ticks_that_go_back_in_time_are_refused_on_both_sides(ticks, why):
    closes = np.array([10, 20], np.int64)
    with pytest.raises(OrderViolationError, match=why):
        FrameChain(RUN, 0, 1).data(closes, ticks)
    # The same rows from a writer that does not check: take a legal frame and patch its columns.
    count = len(ticks.ts)
    legal = FrameChain(RUN, 0, 1).data(closes, _ticks([10] * count, [0] * count), t_lo=0)
    arrow = pa.RecordBatch.from_arrays(
        [pa.array(column) for column in ticks], names=list(TickBlock._fields)
    ).serialize()
    bad = reseal(legal[: -len(arrow)] + arrow.to_pybytes())
    with pytest.raises(DecodeError, match=why) as caught:
        decode_frame(bad, RUN, 0, 1)
    assert caught.value.reason == "domain"


def test_a_bar_may_close_again_in_the_next_interval():
    closes = np.array([10, 20], np.int64)
    data = FrameChain(RUN, 0, 1).data(closes, _ticks([10, 20], [0, 1], [2, 6]))
    assert decode_frame(data, RUN, 0, 1).ticks.flags.tolist() == [2, 6]


@pytest.mark.parametrize("closes", [[10, 10], [20, 10]])
def test_close_times_increase(closes):
    with pytest.raises(ValueError, match="close times"):
        FrameChain(RUN, 0, 1).data(np.array(closes, np.int64), empty_ticks(), t_lo=0, t_hi=30)


def test_what_a_kind_may_carry():
    closes, ticks = block(np.random.default_rng(1), 3, 10)
    common = {"run": RUN, "partition": 0, "n_instruments": 5, "frame_seq": 0, "barrier_lo": 0,
              "t_lo": 0, "t_hi": 1 << 50, "chain": first_chain(RUN, 0)}  # fmt: skip
    for wrong in (
        {"kind": FrameKind.END},
        {"kind": FrameKind.DATA, "totals": Totals(0, 0, 0)},
        {"kind": FrameKind.END, "totals": Totals(0, 0, 0), "ticks": ticks},
        {"kind": FrameKind.CONTROL, "closes": closes},
        {"kind": FrameKind.DATA, "payload": b"x"},
        {"kind": FrameKind.CONTROL, "payload": b"x" * 70_000},
        {"barrier_lo": -1},
        {"t_lo": 1 << 51},
    ):
        with pytest.raises(ValueError):  # noqa: PT011  # eight messages, one rule
            encode_frame(**common | wrong)


def test_foreign_frames():
    data = frames(1)[0]
    assert reason(data, partition=1) == "foreign"
    assert reason(data, instruments=6) == "foreign"
    with pytest.raises(DecodeError, match="belongs to run"):
        decode_frame(data, b"x" * 16, 0, INSTRUMENTS)


def test_every_cut_is_noticed():
    data = frames(1)[0]
    for size in range(len(data)):
        assert reason(data[:size]) in {"short", "length"}
    assert reason(data + b"\0") == "length"
    assert reason(b"") == "short"


def test_every_single_bit_is_noticed():
    data = frames(1, rows=3)[0]
    for at in range(len(data)):
        for bit in range(8):
            mutated = bytearray(data)
            mutated[at] ^= 1 << bit
            assert reason(bytes(mutated)) in REASONS


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("rows", 11, "arrow"), ("rows", 0, "length"), ("rows", 1 << 31, "length"),
        ("body", 1 << 31, "length"), ("closes", 4, "short"), ("closes", 1 << 31, "length"),
        ("barrier_hi", 9, "domain"), ("barrier_lo", -1, "domain"), ("t_lo", 1 << 60, "domain"),
        ("t_hi", 0, "domain"), ("instruments", 4, "foreign"), ("partition", 2, "foreign"),
    ],
)  # fmt: skip
def test_a_header_that_lies_with_a_good_crc(field, value, expected):
    assert reason(patched(frames(1)[0], field, value)) == expected


def test_nulls_are_refused():
    closes, ticks = block(np.random.default_rng(1), 3, 12)
    data = FrameChain(RUN, 0, INSTRUMENTS).data(closes, ticks)
    arrays = [pa.array(column) for column in ticks]
    arrays[4] = pa.array([None, *ticks.price[1:].tolist()], pa.int64())
    with_null = pa.RecordBatch.from_arrays(arrays, names=list(TickBlock._fields)).serialize()
    body_at = 104 + 8 * len(closes)
    bad = patched(data[:body_at] + with_null.to_pybytes(), "body", len(with_null))
    assert reason(bad) == "arrow"


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_compressed_batches_are_refused_before_they_can_grow(codec):
    n = 4_000
    closes = np.array([10], np.int64)
    ticks = TickBlock(*(np.ones(n, column.dtype) for column in empty_ticks()))
    ticks = replaced(ticks, bar=np.zeros(n, np.uint16))
    data = FrameChain(RUN, 0, INSTRUMENTS).data(closes, ticks)
    batch = pa.RecordBatch.from_arrays(
        [pa.array(column) for column in ticks], names=list(TickBlock._fields)
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(
        sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression=codec)
    ) as writer:
        writer.write_batch(batch)
    reader = pa.BufferReader(sink.getvalue())
    pa.ipc.read_message(reader)
    message = pa.ipc.read_message(reader).serialize().to_pybytes()
    message += bytes(29 * n - len(message))  # as long as the plain one: lengths are checked first
    bad = patched(data[: 104 + 8] + message, "body", len(message))
    assert reason(bad) == "arrow"


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_random_bytes_are_no_frame(data):
    assert reason(data) in REASONS


@settings(max_examples=200)
@given(st.binary(min_size=104, max_size=2_000), st.booleans())
def test_random_bytes_with_a_good_head_and_crc_are_no_frame(noise, keep_flatbuffer):
    """A malicious writer: everything it says about itself is right, only the batch is noise."""
    data = frames(1)[0]
    body_at = 104 + 8 * 3
    prefix = data[: body_at + 200] if keep_flatbuffer else data[:body_at]
    bad = prefix + noise[: len(data) - len(prefix)]
    bad += bytes(len(data) - len(bad))
    if keep_flatbuffer and bad == data:
        return
    try:
        decode_frame(reseal(bad), RUN, 0, INSTRUMENTS)
    except DecodeError as error:
        assert error.reason in REASONS  # noqa: PT017  # rows that happen to be legal may pass


def test_two_thousand_mutated_frames():
    """1,000 mutated frames each end in `dead-letter`: here each is a `DecodeError`, none a crash."""
    rng = np.random.default_rng(20201201)
    originals = frames(6, rows=200, intervals=10)
    seen = set()
    for k in range(2_000):
        original = originals[k % len(originals)]
        mutated = mutate(rng, original)
        if mutated == original:
            continue
        seen.add(reason(mutated))
    assert seen >= {"short", "crc", "length"}


def test_two_thousand_mutated_frames_whose_crc_fits():
    """Behind a good crc stand Arrow and the rules: an answer or `DecodeError`, never a crash."""
    rng = np.random.default_rng(20201202)
    originals = frames(6, rows=200, intervals=10)
    rejected = 0
    for k in range(2_000):
        mutated = mutate(rng, originals[k % len(originals)])
        if len(mutated) < 8:
            continue
        try:
            decode_frame(reseal(mutated), RUN, 0, INSTRUMENTS)
        except DecodeError as error:
            assert error.reason in REASONS  # noqa: PT017  # a price may change and stay a price
            rejected += 1
    assert rejected > 500


def mutate(rng: np.random.Generator, data: bytes) -> bytes:
    """Flip bits, cut, grow, swap, zero or overwrite with extreme integers."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(0, len(out) or 1))
        match int(rng.integers(0, 6)):
            case 0:
                out[at : at + 1] = bytes([out[at] ^ (1 << int(rng.integers(0, 8)))]) if out else b""
            case 1:
                del out[at:]
            case 2:
                out[at:at] = rng.bytes(int(rng.integers(1, 40)))
            case 3:
                out[at : at + 8] = struct.pack("<q", int(rng.choice([-1, 0, 1 << 62, -(1 << 63)])))
            case 4:
                out[at : at + 16] = out[:16]
            case _:
                out[at : at + 32] = bytes(min(32, len(out) - at))
    return bytes(out)


def test_closes_without_ticks_need_no_arrow():
    closes = np.array([10, 20], np.int64)
    data = FrameChain(RUN, 0, 1).data(closes, empty_ticks())
    assert len(data) == 104 + 16
    assert FrameChain(RUN, 0, 1).data(NO_CLOSES, _ticks([1], [0]))
