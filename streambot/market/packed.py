"""Snapshots of state that is numpy arrays: their bytes, one after the other, and a check of both."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from streambot.domain.errors import DecodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

_CHECK_BYTES = 4


def pack_arrays(arrays: Sequence[npt.NDArray[Any]]) -> bytes:
    """The bytes of `arrays`, behind a checksum over them and their types."""
    body = b"".join(array.tobytes() for array in arrays)
    return _check(arrays, body) + body


def unpack_arrays(packed: bytes, arrays: Sequence[npt.NDArray[Any]]) -> None:
    """Write the bytes back into `arrays`, which have the shapes and types of those that were packed.

    Raises:
        DecodeError: other shapes or types, or damaged bytes. Nothing was written then.
    """
    expected = sum(array.nbytes for array in arrays)
    body = packed[_CHECK_BYTES:]
    if len(body) != expected:
        raise DecodeError(f"a state of {expected} bytes, not {len(body)}", reason="length")
    if packed[:_CHECK_BYTES] != _check(arrays, body):
        raise DecodeError("a state of other settings, or damaged", reason="crc")
    at = 0
    for array in arrays:
        array[...] = np.frombuffer(body, dtype=array.dtype, count=array.size, offset=at).reshape(
            array.shape
        )
        at += array.nbytes


def _check(arrays: Sequence[npt.NDArray[Any]], body: bytes) -> bytes:
    layout = repr([(array.shape, array.dtype.descr) for array in arrays]).encode()
    return zlib.crc32(body, zlib.crc32(layout)).to_bytes(_CHECK_BYTES, "little")
