"""The same data and orders in several ways: speeds, brokers, framings, partitions, placements.

The first way is the plainest there is, and the others are compared with it. Runs that need a folder
have one that is thrown away afterwards; so are their topics on a broker that stays.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from streambot.domain.config import (
    MAX_SPEED,
    BrokerChoice,
    Resolved,
    SimulationConfig,
    Speed,
    config_yaml,
)
from streambot.domain.errors import BrokerError, StreambotError
from streambot.processor.playback import RecordedOrders
from streambot.report.progress import SilentObserver
from streambot.report.verification import WayResult, WaysVerification
from streambot.wiring.ledger import Ledger
from streambot.wiring.places import EMBEDDED_LIMIT, estimated_bytes, open_lasting
from streambot.wiring.preparation import Prepared, prepare
from streambot.wiring.publishing import run_publishing
from streambot.wiring.recording import RecordedAt, read_recording
from streambot.wiring.rerun import Rerun, Tasks
from streambot.wiring.scenario import with_scenario
from streambot.wiring.simulation import run_simulation
from streambot.wiring.stopping import StopRequest
from streambot.wiring.verified import symbols_of
from streambot.wiring.verifying_files import orders_in_file
from streambot.wiring.verifying_log import read_ledger

if TYPE_CHECKING:
    from streambot.engine.scripts import Script
    from streambot.processor.agents import StrategyFactory

PACED_S = 2.0
"""How long a paced way takes."""
CHILD_S = 300.0
_FEW_ROWS = 7
_MINUTE_NS = 60 * 10**9
_CUTS = (0, 7 * 10**9, 3 * _MINUTE_NS, 41 * 10**9, 0, 1)
"""Event time of one frame after the other, ns: nothing that bars have a part in."""
_TAIL = 600
_AGENT = "outside"


class WaysToVerify(NamedTuple):
    """What is done in several ways.

    Attributes:
        settings: data, orders, capital.
        servers: a broker that stays; None: none.
        quick: leave out what takes longer.
        cwd: where relative paths start.
    """

    settings: Resolved
    servers: str | None
    quick: bool
    cwd: Path


class Way(NamedTuple):
    """One way: what it is called, and how its event digest is come by."""

    name: str
    go: Callable[[], Awaitable[str]]


async def verify_ways(
    wanted: WaysToVerify, told: Callable[[str], None], done: Callable[[WayResult], None]
) -> WaysVerification:
    """Go all the ways.

    Args:
        wanted: what is done.
        told: says what comes next.
        done: told of each way that was gone.

    Raises:
        StreambotError: the first way did not come to an end: there is nothing to compare with.
    """
    settings = with_scenario(wanted.settings, wanted.cwd)
    prepared = await asyncio.to_thread(prepare, settings.config, wanted.cwd)
    with tempfile.TemporaryDirectory(prefix="streambot-verify-") as folder:
        book = _Ways(wanted, settings, prepared, Path(folder))
        ways, left_out = await book.ways()
        results: list[WayResult] = []
        for way in ways:
            told(way.name)
            result = await _gone(way, results[0].digest if results else None)
            results.append(result)
            done(result)
    return WaysVerification(
        equal=all(result.equal for result in results),
        instruments=list(prepared.plan.symbols),
        policy=settings.config.policy,
        bars=prepared.plan.bars,
        rows=prepared.plan.ticks,
        ways=results,
        left_out=left_out,
    )


async def _gone(way: Way, reference: str | None) -> WayResult:
    began = time.monotonic()
    try:
        digest = await way.go()
    except StreambotError as failure:
        if reference is None:
            raise
        wall = round(time.monotonic() - began, 3)
        return WayResult(way=way.name, digest=None, equal=False, wall_s=wall, error=str(failure))
    wall = round(time.monotonic() - began, 3)
    return WayResult(way=way.name, digest=digest, equal=reference in {None, digest}, wall_s=wall)


class _Ways:
    """All ways of one set of data and orders."""

    def __init__(
        self, wanted: WaysToVerify, settings: Resolved, prepared: Prepared, folder: Path
    ) -> None:
        self._wanted = wanted
        self._settings = settings
        self._prepared = prepared
        self._folder = folder
        self._mark = token_hex(3)

    async def ways(self) -> tuple[list[Way], dict[str, str]]:
        """The ways to go, the plainest first; and those that cannot be gone, or are not asked for."""
        n = len(self._prepared.plan.symbols)
        counts = sorted({min(count, n) for count in (1, 2, 4)})
        ways = [Way("in process, at full speed, 1 partition", partial(self._simulated, "first"))]
        ways += [
            Way(
                f"in process, {count} partitions",
                partial(self._simulated, f"partitions-{count}", partitions=count),
            )
            for count in counts[1:]
        ]
        most = counts[-1]
        ways += [
            Way(
                f"frames of at most {_FEW_ROWS} rows, {most} partitions",
                partial(self._framed, most, max_rows=_FEW_ROWS),
            ),
            Way("frames cut inside bars", partial(self._framed, most, spans=_CUTS)),
            Way("the orders of the first way, given again", partial(self._ordered, most)),
        ]
        left_out: dict[str, str] = {}
        self._embedded(ways, left_out, most)
        if self._wanted.quick:
            left_out["paced, an agent outside, workers, Apache Kafka"] = "--quick"
            return ways, left_out
        speed = self._paced_speed()
        ways.append(
            Way(f"in process, paced at {speed}", partial(self._simulated, "paced", speed=speed))
        )
        if "embedded broker" not in left_out:
            acted = partial(self._acted, "actor", broker=BrokerChoice.EMBEDDED, partitions=most)
            ways.append(Way("an agent outside, on the embedded broker", acted))
        await self._on_broker(ways, left_out, most)
        return ways, left_out

    def _embedded(self, ways: list[Way], left_out: dict[str, str], most: int) -> None:
        if estimated_bytes(self._prepared) > EMBEDDED_LIMIT:
            left_out["embedded broker"] = "it keeps everything in memory, and this is too much"
            return
        ways.append(
            Way(
                f"embedded broker, {most} partition{'s' * (most > 1)}",
                partial(self._simulated, "embedded", broker=BrokerChoice.EMBEDDED, partitions=most),
            )
        )

    async def _on_broker(self, ways: list[Way], left_out: dict[str, str], most: int) -> None:
        servers = self._wanted.servers
        if servers is None:
            left_out["a broker that stays, workers"] = (
                "none is given or started here (--bootstrap-servers, `streambot broker start`)"
            )
            return
        async with open_lasting(servers, self._settings.config.kafka) as place:
            transactional = place.transactional
        kind = "Apache Kafka" if transactional else "a broker that stays"
        ways.append(Way(f"{kind} at {servers}", partial(self._on_kafka, most)))
        if not transactional:
            left_out["workers"] = "they need a broker with transactions"
            return
        acted = partial(
            self._acted, "kafka-actor", broker=BrokerChoice.AUTO, partitions=most,
            bootstrap_servers=servers,
        )  # fmt: skip
        ways.append(Way("an agent outside, on Apache Kafka", acted))
        ways += [
            Way(
                f"replay and {workers} worker{'s' * (workers > 1)}, on Apache Kafka",
                partial(self._worked, most, workers),
            )
            for workers in sorted({1, min(2, most)})
        ]

    def _paced_speed(self) -> Speed:
        """The speed at which the market's open hours take about `PACED_S`."""
        return Speed(max(1, math.ceil(self._prepared.plan.open_ns / 1e9 / PACED_S)))

    def _config(self, name: str, **changes: object) -> SimulationConfig:
        plain = {
            "speed": MAX_SPEED, "broker": BrokerChoice.IN_PROCESS, "bootstrap_servers": None,
            "partitions": 1, "runs_dir": str(self._folder), "run": f"verify-{self._mark}-{name}",
            "agents": (), "free_run": False,
        }  # fmt: skip
        return msgspec.structs.replace(self._settings.config, **(plain | changes))

    def _resolved(self, config: SimulationConfig) -> Resolved:
        return Resolved(config, self._settings.origins)

    async def _simulated(self, name: str, **changes: object) -> str:
        return await self._simulate(self._config(name, **changes))

    async def _simulate(self, config: SimulationConfig) -> str:
        stop = StopRequest()
        summary = await run_simulation(self._resolved(config), stop=stop, cwd=self._wanted.cwd)
        if stop.reason is not None:
            raise KeyboardInterrupt
        return summary.digest

    async def _framed(self, partitions: int, **cut: object) -> str:
        return await asyncio.to_thread(
            partial(self._rerun, partitions, self._prepared.agent, **cut)
        )

    async def _ordered(self, partitions: int) -> str:
        """The orders that the first way has written down, as those of an agent outside."""
        config = self._config("first")
        path = self._folder / str(config.run) / "orders.ndjson"
        manifest = self._prepared._replace(config=config).manifest(str(config.run))
        orders = RecordedOrders(manifest, partial(orders_in_file, path))
        return await asyncio.to_thread(partial(self._rerun, partitions, orders))

    def _rerun(
        self,
        partitions: int,
        agent: Script | StrategyFactory | RecordedOrders,
        **cut: object,
    ) -> str:
        config = self._config("framed", partitions=partitions)
        manifest = self._prepared._replace(config=config).manifest(str(config.run))
        rerun = Rerun(Tasks(manifest, self._prepared.context, agent))
        ledger = Ledger(symbols_of(manifest))
        for stream, lines in rerun.over_windows(self._prepared.timeline.windows(), **cut):  # type: ignore[arg-type]
            ledger.add(stream, lines)
        return ledger.digest

    async def _on_kafka(self, partitions: int) -> str:
        servers = self._wanted.servers
        changes = {
            "broker": BrokerChoice.AUTO, "bootstrap_servers": servers, "partitions": partitions,
        }  # fmt: skip
        try:
            return await self._simulated("kafka", **changes)
        finally:
            await self._delete_topics(str(self._config("kafka").run))

    async def _acted(self, name: str, **changes: object) -> str:
        """The policy in a process of its own, waited for by the engine."""
        config = self._config(name, agents=(_AGENT,), **changes)
        run = str(config.run)
        child = await self._child(config, "actor", "--run", run, "--agent", _AGENT, "--wait", "60s")
        try:
            digest = await self._simulate(config)
            await _ended(child)
        finally:
            await _killed(child)
            if config.bootstrap_servers is not None:
                await self._delete_topics(run)
        return digest

    async def _worked(self, partitions: int, workers: int) -> str:
        """The pieces apart, each a process of its own; the digest is that of the topics."""
        config = self._config(
            f"workers-{workers}", broker=BrokerChoice.AUTO, partitions=partitions,
            bootstrap_servers=self._wanted.servers,
        )  # fmt: skip
        run = str(config.run)
        children: list[asyncio.subprocess.Process] = []
        try:
            for number in range(workers):
                share = ("--worker", f"{number}/{workers}", "--no-rollup", "--wait", "60s")
                children.append(await self._child(config, "worker", "--run", run, *share))
            stop = StopRequest()
            await run_publishing(self._resolved(config), SilentObserver(), stop, self._wanted.cwd)
            if stop.reason is not None:
                raise KeyboardInterrupt
            await asyncio.gather(*(_ended(child) for child in children))
            return await asyncio.to_thread(self._digest_on_log, run)
        finally:
            await asyncio.gather(*map(_killed, children))
            await self._delete_topics(run)

    async def _child(
        self, config: SimulationConfig, command: str, *arguments: str
    ) -> asyncio.subprocess.Process:
        """Another `streambot …`, with the settings of this one."""
        kept = self._folder / f"{config.run}.yaml"
        kept.write_text(config_yaml(self._resolved(config)), encoding="utf-8")
        password = config.kafka.sasl_password
        secret = {} if password is None else {"STREAMBOT_KAFKA_SASL_PASSWORD": password.reveal()}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "streambot.cli.main", command, *arguments,
            "--config", str(kept), "--quiet", "--json",
            cwd=self._wanted.cwd, env=os.environ | secret, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    def _digest_on_log(self, run: str) -> str:
        config = self._settings.config
        at = RecordedAt(str(self._wanted.servers), config.kafka)
        recording = read_recording(at, config.namespace, run, self._wanted.cwd)
        if recording is None:
            raise BrokerError(f"run {run} is not declared on its broker", where=at.servers)
        return read_ledger(recording).digest

    async def _delete_topics(self, run: str) -> None:
        config = self._settings.config
        prefix = f"{config.namespace}.{run}."
        async with open_lasting(str(self._wanted.servers), config.kafka) as place:
            mine = [name for name in await place.log.streams() if name.startswith(prefix)]
            await place.log.delete(mine)


async def _killed(child: asyncio.subprocess.Process) -> None:
    """Whatever it still does, it ends."""
    if child.returncode is None:
        child.kill()
        await child.communicate()


async def _ended(child: asyncio.subprocess.Process) -> None:
    """Wait for the end of a process; what it said on stderr is the error, where it failed."""
    try:
        async with asyncio.timeout(CHILD_S):
            _, said = await child.communicate()
    except TimeoutError:
        raise BrokerError(f"its process did not end within {CHILD_S:.0f} s") from None
    if child.returncode:
        words = said.decode("utf-8", "replace").strip()[-_TAIL:]
        raise BrokerError(f"its process ended with {child.returncode}: {words}")
