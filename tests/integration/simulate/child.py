"""A simulation in a process of its own, for the tests that kill it.

    python child.py FOLDER KILL_AFTER RESUME key=value...

Kills itself with SIGKILL once KILL_AFTER records were written (0: never). Prints the digest, or the
error and exit code 10 + its own.
"""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from streambot.domain.errors import StreambotError
from streambot.processor import runner
from tests.integration.simulate.bars import Told, run


def main() -> int:
    folder, kill_after, resume, *flags = sys.argv[1:]
    told = Told()
    runner.SNAPSHOT_EVERY_NS = 20_000_000  # a run of a few seconds should have some

    def at_record(n: int) -> None:
        if n == int(kill_after):
            os.kill(os.getpid(), signal.SIGKILL)

    def planned(plan: object) -> None:
        print("planned", plan.resumed_at_barrier, flush=True)

    told.at_record = at_record
    told.planned = planned
    try:
        summary = run(
            Path(folder), resume=resume or None, told=told,
            **dict(flag.split("=", 1) for flag in flags),
        )  # fmt: skip
    except StreambotError as error:
        print(f"{type(error).__name__}: {error}")
        return 10 + error.exit_code
    except KeyboardInterrupt:
        print("aborted")
        return 130
    print(summary.state, summary.digest)
    return 0 if summary.state == "complete" else 30


if __name__ == "__main__":
    sys.exit(main())
