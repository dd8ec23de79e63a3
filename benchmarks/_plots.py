"""Figures of the benchmarks: Okabe and Ito's colours, which people with any colour vision tell apart, and markers."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from _common import Row

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

# contender: colour, marker
STYLES = {
    "regions, matching": ("#0072B2", "o"),
    "regions, LP": ("#56B4E9", "s"),
    "linprog, all rows": ("#D55E00", "^"),
    "cvxpy, Clarabel": ("#CC79A7", "v"),
    "OR-tools, GLOP": ("#E69F00", "D"),
    "OR-tools, PDLP": ("#B8A800", "P"),
    "OR-tools, assignment": ("#009E73", "X"),
    "lapx, lapmod": ("#000000", "*"),
}


def plot_allocation(rows: list[Row], limit: float, path: Path) -> None:
    """Seconds against edges for every contender of `STYLES`; calls that were given up are hollow, at the limit."""
    fig, ax = plt.subplots(figsize=(9.5, 5.6), layout="constrained")
    rows = [row for row in rows if row["benchmark"] == "allocate_graph"]
    for name, (colour, marker) in STYLES.items():
        these = sorted((row for row in rows if row["contender"] == name), key=lambda row: row["edges"])
        done = [row for row in these if "failed" not in row]
        lost = [row for row in these if row.get("failed", "").startswith("did not finish")]
        if not done and not lost:
            continue
        edges, seconds = [row["edges"] for row in done], [row["spread"]["median"] for row in done]
        ax.plot(edges, seconds, color=colour, marker=marker, markersize=7, linewidth=0.6, alpha=0.9, label=name)
        given_up = [row["edges"] for row in lost], [limit] * len(lost)
        ax.plot(*given_up, marker, color=colour, fillstyle="none", markersize=8)
    ax.axhline(limit, color="0.6", linewidth=0.8, linestyle=":")
    ax.set(xscale="log", yscale="log", xlabel="edges of the overlap graph", ylabel="seconds")
    ax.grid(True, which="major", color="0.9")
    name_instances(ax, {row["instance"]: row["edges"] for row in rows})
    ax.legend(fontsize=8.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    path.parent.mkdir(exist_ok=True)
    fig.savefig(path, dpi=150, facecolor="white", metadata={"Software": None})
    plt.close(fig)


def name_instances(ax: Axes, edges: dict[str, int]) -> None:
    """Write names above their numbers of edges, moved to the right where they would run into each other."""
    to_axes = ax.transData + ax.transAxes.inverted()
    last = -1.0
    for instance, count in sorted(edges.items(), key=lambda item: item[1]):
        x = float(to_axes.transform((count, 1.0))[0])
        last = max(x, last + 0.035)
        ax.plot([x, last], [1.0, 1.035], color="0.6", linewidth=0.7, transform=ax.transAxes, clip_on=False)
        ax.text(last, 1.04, instance, rotation=35, fontsize=8, ha="left", va="bottom", transform=ax.transAxes)
