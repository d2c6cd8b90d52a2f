"""The configuration: text forms, precedence of the layers, origins, and secrets that never show."""

from __future__ import annotations

import copy
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streambot.domain.config import (
    MAX_SPEED,
    SETTINGS,
    BridgePath,
    BrokerChoice,
    Capital,
    Gaps,
    Moment,
    OhlcPath,
    Secret,
    SecurityProtocol,
    SimulationConfig,
    Speed,
    config_yaml,
    find_config,
    format_duration,
    parse_bar_path,
    parse_bootstrap,
    parse_capital,
    parse_duration,
    parse_gaps,
    parse_moment,
    parse_name,
    parse_speed,
    parse_timeframe,
    resolve,
    shown,
)
from streambot.domain.errors import ConfigError, UsageError
from streambot.domain.yaml_positions import Document, safe_load_positions

SECOND = 10**9
SASL = {
    "STREAMBOT_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "STREAMBOT_KAFKA_SASL_USERNAME": "me",
    "STREAMBOT_KAFKA_SASL_PASSWORD": "hunter2",
}


def file(text: str) -> Document:
    return safe_load_positions(text, name="streambot.yaml")


# --- text forms -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "speed"),
    [("max", MAX_SPEED), ("MAX", MAX_SPEED), ("100x", Speed(100)), ("1x", Speed(1)), ("2", Speed(2)),
     ("0.5x", Speed(1, 2)), (".25x", Speed(1, 4)), ("1.5 X", Speed(3, 2)), ("333.333x", Speed(333333, 1000))],
)  # fmt: skip
def test_a_speed_is_an_exact_ratio(text, speed):
    assert parse_speed(text) == speed
    assert parse_speed(str(speed)) == speed


@pytest.mark.parametrize(
    "text",
    [
        "0x",
        "0",
        "0.0x",
        "-1x",
        "fast",
        "nanx",
        "infx",
        "nan",
        "1e3x",
        "",
        "x",
        "1xx",
        "٣x",
        "9" * 5000,
        "2000000000x",
    ],
)
def test_an_impossible_speed_is_a_usage_error_with_a_hint(text):
    with pytest.raises(UsageError) as caught:
        parse_speed(text)
    assert "max" in caught.value.hint
    assert caught.value.exit_code == 2


@given(st.integers(1, 10**9), st.integers(0, 10**9))
def test_every_speed_reads_back_from_its_own_text(whole, billionths):
    speed = parse_speed(f"{min(whole, 999_999_999)}.{billionths % 10**9:09d}x")
    assert parse_speed(str(speed)) == speed


@pytest.mark.parametrize(
    ("text", "nanos"),
    [
        ("500ms", SECOND // 2),
        ("30s", 30 * SECOND),
        ("15m", 900 * SECOND),
        ("1h30m", 5400 * SECOND),
        ("7d", 7 * 86400 * SECOND),
        ("0s", 0),
    ],
)
def test_durations(text, nanos):
    assert parse_duration(text) == nanos
    assert parse_duration(format_duration(nanos)) == nanos


@pytest.mark.parametrize(
    "text", ["", "5", "m", "5 m", "-5m", "1.5h", "5w", "nan", "9" * 13 + "d", "999999d", "1h" * 6]
)
def test_what_is_no_duration(text):
    with pytest.raises(UsageError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "minutes"), [("1m", 1), ("5m", 5), ("15m", 15), ("1h", 60), ("60m", 60), ("1d", 1440)]
)
def test_timeframes(text, minutes):
    assert parse_timeframe(text) == minutes * 60 * SECOND


@pytest.mark.parametrize("text", ["", "0m", "7m", "2d", "1w", "1M", "1min", "m5", "1.5h", "-5m"])
def test_a_timeframe_divides_a_day(text):
    with pytest.raises(UsageError) as caught:
        parse_timeframe(text)
    assert "15m" in caught.value.hint


@pytest.mark.parametrize(("text", "wall"), [("skip", 0), ("keep", None), ("max:30s", 30 * SECOND)])
def test_gaps(text, wall):
    assert parse_gaps(text) == Gaps(wall)
    assert str(Gaps(wall)) == text


