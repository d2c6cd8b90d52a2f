"""Brokers that outlive the command that started them: started, looked at, stopped.

The command that stops a broker is another one than started it, so all that is known of it stands in
its folder (`state_file`). The state is written before the broker answers: a command that is killed
half way leaves a broker that can be found and stopped.
"""

from __future__ import annotations

import asyncio
import signal
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.adapters.broker.apache import STOP_GRACE_S, ApacheBroker
from streambot.adapters.broker.child import last_lines
from streambot.adapters.broker.embedded import EmbeddedBroker
from streambot.adapters.broker.loopback import choose_port, cluster_id, port_is_free
from streambot.adapters.broker.processes import (
    is_running,
    resident_bytes,
    send,
    start_of,
    uptime_s,
)
from streambot.adapters.broker.state_file import (
    LOG_FILE,
    BrokerState,
    Kind,
    Phase,
    check_ours,
    data_bytes,
    delete_data,
    held,
    read_state,
    remove_if_empty,
    write_state,
)
from streambot.domain.errors import BrokerError, ConfigError, StreambotError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_PORT = 9_092
"""Where everybody looks for Kafka."""
_PORTS = tuple(range(FIRST_PORT, FIRST_PORT + 100))
_ANSWER_S = 2.0
_STOP_PAUSE_S = 0.05
_KILL_LIMIT_S = 5.0
_LAST_LINES = 5
_STOP_FIRST = "streambot broker stop"


class Status(StrEnum):
    """What has become of a broker."""

    RUNNING = "running"
    SILENT = "silent"
    """Its process lives, and does not answer (yet)."""
    DEAD = "dead"
    """It was started, never stopped, and its process is gone."""
    STOPPED = "stopped"


class Standing(NamedTuple):
    """A broker as it is now.

    Attributes:
        state: what is written about it; None: nothing, it was never started here.
        memory_bytes: resident; 0: unknown, or it does not run.
        uptime_s: None: unknown, or it does not run.
        data_bytes: of its data on the disk.
        last_words: the last lines of its log, of one that is dead or silent.
    """

    status: Status
    state: BrokerState | None
    memory_bytes: int = 0
    uptime_s: float | None = None
    data_bytes: int = 0
    last_words: tuple[str, ...] = ()

    @property
    def alive(self) -> bool:
        """True while its process lives."""
        return self.status in {Status.RUNNING, Status.SILENT}


class Wanted(NamedTuple):
    """A broker to start.

    Attributes:
        kind: None: Apache Kafka where that ran there before (its data wait), else `fallback`.
        port: None: the one it had, else the first free one from `FIRST_PORT` on.
        home: the distribution of Apache Kafka.
        fresh: without what it had stored before.
    """

    kind: Kind | None
    fallback: Kind
    port: int | None = None
    home: Path | None = None
    fresh: bool = False


class Started(NamedTuple):
    """A broker that runs. `before`: what there was; it runs already where that is `RUNNING`."""

    state: BrokerState
    before: Standing


class Stopped(NamedTuple):
    """What stopping came to.

    Attributes:
        before: what there was.
        killed: it did not end when it was asked to, and was killed.
        freed_bytes: of data that were deleted; None: they were not to be.
    """

    before: Standing
    killed: bool = False
    freed_bytes: int | None = None


async def look(folder: Path) -> Standing:
    """The broker of a folder.

    Raises:
        ConfigError: its state is not what streambot writes.
    """
    state = read_state(folder)
    if state is None:
        return Standing(Status.STOPPED, None)
    stored = data_bytes(folder)
    if is_running(state.pid, state.started):
        answers = await cluster_id(state.port, _ANSWER_S) == state.cluster != ""
        return Standing(
            Status.RUNNING if answers else Status.SILENT, state, resident_bytes(state.pid),
            uptime_s(state.pid), stored, () if answers else _last_words(folder),
        )  # fmt: skip
    if state.phase is Phase.STOPPED:
        return Standing(Status.STOPPED, state, data_bytes=stored)
    return Standing(Status.DEAD, state, data_bytes=stored, last_words=_last_words(folder))


async def start(folder: Path, wanted: Wanted, tell: Callable[[Kind, int, bool], None]) -> Started:
    """Start a broker that stays when this process has gone, and wait until it answers.

    Args:
        tell: gets kind, port, and whether that is the usual or the asked one, before it is started;
            once more for every port that somebody else had first.

    Raises:
        UsageError: one runs there, and it is not what is wanted.
        ConfigError: the folder cannot be used, or there is no Apache Kafka.
        BrokerError: it does not come up, or the port is taken.
    """
    try:
        with held(folder):
            before = await look(folder)
            if before.alive and before.state is not None:
                _check_running(before, before.state, wanted)
                return Started(before.state, before)
            last = before.state
            was_apache = last is not None and last.kind is Kind.APACHE and not wanted.fresh
            kind = wanted.kind or (Kind.APACHE if was_apache else wanted.fallback)
            if kind is Kind.APACHE:
                _check_home(wanted.home)
            used = last.port if last is not None else 0
            port = _choose(wanted.port, used)
            if wanted.fresh:
                delete_data(folder)
            while True:
                tell(kind, port, port in {wanted.port, used, FIRST_PORT})
                try:
                    return Started(await _start(folder, kind, port, wanted.home), before)
                except BrokerError:
                    if wanted.port is not None or port_is_free(port):
                        raise
                # Who starts one elsewhere at the same moment found the same port free.
                port = _choose(None, used)
    except StreambotError:
        remove_if_empty(folder)
        raise


