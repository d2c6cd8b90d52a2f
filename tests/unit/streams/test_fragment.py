"""Fragments survive the way over a topic, and bytes that are none end in an error, never in a crash."""

from __future__ import annotations

import struct

import google_crc32c
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streambot.domain.errors import DecodeError
from streambot.streams.fragment import (
    MAX_FRAGMENT_BYTES,
    Fragment,
    FragmentHead,
    decode_fragment,
    encode_fragment,
    peek_fragment,
)


def made(steps=5, features=7, actions=4, experts=3, seed=1, **head) -> Fragment:
    rng = np.random.default_rng(seed)
    given_head = {
        "training": "t1", "actor": "a", "incarnation": 2, "sequence": 9, "layout": "abc", "env": 3,
        "episode": 4, "t_started": 10, "weights": 12,
    }  # fmt: skip
    return Fragment(
        FragmentHead(
            steps=steps, features=features, actions=actions, experts=experts, **given_head | head
        ),
        rng.normal(size=(steps + 1, features)).astype(np.float32),
        rng.integers(0, 2, (steps + 1, actions)).astype(np.uint8),
        rng.integers(0, actions, steps).astype(np.int32),
        *(rng.normal(size=s).astype(np.float32) for s in (steps, (steps, actions), (steps, experts), steps)),
    )  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(
    steps=st.integers(1, 40), features=st.integers(1, 80), actions=st.integers(1, 12),
    experts=st.integers(0, 4), seed=st.integers(0, 9), terminated=st.booleans(),
)  # fmt: skip
def test_comes_back_as_it_was(steps, features, actions, experts, seed, terminated):
    fragment = made(steps, features, actions, experts, seed, terminated=terminated, task="S@7")
    found = decode_fragment(encode_fragment(fragment))
    assert found.head == fragment.head == peek_fragment(encode_fragment(fragment))
    for ours, theirs in zip(found[1:], fragment[1:], strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_same_steps_same_bytes():
    assert encode_fragment(made()) == encode_fragment(made())


@pytest.mark.parametrize("experts", [0, 3])
def test_a_body_is_what_arrow_writes_of_its_columns(experts):
    """However it is put together: whoever reads it needs the documented schema and nothing else."""
    fragment = made(experts=experts)

    def column(name, kind, width=0):
        values = getattr(fragment, name)
        missing = fragment.head.steps + 1 - len(values)
        rows = [*values.tolist(), *np.zeros((missing, *values.shape[1:]), values.dtype).tolist()]
        inner = pa.field("item", kind, nullable=False)
        field = pa.field(name, pa.list_(inner, width) if width else kind, nullable=False)
        return field, pa.array(rows, field.type)

    fields, arrays = zip(
        column("obs", pa.float32(), 7), column("mask", pa.uint8(), 4), column("action", pa.int32()),
        column("log_prob", pa.float32()), column("log_probs", pa.float32(), 4),
        column("reward", pa.float32()),
        *([column("gate", pa.float32(), experts)] if experts else []), strict=True,
    )  # fmt: skip
    body = pa.record_batch(list(arrays), schema=pa.schema(fields)).serialize().to_pybytes()
    record = encode_fragment(fragment)
    (size,) = struct.unpack_from("<I", record, 8)
    assert record[12 + size :] == body


def test_columns_that_are_views_are_written_as_they_look():
    """Rows of a rollout lie apart in memory."""
    fragment = made()
    apart = [np.repeat(column, 3, 0)[::3] for column in fragment[1:]]
    assert encode_fragment(Fragment(fragment.head, *apart)) == encode_fragment(fragment)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_bit_that_flipped_is_noticed(data):
    record = bytearray(encode_fragment(made()))
    at = data.draw(st.integers(0, len(record) - 1))
    record[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(DecodeError):
        decode_fragment(bytes(record))


@settings(deadline=None, max_examples=200)
@given(cut=st.integers(0, 2_000))
def test_a_fragment_that_was_cut_is_noticed(cut):
    record = encode_fragment(made())
    with pytest.raises(DecodeError):
        decode_fragment(record[: min(cut, len(record) - 1)])


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes_give_an_error(noise):
    with pytest.raises(DecodeError):
        decode_fragment(noise)


@settings(deadline=None, max_examples=400)
@given(data=st.data())
def test_malice_with_a_right_checksum_gives_an_error_or_a_fragment(data):
    """A crc is no signature: whoever writes it again gets past it, and no further."""
    record = bytearray(encode_fragment(made(experts=data.draw(st.integers(0, 2)))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(8, len(record) - 1))
        record[at] = data.draw(st.integers(0, 255))
    struct.pack_into("<I", record, 4, google_crc32c.value(bytes(record[8:])))
    try:
        found = decode_fragment(bytes(record))
    except DecodeError:
        return
    assert found.obs.shape == (found.head.steps + 1, found.head.features)
    assert ((found.action >= 0) & (found.action < found.head.actions)).all()


@pytest.mark.parametrize(
    "lie",
    [{"steps": 4}, {"steps": 6}, {"features": 8}, {"actions": 5}, {"experts": 0}, {"steps": 4096}],
)
def test_a_head_that_lies_about_its_body_is_refused(lie):
    fragment = made()
    record = encode_fragment(fragment)
    (size,) = struct.unpack_from("<I", record, 8)
    text = msgspec.json.encode(msgspec.structs.replace(fragment.head, **lie))
    checked = struct.pack("<I", len(text)) + text + record[12 + size :]
    forged = record[:4] + struct.pack("<I", google_crc32c.value(checked)) + checked
    with pytest.raises(DecodeError):
        decode_fragment(forged)


def test_what_does_not_fit_is_not_written():
    fragment = made()
    with pytest.raises(ValueError, match="`reward` of"):
        encode_fragment(fragment._replace(reward=np.zeros(4, np.float32)))
    with pytest.raises(ValueError, match="bytes"):
        encode_fragment(made(steps=4_000, features=100))
    assert len(encode_fragment(made(steps=64, features=76, actions=12, experts=4))) < 40_000
    assert MAX_FRAGMENT_BYTES < 1_000_000
