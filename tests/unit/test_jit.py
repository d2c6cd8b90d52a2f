"""The cache of compiled functions cannot go stale: an edited callee is a new cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import streambot
from streambot.jit import source_digest

PACKAGE = Path(streambot.__file__).parent
ASK_CALLER = """
import numpy as np
from streambot.engine.slots import SLOT, PARAMS
from streambot.engine.trailing import start_trail
s, p = np.zeros(1, SLOT), np.zeros(1, PARAMS)
s['entry_price'], s['side'], p['trail_bp'] = 10_000, 1, 30
start_trail(p[0], s[0], 1)
print(int(s['width'][0]))
from streambot.jit import CACHE_FOLDER
print(CACHE_FOLDER.name)
"""


def ask(root: Path, cache: Path) -> list[str]:
    env = {**os.environ, "PYTHONPATH": str(root), "STREAMBOT_KERNEL_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", ASK_CALLER],
        env=env,
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_editing_a_callee_changes_its_caller(tmp_path: Path) -> None:
    root, cache = tmp_path / "copy", tmp_path / "cache"
    shutil.copytree(PACKAGE, root / "streambot", ignore=shutil.ignore_patterns("__pycache__"))
    before, again = ask(root, cache), ask(root, cache)
    assert before[0] == "30"
    assert again == before
    callee = root / "streambot" / "engine" / "trailing.py"
    source = callee.read_text()
    edited = source.replace("best * basis_points + 9_999", "2 * best * basis_points + 9_999")
    assert edited != source
    callee.write_text(edited)
    after = ask(root, cache)
    assert after[0] == "60"
    assert after[1] != before[1]


@pytest.mark.parametrize(
    "name",
    ["engine/walk.py", "engine/slots.py", "env/observe.py", "env/world.py", "domain/ticks.py",
     "data/segments.py", "processor/lines.py", "jit.py"],
)  # fmt: skip
def test_whatever_decides_compiled_code_names_its_cache(tmp_path: Path, name: str) -> None:
    """Inlined helpers, record layouts and constants too, where nothing is compiled by itself."""
    root = tmp_path / "streambot"
    shutil.copytree(PACKAGE, root, ignore=shutil.ignore_patterns("__pycache__"))
    before = source_digest(root)
    with (root / name).open("a") as source:
        source.write("# edited\n")
    assert source_digest(root) != before


def test_old_generations_are_removed(tmp_path: Path) -> None:
    from streambot.jit import _prune

    for number in range(20):
        (tmp_path / f"old{number}").mkdir()
    _prune(tmp_path, tmp_path / "old3")
    left = {p.name for p in tmp_path.iterdir()}
    assert "old3" in left
    assert len(left) == 7
