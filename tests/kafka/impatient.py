"""`streambot`, whose waits are short: what takes a minute for people, a test sees in seconds.

With `IMPATIENT_STOPS_AT` a worker stops itself (SIGSTOP) the second time that it reaches that point: in the
middle of a transaction, say, where nobody outside could stop it.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial

import msgspec

from streambot.adapters.kafka import detect, profile
from streambot.cli import main
from streambot.streams import patience

patience.PATIENCE_S = float(os.environ.get("IMPATIENT_PATIENCE_S", "6"))
detect.APACHE = profile.APACHE = msgspec.structs.replace(
    profile.APACHE,
    transaction_timeout_s=float(os.environ.get("IMPATIENT_TRANSACTION_S", "30")),
    unreachable_s=float(os.environ.get("IMPATIENT_UNREACHABLE_S", "3")),
)

POINT = os.environ.get("IMPATIENT_STOPS_AT")
if POINT:
    from streambot.wiring import working

    reached: list[str] = []

    def stop_there(point: str) -> None:
        if point == POINT:
            reached.append(point)
            if len(reached) == 8:
                os.kill(os.getpid(), signal.SIGSTOP)

    working.run_worker = partial(working.run_worker, reached=stop_there)

if __name__ == "__main__":
    sys.exit(main.run())
