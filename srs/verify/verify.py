"""The order of a verification: what the folder says, its rows, what they prove, the map, the images, the votes."""

import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch

from smoothing import SmoothedClassifier
from smoothing.machine import usable_device
from smoothing.storage import check_regular
from srs.predict.run_classifier import run_classifier
from srs.report.card import BEGIN, END, card, checked_part
from srs.run.choosing_images import read_indices
from srs.run.folder import CARD, RUN_FILES, Description
from srs.run.sources import asked_again, files_of, library, own_code
from srs.verify.background import Made, maps, place
from srs.verify.certificates import (
    certificate_problems,
    level_problems,
    map_problems,
    overlap_problems,
    read_certificates,
)
from srs.verify.comparison import compare, read_comparison
from srs.verify.evidence import (
    Described,
    Map,
    Rows,
    check_run,
    climb_of,
    hash_of_images,
    read_described,
    read_map,
    read_rows,
)
from srs.verify.findings import Findings
from srs.verify.redraw import Moved, images_of, redraw
from srs.verify.settings import VerifySettings
from srs.verify.summary import allocation_problems, summary_problems
from training import load_data

#: The share of votes that rounding on another kind of device may move: in float32, and in lower precision.
_ROUNDING, _LOW_PRECISION = 2e-5, 1e-3

#: Votes, and classes without noise, that it may move in any case.
_FEW = 2

#: Bytes of a card with notes.
_MOST_CARD = 2**20

#: What decides how regions are sized, to the last digit.
_SIZING = ("srs-certify", "numpy", "scipy", "highspy", "faiss-cpu")

#: Tells how many of how many images were redrawn.
Progress = Callable[[int, int], None]


def verify(settings: VerifySettings, progress: Progress = lambda done, of: None) -> Findings:
    """Verify a run.

    Parameters
    ----------
    settings : VerifySettings
    progress : callable
        progress(done, of) is called while votes are drawn again.

    Raises
    ------
    ValueError
        Where there is no finished run, and where a model of one's own is not the run's.
    """
    check_run(settings.run)
    findings = Findings()
    try:
        run = read_described(settings.run)
        found = _map(run, findings)
        rows = read_rows(run)
    except (ValueError, OSError) as error:
        findings.check("files", "", [_one_line(error, settings.run)])
        findings.unknown("all else", "nothing that follows from these files was checked")
        return findings
    _description(run, findings)
    with _problems_found(run, findings, "rows"):
        _rows(run, rows, found, findings)
    if found is None:
        findings.unknown("claims", "certificates, comparison and summary belong to images that cannot be read")
        return findings
    with _problems_found(run, findings, "claims"):
        _claims(run, rows, found, findings)
    with _problems_found(run, findings, "card"):
        _card(run, findings)
    with _problems_found(run, findings, "data set"):
        _data(run, rows, found, settings, findings)
    classifier = _classifier(run, settings, findings)
    if classifier is not None:
        with _problems_found(run, findings, "votes"):
            _asked(run, rows, found, classifier, settings, findings, progress)
    _not_looked_at(run, findings)
    return findings


@contextmanager
def _problems_found(run: Described, findings: Findings, topic: str) -> Iterator[None]:
    """Take what cannot be read or computed for something that does not hold."""
    try:
        yield
    except (ValueError, OSError) as error:
        findings.check(topic, "", [_one_line(error, run.folder)])


def _one_line(error: Exception, folder: Path) -> str:
    return " ".join(str(error).split()).replace(f"{folder}/", "")


def _map(run: Described, findings: Findings) -> Map | None:
    try:
        return read_map(run)
    except (ValueError, OSError) as error:
        findings.check("map", "", [_one_line(error, run.folder)])
        return None


def _description(run: Described, findings: Findings) -> None:
    manifest, problems = run.manifest, []
    if manifest["sigmas"] != run.sigmas:
        problems.append(f"manifest.json: sigmas are not the levels that config.yaml names: {run.sigmas}")
    known = {
        "format",
        "versions",
        "seed",
        "device",
        "batch",
        "data",
        "classifier",
        "router",
        "check",
        "sigmas",
        "model",
    }
    if manifest.keys() - known:
        problems.append(f"manifest.json: holds {', '.join(sorted(manifest.keys() - known))}, which is not known here")
    findings.check("settings", "config.yaml and manifest.json say the same, and nothing is left open", problems)


