"""`streambot broker` and `streambot topics` with Apache Kafka, as a person uses them: started by one command,
altered behind their back, put right by another, stopped, found again, deleted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streambot.adapters.broker.processes import start_of
from streambot.adapters.kafka import APACHE, KafkaLog, detect_profile
from streambot.domain.errors import BrokerError, TopicError
from streambot.domain.topics import Of, bundled_topics, streams_of
from tests.waiting import until

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 120


class Ended(NamedTuple):
    code: int
    out: str
    err: str


class Person:
    """Somebody at a shell in a folder of their own."""

    def __init__(self, folder: Path, kafka_home: Path) -> None:
        self.folder = folder
        clean = {k: v for k, v in os.environ.items() if not k.startswith("STREAMBOT_")}
        kept = {k: v for k, v in os.environ.items() if k == "STREAMBOT_KERNEL_CACHE"}
        self._environment = {
            **clean, **kept, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "KAFKA_HOME": str(kafka_home),
        }  # fmt: skip

    def begins(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "streambot.cli.main", *arguments], cwd=self.folder, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=self._environment,
        )  # fmt: skip

    def types(self, *arguments: str) -> Ended:
        process = self.begins(*arguments)
        out, err = process.communicate(timeout=LIMIT_S)
        assert "Traceback" not in err
        return Ended(process.returncode, out, err)

    def sees(self, *arguments: str) -> dict[str, Any]:
        """The one JSON object that a command prints."""
        return json.loads(self.types(*arguments, "--json").out)


@pytest.fixture
def person(tmp_path: Path, kafka_home: Path) -> Iterator[Person]:
    someone = Person(tmp_path, kafka_home)
    yield someone
    assert someone.types("broker", "stop", "--delete-data").code == 0


def behind_its_back(address: str, work: Callable[[AIOKafkaAdminClient], Any]) -> Any:
    """As an administrator with other tools would do it."""

    async def whole() -> Any:
        admin = AIOKafkaAdminClient(bootstrap_servers=address)
        await admin.start()
        try:
            return await work(admin)
        finally:
            await admin.close()

    return asyncio.run(whole())


def replace_settings(address: str, topic: str, settings: dict[str, str]) -> None:
    """All settings of a topic become these, and the others the broker's defaults."""
    wanted = [ConfigResource(ConfigResourceType.TOPIC, topic, settings)]
    behind_its_back(address, lambda admin: admin.alter_configs(wanted))


def test_a_day_with_a_broker(person: Person, kafka_home: Path) -> None:
    started = person.types("broker", "start")
    assert started.code == 0, started.err
    address = started.out.strip()
    assert "Apache Kafka" in started.err
    assert f"--bootstrap-servers {address}" in started.err
    status = person.sees("broker", "status")
    assert (status["status"], status["kind"]) == ("running", "apache")
    assert status["memory_bytes"] > 50 << 20
    assert person.sees("broker", "start")["already"] is True
    assert asyncio.run(detect_profile(address)) is APACHE

    done = person.types(
        "simulate", "-s", "max", "--run", "day", "--bootstrap-servers", address, "-q"
    )
    assert done.code == 0, done.err
    assert person.types("topics", "plan", "--run", "day").code == 0, "a run makes them as declared"

    (person.folder / "elsewhere").mkdir()
    colleague = Person(person.folder / "elsewhere", kafka_home)
    seen = colleague.types("topics", "plan", "--run", "day", "--bootstrap-servers", address)
    assert seen.code == 0, seen.err
    assert "by its log: 2 partitions" in seen.err

    fills = "streambot.day.fills"
    replace_settings(address, fills, {"retention.ms": "604800000"})
    replace_settings(
        address, "streambot.day.runs", {"cleanup.policy": "delete", "min.insync.replicas": "1"}
    )
    behind_its_back(address, lambda admin: admin.delete_topics(["streambot.day.late"]))
    until(lambda: "late" not in person.types("topics", "ls", "--run", "day").out, "late is gone")
    plan = person.types("topics", "plan", "--run", "day")
    assert plan.code == 6
    assert "DESTRUCTIVE" in plan.out
    assert "try: streambot topics apply --run day" in plan.err
    found = {
        (one["stream"], one["name"]): (one["declared"], one["found"], one["destructive"])
        for one in person.sees("topics", "plan", "--run", "day")["differences"]
    }
    assert found["fills", "retention.ms"] == ("-1", "604800000", True)
    assert found["late", ""] == ("", "", False)
    assert found["runs", "cleanup.policy"] == ("compact", "delete", False)

    applied = person.types("topics", "apply", "--run", "day")
    assert applied.code == 0, applied.err
    assert "created  streambot.day.late  2 partitions" in applied.out
    assert "retention.ms: 604800000 -> -1" in applied.out
    assert "cleanup.policy: delete -> compact" in applied.out
    plan = person.types("topics", "plan", "--run", "day")
    assert plan.code == 0
    assert "left alone: min.insync.replicas=1" in plan.out
    again = person.sees("topics", "apply", "--run", "day")
    assert (again["created"], again["differences"]) == ([], [])

    # Partitions can be added by others, and by nobody be taken away again.
    behind_its_back(
        address, lambda admin: admin.create_partitions({"streambot.day.pnl": NewPartitions(3)})
    )
    replace_settings(address, fills, {"retention.ms": "604800000"})
    refused = person.types("topics", "apply", "--run", "day")
    assert refused.code == 6
    assert "nothing was changed" in refused.err
    left = person.sees("topics", "plan", "--run", "day")["differences"]
    assert {one["what"] for one in left} == {"setting", "partitions"}, "the setting is as it was"

    stopped = person.types("broker", "stop")
    assert stopped.code == 0
    assert "its data stay" in stopped.err
    assert start_of(status["pid"]) is None
    assert person.sees("broker", "status")["data_bytes"] > 0
    gone = person.types("topics", "plan", "--run", "day")
    assert gone.code == 5
    assert "no broker answers" in gone.err

    assert person.types("broker", "start").out.strip() == address
    listed = [json.loads(line) for line in person.types("topics", "ls", "--json").out.splitlines()]
    assert {one["run"] for one in listed} == {"day"}
    assert next(one for one in listed if one["stream"] == "ticks")["records"] >= 2
    assert not any(one["topic"].startswith("__") for one in listed)

    assert person.types("broker", "stop", "--delete-data").code == 0
    assert not (person.folder / ".streambot").exists()
    assert person.sees("broker", "status")["status"] == "stopped"


