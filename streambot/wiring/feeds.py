"""Which instruments a run trades, and which file has the bars of each.

Instruments are named by symbol or glob; without any, every chart in the data is traded as what the
registry declares under that symbol. A proxy option has no bars of its own: it is traded where it is
named, on the chart of its underlying. A symbol that no registry knows is never guessed at in
silence: the run stops with the declaration that the data suggest, or goes on with it and says so.
"""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from streambot.data.feed import Feed
from streambot.data.files import is_bar_file, open_bars, symbol_of_file
from streambot.data.inspection import declaration_of, inspect
from streambot.domain.errors import ConfigError, DataError, UnknownInstrumentError
from streambot.domain.registry import find_registry, suggest_yaml
from streambot.domain.suggest import did_you_mean, nearest
from streambot.domain.words import few

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from decimal import Decimal

    from streambot.data.source import BarFile
    from streambot.domain.config import SimulationConfig
    from streambot.domain.instruments import Instrument, InstrumentType

_GLOB = frozenset("*?[")


class Chart(NamedTuple):
    """Bars of one symbol.

    Attributes:
        path: the file.
        symbol: name in the file's symbol column; None: the file has the bars of one instrument.
    """

    path: Path
    symbol: str | None


class Feeds(NamedTuple):
    """What a run reads.

    Attributes:
        feeds: one for every instrument, by symbol.
        warnings: what was assumed.
    """

    feeds: tuple[Feed, ...]
    warnings: tuple[str, ...]


def find_feeds(config: SimulationConfig, cwd: Path) -> Feeds:
    """Instruments of the registry and the files with their bars.

    Raises:
        DataError: a file is missing or has no bars; two files have bars of one symbol.
        UnknownInstrumentError: a symbol that no registry declares, with its declaration.
        ConfigError: an instrument without bars, or the registry is wrong.
    """
    where, registry = find_registry(Path(config.registry) if config.registry else None, cwd)
    files = {
        path: open_bars(path, quote_side=config.quote_side) for path in bar_files(config.data, cwd)
    }
    charts = find_charts(files)
    symbols = _asked(config.instruments, registry, charts) if config.instruments else sorted(charts)
    instruments: dict[str, Instrument] = {}
    for symbol in symbols:
        if symbol in registry:
            instruments[symbol] = registry[symbol]
    inferred = _infer([symbol for symbol in symbols if symbol not in registry], charts, config)
    if inferred and not config.infer_instruments:
        raise _unknown(
            inferred, registry, suggest_yaml(inferred, list(instruments.values()), where)
        )
    instruments |= {instrument.symbol: instrument for instrument in inferred}
    feeds = [_feed(instruments[symbol], charts, config) for symbol in sorted(instruments)]
    return Feeds(tuple(feeds), _assumed(inferred))


def feeds_of(instruments: Sequence[Instrument], config: SimulationConfig, cwd: Path) -> Feeds:
    """The files with the bars of instruments that are known already, as a resumed run knows them."""
    files = {
        path: open_bars(path, quote_side=config.quote_side) for path in bar_files(config.data, cwd)
    }
    charts = find_charts(files)
    return Feeds(tuple(_feed(instrument, charts, config) for instrument in instruments), ())


def bar_files(names: Sequence[str], cwd: Path) -> list[Path]:
    """The bar files that `names` stand for: files, and folders of them.

    Raises:
        DataError: a name stands for nothing, or a folder has no bar files.
    """
    found: list[Path] = []
    for name in names:
        path = (cwd / Path(name).expanduser()).resolve()
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(item for item in path.iterdir() if item.is_file() and is_bar_file(item))
        if not inside:
            raise DataError(
                "the folder has no bar files", where=str(path), hint="Parquet or CSV files"
            )
        found += inside
    return list(dict.fromkeys(found))


