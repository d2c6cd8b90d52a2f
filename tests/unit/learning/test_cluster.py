"""Ray for a learner: alone on this machine, quiet, gone afterwards; or a clear word why there is none."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytest.importorskip("torch")
pytest.importorskip("ray")

from streambot.domain.errors import ConfigError
from tests.processes import lives

pytestmark = [
    pytest.mark.train,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]

ALONE = """
import json, os, signal, time
import psutil
from streambot.learning.learner import cluster

heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append("term"))
signal.signal(signal.SIGINT, lambda *_: heard.append("int"))
before = {n: v for n, v in os.environ.items() if n.startswith("RAY_")}
with cluster.ray_here(learners=1):
    import ray
    assert ray.get(ray.put(1)) == 1
    signal.raise_signal(signal.SIGTERM)
    os.killpg(0, signal.SIGINT)  # as Ctrl-C: to all that belong to it
    time.sleep(0.5)
    assert ray.get(ray.put(2)) == 2
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [c.laddr.ip for p in family for c in p.net_connections() if c.status == "LISTEN"]
    folder = os.path.dirname(os.environ["RAY_AUTH_TOKEN_PATH"])
    rights = oct(os.stat(folder).st_mode & 0o777)
    processes = len(family)
print(json.dumps({
    "heard": heard, "listening": sorted(set(listening)), "rights": rights, "processes": processes,
    "folder": os.path.exists(folder), "left": len(psutil.Process().children(recursive=True)),
    "changed": before != {n: v for n, v in os.environ.items() if n.startswith("RAY_")},
}))
"""
HOLD = """
import json, os, sys, psutil
from streambot.learning.learner.cluster import ray_here
with ray_here(learners=1):
    import ray
    family = psutil.Process().children(recursive=True)
    print(json.dumps({
        "address": ray.get_runtime_context().gcs_address, "token": os.environ["RAY_AUTH_TOKEN_PATH"],
        "family": {p.pid: " ".join(p.cmdline()) for p in family},
    }), flush=True)
    sys.stdin.read()
"""
JOIN = """
import sys
from streambot.learning.learner.cluster import ray_here
with ray_here(sys.argv[1], learners=1):
    import ray
    print(ray.cluster_resources()["CPU"])
"""
AGENTS = ("DashboardAgent", "RuntimeEnvAgent")
"""They look for Ray's head for a minute after it was killed."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home and a temporary folder to look into."""
    for name in ("home", "tmp"):
        (tmp_path / name).mkdir()
    given = {n: v for n, v in os.environ.items() if not n.startswith("RAY_")}
    return given | {
        "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(Path.cwd()),
    }  # fmt: skip


def test_a_ray_of_its_own_is_alone_quiet_and_gone_afterwards(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE], env=environment, capture_output=True, text=True, timeout=120,
        check=False, start_new_session=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    said = json.loads(done.stdout)
    assert said["heard"] == ["term", "int"], "signals are its own"
    assert said["processes"] > 3, "nothing was looked at"
    assert {ip.removeprefix("::ffff:") for ip in said["listening"]} == {"127.0.0.1"}
    assert said["rights"] == "0o700"
    assert (said["left"], said["folder"], said["changed"]) == (0, False, False)
    assert list((tmp_path / "home").rglob("*")) == [], "nothing of it is in the user's home"


@pytest.fixture
def held(environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], dict]]:
    """A process with a Ray of its own, and what it said of it; killed, it leaves its folder."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    said = {}
    try:
        said = json.loads(holder.stdout.readline())
        yield holder, said
    finally:
        holder.kill()
        holder.communicate()
        if said:
            shutil.rmtree(Path(said["token"]).parent, ignore_errors=True)


def test_others_join_a_cluster_and_leave_it_and_its_end_is_that_of_its_process(
    environment: dict[str, str], held: tuple[subprocess.Popen[str], dict]
) -> None:
    from streambot.learning.learner import cluster

    holder, said = held
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": said["token"]}
    for _ in range(2):
        joined = subprocess.run(
            [sys.executable, "-c", JOIN, said["address"]], env=environment | token,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (joined.stdout.strip(), joined.stderr) == ("1.0", "")
    family = {int(pid): name for pid, name in said["family"].items()}
    assert len(family) > 3
    assert all(psutil.pid_exists(pid) for pid in family)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    watched = [pid for pid, name in family.items() if not any(a in name for a in AGENTS)]
    assert len(watched) > 3
    until = time.monotonic() + 30
    while any(lives(pid) for pid in watched):
        assert time.monotonic() < until, [family[pid] for pid in watched if lives(pid)]
        time.sleep(0.1)
    left = Path(said["token"]).parent
    with cluster._folder() as new:
        (new / "ray").mkdir()
        assert not left.exists(), "whoever comes next takes away what a killed one has left"
        cluster._sweep(new.parent)
        assert new.exists(), "and nothing of those that live"


@pytest.mark.parametrize("address", ["here", "http://127.0.0.1:8265", "host:port", ":1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    from streambot.learning.learner.cluster import ray_here

    with pytest.raises(ConfigError, match="no address of a Ray cluster"), ray_here(address, 1):
        pass


@pytest.mark.parametrize("answers", [False, True])
def test_a_cluster_that_is_not_there_is_said_in_time(
    answers: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nobody listens, or somebody who is no Ray and says nothing: Ray itself would try for minutes."""
    from streambot.learning.learner import cluster

    monkeypatch.setattr(cluster, "_ANSWER_S", 3.0)
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    if not answers:
        listener.close()
    begun, handler = time.monotonic(), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ConfigError) as refused, cluster.ray_here(address, 1):
        pass
    listener.close()
    assert time.monotonic() - begun < 10
    assert refused.value.where == f"RAY_ADDRESS {address}"
    assert refused.value.hint
    assert "\n" not in refused.value.message
    assert capfd.readouterr() == ("", "")
    assert signal.getsignal(signal.SIGTERM) is handler


def test_more_than_there_is_is_refused_before_it_is_waited_for() -> None:
    import torch

    from streambot.learning.learner.cluster import ray_here

    cards = torch.cuda.device_count() + 1
    with pytest.raises(ConfigError, match=f"{cards} learners of 1 GPUs"), ray_here(None, cards, 1):
        pass
    with ray_here(learners=1):
        begun = time.monotonic()
        asked = pytest.raises(ConfigError, match=r"2 learners ask Ray for 2 CPUs, and 1 of its 1")
        with asked, ray_here("local", 2):
            pass
        assert time.monotonic() - begun < 5
        import ray

        assert ray.is_initialized(), "who only looked ends nothing"
    assert not ray.is_initialized()


def test_a_ray_that_does_not_start_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import ray

    from streambot.learning.learner.cluster import ray_here

    def fails(*_: object, **__: object) -> None:
        raise Exception("The current node timed out during startup.\nThis could happen because...")  # noqa: TRY002

    monkeypatch.setattr(ray, "init", fails)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = dict(os.environ)
    failing = pytest.raises(ConfigError, match=r"Ray does not start: The .* startup. This")
    with failing as refused, ray_here(learners=1):
        pass
    assert "\n" not in refused.value.message
    assert list(tmp_path.iterdir()) == []
    assert dict(os.environ) == before
