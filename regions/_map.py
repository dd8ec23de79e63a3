"""The region map: a table of regions in which points are located, to find the sigma at which to classify them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Float64, Int64, Real
from numpy.typing import ArrayLike

from regions import _validate
from regions._arithmetic.distances import distances_below, margins_below
from regions._graph import overlaps
from regions._search.embedding import Frame
from regions._search.products import TILE, overlapping
from regions._search.trees import Pairs
from regions.files import read_arrays, write_arrays

_FORMAT = "srs-region-map-1"

Index = TypeVar("Index", bound=int | np.ndarray)
Number = TypeVar("Number", bound=float | np.ndarray)


@dataclass(frozen=True, eq=False)
class Location(Generic[Index, Number]):
    """Where points lie among the regions: arrays of shape (m,) for m points, plain numbers for a single point.

    Attributes
    ----------
    region : (m,) int64, or int
        Index of the region that holds the point, -1 where no region does. Where overlapping regions hold it,
        `RegionMap.locate` takes the smallest index. `OnlineAllocator.locate` takes the region whose boundary is
        farthest away (these regions all have one sigma).
    sigma : (m,) float64, or float
        The region's noise level, NaN outside.
    margin : (m,) float64, or float
        Distance to the region's boundary, rounded down; 0 outside.
    """

    region: Index
    sigma: Number
    margin: Number

    @property
    def held(self) -> Any:
        """Whether a region holds the point: (m,) bool, or bool."""
        return self.region >= 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Location):
            return NotImplemented
        pairs = (self.region, other.region), (self.sigma, other.sigma), (self.margin, other.margin)
        return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)

    __hash__ = None  # type: ignore[assignment] # arrays cannot be hashed


Locations = Location[Int64[np.ndarray, " m"], Float64[np.ndarray, " m"]]
"""Where m points lie."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What lies around m points, for L noise levels. All distances are rounded down.

    Attributes
    ----------
    clearance : (m, L) float64
        Distance to the nearest region of each level, at most the `reach` that was asked for; 0 inside one.
    exit : (m,) float64
        The open ball of this radius lies in one region; 0 outside every region.
    """

    clearance: Float64[np.ndarray, "m L"]
    exit: Float64[np.ndarray, " m"]


@dataclass(frozen=True, eq=False)
class RegionMap:
    """A frozen table of regions: open balls B(centre, radius), each with one noise level.

    Attributes
    ----------
    centres : (n, d) float64
    radii : (n,) float64
        A region of radius 0 is empty: it holds no point, not even its centre.
    sigma : (n,) float64
        Noise level of each region; NaN is allowed where the radius is 0.
    classes : (n,) int64 or None
        Class certified at each centre; -1 where no class is certified.

    Notes
    -----
    The map does not check that regions are disjoint: `regions.allocate` makes them so and `regions.verify` checks it.
    """

    centres: Float64[np.ndarray, "n d"]
    radii: Float64[np.ndarray, " n"]
    sigma: Float64[np.ndarray, " n"]
    classes: Int64[np.ndarray, " n"] | None

    def __init__(
        self, centres: ArrayLike, radii: ArrayLike, sigma: ArrayLike, *, classes: ArrayLike | None = None
    ) -> None:
        x = _validate.as_points(centres, "centres").astype(np.float64)  # always a copy
        n = len(x)
        r = _validate.as_radii(radii, n, "radii")
        levels = _validate.as_levels(sigma, r, "sigma")
        labels = None if classes is None else _validate.as_classes(classes, n, "classes")
        for name, value in (("centres", x), ("radii", r), ("sigma", levels), ("classes", labels)):
            if value is not None:
                value.flags.writeable = False
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.centres)

    def __repr__(self) -> str:
        n, d = self.centres.shape
        return f"RegionMap(n={n}, d={d}, non-empty={np.count_nonzero(self.radii)}, hash={self.content_hash[:12]})"

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the table in hexadecimal. The same regions have the same hash on every machine."""
        digest = hashlib.sha256(_FORMAT.encode())
        for array in (self.centres, self.radii, self.sigma, self.classes):
            digest.update(b"none" if array is None else str(array.shape).encode())
            if array is not None:
                digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    @cached_property
    def _index(self) -> _Balls:
        return _Balls(self.centres, self.radii)

    def locate(self, points: ArrayLike) -> Locations:
        """Find the region that holds each point.

        Parameters
        ----------
        points : array-like, shape (m, d) or (m, ...)

        Returns
        -------
        Location

        Raises
        ------
        ValueError
            If the points are not finite, or have another dimension than the centres.

        Notes
        -----
        |x - centre| < radius is decided exactly; float32 products only propose regions. Cost: O(m n d) multiplications.
        """
        x = _validate.as_points(points)
        if len(x) and x.shape[1] != self.centres.shape[1]:
            raise ValueError(f"points have {x.shape[1]} coordinates: this map's regions have {self.centres.shape[1]}")
        nowhere = len(self)
        region = np.full(len(x), nowhere, dtype=np.int64)
        margin = np.zeros(len(x))
        blocks = self._index.candidates(x, np.zeros(len(x))) if len(x) and self.radii.any() else ()
        for query, ball in blocks:
            inside, _ = distances_below(x, self.centres, query, ball, self.radii[ball], np.zeros(ball.size))
            np.minimum.at(region, query[inside], ball[inside])
        held = np.flatnonzero(region < nowhere)
        ball = region[held]
        _, distance = distances_below(x, self.centres, held, ball, self.radii[ball], np.zeros(ball.size))
        margin[held] = margins_below(self.radii[ball], distance, x.shape[1])
        region[region == nowhere] = -1
        return Location(region, np.where(region >= 0, np.append(self.sigma, np.nan)[region], np.nan), margin)

    def first_overlap(self, groups: Any = None) -> tuple[int, int] | None:
        """Find two conflicting regions i < j that overlap, by however little.

        Parameters
        ----------
        groups : array-like, shape (n,), or a list or tuple of such arrays, default=None
            Regions that share a label in ANY of the arrays may overlap. None: every two regions conflict.

        Returns
        -------
        (i, j), or None
            One such pair; None proves that there is none.
        """
        labels = _validate.as_groups(groups, len(self))
        for i, j, _ in overlaps(self.centres, self.radii, labels):
            if i.size:
                return int(i[0]), int(j[0])
        return None

    def same_sigma(self, points: ArrayLike, where: Locations) -> Float64[np.ndarray, " m"]:
        """Find how far around each located point the map assigns the same sigma as at the point.

        Where regions of different sigma overlap, the region of smallest index decides. So a ball inside one region may
        contain points of another sigma, if a region of smaller index reaches into the ball.

        Parameters
        ----------
        points : array-like, shape (m, d) or (m, ...)
        where : Location
            What `locate` returned for these points.

        Returns
        -------
        (m,) float64
            Radii of balls in which sigma is constant: at most `where.margin`, rounded down; 0 outside every region.
        """
        x = _validate.as_points(points)
        radius = where.margin.copy()
        held = np.flatnonzero(where.region >= 0)
        for query, ball in self._index.candidates(x[held], radius[held]):
            query = held[query]
            own = where.region[query]
            earlier = (ball < own) & (self.sigma[ball] != self.sigma[own])
            query, ball = query[earlier], ball[earlier]
            near, distance = distances_below(x, self.centres, query, ball, self.radii[ball], where.margin[query])
            clear = np.maximum(np.nextafter(distance - self.radii[ball], -np.inf), 0.0)
            np.minimum.at(radius, query[near], clear[near])
        return radius

    def surroundings(self, points: ArrayLike, levels: ArrayLike, reach: ArrayLike) -> Surroundings:
        """Find how far points are from the regions of every level, and how deep inside a region they are.

        Parameters
        ----------
        points : array-like, shape (m, d) or (m, ...)
        levels : array-like, shape (L,)
            Noise levels, increasing, among which are those of all regions.
        reach : array-like, shape (m,)
            Regions farther away than this need not be told apart: finite and >= 0.

        Returns
        -------
        Surroundings

        Notes
        -----
        No point within `clearance[j, k]` of point j is held by a region of level k: where regions overlap, whichever of
        them is said to hold a point. Cost: that of `locate`, and O(d) for each region within reach of a point.
        """
        x = _validate.as_points(points)
        if len(x) and x.shape[1] != self.centres.shape[1]:
            raise ValueError(f"points have {x.shape[1]} coordinates: this map's regions have {self.centres.shape[1]}")
        sigmas = np.asarray(levels, dtype=np.float64)
        filled = self.radii > 0
        if not np.isin(self.sigma[filled], sigmas).all() or (np.diff(sigmas) <= 0).any():
            raise ValueError("levels must increase, and regions have no other noise levels")
        far = _validate.as_radii(reach, len(x), "reach")
        column = np.searchsorted(sigmas, np.where(filled, self.sigma, sigmas[:1]))
        clearance = np.repeat(far[:, None], len(sigmas), axis=1)
        depth = np.zeros(len(x))
        blocks = self._index.candidates(x, far) if len(x) and filled.any() else ()
        for query, ball in blocks:
            near, distance = distances_below(x, self.centres, query, ball, self.radii[ball], far[query])
            query, ball, distance = query[near], ball[near], distance[near]
            clear = np.maximum(np.nextafter(distance - self.radii[ball], -np.inf), 0.0)
            np.minimum.at(clearance, (query, column[ball]), clear)
            np.maximum.at(depth, query, margins_below(self.radii[ball], distance, x.shape[1]))
        return Surroundings(clearance, depth)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the map as an `.npz` file, atomically: also after a crash, the file is the old one or the new one."""
        arrays: dict[str, Any] = {"centres": self.centres, "radii": self.radii, "sigma": self.sigma}
        if self.classes is not None:
            arrays["classes"] = self.classes
        write_arrays(path, {"format": np.array(_FORMAT), "content_hash": np.array(self.content_hash), **arrays})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> RegionMap:
        """Read a map that `save` wrote. `ValueError` if the file is not a map or was changed."""
        stored = read_arrays(path)
        if str(stored.get("format")) != _FORMAT:
            raise ValueError(f"{path} is not a region map of format {_FORMAT}: write it again with RegionMap.save")
        if not {"centres", "radii", "sigma"} <= stored.keys():
            raise ValueError(f"{path} lacks centres, radii or sigma: write it again with RegionMap.save")
        loaded = cls(stored["centres"], stored["radii"], stored["sigma"], classes=stored.get("classes"))
        if loaded.content_hash != str(stored.get("content_hash")):
            raise ValueError(f"{path} was changed after it was written (its content hash differs): restore a copy")
        return loaded


#: In units of a map's extent: where the search does without float32.
_WIDE = 2.0**40


class _Balls:
    """The non-empty balls, lifted once, and the search for those that may contain a point."""

    def __init__(self, centres: Float64[np.ndarray, "n d"], radii: Float64[np.ndarray, " n"]) -> None:
        self._members = np.flatnonzero(radii > 0)
        self._widest = float(radii.max(initial=0.0))
        self._frame = Frame.around(centres, self._members, self._widest)
        mapped, norms = self._frame.map(centres, self._members)
        self._rows = self._frame.lift(mapped, self._frame.reach(radii[self._members], norms), norms)

    def candidates(self, queries: Real[np.ndarray, "m d"], reach: Float64[np.ndarray, " m"]) -> Iterator[Pairs]:
        """Yield blocks of pairs (query, ball) that include every pair with |query - centre| < radius + reach."""
        far = np.abs(queries - self._frame.centre).max(axis=1, initial=0.0)
        within = far <= 2 / self._frame.scale + 2 * self._widest + reach  # nothing is in reach of the others
        # a query beyond what float32 holds is near no ball or near all of them, and so is one with a reach as large
        wide = np.maximum(far, reach) > _WIDE / self._frame.scale
        for one in np.flatnonzero(within & wide).tolist():
            yield np.full(self._members.size, one), self._members
        near = np.flatnonzero(within & ~wide)
        for start in range(0, near.size, TILE):
            part = near[start : start + TILE]
            mapped, norms = self._frame.map(queries, part)
            lifted = self._frame.lift(mapped, self._frame.reach(reach[part], norms), norms)
            for query, ball in overlapping(lifted, self._rows):
                yield part[query], self._members[ball]
