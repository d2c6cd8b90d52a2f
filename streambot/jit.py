"""Compiled functions, and a cache of them that cannot go stale.

numba keeps compiled code on disk per source file, so an edit of a callee in another module would
keep the caller's old machine code. Here the folder of the cache is named by a digest of every
source file that may decide something about it, of numba, numpy and the kind of CPU: any edit is a
new folder. `STREAMBOT_KERNEL_CACHE` moves the parent folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast, overload

import llvmlite.binding as llvm
import numba
import numpy as np

_KEPT_GENERATIONS = 6
_LAYERS = frozenset({"domain", "market", "engine", "data", "env"})
"""Packages whose every file may decide what compiled code does."""


def source_digest(package: Path) -> str:
    """Digest of all that decides what the compiled functions do."""
    digest = hashlib.blake2b(digest_size=12)
    digest.update(f"{numba.__version__} {np.__version__} {llvm.get_host_cpu_name()}".encode())
    for source in sorted(package.rglob("*.py")):
        text = source.read_bytes()
        # Layouts of records and constants count as well, though nothing there is compiled.
        layer = source.relative_to(package).parts[0]
        if layer in _LAYERS or b"streambot.jit" in text or source == package / "jit.py":
            digest.update(f"\0{source.relative_to(package).as_posix()}\0".encode())
            digest.update(text)
    return digest.hexdigest()


def _cache_parent() -> Path:
    explicit = os.environ.get("STREAMBOT_KERNEL_CACHE")
    if explicit:
        return Path(explicit)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "streambot" / "kernels"


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _prune(parent: Path, keep: Path) -> None:
    """Old generations are garbage; a few stay, because several checkouts may take turns."""
    generations = [p for p in parent.iterdir() if p.is_dir() and p != keep]
    generations.sort(key=lambda p: p.stat().st_mtime, reverse=True)
    for old in generations[_KEPT_GENERATIONS:]:
        shutil.rmtree(old, ignore_errors=True)


def prepare_cache() -> Path:
    """Point numba's cache at the folder of this generation of sources, and return it.

    Where the usual place cannot be written, a folder under the temporary directory is used.
    """
    generation = source_digest(Path(__file__).parent)
    parent = _cache_parent()
    if not _writable(parent):
        parent = Path(tempfile.gettempdir()) / f"streambot-kernels-{os.getuid()}"
        parent.mkdir(mode=0o700, exist_ok=True)
    folder = parent / generation
    if folder.is_dir():
        # Used, however old its code is: another checkout that is worked on must not prune it.
        with contextlib.suppress(OSError):
            os.utime(folder)
    else:
        folder.mkdir(exist_ok=True)
        _prune(parent, folder)
    numba.config.CACHE_DIR = str(folder)  # type: ignore[attr-defined]  # set by numba itself
    return folder


CACHE_FOLDER = prepare_cache()

_F = TypeVar("_F", bound=Callable[..., Any])


class Entry:
    """A compiled function that is called by its address; compiled when that is first asked for."""

    def __init__(self, signature: str, function: Callable[..., Any]) -> None:
        self._signature = signature
        self._function = function

    @cached_property
    def address(self) -> int:
        """Where the machine code begins."""
        return int(self._compiled.address)

    @cached_property
    def _compiled(self) -> Any:  # noqa: ANN401  # numba's, untyped
        return numba.cfunc(self._signature, cache=True)(self._function)


def cfunc(signature: str) -> Callable[[Callable[..., Any]], Entry]:
    """Compile a function for callers that have its address alone, with the cache of `njit`.

    It saves what handing arguments to a compiled function costs: for a step of one environment that
    is more than the step. Such a function cannot raise.
    """
    return lambda function: Entry(signature, function)


@overload
def njit(target: _F) -> _F: ...
@overload
def njit(target: str) -> Callable[[_F], _F]: ...
def njit(target: Any) -> Any:
    """Compile a function on first use, or at once for the signature given as text.

    The code is cached on disk and runs with the interpreter lock released. For the type checker
    the function stays what it is.
    """
    if isinstance(target, str):
        return numba.njit(target, cache=True, nogil=True)
    return numba.njit(cache=True, nogil=True)(target)


def inlined(target: _F) -> _F:
    """Compile a function that becomes part of whoever calls it, by LLVM.

    For helpers of one large loop that are handed arrays: a call would pass each of them as seven
    words, and count references to it. Not numba's own inlining, which does count.
    """
    compiled: Any = numba.njit(cache=True, nogil=True, forceinline=True)(target)
    return cast("_F", compiled)
