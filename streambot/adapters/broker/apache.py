"""Apache Kafka 4.x as a child process: one KRaft node on loopback, from an unpacked distribution.

Only `libs/*.jar` of the distribution is needed, and Java 17 or newer. Data live in a folder of the
caller's and survive a stop: started again on the same folder, it has the same topics.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Self

from streambot.adapters.broker.apache_settings import LOG4J, server_properties
from streambot.adapters.broker.child import ChildProcess
from streambot.adapters.broker.loopback import HOST, choose_port, cluster_id
from streambot.domain.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

NAME = "Apache Kafka"
START_LIMIT_S = 60.0
STOP_GRACE_S = 20.0
_PORT_TRIES = 4
_PORT_PAUSE_S = 1.0
_CLUSTER_FILE = "cluster-id"
_HEAP = ("-Xms256m", "-Xmx768m")
_HINT = "point KAFKA_HOME at an unpacked Apache Kafka 4.x, and have Java 17 or newer on the PATH"


class ApacheBroker:
    """Apache Kafka from a folder of jars. An async context manager.

    Args:
        home: the distribution: a folder with `libs/*.jar`.
        folder: for configuration, log and data; made if it does not exist, kept when stopping.
        port: loopback port; None: a random free one below 32768, the same at the next start.
        java: the Java program; None: the one on the PATH, or of `$JAVA_HOME`.
        outlives: see `ChildProcess`; None: the broker dies with this process.
        settings: of the server, beside or instead of its own, see `server_properties`.
    """

    def __init__(
        self,
        home: Path,
        folder: Path,
        *,
        port: int | None = None,
        java: Path | None = None,
        outlives: Callable[[int], None] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._home = home
        self._folder = folder
        self._fixed_port = port
        self._java = java
        self._outlives = outlives
        self._child: ChildProcess | None = None
        self._tell: list[Callable[[BrokerError], None]] = []
        self.port = port or 0
        self.cluster = ""
        """Name of its cluster, once it is being started."""

    @property
    def address(self) -> str:
        """`host:port` for clients."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Its process id, once started."""
        return self._child.pid if self._child else None

    @property
    def failure(self) -> BrokerError | None:
        """Why it was lost, if it was."""
        return self._child.failure if self._child else None

    def on_failure(self, tell: Callable[[BrokerError], None]) -> None:
        """Call `tell` once, as soon as the broker is lost without having been stopped."""
        if self._child is None:
            self._tell.append(tell)
        else:
            self._child.on_failure(tell)

    async def start(self) -> None:
        """Format the data folder if it is new, start, and wait until it answers.

        Raises:
            BrokerError: no jars or Java, port in use, or no answer within `START_LIMIT_S`.
        """
        if self._child is not None and self._child.alive:
            raise BrokerError(f"{NAME} was started already")
        java = self._find_java()
        if not any(self._home.glob("libs/*.jar")):
            raise BrokerError(f"no libs/*.jar in {self._home}", hint=_HINT)
        for attempt in range(_PORT_TRIES):
            # The same port at every start: clients that ride out a restart come back to it.
            self.port = choose_port(self._fixed_port)
            self.cluster = cluster = await self._prepare(java)
            self._child = child = self._process(
                java, "kafka.Kafka", "server.properties", outlives=self._outlives
            )
            try:
                await self._come_up(child, cluster)
            except BrokerError:
                await child.stop(0.0)
                if "already in use" not in child.tail(100) or attempt == _PORT_TRIES - 1:
                    raise
                await asyncio.sleep(_PORT_PAUSE_S)  # somebody was faster, or has just left
            except BaseException:
                await child.stop(0.0)
                raise
            else:
                break
        self._fixed_port = self.port

    async def _come_up(self, child: ChildProcess, cluster: str) -> None:
        async def answers() -> bool:
            return await cluster_id(self.port) == cluster

        await child.start()
        await child.ready(answers, every_s=0.05, limit_s=START_LIMIT_S)
        for tell in self._tell:
            child.on_failure(tell)
        self._tell.clear()

    async def stop(self) -> None:
        """Stop it cleanly; its data stay. A second call does nothing."""
        if self._child is not None:
            await self._child.stop(STOP_GRACE_S)

    async def release(self) -> None:
        """Let it go on without this process, where it `outlives` it."""
        if self._child is not None:
            await self._child.release()

    async def kill(self) -> None:
        """Stop it as a crash would: kill -9."""
        if self._child is not None:
            await self._child.stop(0.0)

    def _find_java(self) -> str:
        if self._java is not None:
            return str(self._java)
        home = os.environ.get("JAVA_HOME")
        found = shutil.which("java", path=f"{home}/bin") if home else None
        found = found or shutil.which("java")
        if found is None:
            raise BrokerError(f"{NAME} needs Java, and none was found", hint=_HINT)
        return str(Path(found).absolute())

    async def _prepare(self, java: str) -> str:
        """Write the configuration; format the data folder once. Returns the cluster's name."""
        folder = self._folder
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
        data = (folder / "data").absolute()
        controller = choose_port()
        while controller == self.port:
            controller = choose_port()
        properties = server_properties(self.port, controller, data, self._settings)
        (folder / "server.properties").write_text(properties)
        (folder / "log4j2.yaml").write_text(LOG4J)
        named = folder / _CLUSTER_FILE
        if named.exists():
            return named.read_text().strip()
        # 16 bytes as Kafka writes them: base64url without padding.
        cluster = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        if cluster.startswith("-"):  # would look like an option
            cluster = "A" + cluster[1:]
        shutil.rmtree(data, ignore_errors=True)
        formatting = self._process(
            java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", "server.properties"
        )
        await formatting.start()
        ended = await formatting.ended(START_LIMIT_S)
        await formatting.stop(0.0)
        if not ended:
            raise BrokerError(f"{NAME}: formatting took more than {START_LIMIT_S:g} s")
        if not (data / "meta.properties").exists():
            raise BrokerError(f"{NAME}: {data} was not formatted: {formatting.tail(6)}", hint=_HINT)
        named.write_text(cluster + "\n")
        return cluster

    def _process(
        self,
        java: str,
        main: str,
        *arguments: str,
        outlives: Callable[[int], None] | None = None,
    ) -> ChildProcess:
        libs = (self._home / "libs").absolute()
        log4j = (self._folder / "log4j2.yaml").absolute()
        return ChildProcess(
            NAME,
            [java, "-cp", f"{libs}/*", *_HEAP, f"-Dlog4j2.configurationFile={log4j}", main, *arguments],
            folder=self._folder,
            environment={"PATH": os.defpath, "HOME": str(self._folder.absolute())},
            log=self._folder / "broker.log",
            outlives=outlives,
        )  # fmt: skip

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.stop()
