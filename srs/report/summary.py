"""What a run leaves behind, computed from its rows: certificates, comparison, summary, region map and curves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from smoothing import ABSTAIN
from smoothing.storage import replacing
from smoothing.tables import CertificateTable, floor_text, write_certificates, write_rows
from srs.evaluation.describe import describe
from srs.evaluation.evaluate import Results
from srs.evaluation.intervals import DELTA, wrong_at_most
from srs.evaluation.routed import Routed
from srs.limits import COLUMN
from srs.modes import title
from srs.report.card import card
from srs.report.numbers import confidence, floored, raised
from srs.run.folder import CARD, CERTIFICATES, COMPARISON, CURVES, REGIONS, SUMMARY

#: Ends the names of rules whose certificates are one-sided, beside the same with the run's bound.
ONE_SIDED = ":one-sided"


def certificates(results: Results) -> CertificateTable:
    """Return the run's table: the six usual columns, then those of `folder.EXTRA`; region and runner_up -1: none."""
    record, answers = results.record, results.answers
    at = np.arange(len(record.idx)), results.level
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
            "r": answers.r,
            "p_lower": results.bounds.p_lower,
            "region": np.where(results.radii > 0, np.arange(len(record.idx)), -1),
            "counts": record.counts.last[at],
            "n": record.counts.drawn[at],
            "p_upper": results.bounds.p_upper,
            "runner_up": record.counts.runner_up[at],
            "runner_up_counts": record.counts.last_other[at],
            "share": record.share[at],
        },
    )


def summarize(results: Results, config: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summary as JSON-ready values; accuracies are fractions, radii l2 in [0, 1] pixel units.

    Nothing in it depends on anything but the run's rows, its description and the versions of the libraries.
    """
    record, n = results.record, len(results.record.idx)
    clean = record.clean[np.arange(n), results.level]
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
        **({} if results.main.outside is None else {"outside": results.main.outside}),
        **({} if "denoiser" not in manifest else {"denoiser": manifest["denoiser"]}),
        **({} if results.routed is None else {"router": _router(results.routed, manifest)}),
        "clean_accuracy_base": float((clean == record.label).mean()),
        **describe(results.rules, results.main.name, results.one_sided),
        "wrong_at_most": {"certificates": wrong_at_most(n, results.alpha), "probability": 1 - DELTA},
        "levels": describe_levels(results),
        "seconds": record.stages,
    }


def _router(routed: Routed, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a router: its own noise level, or the one level that it names, and its part of alpha."""
    said = manifest["router"]
    weights = None if said["classifier"] is None else said["classifier"]["weights"]
    return {"sigma": said["sigma"], "level": said["level"], "weights": weights, "share_of_alpha": routed.share}


def describe_levels(results: Results) -> dict[str, dict[str, float]]:
    """Return what becomes of the images at each level that all were certified at, as fractions of them.

    `clean`: right without noise. `certified`: a radius for the right class; `wrong`: for another; `abstained`: none.
    `p_median`: half of the images get at least this share of the votes for the class that is certified.
    """
    record, found = results.record, {}
    for k in np.flatnonzero(record.certified.all(axis=0)).tolist():
        name = f"sigma={record.sigmas[k]:g}"
        predict = results.rules[name].predict
        found[name] = {
            "clean": float((record.clean[:, k] == record.label).mean()),
            "certified": float((predict == record.label).mean()),
            "wrong": float(((predict != record.label) & (predict != ABSTAIN)).mean()),
            "abstained": float((predict == ABSTAIN).mean()),
            "p_median": float(np.median(record.counts.last[:, k] / record.counts.drawn[:, k])),
        }
    return found


def write(results: Results, config: Mapping[str, Any], manifest: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Write all files of a finished run, each whole or not at all, the summary last, and return the summary."""
    from srs.report.figures import curves
    from srs.report.steps import Look
    from srs.report.svg import save  # matplotlib takes a second to import

    results.table.save(folder / REGIONS)
    write_tables(results, folder)
    save(curves(results, Look.of_file(COLUMN)).figure, *(folder / name for name in CURVES))
    return write_summary(results, config, manifest, folder)


def write_tables(results: Results, folder: Path) -> None:
    """Write `certificates.tsv` and `comparison.tsv`."""
    write_certificates(folder / CERTIFICATES, certificates(results))
    columns = {"": results.rules} | ({} if results.one_sided is results.rules else {ONE_SIDED: results.one_sided})
    rows = (
        (rule + suffix, str(idx), str(predict), floor_text(radius), str(correct))
        for suffix, rules in columns.items()
        for rule, row in rules.items()
        for idx, predict, radius, correct in zip(
            results.record.idx.tolist(), row.predict.tolist(), row.radius.tolist(), row.correct.tolist(), strict=True
        )
    )
    write_rows(folder / COMPARISON, ("rule", "idx", "predict", "radius", "correct"), rows)


def write_summary(
    results: Results, config: Mapping[str, Any], manifest: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Write the model card, then `summary.json`, and return what that holds."""
    summary = summarize(results, config, manifest)
    with replacing(folder / CARD) as stream:
        stream.write(card(summary, manifest["data"]["shape"]).encode())
    with replacing(folder / SUMMARY) as stream:
        stream.write(json.dumps(summary, indent=2).encode() + b"\n")
    return summary


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """Return what a reader of the table has to know: whether the main rule is better than chance, and what may fail."""
    rules, n = summary["rules"], summary["data"]["images"]
    constants = [name for name in rules if name.startswith("sigma=") and "above_main" in rules[name]]
    lines = []
    if constants:
        best = max(constants, key=lambda name: rules[name]["average_certified_radius"])
        mean, low, high = rules[best]["above_main"]
        if low is not None:
            interval = f"95% interval {floored(0.0 - high, 3)} to {raised(0.0 - low, 3)}, paired over {n} images"
            lines.append(f"ACR less that of {title(best)}, the best constant: {0.0 - mean:+.3f} ({interval})")
    if not summary["simultaneous"]:
        most = summary["wrong_at_most"]
        sure = confidence(1 - most["probability"])
        lines.append(
            f"at most {most['certificates']} of {n} certificates are wrong, with probability {sure}: "
            f"a row less {raised(100 * most['certificates'] / n, 1)}% holds at all radii at once"
        )
    return lines
