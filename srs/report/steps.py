"""Curves of steps above their legend: what a share of the images has beyond a radius, say."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from srs.evaluation.metrics import STEP
from srs.modes import short_title, title
from srs.report.numbers import floored
from srs.report.svg import SERIES, Drawing, style
from srs.text import visible

SIGMA = "\N{GREEK SMALL LETTER SIGMA}"

UNIT = "pixels in [0, 1]"


@dataclass(frozen=True)
class Look:
    """How figures look.

    Attributes
    ----------
    width : float
        In inches.
    named : callable
        How rules are named.
    size : float, default=8
        Of letters, in points.
    """

    width: float
    named: Callable[[str], str]
    size: float = 8

    @classmethod
    def of_file(cls, width: float) -> "Look":
        """Return how figures look in files of this width."""
        return cls(width, lambda rule: greek(short_title(rule)))


#: Of a file beside a table.
IN_FILE = Look(5.2, str, size=9)

#: Of the page.
ON_PAGE = Look(4.6, lambda rule: greek(title(rule)), size=9)


@dataclass(frozen=True, eq=False)
class Line:
    """A curve of steps: y[i] from x[i] on; x does not decrease."""

    name: str
    x: Float64[np.ndarray, " m"]
    y: Float64[np.ndarray, " m"]
    style: Mapping[str, Any]
    in_legend: bool = True

    def at(self, x: float) -> float:
        """Return the height of the curve at x >= x[0]."""
        return float(self.y[np.searchsorted(self.x, x, side="right") - 1])


def line_beyond(name: str, far: Float64[np.ndarray, " n"], right: float, style: Mapping[str, Any]) -> Line:
    """Return the share of the images, in percent, that count beyond x.

    Parameters
    ----------
    name : str
    far : array of shape (n,)
        The distance up to which each image counts; 0: nowhere, infinite: everywhere.
    right : float
        Where the curve ends, unless an image counts farther.
    style : mapping
        As matplotlib names it.
    """
    some = np.sort(far[far > 0])
    ends = some[np.isfinite(some)]
    left = 100 * (len(some) - np.arange(len(ends) + 1)) / len(far)
    x = np.concatenate([[0.0], ends, [max(right, ends.max(initial=0.0))]])
    return Line(name, x, np.concatenate([left, left[-1:]]), style)


def lines_beyond(far: Mapping[str, Float64[np.ndarray, " n"]], right: float = 0.0) -> list[Line]:
    """Return a line by `line_beyond` for each name; they end together, the first is the thickest."""
    right = max(right, *(float(each[np.isfinite(each)].max(initial=0.0)) for each in far.values()))
    return [
        line_beyond(name, each, right, {**series(k), "lw": 2.0 if k == 0 else 1.5})
        for k, (name, each) in enumerate(far.items())
    ]


def series(k: int) -> dict[str, Any]:
    """Return colour and dashes of the k-th of any number of curves."""
    return {"color": SERIES[k % len(SERIES)][0], "ls": SERIES[(k + k // len(SERIES)) % len(SERIES)][1]}


def against_radius(lines: Sequence[Line], look: Look, what: str, ylabel: str = "certified accuracy (%)") -> Drawing:
    """Draw curves of accuracy against the l2 radius; `what` they show is the drawing's title."""
    right = max(float(line.x[-1]) for line in lines)
    with style(look.size):
        drawing, axes = lined(lines, look, what, tall=True)
        axes.set(xlim=(0, right * 1.02 or 1), ylim=(0, 102))
        axes.set(xlabel=f"ℓ₂ radius ({UNIT})", ylabel=ylabel)
        tell_heights(drawing, axes, lines, np.arange(0, right + STEP, STEP), "radius larger than {:.2f}")
    return drawing


def lined(lines: Sequence[Line], look: Look, what: str, *, tall: bool = False) -> tuple[Drawing, Axes]:
    """Draw curves of steps above their legend, which is in as many columns as there is room for."""
    labels = [_label(line.name) for line in lines]
    widest = max(map(len, labels))
    columns = max(1, min(4, int(look.width / (0.42 + 0.0079 * (look.size - 1) * widest))))
    rows = math.ceil(sum(line.in_legend for line in lines) / columns)
    height = (0.7 if tall else 0.5) * look.width + 0.45 + rows * 0.02 * look.size
    drawing = Drawing(Figure(figsize=(look.width, height)), what)
    axes = drawing.figure.add_subplot()
    for line, label in zip(lines, labels, strict=True):
        shown = label if line.in_legend else "_"
        axes.step(line.x, line.y, where="post", label=shown, **line.style)
    drawing.figure.legend(loc="outside lower center", ncols=columns, handlelength=2.6, columnspacing=1.2)
    return drawing, axes


def tell_heights(
    drawing: Drawing, axes: Axes, lines: Sequence[Line], places: Float64[np.ndarray, " p"], what: str
) -> None:
    """Say the heights of all curves where one points, at the nearest of some places."""
    half = float(places[1] - places[0]) / 2 if len(places) > 1 else 1.0
    most = axes.get_xlim()[1]
    named = [line for line in lines if line.in_legend]
    for place in places.tolist():
        if place - half >= most:
            break
        heights = [f"{visible(line.name)}: {floored(round(line.at(place), 9), 1)}%" for line in named]
        text = "\n".join([what.format(place), *heights])
        tell(drawing, axes, max(place - half, 0.0), min(place + half, most), text)


def tell(drawing: Drawing, axes: Axes, left: float, right: float, text: str) -> None:
    """Say something where one points at a stretch of the horizontal axis."""
    limits = axes.get_xlim()
    drawing.say(axes.axvspan(left, right, facecolor="none", edgecolor="none"), text)
    axes.set_xlim(limits)


def greek(name: str) -> str:
    """Return one of our own names of rules with the letter that stands for noise levels."""
    return name.replace("sigma", SIGMA)


def _label(name: str) -> str:
    """Return a name for a legend, where $ would begin a formula and a leading _ would leave the curve out."""
    text = visible(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text
