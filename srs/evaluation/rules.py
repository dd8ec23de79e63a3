"""The core: from what is proved of images at every noise level to what each rule certifies of them.

Runs and logs of other programs meet here. Where the proofs come from, and who chose the levels, is the caller's matter;
everything is a function of its arguments, so that several kinds of proof can be evaluated side by side.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

import regions
from smoothing import ABSTAIN
from smoothing.tables import floor_text
from srs.evaluation.background import Background
from srs.evaluation.sizing import Sizer
from srs.modes import OVERLAPPING, Mode


@dataclass(frozen=True, eq=False)
class Proofs:
    """What is certified of n images at K levels, for the purposes that need different levels of confidence.

    Attributes
    ----------
    predict : int array of shape (n, K)
        The class that a radius > 0 is about.
    constant : array of shape (n, K)
        Radii that hold for a level that was fixed beforehand; 0 where nothing is certified.
    chosen : array of shape (n, K)
        For a level that was chosen for the image.
    simultaneous : array of shape (n, K)
        For all images at once, as far as that is known: see `certified`.
    guarantee : str
        What holds with which probability, in a sentence.
    certified : bool, default=True
        Whether `simultaneous` holds at all.
    """

    predict: Int64[np.ndarray, "n K"]
    constant: Float64[np.ndarray, "n K"]
    chosen: Float64[np.ndarray, "n K"]
    simultaneous: Float64[np.ndarray, "n K"]
    guarantee: str
    certified: bool = True

    def of(self, mode: Mode) -> Float64[np.ndarray, "n K"]:
        """Return the radii that a mode may rely on."""
        return self.simultaneous if mode.simultaneous else self.chosen

    def only(self, images: Int64[np.ndarray, " m"]) -> "Proofs":
        """Return what is proved of some of the images, as it holds among all."""
        names = ("predict", "constant", "chosen", "simultaneous")
        return replace(self, **{name: getattr(self, name)[images] for name in names})


@dataclass(frozen=True, eq=False)
class Choice:
    """Which level each rule takes for each image. Labels have no part in it.

    Attributes
    ----------
    constants : tuple of int
        The levels that stand for all images: those that every image was certified at.
    overlapping : int array of shape (n,)
        The level that each image takes where regions overlap as they may.
    modes : mapping of Mode to int array of shape (n,)
        The levels for each way to size the regions.
    allocations : mapping of Mode to regions.Allocation
        Those of the modes whose radii were found together with the levels.
    backgrounds : mapping of Mode to Background
        The maps of modes with a level outside every region, made of selection samples; they are no keys of `modes`.
    """

    constants: tuple[int, ...]
    overlapping: Int64[np.ndarray, " n"]
    modes: Mapping[Mode, Int64[np.ndarray, " n"]]
    allocations: Mapping[Mode, regions.Allocation] = field(default_factory=dict)
    backgrounds: Mapping[Mode, Background] = field(default_factory=dict)

    def radii(self, proofs: Proofs) -> dict[Mode, Float64[np.ndarray, " n"]]:
        """Return the radii that each mode may rely on at its levels."""
        return {mode: at(proofs.of(mode), level) for mode, level in self.modes.items()}

    def to_size(self, proofs: Proofs) -> list[Float64[np.ndarray, " n"]]:
        """Return the radii of the modes whose regions are still to be sized."""
        return [R for mode, R in self.radii(proofs).items() if mode not in self.allocations]


@dataclass(frozen=True, eq=False, kw_only=True)
class Answers:
    """What is certified of n images, by a rule or in a log: all that figures and tables need.

    Attributes
    ----------
    label : int array of shape (n,)
        True class.
    predict : int array of shape (n,)
        Certified class, or -1.
    radius : array of shape (n,)
        Certified l2 radius, rounded down as in the files; 0 where `predict` is -1.
    returned : int array of shape (n,), optional
        The class that is returned at the image itself, certified or not, where that is known.
    sound : bool
        Whether anything is certified by this.
    """

    label: Int64[np.ndarray, " n"]
    predict: Int64[np.ndarray, " n"]
    radius: Float64[np.ndarray, " n"]
    returned: Int64[np.ndarray, " n"] | None = None
    sound: bool = True

    @cached_property
    def correct(self) -> Int64[np.ndarray, " n"]:
        """1 where the certified class is the label, else 0."""
        return np.asarray(self.predict == self.label, dtype=np.int64)

    @property
    def correct_radius(self) -> Float64[np.ndarray, " n"]:
        """The radius where the certified class is the label, else 0: what an average certified radius is of."""
        return np.asarray(self.radius * self.correct)


@dataclass(frozen=True, eq=False, kw_only=True)
class RuleAnswers(Answers):
    """What one rule certifies, and how it came to that.

    Attributes
    ----------
    level : int array of shape (n,)
        Each image's noise level.
    R : array of shape (n,)
        Radius of its certificate there.
    r : array of shape (n,)
        Radius of its region; infinite where the rule has none. With a level outside every region: up to where no level
        decides that does not agree, at most R.
    allocation : regions.Allocation, optional
        None where the rule has no regions.
    """

    level: Int64[np.ndarray, " n"]
    R: Float64[np.ndarray, " n"]
    r: Float64[np.ndarray, " n"]
    allocation: regions.Allocation | None = None


def answer(
    points: np.ndarray,
    sigmas: Float64[np.ndarray, " K"],
    proofs: Proofs,
    choice: Choice,
    label: Int64[np.ndarray, " n"],
    *,
    lost: float = 0.0,
    options: Mapping[str, Any] | None = None,
    parallel: int | str | None = None,
    search: str = "auto",
    size: Sizer | None = None,
) -> dict[str, RuleAnswers]:
    """Answer by every constant level, with overlapping regions, and by each way to size them.

    Parameters
    ----------
    points : array of shape (n, d)
        The images: centres of the regions.
    sigmas : array of shape (K,)
        Noise levels.
    proofs : Proofs
    choice : Choice
    label : int array of shape (n,)
        True classes, which say what is correct and nothing else.
    lost : float, default=0
        The sampler's lookup error: radii of G are that much smaller.
    options, parallel, search
        How regions are sized: see `Sizer.among`.
    size : Sizer, optional
        One that has searched among radii as large as `choice.to_size(proofs)`; `options`, `parallel` and `search` are
        then its own.

    Returns
    -------
    dict
        Keys are "sigma=0.25" and so on, "overlapping", and the names of modes, as in "paper-lp".
    """
    found = {}
    for k in choice.constants:
        level = np.full(len(points), k)
        found[f"sigma={sigmas[k]:g}"] = _without_regions(proofs, proofs.constant, level, label)
    found[OVERLAPPING] = _without_regions(proofs, proofs.chosen, choice.overlapping, label, sound=False)
    radii = choice.radii(proofs)
    if size is None:
        size = Sizer.among(points, choice.to_size(proofs), options or {}, parallel, search)
    for mode, level in choice.modes.items():
        R = radii[mode]
        predict = certified(proofs, level, R)
        allocation = choice.allocations.get(mode) or size(mode, bounds(mode, R, lost), level, predict)
        allocation = emptied(allocation, lost)
        predict, radius = allocated(predict, R, allocation.radii, lost)
        found[mode.name] = RuleAnswers(
            label=label,
            predict=predict,
            radius=floored(radius),
            sound=proofs.certified or not mode.simultaneous,
            level=level,
            R=R,
            r=allocation.radii,
            allocation=allocation,
        )
    for mode, background in choice.backgrounds.items():
        found[mode.name] = _around(background, proofs, label, lost)
    return found


def _around(background: Background, proofs: Proofs, label: Int64[np.ndarray, " n"], lost: float) -> RuleAnswers:
    """Answer by a map with a background. Every certificate rests on its own image's samples alone."""
    level = background.level
    R, r = background.radii(proofs.predict, proofs.chosen)
    predict, radius = allocated(certified(proofs, level, R), R, r, lost)
    return RuleAnswers(
        label=label,
        predict=predict,
        radius=floored(radius),
        level=level,
        R=R,
        r=r,
        allocation=background.allocation,
    )


