"""Sizing balls that must not overlap: geometry and optimisation for sample-wise randomized smoothing.

Given points and upper bounds R, `allocate` sizes an open ball around every point so that no two conflicting
balls overlap and the sum of the radii is as large as possible (Eq. 10 of the paper, or greedily Eq. 11).
"""

from regions._allocate import allocate, allocate_graph
from regions._allocation import Allocation, Certificate
from regions._arrival import Arrival, Place, PointHeld, Region
from regions._degrees import overlap_degrees
from regions._graph import OverlapGraph, TooManyOverlaps, overlap_graph
from regions._levels import LevelAllocation, allocate_levels
from regions._map import Location, RegionMap
from regions._online import OnlineAllocator
from regions._verify import Verification, verify

__all__ = [
    "Allocation",
    "Arrival",
    "Certificate",
    "LevelAllocation",
    "Location",
    "OnlineAllocator",
    "OverlapGraph",
    "Place",
    "PointHeld",
    "Region",
    "RegionMap",
    "TooManyOverlaps",
    "Verification",
    "allocate",
    "allocate_graph",
    "allocate_levels",
    "overlap_degrees",
    "overlap_graph",
    "verify",
]
