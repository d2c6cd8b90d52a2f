"""Following the files of a run: whole lines, the last so many, and an end when the run ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from streambot.cli import tail_files
from streambot.cli.tail_files import file_rows
from streambot.domain.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


async def collect(path: Path, **options: Any) -> list[Any]:
    """Numbers of the rows given; None where the start was reached."""
    options.setdefault("living", lambda: False)
    found: list[Any] = []
    async for batch in file_rows(path, **options):
        found += [None] if batch is None else [row["n"] for row in batch]
    return found


def lines(first: int, last: int) -> bytes:
    return b"".join(b'{"n":%d}\n' % n for n in range(first, last))


async def test_everything_then_the_mark(tmp_path: Path) -> None:
    path = tmp_path / "fills.ndjson"
    path.write_bytes(lines(0, 5))
    assert await collect(path) == [0, 1, 2, 3, 4, None]


async def test_a_file_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert await collect(tmp_path / "late.ndjson") == [None]
    assert await collect(tmp_path / "late.ndjson", last=3) == [None]


@pytest.mark.parametrize("block", [7, 64, 1 << 20])
@pytest.mark.parametrize("last", [0, 1, 3, 50, 51])
async def test_the_last_lines_whatever_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, last: int
) -> None:
    monkeypatch.setattr(tail_files, "_BLOCK", block)
    path = tmp_path / "fills.ndjson"
    path.write_bytes(lines(0, 50))
    found = await collect(path, last=last)
    assert [n for n in found if n is not None] == list(range(max(0, 50 - last), 50))


async def test_what_a_kill_left_behind_is_no_line(tmp_path: Path) -> None:
    path = tmp_path / "fills.ndjson"
    path.write_bytes(lines(0, 3) + b'{"n":')
    assert await collect(path) == [0, 1, 2, None]
    assert await collect(path, last=2) == [1, 2, None]
    assert await collect(path, last=0) == [None]


async def test_the_end_of_a_file_is_behind_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "fills.ndjson"
    path.write_bytes(lines(0, 3) + b'{"n":')
    states = iter([True, True, False, False])

    def living() -> bool:
        if not (alive := next(states)) and path.read_bytes().endswith(b":"):
            with path.open("ab") as file:
                file.write(b"3}\n")
        return alive

    assert await collect(path, last=0, living=living) == [None, 3]


async def test_goes_on_while_the_run_lives_and_loses_nothing_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_files, "POLL_S", 0.001)
    path = tmp_path / "fills.ndjson"
    path.write_bytes(lines(0, 2))
    alive = True

    async def write() -> None:
        nonlocal alive
        with path.open("ab") as file:
            for n in range(2, 40):
                whole = lines(n, n + 1)
                for part in (whole[:3], whole[3:]):  # a reader may see half a line
                    file.write(part)
                    file.flush()
                    await asyncio.sleep(0.0007)
        alive = False

    writer = asyncio.create_task(write())
    found = await collect(path, living=lambda: alive)
    await writer
    assert [n for n in found if n is not None] == list(range(40))
    assert found.count(None) == 1


async def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fills.ndjson"
    path.write_bytes(b'{"n":1}\n[3]\n')
    with pytest.raises(DataError, match="no JSON object") as caught:
        await collect(path)
    assert caught.value.where == str(path)
