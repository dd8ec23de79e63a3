"""The room that stored regions leave for a new point.

What is computed. The region that holds the point, if one does, and the largest radius at which a ball around the point
overlaps no conflicting region (docs/mathematics.md, Eq. M15).

Guarantee. Whether a region holds the point is decided exactly, and the radius is rounded down.

Cost. A filter proposes the regions near the point. They are measured nearest first, until the others cannot matter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from regions._arithmetic.distances import distances_below, margins_below
from regions._arithmetic.loops import subtract_down
from regions._map import Location
from regions._online.balls import GrowingBalls

_FIRST, _MOST = 16, 512  # number of balls measured at once: at first, and at most


@dataclass(frozen=True)
class Surroundings:
    """The region that holds a point, if any, and the room: the largest radius, at most R, without an overlap."""

    place: Location[int, float]
    room: float

    def joined(self, other: Surroundings) -> Surroundings:
        """The surroundings among the regions of both surveys, which looked at different regions."""
        place = max(self.place, other.place, key=lambda place: (place.held, place.margin))
        return Surroundings(place, min(self.room, other.room))


def survey(
    balls: GrowingBalls,
    x: Float64[np.ndarray, " d"],
    R: float,
    sigma: float | None = None,
    start: int = 0,
) -> Surroundings:
    """Find the surroundings of x among the balls from index `start` on.

    Balls of noise level `sigma` do not conflict with x (None: all conflict). For every conflicting ball, room + radius
    <= |x - centre| in exact arithmetic, unless the ball contains x: then the room is 0.
    """
    place: Location[int, float] = Location(-1, math.nan, 0.0)
    room = R
    found, slack = balls.near(x, R, start)
    done, size = 0, _FIRST
    while done < found.size and slack[done] < max(room, 0.0):
        block = found[done : done + size]
        centres, radii = balls.centres(block), balls.radii[block]
        near, distance = _measured(x, centres, radii, R)
        for k in np.flatnonzero(near):
            if sigma is None or balls.sigma[block[k]] != sigma:
                room = min(room, float(subtract_down(distance[k], radii[k])))
        within = np.flatnonzero(near & (distance < radii))
        inside, distance = _measured(x, centres[within], radii[within], 0.0)
        margin = margins_below(radii[within], distance, x.size)
        for k in np.flatnonzero(inside):
            if not place.held or margin[k] > place.margin:
                index = int(block[within[k]])
                place = Location(index, float(balls.sigma[index]), float(margin[k]))
        done, size = done + block.size, min(2 * size, _MOST)
    return Surroundings(place, max(room, 0.0))


def _measured(
    x: Float64[np.ndarray, " d"], centres: Float64[np.ndarray, "k d"], radii: Float64[np.ndarray, " k"], more: float
) -> tuple[Bool[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """For each ball: whether |x - centre| < radius + more; and, if so, the distance |x - centre|, rounded down."""
    k = radii.size
    return distances_below(x[None], centres, np.zeros(k, dtype=np.int64), np.arange(k), radii, np.full(k, more))
