"""Ray for learners: a small one of their own on this machine, or a cluster that is there already.

A learner in this process, on its CPU, needs none: nothing is started, and nothing of Ray's can end it.

A Ray of its own listens on the loopback interface alone, asks whoever connects for a token that this
run made, and writes into a folder that goes with it: nothing of it is in the user's home. Ray reads
some of that from the environment only, so the variables are set while it is used and put back after.

Ray takes over SIGTERM where it starts (its own handler, and below it one that prints a stack): here
the handlers of before are put back. A process that is killed takes its Ray along, which watches it:
all of it at once but two agents, who look for its head for a minute. Its folder is taken away by the next one.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess  # asks a cluster in a process that can be given up
import sys
import tempfile
import threading
import time
import weakref
from contextlib import ExitStack, contextmanager, suppress
from math import ceil
from pathlib import Path
from stat import S_ISDIR
from typing import TYPE_CHECKING, Protocol

import ray
import torch
from ray._private import auto_init_hook, ray_constants
from ray._private import worker as ray_worker
from ray._raylet import AuthenticationTokenLoader

from streambot.domain.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from types import ModuleType

LOOPBACK = "127.0.0.1"
_LOCAL_HOSTS = frozenset({LOOPBACK, "localhost", "::1", "[::1]"})
_CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Off, Ray calls this machine 127.0.0.1 whatever its network says, and listens there alone."""
_LOOPBACK_NAME = "lo" if sys.platform == "linux" else "lo0"
_ALONE = {
    _CLUSTERS: "0", "GLOO_SOCKET_IFNAME": _LOOPBACK_NAME, "NCCL_SOCKET_IFNAME": _LOOPBACK_NAME,
}  # fmt: skip
"""Of a Ray of this machine alone: where it listens, and where torch's processes talk."""
_STORE_BYTES = 128 << 20
"""Of Ray's store, and the same again for every learner; it takes what it holds."""
_PREFIX = "streambot-ray."
_SOCKET_PATH = 107
"""Most characters of the path of a socket; Ray makes up to 70 behind its folder."""
_CONNECT_S, _ANSWER_S, _FREE_S = 5.0, 30.0, 10.0
_ASK = """
import sys, ray
from ray._private import ray_constants
ray_constants.ENABLE_RAY_CLUSTER = sys.argv[2] == "apart"
ray.init(sys.argv[1], log_to_driver=False, logging_level="ERROR")
"""


@contextmanager
def ray_here(address: str | None = None, learners: int = 0, gpus: float = 0) -> Iterator[None]:
    """Ray, usable inside if learners need it; in the main thread, if signals are to stay as they are.

    Where this process uses Ray already, that one is taken, and left as it is.

    Args:
        address: host:port of a cluster's head (its GCS), or `auto`; None or `local`: one of its own.
        learners: processes that it has to find room for; 0 without GPUs: no Ray.
        gpus: of each of them.

    Raises:
        ConfigError: there is no Ray, or no room in it. Within about a minute.
    """
    if not learners and not gpus:
        with _not_by_itself():
            yield
        return
    own = address in {None, "", "local"}
    if own or not learners:
        _check_cards(learners, gpus)
    with ExitStack() as stack:
        if not ray.is_initialized():
            stack.enter_context(_own(learners, gpus) if own else _there(str(address)))
        _check_room(learners, gpus)
        yield


_USERS: weakref.WeakSet[Stops] = weakref.WeakSet()
_FOLDERS: list[Path] = []


class Stops(Protocol):
    """What uses Ray until it is stopped; stopping it again does nothing."""

    def stop(self) -> None:
        """Give everything back."""


def stops_with_ray(user: Stops) -> None:
    """Stop it before Ray ends: RLlib's learners would start another Ray to say farewell to."""
    _USERS.add(user)


def own_folder() -> Path | None:
    """That of this process's own Ray, which only this user can read; None: it uses another's."""
    return _FOLDERS[-1] if _FOLDERS else None


