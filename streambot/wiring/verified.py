"""A run that is to be verified, and what was found of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.domain.config import find_config, resolve
from streambot.processor.folder import read_record
from streambot.processor.manifest import RunManifest
from streambot.wiring.ledger import Ledger
from streambot.wiring.recording import RecordedAt
from streambot.wiring.rerun import Rerun
from streambot.wiring.served import KEPT

if TYPE_CHECKING:
    from streambot.processor.run_state import RunRecord


class RunToVerify(NamedTuple):
    """Which run.

    Attributes:
        name: of the run.
        path: its folder, whether it is there or not.
        at: the broker that has its topics; None: only the files in its folder are left.
        namespace: first part of the names of all topics.
        policy: where the run's own policy is found here; None: as the run names it.
        cwd: what relative paths start from.
    """

    name: str
    path: Path
    at: RecordedAt | None
    namespace: str
    policy: str | None
    cwd: Path

    @property
    def record(self) -> RunRecord | None:
        """What its folder says."""
        return read_record(self.path) if (self.path / "run.json").is_file() else None


class Found(NamedTuple):
    """What stands there, and how to do it again.

    Attributes:
        ledger: the outputs.
        exact: all that the tasks give must be there.
        complete: the run has ended.
        again: stream and lines, once more.
        find: the text and the place of a line that stands there.
    """

    manifest: RunManifest
    ledger: Ledger
    exact: bool
    complete: bool
    rerun: Rerun
    again: Callable[[], Iterator[tuple[str, bytes]]]
    find: Callable[[str, str, int], tuple[str, str] | None]
    outputs: str
    ticks: str
    orders: str
    notes: list[str]


def symbols_of(manifest: RunManifest) -> list[str]:
    """Symbols of the instruments of a run."""
    return [instrument.symbol for instrument in manifest.instruments]


def policy_of(wanted: RunToVerify, manifest: RunManifest) -> str:
    """Where the policy is found here: as asked, in the run's folder, as its settings say, by its name."""
    if wanted.policy is not None:
        return wanted.policy
    if (wanted.path / KEPT).is_dir():
        return str((wanted.path / KEPT).resolve())
    kept = wanted.path / "config.yaml"
    if kept.is_file():
        return resolve({}, {}, find_config(kept, wanted.cwd)).config.policy
    return manifest.policy.spec


def nth(
    lines: Iterator[tuple[bytes, str]],
) -> Callable[[str, int], tuple[str, str] | None]:
    """Finds the line of an instrument with a number, from 1."""

    def find(symbol: str, number: int) -> tuple[str, str] | None:
        mark = b'"instrument":' + msgspec.json.encode(symbol)
        count = 0
        for text, where in lines:
            for line in text.splitlines():
                count += mark in line
                if count == number and mark in line:
                    return line.decode("utf-8", "replace"), where
        return None

    return find
