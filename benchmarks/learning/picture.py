"""`python -m benchmarks.learning.picture FILE`: the gate's weights along a path that nobody learnt from."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.learning import specialise
from benchmarks.learning.decisions import RANDOM, DecisionConfig, agent, data, train
from benchmarks.learning.regimes import STANDARD, WINDOW, decisions, paths
from benchmarks.learning.specialisation import matrices, nmi
from streambot.agents.moe import MoEAgent
from streambot.agents.naming import REGIMES

BARS = 2_000
COLOURS = ("#0072B2", "#E69F00", "#CC79A7", "#7F7F7F")
"""Of the regimes, and of the experts with their names: told apart by the colour-blind too."""


def draw(file: Path, seed: int) -> float:
    """Train a mixture, draw it, and return NMI(gate, regime) along the path."""
    config = DecisionConfig()
    who = agent(MoEAgent, seed, config.lr)
    assert isinstance(who, MoEAgent)
    given = data(config, seed)
    train(who, given.train, config, seed)
    order = list(matrices(specialise.views(who, given.test), given.test).order)
    path = paths(np.random.default_rng([seed, RANDOM]), 1, BARS + WINDOW + 1)
    along = decisions(path, STANDARD, every=1)
    gate = specialise.views(who, along).gate[:, order]
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    figure, (above, strip, weights) = plt.subplots(
        3, 1, figsize=(9, 4.6), sharex=True, height_ratios=(3, 0.5, 3), layout="constrained"
    )
    bars = np.arange(BARS)
    above.plot(bars, np.cumsum(along.move), color="black", linewidth=0.6)
    above.set_ylabel("sum of returns")
    _strip(strip, along.regime)
    weights.stackplot(bars, gate.T, colors=COLOURS, linewidth=0)
    weights.set(ylabel="weight of the expert", xlabel="bar", ylim=(0, 1), xlim=(0, BARS - 1))
    handles = [mpl.patches.Patch(color=colour) for colour in COLOURS]
    figure.legend(handles, REGIMES, ncols=4, loc="outside upper center", frameon=False)
    figure.savefig(file, dpi=90)
    plt.close(figure)
    return nmi(gate, along.regime)


def _strip(axes: Axes, regime: np.ndarray) -> None:
    axes.imshow(
        regime[None], aspect="auto", cmap=mpl.colors.ListedColormap(COLOURS), vmin=0, vmax=3,
        interpolation="nearest", extent=(-0.5, len(regime) - 0.5, 0, 1),
    )  # fmt: skip
    axes.set(yticks=[0.5], yticklabels=["true regime"])


def main(argv: Sequence[str] | None = None) -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    mpl.use("Agg")
    print(f"NMI(gate, regime) along the path: {draw(options.file, options.seed):.3f}")


if __name__ == "__main__":
    main()
