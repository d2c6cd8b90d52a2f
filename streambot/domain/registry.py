"""The registry of instruments: `instruments.yaml` to a dictionary of `Instrument`s, and back.

    instruments:
      SPY: {type: STOCK, lot_size: 1, tick_size: 0.01}

The key is the symbol. An `underlying` names the chart whose bars are traded and need not be in
the registry itself.
"""

from __future__ import annotations

import datetime as dt
import zoneinfo
from decimal import Decimal
from typing import TYPE_CHECKING

import msgspec

from streambot.domain.bundled import bundled_path
from streambot.domain.errors import UnknownInstrumentError
from streambot.domain.instruments import Instrument, LotRule
from streambot.domain.suggest import did_you_mean, nearest
from streambot.domain.typed import build
from streambot.domain.yaml_positions import Document, safe_load_positions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

REGISTRY_FILE = "instruments.yaml"
BUNDLED = "bundled"
"""Where the registry is that comes with the package."""
_ROOT = "instruments"
_SUGGESTED = 3  # symbols for which a hint is spelled out


def load_registry(path: Path) -> dict[str, Instrument]:
    """The instruments that the file at `path` declares, by symbol, in the order of the file.

    Raises:
        ConfigError: unreadable or wrong, at `file:line:key`.
    """
    return read_registry(safe_load_positions(path))


def bundled_registry() -> dict[str, Instrument]:
    """The registry that travels with streambot."""
    return read_registry(
        safe_load_positions(bundled_path(REGISTRY_FILE), name="bundled " + REGISTRY_FILE)
    )


def find_registry(explicit: Path | None, cwd: Path) -> tuple[Path | str, dict[str, Instrument]]:
    """The registry to use: `explicit`, else the one in `cwd`, else the bundled one.

    Returns:
        Its path (or `BUNDLED`) and its instruments.

    Raises:
        ConfigError: the first of the three that exists is wrong, or `explicit` does not exist.
    """
    if explicit is not None:
        return explicit, load_registry(explicit)
    local = cwd / REGISTRY_FILE
    if local.exists():
        return local, load_registry(local)
    return BUNDLED, bundled_registry()


def read_registry(document: Document) -> dict[str, Instrument]:
    """The instruments of a parsed registry.

    Raises:
        ConfigError: anything in it is wrong.
    """
    root = document.root.value
    if not isinstance(root, dict):
        raise document.error(f"expected `{_ROOT}:` and the instruments below it")
    for key in root:
        if key != _ROOT:
            raise document.error(f"unknown key `{key}`", key, hint=did_you_mean(key, [_ROOT]))
    entries = root[_ROOT].value if _ROOT in root else None
    if not isinstance(entries, dict) or not entries:
        raise document.error(
            "no instruments are declared", _ROOT, hint="put `SYMBOL: {...}` below `instruments:`"
        )
    registry: dict[str, Instrument] = {}
    zones: set[str] = set()
    for symbol in entries:
        path = (_ROOT, symbol)
        instrument = build(document, Instrument, *path, symbol=symbol)
        _check_lots(document, instrument)
        if instrument.timezone not in zones:
            _check_zone(document, instrument)
            zones.add(instrument.timezone)
        registry[symbol] = instrument
    return registry


def require(registry: Mapping[str, Instrument], symbols: Sequence[str]) -> dict[str, Instrument]:
    """The instruments of `symbols`.

    Raises:
        UnknownInstrumentError: some are not declared.
    """
    unknown = tuple(sorted(set(symbols) - set(registry)))
    if unknown:
        near = [(symbol, nearest(symbol, registry)) for symbol in unknown[:_SUGGESTED]]
        hints = [f"did you mean `{best}` for `{symbol}`?" for symbol, best in near if best]
        raise UnknownInstrumentError(
            f"no registry declares {', '.join(unknown)}",
            symbols=unknown,
            hint=" ".join(hints) or "declare it in instruments.yaml, or give --infer-instruments",
        )
    return {symbol: registry[symbol] for symbol in symbols}