def _end(*, wait: bool) -> None:
    try:
        for user in list(_USERS):
            # Whatever it cannot give back any more, because it is gone, goes with Ray.
            with suppress(Exception):
                user.stop()
    finally:
        _USERS.clear()
        ray.shutdown(wait_for_processes=wait)


@contextmanager
def _own(learners: int, gpus: float) -> Iterator[None]:
    """A Ray of this process, and a folder for it; both end with it."""
    with _folder() as folder:
        token = {} if _has_token() else {"RAY_AUTH_TOKEN_PATH": str(folder / "token")}
        for path in token.values():
            _write_privately(Path(path), secrets.token_hex(32))
        with _environment(_ALONE | token), _loopback():
            # Whatever token was read before is not the one that Ray's processes will be told of.
            AuthenticationTokenLoader.instance().reset_cache()
            try:
                _begin(
                    "this machine", "local", include_dashboard=False,
                    num_cpus=0 if gpus else learners, num_gpus=ceil(learners * gpus),
                    object_store_memory=_STORE_BYTES * (1 + learners),
                    _node_ip_address=LOOPBACK, _temp_dir=str(folder / "ray"),
                )  # fmt: skip
                yield
            finally:
                _end(wait=True)
                AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _there(address: str) -> Iterator[None]:
    """A connection to a cluster, which stays when this process goes."""
    host, _, port = address.rpartition(":")
    if "://" in address or not (address == "auto" or (host and port.isdecimal())):
        raise ConfigError(
            f"`{address}` is no address of a Ray cluster", where="RAY_ADDRESS",
            hint="host:port of its head as `ray start --head` says it (6379 unless told otherwise)",
        )  # fmt: skip
    here = host in _LOCAL_HOSTS
    with _environment({_CLUSTERS: "0"} if here else {}), ExitStack() as stack:
        if here:
            stack.enter_context(_loopback())
        if address != "auto":
            _check_port(address, host.strip("[]"), int(port))
        _check_answer(address, apart=not here)
        try:
            _begin(address, address)
            yield
        finally:
            _end(wait=False)


def _begin(where: str, address: str, **settings: object) -> None:
    """`ray.init`, quiet, that leaves signals alone.

    Raises:
        ConfigError: it does not work, in the words of Ray.
    """
    with _signals_kept(), _deaf():
        try:
            ray.init(
                address, log_to_driver=False, logging_level=logging.ERROR, **settings
            )  # fmt: skip
        except Exception as cause:  # Ray raises bare ones too
            raise ConfigError(
                f"Ray does not start: {_in_a_line(str(cause))}", where=where,
                hint="is there memory, room in the temporary folder and in /dev/shm?"
                if address == "local" else "`ray status` there says what it thinks of itself",
            ) from cause  # fmt: skip


def _check_port(address: str, host: str, port: int) -> None:
    try:
        socket.create_connection((host, port), _CONNECT_S).close()
    except (OSError, OverflowError) as cause:
        raise ConfigError(
            f"nobody answers there: {cause}", where=f"RAY_ADDRESS {address}",
            hint="is the cluster running (`ray status`), and can this machine reach its head?",
        ) from cause  # fmt: skip


def _check_answer(address: str, *, apart: bool) -> None:
    """Connect once in another process: Ray itself tries for minutes, aloud, and ends its process."""
    command = [sys.executable, "-P", "-c", _ASK, address, "apart" if apart else "here"]
    try:
        asked = subprocess.run(  # noqa: S603  # our own words, and an address that is an argument
            command, capture_output=True, timeout=_ANSWER_S, check=False, text=True
        )
        said = asked.stderr
    except subprocess.TimeoutExpired:
        asked, said = None, f"no answer within {_ANSWER_S:g} s"
    if asked is None or asked.returncode != 0:
        last = [line for line in said.splitlines() if line.strip()][-1:]
        raise ConfigError(
            f"no Ray cluster answers there: {_in_a_line(''.join(last))}",
            where=f"RAY_ADDRESS {address}",
            hint="the port of its head (GCS, 6379 unless told otherwise), not of its dashboard or "
            "of clients; the same versions of Ray and Python; its token (RAY_AUTH_TOKEN_PATH)",
        )


