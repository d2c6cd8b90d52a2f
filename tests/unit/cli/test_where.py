"""The filter language of `--where`: exact on decimals, helpful on mistakes, never code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streambot.cli.where import MAX_DEPTH, MAX_LENGTH, compile_where
from streambot.domain.errors import UsageError

FILL = {
    "kind": "OrderFilled",
    "instrument": "SPY",
    "side": "long",
    "price": "372.1000",
    "quantity": 2,
    "gap_fill": False,
    "realized_pnl": None,
    "ts": "2020-12-15T14:31:00Z",
    "policy": {"gate": 0.25},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("price > 372", True),
        ("price == 372.1", True),  # exact as a number, not as a text
        ("price < 100", False),  # a text comparison would say True for "372.1" < "400" only
        ("price >= 1000", False),
        ("quantity == 2", True),
        ("quantity != 2", False),
        ("side == long", True),
        ("side == 'long'", True),
        ('side = "short"', False),
        ("side == long and price > 400", False),
        ("side == short or price > 300", True),
        ("not side == short", True),
        ("not (side == long and quantity == 2)", False),
        ("side == short or side == long and quantity == 3", False),  # `and` binds tighter
        ("(side == short or side == long) and quantity == 2", True),
        ("instrument in (SPY, QQQ)", True),
        ("instrument not in (SPY, QQQ)", False),
        ("quantity in (1, 2.0)", True),
        ("gap_fill == false", True),
        ("gap_fill == true", False),
        ("realized_pnl == null", True),
        ("realized_pnl > 0", False),  # null answers no comparison
        ("realized_pnl < 0", False),
        ("realized_pnl != 5", True),
        ("kind ~ filled", True),
        ("ts >= 2020-12-15T14:30", True),
        ("ts < 2020-12-15T14:30", False),
        ("policy.gate > 0.2", True),
        ("policy.gate.deep == null", True),
        ("price>372and_more", False),  # a bare word that is no number compares as a text
    ],
)
def test_meaning(text: str, expected: bool) -> None:
    assert compile_where(text)(FILL) is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name of a field"),
        ("price", "expected a comparison"),
        ("price >", "expected a value"),
        ("price > 3 side", "expected `and`, `or` or the end"),
        ("price > 3 and", "name of a field"),
        ("(price > 3", "expected `)`"),
        ("price in 3", "expected `(`"),
        ("price in (3", "expected `,` or `)`"),
        ("price not 3", "expected `in`"),
        ("price ! 3", "no meaning"),
        ("side == 'long", "no meaning"),
        ("and == 3", "name of a field"),
        ("(" * 200 + "price > 1", "nested deeper"),
        ("not " * 200 + "price > 1", "nested deeper"),
        ("a == 1 or " * 400 + "a == 1", "longer than"),
    ],
)
def test_mistakes_are_explained(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=r"--where") as caught:
        compile_where(text)
    assert message in caught.value.message


def test_an_unknown_field_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="`prise`") as caught:
        compile_where("prise > 3", fields=FILL)
    assert caught.value.hint == "did you mean `price`?"
    with pytest.raises(UsageError) as caught:
        compile_where("zzz > 3", fields=FILL)
    assert "known: gap_fill, instrument" in caught.value.hint


def test_the_mistake_is_pointed_at() -> None:
    with pytest.raises(UsageError) as caught:
        compile_where("price > 3 banana")
    assert caught.value.message.splitlines()[-1].index("^") == 2 + len("price > 3 ")


@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_a_usage_error(text: str) -> None:
    try:
        predicate = compile_where(text)
    except UsageError:
        return
    assert predicate(FILL) in {True, False}


def test_limits_are_what_the_page_says() -> None:
    compile_where(" " * (MAX_LENGTH - 20) + "price > 3")
    compile_where("(" * (MAX_DEPTH - 1) + "price > 3" + ")" * (MAX_DEPTH - 1))
