"""Draw the figures of the README and the guide: python docs/make_figures.py.

`allocation.png`: points in the plane with their upper-bound balls, the LP's allocation, and a greedy one.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np

import regions

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.collections import PatchCollection
from matplotlib.patches import Circle

IMAGES = Path(__file__).parent / "images"
SEED = 987  # a picture in which every ball of the optimum can be seen
INK = "#1f2933"
# Okabe and Ito's colours, which people with any colour vision tell apart
BEFORE, LP, GREEDY = "#D55E00", "#0072B2", "#009E73"


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Two loose clusters and a few strays, with upper bounds that overlap."""
    rng = np.random.default_rng(SEED)
    left = rng.normal((-1.6, 0.1), 0.8, (9, 2))
    right = rng.normal((1.6, -0.1), 0.7, (8, 2))
    strays = rng.uniform((-3.2, -1.6), (3.2, 1.6), (5, 2))
    points = np.concatenate([left, right, strays])
    return points, rng.uniform(0.3, 0.8, len(points))


def draw(ax: plt.Axes, points: np.ndarray, radii: np.ndarray, colour: str, title: str, total: float) -> None:
    """Balls and centres; an empty ball is a cross."""
    filled = radii > 0
    circles = [Circle(x, r) for x, r in zip(points[filled], radii[filled], strict=True)]
    fill = mpl.colors.to_rgba(colour, 0.22)
    ax.add_collection(PatchCollection(circles, facecolor=fill, edgecolor=colour, linewidth=1.2))
    ax.plot(*points[filled].T, ".", color=INK, markersize=3.5)
    ax.plot(*points[~filled].T, "x", color=INK, markersize=5, markeredgewidth=1.3)
    ax.set_title(title, fontsize=11.5, color=INK, fontweight="bold", pad=22)
    empty = "" if filled.all() else f", no region for {np.count_nonzero(~filled)} points (crosses)"
    ax.text(0.5, 1.03, f"sum of radii {total:.2f}{empty}", transform=ax.transAxes, ha="center", fontsize=10, color=INK)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_color("#cbd2d9")


def allocation() -> None:
    """Upper bounds, LP and greedy, side by side."""
    points, R = scene()
    graph = regions.overlap_graph(points, R)
    lp = regions.allocate_graph(graph, "lp")
    greedy = regions.allocate_graph(graph, "greedy", order="arrival")
    fig, axes = plt.subplots(1, 3, figsize=(11.4, 3.55), sharex=True, sharey=True, layout="constrained")
    draw(axes[0], points, R, BEFORE, "Upper bounds $R$: they overlap", R.sum())
    for i, j in zip(graph.i, graph.j, strict=True):
        axes[0].plot(*points[[i, j]].T, color=INK, linewidth=0.6, alpha=0.45, zorder=1)
    draw(axes[1], points, lp.radii, LP, 'method="lp": the optimum', lp.objective)
    draw(axes[2], points, greedy.radii, GREEDY, 'method="greedy", order="arrival"', greedy.objective)
    low, high = (points - R[:, None]).min(axis=0), (points + R[:, None]).max(axis=0)
    axes[0].set_xlim(low[0] - 0.15, high[0] + 0.15)
    axes[0].set_ylim(low[1] - 0.15, high[1] + 0.15)
    IMAGES.mkdir(exist_ok=True)
    fig.savefig(
        IMAGES / "allocation.png",
        dpi=160,
        facecolor="white",
        bbox_inches="tight",
        pad_inches=0.08,
        metadata={"Software": None},
    )
    plt.close(fig)


if __name__ == "__main__":
    allocation()
