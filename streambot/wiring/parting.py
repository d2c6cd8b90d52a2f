"""Data of a training, parted: what is trained on, what is looked at, and what is left alone.

    request -> segment stores, one for each timeframe -> split by time and by instrument

Training ends where what is held out begins: the last bar that a step is paid for closes at or before
the moment, and the first decision that is judged is taken at or behind it.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import msgspec

from streambot.domain.errors import ConfigError, UsageError
from streambot.domain.replay_settings import Moment, parse_moment
from streambot.domain.suggest import did_you_mean
from streambot.domain.units import NANOS_PER_SECOND
from streambot.env.settings import make_config
from streambot.wiring.environments import split_settings, stored_source
from streambot.wiring.trained_on import GROWING, days, facts, iso, span_of
from streambot.wiring.training import NOTHING, REQUEST, Split

if TYPE_CHECKING:
    from pathlib import Path

    from streambot.data.segments import Segments
    from streambot.domain.kafka_settings import KafkaSecurity
    from streambot.env.config import EnvConfig
    from streambot.wiring.training import TrainingRequest

LAST_SHARE = 0.2
"""Share of the bars, the last ones, that training leaves alone unless it is told otherwise."""


def split_data(request: TrainingRequest, cwd: Path, kafka: KafkaSecurity | None = None) -> Split:
    """Read the data, or find them as they were read before, and part them.

    Args:
        request: what is asked for.
        cwd: what relative paths start from.
        kafka: how the broker of a recording is spoken to; never kept.

    Raises:
        StreambotError: the data or a setting are wrong; the broker is not there.
    """
    config = make_config(request.env)
    sources = []
    for timeframe in request.timeframes or (None,):
        data = request.data if timeframe is None else request.data | {"timeframe": timeframe}
        data = data if kafka is None else data | {"kafka": kafka}
        sources.append(stored_source(split_settings(data).simulation, config.features, cwd))
    stores = [source.open(config.features) for source in sources]
    symbols = [instrument.symbol for instrument in stores[0].head.instruments]
    unknown = sorted(set(request.hold_out) - set(symbols))
    if unknown:
        raise ConfigError(
            f"no instrument `{unknown[0]}` in the data", where="hold_out",
            hint=did_you_mean(unknown[0], symbols),
        )  # fmt: skip
    taken = tuple(symbol for symbol in symbols if symbol not in request.hold_out)
    if not taken:
        raise ConfigError("every instrument is held out: there is nothing to train on")
    grows = sources[0].planned_ns
    moment = _test_from(request, config, stores[0], grows)
    train = held_out = request.env
    if moment is not None:
        end, start = _parted(moment, stores[0])
        train, held_out = request.env | {"end": end}, request.env | {"start": start}
    span = span_of(stores[0], make_config(train), grows=grows)
    if moment is not None and grows is None:
        span_of(stores[0], make_config(held_out), "nothing is left to look at")
    timeframes = request.timeframes or (_said_ns(stores[0].head.decision_ns),)
    about = facts(stores, taken, timeframes, span) | {
        REQUEST: msgspec.json.encode(request).decode()
    }
    if grows is not None:
        about[GROWING] = "yes"
    said = f"{days(stores[0], make_config(train))}; {_left_alone(request, moment)}"
    return Split(
        tuple(sources), train, held_out, taken, tuple(request.hold_out), said, about,
        NOTHING if moment is None else moment,
    )  # fmt: skip


def _test_from(
    request: TrainingRequest, config: EnvConfig, store: Segments, grows: int | None
) -> str | None:
    """The moment that parts the data; None: all of it is trained on.

    Args:
        grows: of a recording that is still written, the last close that it will have.
    """
    if request.test_from == NOTHING:
        return None
    if config.end is not None or config.start is not None:
        if request.test_from is not None:
            raise ConfigError(
                "`start` or `end` of the environment and `test_from` both part the data",
                where="test_from", hint="give one of them",
            )  # fmt: skip
        return None
    if request.test_from is not None:
        try:
            moment = parse_moment(request.test_from)
        except UsageError as error:
            raise ConfigError(error.message, where="test_from", hint=error.hint) from error
        # As an `end` a date would be trained on to its last bar.
        return f"{moment.text}T00:00" if moment.is_date else moment.text
    zone = ZoneInfo(store.head.instruments[0].timezone)
    close = int(store.closes[int(len(store.closes) * (1 - LAST_SHARE))])
    if grows is not None:
        begin = int(store.closes[0])
        close = begin + int((grows - begin) * (1 - LAST_SHARE))
    at = dt.datetime.fromtimestamp(close // NANOS_PER_SECOND, zone)
    first = dt.datetime.fromtimestamp(int(store.closes[0]) // NANOS_PER_SECOND, zone)
    # Whole days are held out, where there is more than one.
    return f"{at.date()}T00:00" if at.date() > first.date() else f"{at:%Y-%m-%dT%H:%M}"


def _parted(moment: str, store: Segments) -> tuple[str, str]:
    """Where training ends, and where what is held out begins: the same, but in several zones.

    There the last exchange to reach the moment begins what is held out, and the first one ends what
    is trained on: markets move together.
    """
    zones = sorted({instrument.timezone for instrument in store.head.instruments})
    if len(zones) == 1:
        return moment, moment
    reached = [Moment(moment).start_ns(zone) for zone in zones]
    return iso(min(reached)), iso(max(reached))


def _left_alone(request: TrainingRequest, moment: str | None) -> str:
    """What is not trained on, for people."""
    ranged = [
        f"{word} {request.env[name]}"
        for name, word in (("start", "before"), ("end", "behind"))
        if request.env.get(name) is not None
    ]
    left = ranged if moment is None else [f"from {moment.removesuffix('T00:00')} on"]
    left += [", ".join(request.hold_out)] if request.hold_out else []
    return f"held out: {', and '.join(left)}" if left else "nothing is held out"


def _said_ns(ns: int) -> str:
    seconds = ns // NANOS_PER_SECOND
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
