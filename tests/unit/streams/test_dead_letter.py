"""Dead letters: the original bytes, and enough beside them to find out what happened."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streambot.domain.errors import DecodeError
from streambot.streams.dead_letter import (
    MAX_MESSAGE_BYTES,
    dead_letter,
    dead_letter_line,
    read_burial,
    read_line,
    stated_burial,
)
from streambot.streams.ports import Record

CAUSE = DecodeError("checksum differs", reason="crc")


def record(value: bytes, **changes: object) -> Record:
    return Record("sb.r.ticks", 3, 41, 1_606_833_000_000, b"key", value, (("own", b"x"),))._replace(
        **changes
    )


@given(st.binary(max_size=200))
def test_round_trip_with_hostile_bytes(value):
    letter = dead_letter(record(value), CAUSE)
    assert (letter.value, letter.key) == (value, b"key")
    assert letter.timestamp_ms == 1_606_833_000_000
    buried = read_burial(record(letter.value, headers=letter.headers))
    assert (buried.stream, buried.partition, buried.offset) == ("sb.r.ticks", 3, 41)
    assert (buried.reason, buried.message) == ("crc", "checksum differs")


def test_the_same_record_gives_the_same_letter():
    assert dead_letter(record(b"x"), CAUSE) == dead_letter(record(b"x"), CAUSE)


def test_a_long_message_is_cut():
    letter = dead_letter(record(b"x"), DecodeError("é" * 5_000, reason="schema"))
    assert all(len(value) <= MAX_MESSAGE_BYTES for _, value in letter.headers)
    assert read_burial(record(b"x", headers=letter.headers)).message.startswith("éé")


@pytest.mark.parametrize(
    "headers", [(), (("stream", b"x"),), (("stream", b"x"), ("partition", b"one"))]
)
def test_no_dead_letter(headers):
    with pytest.raises(DecodeError, match="no dead letter"):
        read_burial(record(b"x", headers=headers))


def test_an_altered_value_is_noticed():
    letter = dead_letter(record(b"x"), CAUSE)
    with pytest.raises(DecodeError, match="not the one"):
        read_burial(record(b"y", headers=letter.headers))


@given(st.binary(max_size=200))
def test_a_line_of_the_file_says_the_same_as_the_record(value):
    buried, kept = read_line(dead_letter_line(record(value), CAUSE))
    letter = dead_letter(record(value), CAUSE)
    assert kept == value
    assert buried == read_burial(record(value, headers=letter.headers))


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b'{"stream": "x"}', b'{"value": "!"}'])
def test_a_line_that_is_none(line):
    with pytest.raises(DecodeError, match="no dead letter"):
        read_line(line)


def test_what_was_said_of_an_altered_value_can_still_be_read():
    letter = dead_letter(record(b"x"), CAUSE)
    assert stated_burial(record(b"y", headers=letter.headers)).reason == "crc"