async def stop(folder: Path, *, delete: bool = False) -> Stopped:
    """Ask the broker of a folder to end, and end it where it does not.

    Args:
        delete: delete what it has stored, too.

    Raises:
        ConfigError: the folder cannot be used, or is somebody else's.
        BrokerError: it cannot be ended.
    """
    if not check_ours(folder):
        return Stopped(Standing(Status.STOPPED, None), freed_bytes=0 if delete else None)
    with held(folder):
        before = await look(folder)
        killed = False
        if before.alive and before.state is not None:
            killed = await _end(before.state)
        if before.state is not None:
            _write_stopped(folder, before.state)
        freed = delete_data(folder) if delete else None
    if delete:
        remove_if_empty(folder)
    return Stopped(before, killed, freed)


def _check_running(before: Standing, state: BrokerState, wanted: Wanted) -> None:
    if before.status is Status.SILENT:
        raise BrokerError(
            f"process {state.pid} of an earlier start lives, but does not answer at "
            f"{state.address}",
            hint=_STOP_FIRST,
        )
    what = f"{state.kind.label} runs here already, at {state.address}"
    if wanted.kind not in {None, state.kind}:
        raise UsageError(what, where="--kind", hint=f"{_STOP_FIRST}, or another --folder")
    if wanted.port not in {None, state.port}:
        raise UsageError(what, where="--port", hint=f"{_STOP_FIRST}, or another --folder")
    if wanted.fresh:
        raise UsageError(f"{what}: its data cannot go now", where="--fresh", hint=_STOP_FIRST)


def _choose(asked: int | None, last: int) -> int:
    if asked is not None:
        return choose_port(asked)
    for port in (last, *_PORTS):
        if port and port_is_free(port):
            return port
    raise BrokerError(
        f"no free port from {_PORTS[0]} to {_PORTS[-1]}", hint="choose one with --port"
    )


def _check_home(home: Path | None) -> Path:
    where, hint = "$KAFKA_HOME", "point it at an unpacked Apache Kafka 4.x, or use --kind embedded"
    if home is None:
        raise ConfigError("is not set, and Apache Kafka is to be started", where=where, hint=hint)
    if not any(home.glob("libs/*.jar")):
        raise ConfigError(f"no libs/*.jar in {home}", where=where, hint=hint)
    return home.absolute()


async def _start(folder: Path, kind: Kind, port: int, home: Path | None) -> BrokerState:
    state = _new_state(folder, kind)

    def born(pid: int) -> None:
        nonlocal state
        state = msgspec.structs.replace(
            state, pid=pid, started=start_of(pid) or "", address=broker.address,
            cluster=broker.cluster,
        )  # fmt: skip
        write_state(folder, state)

    broker = _broker(kind, folder, port, home, born)
    write_state(folder, state)  # the folder is a broker's from here on
    try:
        await broker.start()
    except BaseException:
        _write_stopped(folder, state)
        raise
    state = msgspec.structs.replace(state, phase=Phase.RUNNING)
    write_state(folder, state)
    await broker.release()
    return state


def _new_state(folder: Path, kind: Kind) -> BrokerState:
    place = folder.absolute()
    return BrokerState(
        kind=kind, phase=Phase.STARTING, folder=str(place), log=str(place / LOG_FILE)
    )


def _broker(
    kind: Kind, folder: Path, port: int, home: Path | None, born: Callable[[int], None]
) -> ApacheBroker | EmbeddedBroker:
    if kind is Kind.EMBEDDED:
        return EmbeddedBroker(port=port, log=folder / LOG_FILE, memory_limit=None, outlives=born)
    return ApacheBroker(_check_home(home), folder, port=port, outlives=born)


async def _end(state: BrokerState) -> bool:
    """End its process; True where it had to be killed."""
    for number, limit_s in ((signal.SIGTERM, STOP_GRACE_S), (signal.SIGKILL, _KILL_LIMIT_S)):
        try:
            send(state.pid, state.started, number)
        except PermissionError as cause:
            raise BrokerError(
                f"process {state.pid} is another user's", where=state.address
            ) from cause
        limit = time.monotonic() + limit_s
        while is_running(state.pid, state.started):
            if time.monotonic() > limit:
                break
            await asyncio.sleep(_STOP_PAUSE_S)
        else:
            return number is signal.SIGKILL
    raise BrokerError(f"process {state.pid} does not end, even when killed", where=state.address)


def _write_stopped(folder: Path, state: BrokerState) -> None:
    stopped = msgspec.structs.replace(state, phase=Phase.STOPPED, pid=0, started="", cluster="")
    write_state(folder, stopped)


def _last_words(folder: Path) -> tuple[str, ...]:
    return tuple(last_lines(folder / LOG_FILE, _LAST_LINES))
