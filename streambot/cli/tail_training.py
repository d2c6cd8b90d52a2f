"""`tail experience`, `policy` and `status` of a training, from its broker.

A training that was started here is found by its folder, any other by what it has declared on its
broker. Nothing of these streams is in a file: they are as lasting as the broker is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from streambot.cli.tail_experience import fragment_row, weights_row
from streambot.cli.tail_files import Row
from streambot.cli.tail_generations import GenerationFollower, stream_of
from streambot.cli.tail_log import Follower, Going
from streambot.cli.tail_updates import update_row
from streambot.cli.which_broker import BrokerPlace, find_broker, open_broker
from streambot.domain.errors import BrokerError, TopicError, UsageError
from streambot.domain.suggest import did_you_mean
from streambot.learning.declaration import (
    EXPERIENCE,
    POLICY,
    RUNS,
    STATUS,
    State,
    read_training,
)
from streambot.learning.published import declared_trainings
from streambot.processor.run_state import RunRecord, RunState
from streambot.streams.ports import Record

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from streambot.cli.tail_files import Batch
    from streambot.cli.tail_log import Place
    from streambot.domain.config import Resolved
    from streambot.domain.kafka_settings import KafkaSecurity
    from streambot.learning.declaration import Training
    from streambot.streams.ports import Log


_ROWS: dict[str, Callable[[Record], Row]] = {
    EXPERIENCE: fragment_row, POLICY: weights_row, STATUS: update_row,
}  # fmt: skip
_DECLARED_EVERY_S = 2.0
_ENDING_S, _LOOKS = 5.0, 50


class SeenTraining(NamedTuple):
    """A training, seen from outside.

    Attributes:
        path: its folder; of one that was started elsewhere, there is none.
        record: of such a one: what its log says.
        is_here: it was started here.
    """

    path: Path
    record: RunRecord
    is_here: bool = True

    @property
    def living(self) -> bool:
        """True while a process here works on it."""
        from streambot.processor.folder import is_held

        return self.is_here and is_held(self.path)

    @property
    def state(self) -> str:
        """As `SeenRun.state`."""
        if not self.is_here:
            return "elsewhere"
        from streambot.processor.folder import read_record, shown_state

        return shown_state(self.path, read_record(self.path))


def find_training(settings: Resolved) -> SeenTraining:
    """The training that the settings name, else the newest here, or the only one of a broker.

    Raises:
        UsageError: there is none of that name here, and no broker is known; or a run has the name.
        TopicError: it is not declared on the broker.
        StreambotError: the broker cannot be reached.
    """
    from streambot.processor.folder import TRAINING, find_run, list_runs, read_record

    runs_dir, name = Path(settings.config.runs_dir), settings.config.run
    named = settings.origins["bootstrap_servers"].startswith("--")
    here = name is not None and (runs_dir / name / "run.json").is_file()
    if not named and (here or (name is None and list_runs(runs_dir, TRAINING))):
        path = find_run(runs_dir, name, TRAINING)
        return SeenTraining(path, read_record(path))
    return asyncio.run(_look_elsewhere(settings, runs_dir, name))


async def _look_elsewhere(settings: Resolved, runs_dir: Path, name: str | None) -> SeenTraining:
    from streambot.processor.folder import TRAINING, find_run

    try:
        broker = await find_broker(settings, None)
    except UsageError:
        find_run(runs_dir, name, TRAINING)  # says what is not here, and what is
        raise
    async with open_broker(broker, settings.config.kafka) as log:
        found = await _declared(log, broker.servers, settings.config.namespace, name)
    return SeenTraining(runs_dir / found.training, _record_of(found, broker.servers), is_here=False)


async def _declared(log: Log, servers: str, namespace: str, name: str | None) -> Training:
    if name is not None:
        found = await read_training(log, f"{namespace}.{name}.{RUNS}")
        if found is not None:
            return found
    known = (await declared_trainings(log, namespace)).trainings
    if name is None and len(known) == 1:
        return next(iter(known.values()))
    if name is None and known:
        raise UsageError(
            f"{len(known)} trainings are declared on {servers}", where="--run",
            hint=f"one of {', '.join(sorted(known)[:8])}",
        )  # fmt: skip
    what = "training" if name is None else f"training {name}"
    raise TopicError(
        f"no {what} is declared on {servers} in namespace {namespace}",
        hint=(did_you_mean(name, list(known)) if name is not None else "")
        or "streambot train starts one; --namespace names another; or this user may not see it",
    )


def _record_of(found: Training, servers: str) -> RunRecord:
    return RunRecord(
        run=found.training, state=RunState.RUNNING, pid=0, broker=servers, embedded=False,
        topics=found.topics, started_at="", outputs="topics", kind="training",
    )  # fmt: skip


async def training_rows(
    seen: SeenTraining,
    stream: str,
    place: Place,
    security: KafkaSecurity,
) -> AsyncGenerator[Batch]:
    """Rows of a stream of a training from its broker, until the training ends.

    Raises:
        UsageError: it has no such stream.
        BrokerError: its broker has gone, or cannot be reached.
        TopicError: the stream is not there (any more).
    """
    record = seen.record
    if stream not in record.topics:
        raise UsageError(
            f"training {record.run} has no stream {stream}",
            hint=f"it has {', '.join(sorted(record.topics)) or 'none: it was one process'}",
        )
    if record.embedded and not seen.living:
        raise BrokerError(
            f"the {stream} of training {record.run} went with its broker",
            hint="look while it trains, or keep it on Apache Kafka: train --bootstrap-servers",
        )
    topic, row_of = record.topics[stream], _ROWS[stream]
    end = Going(lambda: seen.living) if seen.is_here else _Declared(record.topics[RUNS])
    follows = Follower if stream_of(topic) is None else GenerationFollower
    follower = follows(
        BrokerPlace(record.broker, str(seen.path / "run.json")), security, topic, place, end,
        patient=not record.embedded, release=" the training goes on",
    )  # fmt: skip
    try:
        async with aclosing(follower.batches()) as batches:
            async for batch in batches:
                yield batch if batch is None else [row_of(one) for one in batch]
    except (BrokerError, TopicError):
        # The embedded broker goes with its training: that is the end, and no failure.
        if not record.embedded or not await _ends(seen):
            raise


class _Declared:
    """The end of a training that was started elsewhere, as its learner declares it."""

    exact = False

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._ended = False
        self._next = 0.0

    async def reached(self, log: Log) -> bool:
        """See `End.reached`."""
        now = asyncio.get_running_loop().time()
        if now >= self._next:
            self._next = now + _DECLARED_EVERY_S
            found = await read_training(log, self._topic)
            self._ended = found is not None and found.state is not State.RUNNING
        return self._ended


async def _ends(seen: SeenTraining) -> bool:
    """True once its process has gone: a moment behind its broker."""
    for _ in range(_LOOKS):
        if not seen.living:
            return True
        await asyncio.sleep(_ENDING_S / _LOOKS)
    return False
