"""The folder of a run: who may write it, what it is called, and its `run.json`.

    runs/<run>/  run.json  config.yaml  orders.ndjson  fills.ndjson  pnl.ndjson  dead-letter.ndjson
                 state/  summary.json, and Parquet beside the streams once the run is complete
                 policy/ of a run that trades with weights of a training: those that it has read

A lock on the folder is held as long as a process works on the run: the system drops it when the
process dies, however it dies, so a run that says `running` without a lock was killed.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import msgspec

from streambot.domain.errors import ConfigError, UsageError
from streambot.domain.suggest import did_you_mean
from streambot.processor.durable import disk_error, write_atomic
from streambot.processor.run_state import RunRecord, RunState, Trigger, next_state

if TYPE_CHECKING:
    import datetime as dt
    from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ATTEMPTS = 64
_LOCK_ATTEMPTS = 5
_LOCK_PAUSE_S = 0.02
_MAX_RECORD_BYTES = 16 * 1024 * 1024
RUN, TRAINING = "run", "training"
_STARTS = {RUN: "streambot simulate", TRAINING: "streambot train"}
_COMMANDS = {RUN: "streambot runs show {}", TRAINING: "streambot policy show {}"}


def check_run_name(name: str) -> str:
    """`name`, if it can be a folder, a part of a topic's name, and a word on a command line.

    Raises:
        UsageError: it cannot.
    """
    if not _NAME.fullmatch(name) or ".." in name or name.endswith("."):
        raise UsageError(
            f"`{name}` cannot be the name of a run",
            where="--run",
            hint="up to 64 letters, digits, `-`, `_` and single dots, beginning with a letter or digit",
        )
    return name


class RunFolder:
    """The folder of one run, held by this process until `close`."""

    def __init__(self, path: Path, lock: int, record: RunRecord | None) -> None:
        self.path = path
        self._lock = lock
        self._record = record

    @classmethod
    def create(cls, runs_dir: Path, name: str | None, day: dt.date) -> Self:
        """A new folder: `name`, or the day of the first event and four hexadecimal digits.

        Raises:
            UsageError: `name` is taken or cannot be a name.
            StreambotError: `runs_dir` cannot be written.
        """
        if name is not None:
            check_run_name(name)
        try:
            runs_dir.mkdir(parents=True, exist_ok=True)
            for _ in range(_ATTEMPTS):
                path = runs_dir / (name or f"{day:%Y%m%d}-{secrets.token_hex(2)}")
                try:
                    path.mkdir()
                except FileExistsError:
                    if name is not None and not _remove_unborn(path):
                        raise UsageError(
                            f"run {name} exists already",
                            where=str(path),
                            hint=f"choose another --run, or go on with `--resume {name}`",
                        ) from None
                    continue
                (path / "state").mkdir()
                return cls(path, _lock(path), None)
        except OSError as cause:
            raise disk_error(runs_dir, cause) from cause
        raise UsageError(
            "found no free name for the run", where=str(runs_dir), hint="give --run NAME"
        )

    @classmethod
    def open(cls, runs_dir: Path, name: str, kind: str = RUN) -> Self:
        """The folder of a run (or training) that exists, to go on with it.

        Raises:
            UsageError: there is no such run, or a process works on it.
            ConfigError: its `run.json` cannot be read.
        """
        record = read_record(find_run(runs_dir, name, kind))
        path = runs_dir / name
        return cls(path, _lock(path), record)

    @property
    def started(self) -> bool:
        """True once there is a `run.json`."""
        return self._record is not None

    @property
    def record(self) -> RunRecord:
        """What `run.json` says now."""
        if self._record is None:
            raise UsageError("the run has not been started", where=str(self.path))
        return self._record

    def check_resumable(self) -> None:
        """Raise `UsageError` where the run cannot go on: it is complete."""
        next_state(self.record.run, self.record.state, Trigger.RESUME)

    def discard(self) -> None:
        """Remove the folder of a run that never started, and let go of it."""
        self.close()
        if self._record is None:
            shutil.rmtree(self.path, ignore_errors=True)

    def start(self, record: RunRecord) -> None:
        """Write the first `run.json` of a new run."""
        self._write(record)

    def resume(self, record: RunRecord) -> None:
        """The run goes on as `record` says, where its state allows that.

        A training always may: one that has made all its updates can be asked for more.
        """
        state = RunState.RUNNING
        if record.kind == RUN:
            state = next_state(record.run, self.record.state, Trigger.RESUME)
        self._write(msgspec.structs.replace(record, state=state, resumes=self.record.resumes + 1))

    def finish(self, trigger: Trigger, *, at: str, error: str | None = None) -> None:
        """The run ends: complete, interrupted or failed."""
        state = next_state(self.record.run, self.record.state, trigger)
        self._write(msgspec.structs.replace(self.record, state=state, ended_at=at, error=error))

    def close(self) -> None:
        """Let the run go. A second call does nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _write(self, record: RunRecord) -> None:
        data = msgspec.json.format(msgspec.json.encode(record), indent=2)
        write_atomic(self.path / "run.json", data + b"\n")
        self._record = record


