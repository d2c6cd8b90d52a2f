"""The registry: what it reads, and that every mistake in it is told with file, line and key."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest

from streambot.domain.errors import ConfigError, UnknownInstrumentError
from streambot.domain.instruments import (
    BachelierPremium,
    Instrument,
    InstrumentType,
    LotRule,
    Series,
    TrailAtr,
    TrailBp,
    Weekday,
)
from streambot.domain.registry import (
    bundled_registry,
    declare_yaml,
    find_registry,
    load_registry,
    read_registry,
    require,
)
from streambot.domain.yaml_positions import safe_load_positions

HEAD = "instruments:\n  ABC:\n    type: STOCK\n    lot_size: 1\n    tick_size: 0.05\n"


def read(text: str) -> dict[str, Instrument]:
    return read_registry(safe_load_positions(text, name="my.yaml"))


def test_bundled_instruments_are_those_of_the_bundled_data_and_the_indian_indices():
    registry = bundled_registry()
    assert set(registry) == {
        "SPY", "SPY_OPT", "AAPL", "FB", "GOOG", "IBM", "MSFT", "EURUSD", "BTCUSD",
        "NIFTY", "BANKNIFTY", "NIFTY_OPT", "BANKNIFTY_OPT",
    }  # fmt: skip
    assert registry["SPY"].tick_size == Decimal("0.0001")
    assert registry["SPY_OPT"].chart == "SPY"
    assert registry["SPY_OPT"].is_option
    assert registry["EURUSD"].money_decimals == 5
    assert registry["BTCUSD"].volume_step == Decimal("1e-8")
    assert registry["NIFTY"].currency == "INR"
    assert all(name == instrument.symbol for name, instrument in registry.items())


def test_nifty_lots_follow_the_expiry_of_the_contract_and_differ_between_series():
    rows = bundled_registry()["NIFTY_OPT"].lot_size
    assert isinstance(rows, tuple)
    # January 2025: a weekly contract has 75, the monthly of the same month still 25.
    assert (
        LotRule(
            lot=75,
            series=Series.WEEKLY,
            from_expiry=dt.date(2025, 1, 2),
            to_expiry=dt.date(2025, 12, 23),
        )
        in rows
    )
    assert (
        LotRule(
            lot=25,
            series=Series.MONTHLY,
            from_expiry=dt.date(2024, 5, 30),
            to_expiry=dt.date(2025, 1, 30),
        )
        in rows
    )


def test_nifty_expiries_move_from_thursday_to_tuesday_in_september_2025():
    expiries = bundled_registry()["NIFTY_OPT"].expiries
    assert expiries is not None
    assert expiries.rules is not None
    ends = {(r.series, r.weekday): (r.from_date, r.to_date) for r in expiries.rules}
    for series in Series:
        assert ends[series, Weekday.THU] == (None, dt.date(2025, 8, 31))
        assert ends[series, Weekday.TUE] == (dt.date(2025, 9, 1), None)


def test_decimals_are_exact_however_they_are_written():
    for text in ("0.05", '"0.05"', "5e-2", "0.050"):
        assert read(HEAD.replace("0.05", text))["ABC"].tick_size == Decimal("0.05")


def test_words_that_yaml_1_1_turns_into_booleans_are_symbols():
    for symbol in ("ON", "NO", "Y", "TRUE", "123"):
        assert list(read(HEAD.replace("ABC", symbol))) == [symbol]


def test_a_trail_and_a_premium_are_recognised_by_their_keys():
    assert read(HEAD + "    trail: {bp: 50}\n")["ABC"].trail == TrailBp(bp=50)
    assert read(HEAD + "    trail: {atr: 2}\n")["ABC"].trail == TrailAtr(atr=2.0)
    assert read(HEAD + "    premium: {k: 0.5, daily_atr: 3.9}\n")[
        "ABC"
    ].premium == BachelierPremium(k=0.5, daily_atr=Decimal("3.9"))


@pytest.mark.parametrize(
    ("change", "line", "key", "says", "hint"),
    [
        (
            ("    lot_size", "    lott_size"),
            4,
            "instruments.ABC.lott_size",
            "unknown key",
            "`lot_size`",
        ),
        (("STOCK", "STOK"), 3, "instruments.ABC.type", "unknown value `STOK`", "`STOCK`"),
        (("STOCK", "stock"), 3, "instruments.ABC.type", "unknown value `stock`", "`STOCK`"),
        (("lot_size: 1", "lot_size: 0"), 4, "instruments.ABC.lot_size", "at least 1", ""),
        (("lot_size: 1", "lot_size: -5"), 4, "instruments.ABC.lot_size", "at least 1", ""),
        (
            ("lot_size: 1", "lot_size: 1.5"),
            4,
            "instruments.ABC.lot_size",
            "whole number or a list",
            "",
        ),
        (("lot_size: 1", "lot_size: 50 lots"), 4, "instruments.ABC.lot_size", "`50 lots`", ""),
        (("lot_size: 1", "lot_size: '1'"), 4, "instruments.ABC.lot_size", "the text '1'", ""),
        (("lot_size: 1", "lot_size: []"), 4, "instruments.ABC.lot_size", "no rows", ""),
        (
            ("lot_size: 1", "lot_size: 99999999999999999999"),
            4,
            "instruments.ABC.lot_size",
            "at most",
            "",
        ),
        (("0.05", "0"), 5, "instruments.ABC.tick_size", "positive", ""),
        (("0.05", "-0.05"), 5, "instruments.ABC.tick_size", "positive", ""),
        (("0.05", ".nan"), 5, "instruments.ABC.tick_size", "a number", ""),
        (("0.05", ".inf"), 5, "instruments.ABC.tick_size", "a number", ""),
        (("0.05", "NaN"), 5, "instruments.ABC.tick_size", "a number", ""),
        (("0.05", "1e999999999"), 5, "instruments.ABC.tick_size", "a number", ""),
        (("0.05", "1e50"), 5, "instruments.ABC.tick_size", "digits", ""),
        (("0.05", "0.000000001"), 5, "instruments.ABC.tick_size", "8 decimals", ""),
        (("0.05", "true"), 5, "instruments.ABC.tick_size", "a number", ""),
        (("0.05", ""), 5, "instruments.ABC.tick_size", "got nothing", ""),
        (("    tick_size: 0.05\n", ""), 2, "instruments.ABC", "`tick_size` is missing", "add"),
        (("  ABC", "  ../ABC"), 2, "instruments.../ABC", "not allowed", ""),
        (("  ABC", '  "A\\nBC"'), 2, "", "unprintable key", ""),
        (("STOCK", "OPTION"), 2, "instruments.ABC", "needs `expiries`", ""),
    ],
)
def test_a_mistake_is_told_at_its_line_and_key(change, line, key, says, hint):
    with pytest.raises(ConfigError) as caught:
        read(HEAD.replace(*change))
    assert caught.value.where.startswith(f"my.yaml:{line}:{key}")
    assert says in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("extra", "key", "says", "hint"),
    [
        ("currency: rupees", "currency", "not allowed", ""),
        ("timezone: Asia/Kolkatta", "timezone", "no such time zone", "Asia/Kolkata"),
        ("timezone: ../../etc/passwd", "timezone", "not allowed", ""),
        ("underlying: ../../etc/passwd", "underlying", "not allowed", ""),
        ("exchange: 'X BOM'", "exchange", "not allowed", ""),
        ("brokerage: {entry: -1}", "brokerage.entry", "negative", ""),
        ("brokerage: {entry: 0.001}", "brokerage.entry", "finer than the money unit", ""),
        ("brokerage: {entri: 1}", "brokerage.entri", "unknown key", "`entry`"),
        ("brokerage: 20", "brokerage", "keys and values", ""),
        ("premium: {model: bachelor}", "premium.model", "unknown `model`", "`bachelier`"),
        ("premium: {model: atr, k: -1}", "premium.k", "more than 0", ""),
        ("premium: {k: .nan}", "premium.k", "a number", ""),
        ("premium: {daily_atr: 0}", "premium.daily_atr", "positive", ""),
        ("trail: {atr: 3, bp: 5}", "trail", "do not go together", ""),
        ("trail: {bp: 20000}", "trail.bp", "at most", ""),
        ("expiries: {expires_after: 0}", "expiries.expires_after", "at least 1", ""),
        ("expiries: {expires_after: 5, dates: [2026-01-01]}", "expiries", "exactly one", ""),
        ("expiries: {dates: [2026-02-30]}", "expiries.dates[0]", "a date", ""),
        (
            "expiries: {rules: [{series: weekly, weekday: THURSDAY}]}",
            "expiries.rules[0].weekday",
            "unknown value",
            "`THU`",
        ),
        ("enforce_trailing_stop: yes", "enforce_trailing_stop", "true or false", ""),
        ("max_lots: 0", "max_lots", "at least 1", ""),
        ("valuation: market", "valuation", "unknown value", "`marked`"),
        ("symbol: OTHER", "symbol", "unknown key", ""),
    ],
)
def test_a_mistake_in_a_further_field_is_told_at_its_key(extra, key, says, hint):
    with pytest.raises(ConfigError) as caught:
        read(f"{HEAD}    {extra}\n")
    assert caught.value.where == f"my.yaml:6:instruments.ABC.{key}"
    assert says in caught.value.message
    assert hint in caught.value.hint


def test_two_lot_sizes_for_one_expiry_are_refused():
    rows = "[{lot: 15, to_expiry: 2025-01-31}, {lot: 30, series: weekly, from_expiry: 2025-01-31}]"
    text = HEAD.replace("STOCK", "OPTION").replace("lot_size: 1", f"lot_size: {rows}")
    with pytest.raises(ConfigError, match="two lot sizes") as caught:
        read(text + "    expiries: {expires_after: 5}\n")
    assert caught.value.where == "my.yaml:4:instruments.ABC.lot_size[1]"


@pytest.mark.parametrize(
    "text", ["", "instruments:\n", "- a\n", "5\n", "instruments: []\n", "instrument: {}\n"]
)
def test_a_file_without_instruments_is_refused(text):
    with pytest.raises(ConfigError):
        read(text)


def test_a_declaration_reads_back_as_what_it_declares():
    registry = bundled_registry()
    assert read(declare_yaml(list(registry.values()))) == registry


def test_a_declaration_can_be_pasted_below_an_existing_head():
    one = Instrument(
        symbol="^NSEI"[1:], type=InstrumentType.STOCK, lot_size=1, tick_size=Decimal("1e-8")
    )
    assert read(HEAD + declare_yaml([one], header=False))["NSEI"] == one


def test_the_registry_is_looked_for_in_the_flag_then_the_folder_then_the_package(tmp_path):
    assert find_registry(None, tmp_path)[0] == "bundled"
    local = tmp_path / "instruments.yaml"
    local.write_text(HEAD)
    assert find_registry(None, tmp_path) == (local, read(HEAD))
    other = tmp_path / "other.yaml"
    other.write_text(HEAD.replace("ABC", "XYZ"))
    assert list(find_registry(other, tmp_path)[1]) == ["XYZ"]
    with pytest.raises(ConfigError, match="does not exist"):
        find_registry(tmp_path / "missing.yaml", tmp_path)


@pytest.mark.parametrize("path", ["/dev/null", "/dev", "/proc/self/mem", "\0"])
def test_what_is_no_readable_regular_file_is_refused(path):
    with pytest.raises(ConfigError):
        load_registry(Path(path))


def test_unknown_symbols_are_all_named_with_the_nearest_known_one():
    registry = bundled_registry()
    assert list(require(registry, ["SPY", "NIFTY"])) == ["SPY", "NIFTY"]
    with pytest.raises(UnknownInstrumentError, match="NIFTYY, ZZZ") as caught:
        require(registry, ["ZZZ", "SPY", "NIFTYY"])
    assert caught.value.symbols == ("NIFTYY", "ZZZ")
    assert "`NIFTY`" in caught.value.hint


def test_a_guessed_instrument_is_declared_with_what_was_assumed() -> None:
    guessed = Instrument(
        symbol="NEW", type=InstrumentType.STOCK, lot_size=1, tick_size=Decimal("0.05")
    )
    text = declare_yaml([guessed], inferred=True)
    assert "currency: USD  # assumed" in text
    assert "timezone: UTC  # assumed" in text
    assert "volume_step: 1" in text
    assert read(text) == {"NEW": guessed}