@pytest.mark.parametrize("text", ["", "kep", "max", "max:", "max:0s", "max:x", "30s"])
def test_what_is_no_way_to_treat_gaps(text):
    with pytest.raises(UsageError) as caught:
        parse_gaps(text)
    assert caught.value.hint


def test_bar_paths():
    assert parse_bar_path("ohlc") == OhlcPath()
    assert parse_bar_path("bridge:16") == BridgePath(16)
    for text in ("bridge", "bridge:3", "bridge:5000", "bridge:x", "olhc", ""):
        with pytest.raises(UsageError):
            parse_bar_path(text)


def test_a_date_means_the_day_in_the_zone_of_the_exchange():
    day = parse_moment("2020-12-07")
    assert day.start_ns("UTC") == 1607299200 * SECOND
    assert day.start_ns("America/New_York") == (1607299200 + 5 * 3600) * SECOND
    assert day.end_ns("UTC") - day.start_ns("UTC") == 86400 * SECOND
    # the clocks change that day: it has 23 hours
    spring = parse_moment("2021-03-14")
    assert (
        spring.end_ns("America/New_York") - spring.start_ns("America/New_York")
        == 23 * 3600 * SECOND
    )
    assert parse_moment("20201207") == day


def test_a_time_has_its_own_zone_or_the_exchange_s():
    assert (
        parse_moment("2020-12-07T14:30Z").start_ns("Asia/Kolkata") == (1607299200 + 52200) * SECOND
    )
    assert (
        parse_moment("2020-12-07T09:30").start_ns("America/New_York")
        == (1607299200 + 52200) * SECOND
    )
    exact = parse_moment("2020-12-07T14:30:00.123456Z")
    assert exact.start_ns("UTC") == exact.end_ns("UTC") == (1607299200 + 52200) * SECOND + 123456000


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2020-13-01", "2020-02-30", "07/12/2020", "0001-01-01", "9999-12-31", "nan"],
)
def test_what_is_no_time(text):
    with pytest.raises(UsageError):
        parse_moment(text)


def test_capital_is_one_amount_or_a_map():
    capital = parse_capital("1e6,SPY=50_000,NIFTY=0.01")
    assert [capital.of(s) for s in ("SPY", "NIFTY", "IBM")] == [
        Decimal(50000),
        Decimal("0.01"),
        Decimal(10**6),
    ]
    assert parse_capital(str(capital)) == capital
    for text in (
        "",
        "0",
        "-5",
        "nan",
        "inf",
        "SPY",
        "SPY=",
        "1e99",
        "SPY=1,SPY=2",
        "1,2,x=3=",
        "../x=1",
    ):
        with pytest.raises(UsageError):
            parse_capital(text)


def test_names_become_topics_and_folders_so_they_are_plain():
    assert parse_name("run-1_a") == "run-1_a"
    for text in ("", "..", "../x", "a/b", "a.b", "-x", "a b", "ä", "x" * 65, "a\n"):
        with pytest.raises(UsageError):
            parse_name(text)


def test_bootstrap_servers():
    assert parse_bootstrap("a:9092, [::1]:9093") == "a:9092,[::1]:9093"
    for text in ("", "a", "a:", ":9", "a:0", "a:99999", "a:9x", "http://a:1", "me@a:1", "a:1,"):
        with pytest.raises(UsageError):
            parse_bootstrap(text)


# --- layers ---------------------------------------------------------------------------------------


def test_without_anything_all_is_default():
    config, origins = resolve({}, {})
    assert config == SimulationConfig()
    assert set(origins) == set(SETTINGS)
    assert set(origins.values()) == {"default"}


def test_flag_wins_over_environment_over_file_over_default():
    yaml = file("# mine\nspeed: 3x\nseed: 3\nlots: 3\n")
    environment = {"STREAMBOT_SPEED": "2x", "STREAMBOT_SEED": "2", "PATH": "/bin"}
    config, origins = resolve({"speed": "1x", "seed": None, "instruments": ()}, environment, yaml)
    assert (config.speed, config.seed, config.lots, config.partitions) == (Speed(1), 2, 3, 4)
    assert origins["speed"] == "--speed"
    assert origins["seed"] == "$STREAMBOT_SEED"
    assert origins["lots"] == "streambot.yaml:4"
    assert origins["partitions"] == "default"


