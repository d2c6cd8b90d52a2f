"""Does what stands in the fills and P&L of a run come out again?

    outputs of the run -> ledger; its ticks (else its data) and orders -> the same tasks, undisturbed

The outputs are read as everybody sees them: committed, in the topics of a broker that lasts, else in
the run's files. They are compared line by line with what the tasks give in this process, without a
broker, threads or clocks. Of a run that has not ended, what is there is compared, as exactly as its
log knows where it stands. Nothing here is for the thread of an event loop: it waits.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from streambot.domain.errors import TopicError, UsageError
from streambot.report.verification import Difference, RunVerification
from streambot.wiring.ledger import Comparison
from streambot.wiring.verifying_files import found_in_files
from streambot.wiring.verifying_log import found_on_log

if TYPE_CHECKING:
    from collections.abc import Callable

    from streambot.wiring.verified import Found, RunToVerify

TELL_EVERY_S = 1.0


def verify_run(wanted: RunToVerify, told: Callable[[str], None]) -> RunVerification:
    """Do a run again, and compare.

    Args:
        wanted: the run.
        told: progress, for people.

    Returns:
        What was found; `equal` says whether it is the same.

    Raises:
        StreambotError: it cannot be compared: nothing is there, or its ticks are damaged.
    """
    began = time.monotonic()
    found = _find(wanted)
    ledger, rerun = found.ledger, found.rerun
    comparison = Comparison(ledger, exact=found.exact)
    said = began
    for stream, lines in found.again():
        comparison.add(stream, lines)
        if time.monotonic() - said > TELL_EVERY_S:
            said = time.monotonic()
            told(f"done again: {rerun.rows:,} ticks")
    comparison.finish()
    difference = _difference(found, comparison)
    return RunVerification(
        run=found.manifest.run,
        equal=difference is None and ledger.digest == comparison.digest,
        complete=found.complete and found.exact,
        outputs=found.outputs,
        ticks=found.ticks,
        orders=found.orders,
        digest=ledger.digest,
        digest_again=comparison.digest,
        lines=ledger.lines,
        gaps=ledger.gaps,
        repeats=ledger.repeats,
        instruments=len(found.manifest.instruments),
        partitions=found.manifest.partitions,
        frames=rerun.frames,
        rows=rerun.rows,
        wall_s=round(time.monotonic() - began, 3),
        difference=difference,
        notes=found.notes,
    )


def _find(wanted: RunToVerify) -> Found:
    """What stands there: in the topics where there are some, else in the run's files."""
    record, at = wanted.record, wanted.at
    found = None if at is None else found_on_log(wanted, at)
    if found is not None:
        return found
    if record is not None and record.outputs == "files":
        found = found_in_files(wanted, record)
        if at is not None:
            found.notes.append(
                f"{at.servers} does not know the run any more: its files are compared"
            )
        return found
    if at is None:
        raise UsageError(f"nothing of run {wanted.name} is here", where=str(wanted.path))
    raise TopicError(
        f"no run {wanted.name} is declared on {at.servers}",
        where=f"{wanted.namespace}.{wanted.name}",
        hint="`streambot topics ls` lists the runs of a broker",
    )


def _difference(found: Found, comparison: Comparison) -> Difference | None:
    broken, parting = found.ledger.broken, comparison.parting
    if broken is not None:
        # Its instrument is short of a line then, and that is where the two part.
        symbol, line = ("", 0) if parting is None else (parting.instrument, parting.line)
        expected = None if parting is None else parting.expected
        return Difference(
            instrument=symbol, stream=broken.stream, line=line, found=broken.line,
            expected=expected, where=broken.where,
        )  # fmt: skip
    if parting is None:
        return None
    at = found.find(parting.instrument, parting.stream, parting.line)
    text, where = (None, "") if at is None else at
    return Difference(
        instrument=parting.instrument, stream=parting.stream, line=parting.line, found=text,
        expected=parting.expected, where=where,
    )  # fmt: skip