def _check_cards(learners: int, gpus: float) -> None:
    there, wanted = torch.cuda.device_count(), max(1, learners) * gpus
    if wanted > there:
        raise ConfigError(
            f"{max(1, learners)} learners of {gpus:g} GPUs each on {there} CUDA devices",
            where="gpus", hint="fewer of them, or 0 to learn on the CPU",
        )  # fmt: skip


def _check_room(learners: int, gpus: float) -> None:
    """Whether learners can start: where there is no room, they would wait for it for ever."""
    wanted = {"GPU": learners * gpus} if gpus else {"CPU": float(learners)}
    until = time.monotonic() + _FREE_S
    while lacking := _lacking(wanted, ray.available_resources()):
        # What an earlier learner held is given back a moment after its end.
        if time.monotonic() > until or _lacking(wanted, ray.cluster_resources()):
            (name, amount), free = lacking.popitem(), ray.available_resources()
            raise ConfigError(
                f"{learners} learners ask Ray for {amount:g} {name}s, and "
                f"{free.get(name, 0.0):g} of its {ray.cluster_resources().get(name, 0.0):g} are free",
                where="learners", hint="fewer learners, or a cluster with more room (`ray status`)",
            )  # fmt: skip
        time.sleep(0.2)


def _lacking(wanted: Mapping[str, float], there: Mapping[str, float]) -> dict[str, float]:
    return {name: n for name, n in wanted.items() if n > there.get(name, 0.0)}


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that only this user can read, where paths of sockets are short enough."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    if len(str(folder)) + 70 > _SOCKET_PATH:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp"))
    with _open(folder) as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # until this process ends, however it does
        _FOLDERS.append(folder)
        try:
            _sweep(folder.parent)
            yield folder
        finally:
            _FOLDERS.remove(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Take away folders of processes that were killed."""
    for left in parent.glob(f"{_PREFIX}*"):
        # One that has just been made is locked before Ray writes to it.
        if not _is_ours(left):
            continue
        with suppress(OSError), _open(left) as descriptor:  # it goes just now, or its owner lives
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _open(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_ours(folder: Path) -> bool:
    try:
        found = folder.lstat()
        return S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and (folder / "ray").exists()
    except OSError:  # it goes just now
        return False


def _has_token() -> bool:
    """Whether the user has chosen how connections are told apart, or that they are not."""
    given = any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    return given or os.environ.get("RAY_AUTH_MODE", "").lower() == "disabled"


def _write_privately(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Variables that Ray reads in this process and hands to its own; put back after."""
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    ours = ("RAY_AUTH_MODE", "RAY_CLIENT_MODE", "PYTHONBREAKPOINT")  # Ray sets them
    changes = quiet | dict(changes)
    before = {name: os.environ.get(name) for name in (*changes, *ours)}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _loopback() -> AbstractContextManager[None]:
    """The variable `_CLUSTERS`, for a Ray that was imported before it was set."""
    return _set(ray_constants, "ENABLE_RAY_CLUSTER", False)


def _not_by_itself() -> AbstractContextManager[None]:
    """Ray starts one with open ports for whoever asks it anything: here that is an error."""
    return _set(auto_init_hook, "enable_auto_connect", False)


def _deaf() -> AbstractContextManager[None]:
    """Ray would print what it hears of processes that died, on stdout; `faults` tells it."""
    return _set(ray_worker, "listen_error_messages", lambda *_: None)


@contextmanager
def _set(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """What Ray offers no setting for; put back after."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Handlers as they were; only the main thread can say so, and Ray sets none of Python's elsewhere."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # set from outside Python: not ours to say
                signal.signal(number, handler)


def _in_a_line(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 200 else f"{words[:200]}..."
