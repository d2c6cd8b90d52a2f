"""What a checkpoint says of the bars that its policy has learnt from, and of nobody else's.

    data -> facts of this training -> (and those of the policy it began with) -> checkpoint

`learning.seen` holds bars against these texts. A policy that was begun with another's parameters has
seen what that one saw: the facts of both are put together, so that too much counts as seen, never
too little.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from streambot.domain.errors import DataError
from streambot.domain.units import NANOS_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from streambot.data.segments import Segments
    from streambot.env.config import EnvConfig

DATA = "data"
"""Under this name a checkpoint keeps the digest of its data."""
GROWING = "growing"
"""Under this name it says that the recording was still written."""
_LISTS = {"instruments": ",", "timeframes": ",", "sources": "; "}


class Span(NamedTuple):
    """Time of a part of the data, UTC ns.

    Attributes:
        first, last: the earliest and the latest close that it may hold, of any instrument.
    """

    first: int
    last: int


def span_of(
    store: Segments,
    config: EnvConfig,
    empty: str = "nothing is left to train on",
    grows: int | None = None,
) -> Span:
    """First and last close that a part may see: `start` and `end` are times of each one's zone.

    Args:
        grows: of a recording that is still written, the last close that it will have.

    Raises:
        DataError: there is none.
    """
    zones = sorted({instrument.timezone for instrument in store.head.instruments})
    first, last = int(store.closes[0]), int(store.closes[-1]) if grows is None else grows
    if config.start is not None:
        first = max(first, min(config.start.start_ns(zone) for zone in zones))
    if config.end is not None:
        last = min(last, max(config.end.end_ns(zone) for zone in zones))
    if first >= last:
        raise DataError(
            empty, where="test_from",
            hint=f"the data are from {iso(int(store.closes[0]))} to {iso(int(store.closes[-1]))}",
        )  # fmt: skip
    return Span(first, last)


def iso(ns: int) -> str:
    """A time in words: UTC, seconds."""
    return dt.datetime.fromtimestamp(ns // NANOS_PER_SECOND, dt.UTC).isoformat()


def facts(
    stores: Sequence[Segments], instruments: Sequence[str], timeframes: Sequence[str], span: Span
) -> dict[str, str]:
    """What a training says of its data.

    Args:
        stores: one for each timeframe.
        instruments: symbols that are trained on.
        timeframes: as people write them.
        span: of what is trained on.
    """
    heads = msgspec.json.encode([store.head for store in stores])
    return {
        "instruments": ",".join(instruments),
        "timeframes": ",".join(timeframes),
        "trained_from": iso(span.first),
        "trained_to": iso(span.last),
        "sources": "; ".join(store.head.source for store in stores),
        DATA: hashlib.blake2b(heads, digest_size=16).hexdigest(),
    }


def days(store: Segments, config: EnvConfig) -> str:
    """First and last day of a part, as the exchange of the first instrument counts them."""
    span, zone = span_of(store, config), ZoneInfo(store.head.instruments[0].timezone)
    inside = store.closes[(store.closes >= span.first) & (store.closes <= span.last)]
    ends = (int(inside[0]), int(inside[-1])) if len(inside) else span
    shown = [dt.datetime.fromtimestamp((ns - 1) // NANOS_PER_SECOND, zone) for ns in ends]
    return f"{shown[0]:%Y-%m-%d} to {shown[1]:%Y-%m-%d}"


def check_same(begun: Mapping[str, str], now: Mapping[str, str], where: Path) -> None:
    """Refuse to go on with other data than a training was begun with; a recording may have grown.

    Raises:
        DataError: they are others.
    """
    if GROWING not in begun and begun.get(DATA, now[DATA]) != now[DATA]:
        raise DataError(
            "the data are not those that the training was begun with: "
            f"{begun.get('sources', '')[:200]}",
            where=str(where),
            hint="put bars and registry back, or begin a new training `--from` this policy",
        )


def together(own: Mapping[str, str], before: Mapping[str, str]) -> dict[str, str]:
    """Facts of a training that was begun with the parameters of another one.

    What that one does not say is not known of this one either, and left out.
    """
    merged = dict(own)
    for name, mark in _LISTS.items():
        parts = [text.split(mark) for text in (before.get(name, ""), own[name]) if text]
        merged[name] = mark.join(dict.fromkeys(part for listed in parts for part in listed))
    for name, outer in (("trained_from", min), ("trained_to", max)):
        ends = [_time(before.get(name, "")), _time(own[name])]
        merged[name] = "" if None in ends else outer(end for end in ends if end).isoformat()
    if not all(before.get(name) for name in ("instruments", "trained_from", "trained_to")):
        for name in ("instruments", "trained_from", "trained_to"):
            merged[name] = ""
    return merged


def _time(text: str) -> dt.datetime | None:
    try:
        return dt.datetime.fromisoformat(text).astimezone(dt.UTC)
    except ValueError:
        return None
