"""A run as its folder shows it to somebody who only looks: record, instruments, summary."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.cli.lines import Traded
from streambot.domain.errors import ConfigError
from streambot.domain.instruments import Instrument

if TYPE_CHECKING:
    from streambot.cli.declared import OnLog
    from streambot.processor.run_state import RunRecord
    from streambot.report.summary import Summary


class _Policy(msgspec.Struct, frozen=True):
    weights: str = ""


class _Manifest(msgspec.Struct, frozen=True):
    """What this page needs of a manifest; the rest belongs to the engine (and to its compiler)."""

    instruments: tuple[Instrument, ...] = ()
    capital: tuple[int, ...] = ()
    partitions: int = 1
    policy: _Policy = _Policy()


class SeenRun(NamedTuple):
    """A run, seen from outside.

    Attributes:
        path: its folder; of a run that was started elsewhere, there is none.
        record: of such a run: what its log says, as far as it does.
        on_log: what its log says; None: it was started here.
    """

    path: Path
    record: RunRecord
    traded: Traded
    on_log: OnLog | None = None

    @property
    def is_here(self) -> bool:
        """True where it was started here, and has a folder."""
        return self.on_log is None

    @property
    def is_apart(self) -> bool:
        """True where its outputs are on its broker alone: its pieces are processes of their own."""
        return self.record.outputs == "topics"

    @property
    def partitions(self) -> int:
        """Partitions of its streams."""
        return msgspec.json.decode(self.record.manifest, type=_Manifest).partitions

    @property
    def zone_name(self) -> str:
        """Zone of the exchange where all instruments share one, else UTC."""
        zones = {instrument.timezone for instrument in self.traded.instruments.values()}
        return zones.pop() if len(zones) == 1 else "UTC"

    @property
    def living(self) -> bool:
        """True while a process here works on it."""
        from streambot.processor.folder import is_held

        return is_held(self.path)

    @property
    def state(self) -> str:
        """`running`, `complete`, `interrupted`, `failed`, or `killed`; `elsewhere`: not known here."""
        if not self.is_here:
            return "elsewhere"
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


def see_elsewhere(runs_dir: Path, servers: str, namespace: str, run: str, found: OnLog) -> SeenRun:
    """A run as its log on a broker shows it."""
    from streambot.cli.declared import own_topics
    from streambot.processor.run_state import RunRecord, RunState

    at = dt.datetime.fromtimestamp(found.at_ms / 1_000, tz=dt.UTC)
    record = RunRecord(
        run=run,
        state=RunState.RUNNING,
        pid=0,
        broker=servers,
        embedded=False,
        topics=own_topics(found, namespace, run),
        started_at=at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        manifest=found.raw,
        outputs="topics",
    )
    path = runs_dir / run
    return SeenRun(path, record, _traded(path, record), found)


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
        trained=manifest.policy.weights != "",
    )
