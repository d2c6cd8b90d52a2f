"""Lists as people say them, in messages of every part."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def few(parts: Sequence[str], most: int = 6) -> str:
    """The first parts with commas, and how many more there are: `A, B and 48 more`."""
    rest = len(parts) - most
    return ", ".join(parts[:most]) + (f" and {rest:,} more" if rest > 0 else "")
