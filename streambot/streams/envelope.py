"""What records of experience and of weights are packed in: a header that says what they are, a checksum.

    offset  bytes  field
         0      4  magic
         4      4  crc32c over everything behind it
         8      4  bytes of the header
        12         header (JSON), then the body

The checksum comes before anything is believed. It is no signature: what is behind it is checked all
the same by whoever reads header and body.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, TypeVar

import google_crc32c
import msgspec

from streambot.domain.errors import DecodeError

_HEAD = struct.Struct("<4sII")
_CRC_FROM = 8
Header = TypeVar("Header", bound=msgspec.Struct)


class Envelope(NamedTuple):
    """A kind of record.

    Attributes:
        magic: four bytes at the front.
        header: type of the header.
        most: bytes of a record, at most.
        most_header: of these, bytes of the header.
    """

    magic: bytes
    header: type[Any]
    most: int
    most_header: int = 4_096

    def seal(self, header: msgspec.Struct, body: bytes | memoryview) -> bytes:
        """The record.

        Raises:
            ValueError: too many bytes.
        """
        text = msgspec.json.encode(header)
        checked = b"".join((struct.pack("<I", len(text)), text, body))
        record = self.magic + struct.pack("<I", google_crc32c.value(checked)) + checked
        if len(record) > self.most or len(text) > self.most_header:
            raise ValueError(
                f"a record of {len(record):,} bytes, {len(text):,} of them header: at most "
                f"{self.most:,} and {self.most_header:,}"
            )
        return record

    def open(self, record: bytes) -> tuple[Any, memoryview]:
        """Header and body of a record.

        Raises:
            DecodeError: the bytes are none of these, or damaged.
        """
        if not _HEAD.size <= len(record) <= self.most:
            raise DecodeError(f"{len(record):,} bytes", reason="length")
        magic, crc, size = _HEAD.unpack_from(record)
        if magic != self.magic:
            raise DecodeError(f"it does not begin with {self.magic.decode()}", reason="magic")
        if size > min(self.most_header, len(record) - _HEAD.size):
            raise DecodeError(f"a header of {size:,} bytes", reason="length")
        if google_crc32c.value(record[_CRC_FROM:]) != crc:
            raise DecodeError("its checksum does not hold", reason="crc")
        end = _HEAD.size + size
        try:
            header = msgspec.json.decode(record[_HEAD.size : end], type=self.header)
        except (msgspec.MsgspecError, UnicodeDecodeError) as cause:
            raise DecodeError(f"no header: {cause}", reason="schema") from cause
        return header, memoryview(record)[end:]
