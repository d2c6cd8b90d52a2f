"""Weights of a training that serve elsewhere: where they are found, and how a run takes them over.

    moe-1@newest, moe-1@250 -> broker that declares moe-1 -> its `policy` stream -> a checkpoint

Weights are read once, at the start of a run, and kept in its folder: whoever goes on with the run or
does it again needs no broker for them, and what the training does meanwhile does not matter.
"""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from streambot.domain.errors import BrokerError, TopicError, UsageError
from streambot.domain.kafka_settings import KafkaSecurity
from streambot.domain.suggest import did_you_mean
from streambot.learning.declaration import POLICY, Training, read_training
from streambot.learning.published import CHECKPOINT, asked_of, declared_trainings, look
from streambot.processor.folder import (
    TRAINING,
    check_run_name,
    find_run,
    is_held,
    list_runs,
    read_record,
)
from streambot.streams.ports import Log
from streambot.wiring.bridge import Bridge
from streambot.wiring.extras import needs_train
from streambot.wiring.places import IN_PROCESS, open_lasting, runs_topic
from streambot.wiring.served import ServedName, kept_by, served_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from streambot.domain.config import SimulationConfig
    from streambot.domain.errors import StreambotError

FOLDERS = Path("policies")


class Lookup(NamedTuple):
    """How trainings are looked up.

    Attributes:
        runs_dir: of all folders of runs.
        namespace: first part of the names of all topics.
        security: how to talk to a broker.
        cwd: what relative paths start from.
    """

    runs_dir: Path
    namespace: str
    security: KafkaSecurity
    cwd: Path

    @classmethod
    def by(cls, config: SimulationConfig, cwd: Path) -> Lookup:
        """As the settings say."""
        return cls(cwd / config.runs_dir, config.namespace, config.kafka, cwd)


class Asked(NamedTuple):
    """A broker that is asked for a training, and who named it."""

    servers: str
    source: str


class Brokers(NamedTuple):
    """The brokers that are asked for a training, in their order. `gone`: why its own is none of them."""

    asked: tuple[Asked, ...]
    gone: BrokerError | None = None


def brokers_of(
    name: str, runs_dir: Path, *, first: Iterable[Asked] = (), then: Iterable[Asked] = ()
) -> Brokers:
    """The brokers that may have a training: the first ones, its own as its folder says, the rest.

    Raises:
        UsageError: that is a run, and no training.
        ConfigError: its `run.json` cannot be read.
    """
    asked = list(first)
    gone = None
    if (runs_dir / name / "run.json").is_file():
        path = find_run(runs_dir, name, TRAINING)
        record = read_record(path)
        if record.embedded and not is_held(path):
            gone = _gone(name)
        elif record.broker != IN_PROCESS:
            asked.append(Asked(record.broker, str(path / "run.json")))
    once: dict[str, Asked] = {}
    for one in (*asked, *then):
        once.setdefault(one.servers, one)
    return Brokers(tuple(once.values()), gone)


def _gone(name: str) -> BrokerError:
    return BrokerError(
        f"the weights of training {name} went with its embedded broker",
        hint=_beside(name) or "serve while it goes, or keep its streams: train --bootstrap-servers",
    )


def _beside(name: str) -> str:
    """Where a training of that name has left a checkpoint; empty: nowhere that is known."""
    kept = FOLDERS / name
    return f"a checkpoint of that name is there: {kept}" if (kept / CHECKPOINT).is_file() else ""


class OpenTraining(NamedTuple):
    """A training, and the log that has it.

    Attributes:
        topic: its `runs` stream.
    """

    log: Log
    at: Asked
    training: Training
    topic: str


@asynccontextmanager
async def open_training(name: str, brokers: Brokers, by: Lookup) -> AsyncIterator[OpenTraining]:
    """The first of the brokers that declares a training.

    Raises:
        UsageError: nobody says which broker to ask.
        BrokerError: none answers, or the training went with its own.
        TopicError: none of them declares it.
    """
    topic = runs_topic(by.namespace, check_run_name(name), by.cwd)
    failures: list[BrokerError] = []
    known: dict[str, None] = {}
    async with AsyncExitStack() as stack:
        for at in brokers.asked:
            async with AsyncExitStack() as trying:
                try:
                    place = await trying.enter_async_context(open_lasting(at.servers, by.security))
                    training = await read_training(place.log, topic)
                    if training is None:
                        known |= dict.fromkeys(await _names(place.log, by.namespace))
                except BrokerError as failure:
                    failures.append(failure)
                    continue
                if training is not None:
                    stack.push_async_exit(trying.pop_all())
                    found = OpenTraining(place.log, at, training, topic)
                    break
        else:
            raise _not_there(name, brokers, failures, list(known), by)
        yield found


