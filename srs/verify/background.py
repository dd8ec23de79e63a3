"""A level outside every region: where images lie, how far levels agree, and the map that selection votes make."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

import regions
from srs.verify.arithmetic import Real, mp
from srs.verify.evidence import Described, Map, Rows

#: By how many standard errors an image's own level has to promise more than the level outside.
_HEDGES = (0.0, 0.5, 1.0, 2.0, 3.0, math.inf)

#: By how much a region may be larger than what is promised, as a share of it.
_ROOM = 0.1

#: Sums of promised radii that are as good as equal, relatively.
_EQUAL = 1e-9


@dataclass(frozen=True, eq=False)
class Placed:
    """The run's own rule.

    Attributes
    ----------
    name : str
        What files call it.
    level : list of int
        The level that decides at each image.
    outside : int or None
        The level outside every region; None where G abstains there.
    """

    name: str
    level: list[int]
    outside: int | None = None


def place(run: Described, rows: Rows, found: Map) -> Placed:
    """Return which level decides where, by the map as it stands; `ValueError` where it has other levels."""
    said = run.settings.outside
    if said == "abstain":
        return Placed(run.mode, rows.level)
    if said == "auto":
        sums = [math.fsum(one.expected[k] for one in rows.chosen) for k in range(len(run.sigmas))]
        outside = sums.index(max(sums))
    elif (level := float(said.removeprefix("sigma="))) in run.sigmas:
        outside = run.sigmas.index(level)
    else:
        raise ValueError(f"config.yaml: outside = {said} is none of the noise levels")
    return placed_by(run, found, outside)


def placed_by(run: Described, found: Map, outside: int) -> Placed:
    """Return which level decides at each image, by a map and a level outside."""
    where = _table(found).locate(found.centres)
    sigma = np.where(where.region < 0, run.sigmas[outside], where.sigma).tolist()
    if not set(sigma) <= set(run.sigmas):
        raise ValueError("regions.npz: has noise levels that the settings do not name")
    return Placed(f"{run.mode}+{run.sigmas[outside]}", [run.sigmas.index(value) for value in sigma], outside)


def _table(found: Map) -> regions.RegionMap:
    return regions.RegionMap(found.centres, found.radii, found.sigma)


def agreed(
    run: Described, found: Map, placed: Placed, classes: Sequence[Sequence[int]], radius: Sequence[Sequence[Real]]
) -> list[Real]:
    """Return up to where each image's class is what G returns, for such radii at all levels.

    At a distance from the image at which another level may decide, that level certifies the class beyond it.
    """
    assert placed.outside is not None  # who asks has looked
    own = [max(row[at], mp.mpf(0)) for row, at in zip(radius, placed.level, strict=True)]
    reach = np.array([math.nextafter(float(value), math.inf) for value in own])
    around = _table(found).surroundings(found.centres, run.sigmas, reach)
    ends = []
    for j, at in enumerate(placed.level):
        end = own[j]
        for k in range(len(run.sigmas)):
            if k == at:
                continue
            unused = around.clearance[j, k]
            if k == placed.outside:
                unused = min(unused, around.exit[j])
            agrees = radius[j][k] if classes[j][k] == classes[j][at] else mp.mpf(0)
            end = min(end, max(mp.mpf(float(unused)), agrees))
        ends.append(end)
    return ends


@dataclass(frozen=True, eq=False)
class Made:
    """A map that selection votes make, the bounds of its radii, and what it promises in all."""

    there: Map
    bounds: Float64[np.ndarray, " n"]
    promised: float


def maps(
    run: Described, rows: Rows, found: Map, outside: int, ranked: Sequence[Sequence[float]], levels: Sequence[int]
) -> list[Made]:
    """Return the maps that promise most, by radii that levels are ranked by: one, but for sums that rounding may swap.

    `levels` are those that images take where they get a region.
    """
    n, sigmas = len(rows.idx), np.array(run.sigmas)
    expected, level = np.array(ranked), np.array(levels)
    classes = [one.classes for one in rows.chosen]
    own = expected[np.arange(n), level]
    z = np.minimum(own / sigmas[level], 30)
    share = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in z])
    other = np.array([0.5 * math.erfc(value / math.sqrt(2)) for value in z])
    drawn = np.array([rows.selection[j][at].sizes[-1] for j, at in enumerate(levels)])
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    error = sigmas[level] * np.sqrt(share * other / drawn) / density
    gain, bound = own - expected[:, outside], own + np.minimum(error, _ROOM * own)
    groups = None if run.settings.overlap == "paper" else [level]
    how = run.mode.partition("-")[2]
    method: dict[str, Any] = {"method": how} if how in ("lp", "matching") else {"method": "greedy", "order": how}
    made = []
    for hedge in _HEDGES:
        bounds = np.where((gain > 0) & (gain > hedge * error), bound, 0.0)
        radii = regions.allocate(found.centres, bounds, groups=groups, **method).radii
        there = Map(found.centres, radii, sigmas[level], found.classes, "")
        promised = agreed(
            run, there, placed_by(run, there, outside), classes, [list(map(mp.mpf, row)) for row in ranked]
        )
        made.append(Made(there, bounds, math.fsum(map(float, promised))))
    best = max(one.promised for one in made)
    return [one for one in made if one.promised >= best * (1 - _EQUAL)]
