"""What Algorithm 2 says about a point that arrives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from regions._map import Location


@dataclass(frozen=True)
class Arrival:
    """What a point was given.

    Attributes
    ----------
    region : int
        Index of the region that holds the point from now on, -1 if none does (radius 0).
    sigma : float
        The noise level of its certificate.
    radius : float
        What is certified: B(point, radius) lies in the union of regions of this sigma, and radius <= R.
    class_ : int
        The class of its certificate.
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


class PointHeld(RuntimeError):  # noqa: N818 (nothing went wrong: another process was faster)
    """A region of another sigma holds the point: certify it at that sigma, with fresh samples, and insert again.

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
