"""Draw the figures of the README and the guide: python docs/make_figures.py [RUN].

`result.png`: what every rule certifies in RUN, the folder of a finished `srs-certify` without flags; only where it is
named. `allocation.png`: points in the plane with their upper-bound balls, the LP's allocation, and a greedy one.
`architecture.png`: the way of the data through the packages. `gallery-*.png`: what the gallery's examples draw.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np

import regions
from srs.modes import OVERLAPPING, short_title
from srs.report.numbers import floored

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch

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


def draw(ax: Axes, points: np.ndarray, radii: np.ndarray, colour: str, title: str, total: float) -> None:
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


def result(run: Path) -> None:
    """The average certified radius of every rule with its 95% interval, best at the top but for what proves nothing."""
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    rules = summary["rules"]
    mean = {name: rule["average_certified_radius"] for name, rule in rules.items()}
    names = [OVERLAPPING, *sorted(rules.keys() - {OVERLAPPING}, key=lambda name: -mean[name])]
    fig, ax = plt.subplots(figsize=(8.6, 3.9), layout="constrained")
    for y, name in enumerate(names):
        low, high = rules[name]["average_certified_radius_interval"]
        main, constant, unsound = name == summary["main"], name.startswith("sigma="), name == OVERLAPPING
        colour = LP if main else "#7b8794" if constant or unsound else BEFORE
        ax.plot([low, high], [y, y], color=colour, lw=2.6 if main else 1.4, solid_capstyle="round")
        face = "white" if unsound else colour
        ax.plot(mean[name], y, "o", color=colour, markerfacecolor=face, markersize=8 if main else 6)
        ax.text(high + 0.006, y, floored(mean[name], 3), va="center", fontsize=9.5, color=INK,
                fontweight="bold" if main else "normal")  # fmt: skip
    labels = [short_title(name) + " for all" * name.startswith("sigma=") for name in names]
    labels[0] = "overlapping: proves nothing"
    labels[names.index(summary["main"])] += " (the default)"
    ax.set_yticks(range(len(names)), labels, fontsize=9.5, color=INK)
    for label, name in zip(ax.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if name == summary["main"] else "normal")
    ax.invert_yaxis()
    ax.set_xlabel("average certified l2 radius on 360 images of digits, with 95% interval", fontsize=9.5, color=INK)
    ax.tick_params(length=0, labelsize=9.5, colors=INK)
    ax.grid(axis="x", color="#e4e7eb", lw=0.8)
    ax.set_axisbelow(True)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    fig.savefig(IMAGES / "result.png", dpi=130, facecolor="white", metadata={"Software": None})
    plt.close(fig)


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


#: Steps by name: where they stand, the package that does them, and what they do.
STEPS = {
    "train": (0.0, 2.0, "training", "base classifier\nf"),
    "select": (2.5, 2.0, "smoothing", "choose sigma\nand class"),
    "certify": (5.0, 2.0, "smoothing", "certify with\nfresh samples"),
    "allocate": (7.5, 2.0, "regions", "size regions:\nno conflict overlaps"),
    "map": (10.0, 2.0, "regions", "which region\nholds x?"),
    "report": (7.5, 0.0, "srs", "report: certified\nradius min(R, r)"),
    "predict": (10.0, 0.0, "srs", "G(x): vote at the\nregion's sigma"),
}
FLOWS = [
    ("train", "select", "logits"),
    ("select", "certify", "sigma,\nclass"),
    ("certify", "allocate", "R"),
    ("allocate", "map", "r, sigma"),
    ("map", "predict", "sigma of x"),
    ("allocate", "report", "r"),
    ("certify", "report", "R"),
]
PACKAGES = {"training": "#CC79A7", "smoothing": LP, "regions": GREEDY, "srs": BEFORE}


def architecture() -> None:
    """Boxes for the steps, arrows for the arrays that go from one to the next."""
    width, height = 1.75, 0.95
    fig, ax = plt.subplots(figsize=(11.4, 3.3), layout="constrained")
    for x, y, package, text in STEPS.values():
        colour = PACKAGES[package]
        corner = (x - width / 2, y - height / 2)
        style = "round,pad=0,rounding_size=0.12"
        face = mpl.colors.to_rgba(colour, 0.14)
        ax.add_patch(FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=face, edgecolor=colour, lw=1.4))
        ax.text(x, y, text, ha="center", va="center", fontsize=9.5, color=INK)
        ax.text(x, y + height / 2 + 0.08, package, ha="center", fontsize=9, color=colour, fontweight="bold")
    for start, end, what in FLOWS:
        (x0, y0, *_), (x1, y1, *_) = STEPS[start], STEPS[end]
        level, down = y0 == y1, x0 == x1
        tail = (x0 + width / 2, y0) if level else (x0, y0 - height / 2)
        head = (x1 - width / 2, y1) if level else (x1, y1 + height / 2 + 0.3) if down else (x1 - width / 2, y1)
        bend = "arc3" if level or down else "angle,angleA=-90,angleB=180,rad=6"
        arrow = FancyArrowPatch(
            tail,
            head,
            arrowstyle="-|>",
            mutation_scale=11,
            color=INK,
            lw=1.1,
            connectionstyle=bend,
            shrinkA=1,
            shrinkB=1,
        )
        ax.add_patch(arrow)
        if level:
            ax.text((tail[0] + head[0]) / 2, y0 + 0.08, what, ha="center", va="bottom", fontsize=8.5, color=INK)
        else:
            ax.text(x0 + 0.08, (tail[1] + max(head[1], 0.4)) / 2, what, va="center", fontsize=8.5, color=INK)
    ax.text(0.0, 0.95, "images", ha="center", fontsize=9.5, color=INK)
    for x in (0.0, 2.5):
        ax.add_patch(
            FancyArrowPatch((0.35, 1.0), (x, 1.5), arrowstyle="-|>", mutation_scale=11, color="#7b8794", lw=1.0)
        )
    ax.set_xlim(-1.0, 11.0)
    ax.set_ylim(-0.6, 2.8)
    ax.set_aspect("equal")
    ax.set_axis_off()
    IMAGES.mkdir(exist_ok=True)
    fig.savefig(IMAGES / "architecture.png", dpi=160, facecolor="white", metadata={"Software": None})
    plt.close(fig)


def gallery() -> None:
    """Run the Python of the gallery, and save every picture that it leaves as the next one that the page shows."""
    page = IMAGES.with_name("gallery.md")
    names: dict[str, object] = {}
    for found in re.finditer(
        r"^```python\n(.*?)^```$|^!\[[^\n]*\]\(([^\n)]*)\)$", page.read_text("utf-8"), re.M | re.S
    ):
        if found[1] is not None:
            exec(found[1], names)
            continue
        figure = plt.gcf()
        figure.savefig(page.parent / found[2], dpi=110, facecolor="white", metadata={"Software": None})
        plt.close(figure)


if __name__ == "__main__":
    if sys.argv[1:]:
        result(Path(sys.argv[1]))
    allocation()
    architecture()
    gallery()
