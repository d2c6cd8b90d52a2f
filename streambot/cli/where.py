"""The filter language of `--where`: comparisons of fields with values, and, or, not.

    expression := term ("or" term)*
    term       := factor ("and" factor)*
    factor     := "not" factor | "(" expression ")" | comparison
    comparison := field operator value | field ["not"] "in" "(" value ("," value)* ")"
    operator   := "==" | "=" | "!=" | "<" | "<=" | ">" | ">=" | "~" (contains)

The left side is a field of the record (`price`, `policy.gate`), the right side a number, a quoted
text, a bare word (`long`, `SPY`, `2020-12-15T14:30`), `true`, `false` or `null`. Numbers are compared
exactly, also with the decimals that records carry as text. A field that a record does not have is
`null`, and `null` answers no comparison but `== null` and `!= …`. Nothing is ever evaluated as code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from streambot.domain.errors import UsageError
from streambot.domain.suggest import did_you_mean

Record = Mapping[str, Any]
Predicate = Callable[[Record], bool]

MAX_LENGTH = 2_000
MAX_DEPTH = 40

_TOKENS = re.compile(
    r"""\s*(?:
        (?P<text>"[^"]*"|'[^']*')
      | (?P<operator><=|>=|==|!=|=|<|>|~)
      | (?P<punctuation>[(),])
      | (?P<word>[^\s()<>=!~,"']+)
    )""",
    re.VERBOSE,
)
_EXAMPLE = "price > 370 and side == long"


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def compile_where(text: str, fields: Collection[str] = ()) -> Predicate:
    """The predicate that `text` describes.

    Args:
        text: the expression.
        fields: top-level fields that records of this stream may have; empty: any.

    Raises:
        UsageError: the expression has a mistake, or names a field that no record has.
    """
    if len(text) > MAX_LENGTH:
        raise UsageError(f"--where is longer than {MAX_LENGTH} characters")
    return _Parser(text, fields).parse()


class _Parser:
    def __init__(self, text: str, fields: Collection[str]) -> None:
        self.text = text
        self.fields = fields
        self.tokens = self._scan()
        self.next = 0
        self.depth = 0

    def _scan(self) -> list[_Token]:
        tokens: list[_Token] = []
        at = 0
        while self.text[at:].strip():
            match = _TOKENS.match(self.text, at)
            if match is None:
                raise self._error("this has no meaning here", at)
            kind = match.lastgroup or ""
            tokens.append(_Token(kind, match[kind], match.start(kind)))
            at = match.end()
        tokens.append(_Token("end", "", len(self.text)))
        return tokens

    def parse(self) -> Predicate:
        predicate = self._expression()
        if self._peek().kind != "end":
            raise self._error("expected `and`, `or` or the end", self._peek().at)
        return predicate

    def _expression(self) -> Predicate:
        terms = [self._term()]
        while self._take_word("or"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else lambda record: any(term(record) for term in terms)

    def _term(self) -> Predicate:
        factors = [self._factor()]
        while self._take_word("and"):
            factors.append(self._factor())
        if len(factors) == 1:
            return factors[0]
        return lambda record: all(factor(record) for factor in factors)

    def _factor(self) -> Predicate:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._error(f"nested deeper than {MAX_DEPTH}", self._peek().at)
        try:
            if self._take_word("not"):
                inner = self._factor()
                return lambda record: not inner(record)
            if self._take("("):
                inner = self._expression()
                if not self._take(")"):
                    raise self._error("expected `)`", self._peek().at)
                return inner
            return self._comparison()
        finally:
            self.depth -= 1

    def _comparison(self) -> Predicate:
        read = self._field()
        if self._take_word("in"):
            return self._membership(read)
        if self._take_word("not"):
            if not self._take_word("in"):
                raise self._error("expected `in`", self._peek().at)
            member = self._membership(read)
            return lambda record: not member(record)
        operator = self._peek()
        if operator.kind != "operator":
            raise self._error("expected a comparison such as `==` or `>`", operator.at)
        self.next += 1
        wanted = self._value()
        holds = _OPERATORS[operator.text]
        return lambda record: holds(read(record), wanted)

    def _membership(self, read: Callable[[Record], Any]) -> Predicate:
        if not self._take("("):
            raise self._error("expected `(` and a list of values", self._peek().at)
        wanted = [self._value()]
        while self._take(","):
            wanted.append(self._value())
        if not self._take(")"):
            raise self._error("expected `,` or `)`", self._peek().at)

        def member(record: Record) -> bool:
            value = read(record)
            return any(_equal(value, one) for one in wanted)

        return member

    def _field(self) -> Callable[[Record], Any]:
        token = self._peek()
        if token.kind != "word" or token.text in {"and", "or", "not", "in"}:
            raise self._error("expected the name of a field", token.at)
        self.next += 1
        first, *rest = token.text.split(".")
        if self.fields and first not in self.fields:
            raise UsageError(
                f"--where: no record of this stream has a field `{first}`",
                hint=did_you_mean(first, sorted(self.fields), show=40),
            )

        def read(record: Record) -> Any:
            value: Any = record.get(first)
            for part in rest:
                value = value.get(part) if isinstance(value, Mapping) else None
            return value

        return read

    def _value(self) -> Any:
        token = self._peek()
        if token.kind == "text":
            self.next += 1
            return token.text[1:-1]
        if token.kind != "word":
            raise self._error("expected a value", token.at)
        self.next += 1
        if token.text in _NAMED:
            return _NAMED[token.text]
        return _number(token.text, token.text)

    def _peek(self) -> _Token:
        return self.tokens[self.next]

    def _take(self, punctuation: str) -> bool:
        token = self._peek()
        found = token.kind == "punctuation" and token.text == punctuation
        self.next += found
        return found

    def _take_word(self, word: str) -> bool:
        token = self._peek()
        found = token.kind == "word" and token.text == word
        self.next += found
        return found

    def _error(self, message: str, at: int) -> UsageError:
        return UsageError(
            f"--where: {message}\n  {self.text}\n  {' ' * at}^", hint=f'--where "{_EXAMPLE}"'
        )


_NAMED = {"true": True, "false": False, "null": None}


def _number(value: Any, otherwise: Any) -> Any:
    """`value` as an exact number where it is one, else `otherwise`."""
    if isinstance(value, bool) or value is None:
        return otherwise
    try:
        number = Decimal(value if isinstance(value, int) else str(value))
    except InvalidOperation:
        return otherwise
    return number if number.is_finite() else otherwise


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, Decimal):
        return bool(_number(value, None) == wanted)
    if wanted is None or isinstance(wanted, bool) or isinstance(value, bool):
        return value is wanted
    return value is not None and str(value) == str(wanted)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def holds(value: Any, wanted: Any) -> bool:
        if isinstance(wanted, Decimal):
            number = _number(value, None)
            return number is not None and compare(number, wanted)
        if value is None or wanted is None or isinstance(value, bool) or isinstance(wanted, bool):
            return False
        return compare(str(value), str(wanted))

    return holds


def _contains(value: Any, wanted: Any) -> bool:
    return value is not None and str(wanted).lower() in str(value).lower()


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": _equal,
    "=": _equal,
    "!=": lambda value, wanted: not _equal(value, wanted),
    "<": _ordered(lambda a, b: a < b),
    "<=": _ordered(lambda a, b: a <= b),
    ">": _ordered(lambda a, b: a > b),
    ">=": _ordered(lambda a, b: a >= b),
    "~": _contains,
}
