"""Which bars a policy is judged on, who plays beside it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from streambot.agents.batch import AdaptConfig  # noqa: E402
from streambot.agents.checkpoint import save_checkpoint  # noqa: E402
from streambot.agents.moe import MoEAgent  # noqa: E402
from streambot.domain.errors import ConfigError, DataError  # noqa: E402
from streambot.domain.replay_settings import parse_moment  # noqa: E402
from streambot.env.settings import make_config  # noqa: E402
from streambot.learning.adapting import Adaptation  # noqa: E402
from streambot.learning.evaluation import Asked, evaluate, plan  # noqa: E402
from streambot.learning.measures import deflated_sharpe  # noqa: E402
from streambot.learning.playing import CONTROLS  # noqa: E402
from streambot.learning.policy import LoadedPolicy, agent_config, load_policy  # noqa: E402
from tests.three_markets import SETTINGS, SYMBOLS, three_markets  # noqa: E402
from tests.trained import Given  # noqa: E402

pytestmark = pytest.mark.train
ABOUT = {
    "instruments": "AAA,BBB", "trained_from": "2019-04-14T09:05:00Z",
    "trained_to": "2019-05-10T10:00:00Z", "timeframes": "5m",
}  # fmt: skip


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return three_markets(tmp_path_factory.mktemp("three"))


def policy(folder: Path, about: dict[str, str] | None = None, **settings: Any) -> LoadedPolicy:
    agent = MoEAgent(agent_config(make_config(SETTINGS), hidden=(8,), **settings))
    save_checkpoint(folder, agent, env=SETTINGS, about=ABOUT if about is None else about)
    return load_policy(folder)


def test_the_range_lies_behind_the_training(market: Given, tmp_path: Path) -> None:
    """Of every instrument, trained on or not; its first bar is the first that was not seen."""
    found = plan(policy(tmp_path), market, SETTINGS, Asked())
    assert found.symbols == SYMBOLS
    trained_to = parse_moment(ABOUT["trained_to"]).start_ns("UTC")
    for span in found.spans:
        closes = found.segments.bars_of(span.instrument)["close_ts"]
        assert closes[span.first - 1] <= trained_to < closes[span.first]
        assert span.last == len(closes) - 1
    assert (found.seen.seen, found.seen.same_time, found.nothing_behind) == (0, 0, False)


def test_a_range_that_is_named_is_taken(market: Given, tmp_path: Path) -> None:
    asked = Asked(start=parse_moment("2019-05-01"), end=parse_moment("2019-05-15"))
    found = plan(policy(tmp_path), market, SETTINGS, asked)
    assert 0 < found.seen.seen < found.seen.bars
    closes = found.segments.bars_of(0)["close_ts"]
    assert closes[found.spans[0].first] >= asked.start.start_ns("UTC")
    # A setting of the training's range does not narrow it.
    also = SETTINGS | {"start": "2019-04-20", "end": "2019-04-25"}
    assert plan(policy(tmp_path), market, also, asked).spans == found.spans


def test_where_nothing_lies_behind_all_bars_are_judged_and_it_is_said(
    market: Given, tmp_path: Path
) -> None:
    late = ABOUT | {"trained_to": "2030-01-01T00:00:00Z"}
    found = plan(policy(tmp_path, late), market, SETTINGS, Asked())
    assert found.nothing_behind
    assert found.start is None
    assert all(span.first == SETTINGS["lookback"] for span in found.spans)
    assert found.seen.seen == sum(s.last - s.first for s in found.spans[:2])
    # Of a checkpoint that says nothing the whole range is no surprise.
    silent = plan(policy(tmp_path, {}), market, SETTINGS, Asked())
    assert silent.spans == found.spans
    assert not silent.nothing_behind
    assert silent.seen.seen is None


def test_instruments_without_bars_are_left_out_by_name(market: Given, tmp_path: Path) -> None:
    found = plan(policy(tmp_path), market, SETTINGS, Asked(start=parse_moment("2019-05-19")))
    assert found.left_out == ("CCC",)
    assert found.symbols == SYMBOLS[:2]
    with pytest.raises(DataError, match="no instrument has two bars in the range, with 20"):
        plan(policy(tmp_path), market, SETTINGS, Asked(start=parse_moment("2031-01-01")))


def test_policy_adapted_and_controls_stand_side_by_side(market: Given, tmp_path: Path) -> None:
    loaded = policy(tmp_path, adapt=AdaptConfig(lr=30.0))
    before = {k: v.clone() for k, v in loaded.agent.state().items()}
    asked = Asked(
        start=parse_moment("2019-05-01"), adapt=Adaptation(2, 60, 4), trials=7, sampled=True, seed=3
    )
    on = plan(loaded, market, SETTINGS, asked)
    found = evaluate(loaded, market, SETTINGS, on, asked)
    results = {r.policy: r for r in found.results.portfolio()}
    assert list(results) == ["policy", "adapted 2", *CONTROLS]
    assert results["policy"].returns != results["adapted 2"].returns
    assert found.judged == "adapted 2"
    assert found.deflated == deflated_sharpe(found.results.daily("adapted 2"), 7)
    assert 0 <= found.deflated <= 1
    again = evaluate(loaded, market, SETTINGS, on, asked)
    assert again.results.portfolio() == found.results.portfolio()
    # It stays as it was: the next evaluation begins at the same weights.
    assert all(torch.equal(before[k], v) for k, v in loaded.agent.state().items())


def test_what_cannot_be_judged_is_refused(market: Given, tmp_path: Path) -> None:
    loaded = policy(tmp_path)
    on = plan(loaded, market, SETTINGS, Asked())
    with pytest.raises(ConfigError, match="4 lots, where 3 is the most"):
        evaluate(loaded, market, SETTINGS, on, Asked(lots=4))
    with torch.no_grad():
        next(loaded.agent.network.parameters())[0, 0] = float("nan")
    with pytest.raises(DataError, match="weights are no numbers"):
        evaluate(loaded, market, SETTINGS, on, Asked())
    poor = SETTINGS | {"capital": 1}
    with pytest.raises(ConfigError, match="does not buy one lot"):
        evaluate(policy(tmp_path), market, poor, plan(loaded, market, poor, Asked()), Asked())
