"""Did you mean: the nearest known word to a mistyped one."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST = 64  # of what a person could have meant: difflib is quadratic


def nearest(word: str, known: Iterable[str], *, likeness: float = 0.6) -> str | None:
    """The known word most like `word`, or begun by it; case does not count; None: none is near."""
    if len(word) > _LONGEST:
        return None
    by_folded = {candidate.casefold(): candidate for candidate in known}
    starts = [c for f, c in by_folded.items() if f and word.casefold().startswith(f) and len(f) > 2]
    if starts:
        return max(starts, key=len)
    found = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=likeness)
    return by_folded[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str], *, show: int = 12) -> str:
    """A hint: the nearest known word, else the words that are known (up to `show` of them)."""
    choices = list(known)
    best = nearest(word, choices)
    if best is not None:
        return f"did you mean `{best}`?"
    if not choices:
        return ""
    listed = ", ".join(choices[:show])
    return f"known: {listed}" + (", ..." if len(choices) > show else "")
