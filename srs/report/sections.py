"""What the page says of a run, as its template takes it."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Int64
from markupsafe import Markup

import regions
from smoothing import ABSTAIN
from smoothing.tables import floor_text, write_rows
from srs.evaluation.evaluate import Results
from srs.evaluation.losses import Losses, losses
from srs.evaluation.rules import Answers
from srs.geometry import scaled
from srs.modes import title
from srs.report import figures
from srs.report.assumptions import assumptions
from srs.report.chapter import Chapter
from srs.report.numbers import floored, percent, raised, readable
from srs.report.promise import Promise
from srs.report.steps import ON_PAGE, Look
from srs.report.summary import remarks, write_summary, write_tables
from srs.report.svg import Drawing, image_uri, inline_svg, save
from srs.report.tables import rule_table
from srs.run.folder import CARD, CERTIFICATES, COMPARISON, SUMMARY
from srs.text import visible

#: Images of Fig. 1, pairs of neighbours, abstentions and files of models that the page shows.
SAMPLES, PAIRS, ABSTENTIONS, MODELS = 6, 8, 12, 3

LOSSES = "losses.tsv"

#: Tables beside the page, and what they hold.
FILES = {
    CERTIFICATES: "each image's certificate, sigma, votes and region",
    COMPARISON: "what every rule certifies of each image",
    LOSSES: "how much radius each image loses to which neighbour",
    SUMMARY: "all numbers of this chapter",
    CARD: "a card of the classifier, for model hubs",
}


def section(folder: Path, chapter: Chapter, number: int, look: Look) -> dict[str, Any]:
    """Write a run's own files, figures as `look` says, and return what the page's template needs of it."""
    run, results = chapter.run, chapter.results
    out = folder / chapter.folder
    out.mkdir()
    write_tables(results, out)
    summary = write_summary(results, run.config, run.manifest, out)
    sized = results.allocations.items()
    lost = {name: losses(results.rules[name].R, results.rules[name].r, found) for name, found in sized}
    _write_losses(out / LOSSES, results, lost)
    degree = regions.overlap_degrees(results.points, scaled(results.points, results.bounds.radius))
    samples = _samples(results) if not run.settings.chosen_only else []
    for name, drawing in _drawings(results, degree, look).items():
        save(drawing.figure, out / f"{name}.png", out / f"{name}.pdf")
    if samples:
        drawing = figures.radii_against_sigma(results, run.images, samples, look)
        save(drawing.figure, out / "sigma.png", out / "sigma.pdf")
    main = results.answers
    return {
        "name": chapter.name,
        "folder": visible(shlex.quote(run.folder.absolute().name)),
        "at": quote(chapter.folder),
        "files": FILES,
        "about": _about(chapter),
        "warning": None if chapter.warning is None else visible(chapter.warning),
        "guarantee": readable(results.proofs.guarantee, results.alpha),
        "promise": Promise.of(results.main.name, results.main.outside),
        "tiles": _tiles(results, summary),
        "figures": {
            name: Markup(inline_svg(drawing, f"r{number}-{name}"))
            for name, drawing in _drawings(results, degree, ON_PAGE).items()
        },
        "table": rule_table(summary, summary["main"]).with_content(),
        "one_sided": results.one_sided is not results.rules,
        "remarks": remarks(summary),
        "differences": _differences(summary),
        "assumptions": assumptions(results, run.settings),
        "routed": results.record.routing is not None and results.record.routing.sigma is not None,
        "levels": _levels(summary),
        "samples": [_sample(chapter, number, j) for j in samples],
        "degree": {
            "mean": f"{degree.mean():.1f}",
            "largest": int(degree.max(initial=0)),
            "free": int((degree == 0).sum()),
        },
        "costs": _costs(results, lost),
        "pairs": _pairs(chapter, lost[results.main.name]) if results.main.name in lost else [],
        "main": title(results.main.name),
        "abstained": _abstained(chapter, main),
        "reasons": {
            "certificate": int((results.bounds.predict == ABSTAIN).sum()),
            "region": int(((main.predict == ABSTAIN) & (results.bounds.predict != ABSTAIN)).sum()),
        },
        "settings": {name: _plain(value) for name, value in run.config.items() if value not in (None, [], "")},
        "hashes": {
            "images": run.manifest["data"]["sha256"],
            "weights": run.manifest["classifier"]["weights"],
            "regions": results.table.content_hash,
        },
        "versions": run.manifest["versions"],
        "device": visible(run.manifest["device"]),
        "alpha": f"{results.alpha:g}",
        "changed": None if results.alpha == run.alpha else f"{run.alpha:g}",
    }


def _drawings(results: Results, degree: Int64[np.ndarray, " n"], look: Look) -> dict[str, Drawing]:
    return {
        "curves": figures.curves(results, look),
        "degrees": figures.degrees(degree, look),
        "lost": figures.lost_radius(results, look),
        "votes": figures.vote_shares(results, look),
    }


def _about(chapter: Chapter) -> dict[str, str]:
    """Return what a reader asks first: of which images, by which model, from when."""
    data, settings = chapter.run.manifest["data"], chapter.run.settings
    shape = " x ".join(map(str, data["shape"]))
    if settings.model is not None:
        model = settings.model
    elif settings.trained_here:
        model = "the demonstration's network"
    else:
        files = [file.name for file in settings.files.values()]
        more = f" and {len(files) - MODELS} more" if len(files) > MODELS else ""
        model = ", ".join(files[:MODELS]) + more
    return {
        "data": f"{visible(data['name'])}, {data['images']:,} images of {shape}, {data['num_classes']} classes",
        "model": visible(model),
        **({} if chapter.day is None else {"date": chapter.day}),
    }


def _tiles(results: Results, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the numbers at the top: what they are, and what they are worth, rounded to the safe side."""
    accuracy = dict(zip(summary["epsilon"], summary["rules"][summary["main"]]["certified_accuracy"], strict=True))
    return [
        ("average certified radius", floored(summary["average_certified_radius"], 3)),
        ("certified accuracy at radius 0.5", f"{percent(accuracy[0.5])}%"),
        ("clean accuracy of the base classifier", f"{percent(summary['clean_accuracy_base'])}%"),
        ("images", f"{len(results.record.idx):,}"),
        ("abstentions", f"{summary['abstentions']:,}"),
    ]


