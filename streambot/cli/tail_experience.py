"""What `tail experience` and `tail policy` print: one line a fragment, one a record of weights.

A record that is none is a line as well, with the reason: whoever may write to a topic may write
anything, and the learner leaves such records out.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from streambot.cli.human import moment, utc_text
from streambot.cli.lines import Column, Traded, View
from streambot.domain.errors import DecodeError
from streambot.learning.published import ENVELOPE
from streambot.streams.fragment import FragmentHead, decode_fragment

if TYPE_CHECKING:
    from streambot.cli.tail_files import Row
    from streambot.learning.published import SeenWeights
    from streambot.streams.fragment import Fragment
    from streambot.streams.ports import Record

RECORD = ("time", "at", "topic", "offset", "key", "bytes")
NO_RECORD = ("refused", "message")
_SUMS = ("reward_sum", "reward_mean", "entropy_mean", "gate_mean")
FRAGMENT_FIELDS = (
    *RECORD, *(field.name for field in msgspec.structs.fields(FragmentHead)), *_SUMS, *NO_RECORD,
)  # fmt: skip
WEIGHTS_FIELDS = (
    *RECORD, "training", "policy", "pin", "sequence", "digest", "kind", "steps", "layout", "removed",
    *NO_RECORD,
)  # fmt: skip
TIME_WIDTH = len("2026-11-24 20:31:05 UTC")
_MOST = 2**63
_MOST_MS = 253_402_300_800_000
"""The year 10000: a record's time is what its writer says, and may be any number."""


def fragment_row(record: Record) -> Row:
    """A record of the `experience` stream: the fragment's head, and sums of its columns.

    Of every step: `reward_sum`, and means: `reward_mean`; `entropy_mean` of what the policy said,
    nats; `gate_mean`, weights of the experts.
    """
    try:
        fragment = decode_fragment(record.value)
    except DecodeError as error:
        return about(record) | refused(error)
    return about(record) | msgspec.structs.asdict(fragment.head) | _sums(fragment)


def _sums(fragment: Fragment) -> Row:
    log_probs = fragment.log_probs.astype(np.float64)
    with np.errstate(all="ignore"):  # numbers of others: they may be any
        chances = np.exp(log_probs)
        surprise = np.where(chances > 0, -log_probs * chances, 0.0)
        return {
            "reward_sum": float(fragment.reward.sum(dtype=np.float64)),
            "reward_mean": float(fragment.reward.mean(dtype=np.float64)),
            "entropy_mean": float(surprise.sum(1).mean()),
            "gate_mean": fragment.gate.mean(0, dtype=np.float64).tolist(),
        }


def weights_row(record: Record) -> Row:
    """A record of the `policy` stream: whose weights, and how far their training was.

    `pin`: the record is a copy that stays, under `<policy>@<sequence>`. `steps`: of environments, that
    were learnt from. `removed`: the record takes a pin away. Numbers are not looked at.
    """
    at = about(record)
    if not record.value:
        return at | {"removed": True}
    try:
        seen = _seen(record.value)
    except DecodeError as error:
        return at | refused(error)
    steps = seen.head.progress.get("steps", 0)
    return at | {
        "training": seen.training,
        "policy": seen.policy,
        "pin": at["key"] == f"{seen.policy}@{seen.sequence}",
        "sequence": seen.sequence,
        "digest": seen.head.digest,
        "kind": seen.head.kind,
        "steps": int(steps) if 0 <= steps < _MOST else 0,
        "layout": seen.head.agent.layout,
    }


def _seen(value: bytes) -> SeenWeights:
    opened: tuple[SeenWeights, memoryview] = ENVELOPE.open(value)
    seen, body = opened
    if hashlib.blake2b(body, digest_size=16).hexdigest() != seen.head.digest:
        raise DecodeError("the weights are not those that the header names", reason="crc")
    return seen


def about(record: Record) -> Row:
    """Where the record is, and when it was written, by the writer's clock."""
    at = record.timestamp_ms * 1_000_000 if 0 <= record.timestamp_ms < _MOST_MS else None
    return {
        "time": None if at is None else utc_text(at),
        "at": at,
        "topic": record.stream,
        "offset": record.offset,
        "key": None if record.key is None else record.key.decode("utf-8", "replace"),
        "bytes": len(record.value),
    }


def refused(error: DecodeError) -> Row:
    """Why it is none, as fields."""
    return {"refused": error.reason, "message": error.message}


def fragment_view(traded: Traded, width: int | None) -> View:
    """Steps of an environment: whose, of which segment, under which weights, what they earned."""
    del traded

    def cells(row: Row) -> list[str]:
        at = clock(row)
        if "refused" in row:
            return [at, row["key"] or "", *[""] * 6, no_record(row, "fragment")]
        episode = f"{row['incarnation']}.{row['env']}.{row['episode']}"
        first = row["t_started"]
        return [
            at, row["actor"], row["instrument"], row["task"], episode,
            f"{first:,}+{row['steps']:,}", f"{row['weights']:,}", f"{row['reward_mean']:+.4g}",
            _ended(row),
        ]  # fmt: skip

    columns = (
        Column("time", TIME_WIDTH), Column("actor", 8), Column("instrument", 10, optional=1),
        Column("task", 16), Column("episode", 8, optional=3), Column("steps", 9, optional=2),
        Column("weights", 7, right=True), Column("mean reward", 11, right=True), Column("end", 10),
    )  # fmt: skip
    return View("fragment", FRAGMENT_FIELDS, columns, cells, width)


def _ended(row: Row) -> str:
    return "terminated" if row["terminated"] else "truncated" if row["truncated"] else ""


def weights_view(traded: Traded, width: int | None) -> View:
    """Weights that a learner has published, and pins."""
    del traded

    def cells(row: Row) -> list[str]:
        at, name = clock(row), row["key"] or ""
        if "refused" in row or "removed" in row:
            note = "removed" if "removed" in row else no_record(row, "weights")
            return [at, name, "", "", "", f"{row['bytes']:,}", "", note]
        return [
            at, name, f"{row['sequence']:,}", f"{row['steps']:,}", row["kind"], f"{row['bytes']:,}",
            row["digest"], "pin" if row["pin"] else "",
        ]  # fmt: skip

    columns = (
        Column("time", TIME_WIDTH), Column("policy", 12), Column("update", 8, right=True),
        Column("steps", 11, right=True), Column("kind", 4), Column("bytes", 9, right=True),
        Column("digest", 32, optional=1), Column("", 3),
    )  # fmt: skip
    return View("weights", WEIGHTS_FIELDS, columns, cells, width)


def clock(row: Row) -> str:
    """When it was written, in words."""
    return "" if row["at"] is None else moment(row["at"], "UTC")


def no_record(row: Row, what: str) -> str:
    """Why it is none, in words."""
    return f"no {what} ({row['refused']}): {row['message']}"
