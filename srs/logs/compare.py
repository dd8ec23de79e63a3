"""Sigma per image and regions from logs of constant sigmas (Eq. 7, 10, 11). Labels enter when answers are counted."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

import regions
from smoothing import ABSTAIN
from smoothing.confidence import shared_alpha
from smoothing.tables import floor_text
from srs.evaluation.metrics import average_certified_radius, certified_accuracy, radius_grid
from srs.logs.read import Logs
from srs.logs.recover_votes import Votes
from srs.modes import COMPARED, GROUPS, OVERLAPPING, Mode

#: Orders of the greedy method (Eq. 11).
GREEDY = ("ascending", "descending", "arrival")

#: Overlaps for each image that are listed for all modes to share.
_SHARED_EDGES = 50

#: What is compared besides the constant levels. A joint choice of level and radius takes as long as all others.
MODES = (*COMPARED, Mode("joint", "lp"))


@dataclass(frozen=True, eq=False)
class Bounds:
    """Radii that hold, for the purposes that need different levels of confidence; each of shape (n, K).

    Attributes
    ----------
    constant : array
        For a level that was fixed beforehand.
    chosen : array
        For a level that was picked after looking at all of them.
    simultaneous : array
        For all images and levels at once, as far as that is known: see `certified`.
    certified : bool
        Whether `simultaneous` holds at all.
    guarantee : str
        A sentence that says so.
    """

    constant: Float64[np.ndarray, "n K"]
    chosen: Float64[np.ndarray, "n K"]
    simultaneous: Float64[np.ndarray, "n K"]
    certified: bool
    guarantee: str

    def only(self, rows: Int64[np.ndarray, " m"]) -> "Bounds":
        """Return those of some of the images, as they hold among all."""
        return replace(self, **{name: getattr(self, name)[rows] for name in ("constant", "chosen", "simultaneous")})


@dataclass(frozen=True, eq=False)
class Answer:
    """What one rule does with the images.

    Attributes
    ----------
    level : int array of shape (n,)
        Each image's noise level.
    predict : int array of shape (n,)
        The class that is certified there, -1 where none is or the region is empty.
    R, r : arrays of shape (n,)
        The certificate's radius and the region's; min(R, r) is certified.
    answers : int array of shape (n,)
        The class that G returns at the image itself, certified or not.
    sound : bool
        Whether anything is certified by this.
    allocation : regions.Allocation, optional
        None where no region was sized.
    """

    level: Int64[np.ndarray, " n"]
    predict: Int64[np.ndarray, " n"]
    R: Float64[np.ndarray, " n"]
    r: Float64[np.ndarray, " n"]
    answers: Int64[np.ndarray, " n"]
    sound: bool = True
    allocation: regions.Allocation | None = None

    @cached_property
    def radius(self) -> Float64[np.ndarray, " n"]:
        """Certified radius, min(R, r), rounded down as it is written; 0 where nothing is certified."""
        exact = np.where(self.predict == ABSTAIN, 0.0, np.minimum(self.R, self.r))
        return np.array([float(floor_text(value)) for value in exact.tolist()])


def bounds_from(logs: Logs, lowered: Float64[np.ndarray, "n K"], votes: Votes | None, alpha: float | None) -> Bounds:
    """Return what the logs prove, by the union bound over the K certificates of an image.

    Parameters
    ----------
    logs : Logs
    lowered : array of shape (n, K)
        Radii of the logs, at the logs' own alpha.
    votes : Votes, optional
        What was recovered from them.
    alpha : float, optional
        The failure probability to certify at, given with `votes`: that of the logs, or of the strictest of them.
    """
    n, K = logs.predict.shape
    if votes is None or alpha is None:
        several = "" if K == 1 else f": the level was picked after looking at {K} certificates (union bound)"
        spent = "alpha" if K == 1 else f"{K} alpha"
        guarantee = (
            f"each certificate holds with probability at least 1 - {spent}, per image, where alpha is the logs' own, "
            f"usually 0.001{several}; --n and --alpha of the logs make it 1 - alpha, and certify class groups"
        )
        return Bounds(lowered, lowered, lowered, False, guarantee)
    several = "" if K == 1 else f", by bounds recomputed at alpha / {K} because the level was picked among {K}"
    return Bounds(
        votes.radii(logs.sigmas, alpha),
        votes.radii(logs.sigmas, shared_alpha(alpha, K)),
        votes.radii(logs.sigmas, shared_alpha(alpha, n * K)),
        True,
        f"each certificate holds with probability at least 1 - {alpha:g}, per image{several}; where one class may "
        f"overlap, all hold at once with that probability (alpha / {n * K:,})",
    )


def admitted(predict: Int64[np.ndarray, "n K"], R: Float64[np.ndarray, "n K"], rule: str) -> Float64[np.ndarray, "n K"]:
    """Return the radii at the levels that a rule admits, 0 at the others. No label is seen.

    "max-radius" admits every level, "anchor" those that return the class of the smallest level that certifies one.
    """
    if rule == "anchor":
        first = predict[np.arange(len(R)), (R > 0).argmax(axis=1)]
        return np.where(predict == first[:, None], R, 0.0)
    return R


def choose(predict: Int64[np.ndarray, "n K"], R: Float64[np.ndarray, "n K"], rule: str) -> Int64[np.ndarray, " n"]:
    """Choose for every image the level of the largest radius among those that are admitted; of equals the smallest."""
    return np.asarray(admitted(predict, R, rule).argmax(axis=1))


def compare(
    logs: Logs,
    points: np.ndarray,
    bounds: Bounds,
    rule: str,
    main: Mode,
    options: Mapping[str, Any],
    parallel: int | str | None = None,
    search: str = "auto",
) -> dict[str, Answer]:
    """Answer by every constant level, with overlapping regions, and by each way to size them.

    Parameters
    ----------
    logs, bounds
        What the logs say, and prove.
    points : array of shape (n, d)
        The images.
    rule : {"max-radius", "anchor"}
        As in `admitted`: of these levels `choose` takes one, and so does a joint choice.
    main : Mode
        That of the answer that is wanted; is added where it is not compared anyway.
    options : mapping
        Passed to `regions.allocate` where it solves the LP.
    parallel : int or str, optional
        As in `regions.allocate`: shares out the search for overlaps, and solving but for a joint choice.
    search : {"auto", "faiss", "blocks", "tree"}, default="auto"
        How overlapping pairs are found, as in `regions.overlap_graph`.

    Returns
    -------
    dict
        Keys are "sigma=0.25" and so on, "overlapping", and the names of modes, as in "paper-lp".
    """
    found = {}
    whole = np.full(len(points), np.inf)
    for k, sigma in enumerate(logs.sigmas):
        level, R = np.full(len(points), k), bounds.constant[:, k]
        found[f"sigma={sigma:g}"] = Answer(level, _certified(logs, level, R), R, whole, logs.predict[:, k])
    level = choose(logs.predict, bounds.chosen, rule)
    R, answers = _at(bounds.chosen, level), _at(logs.predict, level)
    found[OVERLAPPING] = Answer(level, _certified(logs, level, R), R, whole, answers, sound=False)
    modes = list(dict.fromkeys([*MODES, main]))
    tables = {mode: bounds.simultaneous if mode.simultaneous else bounds.chosen for mode in modes}
    levels = {mode: choose(logs.predict, table, rule) for mode, table in tables.items()}
    # One search among the largest bounds serves every mode.
    largest = np.maximum.reduce([_at(tables[mode], levels[mode]) for mode in modes])
    near = _near(points, largest, parallel, search)
    for mode in modes:
        table, level = tables[mode], levels[mode]
        if mode.overlap == "joint":
            joint = regions.allocate_levels(points, logs.sigmas, admitted(logs.predict, table, rule))
            level, allocation = joint.level, joint.allocation
        else:
            groups = GROUPS[mode.overlap](level, _at(logs.predict, level))
            how: dict[str, Any] = {"method": mode.how}
            if mode.how in GREEDY:
                how = {"method": "greedy", "order": mode.how}
            elif mode.how != "max-min":
                how |= {"parallel": parallel, **(options if mode.how == "lp" else {})}
            if near is None:
                allocation = regions.allocate(points, _at(table, level), groups=groups, search=search, **how)
            else:
                allocation = regions.allocate_graph(near.restricted(_at(table, level), groups=groups), **how)
        R, r = _at(table, level), allocation.radii
        predict = np.where(r > 0, _certified(logs, level, R), ABSTAIN)
        sound = bounds.certified or not mode.simultaneous
        found[mode.name] = Answer(level, predict, R, r, _answers(logs, points, level, r), sound, allocation)
    return found


def _near(
    points: np.ndarray, R: Float64[np.ndarray, " n"], parallel: int | str | None, search: str
) -> regions.OverlapGraph | None:
    """Return the overlaps of the largest bounds, for every mode to share; None where they are too many to hold."""
    try:
        most = _SHARED_EDGES * max(1000, len(points))
        return regions.overlap_graph(points, R, search=search, parallel=parallel, most=most)
    except regions.TooManyOverlaps:
        return None


def describe(answers: Mapping[str, Answer], labels: Int64[np.ndarray, " n"]) -> dict[str, Any]:
    """Return `epsilon`, `rules` and `allocations` of a summary, ready for JSON; the only place where labels count."""
    radii = {name: answer.radius for name, answer in answers.items()}
    epsilon = radius_grid(max(float(radius.max()) for radius in radii.values()))
    rules = {}
    for name, answer in answers.items():
        correct = (answer.predict == labels).astype(np.int64)
        rules[name] = {
            "sound": answer.sound,
            "abstentions": int((answer.predict == ABSTAIN).sum()),
            "clean_accuracy": float((answer.answers == labels).mean()),
            "average_certified_radius": average_certified_radius(radii[name], correct),
            "certified_accuracy": certified_accuracy(radii[name], correct, epsilon).tolist(),
        }
    allocations = {
        name: {
            "objective": answer.allocation.objective,
            "upper_bound": answer.allocation.upper_bound,
            "gap": answer.allocation.gap,
            "method": answer.allocation.method,
            "status": answer.allocation.status,
            "edges": len(answer.allocation.graph.i),
        }
        for name, answer in answers.items()
        if answer.allocation is not None
    }
    return {"epsilon": epsilon.tolist(), "rules": rules, "allocations": allocations}


def _at(table: np.ndarray, level: Int64[np.ndarray, " n"]) -> np.ndarray:
    return np.asarray(table[np.arange(len(level)), level])


def _certified(logs: Logs, level: Int64[np.ndarray, " n"], R: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    return np.where(R > 0, _at(logs.predict, level), ABSTAIN)


def _answers(
    logs: Logs, points: np.ndarray, level: Int64[np.ndarray, " n"], r: Float64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Return what G answers at the images: one whose own region is empty may lie in another's, and takes its sigma."""
    answers = _at(logs.predict, level)
    empty = np.flatnonzero(r == 0)
    if empty.size:
        found = regions.RegionMap(points, r, logs.sigmas[level]).locate(points[empty]).region
        inside = level[found]
        answers[empty] = np.where(found >= 0, logs.predict[empty, inside], ABSTAIN)
    return answers
