"""Regions with a background: outside every region G votes with one noise level, or with that which a router names.

An image keeps a region only where its own level promises more than the background, by selection samples. The map is
made of selection samples alone. So the samples that certify afterwards decide nothing about it, and the distances from
an image to the regions are fixed numbers when its radius is computed (`smoothing.agreement`).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64
from scipy.stats import norm

import regions
from smoothing import agreeing_radius
from smoothing.agreement import outside_clearance
from srs.evaluation.sizing import Sizer
from srs.modes import Mode

#: By how many standard errors of its selection samples an image's own level must promise more than the background to
#: get a region. The number that promises most for all images together is taken; infinity makes no region.
HEDGES = (0.0, 0.5, 1.0, 2.0, 3.0, math.inf)

#: A region may be larger than what its image is promised, since more may be proved: by a standard error, and at most by
#: this share.
ROOM = 0.1


@dataclass(frozen=True, eq=False)
class Outside:
    """What decides outside every region.

    Attributes
    ----------
    level : int array of shape (n,)
        The level that is named at each image.
    clearance : array of shape (n, K)
        Within this distance of an image no other level is named: for each level, 0 for the one at the image.
    """

    level: Int64[np.ndarray, " n"]
    clearance: Float64[np.ndarray, "n K"]

    @classmethod
    def constant(cls, level: int, images: int, levels: int) -> "Outside":
        """Return one level, the same for every input."""
        clearance = np.full((images, levels), np.inf)
        clearance[:, level] = 0.0
        return cls(np.full(images, level), clearance)

    def radius(
        self, classes: Int64[np.ndarray, "n K"], radius: Float64[np.ndarray, "n K"]
    ) -> Float64[np.ndarray, " n"]:
        """Return up to where no level decides that does not agree, where there are no regions."""
        agree = np.where(classes == classes[np.arange(len(classes)), self.level][:, None], radius, 0.0)
        return agreeing_radius(agree, self.clearance, self.level)


@dataclass(frozen=True, eq=False)
class Background:
    """A map of regions, and what decides around them.

    Attributes
    ----------
    sigmas : array of shape (K,)
        Noise levels, increasing.
    outside : Outside
        As selection samples promise it.
    table : regions.RegionMap
        The regions, around all images; of radius 0 where an image has none.
    allocation : regions.Allocation or None
        How they were sized; None where nobody wanted any.
    """

    sigmas: Float64[np.ndarray, " K"]
    outside: Outside
    table: regions.RegionMap
    allocation: regions.Allocation | None

    @classmethod
    def alone(
        cls, points: Float64[np.ndarray, "n d"], sigmas: Float64[np.ndarray, " K"], outside: Outside
    ) -> "Background":
        """Return a map without regions."""
        return cls(sigmas, outside, regions.RegionMap(points, np.zeros(len(points)), sigmas[outside.level]), None)

    @cached_property
    def level(self) -> Int64[np.ndarray, " n"]:
        """The level that G uses at each image."""
        if self.allocation is None:
            return self.outside.level
        where = self.table.locate(self.table.centres)
        sigma = np.where(where.held, where.sigma, self.sigmas[self.outside.level])
        return np.searchsorted(self.sigmas, sigma)

    def radii(
        self,
        classes: Int64[np.ndarray, "n K"],
        radius: Float64[np.ndarray, "n K"],
        outside: Outside | None = None,
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Return the radius at each image's level, and up to where no level decides that does not agree, each (n,).

        The second is at most the first.

        Parameters
        ----------
        classes : int array of shape (n, K)
            The class that each level certifies.
        radius : array of shape (n, K)
            Up to where.
        outside : Outside, optional
            As other samples prove it, of the same levels at the images. Default: as selection samples promise it.
        """
        at = np.arange(len(self.level))
        agree = np.where(classes == classes[at, self.level][:, None], radius, 0.0)
        own = agree[at, self.level]
        # no region beyond the image's own radius can change the minimum: up to there the distances are those of the map
        around = self.table.surroundings(self.table.centres, self.sigmas, own)
        clearance = outside_clearance(around.clearance, around.exit, (outside or self.outside).clearance)
        return own, agreeing_radius(agree, clearance, self.level)


@dataclass(frozen=True, eq=False)
class Promised:
    """What selection samples say of n images at K levels.

    Attributes
    ----------
    level : int array of shape (n,)
        The level that each image takes where it gets a region.
    classes : int array of shape (n, K)
        The class that has most votes.
    radius : array of shape (n, K)
        The radius that is to be expected for it.
    samples : int array of shape (n, K)
        How many there are.
    """

    level: Int64[np.ndarray, " n"]
    classes: Int64[np.ndarray, "n K"]
    radius: Float64[np.ndarray, "n K"]
    samples: Int64[np.ndarray, "n K"]

    def best_constant(self) -> int:
        """Return the level that promises most as the only one."""
        return int(self.radius.mean(axis=0).argmax())


def with_background(
    points: Float64[np.ndarray, "n d"],
    sigmas: Float64[np.ndarray, " K"],
    promised: Promised,
    mode: Mode,
    outside: Outside,
) -> Background:
    """Make regions where they promise more than what decides outside. No label is looked at.

    Parameters
    ----------
    points : array of shape (n, d)
        The images: centres of the regions.
    sigmas : array of shape (K,)
        Noise levels, increasing.
    promised : Promised
    mode : Mode
        How regions are sized.
    outside : Outside
        By selection samples.

    Returns
    -------
    Background
        Among maps for several `HEDGES`, the one that promises most for all images together. One of them has no region:
        so by what selection samples promise, nothing is lost against having none, for all images together.
    """
    radius, level, at = promised.radius, promised.level, np.arange(len(points))
    own = radius[at, level]
    error = _standard_error(own, sigmas[level], promised.samples[at, level])
    gain = own - outside.radius(promised.classes, radius)
    bound = own + np.minimum(error, ROOM * own)
    size = Sizer.among(points, [bound], {})
    found = []
    for hedge in HEDGES:
        wanted = np.where((gain > 0) & (gain > hedge * error), bound, 0.0)
        allocation = size(mode, wanted, level, promised.classes[at, level])
        table = regions.RegionMap(points, allocation.radii, sigmas[level])
        found.append(Background(sigmas, outside, table, allocation))
    return max(found, key=lambda one: float(one.radii(promised.classes, radius)[1].sum()))


def _standard_error(
    radius: Float64[np.ndarray, " n"], sigma: Float64[np.ndarray, " n"], samples: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Return the standard error of radius = sigma quantile(p), p being a share of some samples (the delta method)."""
    z = np.minimum(radius / sigma, 30.0)  # densities vanish beyond, and no number of samples gives such a radius
    return np.asarray(sigma * np.sqrt(norm.cdf(z) * norm.sf(z) / samples) / norm.pdf(z))
