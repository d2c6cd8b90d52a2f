"""Records of a run from its files: whole lines only, and on as long as the run lives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from streambot.domain.errors import DataError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

Row = dict[str, Any]
Batch = list[Row] | None
"""Rows in their order; None once, when everything that was there at the start has been given."""

POLL_S = 0.1
_BLOCK = 1 << 20


async def file_rows(
    path: Path,
    *,
    living: Callable[[], bool],
    last: int | None = None,
    offset: int = 0,
) -> AsyncGenerator[Batch]:
    """Rows of a file of a run, from `offset` on, until the run no longer lives and all was read.

    Args:
        path: the file; it may not be there yet.
        living: True while somebody may still append.
        last: begin with the last so many lines of what is there; None: with all of them.
        offset: where to begin, bytes.

    Raises:
        DataError: a line is no JSON object.
    """
    size = _size(path)
    if last is not None:
        offset = _start_of_last(path, last, size)
    position, rest, caught_up = offset, b"", False
    while True:
        # Asked before reading: what was appended before the run ended is read below.
        alive = living()
        block = _read(path, position)
        position += len(block)
        *lines, rest = (rest + block).split(b"\n")
        if lines:
            yield [decode_row(line, where=str(path)) for line in lines if line]
        if not caught_up and position >= size:
            caught_up = True
            yield None
        if not block:
            if not alive:
                return  # a rest without its newline is what a kill left behind
            await asyncio.sleep(POLL_S)


def decode_row(line: bytes, *, where: str) -> Row:
    """One record from its JSON.

    Raises:
        DataError: it is no JSON object.
    """
    try:
        return msgspec.json.decode(line, type=Row)
    except msgspec.MsgspecError as cause:
        shown = line[:60].decode("utf-8", "replace")
        raise DataError(f"`{shown}` is no JSON object: {cause}", where=where) from cause


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read(path: Path, position: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(position)
            return file.read(_BLOCK)
    except FileNotFoundError:
        return b""


def _start_of_last(path: Path, count: int, size: int) -> int:
    """Offset of the first of the last `count` whole lines, found from the end."""
    if not size:
        return 0
    with path.open("rb") as file:
        position, tail = size, b""
        while position > 0 and tail.count(b"\n") <= count:
            step = min(_BLOCK, position)
            position -= step
            file.seek(position)
            tail = file.read(step) + tail
    end = tail.rfind(b"\n")  # what follows is no whole line yet
    for _ in range(count):
        end = tail.rfind(b"\n", 0, end)
        if end < 0:
            return position
    return position + end + 1
