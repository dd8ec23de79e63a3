"""Table 6 of the paper and beyond: what every way of sizing regions certifies, on published certification logs.

SRS_DATA=... python benchmarks/table6.py

Every model was certified at sigma 0.25, 0.5 and 1.0 by its authors; R_jk is the radius of test image j at sigma k, 0
where it abstains. Each way chooses a sigma for every image and a radius up to R at that sigma. Allocations are checked
by `regions.verify`; a certified radius counts where the predicted class is the label.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from _common import (
    DOCS,
    SIGMAS,
    Bounds,
    Logs,
    Row,
    certification_logs,
    cifar10_test,
    data_folder,
    markdown_table,
    mnist_test,
    write_markdown,
    write_rows,
)

import regions
from smoothing.confidence import certified_radius, lower_confidence_bound, shared_alpha
from srs.evaluation.metrics import LAST, STEP, average_certified_radius, certified_accuracy
from srs.report.numbers import floored, percent

INSTANCES = (("mnist", "catrs"), ("cifar10", "catrs"), ("cifar10", "salman"), ("cifar10", "cohen"))
LEVELS = np.array(SIGMAS, dtype=np.float64)
GRID = np.arange(round(LAST / STEP) + 1) * STEP
SAMPLES, ALPHA = 100_000, 0.001  # of the logs
ROUNDED = 0.0005  # radii in the logs are rounded to three digits


def simultaneous(logs: Logs) -> Logs:
    """The same logs at level alpha / (3 n), so that all certificates hold at once with probability 1 - alpha.

    The fewest votes that certify a radius which rounds to the printed one are at most those that were counted; they
    give the radius at the smaller level.
    """
    least = logs.radius - ROUNDED
    low, high = np.zeros(least.shape, dtype=np.int64), np.full(least.shape, SAMPLES)
    while (high > low).any():
        middle = (low + high) // 2
        enough = certified_radius(LEVELS, lower_confidence_bound(middle, SAMPLES, ALPHA)) >= least
        low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
    p_lower = lower_confidence_bound(high, SAMPLES, shared_alpha(ALPHA, high.size))
    radius = np.where(logs.radius > 0, certified_radius(LEVELS, p_lower), 0.0)
    return replace(logs, radius=radius, predict=np.where(radius > 0, logs.predict, -1))


def ways(points: np.ndarray, logs: Logs) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For every way its radii and classes; all but the overlapping ones are checked."""
    at_once = simultaneous(logs)
    check = Check(points, logs.radius.max(axis=1))
    best, best_at_once = Bounds.best(logs), Bounds.best(at_once)
    found = {f"sigma = {sigma}": (logs.radius[:, k], logs.predict[:, k]) for k, sigma in enumerate(SIGMAS)}
    found["overlapping"] = (best.R, best.predict)
    graph = regions.overlap_graph(points, best.R)
    for order in ("descending", "ascending", "arrival"):
        found[order] = (regions.allocate_graph(graph, "greedy", order=order).radii, best.predict)
    found["LP"] = (regions.allocate_graph(graph).radii, best.predict)
    for name in ("descending", "ascending", "arrival", "LP"):
        check(name, found[name][0], best.R)

    for name, given, bounds in (
        ("LP, sigma groups", [best.sigma], best),
        ("at once: LP, sigma groups", [best_at_once.sigma], best_at_once),
        ("at once: LP, sigma and class groups", [best_at_once.sigma, best_at_once.predict], best_at_once),
    ):
        radii = regions.allocate(points, bounds.R, groups=given).radii
        check(name, radii, bounds.R, given)
        found[name] = (radii, bounds.predict)
    for name, source, by_class in (
        ("joint levels", logs, False),
        ("at once: joint levels, class groups", at_once, True),
    ):
        joint = regions.allocate_levels(points, LEVELS, source.radius, groups=source.predict if by_class else None)
        pick = (np.arange(len(points)), joint.level)
        given = [joint.level, source.predict[pick]] if by_class else [joint.level]
        check(name, joint.radii, source.radius[pick], given)
        found[name] = (joint.radii, source.predict[pick])
    return found