def _without_regions(
    proofs: Proofs,
    table: Float64[np.ndarray, "n K"],
    level: Int64[np.ndarray, " n"],
    label: Int64[np.ndarray, " n"],
    *,
    sound: bool = True,
) -> RuleAnswers:
    R = at(table, level)
    predict, whole = certified(proofs, level, R), np.full(len(R), np.inf)
    return RuleAnswers(label=label, predict=predict, radius=floored(R), sound=sound, level=level, R=R, r=whole)


def at(table: np.ndarray, level: Int64[np.ndarray, " n"]) -> np.ndarray:
    """Return each image's entry at its level, (n,), of a table of shape (n, K)."""
    return np.asarray(table[np.arange(len(level)), level])


def certified(proofs: Proofs, level: Int64[np.ndarray, " n"], R: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Return the classes that are certified at these levels, with these radii; -1 where none is."""
    return np.where(R > 0, at(proofs.predict, level), ABSTAIN)


def allocated(
    predict: Int64[np.ndarray, " n"], R: Float64[np.ndarray, " n"], r: Float64[np.ndarray, " n"], lost: float = 0.0
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return what is left of certificates (predict, R) inside regions of radius r: class and min(R, r), both (n,).

    A region of radius 0 is empty: sigma is constant nowhere around its centre, and its image counts as abstaining.
    So does one of which nothing is left when `lost`, the sampler's lookup error, is taken off.
    """
    radius = less(np.minimum(R, r), lost)
    inside: Bool[np.ndarray, " n"] = radius > 0
    return np.where(inside, predict, ABSTAIN), radius


def bounds(mode: Mode, R: Float64[np.ndarray, " n"], lost: float) -> Float64[np.ndarray, " n"]:
    """Return upper bounds of regions for certificates R.

    Some modes let an input fall into another image's region, and rely on that image's certificate there. The input may
    be farther from that image, by `lost`, than from the centre of the region: so such regions are smaller by it.
    """
    return less(R, lost) if mode.simultaneous else R


def emptied(allocation: regions.Allocation, lost: float) -> regions.Allocation:
    """Return an allocation in which regions are empty that leave nothing of a certificate."""
    some = less(allocation.radii, lost) > 0
    if some[allocation.radii > 0].all():
        return allocation
    radii = np.where(some, allocation.radii, 0.0)
    return replace(allocation, radii=radii, objective=math.fsum(radii.tolist()), certificate=None)


def less(radius: Float64[np.ndarray, " n"], lost: float) -> Float64[np.ndarray, " n"]:
    """Return radii less the sampler's lookup error, rounded down; never below 0."""
    return np.asarray(np.maximum(np.nextafter(radius - lost, -np.inf), 0.0) if lost else radius)


def floored(radius: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Return radii rounded down as they are written."""
    return np.array([float(floor_text(value)) for value in radius.tolist()])