def find_charts(files: Mapping[Path, BarFile]) -> dict[str, Chart]:
    """The symbols that files have bars of.

    Raises:
        DataError: two files have bars of one symbol.
    """
    charts: dict[str, Chart] = {}
    for path, file in files.items():
        own = [symbol_of_file(path, file)] if file.columns.symbol is None else list(file.symbols())
        for symbol in own:
            if symbol in charts:
                raise DataError(
                    f"has bars of {symbol}, and so has {charts[symbol].path}",
                    where=str(path),
                    hint="name the one file that should count with --data",
                )
            charts[symbol] = Chart(path, None if file.columns.symbol is None else symbol)
    return charts


def _infer(
    symbols: Sequence[str], charts: Mapping[str, Chart], config: SimulationConfig
) -> list[Instrument]:
    """What the data say of symbols that no registry knows; each file is read once."""
    found: list[Instrument] = []
    for path in dict.fromkeys(charts[symbol].path for symbol in symbols):
        inspected = inspect(path, quote_side=config.quote_side)
        found += [
            declaration_of(item, path)
            for item in inspected.symbols
            if item.symbol in symbols and charts[item.symbol].path == path
        ]
    return sorted(found, key=lambda instrument: instrument.symbol)


def _asked(
    patterns: Sequence[str], registry: Mapping[str, Instrument], charts: Mapping[str, Chart]
) -> list[str]:
    known = [*charts, *(s for s, i in registry.items() if i.chart in charts)]
    found: dict[str, None] = {}
    for pattern in patterns:
        if _GLOB & set(pattern):
            matching = [symbol for symbol in known if fnmatch.fnmatchcase(symbol, pattern)]
            if not matching:
                raise ConfigError(
                    f"no instrument in the data matches `{pattern}`",
                    where="--instruments",
                    hint=did_you_mean(pattern, sorted(set(known))),
                )
            found |= dict.fromkeys(matching)
        elif pattern in registry or pattern in charts:
            found[pattern] = None
        else:
            raise ConfigError(
                f"no instrument `{pattern}` in the registry, and no bars of it in the data",
                where="--instruments",
                hint=did_you_mean(pattern, sorted({*known, *registry})),
            )
    return sorted(found)


def _feed(instrument: Instrument, charts: Mapping[str, Chart], config: SimulationConfig) -> Feed:
    chart = charts.get(instrument.chart)
    if chart is None and len(charts) == 1:
        only, chart = next(iter(charts.items()))
        if chart.symbol is not None and only != instrument.chart:
            chart = None
    if chart is None:
        raise ConfigError(
            f"no bars of {instrument.chart} in the data"
            + (f", the chart of {instrument.symbol}" if instrument.is_option else ""),
            where="--instruments",
            hint=did_you_mean(instrument.chart, sorted(charts)),
        )
    return Feed(
        instrument=instrument, path=chart.path, symbol=chart.symbol, quote_side=config.quote_side
    )


def _unknown(
    inferred: Sequence[Instrument], registry: Mapping[str, Instrument], suggestion: str
) -> UnknownInstrumentError:
    symbols = tuple(instrument.symbol for instrument in inferred)
    near = [(symbol, nearest(symbol, registry)) for symbol in symbols[:5]]
    meant = [f"did you mean `{best}` for `{symbol}`?" for symbol, best in near if best]
    return UnknownInstrumentError(
        f"no registry declares {', '.join(symbols)}",
        symbols=symbols,
        suggestion=suggestion,
        hint=" ".join(
            [
                *meant,
                "declare it in instruments.yaml (the block below), or give --infer-instruments",
            ]
        ),
    )


def _assumed(inferred: Sequence[Instrument]) -> tuple[str, ...]:
    """What is assumed of instruments that no registry declares: a line for those that are alike."""
    alike: dict[tuple[InstrumentType, Decimal, Decimal, str, str], list[str]] = {}
    for one in inferred:
        seen = one.type, one.tick_size, one.volume_step, one.currency, one.timezone
        alike.setdefault(seen, []).append(one.symbol)
    return tuple(
        f"{few(symbols)} {'is' if len(symbols) == 1 else 'are'} in no registry: traded as a {kind}, lot "
        f"1, tick size {tick:f} and volume step {step:f} as seen in the data; assumed: currency "
        f"{currency}, time zone {zone}"
        for (kind, tick, step, currency, zone), symbols in alike.items()
    )