def test_every_layer_takes_the_same_text():
    text = {
        "instruments": "SPY,N*",
        "capital": "10,SPY=5",
        "pnl_every": "bar",
        "from": "2020-12-07",
        "infer_instruments": "true",
    }
    by_flag = resolve(text, {}).config
    by_environment = resolve({}, {f"STREAMBOT_{k.upper()}": v for k, v in text.items()}).config
    yaml = "instruments: [SPY, N*]\ncapital: {default: 10, SPY: 5}\npnl_every: bar\nfrom: 2020-12-07\ninfer_instruments: true\n"
    assert by_flag == by_environment == resolve({}, {}, file(yaml)).config
    assert by_flag.instruments == ("SPY", "N*")
    assert by_flag.capital == Capital(Decimal(10), {"SPY": Decimal(5)})
    assert by_flag.pnl_every_ns == 0
    assert by_flag.start == Moment("2020-12-07")


def test_typed_values_pass_as_flags():
    config, _ = resolve(
        {
            "speed": MAX_SPEED,
            "seed": 7,
            "infer_instruments": True,
            "capital": ["5", "SPY=6"],
            "broker": BrokerChoice.EMBEDDED,
        },
        {},
    )
    assert (config.speed, config.seed, config.infer_instruments) == (MAX_SPEED, 7, True)
    assert config.capital.of("SPY") == 6
    assert config.broker is BrokerChoice.EMBEDDED


def test_a_mistake_belongs_to_its_layer():
    with pytest.raises(UsageError) as flag:
        resolve({"speed": "fast"}, {})
    assert flag.value.where == "--speed"
    with pytest.raises(ConfigError) as environment:
        resolve({}, {"STREAMBOT_SPEED": "fast"})
    assert environment.value.where == "$STREAMBOT_SPEED"
    with pytest.raises(ConfigError) as yaml:
        resolve({}, {}, file("seed: 1\nspeed: fast\n"))
    assert yaml.value.where == "streambot.yaml:2:speed"
    for error in (flag.value, environment.value, yaml.value):
        assert "`fast` is no speed" in error.message
        assert "max" in error.hint


def test_a_mistake_that_a_higher_layer_hides_is_still_told():
    with pytest.raises(ConfigError):
        resolve({"speed": "1x"}, {}, file("speed: fast\n"))


def test_unknown_keys_and_variables_get_a_did_you_mean():
    with pytest.raises(ConfigError) as yaml:
        resolve({}, {}, file("a: 1\nspede: 5\n".replace("a: 1\n", "")))
    assert (yaml.value.where, yaml.value.hint) == (
        "streambot.yaml:1:spede",
        "did you mean `speed`?",
    )
    with pytest.raises(ConfigError) as variable:
        resolve({}, {"STREAMBOT_SEDE": "5"})
    assert "STREAMBOT_SEED" in variable.value.hint
    with pytest.raises(UsageError):
        resolve({"sped": "1x"}, {})


def test_the_tests_own_variables_are_no_settings():
    others = ("DATA", "VECTORS", "KERNEL_CACHE", "REQUIRE_ALL", "TEST_SEED", "HOMEPAGE")
    assert (
        resolve({}, {f"STREAMBOT_{name}": "/nowhere" for name in others}).config
        == SimulationConfig()
    )


@pytest.mark.parametrize(
    ("flags", "where"),
    [({"lots": "11"}, "--lots"), ({"from": "2020-12-08", "to": "2020-12-07"}, "--to"),
     ({"broker": "embedded", "bootstrap_servers": "a:1"}, "--broker"), ({"seed": "-1"}, "--seed"),
     ({"drawdown_limit_bp": "nan"}, "--drawdown-limit-bp"), ({"drawdown_limit_bp": "-5"}, "--drawdown-limit-bp"),
     ({"round_prices": "maybe"}, "--round"), ({"max_gap": "0s"}, "--max-gap"), ({"run": "../../etc"}, "--run")],
)  # fmt: skip
def test_settings_that_make_no_sense(flags, where):
    with pytest.raises(UsageError) as caught:
        resolve(flags, {})
    assert caught.value.where == where


