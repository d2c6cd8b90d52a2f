"""The actors of a training that are started with it: processes of their own, started again when they die.

An actor that ends is a new life when it comes back: nothing waits for it meanwhile, and what it had
not published is nobody's. One that dies again and again, soon after its start, is given up; where all
are, the training ends with what the last one said. Where their broker is gone, they end because of
it, and whoever owns it tells that.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from streambot.adapters.broker.child import ChildProcess
from streambot.domain.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable

SOON_S = 20.0
MOST_SOON = 3
"""So many deaths in a row, each soon after its start, are no accident."""
GRACE_S = 5.0
ITS_OWN = frozenset({2, 3, 4, 6})
"""Exit codes of mistakes that starting again does not mend: usage, configuration, data, topics."""
_LOOK_S = 3_600.0


class ActorCommand(NamedTuple):
    """How an actor is started.

    Attributes:
        run: the training. servers, namespace: where it is.
        runs_dir: of the training. config: file of settings; None: the usual one.
        folder: what they say goes there.
        cwd: what relative paths start from.
    """

    run: str
    servers: str
    namespace: str
    runs_dir: str
    config: str | None
    folder: Path
    cwd: Path

    def process(self, name: str) -> ChildProcess:
        """The process of one of them."""
        words = [
            "actor", "--run", self.run, "--agent", name, "--bootstrap-servers", self.servers,
            "--namespace", self.namespace, "--runs-dir", self.runs_dir, "--wait", "60s",
            *(["--config", self.config] if self.config else []),
        ]  # fmt: skip
        return ChildProcess(
            f"actor {name}", [sys.executable, "-m", "streambot.cli.main", *words],
            folder=self.cwd, environment=os.environ | {"PYTHONUNBUFFERED": "1"},
            log=self.folder / f"{name}.log",
        )  # fmt: skip


class ActorProcesses:
    """Keeps actors alive.

    Args:
        command: how they are started.
        count: of them.
        warned: told of every death.
        orphaned: True once the broker that they need is gone for good.

    Attributes:
        restarts: so far.
    """

    def __init__(
        self,
        command: ActorCommand,
        count: int,
        warned: Callable[[str], None],
        orphaned: Callable[[], bool] = lambda: False,
    ) -> None:
        self._command, self._warned, self._orphaned = command, warned, orphaned
        self._names = [f"a{number}" for number in range(1, count + 1)]
        self._living: dict[str, ChildProcess] = {}
        self._stopping, self._stop = False, asyncio.Event()
        self.restarts = 0

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name, of those that live."""
        return {name: c.pid for name, c in self._living.items() if c.pid is not None and c.alive}

    async def run(self) -> None:
        """Keep them until `stop`.

        Raises:
            BrokerError: all of them were given up.
        """
        self._command.folder.mkdir(parents=True, exist_ok=True)
        failures = await asyncio.gather(*(self._keep(name) for name in self._names))
        if not self._stopping and failures:
            raise failures[-1] or BrokerError("no actor lives any more")

    async def stop(self) -> None:
        """Ask all to end, and after a moment make them end."""
        self._stopping = True
        self._stop.set()
        await asyncio.gather(*(child.stop(GRACE_S) for child in self._living.values()))

    async def _keep(self, name: str) -> BrokerError | None:
        soon = 0
        while not self._stopping:
            child = self._living[name] = self._command.process(name)
            began = time.monotonic()
            await child.start()
            while child.alive and not self._stopping:
                await child.ended(_LOOK_S)
            if self._stopping:
                break
            code, failure = child.returncode, child.died()
            if code is not None and code < 0:  # what it said before has nothing to do with it
                failure = BrokerError(f"{child.name} was killed by signal {-code}")
            await child.stop(0)
            if self._orphaned():
                await self._stop.wait()
                break
            soon = soon + 1 if time.monotonic() - began < SOON_S else 0
            if soon >= MOST_SOON or code in ITS_OWN:
                self._warned(f"{failure.message}: given up")
                return failure
            self._warned(f"{failure.message}: started again")
            self.restarts += 1
            await asyncio.sleep(0.5 * soon)
        return None
