"""Every setting of a simulation: its name, its flag, how its text is read and written back.

One text form serves the command line, the environment, `streambot.yaml` and `config show`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any, NamedTuple

from streambot.domain.durations import format_duration, parse_duration, parse_timeframe
from streambot.domain.errors import UsageError
from streambot.domain.kafka_settings import SaslMechanism, Secret, SecurityProtocol, parse_bootstrap
from streambot.domain.replay_settings import parse_bar_path, parse_gaps, parse_moment, parse_speed
from streambot.domain.simulation_config import BrokerChoice, Capital, OnBreach, QuoteSide
from streambot.domain.suggest import did_you_mean
from streambot.domain.yaml_positions import scalar_number

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
_SYMBOL_GLOB = re.compile(r"[A-Za-z0-9*?\[][A-Za-z0-9._&^*?\[\]-]{0,63}\Z")
_MAX_CASH = Decimal(10) ** 12


class Form(Enum):
    """How a setting stands in YAML, and whether its flag repeats."""

    ONE = "one"
    MANY = "many"
    CAPITAL = "capital"


class Setting(NamedTuple):
    """One setting.

    Attributes:
        name: its key in `streambot.yaml`; the environment variable is `STREAMBOT_` + upper case.
        field: its field, or `kafka.field`, of `SimulationConfig`.
        parse: its text to its value; raises `UsageError`.
        show: its value to its text.
        form: one value, a list, or a map.
        in_environment: False where the environment variable means something else already.
        secret: never in a flag or in `streambot.yaml`, shown as `***`.
    """

    name: str
    field: str
    parse: Callable[[str], Any]
    show: Callable[[Any], str] = str
    form: Form = Form.ONE
    in_environment: bool = True
    secret: bool = False

    @property
    def flag(self) -> str:
        """The flag of the command line."""
        return "--" + _FLAGS.get(self.name, self.name.replace("_", "-"))

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"STREAMBOT_{self.name.upper()}"


_FLAGS = {"round_prices": "round", "agents": "agent"}


def parse_text(text: str) -> str:
    """Any printable text of at most 1,000 characters.

    Raises:
        UsageError: empty, overlong or unprintable.
    """
    if not text or len(text) > 1000 or not text.isprintable():
        raise UsageError("empty, longer than 1,000 characters, or not printable")
    return text


def parse_switch(text: str) -> bool:
    """`true` or `false` (also yes/no, on/off, 1/0).

    Raises:
        UsageError: anything else.
    """
    word = text.lower()
    if word in {"true", "yes", "on", "1"}:
        return True
    if word in {"false", "no", "off", "0"}:
        return False
    raise UsageError(f"`{text[:60]}` is neither true nor false")


def parse_name(text: str) -> str:
    """A name that may be part of a topic's name and of a folder's.

    Raises:
        UsageError: other characters than letters, digits, `-` and `_`, or more than 64.
    """
    if not _NAME.match(text):
        raise UsageError(
            f"`{text[:60]}` is no name", hint="use letters, digits, - and _, at most 64"
        )
    return text


def parse_run_name(text: str) -> str:
    """The name of a run: a name that may have single dots inside (`spy.s1`).

    Raises:
        UsageError: other characters, more than 64, or dots elsewhere.
    """
    if len(text) > 64 or not all(_NAME.match(part) for part in text.split(".")):
        raise UsageError(
            f"`{text[:60]}` is no name of a run",
            hint="use letters, digits, -, _ and single dots, at most 64",
        )
    return text


def parse_capital(text: str) -> Capital:
    """`1000000`, or a map `1000000,SPY=50000,NIFTY=200000`.

    Raises:
        UsageError: anything else.
    """
    default = Capital().default
    by_symbol: dict[str, Decimal] = {}
    for part in text.split(","):
        symbol, named, amount = part.strip().rpartition("=")
        if symbol in by_symbol:
            raise UsageError(f"two amounts for `{symbol}`")
        if named:
            by_symbol[_parse_symbol(symbol)] = _parse_amount(amount)
        else:
            default = _parse_amount(amount)
    return Capital(default, by_symbol)


def _parse_amount(text: str) -> Decimal:
    number = scalar_number(text)
    hint = "use an amount like 100000, or SYMBOL=100000"
    if number is None:
        raise UsageError(f"`{text[:60]}` is no amount of money", hint=hint)
    if not 0 < number <= _MAX_CASH or len(Decimal(number).as_tuple().digits) > 24:
        raise UsageError(f"a capital of {text}", hint=f"above 0, at most {_MAX_CASH:,}")
    return Decimal(number)


def _parse_symbol(text: str) -> str:
    if not _SYMBOL_GLOB.match(text):
        raise UsageError(f"`{text[:60]}` is no symbol")
    return text


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = scalar_number(text)
        if not isinstance(number, int):
            raise UsageError(f"`{text[:60]}` is no whole number")
        if not least <= number <= most:
            raise UsageError(f"must be from {least:,} to {most:,}, not {number}")
        return number

    return parse


def _one_of(kind: type[StrEnum]) -> Callable[[str], StrEnum]:
    def parse(text: str) -> StrEnum:
        try:
            return kind(text)
        except ValueError:
            hint = did_you_mean(text, [member.value for member in kind])
            raise UsageError(f"unknown value `{text[:60]}`", hint=hint) from None

    return parse


def _pnl_every(text: str) -> int:
    if text == "bar":
        return 0
    length = parse_duration(text)
    if not length:
        raise UsageError("a cadence of nothing", hint="use a duration such as 15m, or bar")
    return length


def _max_gap(text: str) -> int:
    length = parse_duration(text)
    if not length:
        raise UsageError("no order would ever act", hint="use a duration such as 7d")
    return length


def _answer_timeout(text: str) -> int:
    length = parse_duration(text)
    if not length:
        raise UsageError("no agent could answer", hint="use a duration such as 30s")
    return length


def _show_switch(value: bool) -> str:  # a text form, not an option
    return "true" if value else "false"


_TABLE = (
    Setting("data", "data", parse_text, form=Form.MANY, in_environment=False),
    Setting("scenario", "scenario", parse_text),
    Setting("from_run", "from_run", parse_run_name),
    Setting("from_broker", "from_broker", parse_bootstrap),
    Setting("instruments", "instruments", _parse_symbol, form=Form.MANY),
    Setting("registry", "registry", parse_text),
    Setting("infer_instruments", "infer_instruments", parse_switch, _show_switch),
    Setting("round_prices", "round_prices", parse_switch, _show_switch),
    Setting("speed", "speed", parse_speed),
    Setting("from", "start", parse_moment),
    Setting("to", "end", parse_moment),
    Setting("gaps", "gaps", parse_gaps),
    Setting("bar_path", "bar_path", parse_bar_path),
    Setting("quote_side", "quote_side", _one_of(QuoteSide)),
    Setting("timeframe", "timeframe_ns", parse_timeframe, format_duration),
    Setting("policy", "policy", parse_text),
    Setting("agents", "agents", parse_name, form=Form.MANY),
    Setting("free_run", "free_run", parse_switch, _show_switch),
    Setting("answer_timeout", "answer_timeout_ns", _answer_timeout, format_duration),
    Setting("capital", "capital", parse_capital, form=Form.CAPITAL),
    Setting("lots", "lots", _whole(1, 1_000_000)),
    Setting("max_quantity", "max_quantity", _whole(1, 1_000_000)),
    Setting("max_gap", "max_gap_ns", _max_gap, format_duration),
    Setting("drawdown_limit_bp", "drawdown_limit_bp", _whole(1, 10_000)),
    Setting("on_breach", "on_breach", _one_of(OnBreach)),
    Setting(
        "pnl_every", "pnl_every_ns", _pnl_every, lambda ns: format_duration(ns) if ns else "bar"
    ),
    Setting("alerts", "alerts", parse_switch, _show_switch),
    Setting("seed", "seed", _whole(0, 2**63 - 1)),
    Setting("partitions", "partitions", _whole(1, 256)),
    Setting("broker", "broker", _one_of(BrokerChoice)),
    Setting("bootstrap_servers", "bootstrap_servers", parse_bootstrap),
    Setting("kafka_security_protocol", "kafka.security_protocol", _one_of(SecurityProtocol)),
    Setting("kafka_sasl_mechanism", "kafka.sasl_mechanism", _one_of(SaslMechanism)),
    Setting("kafka_sasl_username", "kafka.sasl_username", parse_text),
    Setting("kafka_sasl_password", "kafka.sasl_password", Secret, secret=True),
    Setting("kafka_ssl_cafile", "kafka.ssl_cafile", parse_text),
    Setting("kafka_ssl_certfile", "kafka.ssl_certfile", parse_text),
    Setting("kafka_ssl_keyfile", "kafka.ssl_keyfile", parse_text),
    Setting("namespace", "namespace", parse_name),
    Setting("run", "run", parse_run_name),
    Setting("runs_dir", "runs_dir", parse_text),
)
SETTINGS: Mapping[str, Setting] = {setting.name: setting for setting in _TABLE}
"""All settings by name, in the order in which `config show` lists them."""
