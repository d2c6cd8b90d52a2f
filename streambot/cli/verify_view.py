"""What verifying found, as people read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streambot.cli.human import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streambot.report.verification import RunVerification, WayResult, WaysVerification

_SHORT = 16


def run_lines(found: RunVerification) -> Iterator[str]:
    """A run: the verdict with both digests first."""
    verdict = "equal" if found.equal else "DIFFERENT"
    yield f"{verdict}  run {found.run}  digest {found.digest}, done again {found.digest_again}"
    lines = ", ".join(f"{stream} {number:,}" for stream, number in found.lines.items())
    yield (
        f"  lines in its {found.outputs}: {lines}; gaps {found.gaps:,}, repeats {found.repeats:,}; "
        f"{count(found.instruments, 'instrument')} in {count(found.partitions, 'partition')}"
    )
    yield (
        f"  done again from {found.ticks}: {count(found.rows, 'tick')} in {count(found.frames, 'frame')}, "
        f"orders {found.orders}, {found.wall_s:.1f} s"
    )
    for note in found.notes:
        yield f"  {note}"
    difference = found.difference
    if difference is not None:
        yield f"  first difference: {difference}" + (
            f"  ({difference.where})" if difference.where else ""
        )
        yield f"    found     {difference.found or 'nothing'}"
        yield f"    expected  {difference.expected or 'nothing'}"


def way_line(result: WayResult) -> str:
    """How one way ended."""
    if result.digest is None:
        return f"failed after {result.wall_s:.1f} s: {result.error}"
    return f"{result.digest[:_SHORT]}  {result.wall_s:.1f} s  {'equal' if result.equal else 'DIFFERENT'}"


def ways_lines(found: WaysVerification) -> Iterator[str]:
    """A table, a row a way."""
    width = max(len(result.way) for result in found.ways)
    yield f"{'way':<{width}}  {'digest':<{_SHORT}}  {'time':>7}"
    for result in found.ways:
        digest = "failed" if result.digest is None else result.digest[:_SHORT]
        verdict = "" if result.equal else "  DIFFERENT" if result.digest else "  failed"
        yield f"{result.way:<{width}}  {digest:<{_SHORT}}  {result.wall_s:>6.1f}s{verdict}"
    for way, why in found.left_out.items():
        yield f"left out: {way}: {why}"
    agree = "one digest" if found.equal else "NOT ONE DIGEST"
    yield (
        f"{agree}: {count(len(found.ways), 'way')}, {count(found.rows, 'tick')} of "
        f"{count(len(found.instruments), 'instrument')}, orders {found.policy}: {found.ways[0].digest}"
    )
