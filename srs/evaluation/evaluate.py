"""What a run's votes amount to, at any alpha: proofs, the levels that are chosen, and every rule they are compared by.

Choosing is over: the levels are those of the record. Alpha decides what the counts prove, and regions follow from that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float64, Int64

import regions
from smoothing import certified_radius, make_sampler
from smoothing.bounds import counted_bounds
from smoothing.confidence import shared_alpha
from srs.evaluation.background import Outside, Promised, with_background
from srs.evaluation.routed import Routed
from srs.evaluation.rules import Choice, Proofs, RuleAnswers, answer, at, certified
from srs.evaluation.sizing import Sizer
from srs.geometry import Points, allocate_levels, centre_error, region_map
from srs.modes import COMPARED, Mode
from srs.run.votes import Record


@dataclass(frozen=True, eq=False)
class Bounds:
    """Certificates of every image at one level each, fields as in `smoothing.Certificates`."""

    predict: Int64[np.ndarray, " n"]
    radius: Float64[np.ndarray, " n"]
    p_lower: Float64[np.ndarray, " n"]
    p_upper: Float64[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that reports show.

    Attributes
    ----------
    record : Record
        The votes that all of it comes from.
    points : array of shape (n, d)
        The images, flattened: the centres of the regions. Bytes stand for p / 255.
    alpha : float
        Failure probability.
    main : Mode
        What the run certifies with.
    proofs : Proofs
        What the votes prove at this alpha.
    rules : mapping of str to RuleAnswers
        Each constant sigma that all images were certified at, overlapping regions, and every mode.
    one_sided : mapping of str to RuleAnswers
        The same as published tables have it: with one-sided certificates, levels that are chosen for them, and regions
        of their own; at the run's levels where images were certified at these alone. Each of the two holds by itself;
        the larger radius of both, image by image, does not.
    routed : Routed, optional
        How alpha is split where a router names levels.
    """

    record: Record
    points: Points
    alpha: float
    main: Mode
    proofs: Proofs
    rules: Mapping[str, RuleAnswers]
    one_sided: Mapping[str, RuleAnswers]
    routed: Routed | None = None

    @property
    def answers(self) -> RuleAnswers:
        """What the main mode certifies."""
        return self.rules[self.main.name]

    @property
    def allocations(self) -> dict[str, regions.Allocation]:
        """How every mode sized the regions."""
        return {name: rule.allocation for name, rule in self.rules.items() if rule.allocation is not None}

    @property
    def radii(self) -> Float64[np.ndarray, " n"]:
        """The radii r of the main mode's regions."""
        allocation = self.answers.allocation
        return np.zeros(len(self.points)) if allocation is None else allocation.radii

    @cached_property
    def bounds(self) -> Bounds:
        """The main mode's certificates, before regions cut them."""
        level, R = self.answers.level, self.answers.R
        alpha = self.alpha if self.routed is None else self.routed.alphas[0]
        share = self.main.share(alpha, len(level))
        split = self.record.share[np.arange(len(level)), level][:, None]
        p_lower, p_upper = (bound[:, 0] for bound in counted_bounds(self.record.counts.at(level), share, split))
        return Bounds(certified(self.proofs, level, R), R, p_lower, p_upper)

    @cached_property
    def table(self) -> regions.RegionMap:
        """The main mode's region map."""
        return region_map(self.points, self.radii, self.sigma, classes=self.answers.predict)

    @property
    def level(self) -> Int64[np.ndarray, " n"]:
        """Each image's noise level, as a column."""
        return self.answers.level

    @property
    def sigma(self) -> Float64[np.ndarray, " n"]:
        """Each image's noise level."""
        return np.asarray(self.record.sigmas[self.level])

    def named_of(self, j: int) -> Float64[np.ndarray, " k"] | None:
        """Return the share of a router's fresh samples that names each level at one image; None without its votes."""
        routing = self.record.routing
        if routing is None or routing.sigma is None:
            return None
        return np.asarray(routing.estimated[j] / routing.estimated[j].sum())

    def radii_of(self, j: int) -> Float64[np.ndarray, " k"]:
        """Return what one image's counts certify at every level, NaN where it was not certified."""
        return np.where(self.record.certified[j], self.proofs.constant[j], np.nan)


