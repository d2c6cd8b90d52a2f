"""Real bars: walk-forward, embargoed, with brokerage and slippage, beside controls.

    train on everything before a day | a day between | trade what follows, up to the next of the days

The stretches that were traded are put together to one series of days, which no parameter has seen.
Bars of three NSE stocks, five minutes, 2016 to 2020, from the folder that `$STREAMBOT_DATA` names.
Settings were not chosen on these bars: they are the defaults of `streambot train`.
"""

from __future__ import annotations

import datetime as dt
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from benchmarks.learning.claim import Claim, Line, of, table
from benchmarks.learning.intervals import interval
from streambot.domain.errors import DataError
from streambot.domain.replay_settings import parse_moment
from streambot.env.settings import make_config
from streambot.env.sources import StoredSource
from streambot.env.vector_env import VectorTradingEnv
from streambot.learning.evaluation import POLICY, Asked, evaluate, plan
from streambot.learning.measures import (
    Bootstrap,
    deflated_sharpe,
    max_drawdown,
    sharpe,
    sortino,
)
from streambot.learning.measures import Interval as DaysInterval
from streambot.learning.policy import AGENTS, agent_config, load_policy
from streambot.learning.trainer import Kept, TrainConfig, Trainer
from streambot.wiring.environments import split_settings, stored_source

HERE = Path(__file__).parent
FILE = "nse_3stocks_5m_2016_2020.parquet"
ARMS = {"mixture": "moe", "one network": "ppo"}


class Real(msgspec.Struct, frozen=True, kw_only=True):
    """The experiment.

    Attributes:
        days: training ends at each, and a stretch is traded behind it.
        end: of the last stretch.
        updates, envs, rollout: of a training.
        capital, max_quantity: of every account.
        hidden: widths of every network of the mixture; the one network is as large as all of them.
    """

    days: tuple[str, ...] = ("2019-01-01", "2019-07-01", "2020-01-01")
    end: str = "2020-04-16"
    updates: int = 80
    envs: int = 64
    rollout: int = 128
    capital: int = 500_000
    max_quantity: int = 3
    hidden: tuple[int, ...] = (64, 64)
    hidden_one: tuple[int, ...] = (157, 157)


class Stretched(NamedTuple):
    """Daily returns of a contender in a stretch, and its turnover and trades."""

    returns: np.ndarray
    turnover: float
    trades: int


def run(config: Real, seed: int, tuned: dict[str, Any]) -> Iterator[Line]:
    """One seed: every arm trained and traded in every stretch, and the controls."""
    del tuned
    folder = os.environ.get("STREAMBOT_DATA")
    if folder is None:
        raise DataError(f"$STREAMBOT_DATA names no folder with {FILE}")
    env: dict[str, Any] = {"capital": config.capital, "max_quantity": config.max_quantity}
    data = {"data": [str(Path(folder) / FILE)], "registry": str(HERE / "nse_stocks.yaml")}
    source = stored_source(split_settings(data).simulation, make_config(env).features, Path.cwd())
    found: dict[str, list[Stretched]] = {}
    ends = (*config.days[1:], config.end)
    for day, end in zip(config.days, ends, strict=True):
        for arm, kind in ARMS.items():
            with tempfile.TemporaryDirectory() as kept:
                _train(config, kind, source, env | {"end": f"{day}T00:00"}, seed, Path(kept))
                policy = load_policy(Path(kept))
            start = dt.date.fromisoformat(day) + dt.timedelta(days=1)
            asked = Asked(
                start=parse_moment(str(start)), end=parse_moment(f"{end}T00:00"), seed=seed
            )
            on = plan(policy, source, env, asked)
            results = evaluate(policy, source, env, on, asked).results
            for result in results.portfolio():
                if result.policy == POLICY or arm == "mixture":  # the controls once
                    name = arm if result.policy == POLICY else result.policy
                    found.setdefault(name, []).append(
                        Stretched(np.array(result.returns), result.turnover, result.trades)
                    )
    for arm, parts in found.items():
        returns = np.concatenate([part.returns for part in parts])
        yield {
            "arm": arm, "market": "NSE", "seed": seed,
            "return": float(np.prod(1.0 + returns) - 1.0),
            "sharpe": sharpe(returns) or 0.0,
            "sortino": sortino(returns) or 0.0,
            "drawdown": max_drawdown(np.cumprod(1.0 + returns).astype(np.float64)),
            "turnover": sum(part.turnover for part in parts),
            "trades": sum(part.trades for part in parts),
            "days": returns.tolist(),
        }  # fmt: skip


def _train(
    config: Real, kind: str, source: StoredSource, env: dict[str, Any], seed: int, folder: Path
) -> None:
    made = make_config(env)
    hidden = config.hidden if kind == "moe" else config.hidden_one
    agent = AGENTS[kind](agent_config(made, hidden=hidden, seed=seed))
    envs = VectorTradingEnv(source, config.envs, autoreset_mode="SameStep", **env)
    kept = Kept(folder, {name: value for name, value in env.items() if name != "end"}, {})
    Trainer(agent, made, kept).train(
        envs, TrainConfig(updates=config.updates, rollout=config.rollout, seed=seed)
    )


def summary(lines: Sequence[Line]) -> str:
    """Arms beside controls, over the seeds; and days against flat and buy-and-hold."""
    arms = list(dict.fromkeys(line["arm"] for line in lines))
    rows = []
    for arm in arms:
        measures = [of(lines, name, arm=arm) for name in ("return", "sharpe", "sortino")]
        worst, turnover = of(lines, "drawdown", arm=arm), of(lines, "turnover", arm=arm)
        rows.append([
            arm,
            *(str(interval(values)) for values in measures),
            f"{np.mean(worst):.1%}", f"{np.mean(turnover):.1f}",
            f"{np.mean(of(lines, 'trades', arm=arm)):,.0f}",
        ])  # fmt: skip
    head = ("arm", "return", "Sharpe", "Sortino", "max drawdown", "turnover", "trades")
    mean_days = {
        arm: np.mean([line["days"] for line in lines if line["arm"] == arm], axis=0) for arm in arms
    }
    days = len(next(iter(mean_days.values())))
    mean = Bootstrap(days, seed=0).mean
    rows_of_days = []
    for arm in ARMS:
        own = mean_days[arm]
        deflated = deflated_sharpe(own, len(ARMS))
        rows_of_days.append([
            arm,
            *(_basis(mean(own - mean_days[other])) for other in ("flat", "buy-hold")),
            "-" if deflated is None else f"{deflated:.2f}",
        ])  # fmt: skip
    differences = ("arm", "a day less flat, bp", "a day less buy-and-hold, bp", "deflated Sharpe")
    return (
        f"{table(head, rows)}\n\nOver {days} days, mean of the seeds, stationary bootstrap over days:\n\n"
        f"{table(differences, rows_of_days)}"
    )


def _basis(found: DaysInterval) -> str:
    if found.mean is None or found.low is None or found.high is None:
        return "-"
    return f"{found.mean * 1e4:+.2f} [{found.low * 1e4:+.2f}, {found.high * 1e4:+.2f}]"


CLAIM = Claim(
    says="Real bars: NSE stocks, walk-forward, with brokerage and slippage",
    config=Real(),
    quick=Real(days=("2020-01-01",), updates=4, envs=16, rollout=64),
    run=run,
    summary=summary,
)