_ASSUMED = ("currency", "timezone")
_SEEN = ("volume_step",)


def declare_yaml(
    instruments: Sequence[Instrument], *, header: bool = True, inferred: bool = False
) -> str:
    """The YAML block that declares `instruments`, ready to paste; what equals its default is left out.

    Args:
        instruments: what to declare.
        header: begin with the line `instruments:` (leave it out to paste below an existing one).
        inferred: they were guessed from data: what was assumed is written out and says so.
    """
    lines = [f"{_ROOT}:"] if header else []
    for instrument in instruments:
        lines.append(f"  {_quoted(instrument.symbol)}:")
        for name, text in _settings(instrument):
            if name != "symbol" and not (inferred and name in _SEEN + _ASSUMED):
                lines.append(f"    {name}: {text}")
        if inferred:
            lines += [f"    {name}: {_flow(getattr(instrument, name))}" for name in _SEEN]
            lines += [
                f"    {name}: {_flow(getattr(instrument, name))}  # assumed: correct it"
                for name in _ASSUMED
            ]
    return "\n".join(lines) + "\n"


def suggest_yaml(
    inferred: Sequence[Instrument], used: Sequence[Instrument], where: Path | str
) -> str:
    """The YAML block that declares what no registry does.

    Args:
        inferred: instruments guessed from data.
        used: instruments beside them that are declared.
        where: the registry that declares those. The bundled one is replaced by whoever writes a file of
            their own, so that then the block has them too.
    """
    block = declare_yaml(inferred, inferred=True)
    if where == BUNDLED and used:
        block += "  # as the bundled registry has them, which a file of your own replaces\n"
        block += declare_yaml(used, header=False)
    return block


def _check_lots(document: Document, instrument: Instrument) -> None:
    if not isinstance(instrument.lot_size, tuple):
        return
    for later, rule in enumerate(instrument.lot_size):
        for earlier in range(later):
            if _overlap(instrument.lot_size[earlier], rule):
                raise document.error(
                    f"this row and row {earlier} give two lot sizes for one expiry",
                    _ROOT,
                    instrument.symbol,
                    "lot_size",
                    later,
                    hint="set `to_expiry` of one and `from_expiry` of the other",
                )


def _overlap(one: LotRule, other: LotRule) -> bool:
    if one.series is not None and other.series is not None and one.series != other.series:
        return False
    starts = max(one.from_expiry or dt.date.min, other.from_expiry or dt.date.min)
    ends = min(one.to_expiry or dt.date.max, other.to_expiry or dt.date.max)
    return starts <= ends


def _check_zone(document: Document, instrument: Instrument) -> None:
    try:
        zoneinfo.ZoneInfo(instrument.timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = sorted(zoneinfo.available_timezones())
        raise document.error(
            f"no such time zone: `{instrument.timezone}`",
            _ROOT,
            instrument.symbol,
            "timezone",
            hint=did_you_mean(instrument.timezone, known, show=0) or "a name like Asia/Kolkata",
        ) from None


def _settings(settings: msgspec.Struct) -> Iterator[tuple[str, str]]:
    """Name and YAML text of every field that differs from its default."""
    for field in msgspec.structs.fields(settings):
        value = getattr(settings, field.name)
        if field.default is not msgspec.NODEFAULT and value == field.default:
            continue
        yield field.name, _flow(value)


def _flow(value: object) -> str:
    """A value in YAML's flow style."""
    if isinstance(value, msgspec.Struct):
        tag = value.__struct_config__.tag
        parts = [f"{value.__struct_config__.tag_field}: {tag}"] if tag else []
        parts += [f"{name}: {text}" for name, text in _settings(value)]
        return "{" + ", ".join(parts) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, str):
        return _quoted(value)
    return "null" if value is None else str(value)


def _quoted(text: str) -> str:
    plain = text.replace("_", "").replace("-", "").replace("/", "").isalnum() and text[0].isalpha()
    if plain and text.lower() not in {"null", "true", "false"}:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
