"""What a run leaves behind: rows first; the summary, the printed table and the figure are derived from the rows.

Files: `certificates.tsv` (the run's certificates), `comparison.tsv` (the same for every rule it is compared with),
`summary.json`, `regions.npz` (the region map) and `curves.png`.
"""

import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from rich.table import Table

import regions
from smoothing import ABSTAIN
from smoothing.tables import CertificateTable, floor_text, write_certificates, write_rows
from srs.metrics import average_certified_radius, certified_accuracy, radius_grid
from srs.pipeline import Run, allocated

#: How the rules are named for readers. Overlapping regions prove nothing: they bound what an allocation can reach.
TITLES = {
    "overlapping": "overlapping (unsound)",
    "ascending": "sample-wise, ascending",
    "descending": "sample-wise, descending",
    "lp": "sample-wise, LP",
    "lp-groups": "LP, one sigma may overlap",
}

_DISTRIBUTIONS = ("srs-certify", "numpy", "scipy", "torch", "scikit-learn", "highspy", "faiss-cpu")


@dataclass(frozen=True, eq=False)
class Rows:
    """Certified predictions of one rule, one row per image, radii already rounded down as in the files.

    Attributes
    ----------
    predict : int array of shape (n,)
        Class or -1.
    radius : array of shape (n,)
        Certified l2 radius; 0 where abstained.
    correct : int array of shape (n,)
        1 where predict is the label.
    """

    predict: Int64[np.ndarray, " n"]
    radius: Float64[np.ndarray, " n"]
    correct: Int64[np.ndarray, " n"]


def main_rule(run: Run) -> str:
    """Return the allocation that the run certifies with: the LP; on a grid of one level, that where it may overlap."""
    return "lp" if len(run.levels.sigmas) > 1 else "lp-groups"


def comparison(run: Run) -> dict[str, Rows]:
    """Return the rows of every rule: each constant sigma that was certified, overlapping regions, every allocation.

    Keys are `sigma=0.1` and so on, then those of `TITLES`.
    """
    levels = run.levels
    rows = {}
    for sigma, votes in levels.constant.items():
        rows[f"sigma={sigma:g}"] = _rows(votes.predict, votes.radius, run.labels)
    predict, R = levels.chosen.predict, levels.chosen.radius
    rows["overlapping"] = _rows(predict, R, run.labels)
    for name, allocation in run.allocations.items():
        rows[name] = _rows(*allocated(predict, R, allocation.radii), run.labels)
    return rows


def certificates(run: Run, rows: Rows) -> CertificateTable:
    """Return the run's table: the six usual columns, then sigma, R, r, p_lower and region (-1 where there is none)."""
    levels = run.levels
    r = run.allocations[main_rule(run)].radii
    return CertificateTable(
        idx=run.indices,
        label=run.labels,
        predict=rows.predict,
        radius=rows.radius,
        correct=rows.correct,
        seconds=levels.seconds,
        extra={
            "sigma": levels.sigma,
            "R": levels.chosen.radius,
            "r": r,
            "p_lower": levels.chosen.p_lower,
            "region": np.where(r > 0, np.arange(len(r)), -1),
        },
    )


def summarize(run: Run, rows: dict[str, Rows]) -> dict[str, Any]:
    """Return the summary as JSON-ready values; accuracies are fractions, radii l2 in [0, 1] pixel units."""
    main = main_rule(run)
    epsilon = radius_grid(max(float(row.radius.max()) for row in rows.values()))
    return {
        "settings": {
            name: str(value) if isinstance(value, Path) else value for name, value in asdict(run.settings).items()
        },
        "data": {"name": run.data_name, "images": len(run.labels)},
        "device": run.device,
        "seed": run.settings.seed,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _DISTRIBUTIONS}},
        "guarantee": f"each sound certificate holds with probability at least 1 - {run.settings.alpha:g}, per image",
        "clean_accuracy": run.clean_accuracy,
        "main": main,
        "abstentions": int((rows[main].predict == ABSTAIN).sum()),
        "average_certified_radius": average_certified_radius(rows[main].radius, rows[main].correct),
        "epsilon": epsilon.tolist(),
        "rules": {
            name: {
                "sound": name != "overlapping",
                "abstentions": int((row.predict == ABSTAIN).sum()),
                "average_certified_radius": average_certified_radius(row.radius, row.correct),
                "certified_accuracy": certified_accuracy(row.radius, row.correct, epsilon).tolist(),
            }
            for name, row in rows.items()
        },
        "allocations": {name: _describe(allocation) for name, allocation in run.allocations.items()},
        "seconds": dict(run.seconds),
    }


def write(run: Run, folder: Path) -> dict[str, Any]:
    """Write all files of a run into an existing empty folder and return the summary."""
    from srs.figures import draw_curves  # matplotlib takes a second to import

    rows = comparison(run)
    summary = summarize(run, rows)
    main = main_rule(run)
    write_certificates(folder / "certificates.tsv", certificates(run, rows[main]))
    write_rows(folder / "comparison.tsv", ("rule", "idx", "predict", "radius", "correct"), _comparison_rows(run, rows))
    r, sigma = run.allocations[main].radii, run.levels.sigma
    regions.RegionMap(run.points, r, sigma, classes=rows[main].predict).save(folder / "regions.npz")
    draw_curves({title(name): row for name, row in rows.items()}, folder / "curves.png")
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    return summary


def title(rule: str) -> str:
    """Return how a rule is named for readers."""
    return TITLES.get(rule) or rule.replace("=", " = ")


def results_table(summary: dict[str, Any]) -> Table:
    """Return the table that the command prints: certified accuracy in percent at every epsilon, per rule."""
    table = Table(title="Certified accuracy (%) at l2 radius", box=None, pad_edge=False, header_style="bold")
    table.add_column("rule", no_wrap=True)
    for name in ("ACR", "abstain", *(f"{epsilon:.2f}" for epsilon in summary["epsilon"])):
        table.add_column(name, justify="right", no_wrap=True)
    for rule, result in summary["rules"].items():
        cells = [f"{100 * value:.1f}" if value else "-" for value in result["certified_accuracy"]]
        style = "bold" if rule == summary["main"] else "dim" if not result["sound"] else None
        acr = f"{float(floor_text(result['average_certified_radius'], 3)):.3f}"
        table.add_row(title(rule), acr, str(result["abstentions"]), *cells, style=style)
    return table


def _rows(predict: Int64[np.ndarray, " n"], radius: Float64[np.ndarray, " n"], labels: Int64[np.ndarray, " n"]) -> Rows:
    floored = np.array([float(floor_text(value)) for value in radius.tolist()])
    return Rows(predict, floored, (predict == labels).astype(np.int64))


def _comparison_rows(run: Run, rows: dict[str, Rows]) -> list[tuple[str, ...]]:
    return [
        (rule, str(idx), str(predict), floor_text(radius), str(correct))
        for rule, row in rows.items()
        for idx, predict, radius, correct in zip(
            run.indices.tolist(), row.predict.tolist(), row.radius.tolist(), row.correct.tolist(), strict=True
        )
    ]


def _describe(allocation: regions.Allocation) -> dict[str, Any]:
    return {
        "objective": allocation.objective,
        "upper_bound": allocation.upper_bound,
        "gap": allocation.gap,
        "method": allocation.method,
        "status": allocation.status,
        "edges": len(allocation.graph.i),
        "stats": dict(allocation.stats),
    }
