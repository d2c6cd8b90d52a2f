"""A run as its folder shows it to somebody who only looks: record, instruments, summary."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.cli.lines import Traded
from streambot.domain.errors import ConfigError
from streambot.domain.instruments import Instrument

if TYPE_CHECKING:
    from streambot.processor.run_state import RunRecord
    from streambot.report.summary import Summary


class _Manifest(msgspec.Struct, frozen=True):
    """What this page needs of a manifest; the rest belongs to the engine (and to its compiler)."""

    instruments: tuple[Instrument, ...] = ()
    capital: tuple[int, ...] = ()


class SeenRun(NamedTuple):
    """A run, seen from outside."""

    path: Path
    record: RunRecord
    traded: Traded

    @property
    def zone_name(self) -> str:
        """Zone of the exchange where all instruments share one, else UTC."""
        zones = {instrument.timezone for instrument in self.traded.instruments.values()}
        return zones.pop() if len(zones) == 1 else "UTC"

    @property
    def living(self) -> bool:
        """True while a process works on it."""
        from streambot.processor.folder import is_held

        return is_held(self.path)

    @property
    def state(self) -> str:
        """`running`, `complete`, `interrupted`, `failed`, or `killed`."""
        from streambot.processor.folder import shown_state

        return shown_state(self.path, self.record)


def see_run(runs_dir: Path, name: str | None) -> SeenRun:
    """The run `name`; None: the one that was started last.

    Raises:
        UsageError: there is no such run.
        ConfigError: its `run.json` is not what streambot writes.
    """
    from streambot.processor.folder import find_run, read_record

    path = find_run(runs_dir, name)
    record = read_record(path)
    return SeenRun(path, record, _traded(path, record))


def see_runs(runs_dir: Path) -> list[SeenRun]:
    """All runs that can be read, the newest start last."""
    from streambot.processor.folder import list_runs

    found = [(runs_dir / record.run, record) for record in list_runs(runs_dir)]
    return [SeenRun(path, record, _traded(path, record)) for path, record in found]


def read_summary(path: Path) -> Summary | None:
    """`summary.json` of the run in folder `path`; None where there is none yet.

    Raises:
        ConfigError: it is not what streambot writes.
    """
    from streambot.report.summary import Summary

    file = path / "summary.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=Summary)
    except FileNotFoundError:
        return None
    except OSError as cause:
        raise ConfigError(f"cannot be read: {cause.strerror}", where=str(file)) from cause
    except msgspec.MsgspecError as cause:
        raise ConfigError(f"is not what streambot writes: {cause}", where=str(file)) from cause


def _traded(path: Path, record: RunRecord) -> Traded:
    try:
        manifest = msgspec.json.decode(record.manifest, type=_Manifest)
    except msgspec.MsgspecError as cause:
        raise ConfigError(
            f"its manifest is not what streambot writes: {cause}", where=str(path / "run.json")
        ) from cause
    symbols = [instrument.symbol for instrument in manifest.instruments]
    return Traded(
        dict(zip(symbols, manifest.instruments, strict=True)),
        dict(zip(symbols, manifest.capital, strict=False)),
    )
