"""Which value a setting has, and who said so: flag > environment > `streambot.yaml` > default.

A mistake on the command line is a `UsageError`; in the environment or in the file it is a
`ConfigError` that names the variable, or file, line and key.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from streambot.domain.errors import ConfigError, StreambotError, UsageError
from streambot.domain.kafka_settings import SHOWN, KafkaSecurity, Secret
from streambot.domain.setting_table import SETTINGS, Form, Setting
from streambot.domain.simulation_config import SimulationConfig
from streambot.domain.suggest import did_you_mean, nearest
from streambot.domain.yaml_positions import (
    Document,
    Node,
    Scalar,
    read_bounded,
    safe_load_positions,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG_FILE = "streambot.yaml"
DEFAULT = "default"
_PREFIX = "STREAMBOT_"
_PASSWORD = "kafka_sasl_password"  # noqa: S105  # the name of a setting
_PASSWORD_FILE = "kafka_sasl_password_file"  # noqa: S105
# What compiled code and the tests read themselves.
_FOREIGN = frozenset({"DATA", "VECTORS", "KERNEL_CACHE", "REQUIRE_ALL", "TEST_SEED"})
_TYPO = 0.75  # likeness from which on an unknown variable is a mistyped setting


class Resolved(NamedTuple):
    """The configuration, and for every setting by name who gave its value.

    An origin is `--speed`, `$STREAMBOT_SPEED`, `streambot.yaml:3` or `default`.
    """

    config: SimulationConfig
    origins: dict[str, str]


class _Given(NamedTuple):
    value: object
    origin: str
    failure: StreambotError
    """An error of the layer, without a message: what a conflict found later is raised as."""


def find_config(explicit: Path | None, cwd: Path) -> Document | None:
    """The parsed configuration file: `explicit`, else `streambot.yaml` in `cwd`, else None.

    Raises:
        ConfigError: `explicit` is missing, or the file is no YAML.
    """
    if explicit is None and not (cwd / CONFIG_FILE).exists():
        return None
    path = explicit or cwd / CONFIG_FILE
    return safe_load_positions(path, name=str(path) if explicit else CONFIG_FILE)


def resolve(
    flags: Mapping[str, object], environment: Mapping[str, str], file: Document | None = None
) -> Resolved:
    """Put the layers together.

    Args:
        flags: settings by name (`SETTINGS`; `from` and `to` for the span): text, a list of texts, a
            bool or number, or a value of the setting's own type. None and () mean: not given.
        environment: the process environment; only `STREAMBOT_*` is looked at.
        file: the parsed `streambot.yaml`, see `find_config`.

    Raises:
        UsageError: a flag makes no sense.
        ConfigError: a variable or a key makes no sense, or is unknown.
    """
    given = {**_from_file(file), **_from_environment(environment), **_from_flags(flags)}
    values: dict[str, Any] = {}
    kafka: dict[str, Any] = {}
    for name, found in given.items():
        field = SETTINGS[name].field
        if field.startswith("kafka."):
            kafka[field.removeprefix("kafka.")] = found.value
        else:
            values[field] = found.value
    try:
        config = SimulationConfig(**values, kafka=KafkaSecurity(**kafka))
    except ValueError as error:
        raise _conflict(str(error), given) from error
    origins = {name: given[name].origin if name in given else DEFAULT for name in SETTINGS}
    return Resolved(config, origins)


def shown(config: SimulationConfig) -> dict[str, str]:
    """Every setting by name as text, secrets as `***`; settings without a value are empty."""
    return {name: _text(setting, _value(config, setting)) for name, setting in SETTINGS.items()}


def config_yaml(resolved: Resolved) -> str:
    """A `streambot.yaml` that gives the same configuration again (secrets are not in it)."""
    lines = ["# The settings of this run and where each came from."]
    for name, setting in SETTINGS.items():
        value = _value(resolved.config, setting)
        if value is None or value == () or setting.secret:
            continue
        if setting.form is Form.MANY:
            text = "[" + ", ".join(_quoted(setting.show(item)) for item in value) + "]"
        else:
            text = _quoted(_text(setting, value))
        lines.append(f"{name}: {text}  # {resolved.origins[name]}")
    return "\n".join(lines) + "\n"


def _from_flags(flags: Mapping[str, object]) -> dict[str, _Given]:
    given: dict[str, _Given] = {}
    for name, value in flags.items():
        if value is None or value in ((), []):
            continue
        setting = SETTINGS.get(name)
        if setting is None or setting.secret:
            raise UsageError(f"no flag sets `{name}`", hint=did_you_mean(name, SETTINGS))
        failure = UsageError("", where=setting.flag)
        given[name] = _Given(_read(setting, value, failure), setting.flag, failure)
    return given


def _from_environment(environment: Mapping[str, str]) -> dict[str, _Given]:
    by_variable = {s.variable: s for s in SETTINGS.values() if s.in_environment}
    given: dict[str, _Given] = {}
    for variable in sorted(environment):
        name = variable.removeprefix(_PREFIX)
        if name == variable or name in _FOREIGN:
            continue
        failure = ConfigError("", where=f"${variable}")
        text = environment[variable]
        setting = by_variable.get(variable)
        if variable == _PREFIX + _PASSWORD_FILE.upper():
            secret = Secret(_password(text, failure))
            given.setdefault(_PASSWORD, _Given(secret, failure.where, failure))
        elif setting is not None:
            value = _read(setting, text, failure)
            if setting.name != _PASSWORD or _PASSWORD not in given:
                given[setting.name] = _Given(value, failure.where, failure)
        else:
            # Compared without the prefix, which would make everything look alike.
            best = nearest(name, (s.name.upper() for s in by_variable.values()), likeness=_TYPO)
            if best is not None:  # what is like nothing known belongs to somebody else
                raise _filled(
                    failure, "no setting has this name", f"did you mean ${_PREFIX}{best}?"
                )
    return given


def _from_file(file: Document | None) -> dict[str, _Given]:
    if file is None or (isinstance(file.root.value, Scalar) and file.root.value.is_null):
        return {}
    if not isinstance(file.root.value, dict):
        raise file.error("expected settings, one `name: value` a line")
    given: dict[str, _Given] = {}
    for key, node in file.root.value.items():
        origin = f"{file.name}:{node.line}"
        failure = ConfigError("", where=file.where(key))
        if key == _PASSWORD_FILE:
            text = _texts(node, failure)
            given[_PASSWORD] = _Given(Secret(_password(str(text), failure)), origin, failure)
            continue
        setting = SETTINGS.get(key)
        if setting is None:
            raise file.error(f"unknown key `{key}`", key, hint=did_you_mean(key, SETTINGS))
        if setting.secret:
            raise file.error(
                "a secret does not belong into this file", key,
                hint=f"set ${setting.variable}, or `{key}_file: PATH`",
            )  # fmt: skip
        if isinstance(node.value, Scalar) and node.value.is_null:
            continue
        raw = (
            _capital_text(node, failure) if setting.form is Form.CAPITAL else _texts(node, failure)
        )
        given[key] = _Given(_read(setting, raw, failure), origin, failure)
    return given


def _read(setting: Setting, raw: object, failure: StreambotError) -> object:
    """The value of a setting from its text, texts, or own type."""
    try:
        if setting.form is Form.MANY:
            texts = raw.split(",") if isinstance(raw, str) else raw
            if not isinstance(texts, (list, tuple)):
                raise UsageError("expected a list")  # noqa: TRY301  # told like any other mistake
            return tuple(_parse(setting, str(text)) for text in texts)
        if isinstance(raw, (list, tuple)):
            if setting.form is not Form.CAPITAL:
                raise UsageError("expected one value, got a list")  # noqa: TRY301
            raw = ",".join(str(part) for part in raw)
        if isinstance(raw, (bool, int, float, Decimal, str, Path)):
            return _parse(setting, str(raw))
    except UsageError as error:
        raise _filled(failure, error.message, error.hint) from error
    return raw


def _parse(setting: Setting, text: str) -> object:
    if not text.isprintable() and not setting.secret:  # it would be echoed by the message
        raise UsageError("the text holds a character that cannot be printed")
    return setting.parse(text if setting.secret else text.strip())


def _texts(node: Node, failure: StreambotError) -> str | list[str]:
    if isinstance(node.value, Scalar):
        return node.value.text
    if isinstance(node.value, list):
        texts = [item.value.text for item in node.value if isinstance(item.value, Scalar)]
        if len(texts) == len(node.value):
            return texts
    raise _filled(failure, "expected one value, or a list of them", "")


def _capital_text(node: Node, failure: StreambotError) -> str:
    if not isinstance(node.value, dict):
        return str(_texts(node, failure))
    parts = []
    for symbol, amount in node.value.items():
        text = _texts(amount, failure)
        parts.append(str(text) if symbol == "default" else f"{symbol}={text}")
    return ",".join(parts)


def _password(path: str, failure: StreambotError) -> str:
    try:
        text = read_bounded(Path(path)).decode("utf-8").rstrip("\r\n")
    except (ConfigError, UnicodeDecodeError, ValueError) as error:
        reason = error.message if isinstance(error, ConfigError) else "it is no text"
        raise _filled(failure, f"the password file `{path[:200]}`: {reason}", "") from None
    if not text or len(text) > 4096:
        raise _filled(failure, f"the password file `{path[:200]}` is empty or too long", "")
    return text


def _filled(failure: StreambotError, message: str, hint: str) -> StreambotError:
    return type(failure)(message, where=failure.where, hint=hint)


def _conflict(message: str, given: Mapping[str, _Given]) -> StreambotError:
    """A conflict between settings belongs to the layer of the first setting that it names."""
    for part in message.split("`")[1::2]:
        if part in given:
            return _filled(given[part].failure, message, "")
    return ConfigError(message)


def _value(config: SimulationConfig, setting: Setting) -> Any:  # noqa: ANN401  # any setting's
    owner: object = config
    for part in setting.field.split("."):
        owner = getattr(owner, part)
    return owner


def _text(setting: Setting, value: Any) -> str:  # noqa: ANN401  # any setting's
    if value is None:
        return ""
    if setting.secret:
        return SHOWN
    if setting.form is Form.MANY:
        return ",".join(setting.show(item) for item in value)
    return setting.show(value)


def _quoted(text: str) -> str:
    plain = text.replace("_", "").replace("-", "").replace("/", "").replace(".", "").isalnum()
    if plain and text[0].isalnum() and text.lower() not in {"null", "true", "false"}:
        return text
    return (
        text
        if text in {"true", "false"}
        else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    )
