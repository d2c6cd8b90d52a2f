"""The environment on Apache Kafka: what it says is what the engine task does, and what a mirror sees."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest

import streambot.env
from examples import trade_a_run
from streambot.domain.errors import BrokerError, ConfigError, DataError, DivergenceError, TopicError
from streambot.domain.events import OrdersThrough, SubmitOrder
from streambot.domain.registry import declare_yaml
from streambot.engine.decode import PREMIUM_MODELS, decode_orders
from streambot.env.config import EnvConfig
from streambot.env.core import Core
from streambot.env.trading_env import TradingEnv
from streambot.market.feature_config import FeatureConfig
from streambot.processor.declaration import read_declaration
from streambot.processor.journal import LineWriter
from streambot.streams.orders import encode_orders
from streambot.streams.ports import TopicPartition
from streambot.streams.reading import read_to_end
from tests.conftest import ROOT, SEED
from tests.env_world import CAPITAL, Chart, aliases, prepared, random_action, segments_of
from tests.kafka.commands import Command, commands, end
from tests.kafka.places import Kafka
from tests.waiting import until

pytestmark = pytest.mark.kafka

SPY = Chart(ROOT / "replay/bars/spy_1m_2020.parquet", "SPY", "0.0001", "XNYS", "America/New_York",
            "USD", "3.9", 100)  # fmt: skip
ENV = EnvConfig(
    capital=CAPITAL, max_quantity=4, window=5, episode_bars=None, lookback=0, drawdown_limit_bp=300,
    features=FeatureConfig(zscore_window=64, warmup=10, regime_windows=(20,)),
)  # fmt: skip


@pytest.fixture(scope="module")
def kafka(kafka_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    broker = Kafka(kafka_home, tmp_path_factory.mktemp("broker") / "env")
    broker.start()
    yield broker
    broker.close()


@pytest.fixture
def command(kafka: Kafka, tmp_path: Path) -> Iterator[Command]:
    """Start `streambot …` against the broker."""
    with commands(kafka.address, tmp_path, "--json") as begin:
        yield begin


def lines(kafka: Kafka, run: str, stream: str) -> list[bytes]:
    """Every committed line of a stream."""

    async def read(log: Any) -> list[bytes]:
        topic = f"streambot.{run}.{stream}"
        return [r.value async for batch in read_to_end(log, topic) for r in batch]

    return [line for value in kafka.do(read) for line in value.splitlines()]


def test_two_hundred_episodes_in_the_engine_task(
    kafka: Kafka, command: Command, tmp_path: Path
) -> None:
    """The orders of 204 episodes, priced by the environment, through four tasks: its fills, its equity."""
    rng = np.random.default_rng([SEED, 204])
    instruments = aliases([SPY], 204, rng)
    run = prepared([SPY], instruments, ENV, tmp_path)
    (tmp_path / "registry.yaml").write_text(declare_yaml(instruments))
    segments = segments_of(run, ENV)
    replayed = command(
        "replay", "--run", "wide", "--agent", "env", "--speed", "max", "--pnl-every", "bar",
        "--data", str(SPY.path), "--registry", str(tmp_path / "registry.yaml"),
        "--instruments", "A*", "--capital", str(CAPITAL), "--config", str(settings(tmp_path)),
    )  # fmt: skip
    events: dict[str, list[bytes]] = {}
    equity: dict[tuple[str, int], int] = {}
    orders: dict[int, list[SubmitOrder]] = defaultdict(list)
    last: dict[str, int] = {}
    for instrument in instruments:
        symbol = instrument.symbol
        core = Core(segments, ENV)
        count = len(segments.bars_of(segments.number(symbol) or 0))
        core.ask(0, instrument=symbol, bar=int(rng.integers(0, count // 2)), bars=0)
        core.reset()
        told: list[bytes] = []
        while not core.envs[0]["ended"]:
            action = random_action(rng, core.masks[0])
            core.actions[0] = action
            barrier = int(core.slots[0]["barrier"])
            quote = core.quotes[0].copy()
            core.step()
            if action:
                orders[barrier].append(order_of(core, quote, action, symbol))
            told += lines_of(core)
            equity[symbol, int(core.slots[0]["barrier"])] = int(core.envs[0]["equity"])
        events[symbol] = told
        last[symbol] = int(core.slots[0]["barrier"])
    end(replayed)
    declared = kafka.do(lambda log: read_declaration(log, "streambot.wide.runs"))
    assert declared is not None
    manifest = declared.declaration.manifest
    give(kafka, manifest, orders, run.plan.bars)
    assert end(command("worker", "--run", "wide"))["state"] == "complete"
    streamed: dict[str, list[bytes]] = defaultdict(list)
    for line in lines(kafka, "wide", "fills"):
        event = json.loads(line)
        # What the engine does behind the end of an episode, the environment does not do.
        if event["barrier"] < last[event["instrument"]] or event["kind"] == "SlotBreached":
            streamed[event["instrument"]].append(line)
    for symbol, told in events.items():
        assert streamed[symbol] == told, symbol
    units = {i.symbol: Decimal(10) ** i.money_decimals for i in instruments}
    compared = 0
    for line in lines(kafka, "wide", "pnl"):
        mark = json.loads(line)
        key = mark["instrument"], mark["barrier"]
        if mark["cause"] in {"barrier", "session"} and key in equity:
            assert Decimal(mark["equity"]) * units[key[0]] == equity[key], key
            compared += 1
    assert compared == len(equity) > 20_000
    kinds = Counter(json.loads(line)["kind"] for told in events.values() for line in told)
    assert kinds["SlotBreached"] > 3
    assert kinds["OrderFilled"] > 2_000
    assert kinds["OrderRejected"] > 100


def lines_of(core: Core) -> list[bytes]:
    """Events of the last step as the engine task writes them."""
    writer = LineWriter(core.instrument_of(0), halts=True)
    records = core.events[0, : int(core.envs[0]["events_n"])]
    return writer.events(records).data.tobytes().splitlines()


def settings(folder: Path) -> Path:
    path = folder / "streambot.yaml"
    path.write_text("max_quantity: 4\ndrawdown_limit_bp: 300\nround_prices: true\n")
    return path


def order_of(core: Core, quote: Any, action: int, symbol: str) -> SubmitOrder:
    """The order of a step, as the environment completed it at the close."""
    if action == 1:
        quote["premium"] = quote["expiry"] = quote["width"] = quote["lot_size"] = -(2**62)
        quote["action"], quote["quantity"], quote["model"] = 3, 0, 0
    else:
        most = core.config.max_quantity
        sells = action >= 2 + most
        quote["action"], quote["quantity"] = 2 if sells else 1, action - 1 - (most if sells else 0)
    (order,) = decode_orders(np.array([quote]), symbol)
    return msgspec.structs.replace(order, premium_model=PREMIUM_MODELS[int(quote["model"])])


def give(kafka: Kafka, manifest: Any, orders: dict[int, list[SubmitOrder]], bars: int) -> None:
    """Write the agent's answers to all barriers of all partitions."""
    where = {i.symbol: p for i, p in zip(manifest.instruments, manifest.partition_of, strict=True)}

    async def write(log: Any) -> None:
        sink = await log.sink()
        for partition in range(manifest.partitions):
            for low in range(0, bars, 100):
                own = tuple(
                    order
                    for barrier in range(low, low + 100)
                    for order in orders.get(barrier, ())
                    if where[order.instrument] == partition
                )
                line = OrdersThrough(
                    agent="env", partition=partition, through_barrier=low + 99, orders=own
                )
                await sink.append(
                    "streambot.wide.orders", partition, encode_orders([line]),
                    timestamp_ms=1_600_000_000_000,
                )  # fmt: skip
        await sink.close()

    kafka.do(write)


