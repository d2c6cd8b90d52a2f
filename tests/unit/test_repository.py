"""What must never be in the repository: a machine's paths, code that runs what it reads, large files."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
THIS = "tests/unit/test_repository.py"


def tracked() -> list[str]:
    """Files that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: nothing to search")
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file() and name != THIS]


def text_of(name: str) -> str | None:
    try:
        return (ROOT / name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def hits(pattern: str, *, only: str = "", allowed: tuple[str, ...] = ()) -> list[str]:
    found = []
    for name in tracked():
        if not name.endswith(only) or name in allowed:
            continue
        for number, line in enumerate((text_of(name) or "").splitlines(), 1):
            if re.search(pattern, line):
                found.append(f"{name}:{number}: {line.strip()[:120]}")
    return found


def test_no_path_of_a_machine():
    assert hits(r"(^|[^A-Za-z0-9_.])/(work|root|farm|home/[a-z]+|Users/[A-Za-z]+)/") == []
    # In a container the paths are the image's, not a machine's.
    assert hits(r"(^|[^A-Za-z0-9_.])/opt/", allowed=("compose/kafka.yml",)) == []


def test_only_ci_knows_the_folder_beside_the_repository():
    assert hits(r"\.\./shared", allowed=(".ci/run",)) == []


def test_nothing_that_runs_what_it_reads():
    assert (
        hits(r"^\s*(import|from) (pickle|cloudpickle|dill|joblib|shelve|marshal)\b", only=".py")
        == []
    )
    assert hits(r"\byaml\.(load|load_all|unsafe_load|full_load)\(", only=".py") == []
    assert hits(r"allow_pickle=True|weights_only=False|\beval\(|\bexec\(", only=".py") == []


def test_no_unfinished_work():
    assert hits(r"\b(TODO|FIXME|XXX|NotImplementedError)\b", only=".py") == []


def test_no_large_file():
    large = {name: size for name in tracked() if (size := (ROOT / name).stat().st_size) > 2_000_000}
    assert large == {}


def test_modules_stay_readable():
    long = {
        name: count
        for name in tracked()
        if name.startswith("streambot/") and name.endswith(".py")
        if (count := len((text_of(name) or "").splitlines())) > 400
    }
    assert long == {}


def test_constraints_pin_and_name_no_place():
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    ]
    assert [
        line for line in lines if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[0-9][\w.!]*", line)
    ] == []
    assert lines == sorted(lines), "sorted, so that two refreshes can be compared"
    pins = dict(line.split("==") for line in lines)
    assert pins["torch"] == "2.13.0"
    assert pins["aiokafka"] == "0.14.0"


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + [
        name for extra in project["optional-dependencies"].values() for name in extra
    ]
    pins = {
        line.split("==")[0]
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    }
    names = {re.split(r"[\[<>=!~;]", want)[0].strip().lower().replace("_", "-") for want in wanted}
    assert names - pins == {project["name"]}  # an extra that takes in another one


def test_ci_runs_lint_and_tests_and_refuses_to_skip():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make lint" in script
    assert "make test" in script
    assert "STREAMBOT_REQUIRE_ALL=1" in script
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
