"""The classifier that a run certified, loaded again and recognised by its hash."""

import hashlib
import secrets
from dataclasses import asdict, replace
from pathlib import Path

from smoothing import SmoothedClassifier
from smoothing.fingerprint import classifier_difference
from srs.run.base_classifiers import bank, named_by_run, own_classifier, smoothed
from srs.run.folder import Description
from srs.run.sources import files_of
from training.models import is_factory


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
    checkpoint: Path | None = None,
    expert: tuple[str, ...] = (),
    model: str | None = None,
    arch: str | None = None,
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
    checkpoint, expert
        Where the weights are now; unless given, where the run found them.
    model, arch
        The run's own, where they are `package.module:factory`: the folder may come from somebody else, and building a
        factory runs its module, so the user names it.

    Raises
    ------
    ValueError
        Where code would run that was not named; where weights, precision, sampler or number of classes are not those
        that were certified.
    OSError
        Where a checkpoint cannot be opened.
    """
    settings, manifest = described.settings, described.manifest
    _check_named(folder, "model", model, settings.model)
    _check_named(folder, "arch", arch, settings.arch)
    classes = manifest["classifier"]["num_classes"]
    models = named_by_run(settings, classes, files=files_of(checkpoint, expert))
    base = own_classifier(folder) if models is None else bank(models)
    # how many images a pass has is up to this machine, not to the folder
    classifier = smoothed(base, replace(settings, batch=None), classes, seed=seed, device=device)
    here = replace(classifier.identity, seed=settings.seed)
    ours = {"classifier": asdict(here), "check": classifier.check_logits(manifest["data"]["shape"])}
    if (what := classifier_difference(ours, manifest)) is not None:
        raise ValueError(
            f"{folder}: another classifier was certified: it differs in {what}; name its weights with --checkpoint or "
            "--expert"
        )
    return classifier


def _check_named(folder: Path, name: str, given: str | None, stored: str | None) -> None:
    """Raise where a run's model or architecture is one's own code and the user does not name the same."""
    if is_factory(stored) and given is None:
        raise ValueError(
            f"{folder}: was certified with code of your own, which a folder alone never runs: add --{name} {stored} "
            "if you trust that module"
        )
    if given is not None and given != stored:
        remedy = f"give --{name} {stored} if you trust that module" if is_factory(stored) else "leave it out"
        raise ValueError(f"--{name} {given}: the run in {folder} has {stored}; {remedy}")
