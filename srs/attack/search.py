"""Where in certified balls, and beyond them, G may fail: the points that are judged afterwards."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64, Int64

from srs.attack.gradients import White
from srs.attack.inside import distance_above, settled
from srs.attack.target import Target

#: Regions of other levels, or of other classes, whose borders are tried for each image: the nearest.
BORDERS = 3

#: Points that are judged: of each ball, those that look worst; and of each image at its centre and beyond the ball.
INSIDE, BEYOND = 2, 2
PER_IMAGE = 1 + INSIDE + BEYOND

#: Noise samples that rank points, and that find where on a line the class changes.
_RANKING, _LOCATING = 256, 1024

#: Random lines from an image along which a point that no region holds is looked for.
_LINES = 12

#: How often the budget of an attack beyond the balls is bisected, and a line.
_BUDGETS, _HALVINGS = 5, 10


@dataclass(frozen=True, eq=False)
class Points:
    """Points that G is going to be asked about.

    Attributes
    ----------
    owner : int array of shape (m,)
        The image of the target that each belongs to.
    pixels : float32 array of shape (m, C, H, W)
    distance : array of shape (m,)
        From the image, in l2, rounded up.
    """

    owner: Int64[np.ndarray, " m"]
    pixels: Float32[np.ndarray, "m c h w"]
    distance: Float64[np.ndarray, " m"]

    @classmethod
    def of(cls, target: Target, owner: Int64[np.ndarray, " m"], pixels: Float32[np.ndarray, "m c h w"]) -> "Points":
        """Return points with their distances."""
        return cls(owner, pixels, distance_above(target.x[owner], _flat(pixels)))

    def __getitem__(self, chosen: np.ndarray) -> "Points":
        return Points(self.owner[chosen], self.pixels[chosen], self.distance[chosen])

    def __add__(self, other: "Points") -> "Points":
        pairs = zip(self._arrays, other._arrays, strict=True)
        return Points(*(np.concatenate(pair) for pair in pairs))

    @property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        return self.owner, self.pixels, self.distance


@dataclass(frozen=True, eq=False)
class Starts:
    """Where walks begin inside certified balls.

    Attributes
    ----------
    owner : int array of shape (m,)
    points : array of shape (m, d)
    sigma : array of shape (m,)
        The noise level to walk with; NaN: whichever G uses on the way.
    region : int array of shape (m,)
        The region that the walk is to stay in; -1: none.
    """

    owner: Int64[np.ndarray, " m"]
    points: Float64[np.ndarray, "m d"]
    sigma: Float64[np.ndarray, " m"]
    region: Int64[np.ndarray, " m"]

    def __add__(self, other: "Starts") -> "Starts":
        mine, theirs = vars(self).values(), vars(other).values()
        return Starts(*(np.concatenate(pair) for pair in zip(mine, theirs, strict=True)))


#: Ways to find starts: (the adversary's view, which images have a ball, how many random ones, the random generator).
Finder = Callable[[White, Int64[np.ndarray, " k"], int, np.random.Generator], Starts]


def at_centres(white: White, balls: Int64[np.ndarray, " k"], restarts: int, rng: np.random.Generator) -> Starts:
    """Begin at the certified images."""
    return _free(balls, white.target.x[balls])


def at_random(white: White, balls: Int64[np.ndarray, " k"], restarts: int, rng: np.random.Generator) -> Starts:
    """Begin at points drawn uniformly from the balls."""
    target, owner = white.target, np.repeat(balls, restarts)
    direction = rng.normal(size=(len(owner), target.x.shape[1]))
    length = target.radius[owner] * rng.random(len(owner)) ** (1 / direction.shape[1])
    direction *= (length / np.linalg.norm(direction, axis=1))[:, None]
    return _free(owner, target.x[owner] + direction)


def at_borders(white: White, balls: Int64[np.ndarray, " k"], restarts: int, rng: np.random.Generator) -> Starts:
    """Begin where regions of other levels begin inside the balls, and stay there with that level."""
    target, x, table = white.target, white.target.x, white.target.table
    own = white.levels(target.centre[balls])
    owner, points, sigma, region = [], [], [], []
    for j, level in zip(balls.tolist(), own.tolist(), strict=True):
        apart = np.linalg.norm(table.centres - x[j], axis=1)
        gap = apart - table.radii
        within = np.flatnonzero((table.radii > 0) & (table.sigma != level) & (gap < target.radius[j]) & (apart > 0))
        for i in within[np.argsort(gap[within], kind="stable")][:BORDERS].tolist():
            reach = max(gap[i], 0.0) + 1e-3 * min(target.radius[j] - gap[i], table.radii[i])
            owner.append(j)
            points.append(x[j] + reach / apart[i] * (table.centres[i] - x[j]))
            sigma.append(table.sigma[i])
            region.append(i)
    d = x.shape[1]
    return Starts(
        np.array(owner, np.int64), np.array(points).reshape(-1, d), np.array(sigma), np.array(region, np.int64)
    )


def under_levels_outside(
    white: White, balls: Int64[np.ndarray, " k"], restarts: int, rng: np.random.Generator
) -> Starts:
    """Walk with each level that may decide outside every region, from images whose balls leave their region."""
    target = white.target
    leaves = _leaving(target, balls)
    levels = target.sigmas if white.has_router else np.array([target.outside], np.float64)
    if target.outside is None:
        levels = levels[:0]
    owner = np.tile(leaves, len(levels))
    return replace(_free(owner, target.x[owner]), sigma=np.repeat(levels, len(leaves)))


def at_router_ties(white: White, balls: Int64[np.ndarray, " k"], restarts: int, rng: np.random.Generator) -> Starts:
    """Begin where a router comes to name another level than at the image, as near to the tie as its votes tell."""
    target = white.target
    owner = _leaving(target, balls) if white.has_router else balls[:0]
    if not owner.size:
        return _free(owner, target.x[owner])
    centre, x = target.centre[owner], target.x[owner]
    named = white.named(centre)
    end = _flat(white.walk_to_another_level(centre, target.radius[owner])).astype(np.float64)
    low, high = np.zeros(len(owner)), np.ones(len(owner))
    for _ in range(_HALVINGS):
        share = (low + high) / 2
        trial = (x + share[:, None] * (end - x)).astype(np.float32).reshape(centre.shape)
        other = white.named(trial) != named
        low, high = np.where(other, low, share), np.where(other, share, high)
    return _free(np.tile(owner, 2), np.concatenate([x + high[:, None] * (end - x), end]))


def _leaving(target: Target, balls: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " leaving"]:
    """Return those whose certified ball is not all inside a region."""
    margin = target.table.locate(target.centre[balls]).margin
    return np.asarray(balls[margin < target.radius[balls]])


def _free(owner: Int64[np.ndarray, " m"], points: Float64[np.ndarray, "m d"]) -> Starts:
    return Starts(owner, points, np.full(len(owner), np.nan), np.full(len(owner), -1))


FINDERS: tuple[Finder, ...] = (at_centres, at_random, at_borders, under_levels_outside, at_router_ties)


def inside(white: White, restarts: int, rng: np.random.Generator, grid: int | None) -> Points:
    """Return for every certified ball the points inside where G seems least sure of the certified class.

    Parameters
    ----------
    white : White
    restarts : int
        Random starts of each ball.
    rng : numpy.random.Generator
    grid : int, optional
        As in `settled`.

    Returns
    -------
    Points
        At most `INSIDE` of each ball, settled inside it.
    """
    target = white.target
    shape, balls = target.centre.shape[1:], np.flatnonzero(target.radius > 0)
    starts = at_centres(white, balls[:0], 0, rng)
    for find in FINDERS:
        starts += find(white, balls, restarts, rng)
    owner, own = starts.owner, _usable(white)
    x, radius = target.x[owner], target.radius[owner]

    def kept(points: Float32[np.ndarray, "m c h w"]) -> Float32[np.ndarray, "m c h w"]:
        """Bring points into the ball, and into the region where the walk is to stay in one."""
        flat = _flat(points).astype(np.float64)
        held = starts.region >= 0
        centres, radii = target.table.centres[starts.region], target.table.radii[starts.region]
        for _ in range(20 if held.any() else 0):
            flat = np.where(held[:, None], _projected(flat, centres, (1 - 1e-4) * radii), flat)
            flat = _projected(flat, x, (1 - 1e-4) * radius)
        return settled(x, flat, radius, grid).reshape(points.shape)

    def levels(points: Float32[np.ndarray, "m c h w"]) -> Float64[np.ndarray, " m"]:
        found = np.where(np.isnan(starts.sigma), white.levels(points), starts.sigma)
        return np.where(np.isnan(found), own[owner], found)

    begin = kept(starts.points.astype(np.float32).reshape(len(owner), *shape))
    classes = target.predict[owner]
    found = white.walk(begin, target.centre[owner], radius, classes, levels, kept) if len(owner) else begin
    points = Points.of(target, np.tile(owner, 2), np.concatenate([begin, found]))
    rank = white.margins(points.pixels, target.predict[points.owner], _RANKING)
    return points[_first(points.owner, rank, INSIDE)]


def beyond(
    white: White, reach: float, clear: float, rng: np.random.Generator, grid: int | None
) -> tuple[Points, Points]:
    """Return points near the images, inside their balls or not, where G seems not to give the label.

    Parameters
    ----------
    white : White
    reach : float
        How far from the images they may be.
    clear : float
        By what share of the votes the other class must lead.
    rng : numpy.random.Generator
    grid : int, optional
        As in `settled`.

    Returns
    -------
    (Points, Points)
        At most `BEYOND` of each image that vote for another class; at most one of each where no region holds it.
    """
    target = white.target
    shape, k = target.centre.shape[1:], len(target.idx)
    everyone, own = np.arange(k), _usable(white)
    lower, upper = target.radius.copy(), np.full(k, reach)
    ends = everyone[:0], target.centre[:0]
    tried, begin = np.full(k, reach), target.centre

    def levels(points: Float32[np.ndarray, "m c h w"]) -> Float64[np.ndarray, " m"]:
        found = white.levels(points)
        return np.where(np.isnan(found), own, found)

    for _ in range(_BUDGETS):
        end = white.walk(begin, target.centre, np.maximum(tried, 1e-6), target.label, levels)
        end = settled(target.x, _flat(end).astype(np.float64), tried, grid).reshape(end.shape)
        good = _misled(white, end, target.label, clear)
        ends = np.concatenate([ends[0], everyone[good]]), np.concatenate([ends[1], end[good]])
        upper, lower = np.where(good, np.minimum(upper, tried), upper), np.where(good, lower, tried)
        tried = np.where(upper > lower, (lower + upper) / 2, upper)
    owner, points = _other_regions(target, reach)
    points = settled(target.x[owner], points, np.full(len(owner), np.inf), grid).reshape(len(owner), *shape)
    good = _misled(white, points, target.label[owner], clear)
    ends = np.concatenate([ends[0], owner[good]]), np.concatenate([ends[1], points[good]])
    wrong = Points.of(target, *ends)
    wrong = wrong[_first(wrong.owner, wrong.distance, BEYOND)]
    wrong += Points.of(target, wrong.owner, _nearer(white, wrong.owner, wrong.pixels, clear, grid))
    return wrong[_first(wrong.owner, wrong.distance, BEYOND)], _unanswered(white, reach, rng, grid)


def _misled(
    white: White, points: Float32[np.ndarray, "m c h w"], labels: Int64[np.ndarray, " m"], clear: float
) -> np.ndarray:
    """Whether another class leads clearly, by the attack's own votes."""
    margin = white.margins(points, labels, _LOCATING)
    return np.asarray(np.isfinite(margin) & (margin < -clear))


