"""The picture of a learning-rate sweep: the loss over the rate, and the rate proposed."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from noisy_student.runs import atomic
from noisy_student.stats.sweeps import Sweep

FORMATS = ("svg", "png")


def draw(sweep: Sweep, path: Path) -> None:
    """Write the curve to ``path`` (.svg or .png): single losses grey, their running mean black, the proposal marked."""
    with mpl.rc_context({"svg.hashsalt": "noisy_student", "font.size": 9}):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(sweep.rates, sweep.losses, ".", color="0.7", markersize=3, label="steps")
        axes.plot(sweep.rates, sweep.smooth(), color="black", linewidth=1.2, label="running mean")
        proposal = sweep.proposal()
        if proposal is not None:
            axes.axvline(proposal, color="tab:red", linewidth=1, label=f"proposed: {proposal:.1e}")
        axes.set_xscale("log")
        axes.set_xlabel("optim.lr")
        axes.set_ylabel("loss")
        axes.legend(frameon=False)
        kind = path.suffix.removeprefix(".").lower()
        with atomic(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
