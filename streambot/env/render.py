"""An episode as a picture: price with trades and trailing stop above, equity below.

Bars stand side by side, whatever time lies between them: nights and weekends take no room. A fill
is drawn half a bar before the close at which it is known, for it happened inside that bar.
"""

from __future__ import annotations

import datetime as dt
import logging
from functools import cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from gymnasium.error import DependencyNotInstalled

from streambot.domain.units import NANOS_PER_SECOND

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.image import imsave

    from streambot.env.axes import number_axis, time_axis
except ModuleNotFoundError as missing:
    raise DependencyNotInstalled("rendering needs matplotlib: pip install matplotlib") from missing

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from streambot.env.history import History


Image = npt.NDArray[np.uint8]
_INCHES, _DPI = (9.0, 6.0), 100
_LONG, _SHORT, _STOP = "#1f77b4", "#e07b00", "#b2182b"
_INK, _FAINT = "#222222", "#d9d9d9"


def draw(history: History) -> Image:
    """The episode so far.

    Args:
        history: its moments and trades; none yet: a picture that says so.

    Returns:
        uint8 [600, 900, 3].
    """
    figure = Figure(figsize=_INCHES, dpi=_DPI)
    canvas: Any = FigureCanvasAgg(figure)
    _paint(figure, history)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def write_png(image: Image, path: Path) -> None:
    """Write a picture to a file.

    Raises:
        OSError: it cannot be written.
    """
    imsave(path, image, format="png")


class Window:
    """A window that shows an episode as it goes on; where there is no display, it says so once."""

    def __init__(self) -> None:
        self._figure: Figure | None = None

    def show(self, history: History) -> None:
        """Draw the episode so far. A window that was closed by its user stays closed."""
        import matplotlib.pyplot as plt  # noqa: PLC0415  # its state is wanted for windows only

        if not _has_display():
            _tell_headless()
            return
        figure = self._figure
        if figure is None:
            figure = self._figure = plt.figure("streambot", figsize=_INCHES, dpi=_DPI)
            plt.show(block=False)
        if not plt.fignum_exists(figure.number):
            return
        figure.clear()
        _paint(figure, history)
        figure.canvas.draw_idle()
        figure.canvas.flush_events()

    def close(self) -> None:
        """Close it, if it was ever opened."""
        if self._figure is not None:
            import matplotlib.pyplot as plt  # noqa: PLC0415

            plt.close(self._figure)
            self._figure = None


def _has_display() -> bool:
    """True where plots can be shown in a window; without a display matplotlib falls back to images."""
    import matplotlib.pyplot as plt  # noqa: PLC0415
    from matplotlib.backends.registry import BackendFilter, backend_registry  # noqa: PLC0415

    registry: Any = backend_registry  # untyped
    return plt.get_backend().lower() in registry.list_builtin(BackendFilter.INTERACTIVE)


@cache
def _tell_headless() -> None:
    """Say it once a process: not a `warnings` warning, for a run without a display is no mistake."""
    logging.getLogger(__name__).warning(
        'render_mode="human": there is no display here (or matplotlib has no toolkit for windows), '
        'so nothing is shown; render_mode="rgb_array" gives the picture as an array'
    )


def _paint(figure: Figure, history: History) -> None:
    moments = history.moments
    if not moments:
        figure.text(0.5, 0.5, "no episode has begun", ha="center", va="center", color=_INK)
        return
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    figure.subplots_adjust(left=0.115, right=0.975, top=0.86, bottom=0.105, hspace=0.17)
    x = np.arange(len(moments), dtype=np.float64)
    price = np.array([m.price for m in moments])
    equity = np.array([m.equity for m in moments])
    side = np.sign([m.position for m in moments])
    _shade(above, side)
    _shade(below, side)
    # One moment is no line yet.
    dot = {"marker": "o", "markersize": 4} if len(moments) == 1 else {}
    above.plot(x, price, color=_INK, linewidth=1.1, zorder=3, **dot)
    _stops(above, x, history)
    _marks(above, history)
    below.axhline(equity[0], color="#888888", linewidth=0.8, linestyle=(0, (4, 3)), zorder=2)
    below.plot(x, equity, color=_INK, linewidth=1.1, zorder=3, **dot)
    for axes in (above, below):
        axes.grid(visible=True, color=_FAINT, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8.5, colors=_INK)
    number_axis(above, price, 7)
    number_axis(below, equity, 5)
    instrument = history.instrument
    _name(above, f"price of {instrument.chart}, {instrument.currency}")
    _name(below, f"equity, {instrument.currency}")
    above.tick_params(labelbottom=False, bottom=False)
    time_axis(below, moments, instrument.timezone)
    _words(figure, above, history)


def _name(axes: Axes, text: str) -> None:
    """What a panel shows, above it: beside it stand numbers of any length."""
    axes.text(0, 1.015, text, transform=axes.transAxes, va="bottom", fontsize=8.5, color=_INK)