def test_every_declared_setting_is_told_and_can_be_set_back(person: Person) -> None:
    """Each setting of each template, altered alone, is the one difference; the others stay."""
    address = person.types("broker", "start").out.strip()
    assert person.types("topics", "apply", "--run", "r", "--partitions", "1").code == 0

    async def alter_each() -> None:
        from streambot.domain.topic_plan import declare
        from streambot.wiring.topic_care import apply_topics, plan_topics

        templates = streams_of(bundled_topics(), Of.RUN)
        names = {stream: template.topic("streambot", "r") for stream, template in templates.items()}
        declared = declare(templates, names, 1)
        other = {
            "cleanup.policy": "compact,delete", "message.timestamp.type": "LogAppendTime",
            "min.cleanable.dirty.ratio": "0.7",
        }  # fmt: skip
        async with await KafkaLog.open(address) as log:
            for topic in (one for one in declared if one.stream in {"ticks", "state", "status"}):
                for name in topic.settings:
                    await log.alter(topic.topic, {name: other.get(name, "20000000")})
                    async with asyncio.timeout(10):
                        while not (  # noqa: ASYNC110  # a broker has no event
                            found := (await plan_topics(log, declared)).differences
                        ):
                            await asyncio.sleep(0.02)
                    assert [(one.topic, one.name) for one in found] == [(topic.topic, name)]
                    await apply_topics(log, declared)
            with pytest.raises(TopicError, match="no.such"):
                await log.alter(declared[0].topic, {"no.such": "1"})
            with pytest.raises(TopicError, match="does not exist"):
                await log.alter("streambot.r.gone", {"retention.ms": "1"})
            with pytest.raises(TopicError):
                await log.settings(["streambot.r.gone"])

    asyncio.run(alter_each())


def test_terminated_while_it_starts_nothing_is_left_running(person: Person) -> None:
    process = person.begins("broker", "start")
    state = person.folder / ".streambot" / "broker" / "broker.json"
    until(lambda: state.exists() and json.loads(state.read_text())["pid"] > 0, "a process")
    pid = json.loads(state.read_text())["pid"]
    process.terminate()
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 143, err
    until(lambda: start_of(pid) is None, "its end")
    assert person.sees("broker", "status")["status"] == "stopped"


def test_killed_while_it_starts_the_broker_can_be_found(person: Person) -> None:
    """Nobody can clean up after kill -9: but what was started is written down."""
    process = person.begins("broker", "start")
    state = person.folder / ".streambot" / "broker" / "broker.json"
    until(lambda: state.exists() and json.loads(state.read_text())["pid"] > 0, "a process")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=LIMIT_S)
    pid = json.loads(state.read_text())["pid"]
    until(lambda: person.sees("broker", "status")["status"] == "running", "it runs")
    assert person.sees("broker", "start")["pid"] == pid
    assert person.types("broker", "stop").code == 0
    assert start_of(pid) is None


def test_a_broker_that_dies_while_it_starts_is_told_with_its_log(person: Person) -> None:
    process = person.begins("broker", "start")
    state = person.folder / ".streambot" / "broker" / "broker.json"
    until(lambda: state.exists() and json.loads(state.read_text())["pid"] > 0, "a process")
    os.kill(json.loads(state.read_text())["pid"], signal.SIGKILL)
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 5, err
    assert "was killed by signal 9" in err
    assert person.sees("broker", "status")["status"] == "stopped"


def test_nobody_answers_is_an_error_of_its_own() -> None:
    with pytest.raises(BrokerError, match="no broker answers"):
        asyncio.run(detect_profile("127.0.0.1:1"))
