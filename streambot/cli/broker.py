"""`streambot broker start|stop|status`: a broker that stays when the command has ended."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streambot.cli.console import emit, say, show, warn
from streambot.cli.groups import AsJson, several
from streambot.cli.human import duration, place, plain, size
from streambot.domain.errors import BrokerError, UsageError
from streambot.domain.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from streambot.adapters.broker.standing import Standing, Started, Status
    from streambot.adapters.broker.state_file import BrokerState, Kind

DEFAULT_FOLDER = ".streambot/broker"
_EPHEMERAL = 32_768
_TERMINATED = 128 + signal.SIGTERM

Folder = Annotated[
    str,
    typer.Option("--folder", metavar="FOLDER", help="Where it keeps its data, log and state."),
]


def start(
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            metavar="apache|embedded",
            help="Default: apache where $KAFKA_HOME is set, else embedded (in memory).",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="N", help="Default: 9092, or the next one that is free."),
    ] = None,
    folder: Folder = DEFAULT_FOLDER,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete what it had stored before.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start a broker that stays, and print its address.

    It outlives this command. Apache Kafka keeps its data in the folder; the embedded broker keeps everything in memory.
    """
    from streambot.adapters.broker.standing import FIRST_PORT, Status, Wanted
    from streambot.adapters.broker.standing import start as start_standing
    from streambot.adapters.broker.state_file import Kind

    if kind is not None and kind not in set(Kind):
        raise UsageError(
            f"there is no broker of kind `{kind}`", where="--kind", hint=did_you_mean(kind, Kind)
        )
    if port is not None and not 0 < port < 65_536:
        raise UsageError(f"{port} is no port", where="--port", hint="1 to 65535, such as 9092")
    home = os.environ.get("KAFKA_HOME") or None
    wanted = Wanted(
        Kind(kind) if kind is not None else None,
        Kind.APACHE if home else Kind.EMBEDDED,
        port,
        Path(home) if home else None,
        fresh,
    )

    def tell(which: Kind, at: int, usual: bool) -> None:
        if not usual:
            say(f"port {FIRST_PORT} is in use: taking {at}")
        if at >= _EPHEMERAL:
            warn(
                f"port {at} is one that systems give to clients: while the broker is down, a client "
                f"may take it. Ports below {_EPHEMERAL:,} are safe"
            )
        where = f"from {home}, data in {place(folder)}" if which is Kind.APACHE else "in memory"
        say(f"starting {which.label} on port {at}, {where}", style="dim")

    started: Started = _run(start_standing(Path(folder), wanted, tell))
    already = started.before.status is Status.RUNNING
    if as_json:
        _emit(started.state, Status.RUNNING, already=already)
        return
    state = started.state
    if started.before.status is Status.DEAD:
        say("the one before had died; its data are used")
    runs = "runs already" if already else "runs"
    say(f"{state.kind.label} {runs}, process {state.pid}")
    show(state.address)
    if state.kind is Kind.EMBEDDED:
        say("it keeps everything in memory: what is in it goes when it is stopped")
    say(f"next: streambot simulate --bootstrap-servers {state.address}", style="dim")
    say(f"      streambot broker stop{_option(folder)}", style="dim")


