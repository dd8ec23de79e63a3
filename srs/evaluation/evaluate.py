"""What a run's rows amount to, at any alpha: certificates, regions, and every rule it is compared with.

Choosing is over: the levels are those of the record. Alpha decides what the counts prove, and regions follow from that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int64

import regions
from smoothing import ABSTAIN, certified_radius, make_sampler
from smoothing.bounds import counted_bounds
from smoothing.confidence import shared_alpha
from smoothing.tables import floor_text
from srs.modes import COMPARED, OVERLAPPING, Mode
from srs.run.votes import Record


@dataclass(frozen=True, eq=False)
class Bounds:
    """Certificates of every image at one level each, fields as in `smoothing.Certificates`."""

    predict: Int64[np.ndarray, " n"]
    radius: Float64[np.ndarray, " n"]
    p_lower: Float64[np.ndarray, " n"]
    p_upper: Float64[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class ModeResult:
    """Regions of one mode: the certificates that they were sized for, and the allocation."""

    bounds: Bounds
    allocation: regions.Allocation


@dataclass(frozen=True, eq=False)
class Rows:
    """Certified predictions of one rule, one row per image, radii already rounded down as in the files.

    Attributes
    ----------
    predict : int array of shape (n,)
        Class or -1.
    radius : array of shape (n,)
        Certified l2 radius; 0 where abstained.
    correct : int array of shape (n,)
        1 where predict is the label.
    """

    predict: Int64[np.ndarray, " n"]
    radius: Float64[np.ndarray, " n"]
    correct: Int64[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that reports show.

    Attributes
    ----------
    record : Record
        The rows that all of it comes from.
    points : array of shape (n, d)
        The images, flattened: the centres of the regions.
    alpha : float
        Failure probability.
    main : Mode
        What the run certifies with.
    bounds : Bounds
        Its certificates, before regions cut them.
    rules : mapping of str to Rows
        Each constant sigma that all images were certified at, overlapping regions, and every mode.
    modes : mapping of str to ModeResult
        Every way to size the regions.
    """

    record: Record
    points: Float64[np.ndarray, "n d"]
    alpha: float
    main: Mode
    bounds: Bounds
    rules: Mapping[str, Rows]
    modes: Mapping[str, ModeResult]

    @property
    def radii(self) -> Float64[np.ndarray, " n"]:
        """The radii r of the main mode's regions."""
        return self.modes[self.main.name].allocation.radii

    @cached_property
    def table(self) -> regions.RegionMap:
        """The main mode's region map."""
        return regions.RegionMap(self.points, self.radii, self.sigma, classes=self.rules[self.main.name].predict)

    @property
    def sigma(self) -> Float64[np.ndarray, " n"]:
        """Each image's noise level."""
        return np.asarray(self.record.sigmas[self.record.level])


def evaluate(
    record: Record, points: Float64[np.ndarray, "n d"], main: Mode, alpha: float, sampler: str = "gaussian"
) -> Results:
    """Compute what the rows prove at this alpha, and size the regions of every mode.

    With probability at least 1 - alpha, per image: a certificate of a sound rule holds. In modes that need it, all of
    the run's certificates hold at once with probability at least 1 - alpha.

    Parameters
    ----------
    record : Record
    points : array of shape (n, d)
    main : Mode
        What the run certifies with; `COMPARED` is computed as well, as far as the levels they need were certified.
    alpha : float
        In (0, 1), and at least 1e-100 for each image.
    sampler : {"gaussian", "discrete"}, default="gaussian"
        That of the votes: radii of G are cut by what looking up the region of a float32 image may be off.
    """
    shared_alpha(alpha, len(record.idx))  # the smallest share that any mode asks for: refused before the work
    lost = make_sampler(sampler).lookup_error(points.shape[1])
    everywhere = np.asarray(record.certified.all(axis=0))
    rules = {}
    for k, sigma in enumerate(record.sigmas.tolist()):
        if everywhere[k]:
            found = bounds_at(record, np.full(len(record.idx), k), alpha)
            rules[f"sigma={sigma:g}"] = rows(found.predict, found.radius, record.label)

    own = record.own_level
    has_own = bool(record.certified[np.arange(len(own)), own].all())
    best = bounds_at(record, own if has_own else record.level, alpha)
    rules[OVERLAPPING] = rows(best.predict, best.radius, record.label)

    modes: dict[str, ModeResult] = {}
    compared = [mode for mode in COMPARED if has_own or mode == main]
    bounds = bounds_at(record, record.level, main.share(alpha, len(own)))
    for mode in compared if main in compared else [*compared, main]:
        level = record.level if mode == main else own
        found = bounds if mode == main else bounds_at(record, level, mode.share(alpha, len(own)))
        allocation = mode.allocate(points, found.radius, level, found.predict)
        modes[mode.name] = ModeResult(found, allocation)
        rules[mode.name] = rows(*allocated(found.predict, found.radius, allocation.radii, lost), record.label)
    return Results(record, points, alpha, main, bounds, rules, modes)


def allocated(
    predict: Int64[np.ndarray, " n"], R: Float64[np.ndarray, " n"], r: Float64[np.ndarray, " n"], lost: float = 0.0
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return what is left of certificates (predict, R) inside regions of radius r: class and min(R, r), both (n,).

    A region of radius 0 is empty: sigma is constant nowhere around its centre, and its image counts as abstaining.
    So does one of which nothing is left when `lost`, the sampler's lookup error, is taken off.
    """
    radius = less(np.minimum(R, r), lost)
    inside: Bool[np.ndarray, " n"] = (r > 0) & ((radius > 0) | (R == 0))
    return np.where(inside, predict, ABSTAIN), radius


def less(radius: Float64[np.ndarray, " n"], lost: float) -> Float64[np.ndarray, " n"]:
    """Return radii less the sampler's lookup error, rounded down; never below 0."""
    return np.asarray(np.maximum(np.nextafter(radius - lost, -np.inf), 0.0) if lost else radius)


def rows(predict: Int64[np.ndarray, " n"], radius: Float64[np.ndarray, " n"], label: Int64[np.ndarray, " n"]) -> Rows:
    """Return a rule's rows, radii rounded down."""
    floored = np.array([float(floor_text(value)) for value in radius.tolist()])
    return Rows(predict, floored, (predict == label).astype(np.int64))


def bounds_at(record: Record, level: Int64[np.ndarray, " n"], alpha: float) -> Bounds:
    """Certify each image at one level from its counts: as `SmoothedClassifier.certify_classes` does."""
    at = np.arange(len(level)), level
    found = counted_bounds(record.counts.at(level), alpha, record.share[at][:, None])
    p_lower, p_upper = (bound[:, 0] for bound in found)
    radius = certified_radius(record.sigmas[level], p_lower, p_upper)
    return Bounds(np.where(radius > 0, record.classes[at], ABSTAIN), radius, p_lower, p_upper)


def radii_of_image(record: Record, j: int, alpha: float) -> Float64[np.ndarray, " k"]:
    """Return what one image's counts certify at every level, NaN where it was not certified."""
    p_lower, p_upper = counted_bounds(record.counts.take(np.array([j])), alpha, record.share[[j]])
    return np.where(record.certified[j], certified_radius(record.sigmas, p_lower[0], p_upper[0]), np.nan)
