"""Actors that are kept alive: who dies comes back, who cannot live is given up, nobody is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streambot.adapters.broker.child import ChildProcess
from streambot.domain.errors import BrokerError
from streambot.wiring import actor_processes as module
from streambot.wiring.actor_processes import ActorProcesses
from tests.waiting import holds_soon

LIVES = "import time\ntime.sleep(60)"
LIMIT_S = 30.0


class Command:
    """Starts a program in the place of an actor."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder, self._program = folder, program
        self.started = 0

    def process(self, name: str) -> ChildProcess:
        self.started += 1
        return ChildProcess(
            f"actor {name}", [sys.executable, "-c", self._program], folder=self.folder,
            environment=os.environ, log=self.folder / f"{name}.log",
        )  # fmt: skip


class Kept:
    """Actors, and what was said of them."""

    def __init__(
        self, folder: Path, program: str, count: int, orphaned: Callable[[], bool]
    ) -> None:
        self.command, self.said = Command(folder, program), list[str]()
        self.actors = ActorProcesses(self.command, count, self.said.append, orphaned)  # type: ignore[arg-type]
        self.running = asyncio.create_task(self.actors.run())

    async def until(self, holds: Callable[[], bool]) -> None:
        await holds_soon(holds, LIMIT_S)

    async def all_there(self, count: int) -> dict[str, int]:
        await self.until(lambda: len(self.actors.pids) == count)
        return self.actors.pids


def kept(
    folder: Path, program: str, count: int = 2, orphaned: Callable[[], bool] = lambda: False
) -> Kept:
    return Kept(folder, program, count, orphaned)


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_who_is_killed_is_started_again(tmp_path: Path) -> None:
    some = kept(tmp_path, LIVES)
    before = await some.all_there(2)
    os.kill(before["a1"], signal.SIGKILL)
    await some.until(lambda: some.actors.pids.get("a1") not in {None, before["a1"]})
    after = some.actors.pids
    assert (after["a2"], some.actors.restarts) == (before["a2"], 1)
    assert some.said == ["actor a1 was killed by signal 9: started again"]
    await some.actors.stop()
    await some.running
    assert not any(map(lives, after.values()))


@pytest.mark.parametrize(("code", "starts"), [(1, 3), (4, 1)])
async def test_who_cannot_live_is_given_up(tmp_path: Path, code: int, starts: int) -> None:
    """Soon after its start, again and again; or at once, where starting again cannot help."""
    assert module.MOST_SOON == 3
    some = kept(tmp_path, f"import sys\nprint('no bars here', flush=True)\nsys.exit({code})")
    with pytest.raises(BrokerError, match=f"actor a. ended with {code}: no bars here"):
        await asyncio.wait_for(some.running, LIMIT_S)
    assert some.command.started == 2 * starts
    ends = [said for said in some.said if said.endswith(": given up")]
    assert len(ends) == 2
    assert all(f"ended with {code}: no bars here" in said for said in ends)
    assert len(some.said) == 2 * starts
    await some.actors.stop()


async def test_one_that_lives_is_enough(tmp_path: Path) -> None:
    """The first process to get the file ends at once, each time; the other one lives."""
    program = (
        "import os, sys, time\n"
        "doomed = 'doomed.txt'\n"
        "try:\n    os.close(os.open(doomed, os.O_CREAT | os.O_EXCL)); sys.exit(4)\n"
        "except FileExistsError:\n    time.sleep(60)\n"
    )
    some = kept(tmp_path, program)
    await some.until(lambda: len(some.said) == 1)
    await asyncio.sleep(0.3)
    assert len(some.actors.pids) == 1
    assert not some.running.done(), "the training goes on"
    await some.actors.stop()
    await some.running


async def test_one_that_stands_still_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.5)
    some = kept(tmp_path, LIVES, 1)
    pid = (await some.all_there(1))["a1"]
    os.kill(pid, signal.SIGSTOP)
    await asyncio.wait_for(some.actors.stop(), LIMIT_S)
    await some.running
    assert not lives(pid)


async def test_actors_without_their_broker_are_no_accident(tmp_path: Path) -> None:
    """They end because of it: nobody is warned, nobody is started, and that is no reason to end."""
    some = kept(tmp_path, "raise SystemExit(5)", orphaned=lambda: True)
    await some.until(lambda: some.command.started == 2 and not some.actors.pids)
    await asyncio.sleep(0.2)
    assert not some.running.done()
    await some.actors.stop()
    await some.running
    assert (some.said, some.actors.restarts, some.command.started) == ([], 0, 2)


async def test_a_stop_is_never_waited_for_longer_than_the_processes_take(tmp_path: Path) -> None:
    """Whoever kills a process ends the watch on it, too: nobody may wait for what the watch says."""
    for _ in range(10):
        some = kept(tmp_path, LIVES, count=3)
        await some.all_there(3)
        async with asyncio.timeout(LIMIT_S):
            await some.actors.stop()
            await some.running
        assert not some.actors.pids
