"""Policies as a person sees them: weights on a broker and checkpoints in folders, side by side."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from streambot.cli.human import count, duration, flow, place, plain, size, table
from streambot.domain.errors import DataError
from streambot.domain.words import few
from streambot.learning.published import CHECKPOINT, SERVED, SeenHead, read_seen
from streambot.wiring.declaring import wall_ms
from streambot.wiring.served import NEWEST
from streambot.wiring.serving import FOLDERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streambot.learning.published import Published, Shelf
    from streambot.wiring.serving import Asked

PIN, FOLDER, NOTHING = "pin", "folder", "nothing yet"
_HEADINGS = ("policy", "what", "updates", "kind", "trained on", "digest", "size", "age")
_DIGEST = 12
_SHOWN = 3


class Listed(NamedTuple):
    """Weights, wherever they are.

    Attributes:
        policy: as `--policy` names it.
        what: `newest`, `pin` or `folder`; `nothing yet`: a training that has published none.
        training: whose; None: of a folder.
        state: of the training's learner.
        sequence: of the weights; None: of a folder.
        head: what they say of themselves; None: there are none.
        bytes: of the record, or of the file.
        at_ms: when they were written, wall time, UTC.
        broker: where they are; None: of a folder.
        refused: records on the stream that cannot be used, by reason.
    """

    policy: str
    what: str
    training: str | None = None
    state: str | None = None
    sequence: int | None = None
    head: SeenHead | None = None
    bytes: int = 0
    at_ms: int = 0
    broker: str | None = None
    refused: dict[str, int] = {}  # noqa: RUF012  # of a tuple: nobody alters it

    @property
    def updates(self) -> int | None:
        """Updates behind the weights; None: not said."""
        if self.sequence is not None or self.head is None:
            return self.sequence
        found = self.head.progress.get("updates")
        return None if found is None else int(found)


def listed_shelf(shelf: Shelf, at: Asked) -> list[Listed]:
    """The newest weights of a training, and those that are pinned."""
    newest = [] if shelf.newest is None else [shelf.newest]
    found = [listed_weights(shelf, weights, at) for weights in (*newest, *shelf.pins.values())]
    if newest:
        return found
    training = shelf.training
    nothing = Listed(
        f"{training.training}@{NEWEST}", NOTHING, training.training, str(training.state),
        broker=at.servers, refused=shelf.refused,
    )  # fmt: skip
    return [nothing, *found]


def listed_weights(shelf: Shelf, weights: Published, at: Asked) -> Listed:
    """Weights of a training."""
    training = shelf.training
    is_newest = weights == shelf.newest
    name = NEWEST if is_newest else str(weights.sequence)
    return Listed(
        f"{training.training}@{name}",
        PIN if weights.pinned else NEWEST if is_newest else "on the log",
        training.training, str(training.state), weights.sequence, weights.head,
        len(weights.value), weights.at_ms, at.servers, shelf.refused,
    )  # fmt: skip


def listed_folders(cwd: Path) -> list[Listed]:
    """The checkpoints below `policies/`."""
    found = []
    for head in sorted((cwd / FOLDERS).glob(f"*/{CHECKPOINT}")):
        try:
            found.append(listed_folder(head.parent))
        except DataError as error:
            found.append(Listed(place(head.parent), f"no checkpoint: {error.message}"[:80]))
    return found


def listed_folder(folder: Path) -> Listed:
    """The checkpoint in a folder.

    Raises:
        DataError: there is none.
    """
    head = read_seen(folder)
    weights = folder / Path(head.weights).name
    try:
        size_of = weights.stat().st_size
        at_ms = (folder / CHECKPOINT).stat().st_mtime_ns // 1_000_000
    except OSError as cause:
        raise DataError(
            f"the weights cannot be read: {cause.strerror or cause}", where=str(weights)
        ) from cause
    return Listed(place(folder), FOLDER, head=head, bytes=size_of, at_ms=at_ms)


def list_lines(listed: Sequence[Listed], width: int | None) -> list[str]:
    """A table of policies."""
    return table(
        _HEADINGS, map(_row, listed), right="updates|size|age", width=width,
        optional="digest|size|trained on|age|kind",
    )  # fmt: skip


def _row(one: Listed) -> tuple[str, ...]:
    running = f", {one.state}" if one.state is not None and one.what != PIN else ""
    refused = f", {count(sum(one.refused.values()), 'record')} refused" if one.refused else ""
    what = f"{one.what}{running}{refused if one.what != PIN else ''}"
    if one.head is None:
        return (plain(one.policy), plain(what), "", "", "", "", "", "")
    updates = "" if one.updates is None else f"{one.updates:,}"
    return (
        plain(one.policy), plain(what), updates, plain(one.head.kind), plain(_trained_on(one.head)),
        plain(one.head.digest[:_DIGEST]), size(one.bytes), _age(one),
    )  # fmt: skip


def _age(one: Listed) -> str:
    return duration(max(0, wall_ms() - one.at_ms) // 1_000)


def _trained_on(head: SeenHead) -> str:
    symbols = [part for part in head.about.get("instruments", "").split(",") if part]
    days = [head.about.get(name, "")[:10] for name in ("trained_from", "trained_to")]
    shown = few(symbols, _SHOWN)
    return f"{shown} {' to '.join(days)}" if all(days) else shown


def show_lines(one: Listed, pins: Sequence[int], width: int | None) -> list[str]:
    """All that weights say of themselves."""
    head = one.head
    assert head is not None  # noqa: S101  # of the callers
    agent, about = head.agent, head.about
    whose = [f"training {one.training}, {one.state}"] if one.training is not None else []
    first = [
        f"policy {one.policy}", head.kind, *whose, one.what, f"{_age(one)} old", size(one.bytes),
        *([f"broker {one.broker}"] if one.broker is not None else []),
    ]  # fmt: skip
    served = about.get(SERVED)
    networks = [
        *([f"{agent.experts} experts"] if head.kind == "moe" else []),
        f"layers {_widths(agent.hidden)}",
        *([f"gate {_widths(agent.gate_hidden)}"] if head.kind == "moe" else []),
        f"seed {agent.seed}",
    ]
    facts = {
        "weights": [
            f"digest {head.digest}",
            *([f"sequence {one.sequence}"] if one.sequence is not None else []),
            *([f"published as {served}"] if served else []),
        ],
        "progress": [f"{name} {value:,.10g}" for name, value in head.progress.items()],
        "networks": networks,
        "experts": list(head.names) or (["not named yet"] if head.kind == "moe" else []),
        "observes": [
            f"{agent.features} numbers, {agent.actions} actions",
            f"layout {agent.layout}",
        ],
        "env": [f"{name} {_value(value)}" for name, value in head.env.items()] or ["as by default"],
        "trained on": [
            few([part for part in about.get("instruments", "").split(",") if part], 12),
            *([f"bars of {about['timeframes']}"] if about.get("timeframes") else []),
            " to ".join(filter(None, (about.get("trained_from"), about.get("trained_to")))),
        ],
        "data": [part for part in about.get("sources", "").split("; ") if part],
        "pins": [str(sequence) for sequence in pins],
        "refused": [f"{reason} {number:,}" for reason, number in one.refused.items()],
    }
    lines = flow([plain(part) for part in first], width)
    for label, parts in facts.items():
        if any(parts):
            lines += flow([plain(part) for part in parts], width, label=f" {label:<10} ")
    return lines


def _widths(layers: tuple[int, ...]) -> str:
    return ",".join(map(str, layers)) or "none"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def fields_of(one: Listed, *, whole: bool = False) -> dict[str, Any]:
    """What machines are told."""
    head = one.head
    fields: dict[str, Any] = {
        "policy": one.policy, "what": one.what, "training": one.training, "state": one.state,
        "sequence": one.sequence, "broker": one.broker, "refused": one.refused,
    }  # fmt: skip
    if head is None:
        return fields | {"digest": None, "kind": None, "bytes": None}
    at = dt.datetime.fromtimestamp(one.at_ms / 1_000, tz=dt.UTC)
    fields |= {
        "digest": head.digest,
        "kind": head.kind,
        "updates": one.updates,
        "bytes": one.bytes,
        "written_at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "age_s": max(0, wall_ms() - one.at_ms) // 1_000,
    }
    if not whole:
        told = ("instruments", "timeframes", "trained_from", "trained_to")
        return fields | {name: head.about.get(name) for name in told}
    return fields | {
        "agent": msgspec.to_builtins(head.agent), "names": list(head.names), "env": head.env,
        "progress": head.progress, "about": head.about, "format": head.format,
    }  # fmt: skip