def _differences(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return how each rule's average certified radius differs from the main one's, on the same images."""
    found = []
    for name, rule in summary["rules"].items():
        mean, low, high = rule.get("above_main", (None, None, None))
        if low is not None:
            found.append(
                {
                    "title": title(name),
                    "mean": f"{mean:+.3f}",
                    "interval": f"{floored(low, 3)} to {raised(high, 3)}",
                    "verdict": "larger" if low > 0 else "smaller" if high < 0 else "not told apart",
                }
            )
    return found


def _levels(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what becomes of the images at each level, in percent."""
    return [
        {
            "title": title(name),
            **{key: percent(level[key]) for key in ("clean", "certified", "wrong", "abstained")},
            "median": floored(level["p_median"], 3),
        }
        for name, level in summary["levels"].items()
    ]


def _samples(results: Results) -> list[int]:
    """Return images whose chosen sigmas spread over the grid: evenly in the order of sigma."""
    shown = np.flatnonzero(results.bounds.predict != ABSTAIN)
    order = shown[np.argsort(results.level[shown], kind="stable")]
    if not len(order):
        return []
    return [int(order[at]) for at in np.unique(np.linspace(0, len(order) - 1, SAMPLES).round().astype(int))]


def _sample(chapter: Chapter, number: int, j: int) -> dict[str, Any]:
    results = chapter.results
    figure = figures.radius_against_sigma(results, j)
    return _picture(chapter, j) | {
        "figure": Markup(inline_svg(figure, f"r{number}-s{j}")),
        "sigma": f"{results.sigma[j]:g}",
        "R": floored(float(results.bounds.radius[j]), 3),
        "r": floored(float(results.answers.r[j]), 3),
    }


def _picture(chapter: Chapter, j: int) -> dict[str, Any]:
    record = chapter.results.record
    image = chapter.run.images[np.array([j])][0]
    return {"image": image_uri(image), "idx": int(record.idx[j]), "label": int(record.label[j])}


def _costs(results: Results, lost: Mapping[str, Losses]) -> list[dict[str, str]]:
    """Return what every way to size the regions costs."""
    return [
        {
            "title": title(name),
            "before": floored(float(results.rules[name].R.sum()), 2),
            "after": floored(float(np.minimum(results.rules[name].r, results.rules[name].R).sum()), 2),
            "share": f"{raised(_share(lost[name].lost.sum(), results.rules[name].R.sum()), 1)}%",
            "losers": f"{int((lost[name].lost > 0).sum()):,}",
            "empty": f"{int(((results.rules[name].r == 0) & (results.rules[name].R > 0)).sum()):,}",
            "gap": "unknown" if found.gap is None else f"{found.gap:.1e}",
        }
        for name, found in results.allocations.items()
    ]


def _share(part: float, whole: float) -> float:
    """Return a part in percent, without the last bits of a division."""
    return round(100 * float(part) / max(float(whole), 1e-300), 9)


def _pairs(chapter: Chapter, lost: Losses) -> list[dict[str, Any]]:
    """Return the images that lose most, each beside the neighbour that it loses to."""
    results, found = chapter.results, []
    for j in np.argsort(-lost.lost, kind="stable")[:PAIRS].tolist():
        other = int(lost.neighbour[j])
        if other < 0:
            continue
        found.append(
            {
                "left": _picture(chapter, j) | _region(results, j),
                "right": _picture(chapter, other) | _region(results, other),
                "lost": raised(float(lost.lost[j]), 3),
                "distance": floored(float(lost.distance[j]), 3),
            }
        )
    return found


def _region(results: Results, j: int) -> dict[str, str]:
    return {
        "sigma": f"{results.sigma[j]:g}",
        "R": floored(float(results.bounds.radius[j]), 3),
        "r": floored(float(results.answers.r[j]), 3),
    }


def _abstained(chapter: Chapter, main: Answers) -> list[dict[str, Any]]:
    which: Int64[np.ndarray, " m"] = np.flatnonzero(main.predict == ABSTAIN)
    return [_picture(chapter, j) | {"sigma": f"{chapter.results.sigma[j]:g}"} for j in which[:ABSTENTIONS].tolist()]


def _write_losses(path: Path, results: Results, lost: Mapping[str, Losses]) -> None:
    """Write who loses how much to whom: one row per rule and image that loses anything."""
    idx = results.record.idx
    rows = (
        (
            name,
            str(idx[j]),
            floor_text(float(results.rules[name].R[j])),
            floor_text(float(results.rules[name].r[j])),
            str(idx[lost[name].neighbour[j]]) if lost[name].neighbour[j] >= 0 else "-1",
            floor_text(float(lost[name].distance[j])),
        )
        for name, found in results.allocations.items()
        for j in np.flatnonzero(lost[name].lost > 0).tolist()
    )
    write_rows(path, ("rule", "idx", "R", "r", "neighbour", "distance"), rows)


def _plain(value: Any) -> str:
    return visible(value) if isinstance(value, str) else json.dumps(value)