_UNBORN = frozenset({"config.yaml", "policy", "run.lock", "state", ".config.yaml.tmp"})
"""What a run's folder may hold before the run has started."""


def _remove_unborn(path: Path) -> bool:
    """Remove the folder of a run that was killed before it had started; False: it is something else."""
    inside = {item.name for item in path.iterdir()} if path.is_dir() else set()
    # Without a lock file its maker may just be about to lock it.
    if "run.lock" not in inside or not inside <= _UNBORN or is_held(path):
        return False
    shutil.rmtree(path)
    return True


def _lock(path: Path) -> int:
    try:
        descriptor = os.open(path / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as cause:
        raise disk_error(path, cause) from cause
    for _ in range(_LOCK_ATTEMPTS):
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        time.sleep(_LOCK_PAUSE_S)  # someone may be looking at it with `is_held`, for an instant
    os.close(descriptor)
    raise UsageError(
        f"run {path.name} is running in another process",
        where=str(path),
        hint="wait for its end, or stop that process",
    )


def is_held(path: Path) -> bool:
    """True while some process works on the run in that folder."""
    try:
        descriptor = os.open(path / "run.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def list_runs(runs_dir: Path, kind: str = RUN) -> list[RunRecord]:
    """Records of all runs (or trainings) that can be read, the newest start last."""
    records: list[RunRecord] = []
    if runs_dir.is_dir():
        for path in runs_dir.iterdir():
            if (path / "run.json").is_file():
                try:
                    records.append(read_record(path))
                except ConfigError:
                    continue
    of_kind = [record for record in records if record.kind == kind]
    return sorted(of_kind, key=lambda record: (record.started_at, record.run))


def find_run(runs_dir: Path, name: str | None, kind: str = RUN) -> Path:
    """Folder of the run (or training) `name`; None: of the one that was started last.

    Raises:
        UsageError: there is no such run, or the name is one of the other kind.
    """
    if name is not None:
        check_run_name(name)
        if (runs_dir / name / "run.json").is_file():
            with suppress(ConfigError):
                if (found := read_record(runs_dir / name).kind) != kind:
                    raise UsageError(
                        f"{name} is a {found}, not a {kind}", where=str(runs_dir),
                        hint=_COMMANDS[found].format(name),
                    )  # fmt: skip
            return runs_dir / name
    known = [record.run for record in list_runs(runs_dir, kind)]
    if name is None and known:
        return runs_dir / known[-1]
    if name is None:
        raise UsageError(f"there is no {kind} yet", where=str(runs_dir), hint=_STARTS[kind])
    raise UsageError(
        f"there is no {kind} {name}",
        where=str(runs_dir),
        hint=did_you_mean(name, known) or _STARTS[kind],
    )


def read_record(path: Path) -> RunRecord:
    """`run.json` of the run in folder `path`.

    Raises:
        ConfigError: it is missing, or not what streambot writes.
    """
    file = path / "run.json"
    try:
        if file.stat().st_size > _MAX_RECORD_BYTES:
            raise ConfigError("is too large for a run.json", where=str(file))
        return msgspec.json.decode(file.read_bytes(), type=RunRecord)
    except OSError as cause:
        raise ConfigError(f"cannot be read: {cause.strerror}", where=str(file)) from cause
    except msgspec.MsgspecError as cause:
        raise ConfigError(
            f"is not what streambot writes: {cause}",
            where=str(file),
            hint="remove that run's folder",
        ) from cause


def shown_state(path: Path, record: RunRecord) -> str:
    """State for people: a run that says `running` and is held by no process was killed."""
    if record.state is RunState.RUNNING and not is_held(path):
        return "killed"
    return record.state.value
