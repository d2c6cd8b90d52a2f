"""Which instruments are traded and where their bars are; nothing is guessed in silence."""

from decimal import Decimal

import pytest

from streambot.domain.config import SimulationConfig
from streambot.domain.errors import ConfigError, DataError, UnknownInstrumentError
from streambot.domain.registry import bundled_registry, declare_yaml
from streambot.wiring.feeds import find_feeds
from tests.integration.simulate.bars import REGISTRY, write_bars


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "instruments.yaml").write_text(REGISTRY)
    write_bars(tmp_path / "bars.parquet", "AAA BBB CCC", bars=20)
    return tmp_path


def symbols(folder, *asked: str, data: str = "bars.parquet", **more) -> list[str]:
    config = SimulationConfig(data=(data,), instruments=asked, **more)
    return [feed.instrument.symbol for feed in find_feeds(config, folder).feeds]


def test_without_names_every_chart_is_traded_and_no_option(folder):
    assert symbols(folder) == ["AAA", "BBB", "CCC"]


def test_names_and_globs_choose_options_too(folder):
    assert symbols(folder, "AAA*") == ["AAA", "AAA_OPT"]
    assert symbols(folder, "CCC", "AAA_OPT", "CCC") == ["AAA_OPT", "CCC"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [("AAB", "did you mean `AAA`"), ("Q*", "matches `Q*`"), ("DDD", "no bars of DDD")],
)
def test_an_instrument_that_is_not_there_is_an_error_with_a_hint(folder, asked, words):
    with pytest.raises(ConfigError) as caught:
        symbols(folder, asked)
    assert words in str(caught.value)


def test_a_folder_stands_for_its_files(folder):
    inner = folder / "bars"
    inner.mkdir()
    write_bars(inner / "one.parquet", "AAA", bars=5)
    write_bars(inner / "two.parquet", "BBB", bars=5)
    (inner / "notes.md").write_text("no bars")
    assert symbols(folder, data="bars") == ["AAA", "BBB"]


def test_two_files_with_one_symbol_are_refused(folder):
    inner = folder / "bars"
    inner.mkdir()
    write_bars(inner / "one.parquet", "AAA", bars=5)
    write_bars(inner / "two.parquet", "AAA BBB", bars=5)
    with pytest.raises(DataError, match="has bars of AAA"):
        symbols(folder, data="bars")


def test_an_empty_folder_is_refused(folder):
    (folder / "bars").mkdir()
    with pytest.raises(DataError, match="no bar files"):
        symbols(folder, data="bars")


def test_a_file_of_one_instrument_is_named_by_itself(folder):
    (folder / "BBB.csv").write_text(
        "time,open,high,low,close\n2020-12-01T14:30Z,1,2,1,2\n2020-12-01T14:31Z,2,2,1,1\n"
    )
    assert symbols(folder, data="BBB.csv") == ["BBB"]


def test_an_unknown_symbol_stops_with_its_declaration_or_goes_on_and_says_so(folder):
    (folder / "mine.csv").write_text(
        "time,open,high,low,close,volume\n"
        "2020-12-01T14:30Z,1.25,2.5,1,2,0.5\n2020-12-01T14:31Z,2,2.25,1,1,1.5\n"
    )
    with pytest.raises(UnknownInstrumentError) as caught:
        symbols(folder, data="mine.csv")
    assert caught.value.symbols == ("mine",)
    assert "tick_size: 0.25" in caught.value.suggestion
    assert "volume_step: 0.1" in caught.value.suggestion
    config = SimulationConfig(data=("mine.csv",), infer_instruments=True)
    found = find_feeds(config, folder)
    [feed] = found.feeds
    assert (feed.instrument.tick_size, feed.instrument.lot_size) == (Decimal("0.25"), 1)
    [warning] = found.warnings
    assert "assumed" in warning
    assert "mine" in warning


def test_a_file_with_the_suggestion_is_all_that_the_data_need(folder):
    """It replaces the bundled registry: what that one had of the data is in it, as it was."""
    rows = "".join(
        f"{symbol},2020-12-01T14:3{minute}Z,1,2,1,1,1\n"
        for minute in range(2) for symbol in ("mine", "NIFTY")
    )  # fmt: skip
    (folder / "two.csv").write_text("symbol,time,open,high,low,close,volume\n" + rows)
    (folder / "instruments.yaml").unlink()
    config = SimulationConfig(data=("two.csv",))
    with pytest.raises(UnknownInstrumentError) as caught:
        find_feeds(config, folder)
    assert caught.value.symbols == ("mine",)
    (folder / "instruments.yaml").write_text(caught.value.suggestion)
    found = {feed.instrument.symbol: feed.instrument for feed in find_feeds(config, folder).feeds}
    assert set(found) == {"mine", "NIFTY"}
    assert found["NIFTY"] == bundled_registry()["NIFTY"]


def test_a_suggestion_for_a_file_that_is_there_has_only_what_it_lacks(folder):
    (folder / "instruments.yaml").write_text(declare_yaml([bundled_registry()["NIFTY"]]))
    (folder / "two.csv").write_text(
        "symbol,time,open,high,low,close,volume\nmine,2020-12-01T14:30Z,1,2,1,1,1\n"
        "NIFTY,2020-12-01T14:30Z,1,2,1,1,1\n"
    )
    with pytest.raises(UnknownInstrumentError) as caught:
        find_feeds(SimulationConfig(data=("two.csv",)), folder)
    assert "mine:" in caught.value.suggestion
    assert "NIFTY" not in caught.value.suggestion


def test_what_is_assumed_of_many_alike_is_one_line(folder):
    """Every symbol is counted, and one whose steps differ has a line of its own."""
    for number in range(9):
        step = "0.5" if number == 4 else "0.25"
        (folder / f"m{number}.csv").write_text(
            "time,open,high,low,close,volume\n"
            f"2020-12-01T14:30Z,1,2,1,1,1\n2020-12-01T14:31Z,2,2,1,{1 + float(step)},1\n"
        )
    data = tuple(f"m{number}.csv" for number in range(9))
    found = find_feeds(SimulationConfig(data=data, infer_instruments=True), folder)
    alike, other = sorted(found.warnings, key=len, reverse=True)
    assert alike.startswith(
        "m0, m1, m2, m3, m5, m6 and 2 more are in no registry: traded as a STOCK"
    )
    assert "tick size 0.25" in alike
    assert other.startswith("m4 is in no registry")
    assert "tick size 0.5" in other
