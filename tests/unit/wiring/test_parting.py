"""What is trained on, and what is not: no bar on both sides, and a checkpoint says what was learnt from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")

from streambot.agents.batch import LearnConfig
from streambot.agents.devices import resolve_device
from streambot.domain.errors import ConfigError, DataError
from streambot.env.settings import make_config
from streambot.env.starts import rows_between
from streambot.learning.meta import MetaTrainConfig
from streambot.learning.seen import training_of
from streambot.wiring.parting import _parted, split_data
from streambot.wiring.trained_on import check_same, facts, span_of, together
from streambot.wiring.training import TrainingRequest, make_agent, rooted, typed

pytestmark = pytest.mark.train
DAY = 86_400 * 10**9
NEW_YORK, KOLKATA = "America/New_York", "Asia/Kolkata"


def request(**more: Any) -> TrainingRequest:
    return TrainingRequest(data={"scenario": "spy-four-sessions"}, **more)


def store(*zones: str) -> Any:
    """A store of hourly closes in January 2020 of one instrument in each zone."""
    closes = 1_577_836_800 * 10**9 + np.arange(30 * 24) * DAY // 24
    instruments = tuple(SimpleNamespace(timezone=zone) for zone in zones)
    return SimpleNamespace(head=SimpleNamespace(instruments=instruments), closes=closes)


@pytest.mark.parametrize(
    "moment",
    ["2020-12-17", "2020-12-17T00:00", "20201217", "2020-12-17T11:30", "2020-12-17T16:00Z", None],
)
def test_no_bar_is_trained_on_and_held_out(moment: str | None, tmp_path: Path) -> None:
    """Behind the last close that training may see, and not sooner, lies the first step of the rest."""
    split = split_data(request(test_from=moment), tmp_path)
    train, held_out = make_config(split.train), make_config(split.held_out)
    segments = split.sources[0].open(train.features)
    for n, instrument in enumerate(segments.head.instruments):
        closes = segments.bars_of(n)["close_ts"]
        _, behind = rows_between(closes, None, train.end, instrument.timezone)
        first, _ = rows_between(closes, held_out.start, None, instrument.timezone)
        # The close of the first decision is not paid for: it may be the last that was trained on.
        assert behind - 1 <= first
        assert first - behind <= 0, "bars between the two that nobody uses"
        last = training_of(split.about).last
        assert last is not None
        assert closes[behind - 1] <= last <= closes[first]


def test_a_date_is_held_out_from_its_first_moment(tmp_path: Path) -> None:
    """As the `end` of an environment a date is included; here nothing is trained from then on."""
    split = split_data(request(test_from="2020-12-17"), tmp_path)
    assert split.about["trained_to"] == "2020-12-17T05:00:00+00:00"
    assert split.said == "2020-12-15 to 2020-12-16; held out: from 2020-12-17 on"


def test_exchanges_of_several_zones_are_parted_at_one_moment_for_all() -> None:
    """Midnight in Kolkata is half a day before that in New York: what one learns, the other shows."""
    both = store(KOLKATA, NEW_YORK)
    end, start = _parted("2020-01-20T00:00", both)
    assert (end, start) == ("2020-01-19T18:30:00+00:00", "2020-01-20T05:00:00+00:00")
    assert _parted("2020-01-20T00:00", store(NEW_YORK)) == ("2020-01-20T00:00",) * 2


@pytest.mark.parametrize("zones", [(KOLKATA, NEW_YORK), (NEW_YORK, KOLKATA)])
def test_what_any_instrument_saw_counts_as_trained_on(zones: tuple[str, str]) -> None:
    """In whatever order the instruments stand."""
    config = make_config({"start": "2020-01-05", "end": "2020-01-19"})
    span = span_of(store(*zones), config)
    assert span.first == config.start.start_ns(KOLKATA)  # type: ignore[union-attr]
    assert span.last == config.end.end_ns(NEW_YORK)  # type: ignore[union-attr]


OWN = {
    "instruments": "B,C", "timeframes": "5m", "sources": "new", "data": "d",
    "trained_from": "2020-01-01T00:00:00+00:00", "trained_to": "2020-06-01T00:00:00+00:00",
}  # fmt: skip


def test_a_policy_that_was_begun_with_another_has_seen_what_that_one_saw() -> None:
    before = OWN | {
        "instruments": "A,B", "timeframes": "15m", "sources": "old",
        "trained_from": "2019-01-01T00:00:00+00:00", "trained_to": "2021-01-01T01:00:00+01:00",
    }  # fmt: skip
    merged = together(OWN, before)
    assert merged["instruments"] == "A,B,C"
    assert merged["timeframes"] == "15m,5m"
    assert merged["sources"] == "old; new"
    assert merged["trained_from"] == before["trained_from"]
    assert merged["trained_to"] == "2021-01-01T00:00:00+00:00"
    assert merged["data"] == "d"


@pytest.mark.parametrize("missing", ["instruments", "trained_from", "trained_to"])
def test_what_the_other_does_not_say_is_not_known(missing: str) -> None:
    """A policy that may have seen anything is never said to be new to some bars."""
    said = training_of(together(OWN, {k: v for k, v in OWN.items() if k != missing}))
    assert (said.instruments, said.first, said.last) == (None, None, None)


def test_a_training_goes_on_with_its_own_data_alone(tmp_path: Path) -> None:
    config = make_config({})
    split = split_data(request(), tmp_path)
    segments = split.sources[0].open(config.features)
    head = segments.head
    dearer = msgspec.structs.replace(
        head, instruments=tuple(msgspec.structs.replace(i, lot_size=7) for i in head.instruments)
    )
    span = span_of(segments, config)
    changed: Any = SimpleNamespace(head=dearer)
    same, other = (facts([s], ["SPY"], ["1m"], span) for s in (segments, changed))
    check_same(split.about, same, tmp_path)
    check_same({}, same, tmp_path)  # written before this was told
    with pytest.raises(DataError, match="not those that the training was begun with"):
        check_same(split.about, other, tmp_path)


def test_a_range_of_the_environment_is_said(tmp_path: Path) -> None:
    said = split_data(request(env={"end": "2020-12-16"}), tmp_path).said
    assert said == "2020-12-15 to 2020-12-16; held out: behind 2020-12-16"
    assert split_data(request(test_from="none"), tmp_path).said.endswith("; nothing is held out")


def test_a_moment_that_is_none_is_refused_by_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no date or time") as error:
        split_data(request(test_from="tomorrow"), tmp_path)
    assert error.value.where == "test_from"


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"target_kl": float("inf")}, LearnConfig),
        ({"clip": float("inf")}, LearnConfig),
        ({"meta": {"lr": float("inf")}}, MetaTrainConfig),
    ],
)
def test_what_a_checkpoint_cannot_say_is_no_setting(given: dict[str, Any], kind: Any) -> None:
    """JSON knows no infinity: the checkpoint of a whole training could not be read again."""
    with pytest.raises(ConfigError, match="no finite number"):
        typed("group", given, kind)


def test_seeds_that_generators_cannot_take_are_refused() -> None:
    with pytest.raises(ConfigError, match="a seed of") as error:
        make_agent(request(seed=2**60), resolve_device("cpu"))
    assert error.value.where == "seed"
    make_agent(
        request(seed=2**53, network={"hidden": (1,), "gate_hidden": (1,)}), resolve_device("cpu")
    )


def test_paths_are_found_from_any_folder(tmp_path: Path) -> None:
    whole = rooted(
        {"data": ["a.csv", "/b"], "registry": "r.yaml", "scenario": "x/s.yaml"}, tmp_path
    )
    assert whole == {
        "data": [str(tmp_path / "a.csv"), "/b"], "registry": str(tmp_path / "r.yaml"),
        "scenario": str(tmp_path / "x/s.yaml"),
    }  # fmt: skip
    bundled = {"scenario": "spy-four-sessions", "bar_path": "close"}
    assert rooted(bundled, tmp_path) == bundled
