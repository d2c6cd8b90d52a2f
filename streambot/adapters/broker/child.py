"""A server as a child process: started, watched, stopped, and never left behind."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from streambot.adapters.broker.processes import resident_bytes
from streambot.domain.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from types import TracebackType

_LAUNCHER = Path(__file__).with_name("launch.py")
_WATCH_S = 0.02
_MEMORY_EVERY = 50  # looks, that is once a second
_TAIL_BYTES = 8_192
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def last_lines(log: Path, lines: int) -> list[str]:
    """The last lines of a log that are not empty, without colours; none where there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.strip() for line in _COLOUR.sub("", text).splitlines() if line.strip()][-lines:]


class Broker(Protocol):
    """What every broker that streambot starts can do."""

    @property
    def address(self) -> str:
        """`host:port` for clients."""

    def on_failure(self, tell: Callable[[BrokerError], None]) -> None:
        """Call `tell` once, as soon as the broker is lost without having been stopped."""

    async def start(self) -> None:
        """Start, and wait until it answers."""

    async def stop(self) -> None:
        """Stop, and wait until it is gone. A second call does nothing."""


class ChildProcess:
    """One server process.

    It gets a clean environment, its own session (Ctrl-C in the terminal is for its parent, which
    stops it in its own time), no input, and a file for all it says. On Linux it is killed when the
    thread that started it ends; everywhere when the interpreter exits. Unless it `outlives` its
    parent: then it is stopped by `stop` until `release`, and after that by whoever knows its id.

    Args:
        name: for messages.
        argv: absolute path of the program, and its arguments.
        folder: working directory.
        environment: all of it.
        log: file that gets output and errors.
        log_stays: the file outlives the process, so that messages may name it.
        memory_limit: resident bytes at which the process is given up; None: no limit.
        outlives: None: it dies with this process. Else it does not, and this is called with its
            process id at once, so that it can be found even if this process is killed meanwhile.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        log: Path,
        log_stays: bool = True,
        memory_limit: int | None = None,
        outlives: Callable[[int], None] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.peak_bytes = 0
        self._argv = list(argv)
        self._folder = folder
        self._environment = dict(environment)
        if "LD_LIBRARY_PATH" in os.environ:  # some Pythons do not start without, see `launch`
            self._environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        self._hint = f"all it said is in {log}" if log_stays else ""
        self._memory_limit = memory_limit
        self._outlives = outlives
        self._process: subprocess.Popen[bytes] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._tell: list[Callable[[BrokerError], None]] = []
        self._stopping = False
        self._ended = asyncio.Event()
        self.failure: BrokerError | None = None

    @property
    def pid(self) -> int | None:
        """Its process id, once started."""
        return self._process.pid if self._process else None

    @property
    def returncode(self) -> int | None:
        """How it ended; None: it has not, or was not started."""
        return self._process.poll() if self._process else None

    @property
    def alive(self) -> bool:
        """True while it runs."""
        return self._process is not None and self._process.poll() is None

    def on_failure(self, tell: Callable[[BrokerError], None]) -> None:
        """See `Broker.on_failure`; told at once where it happened already."""
        if self.failure is not None:
            tell(self.failure)
        else:
            self._tell.append(tell)

    async def start(self) -> None:
        """Start the process. Call this from the thread that should outlive it.

        Raises:
            BrokerError: the program cannot be started.
        """
        parent = os.getpid() if self._outlives is None else 0
        command = [sys.executable, "-I", "-S", str(_LAUNCHER), str(parent), *self._argv]
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: ASYNC220, S603  # a fork takes a ms
                    command, cwd=self._folder, env=self._environment, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                )  # fmt: skip
        except OSError as cause:
            raise BrokerError(f"{self.name} cannot be started: {cause}") from cause
        if self._outlives is None:
            atexit.register(self._kill)
        else:
            self._outlives(self._process.pid)
        self._watch = asyncio.create_task(self._look(), name=f"watch {self.name}")

    async def ready(
        self, answers: Callable[[], Awaitable[bool]], *, every_s: float, limit_s: float
    ) -> None:
        """Wait until `answers` says so.

        Raises:
            BrokerError: the process ended before, or did not answer within `limit_s`.
        """
        loop = asyncio.get_running_loop()
        limit = loop.time() + limit_s
        while not await answers():
            if not self.alive:
                raise self.failure or self.died()
            if loop.time() > limit:
                raise BrokerError(
                    f"{self.name} did not answer within {limit_s:g} s: {self.tail()}",
                    hint=self._hint,
                )
            await asyncio.sleep(every_s)

    async def ended(self, limit_s: float) -> bool:
        """Wait until it has ended, by itself or because of `stop`; False after `limit_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._ended.wait()
        return not self.alive

    async def stop(self, grace_s: float) -> None:
        """Ask it to end, and after `grace_s` make it end."""
        self._stopping = True
        if self._process is not None:
            if self.alive and grace_s > 0:
                self._process.terminate()
                await self.ended(grace_s)
            self._kill()
            atexit.unregister(self._kill)
            self._ended.set()  # who watches it may not get to say so
        await self._unwatch()

    async def release(self) -> None:
        """Let go of a process that outlives this one: from here on, nothing here ends it."""
        await self._unwatch()
        if self._process is not None:
            self._process.returncode = 0  # nobody will wait for it, and Popen would complain
            self._process = None

    async def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None

    def died(self) -> BrokerError:
        """The error that says how it ended."""
        code = self.returncode
        how = (
            f"was killed by signal {-code}"
            if code is not None and code < 0
            else f"ended with {code}"
        )
        last = self.tail()
        return BrokerError(
            f"{self.name} {how}" + (f": {last}" if last else ""),
            hint=self._hint,
        )

    def tail(self, lines: int = 2) -> str:
        """The last lines of its log, on one line."""
        return " | ".join(last_lines(self.log, lines))

    def resident_bytes(self) -> int:
        """Memory it holds now; 0 where that is unknown (Linux only)."""
        return resident_bytes(self.pid or 0)

    async def _look(self) -> None:
        looks = 0
        while self.alive:
            if looks % _MEMORY_EVERY == 0:
                held = self.resident_bytes()
                self.peak_bytes = max(self.peak_bytes, held)
                if self._memory_limit is not None and held > self._memory_limit:
                    self._fail(
                        BrokerError(
                            f"{self.name} holds {held >> 20} MiB, more than the limit of "
                            f"{self._memory_limit >> 20} MiB",
                            hint="replay less, or use Apache Kafka (--bootstrap-servers)",
                        )
                    )
                    self._kill()
                    break
            looks += 1
            await asyncio.sleep(_WATCH_S)
        self._ended.set()
        if not self._stopping and self.failure is None:
            self._fail(self.died())

    def _fail(self, failure: BrokerError) -> None:
        self.failure = failure
        for tell in self._tell:
            tell(failure)
        self._tell.clear()

    def _kill(self) -> None:
        """Kill what is left of its session (a server may have started helpers), and reap it."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.stop(0.0)
