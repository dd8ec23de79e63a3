"""Allocations of published certificates: every method on MNIST and CIFAR-10, each answer verified.

SRS_DATA=... python benchmarks/tables.py

R_j is the largest certified radius of test image j over sigma 0.25, 0.5 and 1.0 (0 where all abstain).
"""

from __future__ import annotations

import argparse

import numpy as np
from _common import Row, data_folder, load, markdown_table, write_markdown, write_rows

import regions

INSTANCES = (("mnist", "catrs"), ("cifar10", "catrs"), ("cifar10", "salman"), ("cifar10", "cohen"))
ORDERS = ("ascending", "descending", "arrival")


def measure(dataset: str, model: str) -> Row:
    """One row: sizes of the overlap graph, and the sum of radii of every method."""
    points, bounds = load(dataset, model)
    graph = regions.overlap_graph(points, bounds.R)
    by_sigma = regions.overlap_graph(points, bounds.R, groups=bounds.sigma)
    allocations = {"lp": regions.allocate_graph(graph)}
    allocations |= {order: regions.allocate_graph(graph, "greedy", order=order) for order in ORDERS}
    allocations["lp_groups_sigma"] = regions.allocate_graph(by_sigma)
    for name, allocation in allocations.items():
        groups = bounds.sigma if name == "lp_groups_sigma" else None
        check = regions.verify(points, allocation.radii, bounds.R, groups=groups)
        if not check:
            raise SystemExit(f"{dataset} {model}, {name}: {check.status}")
    lp, grouped = allocations["lp"], allocations["lp_groups_sigma"]
    return {
        "instance": f"{dataset} {model}",
        "n": graph.n,
        "certified": int(np.count_nonzero(bounds.R)),
        "edges": graph.n_edges,
        "points_with_edge": int(np.count_nonzero(graph.degree)),
        "largest_degree": int(graph.degree.max()),
        "sum_R": float(bounds.R.sum()),
        **{name: allocation.objective for name, allocation in allocations.items()},
        "lp_gap": lp.gap,
        "edges_groups_sigma": by_sigma.n_edges,
        "lp_groups_sigma_gap": grouped.gap,
        "verified": sorted(allocations),
    }


def main() -> None:
    """Measure every instance and write the rows and the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    data_folder()  # complain before any work
    rows = [measure(*instance) for instance in INSTANCES]
    write_rows("tables", rows)
    write_markdown("tables", "Allocations of published certificates", [table(rows), NOTE])


NOTE = """Points are test images flattened to [0, 1]. R_j is the largest radius certified for image j over sigma 0.25,
0.5 and 1.0 (N = 100,000, alpha = 0.001, logs of alinlab/smoothing-catrs, whose radii are rounded to three digits), 0
where all abstain; "certified" counts R_j > 0.
CIFAR-10 images are JPEG copies (quality 75), so pixels differ slightly from those the certificates were made for.
"LP" to "arrival" are sums of radii where every pair conflicts; with groups = sigma, images of equal sigma may overlap.
Every allocation passed `regions.verify` with zero tolerance, and every LP's gap to its dual bound is below 1e-9.
"sum R" ignores overlaps. Greedy may leave an empty ball inside another one, which Eq. 10 does not allow.
"""


def table(rows: list[Row]) -> str:
    """One column for every instance: there are more quantities than instances."""
    names = {
        "n": "images",
        "certified": "certified",
        "edges": "edges",
        "points_with_edge": "points with an edge",
        "largest_degree": "largest degree",
        "sum_R": "sum R",
        "lp": "LP (Eq. 10)",
        "ascending": "greedy, ascending degree",
        "descending": "greedy, descending degree",
        "arrival": "greedy, arrival",
        "edges_groups_sigma": "edges, groups = sigma",
        "lp_groups_sigma": "LP, groups = sigma",
    }
    worst = max(gap for row in rows for gap in (row["lp_gap"], row["lp_groups_sigma_gap"]))
    if worst > 1e-9:
        raise SystemExit(f"an LP has a gap of {worst}: the note under the table would be wrong")
    body = [
        [title, *(f"{row[key]:,.2f}" if isinstance(row[key], float) else f"{row[key]:,}" for row in rows)]
        for key, title in names.items()
    ]
    return markdown_table(["", *(row["instance"] for row in rows)], body)


if __name__ == "__main__":
    main()