def live(kafka: Kafka, run: str, mode: str = "mirror", **settings: Any) -> TradingEnv:
    made = gymnasium.make(
        streambot.env.ENV_ID, disable_env_checker=True, mode=mode, run=run, wait="60s",
        bootstrap_servers=kafka.address, **settings,
    ).unwrapped  # fmt: skip
    assert isinstance(made, TradingEnv)
    return made


def played(env: TradingEnv, actions: Iterator[int] | None = None) -> list[tuple[Any, ...]]:
    """What an episode said; actions drawn from the masks, or given."""
    rng = np.random.default_rng(SEED)
    obs, info = env.reset(seed=1)
    said: list[tuple[Any, ...]] = [(obs.tobytes(), info["action_mask"].tobytes(), 0.0, None, ())]
    over = False
    while not over:
        action = random_action(rng, info["action_mask"]) if actions is None else next(actions)
        obs, reward, terminated, truncated, info = env.step(action)
        over = terminated or truncated
        told = tuple(lines_of(env.core))
        said.append((obs.tobytes(), info["action_mask"].tobytes(), reward, action, told))
    return said


@pytest.mark.parametrize("instrument", ["SPY", "SPY_OPT"])
def test_a_mirror_sees_what_the_recording_gives(
    kafka: Kafka, command: Command, instrument: str
) -> None:
    """Observations, masks, rewards and fills in lockstep are those of the run's own segments."""
    run = f"mirror-{instrument.lower().replace('_', '-')}"
    replayed = command("replay", "--run", run, "--agent", "env", "--speed", "max")
    worker = command("worker", "--run", run, "--wait", "60s")
    settings = {"lookback": 30, "episode_bars": 200, "reward": "differential_sharpe", "window": 7}
    env = live(kafka, run, instruments=instrument, **settings)
    mirrored = played(env)
    end(replayed)
    env.venue.see_out()  # type: ignore[attr-defined]  # of a stream
    assert end(worker)["state"] == "complete"
    env.close()
    assert len(mirrored) == 201
    assert sum(len(told) for *_, told in mirrored) > 20
    assert end(command("verify", "--run", run))["equal"]
    recorded = gymnasium.make(
        streambot.env.ENV_ID, from_run=run, bootstrap_servers=kafka.address, max_quantity=10,
        **settings,
    ).unwrapped  # fmt: skip
    assert isinstance(recorded, TradingEnv)
    actions = iter([said[3] for said in mirrored[1:]])
    recorded_reset = recorded.reset
    recorded.reset = lambda seed: recorded_reset(  # type: ignore[method-assign,assignment]
        seed=seed, options={"instrument": instrument, "bar": 30}
    )
    assert played(recorded, actions) == mirrored


