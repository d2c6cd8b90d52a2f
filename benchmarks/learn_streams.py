"""Actors and a learner through a broker, against others that learn the same: samples a second, learning included.

Ours is `streambot train` as a person starts it: a broker, an actor in a process of its own, RLlib's learner fed
by the experience stream. The others sample and learn in turns. All are whole programs, so the clock is the
wall's, and two cores are shared by whatever takes part; samples of a CPU second stand beside.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks import learn_stream_peers as peers
from benchmarks.command import COMMAND, ROOT
from benchmarks.harness import MIN_ROUNDS, Check, Row, SkippedError, format_figure, ratio
from benchmarks.learn_task import BATCH, ENVS, FEATURES, Files
from benchmarks.watched import Roles, Watched, watch
from streambot.adapters.kafka import KafkaLog

SB3_TARGET, RLLIB_TARGET, ALONE_TARGET, LAG_TARGET = 1.5, 1.0, 0.8, 2.0
WARM = 8
"""Updates that do not count."""
UPDATES, QUICK_UPDATES = 40, 8
NAMESPACE = "bench"
ACTOR, BROKER, LEARNER = "actors", "broker", "learner"
ROLES: Roles = {
    ACTOR: lambda words: "streambot.cli.main" in words and "actor" in words,
    LEARNER: lambda words: "streambot.cli.main" in words and "train" in words,
    BROKER: lambda words: any("tansu" in word or "kafka.Kafka" in word for word in words),
}
UNIT = "samples/s"
ONE_BY_ONE = "Stable-Baselines3, environments one by one"
BESIDE = "learner of the mixture beside an actor"
OURS = {"streambot": "ppo", "mixture": "moe"}
OTHERS = {
    "Stable-Baselines3": "sb3", ONE_BY_ONE: "sb3-single", "RLlib": "rllib", "RLlib, two runners": "rllib-runners",
    "learner of the mixture alone": "learner", BESIDE: "learner-beside", "learner alone": "plain-learner",
}  # fmt: skip


def train(
    files: Files, kind: str, *, updates: int, actors: int = 1, servers: str | None = None
) -> Watched:
    """A training, `WARM` updates and then those that are measured.

    Args:
        kind: of the agent.
        updates: that are measured.
        actors: processes.
        servers: Apache Kafka; None: the embedded broker.
    """
    name = f"{kind}{secrets.token_hex(4)}"
    words = [
        *COMMAND, "train", *files.flags(), "--agent", kind, "--updates", str(WARM + updates),
        "--checkpoint-every", "100000", "--actors", str(actors), "--run", name, "--namespace",
        NAMESPACE, "--out", str(files.home / name), "--runs-dir", str(files.home / "runs"), "--json",
        *(["--bootstrap-servers", servers] if servers else []),
    ]  # fmt: skip
    return watch(
        words, _learnt, begin=WARM * BATCH, end=(WARM + updates) * BATCH, cwd=files.home,
        variables=files.variables, roles=ROLES,
    )  # fmt: skip


def _learnt(line: dict[str, Any]) -> int | None:
    return int(line["steps"]) if line["schema"] == "streambot.training/1" else None


def other(files: Files, name: str, *, updates: int) -> Watched:
    """The same of one of `OTHERS`."""
    end = (WARM + updates) * BATCH
    return watch(
        peers.command(OTHERS[name], files, end), peers.steps_of, begin=WARM * BATCH, end=end,
        cwd=ROOT, variables=files.variables,
    )  # fmt: skip


class Measured:
    """What contestants did, round by round."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Watched]] = {}
        self.missing: dict[str, str] = {}

    def take(self, name: str, watched: Callable[[], Watched]) -> None:
        """One round of a contestant; once it cannot be measured it is left out."""
        if name in self.missing:
            return
        try:
            seen = watched()
        except SkippedError as reason:
            self.missing[name] = f"{name} cannot be measured: {reason}"
            self.seen.pop(name, None)
            return
        self.seen.setdefault(name, []).append(seen)
        # Rounds take minutes, and may be broken off.
        costs = ", ".join(
            f"{role} {1e6 * seen.cost(role):.1f} us" for role, spent in seen.cpu.items() if spent
        )
        print(
            f"  {name}: {format_figure(seen.rate)} {UNIT}; CPU of a step: {costs}; others used "
            f"{seen.others:.1f} cores", file=sys.stderr, flush=True,
        )  # fmt: skip

    def rates(self, *names: str) -> dict[str, list[float]]:
        """Samples a second, of those that were measured."""
        return {name: [w.rate for w in self.seen[name]] for name in names if name in self.seen}

    def per_cpu(self, name: str) -> list[float]:
        """Samples of a CPU second, by round."""
        return [w.steps / sum(w.cpu.values()) for w in self.seen[name]]

    @property
    def others(self) -> str:
        """What else the machine did."""
        used = [w.others for seen in self.seen.values() for w in seen]
        return f"others used {statistics.median(used):.1f} cores meanwhile, {max(used):.1f} at most"


