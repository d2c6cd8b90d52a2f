"""What campaigns stand on: a broker that can be killed, and processes that can."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from streambot.adapters.broker import ApacheBroker
from streambot.adapters.kafka import APACHE, KafkaLog
from tests.kafka.crash_child import SLOT, SLOTS
from tests.waiting import LIMIT_S, until

_T = TypeVar("_T")

ROOT = Path(__file__).resolve().parents[2]
CHILD = Path(__file__).with_name("crash_child.py")
COMMITTED, RAW = "read_committed", "read_uncommitted"


class Kafka:
    """Apache Kafka, looked after by a thread with an event loop of its own.

    So the processes of a campaign are watched by code that waits for nobody.
    """

    def __init__(self, home: Path, folder: Path, **settings: str) -> None:
        """Start nothing yet; `settings` of the server have `_` where Kafka has a dot."""
        named = {name.replace("_", "."): value for name, value in settings.items()}
        self._broker = ApacheBroker(home, folder, settings=named)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kafka", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return self._broker.address

    def start(self) -> None:
        self._wait(self._broker.start(), 180)

    def stop(self) -> None:
        self._wait(self._broker.stop(), 60)

    def kill(self) -> None:
        self._wait(self._broker.kill(), 60)

    def do(
        self, work: Callable[[KafkaLog], Awaitable[_T]], *, isolation: str = COMMITTED,
        limit_s: float = LIMIT_S,
    ) -> _T:  # fmt: skip
        """The result of `work` with a log of its own."""

        async def whole() -> _T:
            profile = msgspec.structs.replace(APACHE, isolation=isolation)
            async with await KafkaLog.open(self.address, profile=profile) as log:
                return await work(log)

        return self._wait(whole(), limit_s)

    def close(self) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Any, limit_s: float) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(limit_s)


class TaskTrace(NamedTuple):
    """Where a task is, see `crash_child.Trace`."""

    point: str
    is_open: bool
    commits: int
    last_commit_ns: int
    first_fill_ns: int

    @property
    def phase(self) -> str:
        """What a kill at this moment hits."""
        if not self.point:
            return "before the fence"
        if not self.is_open:
            return "opening"
        if self.point in {"opened", "committed"}:
            return "between transactions"
        return "in a transaction"


class Process:
    """A process of a campaign."""

    def __init__(self, pid: int, poll: Callable[[], int | None], folder: Path) -> None:
        self.pid = pid
        self.began_ns = time.monotonic_ns()
        self._poll = poll
        self._folder = folder
        self.code: int | None = None
        self.ended_ns = 0

    def ended(self) -> bool:
        if self.code is None:
            self.code = self._poll()
            self.ended_ns = time.monotonic_ns()
        return self.code is not None

    def end(self, limit_s: float = LIMIT_S) -> int:
        """Its exit code, once it has ended by itself."""
        until(self.ended, f"the end of a process that says {self.err[-500:]!r}", limit_s)
        assert self.code is not None
        return self.code

    def kill(self) -> None:
        """As the system would kill it: nothing is cleaned up."""
        self.send(signal.SIGKILL)
        until(self.ended, "the end of a process that was killed")

    def send(self, number: int) -> None:
        if not self.ended():
            os.kill(self.pid, number)

    def tasks(self) -> dict[int, TaskTrace]:
        """Its tasks, by partition: those that got anywhere."""
        data = (self._folder / "trace").read_bytes()
        found = {}
        for partition in range(SLOTS):
            point, *rest = SLOT.unpack_from(data, partition * SLOT.size)
            if point.rstrip(b"\0"):
                is_open, commits, last, fill = rest
                name = point.rstrip(b"\0").decode()
                found[partition] = TaskTrace(name, bool(is_open), commits, last, fill)
        return found

    @property
    def commits(self) -> int:
        return sum(task.commits for task in self.tasks().values())

    @property
    def out(self) -> str:
        return (self._folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self._folder / "err").read_text()

    @property
    def summary(self) -> dict[str, Any]:
        """The object that it printed."""
        return json.loads(self.out.splitlines()[-1])


class Template:
    """Starts processes that have imported everything, see `crash_child`."""

    def __init__(self, folder: Path, hash_seed: int = 0) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self._count = 0
        clean = {k: v for k, v in os.environ.items() if not k.startswith("STREAMBOT_")}
        kept = {k: v for k, v in os.environ.items() if k == "STREAMBOT_KERNEL_CACHE"}
        # One thread each: these processes are forks.
        self._environment = {
            **clean, **kept, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(hash_seed),
            "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system", "NO_COLOR": "1",
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, str(CHILD)], env=self._environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._ready = False

    def start(self, cwd: Path, *argv: str, exec_it: bool = False, **ask: Any) -> Process:
        """A process of the command line; `exec_it`: started the long way, as a shell would."""
        folder = self.folder / f"p{self._count:04d}"
        self._count += 1
        folder.mkdir(parents=True)
        (folder / "trace").write_bytes(bytes(SLOT.size * SLOTS))
        for name in ("out", "err"):
            (folder / name).touch()
        ask |= {
            "argv": argv, "cwd": str(cwd), "seed": self._count,
            **{name: str(folder / name) for name in ("trace", "out", "err")},
        }  # fmt: skip
        return self._exec(ask, folder) if exec_it else self._fork(ask, folder)

    def close(self) -> None:
        self._process.communicate(timeout=LIMIT_S)

    def _fork(self, ask: dict[str, Any], folder: Path) -> Process:
        pid = self._say(ask)["pid"]
        return Process(pid, lambda: self._say({"poll": pid})["code"], folder)

    def _exec(self, ask: dict[str, Any], folder: Path) -> Process:
        with (folder / "out").open("ab") as out, (folder / "err").open("ab") as err:
            made = subprocess.Popen(
                [sys.executable, str(CHILD), "run", json.dumps(ask)], env=self._environment,
                stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip
        return Process(made.pid, made.poll, folder)

    def _say(self, ask: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if not self._ready:
            self._ready = "ready" in json.loads(self._process.stdout.readline())
        self._process.stdin.write(json.dumps(ask) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())