async def _names(log: Log, namespace: str) -> Iterable[str]:
    return (await declared_trainings(log, namespace)).trainings


def _not_there(
    name: str,
    brokers: Brokers,
    failures: Sequence[BrokerError],
    known: list[str],
    by: Lookup,
) -> StreambotError:
    """Why no broker has a training: what is nearest to what a person can do about it."""
    if len(failures) < len(brokers.asked):
        servers = ", ".join(at.servers for at in brokers.asked)
        hint = (
            _beside(name) or did_you_mean(name, known) or "streambot policy ls shows what there is"
        )
        return TopicError(
            f"no training {name} is declared on {servers} in namespace {by.namespace}", hint=hint
        )
    if failures:
        return failures[0]
    if brokers.gone is not None:
        return brokers.gone
    here = [record.run for record in list_runs(by.runs_dir, TRAINING)]
    which = "--bootstrap-servers HOST:PORT, or start one: streambot broker start"
    return UsageError(
        f"there is no training {name} here, and no broker to ask about it",
        where=str(by.runs_dir),
        hint=f"{_beside(name) or did_you_mean(name, here)}\n{which}".strip(),
    )


class Taken(NamedTuple):
    """Weights that were read, as a checkpoint.

    Attributes:
        name: `training@sequence`.
        folder: of the checkpoint; of somebody else's, or for as long as `taking` lasts.
        refused: records that could not be used, by reason.
    """

    name: str
    folder: Path
    refused: dict[str, int]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What people should know."""
        if not self.refused:
            return ()
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in self.refused.items())
        return (f"{self.name}: records of weights beside it that cannot be used: {reasons}",)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for as long as this lasts."""
    with tempfile.TemporaryDirectory(prefix="streambot-policy-") as made:
        yield Path(made)


async def take(name: ServedName, brokers: Brokers, folder: Path, by: Lookup) -> Taken:
    """Read weights from the stream of a training, and write them as a checkpoint.

    Args:
        name: which ones.
        brokers: to ask.
        folder: of the checkpoint.

    Raises:
        StreambotError: they are not there, or cannot be used.
    """
    with needs_train("a trained policy", where=str(name)):
        from streambot.learning.serving import keep
    async with open_training(name.training, brokers, by) as found:
        shelf = await look(found.log, found.topic, name.sequence)
        if shelf is None:
            raise TopicError(f"training {name.training} is declared no more", where=found.topic)
        weights = asked_of(shelf, name.sequence)
    where = shelf.training.topics[POLICY]
    exact = str(ServedName(name.training, weights.sequence))
    keep(weights.value, folder, name=exact, layout=shelf.training.layout, where=where)
    return Taken(exact, folder, shelf.refused)


def weights_for(
    config: SimulationConfig,
    cwd: Path,
    folder: Path,
    *,
    parent: str | None = None,
    then: Iterable[Asked] = (),
) -> Taken | None:
    """The weights of a training that the policy of a new run names; None: it names something else.

    A run that goes on with another one, or repeats it, has the weights of that one, where they are
    here. Waits: not for the thread of an event loop.

    Args:
        config: of the run.
        cwd: where relative paths start.
        folder: for a checkpoint of what is read.
        parent: the run that a seek left for this one.
        then: brokers to ask where neither the run's own nor the training's has it.

    Raises:
        StreambotError: they are not there, or cannot be used.
    """
    name = served_name(config.policy, cwd)
    if name is None:
        return None
    by = Lookup.by(config, cwd)
    before = [by.runs_dir / run for run in (parent, config.from_run) if run is not None]
    kept = kept_by(config.policy, before)
    if kept is not None:
        return Taken(config.policy, kept, {})
    own = {"--bootstrap-servers": config.bootstrap_servers, "--from-broker": config.from_broker}
    first = [Asked(servers, flag) for flag, servers in own.items() if servers is not None]
    brokers = brokers_of(name.training, by.runs_dir, first=first, then=then)
    with Bridge() as bridge:
        return bridge.wait(take(name, brokers, folder, by))
