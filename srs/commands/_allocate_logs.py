"""`srs-allocate --logs`: from published certification logs to sample-wise certificates with regions."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from srs.commands.allocate import AllocateSettings
    from srs.logs.compare import Answer
    from srs.logs.read import Logs

#: What `--out` then holds.
FILES = frozenset({"allocation.tsv", "summary.json", "regions.npz"})

_ROUNDED = {
    "half": "half a unit of the last digit was taken off each printed radius",
    "unit": "a whole unit of the last digit was taken off each printed radius",
    "none": "printed radii were taken as they are, though logs usually round half of them up",
}


def allocate_logs(settings: AllocateSettings) -> None:
    """Read logs and images, choose levels, size regions, write a folder, print a table."""
    out = settings.out or Path("allocation")
    _check(settings)

    from srs.whole_folder import check_free, whole_folder

    check_free(out, FILES, overwrite=settings.overwrite)

    import regions
    from srs.logs.compare import bounds_from, compare, describe
    from srs.logs.read import read_logs
    from srs.logs.recover_votes import lower, recover_votes
    from srs.modes import Mode

    seconds = {}
    began = time.perf_counter()
    logs = read_logs(settings.logs, settings.sigmas)
    votes = None
    if settings.n is not None and settings.alpha is not None:
        votes = recover_votes(logs, settings.n, settings.alpha, settings.rounding)
    bounds = bounds_from(logs, lower(logs, settings.rounding), votes, settings.alpha)
    seconds["logs"] = time.perf_counter() - began

    began = time.perf_counter()
    points = _points(settings, logs)
    seconds["images"] = time.perf_counter() - began

    began = time.perf_counter()
    method = (settings.order or "ascending") if settings.method == "greedy" else settings.method
    main = Mode(settings.overlap or "paper", method)
    options = {
        name: getattr(settings, name) for name in ("solver", "time_limit") if getattr(settings, name) is not None
    }
    answers = compare(logs, points, bounds, settings.rule, main, options, settings.search)
    seconds["regions"] = time.perf_counter() - began

    answer = answers[main.name]
    sigma = logs.sigmas[answer.level]
    checked = _verify(points, answer, main.overlap) if settings.verify else None
    summary = {
        "logs": [str(file) for file in logs.files],
        "sigmas": logs.sigmas.tolist(),
        "data": {"name": settings.dataset or settings.points, "images": len(points)},
        "rule": settings.rule,
        "n": settings.n,
        "alpha": settings.alpha,
        "guarantee": bounds.guarantee,
        "rounding": _ROUNDED[settings.rounding],
        "main": main.name,
        **describe(answers, logs.labels),
        "seconds": seconds,
    }
    with whole_folder(out, FILES, overwrite=settings.overwrite) as folder:
        _write_rows(folder / "allocation.tsv", logs, answer)
        regions.RegionMap(points, answer.r, sigma, classes=answer.predict).save(folder / "regions.npz")
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    _print(summary, out, checked)


def _check(settings: AllocateSettings) -> None:
    for name in ("radii", "groups", "weights", "reserve", "compare"):
        if getattr(settings, name):
            flag = "R" if name == "radii" else f"--{name}"
            raise ValueError(f"{flag}: cannot be combined with --logs, which gives R and compares; leave it out")
    if (settings.points is None) == (settings.dataset is None):
        raise ValueError("--logs: name the images that the logs are about, by --dataset or as POINTS, one of both")
    if (settings.n is None) != (settings.alpha is None):
        raise ValueError("--n and --alpha go together: give both as they were when the logs were made, or neither")
    if settings.n is not None and not 1 <= settings.n <= 10**7:
        raise ValueError(f"--n {settings.n}: must be from 1 to 10,000,000")
    if settings.alpha is not None and not 0 < settings.alpha < 1:
        raise ValueError(f"--alpha {settings.alpha}: must lie strictly between 0 and 1, such as 0.001")
    if settings.overlap == "class" and settings.n is None:
        raise ValueError("--overlap class: needs --n and --alpha of the logs, to certify all images at once")
    if settings.overlap == "joint" and settings.method != "lp":
        raise ValueError(f"--method {settings.method}: --overlap joint sizes the regions itself; leave --method out")
    if settings.order is not None and settings.method != "greedy":
        raise ValueError(f"--order {settings.order}: is about --method greedy")
    if settings.method != "lp" and (settings.solver or settings.time_limit):
        raise ValueError("--solver and --time-limit are about --method lp")


def _points(settings: AllocateSettings, logs: Logs) -> np.ndarray:
    from srs.logs.images import array_points, log_points

    if settings.points is not None:
        if settings.image_size is not None or settings.image_order != "sorted":
            raise ValueError("--image-size and --image-order are about --dataset imagefolder:PATH; leave them out")
        return array_points(logs, settings.points)
    size, order = settings.image_size, settings.image_order
    return log_points(logs, str(settings.dataset), settings.data_dir, image_size=size, order=order)


def _verify(points: np.ndarray, answer: Answer, overlap: str) -> str:
    from regions import verify
    from srs.modes import GROUPS

    checked = verify(points, answer.r, answer.R, groups=GROUPS[overlap](answer.level, answer.predict))
    if not checked:
        raise AssertionError(f"{checked.status}; please report this")
    return checked.status


def _write_rows(path: Path, logs: Logs, answer: Answer) -> None:
    import numpy as np

    from smoothing.tables import CertificateTable, write_certificates

    inside = answer.r > 0
    table = CertificateTable(
        idx=logs.idx,
        label=logs.labels,
        predict=answer.predict,
        radius=answer.radius,
        correct=(answer.predict == logs.labels).astype(np.int64),
        seconds=logs.seconds,
        extra={
            "sigma": logs.sigmas[answer.level],
            "R": answer.R,
            "r": np.where(inside, answer.r, 0.0),
            "region": np.where(inside, np.arange(len(inside)), -1),
        },
    )
    write_certificates(path, table)


def _print(summary: dict[str, Any], out: Path, checked: str | None) -> None:
    from rich.table import Table

    from smoothing.tables import floor_text
    from srs.commands._console import console
    from srs.evaluation.metrics import LAST
    from srs.modes import OVERLAPPING, title

    screen = console()
    shown = [epsilon for epsilon in summary["epsilon"] if epsilon <= LAST]  # all of them are in summary.json
    table = Table(title="Certified accuracy (%) at l2 radius", box=None, pad_edge=False, header_style="bold")
    table.add_column("rule")
    for name in ("ACR", "clean", "abstain", *(f"{epsilon:.2f}" for epsilon in shown)):
        table.add_column(name, justify="right", no_wrap=True)
    for name, rule in summary["rules"].items():
        style = "bold" if name == summary["main"] else None if rule["sound"] else "dim"
        acr = f"{float(floor_text(rule['average_certified_radius'], 3)):.3f}"
        clean = f"{100 * rule['clean_accuracy']:.1f}"
        cells = [f"{100 * value:.1f}" if value else "-" for value in rule["certified_accuracy"][: len(shown)]]
        text = title(name) + ("" if rule["sound"] or name == OVERLAPPING else " (unsound here)")
        table.add_row(text, acr, clean, str(rule["abstentions"]), *cells, style=style)
    screen.print(table)
    lines = [f"guarantee: {summary['guarantee']}", f"rounding: {summary['rounding']}"]
    sigmas = ", ".join(f"{sigma:g}" for sigma in summary["sigmas"])
    lines.append(f"{summary['data']['images']} images, sigma {sigmas}, level by {summary['rule']}")
    lines.append(f"{summary['main']}: {summary['allocations'][summary['main']]['status']}")
    if checked is not None:
        lines.append(f"verified: {checked}")
    lines.append("seconds: " + ", ".join(f"{stage} {value:.1f}" for stage, value in summary["seconds"].items()))
    lines.append(f"written to {out}")
    screen.print("\n".join(lines), soft_wrap=True)