def _nearer(
    white: White,
    owner: Int64[np.ndarray, " m"],
    points: Float32[np.ndarray, "m c h w"],
    clear: float,
    grid: int | None,
) -> Float32[np.ndarray, "m c h w"]:
    """Move points towards their images while the other class leads clearly."""
    target, x = white.target, white.target.x[owner]
    flat = _flat(points).astype(np.float64)
    low, high = np.zeros(len(owner)), np.ones(len(owner))
    best = points
    for _ in range(_HALVINGS):
        share = (low + high) / 2
        trial = settled(x, x + share[:, None] * (flat - x), np.full(len(owner), np.inf), grid).reshape(points.shape)
        good = _misled(white, trial, target.label[owner], clear)
        best = np.where(good[:, None, None, None], trial, best)
        low, high = np.where(good, low, share), np.where(good, share, high)
    return best


def _other_regions(target: Target, reach: float) -> tuple[Int64[np.ndarray, " m"], Float64[np.ndarray, "m d"]]:
    """Return for each image points just inside the nearest regions that were certified for other classes."""
    x, table = target.x, target.table
    owner, points = [], []
    for j in range(len(x)):
        apart = np.linalg.norm(table.centres - x[j], axis=1)
        gap = apart - table.radii
        other = np.zeros(len(table), dtype=bool) if table.classes is None else table.classes != target.label[j]
        near = np.flatnonzero((table.radii > 0) & other & (gap < reach) & (apart > 0))
        for i in near[np.argsort(gap[near], kind="stable")][:BORDERS].tolist():
            owner.append(j)
            length = min(max(gap[i], 0.0) + 1e-3 * table.radii[i], apart[i])
            points.append(x[j] + length / apart[i] * (table.centres[i] - x[j]))
    return np.array(owner, np.int64), np.array(points).reshape(-1, x.shape[1])


