"""Accuracy against radius, as a step function of the distances up to which images count."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64
from matplotlib.figure import Figure

from srs.report.svg import SERIES, style
from srs.text import visible


def accuracy_curves(lines: Mapping[str, Float64[np.ndarray, " n"]], right: float, ylabel: str) -> Figure:
    """Draw for each line the share of the images that count beyond a radius.

    Parameters
    ----------
    lines : mapping of str to array of shape (n,)
        By name: the distance up to which each image counts; 0: nowhere, infinite: everywhere.
    right : float
        Where the axis ends.
    ylabel : str
    """
    with style():
        figure = Figure(figsize=(5.2, 4.0))
        axes = figure.add_subplot()
        for k, (name, far) in enumerate(lines.items()):
            ends = np.sort(far[np.isfinite(far)])
            left = 100 * (len(far) - np.arange(len(ends) + 1)) / len(far)
            x, y = np.concatenate([[0.0], ends, [max(right, ends.max(initial=0.0))]]), np.append(left, left[-1])
            colour, dashes = SERIES[k % len(SERIES)][0], SERIES[(k + k // len(SERIES)) % len(SERIES)][1]
            axes.step(x, y, where="post", color=colour, ls=dashes, lw=1.8, label=_label(name))
        axes.set(xlim=(0, right), ylim=(0, 102), xlabel="l2 radius (pixels in [0, 1])", ylabel=ylabel)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def _label(name: str) -> str:
    """Return a name for a legend, where $ would begin a formula and a leading _ would leave the line out."""
    text = visible(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
