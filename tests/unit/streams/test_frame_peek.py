"""The header of a frame for people: right where the frame is good, harmless where it is anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streambot.streams.frame import decode_frame
from streambot.streams.frame_peek import peek
from tests.unit.streams.frames import INSTRUMENTS, RUN, frames


@pytest.mark.parametrize("number", [0, 2, 3])
def test_of_a_good_frame_it_says_what_the_frame_says(number):
    data = frames(3)[number]
    frame, seen = decode_frame(data, RUN, 0, INSTRUMENTS), peek(data)
    assert seen is not None
    assert seen.intact
    assert seen.size_stated == len(data)
    assert (seen.kind, seen.run, seen.rows) == (frame.kind.name, RUN.hex(), len(frame.ticks))
    for name in ("partition", "frame_seq", "barrier_lo", "barrier_hi", "t_lo", "t_hi"):
        assert getattr(seen, name) == getattr(frame, name), name


def test_a_flipped_bit_shows():
    data = bytearray(frames(1)[0])
    data[-1] ^= 1
    seen = peek(bytes(data))
    assert seen is not None
    assert not seen.intact


def test_a_kind_that_there_is_not():
    data = bytearray(frames(1)[0])
    data[28] = 99
    seen = peek(bytes(data))
    assert seen is not None
    assert seen.kind == "99"


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_looked_at_without_harm(data, like_a_frame):
    seen = peek(b"SBF1" + data if like_a_frame else data)
    if not like_a_frame and not data.startswith(b"SBF1"):
        assert seen is None


def test_half_a_header_is_none():
    assert peek(frames(1)[0][:103]) is None