def _unanswered(white: White, reach: float, rng: np.random.Generator, grid: int | None) -> Points:
    """Return for each image the nearest point found that no region holds, along random lines; no vote is needed."""
    target = white.target
    shape, k = target.centre.shape[1:], len(target.idx)
    owner = np.repeat(np.arange(k if target.outside is None else 0), _LINES)
    x = target.x[owner]
    direction = rng.normal(size=x.shape)
    direction *= np.where((x + 1e-3 * direction < 0) | (x + 1e-3 * direction > 1), -1, 1)
    unit = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    low, high = np.zeros(len(owner)), np.full(len(owner), np.nan)

    def along(length: Float64[np.ndarray, " m"]) -> Float32[np.ndarray, "m c h w"]:
        flat = settled(x, x + length[:, None] * unit, np.full(len(owner), np.inf), grid)
        return flat.reshape(len(owner), *shape)

    for length in np.linspace(0, reach, 17).tolist():
        lost = np.isnan(white.levels(along(np.full(len(owner), length)))) & np.isnan(high)
        high = np.where(lost, length, high)
        low = np.where(np.isnan(high), length, low)
    found = np.flatnonzero(~np.isnan(high))
    high = np.where(np.isnan(high), 0.0, high)
    best = along(high)
    for _ in range(2 * _HALVINGS):
        trial = along((low + high) / 2)
        lost = np.isnan(white.levels(trial))
        best = np.where(lost[:, None, None, None], trial, best)
        low, high = np.where(lost, low, (low + high) / 2), np.where(lost, (low + high) / 2, high)
    points = Points.of(target, owner[found], best[found])
    return points[_first(points.owner, points.distance, 1)]


def _flat(pixels: Float32[np.ndarray, "m c h w"]) -> Float32[np.ndarray, "m d"]:
    return pixels.reshape(len(pixels), math.prod(pixels.shape[1:]))


def _usable(white: White) -> Float64[np.ndarray, " K"]:
    """Return each image's noise level, and where G has no answer one of the run, to have gradients at all."""
    found = white.levels(white.target.centre)
    return np.where(np.isnan(found), white.target.sigmas[0], found)


def _projected(
    points: Float64[np.ndarray, "m d"], centres: Float64[np.ndarray, "m d"], radius: Float64[np.ndarray, " m"]
) -> Float64[np.ndarray, "m d"]:
    """Return the nearest points of balls."""
    delta = points - centres
    length = np.maximum(np.linalg.norm(delta, axis=1), 1e-300)
    return np.asarray(centres + delta * np.minimum(1.0, radius / length)[:, None])


def _first(owner: Int64[np.ndarray, " m"], rank: Float64[np.ndarray, " m"], most: int) -> Int64[np.ndarray, " kept"]:
    """Return which points come first by rank among those of their owner."""
    order = np.lexsort((rank, owner))
    place = np.arange(len(order)) - np.searchsorted(owner[order], owner[order])
    return np.sort(order[place < most])
