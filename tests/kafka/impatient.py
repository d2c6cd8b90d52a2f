"""`streambot`, whose waits are short: what takes a minute for people, a test sees in seconds.

With `IMPATIENT_STOPS` a worker of one partition stops itself (SIGSTOP) in the middle of a transaction whose
outputs are stored: nobody outside could meet that moment.
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

if "IMPATIENT_STOPS" in os.environ:
    from streambot.wiring import working

    points: list[str] = []
    AT = ["output-sent", "outputs-stored"]

    def stop_there(point: str) -> None:
        points.append(point)
        if points[-2:] == AT and points.count("committed") >= 8 and "stopped" not in points:
            points.append("stopped")
            os.kill(os.getpid(), signal.SIGSTOP)

    working.run_worker = partial(working.run_worker, reached=stop_there)

if __name__ == "__main__":
    sys.exit(main.run())