def rows(rounds: int = MIN_ROUNDS, quick: bool = False) -> Iterator[Row]:
    """Everybody once a round; through the embedded broker, and through Apache Kafka where there is one."""
    updates = QUICK_UPDATES if quick else UPDATES
    with tempfile.TemporaryDirectory(prefix="streambot-bench-") as folder:
        files = Files.write(Path(folder))
        files.envs()
        yield from asyncio.run(_rows(files, rounds, updates))


async def _rows(files: Files, rounds: int, updates: int) -> list[Row]:
    from benchmarks.kafka import broker

    found = Measured()
    async with AsyncExitStack() as stack:
        places: dict[str, str | None] = {"": None}
        if os.environ.get("KAFKA_HOME"):
            places[" on Kafka"] = await stack.enter_async_context(broker(files.home))
        else:
            found.missing["streambot on Kafka"] = "$KAFKA_HOME is not set"
        for _ in range(rounds):
            for where, servers in places.items():
                for name, kind in OURS.items():
                    await asyncio.to_thread(
                        found.take, name + where,
                        lambda kind=kind, at=servers: train(  # type: ignore[misc]
                            files, kind, updates=updates, servers=at
                        ),
                    )  # fmt: skip
                if servers is not None:
                    await _forget(servers)
            for name in OTHERS:
                await asyncio.to_thread(
                    found.take, name, lambda name=name: other(files, name, updates=updates)  # type: ignore[misc]
                )  # fmt: skip
    made = [_row(found, "", "the embedded broker", updates)]
    what = _row(found, " on Kafka", "Apache Kafka", updates)
    return [*made, what]


async def _forget(servers: str) -> None:
    """Topics of trainings that are over."""
    async with await KafkaLog.open(servers) as log:
        await log.delete([topic for topic in await log.streams() if topic.startswith(NAMESPACE)])


def _row(found: Measured, where: str, broker: str, updates: int) -> Row:
    plain, mixture = f"streambot{where}", f"mixture{where}"
    what = f"actor and learner through {broker}, {ENVS} environments of {FEATURES} floats"
    missing = found.missing.get(plain) or found.missing.get(mixture)
    if missing:
        return Row(what, UNIT, skipped=missing)
    rates = found.rates(plain, mixture, *OTHERS)
    checks = []
    if "Stable-Baselines3" in rates:
        checks.append(ratio(rates, plain, "Stable-Baselines3", at_least=SB3_TARGET))
    if ONE_BY_ONE in rates:
        checks.append(ratio(rates, plain, ONE_BY_ONE))
    theirs = [rates[name] for name in ("RLlib", "RLlib, two runners") if name in rates]
    if theirs:
        best = {plain: rates[plain], "RLlib": [max(some) for some in zip(*theirs, strict=True)]}
        checks.append(ratio(best, plain, "RLlib", at_least=RLLIB_TARGET))
    for mine, alone, target in (
        (mixture, "learner of the mixture alone", ALONE_TARGET), (mixture, BESIDE, None),
        (BESIDE, "learner of the mixture alone", None), (plain, "learner alone", None),
    ):  # fmt: skip
        if mine in rates and alone in rates:
            checks.append(ratio(rates, mine, alone, at_least=target))
    lags = [statistics.median(line["lag"] for line in w.lines) for w in found.seen[plain]]
    checks.append(Check("median lag", lags, at_most=LAG_TARGET, unit="updates"))
    cpu = {name: found.per_cpu(name) for name in rates}
    checks += [
        _of_cpu(cpu, plain, name) for name in ("Stable-Baselines3", "RLlib") if name in cpu
    ]  # fmt: skip
    notes = [
        f"{updates} updates of {BATCH:,} steps a round, behind {WARM} that do not count; one actor",
        "one thread for everybody; whoever is not ours samples in the same environments, without masks",
        (
            "beside an actor: one that acts in as many steps as are learnt from, with nothing between "
            "the two; what it costs there, sharing a machine costs"
        ),
        found.others,
        *found.missing.values(),
    ]
    return Row(what, UNIT, rates, checks, notes)


def _of_cpu(rates: dict[str, list[float]], subject: str, against: str) -> Check:
    found = ratio(rates, subject, against)
    return Check(f"{found.what}, of a CPU second", found.values, unit="x")
