"""The classifier that a run certified, loaded again and recognised by its hash."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from smoothing import SmoothedClassifier
from smoothing.fingerprint import classifier_difference
from srs.run.base_classifiers import experts
from srs.run.folder import MODEL
from srs.run.settings import own_code
from training import build, load_checkpoint


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
    config: Mapping[str, Any],
    manifest: Mapping[str, Any],
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
    folder, config, manifest
        Of the run, as `folder.read_description` returns them.
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
    described = manifest["classifier"]
    model, arch = _named(folder, "model", model, config), _named(folder, "arch", arch, config)
    classes, normalizer = described["num_classes"], config.get("normalizer")
    files = experts(expert or ([] if checkpoint else config.get("expert") or []))
    source = checkpoint or config.get("checkpoint")
    base: nn.Module | Mapping[float, nn.Module]

    def read(file: str | Path) -> nn.Module:  # a factory has to be told how many classes it is for
        return load_checkpoint(file, arch=arch, normalizer=normalizer, num_classes=classes if arch else None)

    if files:
        base = bank({level: read(file) for level, file in files.items()})
    elif source:
        base = read(source)
    elif model is not None:
        base = build(model, classes, seed=config["seed"])
    else:
        base = load_checkpoint(folder / MODEL)
    classifier = SmoothedClassifier(
        base,
        classes,
        sampler=described["sampler"],
        precision=described["precision"],
        batch_size=config.get("batch"),
        seed=seed,
        device=device,
    )
    here = asdict(classifier.identity) | {"seed": described["seed"]}
    ours = {"classifier": here, "check": classifier.check_logits(manifest["data"]["shape"])}
    if (what := classifier_difference(ours, manifest)) is not None:
        raise ValueError(
            f"{folder}: another classifier was certified: it differs in {what}; name its weights with --checkpoint or "
            "--expert"
        )
    return classifier


def _named(folder: Path, name: str, given: str | None, config: Mapping[str, Any]) -> str | None:
    """Return the run's model or architecture: one of ours, or one's own code where the user names the same."""
    stored = config.get(name)
    if own_code(stored) and given is None:
        raise ValueError(
            f"{folder}: was certified with code of your own, which a folder alone never runs: add --{name} {stored} "
            "if you trust that module"
        )
    if given is not None and given != stored:
        remedy = f"give --{name} {stored} if you trust that module" if own_code(stored) else "leave it out"
        raise ValueError(f"--{name} {given}: the run in {folder} has {stored}; {remedy}")
    return stored


def bank(models: Mapping[float, nn.Module]) -> nn.Module | Mapping[float, nn.Module]:
    """Return the one model where there is no choice, as `srs-certify` does, whose hash tells a bank from a model."""
    return next(iter(models.values())) if len(models) == 1 else models
