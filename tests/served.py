"""A training without a learner: what it declares, and weights of a seed on its `policy` stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from streambot.domain.topics import Of, find_topics, streams_of
from streambot.learning.declaration import Training, declare_training
from streambot.streams.ports import Log, StreamSpec
from tests.conftest import ROOT
from tests.trained import EXPERTS, loud_agent

ENV = {
    "max_quantity": 3, "window": 6, "lookback": 20, "warmup": 20, "regime_windows": [16, 32],
    "zscore_window": 64,
}  # fmt: skip
ABOUT = {
    "instruments": "SPY,QQQ", "timeframes": "1m", "trained_from": "2020-12-01T14:30:00+00:00",
    "trained_to": "2020-12-11T21:00:00+00:00", "sources": "spy.parquet 1234 abcd",
}  # fmt: skip
AT_MS = 1_700_000_000_000


def layout_of(env: dict[str, Any] = ENV) -> str:
    from streambot.env.fields import layout_digest
    from streambot.env.settings import make_config

    return layout_digest(make_config(env))


def training_of(name: str = "moe-1", namespace: str = "streambot", **changes: Any) -> Training:
    """What a training declares."""
    topics = {s: f"{namespace}.{name}.{s}" for s in ("experience", "policy", "status", "runs")}
    fields: dict[str, Any] = {
        "namespace": namespace, "training": name, "policy": "main", "topics": topics,
        "request": msgspec.Raw(b"{}"), "data": "d", "layout": layout_of(), "seed": 0, "envs": 4,
        "rollout": 8,
    }  # fmt: skip
    return Training(**(fields | changes))


async def begin(log: Log, training: Training) -> None:
    """Its streams are there, as `topics.yaml` says, and it is declared."""
    templates = streams_of(find_topics(None, ROOT), Of.TRAINING)
    await log.create([
        StreamSpec(name=topic, config=templates[stream].kafka_settings())
        for stream, topic in training.topics.items()
    ])  # fmt: skip
    await declare_training(log, training, at_ms=AT_MS)


def weights_of(training: Training, sequence: int, **more: Any) -> bytes:
    """A record of weights: the same sequence, the same weights."""
    from streambot.learning.weights import encode_weights

    env = more.pop("env", ENV)
    agent = more.pop("agent", None) or loud_agent(seed=sequence, env=env)
    fields: dict[str, Any] = {
        "training": training.training, "policy": training.policy, "sequence": sequence,
        "env": env, "about": ABOUT, "names": EXPERTS,
        "progress": {"updates": sequence, "steps": 8_192 * sequence},
    }  # fmt: skip
    return encode_weights(agent, **(fields | more))


async def write(
    log: Log, training: Training, *values: bytes, key: bytes = b"main", at_ms: int = AT_MS
) -> None:
    """Records of its `policy` stream."""
    sink = await log.sink()
    for value in values:
        await sink.append(training.topics["policy"], 0, value, timestamp_ms=at_ms, key=key)
    await sink.close()


async def trained(log: Log, *sequences: int, name: str = "moe-1", **more: Any) -> Training:
    """A training that has published weights."""
    training = training_of(name, **more)
    await begin(log, training)
    await write(log, training, *(weights_of(training, sequence) for sequence in sequences))
    return training


def on(servers: str, work: Callable[[Any], Awaitable[Any]]) -> Any:
    """The result of work on a broker, for tests that wait."""
    from streambot.adapters.kafka import KafkaLog, detect_profile

    async def whole() -> Any:
        profile = await detect_profile(servers)
        async with await KafkaLog.open(servers, profile=profile) as log:
            return await work(log)

    return asyncio.run(whole())