def test_the_written_configuration_gives_the_same_configuration_again():
    flags = {"speed": "0.5x", "instruments": "SPY,N*", "data": ["a b.csv", 'c"d.csv'], "capital": "1e6,SPY=5", "timeframe": "5m",
             "gaps": "max:30s", "bar_path": "bridge:9", "run": "null", "policy": "my.py:Cls"}  # fmt: skip
    resolved = resolve(flags, SASL)
    text = config_yaml(resolved)
    assert "hunter2" not in text
    password = {"STREAMBOT_KAFKA_SASL_PASSWORD": "hunter2"}
    assert resolve({}, password, file(text)).config == resolved.config


def test_a_missing_configuration_file_is_fine_unless_it_was_asked_for(tmp_path):
    assert find_config(None, tmp_path) is None
    with pytest.raises(ConfigError):
        find_config(tmp_path / "streambot.yaml", tmp_path)
    (tmp_path / "streambot.yaml").write_text("seed: 5\n")
    assert resolve({}, {}, find_config(None, tmp_path)).config.seed == 5
    assert resolve({}, {}, file("# nothing\n")).config == SimulationConfig()


# --- secrets --------------------------------------------------------------------------------------


def test_a_secret_never_shows(tmp_path):
    resolved = resolve({}, SASL)
    secret = resolved.config.kafka.sasl_password
    assert secret is not None
    assert secret.reveal() == "hunter2"
    assert resolved.config.kafka.security_protocol is SecurityProtocol.SASL_SSL
    assert shown(resolved.config)["kafka_sasl_password"] == "***"  # noqa: S105
    for text in (
        repr(resolved),
        str(secret),
        f"{secret}",
        f"{secret!r:>5}",
        config_yaml(resolved),
        repr(shown(resolved.config)),
    ):
        assert "hunter2" not in text
    with pytest.raises(TypeError):
        msgspec.json.encode(resolved.config)
    with pytest.raises(TypeError):
        secret.__reduce_ex__(4)  # how any serializer of Python objects would begin
    with pytest.raises(TypeError):
        copy.deepcopy(secret)


def test_a_password_comes_from_the_environment_or_a_file_only(tmp_path):
    path = tmp_path / "password"
    path.write_text("s3cret\n")
    partial = {k: v for k, v in SASL.items() if not k.endswith("PASSWORD")}
    by_variable = resolve({}, {**partial, "STREAMBOT_KAFKA_SASL_PASSWORD_FILE": str(path)})
    by_file = resolve({}, partial, file(f"kafka_sasl_password_file: {path}\n"))
    assert by_variable.config == by_file.config
    assert by_file.config.kafka.sasl_password == Secret("s3cret")
    assert by_file.origins["kafka_sasl_password"] == "streambot.yaml:1"  # noqa: S105
    with pytest.raises(ConfigError, match="secret"):
        resolve({}, partial, file("kafka_sasl_password: s3cret\n"))
    with pytest.raises(UsageError):
        resolve({"kafka_sasl_password": "s3cret"}, partial)
    for missing in (tmp_path / "none", tmp_path, "/dev/zero"):
        with pytest.raises(ConfigError) as caught:
            resolve({}, {**partial, "STREAMBOT_KAFKA_SASL_PASSWORD_FILE": str(missing)})
        assert caught.value.where == "$STREAMBOT_KAFKA_SASL_PASSWORD_FILE"


def test_security_settings_that_would_silently_do_nothing_are_refused():
    with pytest.raises(ConfigError, match="needs"):
        resolve({}, {"STREAMBOT_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"})
    with pytest.raises(ConfigError, match="would not be used") as caught:
        resolve({}, {"STREAMBOT_KAFKA_SASL_PASSWORD": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_control_characters_are_never_echoed():
    for text in ("\x1b[2J", "fast\x07", "a\u202eb"):
        with pytest.raises(UsageError) as caught:
            resolve({"speed": text}, {})
        assert text not in str(caught.value)
    assert resolve(
        {}, {**SASL, "STREAMBOT_KAFKA_SASL_PASSWORD": " a\tb "}
    ).config.kafka.sasl_password == Secret(" a\tb ")
