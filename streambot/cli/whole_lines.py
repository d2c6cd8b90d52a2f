"""A text stream for several threads: lines come out whole.

Engine tasks ask strategies in threads of their own; two of them printing at once would mix their
lines, because `print` writes a text and its newline apart.
"""

from __future__ import annotations

import io
import threading
from typing import TextIO


class WholeLines(io.TextIOBase):
    """Passes on what each thread writes, line by line.

    Args:
        target: where the lines go.
    """

    def __init__(self, target: TextIO) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._begun = threading.local()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str, /) -> int:
        """Keep `text` until its line is complete."""
        begun: str = getattr(self._begun, "text", "") + text
        lines, newline, rest = begun.rpartition("\n")
        self._begun.text = rest
        if newline:
            with self._lock:
                self._target.write(lines + newline)
        return len(text)

    def flush(self) -> None:
        """Pass on what this thread has begun, too."""
        begun: str = getattr(self._begun, "text", "")
        self._begun.text = ""
        with self._lock:
            if begun:
                self._target.write(begun)
            self._target.flush()