def _rows(run: Described, rows: Rows, found: Map | None, findings: Findings) -> None:
    n, k = len(rows.idx), len(run.sigmas)
    what = f"{n:,} images at {k} noise levels: the votes add up, and are those that the settings ask for"
    climb, problems = climb_of(run), []
    rule_alpha = run.alpha / n if run.settings.overlap == "class" else run.alpha
    for j, cells in enumerate(rows.estimation):
        for at, cell in enumerate(cells):
            if cell is None or len(climb.rungs) == 1 or rows.chosen[j].lacking:
                continue
            chosen = rows.chosen[j]
            problem = climb.problem(cell, chosen.classes[at], rule_alpha, chosen.shares[at])
            if problem:
                problems.append(f"estimation.tsv: image {rows.idx[j]} at sigma = {run.sigmas[at]:g} {problem}")
    findings.check("rows", what, problems)
    if found is not None:
        same = hash_of_images(run, rows, found) == run.manifest["data"]["sha256"]
        text = "images, indices and labels have the hash that manifest.json names"
        wrong = "images (the centres of regions.npz), indices or labels are not those whose hash manifest.json has"
        findings.check("images", text, [] if same else [wrong])
    if run.old:
        findings.unknown(
            "levels", "a run of format 1 kept no votes to choose levels by, only the radii it ranked them by"
        )
    text = "each image's level is the choice of the rule, from selection votes alone"
    findings.check("levels", text, level_problems(run, rows, found))


def _claims(run: Described, rows: Rows, found: Map, findings: Findings) -> None:
    if any(one.lacking for one in rows.chosen):
        findings.unknown("claims", "certificates rest on classes that these selection votes do not choose")
        return
    try:
        table, certificates = read_certificates(run)
        placed = place(run, rows, found)
        made: list[Made] = []
        if placed.outside is not None:
            ranked = [one.expected for one in rows.chosen]
            made = maps(run, rows, found, placed.outside, ranked, rows.level)
        problems = certificate_problems(run, rows, table, certificates, found, placed)
    except (ValueError, OSError) as error:
        findings.check("certificates", "", [_one_line(error, run.folder)])
        return
    text = f"bounds, radii and classes of {len(rows.idx):,} certificates follow from their votes"
    if not findings.check("certificates", text, problems) and table.rows != len(rows.idx):
        return
    text = "regions.npz holds the certificates' radii, levels and classes, and has the hash of summary.json"
    same = _same_versions(run)
    if made and not same:
        findings.unknown(
            "map", "whether selection votes alone made the map: other versions than are here may find other radii"
        )
    findings.check("map", text, map_problems(run, rows, certificates, found, placed, made if same else ()))
    text = "no two regions overlap that must not"
    findings.check("regions", text, overlap_problems(rows, found, found.radii.tolist(), placed.level, run.mode))
    try:
        compared = read_comparison(run, rows)
        result = compare(run, rows, found, certificates, compared, placed, made)
    except (ValueError, OSError) as error:
        findings.check("comparison", "", [_one_line(error, run.folder)])
        return
    text = f"{len(compared)} rules: radii are at most what the votes prove, and regions keep apart"
    whole = findings.check("comparison", text, result.problems)
    problems = summary_problems(run, rows, found.content_hash, compared, placed)
    if whole:
        problems += allocation_problems(run, rows, found, certificates, compared, result.sized, same, placed)
        if not same:
            findings.unknown(
                "versions", "regions were sized by other versions than are here: methods and counts of edges may differ"
            )
    text = f"its numbers follow from the rows; the guarantee is that of the settings: {run.summary.get('guarantee')}"
    findings.check("summary", text, problems)


def _same_versions(run: Described) -> bool:
    recorded = run.manifest["versions"]
    try:
        return all(recorded.get(name) == version(name) for name in _SIZING)
    except PackageNotFoundError:
        return False


