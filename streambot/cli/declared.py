"""Runs as a broker knows them: what each has declared of itself on its `runs` stream.

Whoever has the address of a broker needs nothing else to watch a run that was started elsewhere. The
declaration is read as far as it is needed here; the whole of it belongs to the engine, and its
compiler (`processor.declaration`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.domain.errors import StreamError, TopicError
from streambot.domain.instruments import Instrument
from streambot.domain.suggest import did_you_mean
from streambot.streams.reading import read_to_end

if TYPE_CHECKING:
    from streambot.streams.ports import Log, Record

RUNS = "runs"
_RUN, _SUCCESSOR = b"run", b"successor"


class Outline(msgspec.Struct, frozen=True):
    """What a replay will be, as much as is shown; spans in UTC ns."""

    ticks: int = 0
    first_ns: int = 0
    last_ns: int = 0


class DeclaredManifest(msgspec.Struct, frozen=True):
    """What is needed of a manifest here."""

    run: str = ""
    instruments: tuple[Instrument, ...] = ()
    capital: tuple[int, ...] = ()
    partitions: int = 1
    partition_of: tuple[int, ...] = ()
    agents: tuple[str, ...] = ()


class _Declaration(msgspec.Struct, frozen=True):
    manifest: msgspec.Raw
    topics: dict[str, str]
    namespace: str = ""
    outline: Outline = Outline()


class _Successor(msgspec.Struct, frozen=True):
    run: str = ""


class OnLog(NamedTuple):
    """What a run's log says of it.

    Attributes:
        raw: the manifest as it stands there.
        topics: topic of every stream.
        at_ms: when it was declared, wall time, UTC.
        successor: the run that goes on after a seek; None: none.
    """

    manifest: DeclaredManifest
    raw: msgspec.Raw
    topics: dict[str, str]
    outline: Outline
    at_ms: int
    successor: str | None


async def read_on_log(log: Log, topic: str) -> OnLog | None:
    """What the run's `runs` stream says; None where that says nothing, or is not there.

    Raises:
        StreamError: the records are not what streambot writes.
    """
    if topic not in await log.streams():
        return None
    said: dict[bytes | None, Record] = {}
    async for batch in read_to_end(log, topic):
        said |= {record.key: record for record in batch if record.key in {_RUN, _SUCCESSOR}}
    if _RUN not in said:
        return None
    try:
        declared = msgspec.json.decode(said[_RUN].value, type=_Declaration)
        manifest = msgspec.json.decode(declared.manifest, type=DeclaredManifest)
        successor = None
        if _SUCCESSOR in said:
            successor = msgspec.json.decode(said[_SUCCESSOR].value, type=_Successor).run
    except (msgspec.MsgspecError, ValueError) as cause:
        raise StreamError(
            f"the declaration of the run cannot be read: {cause}", where=topic
        ) from cause
    return OnLog(
        manifest, declared.manifest, declared.topics, declared.outline, said[_RUN].timestamp_ms,
        successor,
    )  # fmt: skip


def own_topics(found: OnLog, namespace: str, run: str) -> dict[str, str]:
    """The streams that a run has, under the names that are its own.

    Nobody else's topic is looked at because a record names it.
    """
    return {
        stream: topic
        for stream, topic in found.topics.items()
        if topic == f"{namespace}.{run}.{stream}"
    }


async def declared_runs(log: Log, namespace: str) -> dict[str, OnLog]:
    """The runs that are declared in a namespace, by name, the newest last."""
    head, tail = f"{namespace}.", f".{RUNS}"
    found: dict[str, OnLog] = {}
    for topic in await log.streams():
        run = topic.removeprefix(head).removesuffix(tail)
        if topic == f"{head}{run}{tail}" and (on_log := await read_on_log(log, topic)) is not None:
            found[run] = on_log
    return dict(sorted(found.items(), key=lambda one: (one[1].at_ms, one[0])))


async def find_declared(
    log: Log, servers: str, namespace: str, run: str | None
) -> tuple[str, OnLog]:
    """A run that is declared on a broker; None: the one that was declared last.

    Raises:
        TopicError: there is none, or not that one.
    """  # fmt: skip
    if run is not None:
        found = await read_on_log(log, f"{namespace}.{run}.{RUNS}")
        if found is not None:
            return run, found
    known = await declared_runs(log, namespace)
    if run is None and known:
        return list(known.items())[-1]
    what = "run" if run is None else f"run {run}"
    raise TopicError(
        f"no {what} is declared on {servers} in namespace {namespace}",
        hint=(did_you_mean(run, list(known)) if run is not None else "")
        or "streambot replay starts one; --namespace names another; or this user may not see it",
    )
