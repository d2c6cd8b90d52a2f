"""Lines that part are found, and named, wherever and however they part."""

from __future__ import annotations

import random

import pytest

from streambot.processor.journal import EventDigest, event_digest
from streambot.wiring.ledger import Comparison, Ledger


def line(symbol: str, seq: int, text: str = "x") -> bytes:
    return b'{"kind":"OrderFilled","instrument":"%s","seq":%d,"text":"%s"}\n' % (
        symbol.encode(), seq, text.encode(),
    )  # fmt: skip


LINES = [
    (stream, line(symbol, seq))
    for seq in range(9)
    for symbol in "AB"
    for stream in ("fills", "pnl")
]


def compared(there, again, *, exact: bool = True) -> tuple[Ledger, Comparison]:
    ledger = Ledger("AB")
    for stream, data in there:
        ledger.add(stream, data, "here")
    comparison = Comparison(ledger, exact=exact)
    for stream, data in again:
        comparison.add(stream, data)
    comparison.finish()
    return ledger, comparison


def test_the_digest_is_that_of_the_journal_in_whatever_order_instruments_come():
    digest = EventDigest("AB")
    for stream, data in LINES:
        digest.read(stream, [data])
    shuffled = sorted(LINES, key=lambda item: (b'"B"' in item[1], item[0]))
    ledger, comparison = compared(shuffled, LINES)
    assert ledger.digest == comparison.digest == event_digest(digest.parts())
    assert comparison.parting is None
    assert (ledger.lines, ledger.gaps, ledger.repeats) == ({"fills": 18, "pnl": 18}, 0, 0)


@pytest.mark.parametrize("exact", [True, False])
def test_every_altered_byte_is_found_and_named(exact):
    rng = random.Random(1)
    for at, (stream, data) in enumerate(LINES):
        for place in range(len(data) - 1):
            altered = bytearray(data)
            altered[place] ^= 1 << rng.randrange(7)
            if bytes(altered) == data or b"\n" in altered[:-1]:
                continue
            there = [*LINES[:at], (stream, bytes(altered)), *LINES[at + 1 :]]
            ledger, comparison = compared(there, LINES, exact=exact)
            parting = comparison.parting
            named = parting is not None and (parting.stream, parting.line) == (stream, at // 4 + 1)
            other = b'"B"' if b'"A"' in data else b'"A"'
            moved = other in bytes(altered)  # it is the line of another instrument now
            assert named or moved or ledger.broken is not None, bytes(altered)
            assert ledger.digest != comparison.digest or ledger.broken is not None


@pytest.mark.parametrize("at", [0, 5, 34, 35])
def test_a_line_too_few_and_a_line_too_many(at):
    short = LINES[:at] + LINES[at + 1 :]
    stream, data = LINES[at]
    ledger, comparison = compared(short, LINES)
    assert comparison.parting is not None
    assert (comparison.parting.stream, comparison.parting.line) == (stream, at // 4 + 1)
    assert comparison.parting.expected == data.decode().strip()
    assert ledger.gaps == (at < 32)
    twice = [*LINES[: at + 1], LINES[at], *LINES[at + 1 :]]
    ledger, comparison = compared(twice, LINES)
    assert comparison.parting is not None
    assert (comparison.parting.stream, comparison.parting.line) == (stream, at // 4 + 2)
    assert ledger.repeats == 1


def test_what_has_not_ended_is_compared_as_far_as_it_goes():
    ledger, comparison = compared(LINES[:21], LINES, exact=False)
    assert comparison.parting is None
    assert ledger.digest == comparison.digest
    _, comparison = compared(LINES, LINES[:21], exact=False)
    assert comparison.parting is not None, "it has lines that do not come out again"
    assert comparison.parting.expected is None


def test_a_line_of_nobodys_is_kept_with_its_place():
    for wrong in (b"{}\n", b"\xff\n", line("C", 0), b'{"instrument":"A","seq":"x"}\n'):
        ledger, _ = compared([("fills", wrong), *LINES], LINES)
        assert ledger.broken is not None
        assert (ledger.broken.stream, ledger.broken.where) == ("fills", "here")