def _data(run: Described, rows: Rows, found: Map, settings: VerifySettings, findings: Findings) -> None:
    """Compare the images with the data set, where it is here."""
    ours, data = run.settings, run.manifest["data"]
    folder = settings.data_dir or ours.data_dir
    try:
        there = load_data(ours.dataset, folder, image_size=ours.image_size, train=False)
    except (ValueError, OSError) as error:
        reason = f"the images and labels are not compared with {ours.dataset}: {_one_line(error, run.folder)}"
        findings.unknown("data set", f"{reason}; name its folder with --data-dir")
        return
    problems, count = [], len(there.test_labels)
    if (there.name, there.num_classes) != (data["name"], data["num_classes"]):
        problems.append(f"manifest.json: name and classes are not those of {ours.dataset}")
    if not all(0 <= j < count for j in rows.idx):
        problems.append(f"levels.tsv: names images that {ours.dataset} does not have")
    else:
        if there.test_labels[rows.idx].tolist() != rows.label:
            problems.append(f"selection.tsv: labels are not those of {ours.dataset}")
        if not np.array_equal(np.asarray(there.test_images[np.array(rows.idx)]), images_of(run, found)):
            problems.append(f"regions.npz: images are not those of {ours.dataset}")
    order: Sequence[int] | None = range(count)
    if ours.image_order == "shuffled":
        order = np.random.default_rng(0).permutation(count).tolist()
    elif ours.indices is not None:
        try:
            order = read_indices(ours.indices, count).tolist()
        except (ValueError, OSError):
            order = None
            findings.unknown("data set", f"which images were chosen: --indices {ours.indices} is not here")
    if order is not None and list(order[:: ours.skip][: ours.max]) != rows.idx:
        problems.append("levels.tsv: images are not those that the settings choose, in their order")
    findings.check("data set", f"images and labels are those of {ours.dataset}, chosen as the settings say", problems)


def _classifier(run: Described, settings: VerifySettings, findings: Findings) -> SmoothedClassifier | None:
    """Load the classifier that was certified; None where that cannot be done."""
    ours, recorded = run.settings, run.manifest["classifier"]
    what = "the classifier's hash, its classes without noise and its votes"
    unnamed = [flag for flag in ("model", "arch") if own_code(getattr(ours, flag)) and not getattr(settings, flag)]
    if unnamed:
        name = getattr(ours, unnamed[0])
        remedy = asked_again(f"--{unnamed[0]} {name}", name)
        whose = "another library's" if library(name) else "somebody's own code"
        findings.unknown("classifier", f"{what}: it is {whose}, which a folder alone never runs; {remedy}")
        return None
    if run.old and recorded.get("scheme", 1) == 1:
        findings.unknown("classifier", f"{what}: an earlier version's hash cannot be compared")
        return None
    device = settings.device
    if device == "auto" and run.manifest["device"] == "cpu":
        device = "cpu"
    try:
        classifier = _load(run, settings, str(usable_device(device)))
    except OSError as error:
        remedy = "say where its file is now with --checkpoint or --expert"
        findings.unknown("classifier", f"{what}: {_one_line(error, run.folder)}; {remedy}")
        return None
    except ValueError as error:
        if str(error).startswith("--"):  # a flag that is not the run's
            raise
        findings.check("classifier", "", [_one_line(error, run.folder)])
        return None
    findings.check("classifier", "its hash and its logits for fixed images are those of manifest.json", [])
    if classifier.identity.stream != recorded.get("stream", "sfc64"):
        findings.unknown("votes", f"this version does not draw the noise of stream {recorded.get('stream')}")
        return None
    return classifier


def _asked(
    run: Described,
    rows: Rows,
    found: Map,
    classifier: SmoothedClassifier,
    settings: VerifySettings,
    findings: Findings,
    progress: Progress,
) -> None:
    """Compare what the classifier says, without noise and with it, with the rows."""
    single = run.settings.precision == "float32"
    strict = run.manifest["device"] == "cpu" == classifier.device.type and single
    rounding = 0.0 if strict else _ROUNDING if single else _LOW_PRECISION
    clean = classifier.base_predict(torch.from_numpy(images_of(run, found)), np.array(run.sigmas))
    problems = [
        f"selection.tsv: image {rows.idx[j]}, sigma = {run.sigmas[at]:g}: clean = {rows.clean[j][at]}, the classifier "
        f"says {clean[j, at]}"
        for j, at in np.argwhere(clean != np.array(rows.clean)).tolist()
    ]
    if rounding and 0 < len(problems) <= max(_FEW, rounding * clean.size):
        findings.unknown("clean", f"{len(problems)} classes without noise differ, as rounding on another device may")
    else:
        text = "the classifier gives each image the classes without noise that the rows have"
        findings.check("clean", text, problems)
    _votes(run, rows, found, classifier, settings, findings, progress, rounding)


