"""`streambot dlq ls|show|export`: records that could not be read, why, and their bytes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from streambot.cli.console import emit, say, show, terminal_width, warn
from streambot.cli.groups import AsJson, several
from streambot.cli.human import count, place, plain, table, utc_text
from streambot.cli.settings import ConfigFile, RunsDir, read_settings
from streambot.domain.errors import DataError, UsageError

if TYPE_CHECKING:
    from streambot.cli.dead_letters import Found, Letter
    from streambot.cli.which_broker import KnownRun
    from streambot.domain.config import Resolved
    from streambot.streams.frame_peek import Peek

INDEX_FILE = "index.json"
SHOWN_BYTES = 256
_ROW = 16

Run = Annotated[
    str | None,
    typer.Option("--run", metavar="NAME", help="Which run. Default: the newest one here."),
]
Servers = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-servers", metavar="HOST:PORT",
        help="Default: the run's own broker, else the run's file.",
    ),
]  # fmt: skip


def ls(
    run: Run = None,
    bootstrap_servers: Servers = None,
    config: ConfigFile = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """List the dead letters of a run, and count them by reason."""
    _, known, found = _find(run, bootstrap_servers, config, runs_dir)
    counts = Counter((one.burial.reason, one.burial.partition) for one in found.letters)
    if as_json:
        for one in found.letters:
            emit("dead-letter-listed", run=known.name, **_fields(one))
        emit(
            "dead-letters", run=known.name, source=found.shown, letters=len(found.letters),
            repeats=found.repeats, altered=sum(not one.intact for one in found.letters),
            counts=[
                {"reason": reason, "partition": partition, "letters": number}
                for (reason, partition), number in sorted(counts.items())
            ],
        )  # fmt: skip
        return
    say(f"run {known.name}: {found.shown}", style="dim")
    if not found.letters:
        show("no dead letters")
        return
    _show_list(found, counts)
    say(f"next: streambot dlq show 1 --run {known.name}", style="dim")


def show_one(
    letter: Annotated[
        str,
        typer.Argument(metavar="N", help="Number that `ls` gives, or PARTITION/OFFSET."),
    ],
    run: Run = None,
    most: Annotated[
        int, typer.Option("--bytes", metavar="N", min=0, help="How many bytes; 0: all.")
    ] = SHOWN_BYTES,
    bootstrap_servers: Servers = None,
    config: ConfigFile = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Show a dead letter: why, its bytes, what its header says."""
    from streambot.cli.dead_letters import read_values
    from streambot.streams.frame_peek import peek

    settings, known, found = _find(run, bootstrap_servers, config, runs_dir)
    wanted = _choose(letter, known, found)

    async def read() -> bytes | None:
        bytes_of_it = None
        async for one, value in read_values(found, settings):
            if one.number == wanted.number:
                bytes_of_it = value  # to the end: a reader that is left half way is not closed
        return bytes_of_it

    value = asyncio.run(read())
    if value is None:
        raise DataError("it is no longer there", where=wanted.place)
    header = peek(value)
    if as_json:
        emit(
            "dead-letter-shown", run=known.name, **_fields(wanted),
            header=None if header is None else header._asdict() | {"intact": header.intact},
            value=value,
        )  # fmt: skip
        return
    for line in _described(wanted, found, header, value):
        show(line)
    shown = value if most == 0 else value[:most]
    for line in hex_lines(shown):
        show(line)
    if len(shown) < len(value):
        say(f"{count(len(value) - len(shown), 'more byte')}; --bytes 0 shows all", style="dim")


def export(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A new or an empty folder.")],
    run: Run = None,
    bootstrap_servers: Servers = None,
    config: ConfigFile = None,
    runs_dir: RunsDir = None,
    as_json: AsJson = False,
) -> None:
    """Write every dead letter's bytes into a file of its own.

    The files are called 000001.bin and so on; index.json says of each where it stood and why it is dead.
    """
    settings, known, found = _find(run, bootstrap_servers, config, runs_dir)
    target = Path(folder)
    _check_empty(target)
    target.mkdir(parents=True, exist_ok=True)
    entries = asyncio.run(_write_all(target, found, settings))
    index = {
        "schema": "streambot.dead-letters-exported/1", "run": known.name, "source": found.shown,
        "letters": entries,
    }  # fmt: skip
    data = msgspec.json.format(msgspec.json.encode(index), indent=2)
    (target / INDEX_FILE).write_bytes(data + b"\n")
    if as_json:
        emit(
            "dead-letters-exported", run=known.name, folder=str(target), letters=len(entries),
            index=str(target / INDEX_FILE),
        )  # fmt: skip
    else:
        show(f"{count(len(entries), 'dead letter')} in {place(target)}; {INDEX_FILE} says which")


