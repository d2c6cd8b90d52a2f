"""What verifying found: one run done again, or one set of data and orders done in several ways."""

from __future__ import annotations

import msgspec

RUN_SCHEMA = "streambot.verification/1"
WAYS_SCHEMA = "streambot.ways/1"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The first line that differs.

    Attributes:
        instrument: symbol; empty where a line names none of the run.
        stream: `fills` or `pnl`.
        line: its number among the lines of the instrument in that stream, from 1.
        found: what stands there; None: nothing, where there should be a line.
        expected: what should; None: nothing, where there is a line too many.
        where: topic/partition/offset or the file, where that is known.
    """

    instrument: str
    stream: str
    line: int
    found: str | None
    expected: str | None
    where: str = ""

    def __str__(self) -> str:
        whose = f"{self.instrument}, {self.stream} line {self.line}"
        if self.found is None:
            return f"{whose} is missing"
        if self.expected is None:
            return f"{whose} should not be there"
        return f"{whose} differs"


class RunVerification(msgspec.Struct, frozen=True, kw_only=True):
    """A run, and the same done again undisturbed.

    Attributes:
        equal: nothing differs.
        complete: the run has ended, and all of it was compared.
        outputs: where fills and P&L were read: `topics` or `files`.
        ticks: what it was done again from: `recorded ticks` or `the data`.
        orders: whose: a policy, or `recorded`.
        digest: event digest of what stands there.
        digest_again: of what came out again.
        lines: by stream.
        gaps: numbers that are missing in the lines of an instrument.
        repeats: lines and records that stand there twice.
        frames, rows: that were done again.
        notes: what was not compared, and why.
    """

    schema: str = RUN_SCHEMA
    run: str
    equal: bool
    complete: bool
    outputs: str
    ticks: str
    orders: str
    digest: str
    digest_again: str
    lines: dict[str, int]
    gaps: int
    repeats: int
    instruments: int
    partitions: int
    frames: int
    rows: int
    wall_s: float
    difference: Difference | None
    notes: list[str]


class WayResult(msgspec.Struct, frozen=True, kw_only=True):
    """One way of doing it.

    Attributes:
        way: in words.
        digest: event digest; None: it did not come to an end.
        equal: it is that of the first way.
        error: why there is none.
    """

    way: str
    digest: str | None
    equal: bool
    wall_s: float
    error: str | None = None


class WaysVerification(msgspec.Struct, frozen=True, kw_only=True):
    """The same data and orders in several ways.

    Attributes:
        equal: all of them gave one digest.
        ways: the first one is what the others are compared with.
        left_out: ways that were not gone, and why.
    """

    schema: str = WAYS_SCHEMA
    equal: bool
    instruments: list[str]
    policy: str
    bars: int
    rows: int
    ways: list[WayResult]
    left_out: dict[str, str]
