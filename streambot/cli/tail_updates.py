"""What `tail status` prints of a training: one line an update.

The record is what `train --json` prints; who may write to a topic may write anything, so one that is
none is a line as well, with the reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from streambot.cli.human import percent
from streambot.cli.lines import Column, Traded, View
from streambot.cli.tail_experience import (
    NO_RECORD,
    RECORD,
    TIME_WIDTH,
    about,
    clock,
    no_record,
    refused,
)
from streambot.domain.errors import DecodeError
from streambot.learning.declaration import STATUS_SCHEMA

if TYPE_CHECKING:
    from streambot.cli.tail_files import Row
    from streambot.streams.ports import Record


class LookSaid(msgspec.Struct):
    """At what is held out; see `learning.looking.Look`."""

    gain: float | None
    decisions: int
    instruments: int


class UpdateSaid(msgspec.Struct):
    """An update, as the learner's `status` stream has it; see `learning.learner.progress.Learnt`.

    A number that was none, or was infinite, is null in JSON.
    """

    schema: str
    update: int
    updates: int
    steps: int
    reward: float | None
    episodes: int
    episode_return: float | None
    lag: float | None
    worst_lag: int
    waiting: int
    actors: int
    counts: dict[str, int]
    measured: dict[str, float | None]
    look: LookSaid | None = None


UPDATE_FIELDS = (
    *RECORD, *(f.name for f in msgspec.structs.fields(UpdateSaid) if f.name != "schema"), *NO_RECORD,
)  # fmt: skip
_DECODER = msgspec.json.Decoder(UpdateSaid)


def update_row(record: Record) -> Row:
    """A record of a training's `status` stream."""
    try:
        said = _DECODER.decode(record.value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as cause:
        return about(record) | refused(DecodeError(str(cause), reason="schema"))
    if said.schema != STATUS_SCHEMA:
        return about(record) | refused(DecodeError(f"it is {said.schema!r:.60}", reason="schema"))
    fields: Row = msgspec.to_builtins(said)
    del fields["schema"]
    return about(record) | fields


def updates_view(traded: Traded, width: int | None) -> View:
    """Updates of a training: what they earned, how far they went, and how old experience was."""
    del traded

    def cells(row: Row) -> list[str]:
        at = clock(row)
        if "refused" in row:
            return [at, *[""] * 8, no_record(row, "update")]
        gain = None if row["look"] is None else row["look"]["gain"]
        return [
            at, f"{row['update']:,}/{row['updates']:,}", f"{row['steps']:,}",
            _shown(row["reward"], "+.3g"), _shown(row["episode_return"], "+.3g"),
            *(_shown(row["measured"].get(name), ".4f") for name in ("entropy", "kl")),
            _shown(row["lag"], "g"), f"{row['actors']:,}",
            "" if gain is None else f"held out {percent(gain, 2)}",
        ]  # fmt: skip

    columns = (
        Column("time", TIME_WIDTH), Column("update", 11, right=True), Column("steps", 13, right=True),
        Column("reward/step", 11, right=True), Column("episode", 10, right=True),
        Column("entropy", 7, right=True, optional=1), Column("kl", 7, right=True, optional=2),
        Column("lag", 4, right=True), Column("actors", 6, right=True), Column("", 16),
    )  # fmt: skip
    return View("training-status", UPDATE_FIELDS, columns, cells, width)


def _shown(number: float | None, form: str) -> str:
    return "" if number is None else format(number, form)
