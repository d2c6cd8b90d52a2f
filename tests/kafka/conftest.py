"""What the campaigns share: one broker, one recording, what comes of it undisturbed; and their report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SEED
from tests.integration.simulate.bars import REGISTRY, write_bars
from tests.kafka.campaign import REPORT, Execution, Market, Outcome, Recording, replay, tell
from tests.kafka.places import Kafka, Template

BARS = 2_000
MAX_ROWS = 4
"""Small frames: many of them, so that crashes hit the middle of a run."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.failed and "rng" in getattr(item, "fixturenames", ()):
        again = f"STREAMBOT_TEST_SEED={SEED} pytest -m kafka '{item.nodeid}'"
        report.sections.append(("to run it again", again))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if REPORT:
        terminalreporter.section("campaigns on Apache Kafka")
        for line in REPORT:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    """Starts the processes that are to die."""
    template = Template(tmp_path_factory.mktemp("processes") / "all")
    yield template
    template.close()


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    """Bars of five instruments, and an agent that trades much."""
    folder = tmp_path_factory.mktemp("market")
    write_bars(folder / "bars.parquet", bars=BARS)
    (folder / "instruments.yaml").write_text(REGISTRY)
    return Market(folder, (
        "--data", str(folder / "bars.parquet"), "--registry", str(folder / "instruments.yaml"),
        "--policy", "random", "--pnl-every", "5m", "--seed", "7",
    ))  # fmt: skip


@pytest.fixture(scope="session")
def simulated(market: Market, processes: Template) -> str:
    """The event digest of a simulation in one process, without any broker."""
    return market.digest(processes)


@pytest.fixture(scope="session")
def kafka(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker that nobody disturbs."""
    broker = Kafka(kafka_home, tmp_path_factory.mktemp("kafka") / "broker")
    broker.start()
    yield broker
    broker.close()


@pytest.fixture(scope="session")
def recording(kafka: Kafka, market: Market, processes: Template) -> Recording:
    """The market published in small frames."""
    publishing = replay(processes, kafka, market, "recorded", "--speed", "max", max_rows=MAX_ROWS)
    assert publishing.end() == 0, publishing.err
    made = Recording(kafka, "recorded")
    frames = made.check()
    assert min(frames.values()) > BARS // 2, "too few frames for what is to happen between them"
    tell(f"recording: {sum(frames.values())} frames in {len(frames)} partitions")
    return made


@pytest.fixture(scope="session")
def undisturbed(recording: Recording, processes: Template, simulated: str) -> Outcome:
    """What comes of the recording when nobody dies: compared with the simulation, too."""
    execution = Execution(recording, "undisturbed", processes)
    execution.run_undisturbed()
    outcome = execution.outcome()
    assert outcome.event_digest == simulated
    assert {stream for stream, _ in outcome.records} == {"orders", "fills", "pnl"}
    return outcome


@pytest.fixture
def seed(rng: np.random.Generator) -> np.random.Generator:
    """The random numbers of a campaign; a failure says how to have them again."""
    return rng
