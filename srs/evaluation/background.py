"""Regions with a background: outside every region G votes with one noise level, the same everywhere.

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
from srs.evaluation.sizing import Sizer
from srs.modes import Mode

#: By how many standard errors of its selection samples an image's own level must promise more than the background to
#: get a region. The number that promises most for all images together is taken; infinity makes no region.
HEDGES = (0.0, 0.5, 1.0, 2.0, 3.0, math.inf)

#: A region may be larger than what its image is promised, since more may be proved: by a standard error, and at most by
#: this share.
ROOM = 0.1


@dataclass(frozen=True, eq=False)
class Background:
    """A map of regions, and the level around them.

    Attributes
    ----------
    sigmas : array of shape (K,)
        Noise levels, increasing.
    outside : int
        The level outside every region.
    table : regions.RegionMap
        The regions, around all images; of radius 0 where an image has none.
    allocation : regions.Allocation
        How they were sized.
    """

    sigmas: Float64[np.ndarray, " K"]
    outside: int
    table: regions.RegionMap
    allocation: regions.Allocation

    @cached_property
    def level(self) -> Int64[np.ndarray, " n"]:
        """The level that G uses at each image."""
        where = self.table.locate(self.table.centres)
        sigma = np.where(where.held, where.sigma, self.sigmas[self.outside])
        return np.searchsorted(self.sigmas, sigma)

    def radii(
        self, classes: Int64[np.ndarray, "n K"], radius: Float64[np.ndarray, "n K"]
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Return the radius at each image's level, and up to where no level decides that does not agree, each (n,).

        The second is at most the first.

        Parameters
        ----------
        classes : int array of shape (n, K)
            The class that each level certifies.
        radius : array of shape (n, K)
            Up to where.
        """
        at = np.arange(len(self.level))
        agree = np.where(classes == classes[at, self.level][:, None], radius, 0.0)
        own = agree[at, self.level]
        # no region beyond the image's own radius can change the minimum: up to there the distances are those of the map
        around = self.table.surroundings(self.table.centres, self.sigmas, own)
        clearance = around.clearance
        clearance[:, self.outside] = np.minimum(clearance[:, self.outside], around.exit)
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


def with_background(
    points: Float64[np.ndarray, "n d"], sigmas: Float64[np.ndarray, " K"], promised: Promised, mode: Mode
) -> Background:
    """Make regions where they promise more than the level outside. No label is looked at.

    Parameters
    ----------
    points : array of shape (n, d)
        The images: centres of the regions.
    sigmas : array of shape (K,)
        Noise levels, increasing.
    promised : Promised
    mode : Mode
        Its `outside` is one of the levels, or "auto": the one that promises most as the only one.

    Returns
    -------
    Background
        Among maps for several `HEDGES`, the one that promises most for all images together. One of them has no region:
        so by what selection samples promise, nothing is lost against the level outside, for all images together.

    Raises
    ------
    ValueError
        Where the level outside is none of the levels.
    """
    radius, level, at = promised.radius, promised.level, np.arange(len(points))
    mode.check_outside(sigmas.tolist())
    outside = int(radius.mean(axis=0).argmax() if mode.outside == "auto" else (sigmas == mode.outside).argmax())
    own = radius[at, level]
    gain, error = own - radius[:, outside], _standard_error(own, sigmas[level], promised.samples[at, level])
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
