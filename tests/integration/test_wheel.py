"""What `pip install streambot` brings: the package with its registry, topics, bars and scenarios."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel, built from the files that git has, and unpacked."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel: make venv installs it")
    home = tmp_path_factory.mktemp("wheel")
    source = home / "source"
    source.mkdir()
    for name in ("streambot", "replay"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "instruments.yaml", "topics.yaml"):
        shutil.copy(ROOT / name, source / name)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(home)],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (wheel,) = home.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(home / "installed")
    return home / "installed"


def run(unpacked, code, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bundled_files_are_found_in_the_installed_package(unpacked, tmp_path):
    code = "from streambot.domain.bundled import bundled_path as p; print(*map(p, ('instruments.yaml', 'topics.yaml', 'replay')), sep='\\n')"
    for line in run(unpacked, code, tmp_path).splitlines():
        assert Path(line).is_relative_to(unpacked)


def test_bars_travel_with_their_licenses(unpacked):
    replay = unpacked / "streambot" / "bundled" / "replay"
    assert {path.name for path in (replay / "bars").glob("*.parquet")} == {
        path.name for path in (ROOT / "replay" / "bars").glob("*.parquet")
    }
    assert len(list((replay / "licenses").glob("*.txt"))) == 4
    assert (replay / "scenarios" / "default.yaml").is_file()


def test_types_and_entry_point_are_declared(unpacked):
    assert (unpacked / "streambot" / "py.typed").is_file()
    (entry,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert "streambot = streambot.cli.main:run" in entry.read_text(encoding="utf-8")


def test_nothing_but_the_package_is_installed(unpacked):
    """`tests`, `tools` or `benchmarks` at the top of site-packages would belong to everybody."""
    tops = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"streambot"}


def test_the_command_line_answers_from_the_wheel(unpacked, tmp_path):
    code = (
        "from streambot.cli.main import run; raise SystemExit(run(['instruments', 'ls', '--json']))"
    )
    assert '"SPY"' in run(unpacked, code, tmp_path)
