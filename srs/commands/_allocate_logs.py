"""`srs-allocate --logs`: from published certification logs to sample-wise certificates with regions."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from regions.extras import need
from srs.commands._config import find_in_current_folder
from srs.limits import check_alpha

if TYPE_CHECKING:
    import numpy as np

    from srs.commands._allocate_settings import AllocateSettings
    from srs.evaluation.rules import RuleAnswers
    from srs.logs.read import Logs
    from srs.modes import Mode

Number = TypeVar("Number", int, float)

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
    points_of = _images(settings)

    from srs.commands._whole_folder import check_free, whole_folder

    check_free(out, FILES, overwrite=settings.overwrite)

    import regions
    from srs.evaluation.describe import describe
    from srs.logs.compare import compare, proofs_from_logs
    from srs.logs.read import read_logs
    from srs.logs.recover_votes import lower, recover_votes
    from srs.modes import Mode
    from srs.run.choosing_images import rows_of, warn_of_one_class

    seconds = {}
    began = time.perf_counter()
    logs = read_logs(settings.logs, settings.sigmas)
    votes, alpha = None, None
    if settings.n:
        alpha = min(settings.alpha)  # what the strictest log was made for is certified for all
        n, alphas = _of_each(settings.logs, logs, settings.n), _of_each(settings.logs, logs, settings.alpha)
        votes = recover_votes(logs, n, alphas, settings.rounding)
    proofs = proofs_from_logs(logs, lower(logs, settings.rounding), votes, alpha)
    rows = rows_of(logs.idx, settings.indices)
    seconds["logs"] = time.perf_counter() - began

    began = time.perf_counter()
    points = points_of(logs, rows)
    # Only now: how radii were rounded, and the confidence that all images share, are matters of whole logs.
    labels, logs, proofs = logs.labels, logs.only(rows), proofs.only(rows)
    warn_of_one_class(logs.labels, labels, "choose others by --indices")
    seconds["images"] = time.perf_counter() - began

    began = time.perf_counter()
    main = Mode.of(settings.overlap or "paper", settings.method, settings.order)
    options = {
        name: getattr(settings, name) for name in ("solver", "time_limit") if getattr(settings, name) is not None
    }
    rules = compare(logs, points, proofs, settings.rule, main, options, settings.parallel, settings.search)
    seconds["regions"] = time.perf_counter() - began

    answers = rules[main.name]
    table = regions.RegionMap(points, answers.r, logs.sigmas[answers.level], classes=answers.predict)
    checked = _verify(points, answers, main) if settings.verify else None
    summary = {
        "logs": [str(file) for file in logs.files],
        "sigmas": logs.sigmas.tolist(),
        "data": {
            "name": settings.dataset or settings.points,
            "images": len(points),
            "image_order": settings.image_order,
            "indices": None if settings.indices is None else str(settings.indices),
        },
        "rule": settings.rule,
        "n": _one(settings.n),
        "alpha": _one(settings.alpha),
        "simultaneous": main.simultaneous,
        "guarantee": proofs.guarantee,
        "rounding": _ROUNDED[settings.rounding],
        "regions": table.content_hash,
        **describe(rules, main.name),
        "seconds": seconds,
    }
    with whole_folder(out, FILES, overwrite=settings.overwrite) as folder:
        _write_rows(folder / "allocation.tsv", logs, answers)
        table.save(folder / "regions.npz")
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    _print(summary, out, checked)


def _check(settings: AllocateSettings) -> None:
    for name in ("radii", "columns", "groups", "weights", "r_min", "plot", "reserve", "compare"):
        if getattr(settings, name):
            flag = "R" if name == "radii" else f"--{name.replace('_', '-')}"
            raise ValueError(f"{flag}: cannot be combined with --logs, which gives R and compares; leave it out")
    if settings.radius_column != type(settings).radius_column:
        raise ValueError(f"--radius-column {settings.radius_column}: --logs writes a folder; leave it out")
    if bool(settings.n) != bool(settings.alpha):
        raise ValueError("--n and --alpha go together: give both as they were when the logs were made, or neither")
    for flag, given in (("--n", settings.n), ("--alpha", settings.alpha)):
        if len(given) > 1 and len(given) != len(settings.logs):
            raise ValueError(
                f"{flag} names {len(given)} numbers for {len(settings.logs)} logs: give one, or one for each, in order"
            )
    for n in settings.n:
        if not 1 <= n <= 10**7:
            raise ValueError(f"--n {n}: must be from 1 to 10,000,000")
    for alpha in settings.alpha:
        check_alpha(alpha)
    if settings.overlap == "class" and not settings.n:
        raise ValueError("--overlap class: needs --n and --alpha of the logs, to certify all images at once")
    if settings.overlap == "joint" and settings.method != "lp":
        raise ValueError(f"--method {settings.method}: --overlap joint sizes the regions itself; leave --method out")
    if settings.order is not None and settings.method != "greedy":
        raise ValueError(f"--order {settings.order}: is about --method greedy")
    for flag, value in (("--solver", settings.solver), ("--time-limit", settings.time_limit)):
        if value is not None and settings.overlap == "joint":
            raise ValueError(f"{flag} {value}: --overlap joint sizes the regions without a solver; leave it out")
        if value is not None and settings.method != "lp":
            raise ValueError(f"{flag} {value}: is about --method lp")


def _of_each(named: Sequence[Path], logs: Logs, values: Sequence[Number]) -> list[Number]:
    """Return one number for each log in the order of `logs.files`, from one for all or one for each as named."""
    each = dict(zip(named, values, strict=True)) if len(values) > 1 else dict.fromkeys(named, values[0])
    return [each[file] for file in logs.files]


def _one(values: Sequence[Number]) -> Number | list[Number] | None:
    """Return what a summary says: one number where all logs have the same."""
    return values[0] if len(set(values)) == 1 else list(values) or None


def _images(settings: AllocateSettings) -> Callable[[Logs, np.ndarray], np.ndarray]:
    """Return what reads the images of these rows of the logs; raise where it is not said which images those are."""
    size, order, data_dir = settings.image_size, settings.image_order, settings.data_dir
    match settings.points, settings.dataset:
        case str(points), None:
            if size is not None or order != "sorted":
                raise ValueError("--image-size and --image-order are about --dataset imagefolder:PATH; leave them out")
            if data_dir != Path("data"):
                raise ValueError(f"--data-dir {data_dir}: POINTS holds the images; leave it out")
            from srs.logs.images import array_points

            return lambda logs, rows: array_points(logs, points, rows)
        case None, str(dataset):
            if data_dir != Path("data") and (dataset == "digits" or ":" in dataset):
                raise ValueError(
                    f"--data-dir {data_dir}: is about --dataset mnist or cifar10 and the like; leave it out"
                )
            need("certify", f"--dataset {dataset}")
            find_in_current_folder(dataset)
            from srs.logs.images import log_points

            return lambda logs, rows: log_points(logs, dataset, data_dir, image_size=size, order=order, rows=rows)
    raise ValueError("--logs: name the images that the logs are about, by --dataset or as POINTS, one of both")


def _verify(points: np.ndarray, answers: RuleAnswers, main: Mode) -> str:
    from regions import verify

    checked = verify(points, answers.r, answers.R, groups=main.groups(answers.level, answers.predict))
    if not checked:
        raise AssertionError(f"{checked.status}; please report this")
    return checked.status


def _write_rows(path: Path, logs: Logs, answers: RuleAnswers) -> None:
    import numpy as np

    from smoothing.tables import CertificateTable, write_certificates

    inside = answers.r > 0
    table = CertificateTable(
        idx=logs.idx,
        label=logs.labels,
        predict=answers.predict,
        radius=answers.radius,
        correct=answers.correct,
        seconds=logs.seconds,
        extra={
            "sigma": logs.sigmas[answers.level],
            "R": answers.R,
            "r": np.where(inside, answers.r, 0.0),
            "region": np.where(inside, np.arange(len(inside)), -1),
        },
    )
    write_certificates(path, table)


def _print(summary: dict[str, Any], out: Path, checked: str | None) -> None:
    from srs.commands._results import print_table

    screen = print_table(summary, "Logs")
    lines = [f"guarantee: {summary['guarantee']}", f"rounding: {summary['rounding']}"]
    sigmas = ", ".join(f"{sigma:g}" for sigma in summary["sigmas"])
    lines.append(f"{summary['data']['images']} images, sigma {sigmas}, level by {summary['rule']}")
    lines.append(f"{summary['main']}: {summary['allocations'][summary['main']]['status']}")
    if checked is not None:
        lines.append(f"verified: {checked}")
    lines.append("seconds: " + ", ".join(f"{stage} {value:.1f}" for stage, value in summary["seconds"].items()))
    lines.append(f"written to {out}")
    for line in lines:
        screen.print(line, soft_wrap=line == lines[-1])
