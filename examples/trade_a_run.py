"""An agent in a process of its own that trades a running replay through the environment.

    streambot broker start
    streambot replay --run mine --agent learner --instruments SPY --speed 600x
    streambot worker --run mine
    python examples/trade_a_run.py mine 127.0.0.1:9092

Ticks and fills come in from Kafka, orders go out; the engine waits for each answer. What trades here
is a rule of three lines: put the policy that you have learnt in its place.
"""

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np

import streambot.env
from streambot.domain.events import OrderFilled
from streambot.env.trading_env import TradingEnv
from streambot.env.venues import StreamVenue

HOLD, CLOSE, BUY_ONE = 0, 1, 2


def answer(seen: dict[str, float], mask: Any) -> int:  # noqa: ANN401  # uint8 [actions]
    """Buy one lot of what drifts up, and let it go when it no longer does."""
    wanted = BUY_ONE if seen["drift_64"] > 1 else CLOSE if seen["drift_64"] < 0 else HOLD
    return wanted if mask[wanted] else HOLD


def main(run: str, servers: str, instrument: str = "SPY") -> float:
    """Trade the run to its end; the return in percent."""
    env = gymnasium.make(
        streambot.env.ENV_ID, mode="mirror", run=run, bootstrap_servers=servers,
        instruments=instrument, wait="60s", episode_bars=None,
    ).unwrapped  # fmt: skip
    assert isinstance(env, TradingEnv)  # noqa: S101  # for the type checker
    assert isinstance(env.venue, StreamVenue)  # noqa: S101  # for the type checker
    names = [field.name for field in env.observation_fields]
    observation, info = env.reset()
    before, over = info["equity"], False
    while not over:
        seen = dict(zip(names, np.asarray(observation).tolist(), strict=True))
        observation, _, terminated, truncated, info = env.step(answer(seen, info["action_mask"]))
        over = terminated or truncated
        for event in env.events:
            if isinstance(event, OrderFilled):
                price = event.price * env.instrument.tick_size
                print(f"{np.datetime64(event.ts_event, 'ns')}Z  {event.effect:5}  {price}")
    env.venue.see_out()  # whatever the run still asks is answered with HOLD
    env.close()
    earned = float(100 * (info["equity"] / before - 1))
    print(f"{run} ended: {info['end_reason']}, {earned:+.4f} %")
    return earned


if __name__ == "__main__":
    main(*sys.argv[1:])
