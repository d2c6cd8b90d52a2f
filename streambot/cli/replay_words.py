"""What became of a command to a replay, in a line for people."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from streambot.cli.human import zone, zone_label
from streambot.domain.units import NANOS_PER_SECOND

if TYPE_CHECKING:
    from streambot.streams.control import Acknowledgement


def told(said: Acknowledgement, zone_name: str, run: str) -> str:
    """`paused at 2020-12-15 10:31 EST (barrier 61)`."""
    where = place(said.barrier, said.event_time, zone_name)
    if said.status == "sought":
        text = f"run {run} ended {where}; run {said.successor} goes on"
    elif said.status == "paused":
        text = f"paused {where}"
        if said.command in {"speed", "status"}:
            text += f", speed {said.speed}"
    elif said.status in {"running", "stepping"}:
        text = f"{said.status} {where}, speed {said.speed}"
    else:
        text = f"{said.status} {where}"
    return f"{text}: {said.reason}" if said.reason else text


def place(barrier: int, event_time: int | None, zone_name: str) -> str:
    """`at 2020-12-15 10:31 EST (barrier 61)`; to the second where that is no whole minute."""
    if event_time is None:
        return "at the start" if barrier == 0 else f"at barrier {barrier:,}"
    at = dt.datetime.fromtimestamp(event_time // NANOS_PER_SECOND, tz=zone(zone_name))
    clock = f"{at:%H:%M:%S}" if at.second else f"{at:%H:%M}"
    return f"at {at:%Y-%m-%d} {clock} {zone_label(at, zone_name)} (barrier {barrier:,})"
