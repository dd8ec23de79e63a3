"""The classifier and the router that voted: whether they are those of the run, and vote as its rows say."""

import math
import secrets
from collections.abc import Callable

import numpy as np
import torch

from smoothing import SmoothedClassifier
from smoothing.machine import usable_device
from srs.predict.run_classifier import run_classifier, run_router
from srs.run.folder import Description
from srs.run.sources import asked_again, files_of, library, own_code
from srs.verify.evidence import Described, Map, Rows
from srs.verify.findings import Findings, one_line
from srs.verify.geometry import in_bytes
from srs.verify.redraw import Moved, images_of, redraw
from srs.verify.settings import VerifySettings

#: The share of votes that rounding on another kind of device may move: in float32, and in lower precision.
_ROUNDING, _LOW_PRECISION = 2e-5, 1e-3

#: Images in bytes that are classified together.
_TOGETHER = 64

#: Votes, and classes without noise, that it may move in any case.
_FEW = 2

#: Tells how many of how many images were redrawn.
Progress = Callable[[int, int], None]


def check_classifier(run: Described, settings: VerifySettings, findings: Findings) -> SmoothedClassifier | None:
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
        also = " or --denoiser" if ours.denoiser is not None else ""
        remedy = f"say where its file is now with --checkpoint or --expert{also}"
        findings.unknown("classifier", f"{what}: {one_line(error, run.folder)}; {remedy}")
        return None
    except ValueError as error:
        if str(error).startswith("--"):  # a flag that is not the run's
            raise
        findings.check("classifier", "", [one_line(error, run.folder)])
        return None
    findings.check("classifier", "its hash and its logits for fixed images are those of manifest.json", [])
    if classifier.identity.stream != recorded.get("stream", "sfc64"):
        findings.unknown("votes", f"this version does not draw the noise of stream {recorded.get('stream')}")
        return None
    return classifier


def check_router(
    run: Described, settings: VerifySettings, classifier: SmoothedClassifier | None, findings: Findings
) -> SmoothedClassifier | None:
    """Load the network that names levels; None where there is none, or where that cannot be done."""
    if not run.routed:
        return None
    what = "the router's hash, its own noise level and its votes"
    if run.manifest["router"]["sigma"] is None:
        what = "which level the router names"
    if classifier is None:
        findings.unknown("router", f"{what}: it belongs to a classifier that was not loaded")
        return None
    try:
        routed = run_router(run.folder, _described(run), classifier, file=settings.router)
    except OSError as error:
        remedy = "say where its file is now with --router"
        findings.unknown("router", f"{what}: {one_line(error, run.folder)}; {remedy}")
        return None
    except ValueError as error:
        findings.check("router", "", [one_line(error, run.folder)])
        return None
    text = "it is one for this classifier; its noise level, its hash and its logits are those of manifest.json"
    if routed is None:
        text = "its checkpoint is for this classifier, and names the level that manifest.json has"
    findings.check("router", text, [])
    return None if routed is None else routed.router


def check_votes(
    run: Described,
    rows: Rows,
    found: Map,
    classifier: SmoothedClassifier,
    router: SmoothedClassifier | None,
    settings: VerifySettings,
    findings: Findings,
    progress: Progress,
) -> None:
    """Compare what the classifier says, without noise and with it, with the rows."""
    single = run.settings.precision == "float32"
    strict = run.manifest["device"] == "cpu" == classifier.device.type and single
    rounding = 0.0 if strict else _ROUNDING if single else _LOW_PRECISION
    n = len(rows.idx)
    together = _TOGETHER if in_bytes(found.centres) else n
    clean = np.concatenate(
        [
            classifier.base_predict(torch.from_numpy(images_of(run, found, some)), np.array(run.sigmas))
            for some in (range(start, min(start + together, n)) for start in range(0, n, together))
        ]
    )
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
    _votes(run, rows, found, classifier, router, settings, findings, progress, rounding)


def _load(run: Described, settings: VerifySettings, device: str) -> SmoothedClassifier:
    return run_classifier(
        run.folder,
        _described(run),
        seed=run.settings.seed,
        device=device,
        files=files_of(settings.checkpoint, settings.expert),
        model=settings.model,
        arch=settings.arch,
        denoiser=settings.denoiser,
    )


def _described(run: Described) -> Description:
    return Description(dict(run.config), dict(run.manifest), run.settings)


def _votes(
    run: Described,
    rows: Rows,
    found: Map,
    classifier: SmoothedClassifier,
    router: SmoothedClassifier | None,
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
    for some, differ in redraw(run, rows, found, classifier, images, router):
        moved += differ
        done += len(some)
        progress(done, wanted)
    differing = sum(one.votes for one in moved)
    drawn = sum(cell.sizes[-1] for j in images for cell in (*rows.selection[j], *rows.estimation[j]) if cell)
    if rows.routes is not None and router is not None:
        drawn += sum(table[j].sizes[0] for table in (rows.routes.selection, rows.routes.estimation) for j in images)
    if rounding and 0 < differing <= max(_FEW, rounding * drawn):
        findings.unknown("votes", f"{differing} of {drawn:,} votes differ, as rounding on another device may")
        return
    whose = "all votes" if rows.routes is None or router is not None else "all votes but the router's"
    text = f"{whose} of {wanted} images were drawn again, and every count is the same"
    if wanted < n:
        share = 1 - 0.05 ** (1 / wanted)
        text += (
            f"; had those of {math.ceil(100 * share)}% of the images been changed, 95 of 100 such draws would show it"
        )
    findings.check("votes", text, list(map(str, moved)))
