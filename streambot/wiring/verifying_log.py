"""A run on a broker that lasts: its committed outputs, and its recorded ticks done again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from streambot.domain.errors import UsageError
from streambot.processor.journal import STREAMS
from streambot.processor.playback import RECORDED, RecordedOrders
from streambot.processor.run_state import RunState
from streambot.processor.state_log import read_task
from streambot.wiring.bridge import Bridge
from streambot.wiring.ledger import Ledger
from streambot.wiring.policies import find_agent
from streambot.wiring.recording import (
    RecordedAt,
    Recording,
    open_records,
    opened,
    read_recording,
    recorded_orders,
    recorded_run,
)
from streambot.wiring.rerun import Rerun, Tasks
from streambot.wiring.verified import Found, RunToVerify, nth, policy_of, symbols_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streambot.engine.scripts import Script
    from streambot.processor.agents import StrategyFactory
    from streambot.processor.manifest import RunManifest
    from streambot.processor.snapshot import TaskSnapshot
    from streambot.streams.ports import Record


def found_on_log(wanted: RunToVerify, at: RecordedAt) -> Found | None:
    """What stands in the topics of a run; None: nobody has declared it there.

    Raises:
        StreambotError: it cannot be compared: nothing was executed, its ticks are gone or damaged.
    """
    recording = read_recording(at, wanted.namespace, wanted.name, wanted.cwd)
    if recording is None:
        return None
    manifest, topics = recording.manifest, recording.declared.declaration.topics
    agent, orders = _agent_on_log(wanted, recording)
    before = _states(at, manifest, topics)
    lines = _lines_of(recording)
    ledger = read_ledger(recording)
    state = _where_it_stands(wanted, manifest, before, _states(at, manifest, topics))
    if state.frames is not None and not any(state.frames):
        raise UsageError(
            f"run {wanted.name} was not executed yet: there is nothing to compare",
            where="--run",
            hint=f"streambot worker --run {wanted.name}",
        )
    most: list[int | None] = [None] * manifest.partitions
    if state.frames is not None:
        most = list(state.frames)
    rerun = Rerun(Tasks(manifest, recording.declared.context, agent))
    return Found(
        manifest, ledger, state.exact, state.complete, rerun,
        partial(rerun.over_recorded, recorded_run(recording), most),
        partial(_find_in_topics, lines), "topics", "recorded ticks", orders, state.notes,
    )  # fmt: skip


def read_ledger(recording: Recording) -> Ledger:
    """The fills and P&L that stand in the topics of a run, as its readers see them."""
    lines = _lines_of(recording)
    ledger = Ledger(symbols_of(recording.manifest))
    repeated = 0
    for stream in STREAMS:
        for text, where, repeats in lines(stream):
            repeated += repeats
            if text:
                ledger.add(stream, text, where)
    ledger.repeats += repeated
    return ledger


def _lines_of(recording: Recording) -> Callable[[str], Iterator[tuple[bytes, str, int]]]:
    topics, partitions = recording.declared.declaration.topics, recording.manifest.partitions
    return partial(_topic_lines, recording.at, topics, partitions, "state" in topics)


def _agent_on_log(
    wanted: RunToVerify, recording: Recording
) -> tuple[Script | StrategyFactory | RecordedOrders, str]:
    manifest = recording.manifest
    if manifest.agents or manifest.policy.spec == RECORDED:
        return recorded_orders(recording), RECORDED
    policy = policy_of(wanted, manifest)
    return find_agent(policy, folder=wanted.cwd, run=manifest.policy), manifest.policy.spec


_AS_FAR = "run {} has not ended, or nobody here knows that it has: its lines are compared as far as they go"


class _Standing(NamedTuple):
    """How far a run was executed. `frames`: of each partition; None: nobody knows."""

    frames: list[int] | None
    exact: bool
    complete: bool
    notes: list[str]


def _states(
    at: RecordedAt, manifest: RunManifest, topics: dict[str, str]
) -> list[TaskSnapshot | None] | None:
    """The tasks' own last records; None: this log keeps none."""
    if "state" not in topics:
        return None
    with Bridge() as bridge:
        log = bridge.enter(opened(at))
        return [bridge.wait(read_task(log, topics["state"], p)) for p in range(manifest.partitions)]


def _where_it_stands(
    wanted: RunToVerify,
    manifest: RunManifest,
    before: list[TaskSnapshot | None] | None,
    after: list[TaskSnapshot | None] | None,
) -> _Standing:
    name = manifest.run
    if before is None or after is None:
        record = wanted.record
        whole = record is not None and record.state is RunState.COMPLETE
        notes = [] if whole else [_AS_FAR.format(name)]
        return _Standing(None, whole, whole, notes)
    frames = [0 if task is None else task.chain.frame_seq for task in after]
    complete = all(task is not None and task.ended for task in after)
    still = [0 if task is None else task.chain.frame_seq for task in before] == frames
    notes = []
    if not still:
        notes.append(f"run {name} goes on meanwhile: its lines are compared as far as they go")
    elif not complete:
        barriers = min(0 if task is None else task.chain.barrier for task in after)
        notes.append(
            f"run {name} has not ended: compared is what its tasks have committed, up to barrier "
            f"{barriers} in every partition"
        )
    return _Standing(frames, still, complete, notes)


def _topic_lines(
    at: RecordedAt, topics: dict[str, str], partitions: int, transactional: bool, stream: str
) -> Iterator[tuple[bytes, str, int]]:
    """Lines of a record, where it stands, and 1 for a repeat.

    A log without transactions may hold a record twice, and its readers drop the second; elsewhere
    a repeat is one line too many.
    """
    topic = topics[stream]
    with open_records(at, topic, partitions) as records:
        for partition, own in enumerate(records):
            last = -1
            for record in own:
                number = _number(record)
                repeated = number is not None and number <= last
                last = max(last, -1 if number is None else number)
                keep = transactional or not repeated
                yield (
                    record.value if keep else b"",
                    f"{topic}/{partition}/{record.offset}",
                    int(repeated),
                )


def _number(record: Record) -> int | None:
    text = dict(record.headers).get("frame_seq", b"")
    return int(text) if text.isdigit() else None


def _find_in_topics(
    lines: Callable[[str], Iterator[tuple[bytes, str, int]]], symbol: str, stream: str, number: int
) -> tuple[str, str] | None:
    return nth((text, where) for text, where, _ in lines(stream))(symbol, number)