def evaluate(record: Record, points: Points, main: Mode, alpha: float, sampler: str = "gaussian") -> Results:
    """Compute what the votes prove at this alpha, and size the regions of every mode.

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
        That of the votes: radii of G are cut by what looking up the region of a float32 image may be off, and by how
        far that image may be from a centre in bytes.
    """
    lost = make_sampler(sampler).lookup_error(points.shape[1]) + centre_error(points)
    main, choice = choice_of(record, main, record.level, points)
    columns = [(record, choice, proofs_from_votes(record, main, alpha, record.share))]
    if record.share.any():
        alone = record
        if record.certified.all():
            alone = replace(record, expected_radius=record.expected_radius_one_sided)
        _, choice = choice_of(alone, main, level_one_sided(record, main, points), points)
        columns.append((alone, choice, proofs_from_votes(record, main, alpha, np.zeros_like(record.share))))
    size = Sizer.among(points, [R for _, choice, proofs in columns for R in choice.to_size(proofs)], {})
    found = []
    routed = None if record.routing is None else Routed.of(record, record.routing, points, main, alpha)
    for number, (_, choice, proofs) in enumerate(columns):
        rules = answer(points, record.sigmas, proofs, choice, record.label, lost=lost, size=size)
        if routed is not None:
            rules |= routed.rules(choice.modes[main.inside] if main.has_regions else None, lost, one_sided=number > 0)
        found.append(rules)
    return Results(record, points, alpha, main, columns[0][2], found[0], found[-1], routed)


def level_one_sided(record: Record, main: Mode, points: Points) -> Int64[np.ndarray, " n"]:
    """Return the levels that the run would have chosen for one-sided certificates, if it certified at all levels."""
    if not record.certified.all():
        return record.level
    if main.overlap == "joint":
        return allocate_levels(points, record.sigmas, record.expected_radius_one_sided)
    return np.asarray(record.expected_radius_one_sided.argmax(axis=1))


def proofs_from_votes(record: Record, main: Mode, alpha: float, share: Float64[np.ndarray, "n k"]) -> Proofs:
    """Return what the votes prove by their bounds (Eq. 2), for shares of alpha as in `Record.share`.

    Other samples chose the levels and the classes, so a level that was chosen costs no more than one that was fixed.
    """
    n = len(record.idx)
    at_once = shared_alpha(alpha, n)  # the smallest share that any mode asks for: refused before the work
    each = certified_radius(record.sigmas, *counted_bounds(record.counts, alpha, share))
    simultaneous = certified_radius(record.sigmas, *counted_bounds(record.counts, at_once, share))
    guarantee = f"each certificate holds with probability at least 1 - {alpha:g}, per image"
    if main.outside == "router":
        where = " outside every region" if main.has_regions else ""
        guarantee += f", for G with the sigma that the router names{where}"
    elif main.outside is not None:
        guarantee += f", for G with sigma = {main.outside:g} outside every region"
    if main.simultaneous:
        guarantee = (
            f"all certificates hold at once with probability at least 1 - {alpha:g}: each is made at "
            f"{alpha:g} / {n}, because regions of one class may overlap and rely on each other"
        )
    return Proofs(record.classes, each, each, simultaneous, guarantee)


def choice_of(record: Record, main: Mode, level: Int64[np.ndarray, " n"], points: Points) -> tuple[Mode, Choice]:
    """Return the main mode, with a number for its level outside, and the levels of every rule.

    Images choose by themselves, but for the main mode, which has the levels that are given. Where the run chose jointly
    and certified at its choice only, no image was certified at a level of its own choice; the main mode is then
    compared with overlapping regions alone.
    """
    everywhere = np.flatnonzero(record.certified.all(axis=0)).tolist()
    own = record.own_level  # of largest expected radius
    if main.outside == "router":
        modes = dict.fromkeys(COMPARED, own) | ({main.inside: level} if main.has_regions else {})
        return main, Choice(tuple(everywhere), own, modes)
    if main.outside is not None:
        promised = Promised(level, record.classes, record.expected_radius, record.samples)
        main.check_outside(record.sigmas.tolist())
        k = promised.best_constant() if main.outside == "auto" else (record.sigmas == main.outside).argmax()
        main = replace(main, outside=float(record.sigmas[k]))
        outside = Outside.constant(int(k), len(points), len(record.sigmas))
        background = with_background(points, record.sigmas, promised, main, outside)
        return main, Choice(tuple(everywhere), own, dict.fromkeys(COMPARED, own), backgrounds={main: background})
    if not at(record.certified, own).all():
        return main, Choice(tuple(everywhere), level, {main: level})
    modes = dict.fromkeys((*COMPARED, main), own) | {main: level}
    return main, Choice(tuple(everywhere), own, modes)