class Check:
    """`regions.verify` of many allocations: all pairs are looked at once, for the largest radii of all.

    Pairs that do not overlap at these cannot overlap at smaller ones, so that every allocation is then verified on the
    points of the pairs that do.
    """

    def __init__(self, points: np.ndarray, largest: np.ndarray) -> None:
        self.members = np.unique(regions.verify(points, largest).overlapping)
        self.points, self.largest = points[self.members], largest

    def __call__(self, name: str, radii: np.ndarray, R: np.ndarray, groups: Sequence[np.ndarray] = ()) -> None:
        """Stop where balls overlap that must not, or exceed their bounds."""
        m = self.members
        near = regions.verify(self.points, radii[m], groups=[labels[m] for labels in groups] or None)
        if not near or (radii > R).any() or (self.largest < R).any():
            raise SystemExit(f"{name}: {near.status}; radii above their bounds: {np.count_nonzero(radii > R)}")


def measure(dataset: str, model: str, points: np.ndarray) -> list[Row]:
    """One row for every way."""
    logs = certification_logs(dataset, model)
    rows = []
    for name, (radii, predict) in ways(points, logs).items():
        correct = (predict == logs.label).astype(np.int64)
        rows.append(
            {
                "benchmark": "table6",
                "instance": f"{dataset} {model}",
                "way": name,
                "sum_of_radii": float(radii.sum()),
                "mean_radius": float(radii.mean()),
                "average_certified_radius": average_certified_radius(radii, correct),
                "certified_accuracy": certified_accuracy(radii, correct, GRID).tolist(),
            }
        )
    return rows


def main() -> None:
    """Measure every model and write the rows and the tables."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    data_folder()  # complain before any work
    points = {"mnist": mnist_test(), "cifar10": cifar10_test(certification_logs("cifar10", "catrs").label)}
    parts, rows = [], []
    for dataset, model in INSTANCES:
        found = measure(dataset, model, points[dataset])
        rows += found
        parts.append(f"## {dataset} {model}\n\n{table(found)}")
    write_rows("table6", rows)
    write_markdown("table6", "Ways to size regions", [NOTE, *parts], DOCS)


NOTE = f"""Points are the 10,000 test images flattened to [0, 1]; radii are l2. Each model of the logs
(alinlab/smoothing-catrs, N = {SAMPLES:,}, alpha = {ALPHA}, radii rounded to three digits) was certified at sigma
{", ".join(SIGMAS)}. CIFAR-10 images are JPEG copies (quality 75), so pixels differ slightly from those the certificates
were made for. ACR: average certified radius, errors and abstentions counting 0. Columns of numbers: percent of the
images that are classified correctly with a radius above that of the header.

- *sigma = ...*: one level for all images, as in the logs: nothing conflicts.
- *overlapping*: every image at the sigma of its largest radius, as if overlaps did no harm. **Proves nothing**; no rule
  below can exceed it with the same R.
- *descending*, *ascending*, *arrival*: greedy (Eq. 11) in these orders of degree, or by index. *LP*: Eq. 10.
- *LP, sigma groups*: regions of equal sigma may overlap. *Joint levels*: sigma and radii chosen together
  (`regions.allocate_levels`) from the three radii of each image.
- *at once*: every certificate at level alpha / (3 n), so that all hold at once with probability 1 - alpha, computed
  from the fewest votes that explain the printed radius. Only then may regions of equal *class* overlap, too. The rows
  above hold per image, with probability 1 - 3 alpha, since the best of three certificates is taken.

The sum of all radii is maximised, right or wrong: labels are not known when regions are made. So a larger mean radius
does not always mean a larger ACR. Every allocation was checked by `regions.verify`, with zero tolerance.
"""


def table(rows: list[Row]) -> str:
    """One line for every way."""
    header = ["way", "mean radius", "ACR", *(f"{epsilon:.2f}" for epsilon in GRID)]
    lines = [
        [
            row["way"],
            floored(row["mean_radius"], 4),
            floored(row["average_certified_radius"], 4),
            *(percent(accuracy, 2) for accuracy in row["certified_accuracy"]),
        ]
        for row in rows
    ]
    return markdown_table(header, lines)


if __name__ == "__main__":
    main()
