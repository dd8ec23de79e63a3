"""The order of a verification: what the folder says, its rows, what they prove, the map, the images, the votes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from smoothing.storage import check_regular
from srs.report.card import BEGIN, END, card, checked_part
from srs.run.choosing_images import read_indices
from srs.run.folder import CARD, RUN_FILES
from srs.run.sources import check_data
from srs.verify.background import Made, Placed, alone, maps, place
from srs.verify.certificates import (
    certificate_problems,
    level_problems,
    map_problems,
    overlap_problems,
    read_certificates,
)
from srs.verify.comparison import compare, read_comparison
from srs.verify.evidence import (
    ROUTES,
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
from srs.verify.findings import Findings, one_line
from srs.verify.models import Progress, check_classifier, check_router, check_votes
from srs.verify.redraw import images_of
from srs.verify.router import Routing, routing_problems
from srs.verify.settings import VerifySettings
from srs.verify.summary import allocation_problems, summary_problems
from training import load_data

#: Images that are compared with the data set together.
_TOGETHER = 64

#: Bytes of a card with notes.
_MOST_CARD = 2**20

#: What a manifest may hold.
_MANIFEST = frozenset({
    "format", "versions", "seed", "device", "batch", "data", "model", "classifier", "denoiser", "router", "check",
    "sigmas",
})  # fmt: skip

#: What decides how regions are sized, to the last digit.
_SIZING = ("srs-certify", "numpy", "scipy", "highspy", "faiss-cpu")


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
        Where there is no finished run, where a model of one's own is not the run's, and where a router is named and the
        run has none.
    """
    check_run(settings.run)
    findings = Findings()
    try:
        run = read_described(settings.run)
        found = _map(run, findings)
        rows = read_rows(run)
    except (ValueError, OSError) as error:
        findings.check("files", "", [one_line(error, settings.run)])
        findings.unknown("all else", "nothing that follows from these files was checked")
        return findings
    if settings.router is not None and not run.routed:
        raise ValueError(f"--router {settings.router}: the run in {settings.run} has no router; leave it out")
    if settings.dataset is not None:
        check_data(settings.run, settings.dataset, run.settings.dataset)
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
    classifier = check_classifier(run, settings, findings)
    router = check_router(run, settings, classifier, findings)
    if classifier is not None:
        with _problems_found(run, findings, "votes"):
            check_votes(run, rows, found, classifier, router, settings, findings, progress)
    _not_looked_at(run, findings)
    return findings


@contextmanager
def _problems_found(run: Described, findings: Findings, topic: str) -> Iterator[None]:
    """Take what cannot be read or computed for something that does not hold."""
    try:
        yield
    except (ValueError, OSError) as error:
        findings.check(topic, "", [one_line(error, run.folder)])


def _map(run: Described, findings: Findings) -> Map | None:
    try:
        return read_map(run)
    except (ValueError, OSError) as error:
        findings.check("map", "", [one_line(error, run.folder)])
        return None


def _description(run: Described, findings: Findings) -> None:
    manifest, problems = run.manifest, []
    if manifest["sigmas"] != run.sigmas:
        problems.append(f"manifest.json: sigmas are not the levels that config.yaml names: {run.sigmas}")
    if unknown := sorted(manifest.keys() - _MANIFEST):
        problems.append(f"manifest.json: holds {', '.join(unknown)}, which is not known here")
    if run.routed and run.settings.outside != "router":
        problems.append(f"config.yaml: names a router, and outside = {run.settings.outside}, where the router decides")
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
        made = _made(run, rows, found, placed)
        problems = certificate_problems(run, rows, table, certificates, found, placed)
    except (ValueError, OSError) as error:
        findings.check("certificates", "", [one_line(error, run.folder)])
        return
    if placed.around is not None and (routing := placed.around.routing) is not None:
        findings.check("routing", _routing_text(run, rows, routing), routing_problems(run, rows, routing))
    text = f"bounds, radii and classes of {len(rows.idx):,} certificates follow from their votes"
    if not findings.check("certificates", text, problems) and table.rows != len(rows.idx):
        return
    text = "regions.npz holds the certificates' radii, levels and classes, and has the hash of summary.json"
    same = _same_versions(run)
    decided = same or not run.has_regions
    if made and not decided:
        findings.unknown(
            "map", "whether selection votes alone made the map: other versions than are here may find other radii"
        )
    findings.check("map", text, map_problems(run, rows, certificates, found, placed, made if decided else ()))
    if run.has_regions:
        text = "no two regions overlap that must not"
        findings.check("regions", text, overlap_problems(rows, found, found.radii.tolist(), placed.level, run.mode))
    try:
        compared = read_comparison(run, rows)
        result = compare(run, rows, found, certificates, compared, placed, made)
    except (ValueError, OSError) as error:
        findings.check("comparison", "", [one_line(error, run.folder)])
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


def _made(run: Described, rows: Rows, found: Map, placed: Placed) -> list[Made]:
    """Return the maps that selection votes may make, where G answers outside every region."""
    if placed.around is None:
        return []
    if not run.has_regions:
        empty, _ = alone(run, found, placed.around)
        return [Made(empty, empty.radii, 0.0)]
    ranked = [one.expected for one in placed.around.chosen]
    return maps(run, rows, found, placed.around, ranked, rows.level)


def _routing_text(run: Described, rows: Rows, routing: Routing) -> str:
    if rows.routes is None:
        return f"the router names sigma = {run.sigmas[routing.promised.level[0]]:g} for every input, and takes no alpha"
    return (
        f"the level that the router names at each image, and its part of alpha, {routing.share:g}, are the choice of "
        "selection votes"
    )


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
        check_data(run.folder, settings.dataset, ours.dataset)
    except ValueError as error:
        findings.unknown("data set", f"images and labels are not compared: {one_line(error, run.folder)}")
        return
    try:
        there = load_data(ours.dataset, folder, image_size=ours.image_size, train=False)
    except (ValueError, OSError) as error:
        reason = f"the images and labels are not compared with {ours.dataset}: {one_line(error, run.folder)}"
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
        parts = np.split(np.arange(len(rows.idx)), range(_TOGETHER, len(rows.idx), _TOGETHER))
        if not all(
            np.array_equal(there.test_images[np.array(rows.idx)[part]], images_of(run, found, part.tolist()))
            for part in parts
        ):
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
    unread = set() if run.routed and run.manifest["router"]["sigma"] is not None else set(ROUTES)
    others = sorted(file.name for file in run.folder.iterdir() if file.name not in RUN_FILES - unread)
    named = curves + others
    if named:
        findings.unknown("other files", f"what is in {', '.join(named[:5])}{' and more' * (len(named) > 5)}")
