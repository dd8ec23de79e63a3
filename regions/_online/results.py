"""What the online allocator returns: stored regions, what an arriving point was given, and a refusal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from regions._map import Location


@dataclass(frozen=True)
class Arrival:
    """What an arriving point was given.

    Attributes
    ----------
    region : int
        Index of the region that now holds the point; -1 if no region does, and the radius is then 0.
    sigma : float
        The noise level of the point's certificate.
    radius : float
        The certified radius. It is at most R, and B(point, radius) lies in the union of regions of this sigma.
    class_ : int
        The class of the point's certificate.
    created : bool
        Whether this arrival stored a new region.
    """

    region: int
    sigma: float
    radius: float
    class_: int
    created: bool


@dataclass(frozen=True, eq=False)
class Region:
    """A stored region: the open ball B(centre, radius) with one noise level, and the class certified at its centre."""

    index: int
    centre: Float64[np.ndarray, " d"]
    radius: float
    sigma: float
    class_: int


class PointHeld(RuntimeError):  # noqa: N818 (not an error: another process was faster)
    """A region of another sigma holds the point. Certify it at that sigma, with fresh samples, and insert it again.

    Attributes
    ----------
    place : Location
        The region, its sigma and the distance to its boundary.
    """

    def __init__(self, place: Location[int, float]) -> None:
        super().__init__(place)
        self.place = place

    def __str__(self) -> str:
        region, sigma = self.place.region, self.place.sigma
        return f"region {region} of sigma = {sigma} holds this point: certify it at that sigma and insert again"
