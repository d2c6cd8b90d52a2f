"""Nothing twice, nothing missing, nothing altered: numbers and running hash of a partition."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from streambot.domain.errors import OrderViolationError, SequenceGapError, StreamError
from streambot.streams.frame import Frame, decode_frame
from streambot.streams.sequence import ChainState, FrameChain, SequenceGuard
from tests.unit.streams.frames import INSTRUMENTS, MINUTE, RUN, block, frames, replaced


def decoded(data: list[bytes]) -> list[Frame]:
    return [decode_frame(frame, RUN, 0, INSTRUMENTS) for frame in data]


def guard(state: ChainState | None = None) -> SequenceGuard:
    return SequenceGuard("sb.r.ticks", RUN, 0, state=state)


def test_frames_in_order_pass_once_and_the_end_is_seen():
    reader = guard()
    for frame in decoded(frames(5)):
        assert reader.accept(frame)
    assert reader.ended
    assert reader.repeats == 0


def test_repeats_are_dropped_and_counted():
    reader = guard()
    items = decoded(frames(5))
    accepted = [f.frame_seq for f in (*items[:3], *items[:3], *items[2:]) if reader.accept(f)]
    assert accepted == [0, 1, 2, 3, 4, 5]
    assert reader.repeats == 4


def test_a_gap_stops_and_names_the_place():
    reader = guard()
    items = decoded(frames(5))
    reader.accept(items[0])
    with pytest.raises(SequenceGapError, match="expected frame 1, received frame 3|received 3"):
        reader.accept(items[3])
    assert reader.state.frame_seq == 1, "a refused frame must not move the reader"


def test_a_frame_replaced_by_another_one_is_noticed():
    items, others = decoded(frames(5)), decoded(frames(5, seed=8))
    reader = guard()
    reader.accept(items[0])
    with pytest.raises(StreamError, match="running hash"):
        reader.accept(others[1])
    with pytest.raises(StreamError, match="another frame was seen"):
        reader.accept(others[0])


def test_every_row_counts_in_the_chain():
    """The running hash tells two partitions apart that differ in one size of one tick."""
    closes, ticks = block(np.random.default_rng(1), 3, 10)
    size = ticks.size.copy()
    size[5] += 1
    one, two = FrameChain(RUN, 0, INSTRUMENTS), FrameChain(RUN, 0, INSTRUMENTS)
    one.data(closes, ticks)
    two.data(closes, replaced(ticks, size=size))
    assert one.state.chain != two.state.chain
    assert FrameChain(RUN, 1, INSTRUMENTS).state.chain != FrameChain(RUN, 0, 1).state.chain


def test_both_sides_go_on_from_a_saved_state():
    whole = frames(6)
    rng = np.random.default_rng(7)
    chain, out = FrameChain(RUN, 0, INSTRUMENTS), []
    for k in range(6):
        if k == 3:  # restart of the writer
            saved = msgspec.msgpack.decode(msgspec.msgpack.encode(chain.state), type=ChainState)
            chain = FrameChain(RUN, 0, INSTRUMENTS, state=saved)
        out.append(chain.data(*block(rng, 3, 12, start=k * 3 * MINUTE)))
    assert [*out, chain.end()] == whole
    reader = guard()
    for frame in decoded(whole)[:3]:
        reader.accept(frame)
    reader = guard(reader.state)
    assert [f.frame_seq for f in decoded(whole) if reader.accept(f)] == [3, 4, 5, 6]
    assert reader.repeats == 3


def test_the_writer_does_not_go_back_behind_its_watermark():
    chain = FrameChain(RUN, 0, INSTRUMENTS)
    chain.data(*block(np.random.default_rng(1), 3, 12))
    with pytest.raises(OrderViolationError, match="watermark"):
        chain.data(*block(np.random.default_rng(1), 3, 12))
    assert chain.state.frame_seq == 1, "a refused frame must not take a number"


def test_totals_must_be_what_was_counted():
    items = decoded(frames(2))
    reader = guard()
    for frame in items[:2]:
        reader.accept(frame)
    forged = msgspec.structs.replace(items[2], totals=items[2].totals._replace(rows=1))
    with pytest.raises(StreamError, match="counted"):
        reader.accept(forged)
    assert not reader.ended


def test_nothing_follows_the_end():
    chain = FrameChain(RUN, 0, INSTRUMENTS)
    end = decode_frame(chain.end(), RUN, 0, INSTRUMENTS)
    late = decode_frame(chain.data(*block(np.random.default_rng(1), 1, 3)), RUN, 0, INSTRUMENTS)
    reader = guard()
    assert reader.accept(end)
    with pytest.raises(StreamError, match="follows the end"):
        reader.accept(late)


def test_barriers_continue():
    items = decoded(frames(3))
    reader = guard()
    reader.accept(items[0])
    forged = msgspec.structs.replace(items[1], barrier_lo=4)
    with pytest.raises(OrderViolationError, match="barrier"):
        reader.accept(forged)
