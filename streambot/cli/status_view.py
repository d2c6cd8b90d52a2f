"""What `tail status` prints: what became of the commands to a replay, and whose they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streambot.cli.human import utc_text
from streambot.cli.lines import Column, Traded, View

if TYPE_CHECKING:
    from streambot.cli.tail_files import Row

STATUS_FIELDS = (
    "partition", "offset", "at", "sender", "number", "id", "command", "applied", "reason", "barrier",
    "event_time", "status", "speed", "successor",
)  # fmt: skip


def status_view(traded: Traded, width: int | None) -> View:
    """Acknowledgements (`streams.control`); whoever can write to the broker may have written others."""
    del traded

    def cells(row: Row) -> list[str]:
        at, barrier = row.get("at"), row.get("barrier")
        outcome = "applied" if row.get("applied") else "refused"
        return [
            utc_text(at) if isinstance(at, int) and 0 <= at < 2**63 else "",
            str(row.get("command", row.get("schema", ""))),
            outcome if "applied" in row else "",
            str(row.get("status", "")),
            str(row.get("speed", "")),
            f"{barrier:,}" if isinstance(barrier, int) else "",
            str(row.get("sender", "")),
            str(row.get("reason", "")),
        ]

    columns = (
        Column("at (UTC)", 30), Column("command", 8), Column("", 7), Column("replay", 9),
        Column("speed", 7), Column("barrier", 8, right=True), Column("sender", 18, optional=1),
        Column("reason", 6),
    )  # fmt: skip
    return View("replay-status", STATUS_FIELDS, columns, cells, width)
