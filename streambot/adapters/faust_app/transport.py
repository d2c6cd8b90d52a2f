"""How the Faust app reads: everything by one member, from its own positions, nothing committed.

Faust would read uncommitted records, from the offsets that it last committed, and give each member
of the group a share of the partitions. A roll-up needs all partitions of a run, only what is
committed, and the position that belongs to its state: at a start that is the beginning, and behind
a rebalance the record after the last one that was counted. So the offsets of the group mean nothing,
and none are written. That also leaves out what goes wrong around Faust's commits (`docs/adr/0004`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

import aiokafka
from faust.assignor.client_assignment import ClientAssignment
from faust.assignor.partition_assignor import PartitionAssignor
from faust.transport.drivers import aiokafka as driver
from mode.threads import WorkerThread

from streambot.adapters.kafka.profile import (
    EMBEDDED,
    BrokerProfile,
    client_settings,
    consumer_settings,
)
from streambot.adapters.kafka.stopping import stopped
from streambot.domain.kafka_settings import KafkaSecurity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiokafka.cluster import ClusterMetadata
    from faust.assignor.partition_assignor import (
        MemberAssignmentMapping,
        MemberMetadataMapping,
    )
    from faust.types import TP, AppT
    from mode.threads import ServiceThread

    from streambot.adapters.faust_app.work import RollupWork

STOP_S = 1.0
REBALANCE_S = 10.0
SESSION_S = 6.0
"""Apache Kafka takes no less. After a kill, the group waits that long for the dead member."""
EMBEDDED_SESSION_S = 2.0
"""The embedded broker lets everybody who joins wait for half of it."""
_RECORDS = 64
_LOOK_AGAIN_S = 0.01


def session_s(profile: BrokerProfile) -> float:
    """Session timeout of the group's members."""
    return EMBEDDED_SESSION_S if profile is EMBEDDED else SESSION_S


def _work(app: AppT) -> RollupWork:
    """What the agents of a `RollupApp` do."""
    work: RollupWork = app.work  # type: ignore[attr-defined]
    return work


class OneMember(PartitionAssignor):
    """Gives all partitions to one member: the one that has them, else the first by its id."""

    def _perform_assignment(
        self, cluster: ClusterMetadata, member_metadata: MemberMetadataMapping
    ) -> MemberAssignmentMapping:
        clients = {
            member: self._get_client_metadata(metadata)
            for member, metadata in member_metadata.items()
        }
        self._update_member_urls(clients)
        chosen = min(clients, key=lambda m: (not clients[m].assignment.actives, m))
        topics = sorted({t for m in member_metadata.values() for t in m.subscription})
        everything = {t: sorted(cluster.partitions_for_topic(t) or ()) for t in topics}
        assignments = {
            member: ClientAssignment(actives=everything if member == chosen else {}, standbys={})
            for member in clients
        }
        return self._protocol_assignments(
            assignments,
            self._get_changelog_distribution(assignments),
            self._get_external_topic_distribution(assignments),
            dict.fromkeys(topics, 0),
        )


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  # it is another thread's doing
        await asyncio.sleep(_LOOK_AGAIN_S)


class _DaemonThread(WorkerThread):
    """A thread that nobody waits for with the event loop standing still, as mode does.

    The consumer in it may itself be waiting for that loop: a group that is joined just now.
    """

    def __init__(self, service: ServiceThread, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(service, **kwargs)
        self.daemon = True

    def stop(self) -> None:
        """`_Thread.stop` has waited."""


class _Thread(driver.AIOKafkaConsumerThread):
    """The thread that Faust's consumer lives in."""

    Worker = _DaemonThread
    shutdown_timeout = 2 * STOP_S

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:  # noqa: ANN401
        del transport
        work = _work(self.app)
        settings = work.settings
        session_ms = int(session_s(work.profile) * 1_000)
        security = settings.security or KafkaSecurity()
        return aiokafka.AIOKafkaConsumer(
            **client_settings(settings.servers, security)
            | consumer_settings(work.profile)
            | {
                "group_id": settings.group,
                "partition_assignment_strategy": [self.app.assignor],
                "auto_offset_reset": "earliest",
                "session_timeout_ms": session_ms,
                "heartbeat_interval_ms": session_ms // 4,
                "rebalance_timeout_ms": int(REBALANCE_S * 1_000),
                "max_poll_records": _RECORDS,
            }
        )

    async def stop(self) -> None:
        """Stop, and wait for the thread's end."""
        # While it begins, mode would pass over it, and it would never end.
        await _until(lambda: not self._lives or self._started.is_set())
        await super().stop()
        await _until(lambda: not self._lives)

    @property
    def _lives(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        """Do nothing: `on_thread_stop` closes it.

        Faust calls this where the group is joined while it stops: it would call the consumer closed,
        and have another thread's event loop close its connections, which cannot. They stayed open.
        """

    async def on_thread_stop(self) -> None:
        """Stop the consumer, which may wait for a broker that is gone."""
        consumer, self._consumer = self._consumer, None
        await stopped(super().on_thread_stop(), STOP_S)
        if consumer is not None and not await stopped(consumer.stop(), STOP_S):
            await stopped(consumer._client.close(), STOP_S)  # noqa: SLF001

    def on_crash(self, msg: str, *fmt: Any) -> None:  # noqa: ANN401
        """Say nothing here: mode would print a traceback."""


class RollupConsumer(driver.Consumer):
    """Faust's consumer, from the positions of the roll-up."""

    def _new_consumer_thread(self) -> _Thread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)

    async def perform_seek(self) -> None:
        """Go to the record behind the last one that was counted, or to the first."""
        positions = _work(self.app).positions
        places = self.assignment()
        known = {
            self._new_topicpartition(*place): positions[place]
            for place in places
            if place in positions
        }
        new = [self._new_topicpartition(*place) for place in places if place not in positions]
        self._read_offset.update(dict.fromkeys(places))
        if new:
            await self._thread.seek_to_beginning(*new)
        if known:
            await self._thread.seek_wait(known)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        del offsets
        return True


class RollupTransport(driver.Transport):
    """Faust's way to Kafka, with the consumer above."""

    Consumer: ClassVar[Any] = RollupConsumer
