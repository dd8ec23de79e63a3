"""Levels and radii together: `regions.allocate_levels` next to the simple answers.

SRS_DATA=... python benchmarks/bench_levels.py [--repeat 3]

MNIST: the test images, and radius estimates of one noise-conditional network at 7 noise levels (mnist_levels.npz).
Clusters: normal clusters around uniform centres; every point has a noise level that suits it best, and is certified
less the further a level is from it.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from _common import Row, data_folder, markdown_table, mnist_test, spread, write_markdown, write_rows

import regions

CLUSTERED = {"clusters, K = 4": (1_000, 4), "clusters, K = 18": (1_000, 18)}
INSTANCES = ("mnist", "mnist, class groups", *CLUSTERED)
SEED = 20260101
JOINT: dict[str, dict[str, Any]] = {"joint": {}, "joint, rounds=3": {"rounds": 3}}


def problem(instance: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Points, levels, bounds (n, K), and groups."""
    if instance in CLUSTERED:
        n, K = CLUSTERED[instance]
        rng = np.random.default_rng(SEED)
        centres = rng.random((100, 8))
        points = centres[rng.integers(100, size=n)] + 0.05 * rng.standard_normal((n, 8))
        levels = np.linspace(0.1, 1.0, K)
        off = np.abs(levels - rng.uniform(0.1, 1.0, (n, 1)))
        return points, levels, 0.3 * levels * np.maximum(0.0, 1.0 - 2.0 * off), None
    with np.load(data_folder() / "mnist_levels.npz") as file:
        groups = file["predict"] if instance.endswith("class groups") else None
        return mnist_test(), file["sigma"], file["radius"].astype(np.float64), groups


def run_instance(instance: str, repeat: int) -> list[Row]:
    """The joint choice, and what the simple ones reach on the same bounds."""
    points, levels, R, groups = problem(instance)
    best = R.argmax(axis=1)
    rows = np.arange(len(R))
    labels = [best] if groups is None else [best, groups[rows, best]]
    simple = {
        "best levels, every pair conflicts": regions.allocate(points, R.max(axis=1), "matching").objective,
        "best levels, groups": regions.allocate(points, R.max(axis=1), "matching", groups=labels).objective,
        "best common level": float(R.sum(axis=0).max()),
        "nothing conflicts (no solution)": float(R.max(axis=1).sum()),
    }
    found: list[Row] = [
        {"benchmark": "levels", "instance": instance, "contender": name, "objective": objective}
        for name, objective in simple.items()
    ]
    for contender, options in JOINT.items():
        began = time.perf_counter()
        answer = regions.allocate_levels(points, levels, R, groups=groups, **options)
        first = time.perf_counter() - began
        runs = [regions.allocate_levels(points, levels, R, groups=groups, **options) for _ in range(repeat)]
        chosen = [answer.level] if groups is None else [answer.level, groups[rows, answer.level]]
        if not regions.verify(points, answer.radii, R[rows, answer.level], groups=chosen):
            raise SystemExit(f"{instance}: the balls of {contender} overlap")
        if {run.objective for run in runs} != {answer.objective}:
            raise SystemExit(f"{instance}: {contender} is not deterministic")
        stages = ("graph", "search", "bound")
        found.append(
            {
                "benchmark": "levels",
                "instance": instance,
                "contender": contender,
                "objective": answer.objective,
                "upper_bound": answer.upper_bound,
                "gap": answer.gap,
                "edges": answer.stats["edges"],
                "points_in_conflict": answer.stats["points_in_conflict"],
                "first_call_seconds": first,
                **{f"seconds_{s}": spread([run.stats[f"seconds_{s}"] for run in runs]) for s in stages},
            }
        )
    return found


def main() -> None:
    """Run all instances and write the rows and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3, help="timed rounds (default: 3)")
    parser.add_argument("--instances", nargs="+", default=INSTANCES, choices=INSTANCES)
    given = parser.parse_args()
    rows = [row for instance in given.instances for row in run_instance(instance, given.repeat)]
    write_rows("levels", rows)
    write_markdown("levels", "Levels and radii together", [table(rows), NOTE])


NOTE = f"""Objective: sum of the radii. Bound: no choice of levels and radii has a larger sum. Seconds:
median (smallest to largest) of the timed calls of `allocate_levels`, which follow one that also compiles; the search
for near pairs is reported apart. "Nothing conflicts" is the sum of every point's largest bound. Clusters: 1,000 points,
seed {SEED}. Every answer is checked by `regions.verify`.
"""


def table(rows: list[Row]) -> str:
    """One line for every instance and contender."""
    header = ["instance", "contender", "objective", "bound", "gap", "graph, s", "search, s", "bound, s"]
    lines = []
    for row in rows:
        joint = "gap" in row
        lines.append(
            [
                row["instance"],
                row["contender"],
                f"{row['objective']:,.2f}",
                f"{row['upper_bound']:,.2f}" if joint else "",
                f"{row['gap']:.2%}" if joint else "",
                *(seconds(row[f"seconds_{stage}"]) if joint else "" for stage in ("graph", "search", "bound")),
            ]
        )
    return markdown_table(header, lines, words=2)


def seconds(values: Row) -> str:
    """Median and extremes."""
    return f"{values['median']:.2f} ({values['min']:.2f} to {values['max']:.2f})"


if __name__ == "__main__":
    main()
