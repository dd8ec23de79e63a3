"""Regions for several modes: overlapping pairs of images are searched for once, among the largest radii of all."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

import regions
from srs.geometry import allocate, scaled, sized
from srs.modes import Mode

#: Overlaps for each image that are listed for all modes to share. With more, `regions.allocate` lists none either.
SHARED_EDGES = 50

#: Methods that share their work out.
_PARALLEL = ("lp", "matching", "auto")


@dataclass(frozen=True, eq=False)
class Sizer:
    """Sizes the regions of images by any mode. Nothing is kept between calls.

    Attributes
    ----------
    points : array of shape (n, d)
        The images; bytes stand for p / 255.
    near : regions.OverlapGraph or None
        The overlaps among the largest radii of all modes, in the unit of the points; None where they are too many to
        hold.
    options : mapping
        Passed to `regions.allocate` where it solves the LP.
    parallel, search
        As in `regions.allocate`.
    """

    points: np.ndarray
    near: regions.OverlapGraph | None
    options: Mapping[str, Any]
    parallel: int | str | None
    search: str

    @classmethod
    def among(
        cls,
        points: np.ndarray,
        radii: Sequence[Float64[np.ndarray, " n"]],
        options: Mapping[str, Any],
        parallel: int | str | None = None,
        search: str = "auto",
    ) -> "Sizer":
        """Search for the overlaps of the largest of the radii that modes are sized for.

        Parameters
        ----------
        points : array of shape (n, d)
        radii : sequence of arrays of shape (n,)
            Upper bounds, those of each mode.
        options : mapping
            Passed to `regions.allocate` where it solves the LP.
        parallel : int or str, optional
            As in `regions.allocate`.
        search : {"auto", "faiss", "blocks", "tree"}, default="auto"
            How overlapping pairs are found, as in `regions.overlap_graph`.
        """
        largest = np.maximum.reduce([np.zeros(len(points)), *radii])
        near, most = None, SHARED_EDGES * len(points)
        with suppress(regions.TooManyOverlaps):
            near = regions.overlap_graph(points, scaled(points, largest), search=search, parallel=parallel, most=most)
        return cls(points, near, options, parallel, search)

    def __call__(
        self,
        mode: Mode,
        R: Float64[np.ndarray, " n"],
        level: Int64[np.ndarray, " n"],
        predict: Int64[np.ndarray, " n"],
    ) -> regions.Allocation:
        """Size the regions of images certified for these classes with these radii at these levels.

        The radii are at most the largest that the search was made for. The result is the one of `regions.allocate`, bit
        for bit, unless that finds the overlaps too many to list where the search did not: it may then be another
        optimum.
        """
        how = mode.method
        if mode.how in _PARALLEL:
            how |= {"parallel": self.parallel}
        if mode.how == "lp":
            how |= self.options
        groups = mode.groups(level, predict)
        if self.near is None:
            return allocate(self.points, R, groups=groups, search=self.search, **how)
        near = self.near.restricted(scaled(self.points, R), groups=groups)
        return sized(self.points, R, regions.allocate_graph(near, **how))
