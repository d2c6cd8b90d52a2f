"""The folder of a broker that outlives the command that starts it, and what is written there.

    FOLDER/  broker.json  broker.lock  broker.log
             server.properties  log4j2.yaml  cluster-id  data/     (Apache Kafka)

`broker.json` is replaced in one step, and says which process the broker is by its id and its start.
Nothing but these names is ever deleted, and a folder that holds other things is refused: it may be
somebody's, and `data` is a common name.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from streambot.domain.errors import BrokerError, ConfigError
from streambot.processor.durable import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STATE_FILE, LOG_FILE, LOCK_FILE = "broker.json", "broker.log", "broker.lock"
DATA_FOLDER = "data"
_OURS = (STATE_FILE, LOG_FILE, "server.properties", "log4j2.yaml", "cluster-id")
_MARKS = (STATE_FILE, "cluster-id")
_LOCK_LIMIT_S = 120.0
_LOCK_PAUSE_S = 0.1
_OUR_PARENT = ".streambot"
_CHOOSE = "choose another folder with --folder"


class Kind(StrEnum):
    """Kinds of brokers that streambot starts."""

    APACHE = "apache"
    EMBEDDED = "embedded"

    @property
    def label(self) -> str:
        """For people."""
        return "Apache Kafka" if self is Kind.APACHE else "the embedded broker"


class Phase(StrEnum):
    """What was done with a broker last."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"


class BrokerState(msgspec.Struct, frozen=True, kw_only=True):
    """What `broker.json` says.

    Attributes:
        kind: of broker.
        phase: what was done last; whether it lives is for the process to tell.
        pid, started: its process, and when that started as the system tells it (`processes`).
        address: `host:port`.
        folder: where it lives.
        cluster: name of its cluster: who answers at the address by another one is somebody else.
        log: file of all it says.
    """

    schema: str = "streambot.broker-state/1"
    kind: Kind
    phase: Phase
    pid: int = 0
    started: str = ""
    address: str = ""
    folder: str = ""
    cluster: str = ""
    log: str = ""

    @property
    def port(self) -> int:
        """Port of the address; 0 without one."""
        return int(self.address.rpartition(":")[2] or 0)


def read_state(folder: Path) -> BrokerState | None:
    """What the folder's `broker.json` says; None where there is none.

    Raises:
        ConfigError: it is not what streambot writes.
    """
    file = folder / STATE_FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=BrokerState)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as cause:
        raise ConfigError(f"cannot be read: {cause.strerror}", where=str(file)) from cause
    except msgspec.MsgspecError as cause:
        raise ConfigError(
            f"is not what streambot writes: {cause}",
            where=str(file),
            hint="remove that file, after the broker's process if it still runs",
        ) from cause


def write_state(folder: Path, state: BrokerState) -> None:
    """Replace `broker.json` in one step."""
    data = msgspec.json.format(msgspec.json.encode(state), indent=2)
    write_atomic(folder / STATE_FILE, data + b"\n")


def check_ours(folder: Path) -> bool:
    """True where there is such a folder, False where there is none yet.

    Raises:
        ConfigError: it holds other things than a broker.
    """
    try:
        names = {path.name for path in folder.iterdir()} - {LOCK_FILE}
    except FileNotFoundError:
        return False
    except OSError as cause:
        raise ConfigError(
            f"cannot be read: {cause.strerror}", where=str(folder), hint=_CHOOSE
        ) from cause
    if names and names.isdisjoint(_MARKS):
        raise ConfigError(
            f"is not empty and no folder of a broker: it has {min(names)}",
            where=str(folder),
            hint=f"{_CHOOSE}; a new or an empty one",
        )
    return True


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """The folder, made if need be, for one command at a time.

    Raises:
        ConfigError: it cannot be made or written, or is no folder of a broker.
        BrokerError: another command does not let it go.
    """
    check_ours(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as cause:
        raise ConfigError(
            f"cannot be written: {cause.strerror}", where=str(folder), hint=_CHOOSE
        ) from cause
    try:
        limit = time.monotonic() + _LOCK_LIMIT_S
        while not _locked(lock):
            if time.monotonic() > limit:
                raise BrokerError(
                    f"another `streambot broker` command has worked on it for {_LOCK_LIMIT_S:g} s",
                    where=str(folder),
                )
            time.sleep(_LOCK_PAUSE_S)
        yield
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def data_bytes(folder: Path) -> int:
    """Room on the disk that the data take (Kafka's index files are larger than what they hold)."""
    held_bytes = 0
    for path in (folder / DATA_FOLDER).rglob("*"):
        with suppress(OSError):  # a segment may go meanwhile
            held_bytes += path.lstat().st_blocks * 512
    return held_bytes


def delete_data(folder: Path) -> int:
    """Delete the data, and all else that streambot wrote there; returns the room they took."""
    freed = data_bytes(folder)
    data = folder / DATA_FOLDER
    if data.exists():
        shutil.rmtree(data)
    for name in _OURS:
        (folder / name).unlink(missing_ok=True)
    return freed


def remove_if_empty(folder: Path) -> None:
    """Remove the folder where nothing but the lock is left in it."""
    with suppress(OSError):
        if {path.name for path in folder.iterdir()} <= {LOCK_FILE}:
            (folder / LOCK_FILE).unlink(missing_ok=True)
            folder.rmdir()
            if folder.parent.name == _OUR_PARENT:
                folder.parent.rmdir()
