"""Sizing balls that must not overlap: geometry and optimisation for sample-wise randomized smoothing.

Given points and upper bounds R, `allocate` sizes an open ball around every point so that no two conflicting balls
overlap and the sum of the radii is as large as possible (Eq. 10 of the paper; Eq. 11 is a greedy heuristic for it).
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regions._allocate import allocate, allocate_graph
    from regions._allocation import Allocation, Certificate
    from regions._dense.degrees import overlap_degrees
    from regions._graph import OverlapGraph, TooManyOverlaps, overlap_graph
    from regions._levels.allocate_levels import LevelAllocation, allocate_levels
    from regions._map import Location, RegionMap, Surroundings
    from regions._online.allocator import OnlineAllocator
    from regions._online.results import Arrival, PointHeld, Region
    from regions._plot import plot
    from regions._verify import Verification, verify

__all__ = [
    "Allocation",
    "Arrival",
    "Certificate",
    "LevelAllocation",
    "Location",
    "OnlineAllocator",
    "OverlapGraph",
    "PointHeld",
    "Region",
    "RegionMap",
    "Surroundings",
    "TooManyOverlaps",
    "Verification",
    "allocate",
    "allocate_graph",
    "allocate_levels",
    "overlap_degrees",
    "overlap_graph",
    "plot",
    "verify",
]

#: Where each public name is defined. A module is imported when one of its names is first used (PEP 562). So `import
#: regions` is quick, and a program loads only what it uses.
_HOMES = {
    "allocate": "regions._allocate",
    "allocate_graph": "regions._allocate",
    "Allocation": "regions._allocation",
    "Certificate": "regions._allocation",
    "OverlapGraph": "regions._graph",
    "TooManyOverlaps": "regions._graph",
    "overlap_degrees": "regions._dense.degrees",
    "overlap_graph": "regions._graph",
    "LevelAllocation": "regions._levels.allocate_levels",
    "allocate_levels": "regions._levels.allocate_levels",
    "Location": "regions._map",
    "RegionMap": "regions._map",
    "Surroundings": "regions._map",
    "OnlineAllocator": "regions._online.allocator",
    "Arrival": "regions._online.results",
    "PointHeld": "regions._online.results",
    "Region": "regions._online.results",
    "plot": "regions._plot",
    "Verification": "regions._verify",
    "verify": "regions._verify",
}

#: Names of the previous version, each with the name that replaces it. The next version drops them.
_FORMER_NAMES = {"Place": "Location"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("srs-certify")
    if name in _FORMER_NAMES:
        new = _FORMER_NAMES[name]
        warnings.warn(f"regions.{name} is now regions.{new}: use that name", DeprecationWarning, stacklevel=2)
        return __getattr__(new)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
