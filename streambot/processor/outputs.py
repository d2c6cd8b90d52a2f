"""What a step writes, as records: at most one per input and stream, a function of the input alone.

No offset, wall time, worker or attempt stands in any of them, so a crashed task that does its work
again writes the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from streambot.streams.dead_letter import dead_letter, dead_letter_line
from streambot.streams.ports import Headers, event_time_ms

if TYPE_CHECKING:
    from streambot.processor.worker import Step

OUTPUTS = ("orders", "fills", "pnl")
"""Streams that an engine task writes for every frame; `orders` only with an agent of its own."""
ACCEPTED = "accepted"
DEAD_LETTER = "dead-letter"
WRITTEN = (*OUTPUTS, ACCEPTED, DEAD_LETTER)
"""All streams of an engine task, its state aside."""


class OutputRecord(NamedTuple):
    """A record to write.

    Attributes:
        line: what the run's file gets; the value itself but for dead letters.
        lines: lines in it.
        number: `frame_seq` of the input, or its offset for dead letters: growing within a series.
    """

    stream: str
    value: bytes
    line: bytes
    lines: int
    number: int
    timestamp_ms: int
    key: bytes | None
    headers: Headers

    @property
    def series(self) -> str:
        """See `series_of`."""
        return series_of(self.stream, self.headers)


def series_of(stream: str, headers: Headers) -> str:
    """Within what the numbers of a record grow: its stream; for dead letters, by where they came from.

    Ticks and orders have offsets of their own, and both may be buried.
    """
    return f"{stream} {dict(headers)['stream'].decode()}" if stream == DEAD_LETTER else stream


def outputs_of(step: Step) -> list[OutputRecord]:
    """The records of a step, in the order of the streams."""
    if step.dead is not None:
        letter = dead_letter(step.record, step.dead)
        line = dead_letter_line(step.record, step.dead)
        return [
            OutputRecord(
                DEAD_LETTER, letter.value, line, 1, step.record.offset,
                letter.timestamp_ms, letter.key, letter.headers,
            )
        ]  # fmt: skip
    frame, output = step.frame, step.output
    if frame is None or output is None:
        return []
    found = (
        ("orders", output.orders, 1),
        ("fills", output.fills, output.events),
        ("pnl", output.pnl, output.marks),
        (ACCEPTED, step.accepted, 0 if step.accepted is None else step.accepted.count(b"\n")),
    )
    headers = (("frame_seq", str(frame.frame_seq).encode()),)
    return [
        OutputRecord(
            stream, value, value, lines, frame.frame_seq, event_time_ms(frame.t_hi), None, headers
        )
        for stream, value, lines in found
        if value
    ]
