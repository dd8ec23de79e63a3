"""Balls in the plane, drawn by Matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64, Real
from numpy.typing import ArrayLike

from regions import _validate
from regions.extras import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Okabe and Ito's colours, which people with any colour vision tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
INK = "#1f2933"


def plot(
    points: ArrayLike,
    radii: ArrayLike,
    R: ArrayLike | None = None,
    *,
    groups: Any = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw balls in the plane: filled discs, a dot at every centre, a cross where the ball is empty.

    Parameters
    ----------
    points : array-like, shape (n, 2)
        Centres.
    radii : array-like, shape (n,)
        Radii, in the units of `points`.
    R : array-like, shape (n,), default=None
        Upper bounds of the radii, drawn as thin circles around the discs.
    groups : array-like, shape (n,), default=None
        Labels. Discs of one label have one colour; from the eighth label on, colours are used again.
    ax : matplotlib Axes, default=None
        Where to draw. None: new axes of a new pyplot figure.

    Returns
    -------
    matplotlib Axes
        With equal scales in both directions; what else it shows is yours to add.

    Raises
    ------
    ValueError
        If an argument is not as described; the message names the value.
    MissingExtra
        An `ImportError`, if Matplotlib is not installed; the message says how to install it.

    Examples
    --------
    >>> axes = plot([[0.0, 0.0], [3.0, 0.0]], [1.0, 2.0])  # doctest: +SKIP
    """
    need("plot", "regions.plot")
    x = _validate.as_points(points)
    if len(x) and x.shape[1] != 2:
        raise ValueError(f"points has shape {x.shape}: regions.plot draws the plane, (n, 2); choose two coordinates")
    r = _validate.as_radii(radii, len(x), "radii")
    bounds = None if R is None else _validate.as_radii(R, len(x))
    labels = _validate.as_groups(groups, len(x))
    if len(labels) > 1:
        raise ValueError(f"groups holds {len(labels)} arrays of labels: discs have one colour; give one array")
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.subplots()[1]
    x = x.reshape(len(x), 2)
    colours = np.array(COLOURS)[(labels[0] if labels else np.zeros(len(x), dtype=np.int64)) % len(COLOURS)]
    if bounds is not None:
        _circles(ax, x, bounds, facecolors="none", edgecolors=colours, linewidths=0.6, alpha=0.6)
    _circles(ax, x, r, facecolors=colours, edgecolors="none", alpha=0.25)
    _circles(ax, x, r, facecolors="none", edgecolors=colours, linewidths=1.2)
    filled = r > 0
    ax.plot(*x[filled].T, ".", color=INK, markersize=3)
    ax.plot(*x[~filled].T, "x", color=INK, markersize=5, markeredgewidth=1.2)
    reach = (r if bounds is None else np.maximum(r, bounds))[:, None]
    ax.update_datalim(np.concatenate([x - reach, x + reach]))
    ax.set_aspect("equal")
    ax.autoscale_view()
    return ax


def _circles(ax: Axes, x: Real[np.ndarray, "n 2"], radii: Float64[np.ndarray, " n"], **style: Any) -> None:
    from matplotlib.collections import EllipseCollection

    size = 2 * radii
    circles = EllipseCollection(
        size, size, np.zeros(len(x)), units="xy", offsets=x, offset_transform=ax.transData, **style
    )
    ax.add_collection(circles, autolim=False)
