"""The Faust app of a roll-up: agents over the streams of one run, and how it starts and ends."""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING, Any, NoReturn

import faust
from faust.app.base import BootStrategy
from faust.exceptions import AlreadyConfiguredWarning
from faust.worker import Worker

from streambot.adapters.faust_app.transport import (
    REBALANCE_S,
    SESSION_S,
    OneMember,
    RollupTransport,
)
from streambot.adapters.faust_app.work import TICK_S, RollupWork
from streambot.domain.errors import StreambotError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from faust.types import AppT, StreamT

    from streambot.adapters.faust_app.settings import RollupSettings

_NO_WEB_PORT = 6066
"""Faust's own default: its command line turns the web on unless told otherwise, so only somebody
who names another port gets it."""
_BUFFERED_RECORDS = 64


def wants_web(app: AppT) -> bool:
    """Whether somebody asked for Faust's web pages, by naming a port."""
    return bool(app.conf.web_enabled) and app.conf.web_port != _NO_WEB_PORT


class _Boot(BootStrategy):
    """No producer: outputs go through `streams.ports.Sink`."""

    enable_kafka_producer = False

    def _should_enable_web(self) -> bool:
        return wants_web(self.app)


class RollupWorker(Worker):
    """`faust … worker`: ends with the roll-up, with its error in words and its exit code."""

    app: RollupApp

    def __init__(self, app: RollupApp, *args: Any, **settings: Any) -> None:  # noqa: ANN401
        super().__init__(app, *args, **settings)
        with warnings.catch_warnings():
            # Faust warns of settings that change late; its command line has just changed this one.
            warnings.simplefilter("ignore", AlreadyConfiguredWarning)
            app.conf.web_enabled = wants_web(app)

    async def on_started(self) -> None:
        """Run until somebody stops it, or it fails."""
        watch = asyncio.ensure_future(self._watch())
        try:
            await super().on_started()
        finally:
            watch.cancel()

    def execute_from_commandline(self) -> NoReturn:
        """Run, and leave with the exit code of what happened."""
        try:
            super().execute_from_commandline()
        except SystemExit as end:
            failure = self.app.work.failure
            if isinstance(failure, StreambotError):
                self.carp(f"error: {failure}")
                raise SystemExit(failure.exit_code) from None
            if failure is not None:
                raise failure from None
            raise SystemExit(end.code) from None

    async def _watch(self) -> None:
        await self.app.work.watch()
        await self.stop()


class RollupApp(faust.App):
    """A Faust app for one run.

    Attributes:
        work: what its agents do.
    """

    BootStrategy = _Boot

    def __init__(self, settings: RollupSettings) -> None:
        self.work = RollupWork(settings)
        super().__init__(
            settings.group,
            # Faust would read two dozen variables of the environment.
            env={},
            broker=[f"kafka://{server}" for server in settings.servers.split(",")],
            store="memory://",
            PartitionAssignor=OneMember,
            Worker=RollupWorker,
            autodiscover=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            broker_session_timeout=SESSION_S,
            broker_heartbeat_interval=SESSION_S / 4,
            broker_rebalance_timeout=REBALANCE_S,
            broker_request_timeout=15.0,
            stream_buffer_maxsize=_BUFFERED_RECORDS,
            stream_wait_empty=False,
            worker_redirect_stdouts=False,
            web_enabled=settings.web_port is not None,
            web_bind="127.0.0.1",
            web_host="127.0.0.1",
            web_port=settings.web_port or _NO_WEB_PORT,
        )

    async def on_start(self) -> None:
        """Connect before anything else starts; where that fails, nothing does."""
        try:
            await self.work.open()
        except Exception as failure:  # noqa: BLE001  # told to whoever runs the roll-up
            self.work.fail(failure)
            await self.stop()
            return
        await super().on_start()

    async def on_shutdown(self) -> None:
        """Let go of the broker behind everything else."""
        await super().on_shutdown()
        await self.work.close()

    def _create_directories(self) -> None:
        """None: nothing is kept outside memory and the streams."""

    def _new_transport(self) -> Any:  # noqa: ANN401
        return RollupTransport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> Any:  # noqa: ANN401
        return RollupTransport(self.conf.broker_producer, self)


def make_app(settings: RollupSettings) -> RollupApp:
    """A Faust app that rolls up one run. It touches no event loop until it is started."""
    app = RollupApp(settings)
    work = app.work
    for stream, name, count in (
        ("pnl", "rollup", work.marks),
        ("fills", "breaches", work.fills),
        ("dead-letter", "triage", work.dead_letter),
    ):
        _add_agent(app, settings.topic(stream), name, count)

    @app.task
    async def look() -> None:
        while not app.should_stop:
            await app.sleep(TICK_S)
            await work.tick()

    @app.on_partitions_assigned.connect  # type: ignore[arg-type]  # it takes what Faust sends
    async def assigned(_: Any, *places: Any, **__: Any) -> None:  # noqa: ANN401
        work.assigned(app.consumer_generation_id, active=any(places))

    return app


def _add_agent(
    app: RollupApp, topic: str, name: str, count: Callable[[Any], Awaitable[None]]
) -> None:
    channel = app.topic(
        topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw",
        acks=False,
    )  # fmt: skip

    @app.agent(channel, name=name, concurrency=1)
    async def agent(stream: StreamT[bytes]) -> None:
        async for event in stream.events():
            await count(event.message)
