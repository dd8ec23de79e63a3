"""What a run leaves behind, computed from its rows: certificates, comparison, summary, region map and curves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

import regions
from smoothing import ABSTAIN
from smoothing.storage import replacing
from smoothing.tables import CertificateTable, floor_text, write_certificates, write_rows
from srs.evaluation.evaluate import Results
from srs.evaluation.metrics import average_certified_radius, certified_accuracy, radius_grid
from srs.modes import OVERLAPPING, title
from srs.report.numbers import floored, percent
from srs.run.folder import CERTIFICATES, COMPARISON, CURVES, REGIONS, SUMMARY


def certificates(results: Results) -> CertificateTable:
    """Return the run's table: the six usual columns, then those of `folder.EXTRA`; region and runner_up -1: none."""
    record, r = results.record, results.radii
    rows = results.rules[results.main.name]
    at = np.arange(len(r)), record.level
    return CertificateTable(
        idx=record.idx,
        label=record.label,
        predict=rows.predict,
        radius=rows.radius,
        correct=rows.correct,
        seconds=record.seconds,
        extra={
            "sigma": results.sigma,
            "R": results.bounds.radius,
            "r": r,
            "p_lower": results.bounds.p_lower,
            "region": np.where(r > 0, np.arange(len(r)), -1),
            "counts": record.counts.last[at],
            "n": record.counts.drawn[at],
            "p_upper": results.bounds.p_upper,
            "runner_up": record.counts.runner_up[at],
            "runner_up_counts": record.counts.last_other[at],
        },
    )


def summarize(results: Results, config: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summary as JSON-ready values; accuracies are fractions, radii l2 in [0, 1] pixel units.

    Nothing in it depends on anything but the run's rows, its description and the versions of the libraries.
    """
    record, rules, main = results.record, results.rules, results.main.name
    n = len(record.idx)
    epsilon = radius_grid(max(float(row.radius.max()) for row in rules.values()))
    clean = record.clean[np.arange(n), record.level]
    return {
        "settings": dict(config),
        "data": {"name": manifest["data"]["name"], "images": n, "sha256": manifest["data"]["sha256"]},
        "classifier": dict(manifest["classifier"]),
        "device": manifest["device"],
        "seed": manifest["seed"],
        "versions": dict(manifest["versions"]),
        "alpha": results.alpha,
        "simultaneous": results.main.simultaneous,
        "guarantee": guarantee(results),
        "regions": results.table.content_hash,
        "clean_accuracy": float((clean == record.label).mean()),
        "main": main,
        "abstentions": int((rules[main].predict == ABSTAIN).sum()),
        "average_certified_radius": average_certified_radius(rules[main].radius, rules[main].correct),
        "epsilon": epsilon.tolist(),
        "rules": {
            name: {
                "sound": name != OVERLAPPING,
                "abstentions": int((row.predict == ABSTAIN).sum()),
                "average_certified_radius": average_certified_radius(row.radius, row.correct),
                "certified_accuracy": certified_accuracy(row.radius, row.correct, epsilon).tolist(),
            }
            for name, row in rules.items()
        },
        "allocations": {name: _describe(mode.allocation) for name, mode in results.modes.items()},
        "seconds": record.stages,
    }


def guarantee(results: Results) -> str:
    """Return what the run's certificates claim, in a sentence."""
    n = len(results.record.idx)
    if results.main.simultaneous:
        return (
            f"all certificates hold at once with probability at least 1 - {results.alpha:g}: each is made at "
            f"{results.alpha:g} / {n}, because regions of one class may overlap and rely on each other"
        )
    return f"each certificate holds with probability at least 1 - {results.alpha:g}, per image"


def write(results: Results, config: Mapping[str, Any], manifest: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write all files of a finished run, each whole or not at all, the summary last, and return the summary."""
    from srs.report.figures import curves
    from srs.report.svg import save  # matplotlib takes a second to import

    results.table.save(folder / REGIONS)
    write_tables(results, folder)
    save(curves(results), *(folder / name for name in CURVES))
    return write_summary(results, config, manifest, folder)


def write_tables(results: Results, folder: Path) -> None:
    """Write `certificates.tsv` and `comparison.tsv`."""
    write_certificates(folder / CERTIFICATES, certificates(results))
    rows = (
        (rule, str(idx), str(predict), floor_text(radius), str(correct))
        for rule, row in results.rules.items()
        for idx, predict, radius, correct in zip(
            results.record.idx.tolist(), row.predict.tolist(), row.radius.tolist(), row.correct.tolist(), strict=True
        )
    )
    write_rows(folder / COMPARISON, ("rule", "idx", "predict", "radius", "correct"), rows)


def write_summary(
    results: Results, config: Mapping[str, Any], manifest: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Write `summary.json` and return what it holds."""
    summary = summarize(results, config, manifest)
    with replacing(folder / SUMMARY) as stream:
        stream.write(json.dumps(summary, indent=2).encode() + b"\n")
    return summary


def results_table(summary: dict[str, Any], name: str) -> Table:
    """Return the table that the command prints: certified accuracy in percent at every epsilon, per rule."""
    table = Table(title=f"{name}: certified accuracy (%) at l2 radius", box=None, pad_edge=False, header_style="bold")
    table.add_column("rule", no_wrap=True)
    for name in ("ACR", "abstain", *(f"{epsilon:.2f}" for epsilon in summary["epsilon"])):
        table.add_column(name, justify="right", no_wrap=True)
    for rule, result in summary["rules"].items():
        cells = [percent(value) if value else "-" for value in result["certified_accuracy"]]
        style = "bold" if rule == summary["main"] else "dim" if not result["sound"] else None
        acr = floored(result["average_certified_radius"], 3)
        table.add_row(title(rule), acr, str(result["abstentions"]), *cells, style=style)
    return table


def _describe(allocation: regions.Allocation) -> dict[str, Any]:
    """Return what is known about an allocation; how long it took is not a result."""
    return {
        "objective": allocation.objective,
        "upper_bound": allocation.upper_bound,
        "gap": allocation.gap,
        "method": allocation.method,
        "status": allocation.status,
        "edges": len(allocation.graph.i),
        "stats": {name: value for name, value in allocation.stats.items() if not name.startswith("seconds")},
    }
