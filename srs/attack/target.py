"""What is attacked: the balls that a run certified, and the map that says with which noise level G votes."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Int64

from regions import RegionMap
from smoothing import ABSTAIN
from smoothing.fingerprint import hash_arrays
from srs.geometry import is_bytes
from srs.logs.read import read_log
from srs.predict.loading import FinishedRun
from srs.run.folder import CERTIFICATES, REGIONS
from srs.run.votes import images_of


@dataclass(frozen=True, eq=False)
class Target:
    """K images of a run, what is certified of them, and the map of all regions.

    Attributes
    ----------
    idx, label, predict : int arrays of shape (K,)
        Index in the data set, true class, certified class or -1.
    centre : float32 array of shape (K, C, H, W)
        The images.
    radius : array of shape (K,)
        Of the certified balls, which are open; 0 where nothing is certified.
    table : RegionMap
    outside : float, "router" or None
        The noise level outside every region, or that a router names it; None where G has no answer there.
    sigmas : array of shape (L,)
        The run's noise levels, increasing.
    """

    idx: Int64[np.ndarray, " K"]
    label: Int64[np.ndarray, " K"]
    predict: Int64[np.ndarray, " K"]
    centre: Float32[np.ndarray, "K c h w"]
    radius: Float64[np.ndarray, " K"]
    table: RegionMap
    outside: float | Literal["router"] | None
    sigmas: Float64[np.ndarray, " L"]

    @property
    def x(self) -> Float64[np.ndarray, "K d"]:
        """The images, flattened."""
        return self.centre.reshape(len(self.centre), -1).astype(np.float64)


def read_target(run: FinishedRun, most: int, rng: np.random.Generator) -> Target:
    """Read what a run certifies of at most so many of its images.

    They are drawn from all of its images, also from those that it certifies nothing of. Who draws among the certified
    ones looks at the estimation samples, and may not say any more that each is wrong with probability at most alpha.

    Raises
    ------
    ValueError
        Where `certificates.tsv` is damaged, or is not about the run's images.
    """
    if is_bytes(run.regions.centres):
        raise ValueError(
            f"{run.folder}: the run keeps its many images in bytes, which cannot be attacked; certify fewer"
        )
    file = run.folder / CERTIFICATES
    table, idx = read_log(file), images_of(run.folder)
    images = run.regions.centres.reshape(-1, *run.shape).astype(np.float32)
    if not np.array_equal(table.idx, idx):
        raise ValueError(f"{file} is not about the run's images: it has other indices; restore it")
    manifest = run.described.manifest
    exact = np.array_equal(images.reshape(len(images), -1), run.regions.centres)
    if not exact or hash_arrays(images, idx, table.label) != manifest["data"]["sha256"]:
        raise ValueError(f"{run.folder}: its images or labels are not those it was made of; restore {REGIONS}")
    if images.min() < 0 or images.max() > 1:
        raise ValueError(f"{run.folder / REGIONS} holds pixels outside [0, 1], which G does not take: restore it")
    if max(table.predict.max(), table.label.max()) >= manifest["data"]["num_classes"]:
        raise ValueError(f"{file} is damaged: it has classes that the run has not; restore it")
    n = len(idx)
    chosen = np.arange(n) if most >= n else np.sort(rng.choice(n, most, replace=False))
    radius = np.where(table.predict == ABSTAIN, 0.0, table.radius)[chosen]
    return Target(
        idx[chosen],
        table.label[chosen],
        table.predict[chosen],
        images[chosen],
        radius,
        run.regions,
        run.outside,
        np.array(manifest["sigmas"], dtype=np.float64),
    )
