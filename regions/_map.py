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
from regions._arithmetic.exact import closer_than
from regions._arithmetic.scaled import divided_below, multiples, multiples_above, multiples_below, queries
from regions._graph import overlaps
from regions._search.pairs import frame_for_lookups
from regions._search.products import TILE, overlapping
from regions._search.trees import Pairs
from regions.files import read_arrays, write_arrays

_FORMAT = "srs-region-map-1"
#: The format of maps whose centres are bytes, or are divided.
_FORMAT_DIVIDED = "srs-region-map-2"
_ROWS = 1 << 24  # bytes of centres that are hashed at once
_CONFIRMED = 16  # overlaps of divided regions that are decided at once, exactly

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

    Parameters
    ----------
    centres : array-like, shape (n, d) or (n, ...)
        float64, float32 and uint8 stay what they are; other dtypes become float64. What nobody can write to, such as
        np.load(..., mmap_mode="r") or an array whose `flags.writeable` is False, is not copied; other arrays are.
    radii, sigma : array-like, shape (n,)
    classes : array-like, shape (n,), default=None
    divisor : int, default=1
        The centres' coordinates are centres / divisor, as real numbers: without rounding. 255 for images in bytes.

    Attributes
    ----------
    centres : (n, d) float64, float32 or uint8
        As given, not divided.
    radii : (n,) float64
        A region of radius 0 is empty: it holds no point, not even its centre.
    sigma : (n,) float64
        Noise level of each region; NaN is allowed where the radius is 0.
    classes : (n,) int64 or None
        Class certified at each centre; -1 where no class is certified.
    divisor : int

    Notes
    -----
    Everything but `centres` is in the unit of centres / divisor: radii, the points that are looked up, and distances
    that are returned.

    An image that a model sees as float32(p / 255) lies up to 2^-25 from p / 255 in each coordinate. Where a certificate
    is about the former and a region about the latter, the radius has to be 2^-25 sqrt(d) smaller.

    The map does not check that regions are disjoint: `regions.allocate` makes them so and `regions.verify` checks it.
    A file under a memory map must not be written to while the map is used.
    """

    centres: Real[np.ndarray, "n d"]
    radii: Float64[np.ndarray, " n"]
    sigma: Float64[np.ndarray, " n"]
    classes: Int64[np.ndarray, " n"] | None
    divisor: int

    def __init__(
        self,
        centres: ArrayLike,
        radii: ArrayLike,
        sigma: ArrayLike,
        *,
        classes: ArrayLike | None = None,
        divisor: int = 1,
    ) -> None:
        by = _validate.as_divisor(divisor)
        x = _validate.as_frozen(_validate.as_points(centres, "centres"))
        n = len(x)
        r = _validate.as_radii(radii, n, "radii", by)
        levels = _validate.as_levels(sigma, r, "sigma")
        labels = None if classes is None else _validate.as_classes(classes, n, "classes")
        for name, value in (("centres", x), ("radii", r), ("sigma", levels), ("classes", labels)):
            if value is not None:
                value.flags.writeable = False
            object.__setattr__(self, name, value)
        object.__setattr__(self, "divisor", by)

    def __len__(self) -> int:
        return len(self.centres)

    def __repr__(self) -> str:
        n, d = self.centres.shape
        by = "" if self.divisor == 1 else f", divisor={self.divisor}"
        return f"RegionMap(n={n}, d={d}{by}, non-empty={np.count_nonzero(self.radii)}, hash={self.content_hash[:12]})"

    @property
    def _format(self) -> str:
        return _FORMAT if self.divisor == 1 and self.centres.dtype != np.uint8 else _FORMAT_DIVIDED

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the table in hexadecimal. The same regions have the same hash on every machine.

        Centres of float32 are hashed as float64. Centres of uint8 are hashed as they are, with the divisor.
        """
        digest = hashlib.sha256(self._format.encode())
        if self._format == _FORMAT_DIVIDED:
            digest.update(f"{self.divisor} {'bytes' if self.centres.dtype == np.uint8 else 'floats'}".encode())
        for array in (self.centres, self.radii, self.sigma, self.classes):
            digest.update(b"none" if array is None else str(array.shape).encode())
            if array is not None:
                rows = max(1, _ROWS // max(1, array[:1].nbytes))
                stored = "<f8" if array.dtype.kind == "f" else array.dtype.newbyteorder("<")
                for start in range(0, len(array), rows):
                    digest.update(array[start : start + rows].astype(stored, copy=False).data)
        return digest.hexdigest()

    @cached_property
    def _index(self) -> _Balls:
        return _Balls(self.centres, multiples_above(self.radii, self.divisor))

    @cached_property
    def _lengths(self) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Two arrays whose sum is divisor * radii, exactly."""
        return multiples(self.radii, self.divisor)

    def _looked_up(self, points: ArrayLike) -> Real[np.ndarray, "m d"]:
        x = _validate.as_points(points, divisor=self.divisor)
        if len(x) and x.shape[1] != self.centres.shape[1]:
            raise ValueError(f"points have {x.shape[1]} coordinates: this map's regions have {self.centres.shape[1]}")
        if self.divisor != 1 and x.dtype == np.uint8:
            raise ValueError(f"points are uint8, in another unit than regions: give points / {self.divisor}")
        return x

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
        x = self._looked_up(points)
        nowhere, by = len(self), self.divisor
        region = np.full(len(x), nowhere, dtype=np.int64)
        margin = np.zeros(len(x))
        a, b = self._lengths
        for part, found in queries(x, by) if len(x) and self.radii.any() else ():
            own = region[part]
            for query, ball in self._index.candidates(found.points, found.error):
                inside, _, _ = found.distances(self.centres, query, ball, a[ball], b[ball])
                np.minimum.at(own, query[inside], ball[inside])
            held = np.flatnonzero(own < nowhere)
            ball = own[held]
            _, _, upper = found.distances(self.centres, held, ball, a[ball], b[ball])
            margin[part][held] = self._margins(ball, upper)
        region[region == nowhere] = -1
        return Location(region, np.where(region >= 0, np.append(self.sigma, np.nan)[region], np.nan), margin)

    def _margins(self, ball: Int64[np.ndarray, " k"], upper: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
        """How far points lie inside regions, rounded down; `upper`: distances in the unit of `centres`, rounded up."""
        radii = multiples_below(self.radii[ball], self.divisor)
        return divided_below(np.maximum(np.nextafter(radii - upper, 0.0), 0.0), self.divisor)

    def _gaps(self, ball: Int64[np.ndarray, " k"], lower: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
        """How far points lie outside regions, rounded down; `lower`: distances in the unit of `centres`, rounded down.

        0 inside.
        """
        radii = multiples_above(self.radii[ball], self.divisor)
        return divided_below(np.maximum(np.nextafter(lower - radii, -np.inf), 0.0), self.divisor)

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
        a, b = self._lengths
        for i, j, _ in overlaps(self.centres, multiples_above(self.radii, self.divisor), labels):
            if i.size and self.divisor == 1:
                return int(i[0]), int(j[0])
            for start in range(0, i.size, _CONFIRMED):  # radii were rounded up
                p, q = i[start : start + _CONFIRMED], j[start : start + _CONFIRMED]
                found = np.flatnonzero(closer_than(self.centres, self.centres, p, q, a[p], b[p], a[q], b[q]))
                if found.size:
                    return int(p[found[0]]), int(q[found[0]])
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
        x = self._looked_up(points)
        radius = where.margin.copy()
        held = np.flatnonzero(where.region >= 0)
        for part, found in queries(x[held], self.divisor):
            rows = held[part]
            reach = multiples_above(where.margin[rows], self.divisor)
            for query, ball in self._index.candidates(found.points, reach + found.error):
                own = where.region[rows[query]]
                earlier = (ball < own) & (self.sigma[ball] != self.sigma[own])
                query, ball = query[earlier], ball[earlier]
                radii = multiples_above(self.radii[ball], self.divisor)
                near, lower, _ = found.distances(self.centres, query, ball, radii, reach[query])
                np.minimum.at(radius, rows[query[near]], self._gaps(ball[near], lower[near]))
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
        x = self._looked_up(points)
        sigmas = np.asarray(levels, dtype=np.float64)
        filled = self.radii > 0
        if not np.isin(self.sigma[filled], sigmas).all() or (np.diff(sigmas) <= 0).any():
            raise ValueError("levels must increase, and regions have no other noise levels")
        far = _validate.as_radii(reach, len(x), "reach", self.divisor)
        column = np.searchsorted(sigmas, np.where(filled, self.sigma, sigmas[:1]))
        clearance = np.repeat(far[:, None], len(sigmas), axis=1)
        depth = np.zeros(len(x))
        for part, found in queries(x, self.divisor) if len(x) and filled.any() else ():
            reached = multiples_above(far[part], self.divisor)
            for query, ball in self._index.candidates(found.points, reached + found.error):
                radii = multiples_above(self.radii[ball], self.divisor)
                near, lower, upper = found.distances(self.centres, query, ball, radii, reached[query])
                query, ball, lower, upper = query[near], ball[near], lower[near], upper[near]
                np.minimum.at(clearance[part], (query, column[ball]), self._gaps(ball, lower))
                np.maximum.at(depth[part], query, self._margins(ball, upper))
        return Surroundings(clearance, depth)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the map as an `.npz` file, atomically: also after a crash, the file is the old one or the new one.

        Centres are written in their dtype, as they are.
        """
        arrays: dict[str, Any] = {"centres": self.centres, "radii": self.radii, "sigma": self.sigma}
        if self.classes is not None:
            arrays["classes"] = self.classes
        if self._format == _FORMAT_DIVIDED:
            arrays["divisor"] = np.array(self.divisor)
        write_arrays(path, {"format": np.array(self._format), "content_hash": np.array(self.content_hash), **arrays})

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, mmap_mode: str | None = None) -> RegionMap:
        """Read a map that `save` wrote.

        Parameters
        ----------
        path : path
        mmap_mode : "r" or None, default=None
            "r": centres stay in the file, as a memory map, and are read where they are needed.

        Raises
        ------
        ValueError
            If the file is not a map or was changed. The content hash is checked, with `mmap_mode` as well: the file is
            read once, in blocks.
        """
        if mmap_mode not in (None, "r"):
            raise ValueError(f"mmap_mode = {mmap_mode!r}: choose 'r' or None; a map is not written to")
        stored = read_arrays(path, mapped=() if mmap_mode is None else ("centres",))
        if str(stored.get("format")) not in (_FORMAT, _FORMAT_DIVIDED):
            raise ValueError(
                f"{path} is not a region map of format {_FORMAT} or {_FORMAT_DIVIDED}: write it again with "
                "RegionMap.save"
            )
        if not {"centres", "radii", "sigma"} <= stored.keys():
            raise ValueError(f"{path} lacks centres, radii or sigma: write it again with RegionMap.save")
        stored["centres"].flags.writeable = False  # nobody else has them: they need no copy
        divisor = stored.get("divisor", np.array(1))
        try:
            loaded = cls(
                stored["centres"],
                stored["radii"],
                stored["sigma"],
                classes=stored.get("classes"),
                divisor=_validate.as_divisor(divisor.item() if divisor.shape == () else divisor),
            )
        except ValueError as error:
            raise ValueError(f"{path} is not a sound region map: {error}") from error
        found = loaded._format, loaded.content_hash
        if found != (str(stored["format"]), str(stored.get("content_hash"))):
            raise ValueError(f"{path} was changed after it was written (its content hash differs): restore a copy")
        return loaded


#: In units of a map's extent: where the search does without float32.
_WIDE = 2.0**40


class _Balls:
    """The non-empty balls, lifted once, and the search for those that may contain a point."""

    def __init__(self, centres: Real[np.ndarray, "n d"], radii: Float64[np.ndarray, " n"]) -> None:
        self._members = np.flatnonzero(radii > 0)
        self._widest = float(radii.max(initial=0.0))
        self._frame = frame_for_lookups(centres, radii, self._members)
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
