"""A run whose files are all that is left: its lines, and its data done again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from streambot.domain.config import find_config, resolve
from streambot.domain.errors import ConfigError, UsageError
from streambot.processor.folder import is_held
from streambot.processor.journal import STREAMS
from streambot.processor.manifest import RunManifest
from streambot.processor.outputs import ACCEPTED
from streambot.processor.playback import RECORDED, RecordedOrders
from streambot.processor.run_state import RunRecord, RunState
from streambot.processor.stream_files import file_of
from streambot.wiring.ledger import Ledger
from streambot.wiring.preparation import prepare_again
from streambot.wiring.recording import prepare_recorded_again
from streambot.wiring.rerun import Rerun, Tasks
from streambot.wiring.verified import Found, RunToVerify, nth, policy_of, symbols_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from streambot.domain.config import SimulationConfig
    from streambot.replay.framing import WindowLike


def found_in_files(wanted: RunToVerify, record: RunRecord) -> Found:
    """What stands in the files of a run.

    Raises:
        StreambotError: it cannot be compared: its data have changed, its orders are gone.
    """
    try:
        manifest = msgspec.json.decode(record.manifest, type=RunManifest)
    except msgspec.MsgspecError as cause:
        raise ConfigError(
            f"its manifest cannot be read: {cause}", where=str(wanted.path / "run.json")
        ) from cause
    lines = partial(_file_lines, wanted.path)
    ledger = Ledger(symbols_of(manifest))
    for stream in STREAMS:
        for text, where in lines(stream):
            ledger.add(stream, text, where)
    kept = resolve({}, {}, find_config(wanted.path / "config.yaml", wanted.cwd)).config
    kept = msgspec.structs.replace(kept, policy=policy_of(wanted, manifest))
    tasks, windows = _prepared(kept, manifest, wanted)
    complete = record.state is RunState.COMPLETE
    living = is_held(wanted.path)
    notes = []
    if not complete:
        state = "is running" if living else "has not ended"
        notes.append(f"run {manifest.run} {state}: its lines are compared as far as they go")
    rerun = Rerun(tasks)
    source = "the data" if kept.from_run is None else f"the recorded ticks of run {kept.from_run}"
    return Found(
        manifest, ledger, complete, complete, rerun,
        lambda: rerun.over_windows(windows()),
        lambda symbol, stream, number: nth(lines(stream))(symbol, number),
        "files", source, RECORDED if manifest.agents else manifest.policy.spec, notes,
    )  # fmt: skip


def _prepared(
    config: SimulationConfig, manifest: RunManifest, wanted: RunToVerify
) -> tuple[Tasks, Callable[[], Iterator[WindowLike]]]:
    again = prepare_again if config.from_run is None else prepare_recorded_again
    prepared = again(config, manifest, wanted.cwd)
    agent = prepared.agent
    if manifest.agents:
        stream = ACCEPTED if manifest.free_run else "orders"
        path = file_of(wanted.path, stream)
        if not path.exists() or not path.stat().st_size:
            raise UsageError(
                f"the orders of run {manifest.run} came from outside and went with its broker",
                where=str(path),
                hint="record such runs on Apache Kafka: --bootstrap-servers",
            )
        agent = RecordedOrders(manifest, partial(orders_in_file, path))
    return Tasks(manifest, prepared.context, agent), prepared.timeline.windows


def orders_in_file(path: Path, partition: int) -> Iterator[bytes]:
    """Lines of orders of one partition, as a run has written them down."""

    class Whose(msgspec.Struct):
        partition: int

    decode = msgspec.json.Decoder(Whose).decode
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n") and decode(line).partition == partition:
                yield line


def _file_lines(folder: Path, stream: str) -> Iterator[tuple[bytes, str]]:
    """Whole lines, and where they stand; a last one without its end is what a kill left behind."""
    path = file_of(folder, stream)
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.endswith(b"\n"):
                yield line, f"{path}:{number}"