def _load(run: Described, settings: VerifySettings, device: str) -> SmoothedClassifier:
    return run_classifier(
        run.folder,
        Description(dict(run.config), dict(run.manifest), run.settings),
        seed=run.settings.seed,
        device=device,
        files=files_of(settings.checkpoint, settings.expert),
        model=settings.model,
        arch=settings.arch,
    )


def _votes(
    run: Described,
    rows: Rows,
    found: Map,
    classifier: SmoothedClassifier,
    settings: VerifySettings,
    findings: Findings,
    progress: Progress,
    rounding: float,
) -> None:
    """Draw votes again, as many as are asked for."""
    n = len(rows.idx)
    wanted = n if settings.all else min(settings.redraw or 0, n)
    if not wanted:
        remedy = "add --redraw 20 to draw those of 20 images again, or --all"
        findings.unknown(
            "votes", f"whether the votes are those of this classifier, these images and this seed: {remedy}"
        )
        return
    images = list(range(n)) if wanted == n else sorted(secrets.SystemRandom().sample(range(n), wanted))
    moved, done = list[Moved](), 0
    for some, differ in redraw(run, rows, found, classifier, images):
        moved += differ
        done += len(some)
        progress(done, wanted)
    differing = sum(one.votes for one in moved)
    drawn = sum(cell.sizes[-1] for j in images for cell in (*rows.selection[j], *rows.estimation[j]) if cell)
    if rounding and 0 < differing <= max(_FEW, rounding * drawn):
        findings.unknown("votes", f"{differing} of {drawn:,} votes differ, as rounding on another device may")
        return
    text = f"all votes of {wanted} images were drawn again, and every count is the same"
    if wanted < n:
        share = 1 - 0.05 ** (1 / wanted)
        text += (
            f"; had those of {math.ceil(100 * share)}% of the images been changed, 95 of 100 such draws would show it"
        )
    findings.check("votes", text, list(map(str, moved)))


def _card(run: Described, findings: Findings) -> None:
    """Compare the card with the summary, of which it is a text; what people wrote around it is theirs."""
    file = run.folder / CARD
    if not file.exists():
        return
    if run.old:
        findings.unknown("card", f"what {CARD} says: runs of format 1 had no card")
        return
    check_regular(file)
    if file.stat().st_size > _MOST_CARD:
        raise ValueError(f"{CARD}: has more than {_MOST_CARD:,} bytes")
    text = file.read_bytes().decode(errors="replace")
    try:
        wanted, whole = (make(run.summary, run.manifest["data"]["shape"]) for make in (checked_part, card))
        ours = run.summary["versions"]["srs-certify"] == version("srs-certify")
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:  # whatever a summary holds
        raise ValueError(f"{CARD}: summary.json lacks what a card says ({type(error).__name__})") from error
    once = text.count(wanted) == text.count(BEGIN) == text.count(END) == 1
    if not once and not ours:
        findings.unknown("card", f"what {CARD} says: another version of srs-certify wrote it")
        return
    problems = [] if once else [f"{CARD}: what stands between its marks is not what summary.json says"]
    findings.check("card", f"{CARD} says between its marks what summary.json says", problems)
    if once and text != whole:
        findings.unknown("notes", f"what was written in {CARD} around its marks")


def _not_looked_at(run: Described, findings: Findings) -> None:
    curves = [name for name in ("curves.png", "curves.pdf") if (run.folder / name).exists()]
    others = sorted(file.name for file in run.folder.iterdir() if file.name not in RUN_FILES)
    named = curves + others
    if named:
        findings.unknown("other files", f"what is in {', '.join(named[:5])}{' and more' * (len(named) > 5)}")
