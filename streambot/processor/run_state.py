"""The life of a run, and the record of it that anyone can read: `runs/<run>/run.json`.

    (new) -> running -> complete | interrupted | failed
                ^             |        |
                +---- resume -+--------+

A run whose process was killed still says `running`; the lock of its folder tells (`folder`), and
it is resumed like an interrupted one. Whatever is not in `TRANSITIONS` is refused.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from streambot.domain.errors import UsageError

RUN_SCHEMA = "streambot.run/1"


class RunState(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


class Trigger(StrEnum):
    """What moves a run on."""

    END = "end"
    """Every partition's END frame matched its totals."""
    STOP = "stop"
    """A person or a signal stopped it at a barrier."""
    FAIL = "fail"
    RESUME = "resume"


TRANSITIONS: dict[RunState, dict[Trigger, RunState]] = {
    RunState.RUNNING: {
        Trigger.END: RunState.COMPLETE,
        Trigger.STOP: RunState.INTERRUPTED,
        Trigger.FAIL: RunState.FAILED,
        # Its process died without a word: the lock of the folder has proved that.
        Trigger.RESUME: RunState.RUNNING,
    },
    RunState.INTERRUPTED: {Trigger.RESUME: RunState.RUNNING},
    RunState.FAILED: {Trigger.RESUME: RunState.RUNNING},
    RunState.COMPLETE: {},
}


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What `run.json` says.

    Attributes:
        pid: the process that runs or ran it last.
        broker: address of the broker that carries its streams; `in-process` where only its own
            process can read them.
        embedded: the broker lives and dies with the process.
        topics: topic of every stream.
        started_at, ended_at: wall times, ISO 8601 UTC; `ended_at` is None while it runs.
        resumes: how often it was resumed.
        error: why it failed; None otherwise.
        manifest: what the run is, complete enough to resume it (`processor.manifest`).
        kind: of what the record is: a run, or a training.
        outputs: where orders, fills and P&L are: in `files` beside this one, or, of a run whose
            pieces are apart, in its `topics` alone.
    """

    schema: str = RUN_SCHEMA
    run: str
    state: RunState
    pid: int
    broker: str
    embedded: bool
    topics: dict[str, str]
    started_at: str
    ended_at: str | None = None
    resumes: int = 0
    error: str | None = None
    manifest: msgspec.Raw = msgspec.Raw(b"{}")
    outputs: Literal["files", "topics"] = "files"
    kind: Literal["run", "training"] = "run"


def next_state(run: str, state: RunState, trigger: Trigger) -> RunState:
    """The state after `trigger`.

    Raises:
        UsageError: the table has no such transition; nothing changes.
    """
    after = TRANSITIONS[state].get(trigger)
    if after is None:
        raise UsageError(
            f"run {run} is {state.value}: it cannot {trigger.value}",
            hint="start a new run" if state is RunState.COMPLETE else "",
        )
    return after
