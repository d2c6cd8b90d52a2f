"""How many threads a computation of this process may take."""

from __future__ import annotations

import os


def one_thread_a_slot() -> None:
    """Let a trained policy answer a close in the thread that asks it, and in no other.

    An answer takes a tenth of a millisecond; threads that share it take up to eight times as long,
    and several partitions ask at once. Call it at the start of a command, before torch is there;
    who has set `OMP_NUM_THREADS` is obeyed.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
