"""One connection to a broker: every wait on it ends, and its loss is noticed and told.

A client of a dead broker waits for it without a word. So a watch asks for a sign of life once a
second, and everything that waits ends when none came for too long, or when somebody who knows (who
started the broker) says that it is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from streambot.adapters.kafka.failures import DELETED_HINT, told
from streambot.adapters.kafka.noise import forget_noise, last_noise, silence
from streambot.adapters.kafka.opening import not_opened
from streambot.adapters.kafka.profile import (
    REQUEST_TIMEOUT_S,
    BrokerProfile,
    consumer_settings,
    require_extension,
)
from streambot.adapters.kafka.stopping import stopped, to_the_end
from streambot.domain.errors import BrokerError, TopicError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aiokafka.client import AIOKafkaClient

_T = TypeVar("_T")

OPEN_LIMIT_S = 10.0
_STANDS_S = 2.0
"""A client has started by then, where its broker is there."""
_LEARN_PAUSE_S = 0.02
_ABSENT_S = 3.0
"""A broker that has just started may not know a stream yet; after that long, it is not there."""
_WATCH_S = 1.0
_WATCH_LIMIT_S = 2.0


class Connection:
    """Clients for questions, the watch, and the one way to wait.

    Args:
        servers: `host:port[,host:port]`.
        profile: kind of broker.
        settings: what every client of aiokafka gets.
        on_lost: told once, when the broker is lost.
    """

    def __init__(
        self,
        servers: str,
        profile: BrokerProfile,
        settings: dict[str, Any],
        on_lost: Callable[[BrokerError], None],
    ) -> None:
        self.servers = servers
        self.profile = profile
        self.settings = settings
        self.admin = AIOKafkaAdminClient(**settings)
        self.meta = AIOKafkaConsumer(**settings, **consumer_settings(profile))
        self._lost: asyncio.Future[BrokerError] = asyncio.get_running_loop().create_future()
        self._on_lost = on_lost
        self._watch: asyncio.Task[None] | None = None
        self.closed = False

    async def open(self) -> None:
        """Connect.

        Raises:
            BrokerError: nobody answers within `OPEN_LIMIT_S`, or aiokafka is not whole.
        """
        require_extension()
        silence()
        forget_noise()
        try:
            await _stands(self._connect())
        except (KafkaError, OSError, TimeoutError) as cause:
            await self.close()
            said, reason = last_noise()
            if isinstance(cause, TimeoutError):
                said, reason = f"nothing within {OPEN_LIMIT_S:g} s", None
            raise not_opened(reason, said or str(cause), self.servers, self.settings) from cause
        except BaseException:
            await self.close()
            raise
        self._watch = asyncio.create_task(self._look(), name=f"watch {self.servers}")

    async def _connect(self) -> None:
        async with asyncio.timeout(OPEN_LIMIT_S):
            await self.admin.start()
            await self.meta.start()

    async def close(self) -> None:
        """Let go of the broker."""
        self.closed = True
        if self._watch is not None:
            self._watch.cancel()
        await to_the_end(self._stop())

    async def _stop(self) -> None:
        if self._watch is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        if not await stopped(self.meta.stop()):
            await stopped(self.meta._client.close())  # noqa: SLF001
        await stopped(self.admin.close())

    def fail(self, failure: BrokerError) -> None:
        """The broker is lost. Only the first failure counts."""
        if not self._lost.done() and not self.closed:
            self._lost.set_result(failure)
            self._on_lost(failure)

    def check(self) -> None:
        """Raise where the broker is lost or the connection closed."""
        if self._lost.done():
            lost = self._lost.result()
            raise BrokerError(lost.message, where=lost.where, hint=lost.hint)
        if self.closed:
            raise BrokerError("the log is closed")

    async def bounded(self, work: Coroutine[Any, Any, _T], limit_s: float, doing: str) -> _T:
        """The result of `work`, or an error: of aiokafka, of the lost broker, or after `limit_s`."""
        try:
            self.check()
        except BrokerError:
            work.close()
            raise
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait(
                (task, self._lost), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
            )
        except asyncio.CancelledError:
            task.cancel()
            raise
        if task.done():
            try:
                return task.result()
            except (KafkaError, OSError, TimeoutError) as cause:
                self.check()
                raise told(cause, self.servers) from cause
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, KafkaError, OSError):
            await task
        self.check()
        raise BrokerError(f"no answer from {self.servers}: {doing} took more than {limit_s:g} s")

    async def start(self, work: Coroutine[Any, Any, None], limit_s: float, doing: str) -> None:
        """Start a client; whoever is cancelled meanwhile waits until it stands, and can be stopped."""
        await _stands(self.bounded(work, limit_s, doing))

    async def learn(self, client: AIOKafkaClient, stream: str) -> None:
        """Let a client know a stream that exists, without asking for it by name.

        Raises:
            TopicError: it does not.
        """
        loop = asyncio.get_running_loop()

        async def until_known() -> None:
            absent_since: float | None = None
            while client.cluster.partitions_for_topic(stream) is None:
                # Of all topics: a client that has asked for one by name asks for no other from then on.
                updated = await client.set_topics([])
                if not updated or stream in client.cluster.topics():
                    absent_since = None
                elif absent_since is None:
                    absent_since = loop.time()
                elif loop.time() - absent_since > _ABSENT_S:
                    raise TopicError("the stream was deleted", where=stream, hint=DELETED_HINT)
                await asyncio.sleep(_LEARN_PAUSE_S)

        await self.bounded(until_known(), REQUEST_TIMEOUT_S, f"learning about {stream}")

    async def _look(self) -> None:
        """Two missing signs of life in a row, and enough time without any, mean it is gone."""
        loop = asyncio.get_running_loop()
        heard, missed = loop.time(), 0
        while not self._lost.done():
            await asyncio.sleep(_WATCH_S)
            try:
                async with asyncio.timeout(_WATCH_LIMIT_S):
                    await self.admin._get_cluster_metadata([])  # noqa: SLF001
            except (KafkaError, OSError, TimeoutError):
                missed += 1
            else:
                heard, missed = loop.time(), 0
            silence_s = loop.time() - heard
            if missed > 1 and silence_s >= self.profile.unreachable_s:
                self.fail(
                    BrokerError(
                        f"{self.profile.name} at {self.servers} has not answered for "
                        f"{silence_s:.0f} s",
                        hint="is it still running? `--resume RUN` goes on from the last snapshot",
                    )
                )


async def _stands(starting: Coroutine[Any, Any, None]) -> None:
    """Wait until a client stands; whoever is cancelled meanwhile does, too, and can stop it.

    aiokafka leaves a connection open where its start is cut short.
    """
    task = asyncio.ensure_future(starting)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=_STANDS_S)
        raise
    finally:
        task.cancel()
