"""Becomes another program that dies with its parent. Run as a script, with nothing imported.

    python -I -S launch.py PARENT_PID PROGRAM ARGUMENT...      (PARENT_PID 0: it outlives its parent)

Linux kills a process whose parent *thread* ended, if the process asked for that (PR_SET_PDEATHSIG);
the request outlives `exec`. It is made here, in the new process, because code between fork and
exec of a program with threads may deadlock. So the parent must start this from a thread that lives
as long as the child should: the one of its event loop. Elsewhere than on Linux the parent's own
clean-up is all there is.
"""

import os
import signal
import sys


def main() -> None:
    """Ask for the parent's fate, then become the program."""
    parent, *program = sys.argv[1:]
    if parent != "0" and sys.platform == "linux":
        import ctypes  # noqa: PLC0415  # only here, to start fast elsewhere

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != int(parent):  # it died before the request was made
            os._exit(1)
    os.execv(program[0], program)  # noqa: S606  # that is the point


if __name__ == "__main__":
    main()
