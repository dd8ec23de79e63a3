"""What an attack leaves behind: figures of merit, one row per image, curves, and the points that break certificates."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from regions.files import write_arrays
from smoothing import ABSTAIN
from smoothing.storage import replacing
from smoothing.tables import floor_text, write_rows
from srs import __version__
from srs.attack.attack import Found
from srs.report.numbers import raised
from srs.report.steps import IN_FILE, against_radius, lines_beyond
from srs.report.svg import save

SUMMARY, ROWS, CURVES, BREAKS = "attack.json", "attack.tsv", ("attack.svg", "attack.pdf"), "breaks.npz"

#: All files that `write` may make.
FILES = frozenset({SUMMARY, ROWS, *CURVES, BREAKS})

#: Columns of `attack.tsv`.
COLUMNS = (
    "idx", "label", "predict", "radius", "points", "breaks", "undecided", "unanswered", "farthest", "misled_at",
    "failed_at",
)  # fmt: skip


def described(found: Found) -> dict[str, Any]:
    """Return what an attack found, ready for JSON; accuracies are fractions, radii l2 in pixels in [0, 1]."""
    settings, verdict = found.settings, found.verdict
    return {
        "run": str(settings.run),
        "regions": found.target.table.content_hash,
        "version": __version__,
        "seed": found.seed,
        "images": verdict.attacked,
        "balls": verdict.balls,
        "points_inside": verdict.points,
        "breaks": verdict.breaks,
        "undecided": verdict.undecided,
        "unanswered": verdict.unanswered,
        "certificates_broken": verdict.broken,
        "alpha": verdict.alpha,
        "simultaneous": verdict.simultaneous,
        "significance": verdict.significance,
        "alpha_of_each_prediction": found.alpha,
        "p_value": verdict.p_value,
        "consistent": verdict.consistent,
        "verdict": verdict.sentence,
        "steps": settings.steps,
        "samples": settings.samples,
        "restarts": settings.restarts,
        "n": settings.n,
        "reach": found.reach,
        "accuracy": found.curves(),
    }


def rows(found: Found) -> Iterator[tuple[str, ...]]:
    """Yield one row per image: distances beyond the ball are rounded up, "-" where nothing was found."""
    target, points, within = found.target, found.points, found.in_ball
    undecided = within & found.held & (found.answers == ABSTAIN)
    misled, failed = found.misled_at, found.failed_at
    for j in range(len(target.idx)):
        mine = points.owner == j
        inside = mine & within
        yield (
            str(target.idx[j]),
            str(target.label[j]),
            str(target.predict[j]),
            floor_text(float(target.radius[j])),
            *(str(int((mine & some).sum())) for some in (within, found.breaks, undecided, found.unanswered)),
            floor_text(float(points.distance[inside].max(initial=0.0))),
            *(raised(float(far[j]), 6) if np.isfinite(far[j]) else "-" for far in (misled, failed)),
        )


def curves(found: Found) -> Figure:
    """Draw the certified accuracy below what the attack leaves: the truth lies between them."""
    target = found.target
    certified = np.where(target.predict == target.label, target.radius, 0.0)
    lines = {"certified (lower bound)": certified, "under attack (upper bound)": found.failed_at}
    if (found.failed_at < found.misled_at).any():
        lines["the same, abstaining counts as safe"] = found.misled_at
    what = "Accuracy against radius: certified, and under attack"
    return against_radius(lines_beyond(lines, found.reach), IN_FILE, what, "accuracy (%)").figure


def write(found: Found, folder: Path) -> None:
    """Write all files into a folder, `attack.json` last."""
    save(curves(found), *(folder / name for name in CURVES))
    write_rows(folder / ROWS, COLUMNS, rows(found))
    if (some := found.breaks | found.unanswered).any():
        owner = found.points.owner[some]
        write_arrays(
            folder / BREAKS,
            {
                "images": found.points.pixels[some],
                "idx": found.target.idx[owner],
                "predict": found.answers[some],
                "certified": found.target.predict[owner],
                "distance": found.points.distance[some],
            },
        )
    with replacing(folder / SUMMARY) as stream:
        stream.write(json.dumps(described(found), indent=2).encode() + b"\n")
