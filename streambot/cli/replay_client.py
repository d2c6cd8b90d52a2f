"""Sends one command to a living run, and waits for its acknowledgement.

The command is sent again under the same id until it is answered: a run that is about to start reads
its control stream from where that ends then. A repeat is applied once.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from streambot.cli.seen_run import SeenRun, see_run, see_runs
from streambot.cli.which_broker import IN_PROCESS, BrokerPlace, open_broker
from streambot.domain.errors import BrokerError, DecodeError, UsageError
from streambot.streams.control import (
    CONTROL,
    STATUS,
    Acknowledgement,
    Command,
    decode_acknowledgement,
    encode_command,
    word_of,
)
from streambot.streams.ports import TopicPartition

if TYPE_CHECKING:
    from streambot.domain.kafka_settings import KafkaSecurity
    from streambot.streams.ports import Source

AGAIN_S = 2.0
_READ_S = 0.25
_NANOS_PER_MS = 1_000_000


def new_sender() -> str:
    """A name that no other sender has."""
    return f"cli-{secrets.token_hex(6)}"


def find_living(runs_dir: Path, name: str | None) -> SeenRun:
    """The run `name`; None: the newest one that a process works on.

    Raises:
        UsageError: there is none, or it has ended.
    """
    if name is None:
        living = [seen for seen in see_runs(runs_dir) if seen.living]
        if not living:
            raise UsageError(
                "no run is going", where=str(runs_dir), hint="start one: streambot simulate"
            )
        return living[-1]
    seen = see_run(runs_dir, name)
    if not seen.living:
        raise UsageError(f"run {name} is {seen.state}: there is no replay to control")
    return seen


async def ask(
    seen: SeenRun, command: Command, security: KafkaSecurity, *, limit_s: float
) -> Acknowledgement:
    """Send `command` to the run, and return what became of it.

    Raises:
        BrokerError: the run cannot be reached, or nobody answers.
    """
    run = seen.record.run
    if seen.record.broker == IN_PROCESS:
        raise BrokerError(
            f"run {run} cannot be reached: its streams stay inside its own process",
            hint="press space in its terminal (? shows the keys), or run it with --broker embedded",
        )
    if CONTROL not in seen.record.topics or STATUS not in seen.record.topics:
        raise BrokerError(
            f"run {run} cannot be reached: it has no control stream",
            hint="declare `control` and `status` in its topics.yaml, as the bundled one does",
        )
    try:
        return await _ask(seen, command, security, limit_s)
    except BrokerError:
        if seen.living:
            raise
        raise BrokerError(f"run {run} ended before it answered") from None


async def _ask(
    seen: SeenRun, command: Command, security: KafkaSecurity, limit_s: float
) -> Acknowledgement:
    topics = seen.record.topics
    place = BrokerPlace(seen.record.broker, str(seen.path / "run.json"))
    async with AsyncExitStack() as stack:
        log = await stack.enter_async_context(open_broker(place, security))
        source = await log.source({TopicPartition(topics[STATUS], 0): "end"})
        stack.push_async_callback(source.close)
        sink = await log.sink()
        stack.push_async_callback(sink.close)
        loop = asyncio.get_running_loop()
        limit = loop.time() + limit_s
        while True:
            await sink.append(topics[CONTROL], 0, encode_command(command), timestamp_ms=_now_ms())
            await sink.flush()
            again = min(limit, loop.time() + AGAIN_S)
            found = await _answer(seen, source, command, again)
            if found is not None:
                return found
            if loop.time() >= limit or not seen.living:
                raise BrokerError(
                    f"nobody answered: run {seen.record.run} has not done `{word_of(command)}` within "
                    f"{limit_s:g} s",
                    hint="it may be busy, or about to end; --wait 2m waits longer",
                )


async def _answer(
    seen: SeenRun, source: Source, command: Command, until: float
) -> Acknowledgement | None:
    loop = asyncio.get_running_loop()
    while True:
        living = seen.living
        for record in await source.read(timeout_s=_READ_S):
            try:
                said = decode_acknowledgement(record.value)
            except DecodeError:
                continue  # somebody else's bytes
            if said is not None and said.id == command.id:
                return said
        if loop.time() >= until or not living:
            return None


def _now_ms() -> int:
    from streambot.replay.clock import utc_now

    return utc_now() // _NANOS_PER_MS