def stop(
    folder: Folder = DEFAULT_FOLDER,
    delete_data: Annotated[
        bool, typer.Option("--delete-data", help="Delete what it has stored, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Stop the broker; its data stay, unless told otherwise."""
    from streambot.adapters.broker.standing import Status
    from streambot.adapters.broker.standing import stop as stop_standing
    from streambot.adapters.broker.state_file import Kind

    stopped = _run(stop_standing(Path(folder), delete=delete_data))
    before, state = stopped.before, stopped.before.state
    if as_json:
        _emit(
            state, Status.STOPPED, was=before.status.value, killed=stopped.killed,
            freed_bytes=stopped.freed_bytes,
        )  # fmt: skip
        return
    if not before.alive or state is None:
        say(f"no broker runs in {place(folder)}")
        if before.status is Status.DEAD and before.last_words:
            say(f"it had died; its log ends with: {plain(before.last_words[-1])}")
    elif stopped.killed:
        warn(f"{state.kind.label} did not end when it was asked to, and was killed")
    else:
        show(f"{state.kind.label} at {state.address} is stopped")
    if stopped.freed_bytes is not None:
        show(f"its data are deleted: {size(stopped.freed_bytes)}")
    elif before.data_bytes:
        say(
            f"its data stay, {size(before.data_bytes)} in {place(folder)}; "
            f"next: streambot broker start{_option(folder)}",
            style="dim",
        )
    elif before.alive and state is not None and state.kind is Kind.EMBEDDED:
        say("what was in it is gone: it kept everything in memory", style="dim")


def status(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """Show whether the broker runs, and where.

    Address, process, memory, room on the disk. Exit code 5: it has died, or does not answer.
    """
    from streambot.adapters.broker.standing import Status, look

    found: Standing = _run(look(Path(folder)))
    state = found.state
    if as_json:
        _emit(
            state, found.status, memory_bytes=found.memory_bytes, uptime_s=None if found.uptime_s is None else round(found.uptime_s, 1),
            data_bytes=found.data_bytes, last_words=list(found.last_words),
        )  # fmt: skip
    else:
        for line in _lines(found, folder):
            show(line)
    if found.status in {Status.DEAD, Status.SILENT}:
        if not as_json and state is not None:
            step = "start" if found.status is Status.DEAD else "stop"
            say(f"all it said is in {place(state.log)}", style="dim")
            say(f"next: streambot broker {step}{_option(folder)}", style="dim")
        raise typer.Exit(BrokerError.exit_code)
    if not as_json:
        step = "start" if not found.alive else "stop"
        say(f"next: streambot broker {step}{_option(folder)}", style="dim")


def _lines(found: Standing, folder: str) -> list[str]:
    from streambot.adapters.broker.standing import Status

    state = found.state
    if state is None:
        return [f"stopped: no broker was started in {place(folder)}"]
    title = state.kind.label
    lines = {
        Status.RUNNING: [f"running: {title} at {state.address}"],
        Status.SILENT: [f"silent: process {state.pid} of {title} lives, and does not answer at {state.address}"],
        Status.DEAD: [f"dead: {title} was not stopped, and its process {state.pid} is gone"],
        Status.STOPPED: [f"stopped: {title}"],
    }[found.status]  # fmt: skip
    if found.alive:
        up = "" if found.uptime_s is None else f", up {duration(found.uptime_s)}"
        memory = f", {size(found.memory_bytes)} of memory" if found.memory_bytes else ""
        lines.append(f"  process {state.pid}{up}{memory}")
    if found.data_bytes:
        lines.append(f"  data {size(found.data_bytes)} in {place(folder)}")
    lines += [f"  {plain(line)}" for line in found.last_words]
    return lines


def _emit(state: BrokerState | None, status: Status, **fields: Any) -> None:
    emit(
        "broker",
        status=status.value,
        kind=state.kind.value if state is not None else None,
        address=state.address if state is not None else None,
        pid=state.pid if state is not None else None,
        folder=state.folder if state is not None else None,
        cluster=state.cluster if state is not None else None,
        log=state.log if state is not None else None,
        **fields,
    )


def _option(folder: str) -> str:
    return "" if folder == DEFAULT_FOLDER else f" --folder {folder}"


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run it; when this process is terminated, what was being started is ended first."""
    terminated = False

    async def whole() -> Any:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def end() -> None:
            nonlocal terminated
            terminated = True
            if task is not None:
                task.cancel()

        loop.add_signal_handler(signal.SIGTERM, end)
        try:
            return await work
        finally:
            loop.remove_signal_handler(signal.SIGTERM)

    try:
        return asyncio.run(whole())
    except asyncio.CancelledError:
        if terminated:
            say("terminated: nothing was left running")
            raise typer.Exit(_TERMINATED) from None
        raise


app = several(
    "Start a broker that stays, stop it, see how it is.",
    {"start": start, "stop": stop, "status": status},
)
