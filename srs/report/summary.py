"""What a run leaves behind, computed from its rows: certificates, comparison, summary, region map and curves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smoothing.storage import replacing
from smoothing.tables import CertificateTable, floor_text, write_certificates, write_rows
from srs.evaluation.describe import describe
from srs.evaluation.evaluate import Results
from srs.report.tables import TerminalTable, rule_table
from srs.run.folder import CERTIFICATES, COMPARISON, CURVES, REGIONS, SUMMARY


def certificates(results: Results) -> CertificateTable:
    """Return the run's table: the six usual columns, then sigma, R, r, p_lower, region (-1: none), counts and n."""
    record, answers, r = results.record, results.answers, results.radii
    at = np.arange(len(r)), record.level
    return CertificateTable(
        idx=record.idx,
        label=record.label,
        predict=answers.predict,
        radius=answers.radius,
        correct=answers.correct,
        seconds=record.seconds,
        extra={
            "sigma": results.sigma,
            "R": results.bounds.radius,
            "r": r,
            "p_lower": results.bounds.p_lower,
            "region": np.where(r > 0, np.arange(len(r)), -1),
            "counts": record.counts.last[at],
            "n": record.counts.drawn[at],
        },
    )


def summarize(results: Results, config: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summary as JSON-ready values; accuracies are fractions, radii l2 in [0, 1] pixel units.

    Nothing in it depends on anything but the run's rows, its description and the versions of the libraries.
    """
    record, n = results.record, len(results.record.idx)
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
        "guarantee": results.proofs.guarantee,
        "regions": results.table.content_hash,
        "clean_accuracy": float((clean == record.label).mean()),
        **describe(results.rules, results.main.name),
        "seconds": record.stages,
    }


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


def results_table(summary: dict[str, Any], name: str) -> TerminalTable:
    """Return the table that the command prints: certified accuracy in percent at every epsilon, per rule."""
    return TerminalTable(f"{name}: certified accuracy (%) at l2 radius", rule_table(summary, summary["main"]))
