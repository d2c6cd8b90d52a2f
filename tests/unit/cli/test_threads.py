"""A command that may ask a policy leaves its arithmetic in one thread, unless somebody wants more."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from streambot.cli.threads import one_thread_a_slot


def test_who_has_set_it_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    one_thread_a_slot()
    assert os.environ["OMP_NUM_THREADS"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS")
    one_thread_a_slot()
    assert os.environ["OMP_NUM_THREADS"] == "1"


@pytest.mark.train
def test_torch_takes_one_though_numpy_was_there_before() -> None:
    code = (
        "import numpy, numba\nfrom streambot.cli.threads import one_thread_a_slot\n"
        "one_thread_a_slot()\nimport torch\nprint(torch.get_num_threads())\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"
