"""Settings of an environment as people write them: `reward="pnl"`, `max_gap="7d"`, `end="2020-12-16"`.

Everything that reads as in `streambot.yaml` is read by the same table (`domain.config.SETTINGS`).
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from streambot.domain.config import SETTINGS
from streambot.domain.durations import parse_timeframe
from streambot.domain.errors import ConfigError, UsageError
from streambot.domain.replay_settings import parse_moment
from streambot.domain.suggest import did_you_mean
from streambot.env.config import ActionLayout, CoreReward, EnvConfig, RewardConfig
from streambot.market.feature_config import FeatureConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from enum import StrEnum

FEATURES = tuple(FeatureConfig.__struct_fields__)
REWARDS = tuple(RewardConfig.__struct_fields__)
_OWN = (
    "capital",
    "max_quantity",
    "actions",
    "window",
    "episode_bars",
    "lookback",
    "start",
    "end",
    "drawdown_limit_bp",
    "max_gap",
    "reward",
    "features",
)
NAMES = (*_OWN, *FEATURES)
"""Every setting of an environment; those of `FeatureConfig` may be given by themselves."""
_LISTS = ("regime_windows", "timeframes")
_MOST_CASH = Decimal(10) ** 12
_EXPECTED = re.compile(
    r"Expected (?P<kind>\w+)(?: \| null)?(?: (?P<bound>[<>]=?) (?P<limit>[-+.e\d]+))?"
    r"(?:, got (?P<got>[\w.]+))?\Z"
)
_KINDS = {
    "int": "a whole number", "float": "a number", "str": "text", "bool": "true or false",
    "null": "nothing", "array": "a list", "object": "a mapping", "decimal": "an amount",
}  # fmt: skip
_BOUNDS = {">=": "at least", ">": "above", "<=": "at most", "<": "below"}
_PLACE = re.compile(r" - at `\$\.?(?P<where>[^`]*)`\Z")


def make_config(settings: Mapping[str, Any]) -> EnvConfig:
    """The settings, typed and checked.

    Args:
        settings: by name (`NAMES`). `reward` is the name of a core reward, or a mapping with `core`
            and coefficients; `timeframes` are durations; `start` and `end` are times such as
            `2020-12-15T10:30` in each instrument's zone; `max_gap` is a duration.

    Raises:
        ConfigError: an unknown setting, or a value that it cannot have.
    """
    settings = {name: _own(value) for name, value in settings.items()}
    fields: dict[str, Any] = {}
    features = dict(_mapping("features", settings.get("features", {})))
    for name, value in settings.items():
        if name in FEATURES:
            features[name] = value
        elif name == "reward":
            given = {"core": value} if isinstance(value, str) else _mapping("reward", value)
            fields["reward"] = _known("reward", given, REWARDS)
        elif name != "features":
            _known("", {name: value}, NAMES)
            field, read = _read(name, value)
            fields[field] = read
    for name in _LISTS:
        if name in features:
            features[name] = [_timeframe(name, item) for item in _listed(name, features[name])]
    fields["features"] = _known("features", features, FEATURES)
    _chosen("reward.core", fields.get("reward", {}).get("core"), CoreReward)
    _chosen("actions", fields.get("actions"), ActionLayout)
    try:
        return msgspec.convert(fields, EnvConfig)
    except msgspec.ValidationError as error:
        raise _wrong(error) from error


def _own(value: object) -> object:
    """Numbers of numpy as Python's own; people have them at hand."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return {k: _own(v) for k, v in value.items()} if isinstance(value, dict) else value


def _wrong(error: msgspec.ValidationError) -> ConfigError:
    """What is wrong, and where, without the words of a decoder."""
    text = str(error)
    found = _PLACE.search(text)
    where = "" if found is None else found["where"]
    for ours, theirs in (("max_gap", "max_gap_ns"), ("", "features.")):
        where = where.replace(theirs, ours)
    said = _PLACE.sub("", text).replace("`", "")
    wanted = _EXPECTED.match(said)
    if wanted is not None:
        said = f"must be {_KINDS.get(wanted['kind'], wanted['kind'])}"
        if wanted["bound"]:
            said += f", {_BOUNDS[wanted['bound']]} {float(wanted['limit']):,g}"
        if wanted["got"]:
            said += f"; this is {_KINDS.get(wanted['got'], wanted['got'])}"
    where = "" if where in {"features", "reward"} else where
    return ConfigError(said, where=where or "settings of the environment")


def _known(group: str, given: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """What was given, if all of it has a name that is known."""
    for name in given:
        if name not in names:
            what = f"`{group}` has" if group else "an environment has"
            hint = did_you_mean(name, names)
            if not group and name in REWARDS:
                hint = f'it belongs to the reward: reward={{"{name}": ...}}'
            raise ConfigError(f"{what} no setting `{name}`", hint=hint)
    return dict(given)


def _chosen(name: str, value: object, kind: type[StrEnum]) -> None:
    choices = [str(choice) for choice in kind]
    if value is not None and value not in choices:
        raise ConfigError(
            f"there is no `{value}`", where=name, hint=did_you_mean(str(value), choices)
        )


def _read(name: str, value: object) -> tuple[str, object]:
    if value is None and name != "capital":
        return _field(name), None
    if name in {"start", "end"}:
        moment = _said(name, parse_moment, value)
        return name, msgspec.to_builtins(moment)
    if name == "max_gap" and not isinstance(value, int):
        return "max_gap_ns", _said(name, SETTINGS["max_gap"].parse, value)
    if name == "capital":
        return name, _said(name, _amount, value)
    return _field(name), value


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise UsageError(f"`{text[:60]}` is no amount of money") from None
    if not amount.is_finite() or not 0 < amount <= _MOST_CASH:
        raise UsageError(f"a capital of {text[:60]}", hint=f"above 0, at most {_MOST_CASH:,}")
    return amount


def _field(name: str) -> str:
    return "max_gap_ns" if name == "max_gap" else name


def _said(name: str, parse: Any, value: object) -> object:  # noqa: ANN401  # any parser of texts
    try:
        return parse(str(value))
    except UsageError as error:
        raise ConfigError(error.message, where=name, hint=error.hint) from error


def _timeframe(name: str, item: object) -> object:
    is_text = name == "timeframes" and isinstance(item, str)
    return _said(name, parse_timeframe, item) if is_text else item


def _listed(name: str, value: object) -> list[Any]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"a list, not {value!r}", where=name)
    return list(value)


def _mapping(name: str, value: object) -> Mapping[str, Any]:
    plain = msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else value
    if not isinstance(plain, dict):
        raise ConfigError(f"a mapping of settings, not {value!r}", where=name)
    return plain
