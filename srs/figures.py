"""Figures, drawn from rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from smoothing.files import replacing

if TYPE_CHECKING:
    from srs.results import Rows

# Okabe and Ito's palette, which colour-blind readers can tell apart; each rule has a dash pattern as well.
_STYLES = {
    "sample-wise, LP": {"color": "#D55E00", "lw": 2.6, "zorder": 5},
    "one sigma may overlap, LP": {"color": "#0072B2", "lw": 1.8, "ls": (0, (6, 1, 1, 1)), "zorder": 4},
    "overlapping (unsound)": {"color": "#000000", "lw": 1.6, "ls": (0, (4, 2)), "zorder": 4},
}


def draw_curves(rules: Mapping[str, "Rows"], paths: Sequence[Path]) -> None:
    """Draw certified accuracy against radius as PNG: both LPs, the overlapping reference and every constant sigma.

    Parameters
    ----------
    rules : mapping of title to Rows
        Rules without a style here whose title does not start with "sigma" are left to the table.
    paths : sequence of Path
        Where to write; the suffix says in which format.
    """
    figure = Figure(figsize=(7.5, 4.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    constants = [name for name in rules if name.startswith("sigma")]
    shades = colormaps["viridis"](np.linspace(0.05, 0.92, len(constants)))
    styles = {name: {"color": shade, "lw": 1.2} for name, shade in zip(constants, shades, strict=True)} | _STYLES
    right = max(float(row.radius.max()) for row in rules.values())
    for name in (*(name for name in _STYLES if name in rules), *constants):
        x, y = _steps(rules[name], right)
        axes.step(x, 100 * y, where="post", label=name, **styles[name])
    axes.set(
        xlim=(0, right * 1.02 or 1),
        ylim=(0, 102),
        xlabel="l2 radius (pixels in [0, 1])",
        ylabel="certified accuracy (%)",
    )
    axes.grid(alpha=0.3, lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    for path in paths:
        with replacing(path) as stream:
            figure.savefig(stream, format=path.suffix[1:])


def _steps(rows: "Rows", right: float) -> tuple[np.ndarray, np.ndarray]:
    """Return where certified accuracy drops and what it drops to."""
    radius = np.sort(rows.radius[(rows.correct == 1) & (rows.radius > 0)])
    left = np.arange(len(radius), -1, -1) / len(rows.radius)
    return np.concatenate([[0.0], radius, [right]]), np.concatenate([left, left[-1:]])