def test_a_free_run_is_seen_as_the_engine_took_it(kafka: Kafka, command: Command) -> None:
    """Orders take effect when they arrive; account and fills are the engine's all the same."""
    worker = command("worker", "--run", "free", "--wait", "60s")
    replayed = command(
        "replay", "--run", "free", "--agent", "env", "--free-run", "--speed", "2000x"
    )
    env = live(kafka, "free", "free-run", instruments="SPY", lookback=5, episode_bars=None)
    with pytest.raises(ConfigError, match="runs free"):
        live(kafka, "free", instruments="SPY")
    said = played(env)
    end(replayed)
    env.venue.see_out()  # type: ignore[attr-defined]  # of a stream
    end(worker)
    env.close()
    assert end(command("verify", "--run", "free"))["equal"]
    seen = [line for *_, told in said for line in told]
    theirs = [
        line for line in lines(kafka, "free", "fills") if json.loads(line)["instrument"] == "SPY"
    ]
    assert theirs[: len(seen)] == seen
    assert len(seen) > 5


def test_fills_that_are_not_its_own_are_told(kafka: Kafka, command: Command) -> None:
    """An engine with other rules does not trade what the environment thinks: `step` or the end says so."""
    replayed = command("replay", "--run", "other", "--agent", "env", "--speed", "max")
    env = live(kafka, "other", instruments="SPY", lookback=5, episode_bars=60)
    end(replayed)
    topic = "streambot.other.fills"

    async def lie(log: Any) -> None:
        sink = await log.sink()
        place = TopicPartition(topic, 0)
        await sink.append(
            place.stream, place.partition, b'{"kind":"OrderFilled"}\n',
            timestamp_ms=1_600_000_000_000, headers=(("frame_seq", b"0"),),
        )  # fmt: skip
        await sink.close()

    kafka.do(lie)

    def to_the_end() -> None:
        played(env)
        env.venue.see_out()  # type: ignore[attr-defined]  # of a stream

    with pytest.raises(DivergenceError):
        to_the_end()
    env.close()


def test_a_recording_that_grows_is_read_up_to_its_last_barrier(
    kafka: Kafka, command: Command
) -> None:
    """While a replay goes on, and when it broke off: what is there can be trained on, and more later."""
    replay = command("replay", "--run", "grows", "--speed", "600x", "--agent", "nobody")
    declared = until(
        lambda: kafka.do(lambda log: read_declaration(log, "streambot.grows.runs")), "a declaration"
    )
    assert declared is not None

    def bars() -> int:
        try:
            env = gymnasium.make(
                streambot.env.ENV_ID, disable_env_checker=True, from_run="grows",
                bootstrap_servers=kafka.address, episode_bars=3, lookback=1, instruments=("SPY",),
            ).unwrapped  # fmt: skip
        except (TopicError, DataError):
            return 0  # not even a frame, not a bar, or too few of them
        assert isinstance(env, TradingEnv)
        assert not env.core.segments.head.complete
        env.reset(seed=1)
        env.step(0)
        return len(env.core.segments.bars_of(0))

    first = until(bars, "bars of a recording that grows")
    until(lambda: bars() > first, "more bars")
    replay.send_signal(signal.SIGKILL)
    replay.wait()
    assert bars() == bars() > first


def test_a_broker_that_goes_while_stepping_is_told(
    kafka_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step that waits for a broker which is gone ends with its error, not with a made-up close."""
    monkeypatch.setattr("streambot.streams.patience.PATIENCE_S", 3.0)
    broker = Kafka(kafka_home, tmp_path / "dies")
    broker.start()
    with commands(broker.address, tmp_path) as begin:
        replay = begin("replay", "--run", "dies", "--agent", "env", "--speed", "60x", "-q")
        env = live(broker, "dies", instruments="SPY", lookback=1, episode_bars=None)
        env.reset(seed=1)
        timer = threading.Timer(1.0, broker.kill)
        timer.start()

        def steps() -> None:
            while True:
                env.step(0)

        with pytest.raises(BrokerError):
            steps()
        timer.join()
        env.close()
        replay.kill()


def test_the_example_trades_a_running_replay(
    kafka: Kafka, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shape that live trading has: ticks and fills in, orders out, to the end of the run."""
    replayed = command("replay", "--run", "shown", "--agent", "learner", "--speed", "3000x")
    worker = command("worker", "--run", "shown", "--wait", "60s")
    earned = trade_a_run.main("shown", kafka.address)
    end(replayed)
    assert end(worker)["state"] == "complete"
    out = capsys.readouterr().out
    assert f"shown ended: end_of_data, {earned:+.4f} %" in out
    assert "entry" in out
    assert "exit" in out
    assert end(command("verify", "--run", "shown"))["equal"]
