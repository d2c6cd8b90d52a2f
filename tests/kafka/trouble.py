"""A broker with everything that trouble needs: users, rights, TLS, a small disk; and people beside it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.admin import CreateAclsRequest

from streambot.adapters.broker import ApacheBroker
from streambot.adapters.broker.loopback import HOST
from streambot.adapters.kafka import KafkaLog
from tests.waiting import LIMIT_S

_T = TypeVar("_T")

ROOT = Path(__file__).resolve().parents[2]
TOPIC, LITERAL = 2, 3
DENY, ALLOW = 2, 3
READ, WRITE, DESCRIBE = 3, 4, 8


def listeners(folder: Path, sasl: int, tls: int) -> dict[str, str]:
    """A listener that asks for a password and one that is encrypted, beside the plain one."""
    folder.mkdir(parents=True)
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out",
         str(certificate), "-days", "2", "-subj", "/CN=localhost", "-addext",
         f"subjectAltName=IP:{HOST}"],
        check=True, capture_output=True,
    )  # fmt: skip
    store = folder / "store.pem"
    store.write_text(key.read_text() + certificate.read_text())
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
    return {
        "listeners": f"PASSWORD://{HOST}:{sasl},TLS://{HOST}:{tls}",
        "advertised.listeners": f"PASSWORD://{HOST}:{sasl},TLS://{HOST}:{tls}",
        "listener.security.protocol.map": "PASSWORD:SASL_PLAINTEXT,TLS:SSL",
        "listener.name.password.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.password.plain.sasl.jaas.config": (
            f'{plain} required user_alice="wonderland" user_watcher="looks";'
        ),
        "listener.name.tls.ssl.keystore.type": "PEM",
        "listener.name.tls.ssl.keystore.location": str(store),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "true",
    }


class Broker:
    """Apache Kafka, looked after by a thread with an event loop of its own."""

    def __init__(self, home: Path, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self._broker = ApacheBroker(home, folder, settings=settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kafka", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return self._broker.address

    @property
    def alive(self) -> bool:
        return self._broker.failure is None

    def start(self) -> None:
        self._wait(self._broker.start())

    def stop(self) -> None:
        self._wait(self._broker.stop())

    def kill(self) -> None:
        self._wait(self._broker.kill())

    def close(self) -> None:
        self.kill()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def do(self, work: Callable[[KafkaLog], Awaitable[_T]]) -> _T:
        """The result of `work` with a log of its own."""

        async def whole() -> _T:
            async with await KafkaLog.open(self.address) as log:
                return await work(log)

        return self._wait(whole())

    def administer(self, work: Callable[[AIOKafkaAdminClient], Awaitable[_T]]) -> _T:
        """As somebody with other tools would do it."""

        async def whole() -> _T:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
            await admin.start()
            try:
                return await work(admin)
            finally:
                await admin.close()

        return self._wait(whole())

    def delete(self, *topics: str) -> None:
        self.administer(lambda admin: admin.delete_topics(list(topics)))

    def add_partitions(self, topic: str, count: int) -> None:
        self.administer(lambda admin: admin.create_partitions({topic: NewPartitions(count)}))

    def set(self, topic: str, **settings: str) -> None:
        wanted = {name.replace("_", "."): value for name, value in settings.items()}
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, wanted)
        self.administer(lambda admin: admin.alter_configs([resource]))

    def rule(self, user: str, topic: str, operation: int, permission: int) -> None:
        """A right of somebody at a topic; whoever has no rule there then has no right."""
        request = CreateAclsRequest(
            TOPIC, topic, LITERAL, f"User:{user}", "*", operation, permission
        )
        answer = self.administer(lambda admin: admin._send_request(request))
        assert not any(code for code, *_ in answer.creation_responses), answer

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT_S)


class Ended(NamedTuple):
    code: int
    out: str
    err: str
    took_s: float


class Shell:
    """Somebody at a shell; waits are as short as a test needs (`impatient`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []

    def begins(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("STREAMBOT_")}
        kept = {k: v for k, v in os.environ.items() if k == "STREAMBOT_KERNEL_CACHE"}
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "kafka" / "impatient.py"), *arguments],
            cwd=self.folder, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**clean, **kept, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **environment},
        )  # fmt: skip
        process.began = time.monotonic()  # type: ignore[attr-defined]
        self.started.append(process)
        return process

    def types(self, *arguments: str, **environment: str) -> Ended:
        return self.waits_for(self.begins(*arguments, **environment))

    @staticmethod
    def waits_for(process: subprocess.Popen[str]) -> Ended:
        out, err = process.communicate(timeout=LIMIT_S)
        return Ended(process.returncode, out, err, time.monotonic() - process.began)  # type: ignore[attr-defined]

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.communicate()