def hex_lines(data: bytes) -> Iterator[str]:
    """Bytes as `hexdump -C` shows them."""
    for at in range(0, len(data), _ROW):
        row = data[at : at + _ROW]
        left, right = row[: _ROW // 2].hex(" "), row[_ROW // 2 :].hex(" ")
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{at:08x}  {left:<23}  {right:<23}  |{text}|"


def _find(
    run: str | None, servers: str | None, config: str | None, runs_dir: str | None
) -> tuple[Resolved, KnownRun, Found]:
    from streambot.cli.dead_letters import find_letters
    from streambot.cli.which_broker import find_known

    flags = {"run": run, "bootstrap_servers": servers, "runs_dir": runs_dir}
    settings = read_settings(flags, config)
    known = find_known(settings)
    return settings, known, asyncio.run(find_letters(settings, known))


def _show_list(found: Found, counts: Counter[tuple[str, int]]) -> None:
    rows = [
        (
            str(one.number),
            plain(one.burial.stream.rpartition(".")[2]),
            str(one.burial.partition),
            str(one.burial.offset),
            plain(one.burial.reason),
            f"{one.size:,}",
            plain(one.burial.message),
        )
        for one in found.letters
    ]
    headings = ("#", "stream", "partition", "offset", "reason", "bytes", "message")
    right = "#|partition|offset|bytes"
    for line in table(headings, rows, right=right, width=terminal_width(), optional="stream"):
        show(line)
    show()
    by_reason = [(plain(r), str(p), f"{number:,}") for (r, p), number in sorted(counts.items())]
    for line in table(("reason", "partition", "letters"), by_reason, right="partition|letters"):
        show(line)
    if found.repeats:
        say(f"{count(found.repeats, 'record')} more bury one of these once again")
    altered = [str(one.number) for one in found.letters if not one.intact]
    if altered:
        warn(f"the bytes are not those that were buried: {', '.join(altered)}")


def _choose(text: str, known: KnownRun, found: Found) -> Letter:
    partition, slash, offset = text.partition("/")
    if not (partition.isdecimal() and (offset.isdecimal() if slash else not offset)):
        raise UsageError(
            f"`{text[:60]}` names no dead letter", hint="a number of `streambot dlq ls`, or 0/17"
        )
    for one in found.letters:
        if slash and (one.burial.partition, one.burial.offset) == (int(partition), int(offset)):
            return one
        if not slash and one.number == int(partition):
            return one
    there = f"it has {len(found.letters)}" if found.letters else "it has none"
    raise UsageError(
        f"run {known.name} has no dead letter {text}: {there}",
        hint=f"streambot dlq ls --run {known.name}",
    )


def _described(letter: Letter, found: Found, header: Peek | None, value: bytes) -> Iterator[str]:
    burial = letter.burial
    altered = "" if letter.intact else ", and NOT the bytes that were buried"
    yield f"dead letter {letter.number} of {len(found.letters)}: {plain(letter.place)}"
    yield f"  {plain(burial.reason)}: {plain(burial.message)}"
    yield f"  {count(len(value), 'byte')}, sha256 {plain(burial.sha256)}{altered}"
    if header is None:
        yield "  no header of a frame"
    else:
        yield from _of_header(header, len(value))
    yield ""


def _of_header(header: Peek, size: int) -> Iterator[str]:
    yield (
        f"  header: {header.kind} frame {header.frame_seq}, partition {header.partition}, "
        f"version {header.version}, schema {header.schema}"
    )
    yield f"    run {header.run}, {count(header.instruments, 'instrument')}"
    yield (
        f"    barriers {header.barrier_lo}-{header.barrier_hi}, "
        f"{_time(header.t_lo)} to {_time(header.t_hi)}"
    )
    stated = "" if header.size_stated == size else f", of {count(header.size_stated, 'byte')}"
    yield f"    {count(header.rows, 'row')}, {count(header.closes, 'close')}{stated}"
    holds = "holds" if header.intact else f"differs: the bytes have {header.crc_computed:08x}"
    yield f"    checksum {header.crc_stored:08x} {holds}"


def _time(ts_ns: int) -> str:
    """The time in words, where it is one at all."""
    try:
        return utc_text(ts_ns)
    except (OverflowError, ValueError, OSError):
        return f"{ts_ns} ns"


def _fields(letter: Letter) -> dict[str, Any]:
    return {
        "number": letter.number, **letter.burial._asdict(), "bytes": letter.size,
        "intact": letter.intact,
    }  # fmt: skip


def _check_empty(folder: Path) -> None:
    try:
        first = next(folder.iterdir(), None)
    except FileNotFoundError:
        return
    if first is not None:
        raise UsageError(
            f"is not empty: it has {first.name}", where=str(folder), hint="name a new folder"
        )


async def _write_all(target: Path, found: Found, settings: Resolved) -> list[dict[str, Any]]:
    from streambot.cli.dead_letters import read_values

    entries = []
    async for letter, value in read_values(found, settings):
        # No part of a name comes from a record: it may hold anything.
        name = f"{letter.number:06d}.bin"
        (target / name).write_bytes(value)
        entries.append({"file": name, **_fields(letter)})
    return sorted(entries, key=lambda entry: entry["number"])


app = several(
    "Dead letters of a run: list them, look at one, write them out.",
    {"ls": ls, "show": show_one, "export": export},
)
