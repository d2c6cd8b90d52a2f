"""The process that campaigns crash: the real command line, with knobs, a trace, and ways to die.

    python crash_child.py                       a template: forks a process for every line it reads
    python crash_child.py run '{"argv": ...}'   one process, started the long way

A template has imported everything and warmed the compiled code, so that a new process is there in
a moment: a campaign of many crashes has time for what happens between them. A process of either
kind is `streambot.cli.main.run`, so exit codes and messages are those of the product.

What a line may ask for: values of module constants, a mutant in place of a class, a point at which
the process ends itself, a file that it tells its progress in, streams in which a broker forgets to
end transactions.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import json
import mmap
import os
import random
import signal
import struct
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

FAILED_AT_POINT = 77
"""Exit code of a process that reached the point where it was to end."""
FILLED = "filled"
"""Told, beside the points of the runner, where a commit with a fill is visible."""
DEAD_STORED = "dead-letter-stored"
LATE_S = 0.006
"""So long at most, a process lives on behind a request to commit that it is to die of."""
SLOT = struct.Struct("<24sBIqq")
SLOTS = 64
_PR_SET_PDEATHSIG = 1


class Trace:
    """Where the tasks of a process are: one slot a partition, in a file that outlives the process.

    A slot: last point reached; whether the task is open; commits; when the last commit, and when
    the first commit with a fill was visible (ns of the monotonic clock; 0: not yet).
    """

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    def reached(self, partition: int, point: str) -> None:
        before, is_open, commits, last, fill = SLOT.unpack_from(self._map, partition * SLOT.size)
        now = time.monotonic_ns()
        if point == FILLED:
            fill = fill or now
        elif point in {"fenced", "opened"}:
            is_open = point == "opened"
        elif point == "committed":
            commits, last = commits + 1, now
        name = before if point == FILLED else point.encode()
        SLOT.pack_into(self._map, partition * SLOT.size, name, is_open, commits, last, fill)


class Failpoint:
    """Ends the process when a point is reached for the n-th time.

    Beside the points of the runner there is `DEAD_STORED`: the outputs of a transaction are stored,
    and a dead letter is among them.
    """

    def __init__(self, point: str, nth: int) -> None:
        self._point, self._left = point, nth
        self._with_dead: set[int] = set()

    def reached(self, partition: int, point: str) -> None:
        if point == "begun":
            self._with_dead.discard(partition)
        elif point == "dead-letter-sent":
            self._with_dead.add(partition)
        stored_dead = point == "outputs-stored" and partition in self._with_dead
        if point == self._point or (stored_dead and self._point == DEAD_STORED):
            self._left -= 1
            if self._left == 0:
                os._exit(FAILED_AT_POINT)

    def end_requested(self) -> None:
        """A request to commit has left; the answer may still come."""
        if self._point == "committing-late":
            self._left -= 1
            if self._left == 0:
                late = random.uniform(0, LATE_S)
                asyncio.get_running_loop().call_later(late, os._exit, FAILED_AT_POINT)


class Forgetting:
    """From the n-th transaction on, some streams are no part of it as far as its coordinator knows.

    Nor is the group where `group` is one of them, whose positions then stay what they were.

    So their partitions are not told how it ends: as by a broker that forgets to tell them. The
    broker must not verify what is part of what.

    To make a partition part of a transaction is also what waits until the transaction before has ended
    there: its mark, come late, would end the records of this one too. So that is waited for here.
    """

    def __init__(self, streams: list[str], nth: int) -> None:
        from aiokafka.producer.transaction_manager import TransactionManager

        from streambot.adapters.kafka.transactions import KafkaTransactions
        from streambot.streams.finishing import ensure_visible
        from streambot.streams.ports import TopicPartition

        self._left = nth
        written: set[TopicPartition] = set()
        append, begin = KafkaTransactions.append, KafkaTransactions.begin

        async def noted(of: Any, stream: str, partition: int, *arguments: Any, **more: Any) -> Any:
            written.add(TopicPartition(stream, partition))
            return await append(of, stream, partition, *arguments, **more)

        async def begun(of: Any) -> None:
            if self._left in {0, 1}:  # a task counts behind this, a replay before
                await ensure_visible(of, written)
            await begin(of)

        KafkaTransactions.append, KafkaTransactions.begin = noted, begun
        add = TransactionManager.maybe_add_partition_to_txn

        def forgotten(manager: Any, place: Any) -> None:
            if self._left <= 0 and place.topic.rpartition(".")[2] in streams:
                manager._txn_partitions.add(place)
            else:
                add(manager, place)

        TransactionManager.maybe_add_partition_to_txn = forgotten
        to_add = TransactionManager.consumer_group_to_add

        def group_forgotten(manager: Any) -> Any:
            group = to_add(manager)
            if self._left <= 0 and "group" in streams and group is not None:
                manager.consumer_group_added(group)
                return None
            return group

        TransactionManager.consumer_group_to_add = group_forgotten

    def reached(self, _: int, point: str) -> None:
        self._left -= point == "begun"


def become(ask: dict[str, Any]) -> int:
    """Live as asked, and return the exit code."""
    os.chdir(ask["cwd"])
    os.environ.update(ask.get("env", {}))
    random.seed(ask.get("seed", 0))
    for name, value in ask.get("knobs", {}).items():
        module, _, attribute = name.partition(":")
        owner = importlib.import_module(module)
        getattr(owner, attribute)  # a knob that is gone turns nothing
        setattr(owner, attribute, value)
    watchers: list[Any] = [Trace(ask["trace"])]
    if ask.get("forgets"):
        watchers.append(Forgetting(*ask["forgets"]))
    if ask.get("failpoint"):
        watchers.append(Failpoint(*ask["failpoint"]))
    _observe(watchers, ask.get("mutant"))
    if ask.get("max_rows"):
        _cut(ask["max_rows"])
    from streambot.cli.main import run

    return run(ask["argv"])


def _cut(max_rows: int) -> None:
    """Frames hold so many rows at most."""
    from streambot.replay.framing import Framing

    init = Framing.__init__

    def small(self: Framing, *arguments: Any, **more: Any) -> None:
        init(self, *arguments, **{"max_rows": max_rows} | more)

    Framing.__init__ = small


def _observe(watchers: list[Any], mutant: str | None) -> None:
    """Put tasks and writers of ticks that tell where they are in the place of the product's own."""
    from aiokafka.conn import AIOKafkaConnection

    from streambot.processor.exactly_once import ExactlyOnceRunner
    from streambot.streams.committing import CommittingSink
    from streambot.wiring import tasks, working
    from tests.kafka.mutants import MUTANTS

    kind: type = ExactlyOnceRunner
    if mutant is not None:
        kind = MUTANTS[mutant](kind) or kind

    def tell(partition: int, point: str) -> None:
        for watcher in watchers:
            watcher.reached(partition, point)

    class Told(kind):
        def __init__(self, plan: Any, *arguments: Any, on_committed: Any, **more: Any) -> None:
            partition = plan.who.partition

            def committed(done: Any) -> None:
                if any(record.stream == "fills" for record in done.records):
                    tell(partition, FILLED)
                on_committed(done)

            more["reached"] = partial(tell, partition)
            super().__init__(plan, *arguments, on_committed=committed, **more)

    class ToldSink(CommittingSink):
        async def _transaction(self, taken: Any) -> None:
            tell(0, "begun")
            await super()._transaction(taken)
            tell(0, "committed")

    send = AIOKafkaConnection.send

    def sent(self: Any, request: Any, *arguments: Any, **more: Any) -> Any:
        answer = send(self, request, *arguments, **more)
        if type(request).__name__.startswith("EndTxn"):
            for watcher in watchers:
                if isinstance(watcher, Failpoint):
                    watcher.end_requested()
        return answer

    AIOKafkaConnection.send = sent
    working.ExactlyOnceRunner  # noqa: B018  # where workers take it from
    working.ExactlyOnceRunner = Told
    tasks.CommittingSink = ToldSink


