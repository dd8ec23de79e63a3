"""G that answers outside every region: which level decides where, how far levels agree, and the map of selection."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float64

import regions
from srs.verify.arithmetic import Real, mp
from srs.verify.evidence import Described, Map, Rows
from srs.verify.proofs import Chosen
from srs.verify.router import Outside, Routing, route

#: By how many standard errors an image's own level has to promise more than the level outside.
_HEDGES = (0.0, 0.5, 1.0, 2.0, 3.0, math.inf)

#: By how much a region may be larger than what is promised, as a share of it.
_ROOM = 0.1

#: Sums of promised radii that are as good as equal, relatively.
_EQUAL = 1e-9


@dataclass(frozen=True, eq=False)
class Around:
    """What decides outside every region, and what selection votes say of images where it takes its part of alpha.

    Attributes
    ----------
    alpha : Fraction
        What is left for a radius at one level.
    chosen : list of Chosen
    promised, least, most : Outside
        By selection votes; as it is proved in the end, with what margins may leave of it, and at most.
    routing : Routing or None
        Where it is a router.
    """

    alpha: Fraction
    chosen: list[Chosen]
    promised: Outside
    least: Outside
    most: Outside
    routing: Routing | None = None

    @property
    def name(self) -> str:
        """What files call it: a noise level, or "router"."""
        return self.promised.name


@dataclass(frozen=True, eq=False)
class Placed:
    """The run's own rule.

    Attributes
    ----------
    name : str
        What files call it.
    level : list of int
        The level that decides at each image.
    alpha : Fraction
        Failure probability of one radius at one level.
    around : Around or None
        What decides outside every region; None where G abstains there.
    lost : float
        What looking up the region of an image may be off; 0 where there are none.
    """

    name: str
    level: list[int]
    alpha: Fraction
    around: Around | None = None
    lost: float = 0.0


def around(run: Described, rows: Rows) -> Around | None:
    """Return what decides outside every region, by the settings; None where G abstains there."""
    said, k = run.settings.outside, len(run.sigmas)
    if run.routed:
        routing = route(run, rows)
        return Around(
            routing.alpha, routing.chosen, routing.promised, least=routing.least, most=routing.most, routing=routing
        )
    if said == "abstain":
        return None
    if said == "auto":
        sums = [math.fsum(one.expected[at] for one in rows.chosen) for at in range(k)]
        level = sums.index(max(sums))
    elif (sigma := float(said.removeprefix("sigma="))) in run.sigmas:
        level = run.sigmas.index(sigma)
    else:
        raise ValueError(f"config.yaml: outside = {said} is none of the noise levels")
    outside = Outside.constant(str(run.sigmas[level]), level, len(rows.idx), k)
    return Around(run.alpha, rows.chosen, outside, least=outside, most=outside)


def place(run: Described, rows: Rows, found: Map) -> Placed:
    """Return which level decides where, by the map as it stands; `ValueError` where it has other levels."""
    outside = around(run, rows)
    if outside is None:
        simultaneous = run.settings.overlap == "class"
        alpha = run.alpha / len(rows.idx) if simultaneous else run.alpha
        return Placed(run.mode, rows.level, alpha, lost=run.lost)
    return placed_by(run, found, outside) if run.has_regions else alone(run, found, outside)[1]


def placed_by(run: Described, found: Map, outside: Around) -> Placed:
    """Return which level decides at each image, by a map and what decides outside of it."""
    where = _table(found).locate(found.centres)
    sigmas = np.array(run.sigmas)
    sigma = np.where(where.region < 0, sigmas[outside.promised.level], where.sigma).tolist()
    if not set(sigma) <= set(run.sigmas):
        raise ValueError("regions.npz: has noise levels that the settings do not name")
    level = [run.sigmas.index(value) for value in sigma]
    return Placed(f"{run.mode}+{outside.name}", level, outside.alpha, outside, run.lost)


def alone(run: Described, found: Map, outside: Around) -> tuple[Map, Placed]:
    """Return a map without regions, and which level decides at each image where only a router does."""
    level = outside.promised.level
    empty = Map(found.centres, np.zeros(len(level)), np.array(run.sigmas)[level], found.classes, "")
    return empty, Placed("router-agreeing", level, outside.alpha, outside)


def _table(found: Map) -> regions.RegionMap:
    return regions.RegionMap(found.centres, found.radii, found.sigma)


def agreed(
    run: Described,
    found: Map,
    placed: Placed,
    outside: Outside,
    classes: Sequence[Sequence[int]],
    radius: Sequence[Sequence[Real]],
) -> list[Real]:
    """Return up to where each image's class is what G returns, for such radii at all levels.

    At a distance from the image at which another level may decide, that level certifies the class beyond it. A level
    decides in its own regions, and outside all regions where it is named.
    """
    own = [max(row[at], mp.mpf(0)) for row, at in zip(radius, placed.level, strict=True)]
    reach = np.array([math.nextafter(float(value), math.inf) for value in own])
    near = _table(found).surroundings(found.centres, run.sigmas, reach)
    ends = []
    for j, at in enumerate(placed.level):
        end = own[j]
        for k in range(len(run.sigmas)):
            if k == at:
                continue
            named = max(outside.clearance[j][k], mp.mpf(float(near.exit[j])))
            unused = min(mp.mpf(float(near.clearance[j, k])), named)
            agrees = radius[j][k] if classes[j][k] == classes[j][at] else mp.mpf(0)
            end = min(end, max(unused, agrees))
        ends.append(end)
    return ends


@dataclass(frozen=True, eq=False)
class Made:
    """A map that selection votes make, the bounds of its radii, and what it promises in all."""

    there: Map
    bounds: Float64[np.ndarray, " n"]
    promised: float


def maps(
    run: Described, rows: Rows, found: Map, outside: Around, ranked: Sequence[Sequence[float]], levels: Sequence[int]
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
    gain = own - np.array(outside.promised.promised(outside.chosen, ranked))
    bound = own + np.minimum(error, _ROOM * own)
    groups = None if run.settings.overlap == "paper" else [level]
    how = run.mode.partition("-")[2]
    method: dict[str, Any] = {"method": how} if how in ("lp", "matching") else {"method": "greedy", "order": how}
    made = []
    for hedge in _HEDGES:
        bounds = np.where((gain > 0) & (gain > hedge * error), bound, 0.0)
        radii = regions.allocate(found.centres, bounds, groups=groups, **method).radii
        there = Map(found.centres, radii, sigmas[level], found.classes, "")
        exact = [list(map(mp.mpf, row)) for row in ranked]
        promised = agreed(run, there, placed_by(run, there, outside), outside.promised, classes, exact)
        made.append(Made(there, bounds, math.fsum(map(float, promised))))
    best = max(one.promised for one in made)
    return [one for one in made if one.promised >= best * (1 - _EQUAL)]
