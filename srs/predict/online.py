"""Algorithm 2 after a run: new images get regions of their own, in a file that begins with the run's regions."""

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from regions import OnlineAllocator, RegionMap, TooManyOverlaps, overlap_graph
from smoothing import Certificates, make_sampler
from smoothing._validate_inputs import check_images
from smoothing.fingerprint import difference
from smoothing.reading import read_json
from srs.evaluation.rules import less
from srs.geometry import is_bytes
from srs.predict.predictor import Answers, Predictor

#: What may overlap in the file, by the run's overlap mode. Class groups would need all certificates to hold at once,
#: also those still to come.
GROUPS: Mapping[str, str] = {"paper": "none", "sigma": "sigma", "joint": "sigma"}


@dataclass(frozen=True, eq=False)
class Arrivals:
    """What m images were given.

    Attributes
    ----------
    answers : Answers
        Their certificates; `region` and `margin` are those after the arrival.
    created : bool array of shape (m,)
        Whether the image has a new region.
    """

    answers: Answers
    created: Bool[np.ndarray, " m"]


def identity_of(classifier: Mapping[str, Any], table: RegionMap) -> dict[str, Any]:
    """Say which G a run has, whatever its seed: what was certified, as a run's manifest says it, and the regions."""
    certified = {name: value for name, value in classifier.items() if name != "seed"}
    return {"classifier": certified, "regions": table.content_hash}


def open_state(
    path: Path, table: RegionMap, overlap: str, classifier: Mapping[str, Any], *, called: str = "--online"
) -> OnlineAllocator:
    """Open the file of regions, or begin it with those of a run; several processes may do so at the same time.

    Beside it, in PATH.json, stands which regions it began with and of which classifier: a file of another run is
    refused, since its regions were certified for another G.

    Parameters
    ----------
    path : Path
    table : RegionMap
        The run's regions.
    overlap : str
        The run's overlap mode.
    classifier : mapping
        What was certified, as a run's manifest says it.
    called : str, default="--online"
        What errors call the file.

    Raises
    ------
    ValueError
        Where the file belongs to another run, is damaged, holds regions that overlap, or the overlap mode is "class".
    OSError
        Where it cannot be opened or written.
    """
    if overlap not in GROUPS:
        raise ValueError(
            f"{called} {path}: the run's --overlap is {overlap}, whose certificates must hold all at once, which "
            "images still to come cannot promise; certify with --overlap sigma"
        )
    if is_bytes(table.centres):
        raise ValueError(
            f"{called} {path}: the run keeps its many images in bytes, beside which no region can be registered: "
            "certify fewer images for that"
        )
    ours = identity_of(classifier, table) | {"groups": GROUPS[overlap]}
    about = path.with_name(f"{path.name}.json")
    if path.exists() and not about.exists():
        raise ValueError(f"{called} {path}: {about.name} is missing, which says whose regions it holds; restore it")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ValueError(f"{called} {path}: there is no folder {folder}; make it first")
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=folder) as staging:
        if not about.exists():
            _first(Path(staging) / "about", about, json.dumps(ours, indent=2) + "\n")
        differs = difference(ours, read_json(about, "restore it"))
        if differs is not None:
            name, here, there = differs
            raise ValueError(f"{called} {path}: is another run's: {name} is {there} there, {here} here; name another")
        if not path.exists():
            _begin(Path(staging) / "regions.db", path, table, GROUPS[overlap])
    state = OnlineAllocator(path, table.centres.shape[1], groups=GROUPS[overlap])
    try:
        _check_disjoint(state, f"{called} {path}")
    except BaseException:
        state.close()
        raise
    return state


def _check_disjoint(state: OnlineAllocator, source: str) -> None:
    """Refuse a file in which regions that conflict overlap: `OnlineAllocator` stores none, but others may have."""
    stored = state.region_map()
    try:
        overlap_graph(stored.centres, stored.radii, groups=stored.sigma if state.groups == "sigma" else None, most=0)
    except TooManyOverlaps as error:
        raise ValueError(f"{source}: holds regions that overlap, which prove nothing: restore a copy") from error


def _first(staged: Path, path: Path, text: str) -> None:
    """Write a file whole, unless another process was faster."""
    with staged.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    with suppress(FileExistsError):
        os.link(staged, path)


def _begin(staged: Path, path: Path, table: RegionMap, groups: str) -> None:
    """Make the file with the regions of the run, which nobody sees before it holds them all."""
    filled = np.flatnonzero(table.radii > 0)
    classes = np.full(len(table), -1) if table.classes is None else table.classes
    with closing(OnlineAllocator(staged, table.centres.shape[1], groups=groups, synchronous="normal")) as state:
        for k in filled.tolist():
            state.insert(table.centres[k], float(table.sigma[k]), float(table.radii[k]), class_=int(classes[k]))
    descriptor = os.open(staged, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    with suppress(FileExistsError):
        os.link(staged, path)


def arrive(
    state: OnlineAllocator,
    G: Predictor,
    images: Float32[np.ndarray, "m c h w"],
    *,
    n: int = 10_000,
    n0: int = 1000,
) -> Arrivals:
    """Certify images and register them, one after the other (Algorithm 2).

    With probability at least 1 - alpha, G's own alpha, per image: G, over all regions of the file now and later, is
    `predict` within `radius`, since stored regions never change. An image inside a region is certified at its sigma
    (Eq. 6), any other at the level that n0 samples choose (Eq. 7), and gets a region that stays clear of all
    conflicting ones (Eq. 8).

    Parameters
    ----------
    state : OnlineAllocator
    G : Predictor
        Its classifier votes, at its levels. With a seed that was never used before.
    images : float32 array of shape (m, C, H, W)
        Pixels in [0, 1].
    n, n0 : int
        Estimation samples per image; selection samples per image and level.
    """
    check_images(images)
    rows, created = [], []
    for image in images[:, None]:
        made: list[Certificates] = []

        def certify(
            sigma: float | None, image: np.ndarray = image, made: list[Certificates] = made
        ) -> tuple[float, float, int]:
            """Certify at this level or the best one, with noise that nobody has seen."""
            name = G.numbers(1)
            with G.voting() as classifier:
                if sigma is None:
                    choice = classifier.select_sigma(image, G.sigmas, n0=n0, indices=name)
                    found = classifier.certify_classes(
                        image, choice.sigma, choice.predict, n=n, alpha=G.alpha, share=choice.share, indices=name
                    )
                else:
                    found = classifier.certify(image, sigma, n0=n0, n=n, alpha=G.alpha, indices=name)
            G.check_same(found)
            made.append(found)
            return float(found.sigma[0]), float(found.radius[0]), int(found.predict[0])

        point = image.reshape(-1).astype(np.float64)
        arrival = state.arrive(point, certify)
        margin = state.locate(point).margin
        count, R = int(made[-1].counts[0]), float(made[-1].radius[0])
        lost = make_sampler(made[-1].identity.sampler).lookup_error(point.size)
        radius = float(less(np.array([arrival.radius]), lost)[0])
        rows.append((arrival.class_, arrival.region, arrival.sigma, margin, count, n, R, radius))
        created.append(arrival.created)
    kinds = (np.int64, np.int64, np.float64, np.float64, np.int64, np.int64, np.float64, np.float64)
    columns = (np.array(column, kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True))
    return Arrivals(Answers(*columns), np.array(created, dtype=bool))