def _redirect(ask: dict[str, Any]) -> None:
    with (
        Path(os.devnull).open("rb") as null,
        Path(ask["out"]).open("ab") as out,
        Path(ask["err"]).open("ab") as err,
    ):
        os.dup2(null.fileno(), 0)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)


def _preload() -> None:
    for name in (
        "streambot.cli.worker", "streambot.cli.publish", "streambot.cli.which_broker",
        "streambot.cli.keyboard", "streambot.cli.progress", "streambot.cli.piece_view",
        "streambot.cli.stopping", "streambot.wiring.working", "streambot.wiring.publishing",
        "streambot.adapters.kafka", "streambot.adapters.broker.standing", "tests.kafka.mutants",
        "exchange_calendars", "rich.console", "rich.text",
    ):  # fmt: skip
        importlib.import_module(name)
    from streambot.wiring.warmup import warm_up
    from tests.unit.processor.market import Market

    warm_up(Market("ABC", bars=5).manifest(partitions=1))


def _fork(ask: dict[str, Any]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _die_with(parent)
        _redirect(ask)
        code = become(ask)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def template() -> None:
    """Start a process for every line of the input, and say how those ended that are asked about."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which end this
    _preload()
    children: set[int] = set()
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        ask = json.loads(line)
        if "poll" in ask:
            pid, status = os.waitpid(ask["poll"], os.WNOHANG)
            answer = {"code": os.waitstatus_to_exitcode(status) if pid else None}
            children.discard(pid)
        else:
            pid = _fork(ask)
            children.add(pid)
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        sys.exit(become(json.loads(sys.argv[2])))
    template()
