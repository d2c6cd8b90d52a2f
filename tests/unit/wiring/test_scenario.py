"""A scenario is a layer of settings: it counts without data, and every given setting wins over it."""

import pytest

from streambot.domain.config import SimulationConfig, resolve
from streambot.domain.errors import ConfigError
from streambot.wiring.scenario import scenario_names, with_origins, with_scenario


def chosen(cwd, **flags):
    return with_scenario(resolve(flags, {}, None), cwd)


def test_the_default_scenario_is_one_session_of_spy(tmp_path):
    found = chosen(tmp_path).config
    assert found.instruments == ("SPY", "SPY_OPT")
    assert found.data[0].endswith("spy_1m_2020.parquet")
    assert str(found.start) == str(found.end) == "2020-12-15"


def test_every_bundled_scenario_names_data_that_are_there(tmp_path):
    from pathlib import Path

    names = scenario_names()
    assert "default" in names
    for name in names:
        for path in chosen(tmp_path, scenario=name).config.data:
            assert Path(path).is_file()


def test_a_given_setting_wins_over_the_scenario_and_the_scenario_over_the_default(tmp_path):
    scenario = chosen(tmp_path, scenario="us-stocks-daily")
    assert scenario.config.speed.is_max
    assert scenario.origins["speed"] == "scenario us-stocks-daily"
    mine = chosen(tmp_path, scenario="us-stocks-daily", speed="5x", instruments="IBM")
    assert str(mine.config.speed) == "5x"
    assert mine.config.instruments == ("IBM",)


def test_with_data_there_is_no_scenario(tmp_path):
    given = resolve({"data": "mine.csv"}, {}, None)
    assert with_scenario(given, tmp_path) is given


def test_a_bare_configuration_counts_as_given_where_it_is_not_the_default(tmp_path):
    config = SimulationConfig(lots=3)
    assert with_scenario(with_origins(config), tmp_path).config.lots == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speed: 5x\n", "names no data"),
        ("data: [x.parquet]\nspeeed: 5x\n", "speeed"),
        ("data: [x.parquet]\nkafka_security_protocol: SSL\n", "no part of a scenario"),
        ("data: [x.parquet]\nlots: 50\n", "max_quantity"),
    ],
)
def test_a_wrong_scenario_file_is_named(tmp_path, text, words):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        chosen(tmp_path, scenario="mine.yaml")
    assert words in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_paths_of_a_scenario_start_from_its_own_folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "mine.yaml").write_text("data: [../bars.parquet]\n")
    assert chosen(tmp_path, scenario="deep/mine.yaml").config.data == (
        str(tmp_path / "bars.parquet"),
    )
