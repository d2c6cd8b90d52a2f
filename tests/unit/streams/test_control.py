"""Commands and acknowledgements: what is written is read, whatever else comes is a `DecodeError`."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streambot.domain.errors import DecodeError
from streambot.domain.replay_settings import MAX_SPEED, Speed
from streambot.streams.control import (
    MAX_BYTES,
    Acknowledgement,
    AskStatus,
    Pause,
    ReplayStatus,
    Resume,
    Seek,
    SetSpeed,
    Step,
    decode_acknowledgement,
    decode_command,
    encode_acknowledgement,
    encode_command,
    word_of,
)

WHO = {"id": "a1", "sender": "cli-7f", "number": 3}
COMMANDS = [
    Pause(**WHO), Resume(**WHO), Step(**WHO, count=5), SetSpeed(**WHO, speed="0.5x"),
    SetSpeed(**WHO, speed="max"), Seek(**WHO, time="2020-12-15T10:30"), AskStatus(**WHO),
]  # fmt: skip
ACKNOWLEDGEMENT = Acknowledgement(
    **WHO, command="seek", applied=True, reason="", barrier=61, event_time=-5, at=9,
    status=ReplayStatus.SOUGHT, speed="100x", successor="run.s1",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=word_of)
def test_a_command_reads_back(command):
    data = encode_command(command)
    assert decode_command(data) == command
    assert msgspec.json.decode(data)["command"] == word_of(command)


def test_values_are_typed():
    assert SetSpeed(**WHO, speed="0.5x").value == Speed(1, 2)
    assert SetSpeed(**WHO, speed="max").value == MAX_SPEED
    assert Seek(**WHO, time="2020-12-15").value.is_date


def test_an_acknowledgement_reads_back_and_says_what_it_is():
    data = encode_acknowledgement(ACKNOWLEDGEMENT)
    assert decode_acknowledgement(data) == ACKNOWLEDGEMENT
    assert msgspec.json.decode(data)["schema"] == "streambot.replay-acknowledgement/1"


def test_other_records_of_status_are_none_of_ours():
    assert decode_acknowledgement(b'{"schema":"streambot.published/1","ns":5}') is None
    assert decode_acknowledgement(b"{}") is None


def test_fields_of_a_later_version_are_ignored():
    later = msgspec.json.decode(encode_command(COMMANDS[0])) | {"colour": "blue"}
    assert decode_command(msgspec.json.encode(later)) == COMMANDS[0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "short"),
        (b"  \n", "short"),
        (b" " * MAX_BYTES + b"{}", "length"),
        (b"pause", "schema"),
        (b"\xff\xfe", "schema"),
        (b"null", "schema"),
        (b"[" * 4_000, "schema"),
        (b'{"command":"halt","id":"a","sender":"b"}', "schema"),
        (b'{"id":"a","sender":"b"}', "schema"),
        (b'{"command":"pause","sender":"b"}', "schema"),
        (b'{"command":"pause","id":"a\\n","sender":"b"}', "schema"),
        (b'{"command":"pause","id":"","sender":"b"}', "schema"),
        (b'{"command":"pause","id":"a","sender":"../b"}', "schema"),
        (b'{"command":"pause","id":"a","sender":"b","number":-1}', "schema"),
        (b'{"command":"pause","id":"a","sender":"b","number":"1"}', "schema"),
        (b'{"command":"step","id":"a","sender":"b","count":0}', "schema"),
        (b'{"command":"step","id":"a","sender":"b","count":1e99}', "schema"),
        (b'{"command":"step","id":"a","sender":"b","count":true}', "schema"),
        (b'{"command":"speed","id":"a","sender":"b"}', "schema"),
        (b'{"command":"speed","id":"a","sender":"b","speed":"-1x"}', "schema"),
        (b'{"command":"speed","id":"a","sender":"b","speed":"0"}', "schema"),
        (b'{"command":"seek","id":"a","sender":"b","time":"tomorrow"}', "schema"),
        (b'{"command":"seek","id":"a","sender":"b","time":"9999-01-01"}', "schema"),
    ],
)
def test_hostile_bytes_are_a_decode_error(data, reason):
    with pytest.raises(DecodeError) as caught:
        decode_command(data)
    assert caught.value.reason == reason


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_random_bytes_are_a_decode_error(data):
    with pytest.raises(DecodeError):
        decode_command(data)


@given(st.sampled_from(COMMANDS), st.data())
def test_a_mutated_command_is_a_command_or_a_decode_error(command, data):
    raw = bytearray(encode_command(command))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_command(bytes(raw))
    except DecodeError:
        return
    assert type(decoded) in {type(known) for known in COMMANDS}


@pytest.mark.parametrize(
    "change",
    [{"barrier": -1}, {"status": "gone"}, {"reason": "\x1b[2J"}, {"applied": 1}, {"at": None}],
)
def test_an_acknowledgement_with_a_field_that_cannot_be_is_a_decode_error(change):
    fields = msgspec.json.decode(encode_acknowledgement(ACKNOWLEDGEMENT)) | change
    with pytest.raises(DecodeError):
        decode_acknowledgement(msgspec.json.encode(fields))
