"""What every test may rely on: folders named by the environment, seeds that are printed, loud skips.

A test that needs real data, Apache Kafka or the test vectors takes the fixture for it (or carries the
marker). Where the folder is missing the test is skipped, and the end of the run counts what was not
seen and why. With `STREAMBOT_REQUIRE_ALL=1` (set in CI) a skipped test fails the run.
"""

from __future__ import annotations

import os
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
SEED = int(os.environ.get("STREAMBOT_TEST_SEED", "20201215"))
REQUIRE_ALL = os.environ.get("STREAMBOT_REQUIRE_ALL") == "1"
TRAIN_PACKAGES = frozenset({"torch", "ray"})

# A Ray that is asked anything would start by itself: with 30 % of the memory, open to the network, and
# this process ends with it. Ray reads this as it is imported.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"

# A slow shared machine is no reason to fail a property; a failing example prints how to repeat it.
settings.register_profile(
    "streambot",
    deadline=None,
    print_blob=True,
    derandomize=REQUIRE_ALL,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("streambot")


class _OutOfReach(MetaPathFinder):
    """Makes the packages of the `train` extra look as if they were not installed."""

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in TRAIN_PACKAGES:
            raise ModuleNotFoundError(
                f"{fullname} is out of reach (--without-train)", name=fullname
            )
        return None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--without-train",
        action="store_true",
        help="run with torch and ray out of reach, and leave out the tests that need them",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--without-train"):
        sys.meta_path.insert(0, _OutOfReach())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--without-train"):
        return
    left_out = [item for item in items if item.get_closest_marker("train")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_report_header() -> list[str]:
    folders = [
        f"{name}={os.environ.get(name) or '(not set)'}"
        for name in ("STREAMBOT_DATA", "STREAMBOT_VECTORS", "KAFKA_HOME")
    ]
    return [f"seed: {SEED} (STREAMBOT_TEST_SEED)", *folders]


def _folder(variable: str, what: str, default: Path | None = None) -> Path:
    given = os.environ.get(variable)
    folder = Path(given) if given else default
    if folder is None:
        pytest.skip(f"${variable} is not set: {what} not tested")
    if not folder.is_absolute():
        pytest.fail(f"${variable} must be an absolute path, not {folder}")
    if not folder.is_dir():
        pytest.skip(f"${variable}: no folder at {folder}: {what} not tested")
    return folder


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Folder of real market data."""
    return _folder("STREAMBOT_DATA", "real market data")


@pytest.fixture(scope="session")
def vectors_folder() -> Path:
    """Folder of the solved scenarios of the market rules."""
    return _folder("STREAMBOT_VECTORS", "the market rules", ROOT / "tests" / "vectors")


@pytest.fixture(scope="session")
def kafka_home() -> Path:
    """Folder of an Apache Kafka distribution."""
    return _folder("KAFKA_HOME", "Apache Kafka")


@pytest.fixture(autouse=True)
def _needs_of_markers(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("real_data"):
        request.getfixturevalue("data_folder")
    if request.node.get_closest_marker("kafka"):
        request.getfixturevalue("kafka_home")


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator of the test's own: the same numbers whatever else runs, changed by the seed."""
    return np.random.default_rng([SEED, zlib.crc32(request.node.nodeid.encode())])


def _skip_reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    return str(report.longrepr)


def _unseen(terminalreporter) -> Counter[str]:
    return Counter(_skip_reason(report) for report in terminalreporter.stats.get("skipped", ()))


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    passed = session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
    if REQUIRE_ALL and reporter is not None and _unseen(reporter) and passed:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return (yield)


def pytest_terminal_summary(terminalreporter) -> None:
    unseen = _unseen(terminalreporter)
    if not unseen:
        return
    verdict = "and STREAMBOT_REQUIRE_ALL=1 forbids that" if REQUIRE_ALL else "not a pass"
    terminalreporter.section(
        f"NOT SEEN: {unseen.total()} tests skipped, {verdict}", red=REQUIRE_ALL
    )
    for reason, count in unseen.most_common():
        terminalreporter.line(f"{count:5d}  {reason}")
