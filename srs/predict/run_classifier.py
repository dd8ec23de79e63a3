"""The classifier that a run certified, loaded again and recognised by its hash."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from smoothing import RoutedClassifier, SmoothedClassifier
from smoothing.fingerprint import classifier_difference
from smoothing.routing import router_seed
from srs.run.base_classifiers import Bank, bank, named_by_run, own_classifier, smoothed
from srs.run.denoiser import read_denoiser, weights_of
from srs.run.folder import Description
from srs.run.router import read_router, router_difference, router_record
from srs.run.run_settings import RunSettings
from srs.run.sources import Files, asked_again, library
from training.models import is_factory


@dataclass(frozen=True)
class Words:
    """How errors write what the user gives: in the words of a command, or of a call.

    Attributes
    ----------
    name, value : str
        Formats of a setting's name, and of a setting with its value.
    weights : str
        What names weights.
    store : str
        What names the file in which images are registered.
    """

    name: str
    value: str
    weights: str
    store: str


FLAGS = Words("--{}", "--{} {}", "--checkpoint or --expert", "--online")
ARGUMENTS = Words("{}", "{} = {!r}", "checkpoint or model", "store")


def fresh_seed(seed: int | None) -> tuple[int, int]:
    """Return a seed to state, and the one made of it that names noise streams.

    Without a seed one is drawn from the operating system. The second is a hash of the first, so it is not the seed of a
    run that was given the same number: no sample that chose a sigma or a region is seen again.
    """
    stated = secrets.randbits(64) if seed is None else seed
    digest = hashlib.sha256(f"srs-predict {stated}".encode()).digest()
    return stated, int.from_bytes(digest[:16], "big")


def run_classifier(
    folder: Path,
    described: Description,
    *,
    seed: int,
    device: str,
    files: Files | None = None,
    model: str | Bank | None = None,
    arch: str | None = None,
    denoiser: Path | None = None,
    words: Words = FLAGS,
) -> SmoothedClassifier:
    """Load the classifier of a run, with another seed.

    Parameters
    ----------
    folder, described
        The run, and what `folder.read_description` says of it.
    seed : int
        Names the noise streams.
    device : str
        Where to compute.
    files
        Where the weights are now; unless given, where the run found them.
    model, arch
        The run's own, where they are `package.module:factory`: the folder may come from somebody else, and building a
        factory runs its module, so the user names it. Or as `model` the base classifier itself, with any denoiser.
    denoiser : Path, optional
        Where the checkpoint of the run's denoiser is now; unless given, where the run found it.
    words : Words
        Of errors.

    Raises
    ------
    ValueError
        Where code would run that was not named; where weights, precision, sampler or number of classes are not those
        that were certified.
    OSError
        Where a checkpoint cannot be opened.
    """
    settings, manifest = described.settings, described.manifest
    classes = manifest["classifier"]["num_classes"]
    if denoiser is not None:
        _check_denoised(folder, denoiser, settings, model, words)
    if model is None or isinstance(model, str):
        _check_named(folder, "model", model, settings.model, words)
        _check_named(folder, "arch", arch, settings.arch, words)
        base = _found_again(folder, settings, classes, files, words)
        if (file := denoiser or settings.denoiser) is not None:
            base = _denoised(folder, manifest, file, base, words)
    else:
        base = model
    # how many images a pass has is up to this machine, not to the folder
    classifier = smoothed(base, replace(settings, batch=None), classes, seed=seed, device=device)
    here = replace(classifier.identity, seed=settings.seed)
    ours = {"classifier": asdict(here), "check": classifier.check_logits(manifest["data"]["shape"])}
    if (what := classifier_difference(ours, manifest)) is not None:
        remedy = f"name its weights with {words.weights}"
        if isinstance(model, str) and library(model):
            remedy = f"{model}, or what reads it, is not what it was"
        raise ValueError(f"{folder}: another classifier was certified: it differs in {what}; {remedy}")
    return classifier


def run_router(
    folder: Path, described: Description, classifier: SmoothedClassifier, *, file: Path | None, words: Words = FLAGS
) -> RoutedClassifier | None:
    """Load the router of a run that a network names levels for, in front of the run's classifier; None without one.

    Parameters
    ----------
    folder, described, words
        As in `run_classifier`, which loaded `classifier`.
    file : Path or None
        Where the router's checkpoint is now; unless given, where the run found it.

    Raises
    ------
    ValueError
        Where another router was certified, and where a file is named and the run has no router.
    OSError
        Where the checkpoint cannot be opened.
    """
    settings, manifest = described.settings, described.manifest
    record = router_record(manifest)
    if record is None or settings.router is None:
        if file is not None:
            raise ValueError(f"{words.value.format('router', file)}: the run in {folder} has no router; leave it out")
        return None
    shape, always = manifest["data"]["shape"], settings.router_always
    router = read_router(file or settings.router, manifest["sigmas"], shape, classifier, always=always)
    routed = router.smoothed(classifier)
    here = router.manifest(routed, manifest["data"]["shape"])
    if here["classifier"] is not None:
        here["classifier"]["seed"] = router_seed(settings.seed)
    if (what := router_difference(here, manifest["router"])) is not None:
        named = words.value.format("router", "FILE") if words is FLAGS else words.name.format("router")
        raise ValueError(
            f"{folder}: another router was certified: it differs in {what}; name its checkpoint with {named}"
        )
    return routed


def _found_again(folder: Path, settings: RunSettings, classes: int, files: Files | None, words: Words) -> Bank:
    """Return the base classifier that a run's settings name, or the demonstration's from the folder."""
    models = named_by_run(settings, classes, files=files, called=words.name.format("model"))
    return own_classifier(folder) if models is None else bank(models)


def _check_denoised(folder: Path, file: Path, settings: RunSettings, model: str | Bank | None, words: Words) -> None:
    """Raise where a denoiser is named that the run does not have, or that a module which is given has in it."""
    given = words.value.format("denoiser", file if words is FLAGS else str(file))
    if settings.denoiser is None:
        raise ValueError(f"{given}: the run in {folder} has no denoiser; leave it out")
    if model is not None and not isinstance(model, str):
        raise ValueError(f"{given}: a module is given as model, which has its denoiser in it; leave this out")


def _denoised(folder: Path, manifest: Mapping[str, Any], file: Path, base: Bank, words: Words) -> Bank:
    """Return the base classifier behind the run's denoiser."""
    named = words.value.format("denoiser", "FILE") if words is FLAGS else words.name.format("denoiser")
    found = read_denoiser(file, manifest["sigmas"], manifest["data"]["shape"], called=str(file))
    if found.weights != weights_of(manifest):
        raise ValueError(
            f"{folder}: another denoiser was certified than that in {file}; name its checkpoint with {named}"
        )
    return found.before(base, manifest["sigmas"])


def _check_named(folder: Path, name: str, given: str | None, stored: str | None, words: Words) -> None:
    """Raise where a run's model or architecture is one's own code and the user does not name the same."""
    if is_factory(stored) and given is None:
        whose = "another library's model" if library(stored) else "code of your own"
        raise ValueError(
            f"{folder}: was certified with {whose}, which a folder alone never runs: "
            f"{asked_again(words.value.format(name, stored), stored)}"
        )
    if given is not None and given != stored:
        remedy = (
            asked_again(words.value.format(name, stored), stored).replace("add", "give", 1)
            if is_factory(stored)
            else "leave it out"
        )
        raise ValueError(f"{words.value.format(name, given)}: the run in {folder} has {stored}; {remedy}")