def _shade(axes: Axes, side: npt.NDArray[np.int64]) -> None:
    """Colour the bars that ended with a position, from its entry to its exit."""
    count = len(side)
    for held, color in ((1, _LONG), (-1, _SHORT)):
        edges = np.flatnonzero(np.diff(np.concatenate([[False], side == held, [False]])))
        # What is still held is coloured up to the last close: behind it nothing is known.
        spans = [
            (begin - 0.5, min(end, count - 0.5) - begin)
            for begin, end in edges.reshape(-1, 2).tolist()
        ]
        axes.broken_barh(
            spans, (0, 1), transform=axes.get_xaxis_transform(), color=color, alpha=0.12,
            linewidth=0, zorder=1,
        )  # fmt: skip
    axes.set_xlim(-0.5 - 0.01 * count, 1.01 * count - 0.5)


def _stops(axes: Axes, x: npt.NDArray[np.float64], history: History) -> None:
    """The trailing stop while it guards a position: one level from a close to the next."""
    stop = np.array([np.nan if m.stop is None else m.stop for m in history.moments])
    # What an entry brought is not joined to the stop of the position before it.
    entries = [trade.at for trade in history.trades if trade.effect == "entry"]
    at = np.insert(x - 0.5, entries, x[entries] - 0.5)
    level = np.insert(stop, entries, np.nan)
    at = np.append(at, x[-1])
    axes.plot(
        at,
        np.append(level, level[-1]),
        color=_STOP,
        linewidth=1.0,
        drawstyle="steps-post",
        zorder=3,
    )


def _marks(axes: Axes, history: History) -> None:
    trades = history.trades
    size = float(np.interp(len(trades), (10, 200), (55, 14)))
    for side, shape, color in ((1, "^", _LONG), (-1, "v", _SHORT)):
        found = [t for t in trades if t.effect == "entry" and t.side == side]
        axes.scatter(
            [t.at - 0.5 for t in found], [t.price for t in found], s=size, marker=shape, color=color,
            edgecolors="white", linewidths=0.5, zorder=5,
        )  # fmt: skip
    exits = [(t.at - 0.5, t.price) for t in trades if t.effect == "exit"]
    exits += _settled(history)
    axes.scatter(
        [at for at, _ in exits], [price for _, price in exits], s=0.7 * size, marker="x", color=_INK,
        linewidths=1.3, zorder=6,
    )  # fmt: skip


def _settled(history: History) -> list[tuple[float, float]]:
    """Ends of positions without a fill: an option that expired."""
    filled = {trade.at for trade in history.trades if trade.effect == "exit"}
    moments = history.moments
    return [
        (k - 0.5, moments[k].price)
        for k in range(1, len(moments))
        if moments[k - 1].position != 0 and moments[k].position == 0 and k not in filled
    ]


def _percent(share: float) -> str:
    """`+1.25 %`; small ones with more decimals, and none of them with a sign at 0."""
    if not share:
        return "0 %"
    return f"{100 * share:+.2f} %" if abs(share) >= 1e-3 else f"{100 * share:+.4f} %"


def _words(figure: Figure, axes: Axes, history: History) -> None:
    moments, instrument = history.moments, history.instrument
    zone = ZoneInfo(instrument.timezone)
    first, last = (
        dt.datetime.fromtimestamp(moments[k].ts // NANOS_PER_SECOND, tz=zone) for k in (0, -1)
    )
    end = f"{last:%H:%M}" if first.date() == last.date() else f"{last:%Y-%m-%d %H:%M}"
    name = last.tzname() or ""
    label = instrument.timezone if name[:1] in {"", "+", "-"} else name
    now = moments[-1].equity
    entries = sum(trade.effect == "entry" for trade in history.trades)
    bars = len(moments) - 1
    figure.text(
        0.115, 0.955, f"{instrument.symbol}   {first:%Y-%m-%d %H:%M} to {end} {label}",
        fontsize=12, fontweight="bold", color=_INK,
    )  # fmt: skip
    figure.text(
        0.115, 0.912,
        f"return {_percent(now / moments[0].equity - 1)}   equity {now:,.2f} {instrument.currency}   "
        f"{bars:,} {'bar' if bars == 1 else 'bars'}   "
        f"{entries:,} {'entry' if entries == 1 else 'entries'}",
        fontsize=9.5, color=_INK,
    )  # fmt: skip
    named = [
        axes.scatter([], [], s=45, marker="^", color=_LONG, label="long"),
        axes.scatter([], [], s=45, marker="v", color=_SHORT, label="short"),
        axes.scatter([], [], s=30, marker="x", color=_INK, linewidths=1.3, label="exit"),
        *axes.plot([], [], color=_STOP, linewidth=1.0, label="trailing stop"),
    ]
    figure.legend(
        handles=named, loc="upper right", bbox_to_anchor=(0.98, 0.945), ncols=4, fontsize=8.5,
        frameon=False, handletextpad=0.4, columnspacing=1.1, handlelength=1.4,
    )  # fmt: skip
