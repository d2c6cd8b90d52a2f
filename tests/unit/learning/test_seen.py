"""What a policy has seen: by chart and time, never guessed."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from streambot.data.segments import Segments  # noqa: E402
from streambot.domain.replay_settings import parse_moment  # noqa: E402
from streambot.env.passage import Stretch  # noqa: E402
from streambot.learning.seen import behind, seen_of, training_of  # noqa: E402
from tests.three_markets import three_markets  # noqa: E402
from tests.trained import Given  # noqa: E402

pytestmark = pytest.mark.train
ABOUT = {
    "instruments": "AAA, BBB", "trained_from": "2019-04-14T00:00:00Z",
    "trained_to": "2019-05-01T10:00:00Z", "timeframes": "5m,15m",
}  # fmt: skip


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> Segments:
    market: Given = three_markets(tmp_path_factory.mktemp("three"))
    return market.segments


def spans_of(segments: Segments) -> list[Stretch]:
    return [Stretch(n, 30, len(segments.bars_of(n)) - 1) for n in range(3)]


def inside(segments: Segments, n: int, about: dict[str, str] = ABOUT) -> int:
    """Bars behind the first decision that training had, one by one."""
    low, high = (parse_moment(about[k]).start_ns("UTC") for k in ("trained_from", "trained_to"))
    closes = segments.bars_of(n)["close_ts"][31:].tolist()
    return sum(low <= close <= high for close in closes)


def test_bars_are_counted_by_chart_and_time(segments: Segments) -> None:
    seen = seen_of(training_of(ABOUT), segments, spans_of(segments))
    counts = [inside(segments, n) for n in range(3)]
    assert min(counts) > 50
    assert seen.bars == sum(len(segments.bars_of(n)) - 31 for n in range(3))
    assert seen.seen == counts[0] + counts[1]
    assert seen.same_time == counts[2]
    assert seen.by_instrument["AAA"] == counts[0] / (len(segments.bars_of(0)) - 31)
    assert seen.by_instrument["CCC"] == 0.0


def test_the_first_and_the_last_bar_of_training_were_seen(segments: Segments) -> None:
    closes = segments.bars_of(0)["close_ts"]
    texts = [np.datetime64(int(closes[k]), "ns").astype("datetime64[s]") for k in (40, 50)]
    about = ABOUT | {"trained_from": f"{texts[0]}Z", "trained_to": f"{texts[1]}Z"}
    span = [Stretch(0, 30, 60)]
    assert seen_of(training_of(about), segments, span).seen == 11
    start = behind(training_of(about))
    assert start is not None
    assert int(np.searchsorted(closes, start.start_ns("UTC"))) == 51


@pytest.mark.parametrize("missing", ["instruments", "trained_from", "trained_to"])
def test_what_is_not_said_is_not_guessed(missing: str, segments: Segments) -> None:
    for about in ({k: v for k, v in ABOUT.items() if k != missing}, ABOUT | {missing: ""}):
        assert seen_of(training_of(about), segments, spans_of(segments)).seen is None
    assert behind(training_of({})) is None
    assert behind(training_of(ABOUT | {"trained_to": "last summer"})) is None
    assert training_of({}).timeframes == ()
    assert training_of(ABOUT).timeframes == ("5m", "15m")


def test_nothing_seen_is_said_as_nothing(segments: Segments) -> None:
    later = ABOUT | {"trained_from": "2001-01-01", "trained_to": "2002-01-01"}
    seen = seen_of(training_of(later), segments, spans_of(segments))
    assert (seen.seen, seen.same_time) == (0, 0)


def test_an_option_is_seen_through_its_underlying(segments: Segments) -> None:
    """Another instrument on the same chart shows the same prices."""
    head = segments.head
    others = tuple(
        msgspec.structs.replace(i, symbol=f"{i.symbol}_X", underlying=i.symbol)
        for i in head.instruments
    )
    renamed = segments._replace(head=msgspec.structs.replace(head, instruments=others))
    seen = seen_of(training_of(ABOUT), renamed, spans_of(segments))
    assert seen.seen == inside(segments, 0) + inside(segments, 1)
    through = ABOUT | {"instruments": "CCC_X"}
    assert seen_of(training_of(through), renamed, spans_of(segments)).seen == inside(segments, 2)
