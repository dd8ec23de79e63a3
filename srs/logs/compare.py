"""Sigma per image and regions from logs of constant sigmas (Eq. 7, 10, 11). Labels enter when answers are counted."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

import regions
from smoothing import ABSTAIN
from smoothing.confidence import shared_alpha
from srs.evaluation.rules import Choice, Proofs, RuleAnswers, answer, at
from srs.logs.read import Logs
from srs.logs.recover_votes import Votes
from srs.modes import COMPARED, Mode

#: What is compared besides the constant levels. A joint choice of level and radius takes as long as all others.
MODES = (*COMPARED, Mode("joint", "lp"))


def proofs_from_logs(
    logs: Logs, lowered: Float64[np.ndarray, "n K"], votes: Votes | None, alpha: float | None
) -> Proofs:
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
        return Proofs(logs.predict, lowered, lowered, lowered, guarantee, certified=False)
    several = "" if K == 1 else f", by bounds recomputed at alpha / {K} because the level was picked among {K}"
    return Proofs(
        logs.predict,
        votes.radii(logs.sigmas, alpha),
        votes.radii(logs.sigmas, shared_alpha(alpha, K)),
        votes.radii(logs.sigmas, shared_alpha(alpha, n * K)),
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
    proofs: Proofs,
    rule: str,
    main: Mode,
    options: Mapping[str, Any],
    parallel: int | str | None = None,
    search: str = "auto",
) -> dict[str, RuleAnswers]:
    """Answer by every constant level, with overlapping regions, and by each way to size them; see `rules.answer`.

    Parameters
    ----------
    logs, proofs
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
    """
    levels, allocations = {}, {}
    for mode in dict.fromkeys([*MODES, main]):
        if mode.overlap == "joint":
            joint = regions.allocate_levels(points, logs.sigmas, admitted(logs.predict, proofs.of(mode), rule))
            levels[mode], allocations[mode] = joint.level, joint.allocation
        else:
            levels[mode] = choose(logs.predict, proofs.of(mode), rule)
    own = choose(logs.predict, proofs.chosen, rule)
    choice = Choice(tuple(range(len(logs.sigmas))), own, levels, allocations)
    how: dict[str, Any] = {"options": options, "parallel": parallel, "search": search}
    found = answer(points, logs.sigmas, proofs, choice, logs.labels, **how)
    return {name: replace(answers, returned=_returned(logs, points, answers)) for name, answers in found.items()}


def _returned(logs: Logs, points: np.ndarray, answers: RuleAnswers) -> Int64[np.ndarray, " n"]:
    """Return what G answers at the images: one whose own region is empty may lie in another's, and takes its sigma."""
    level, r = answers.level, answers.r
    returned = at(logs.predict, level)
    empty = np.flatnonzero(r == 0)
    if empty.size:
        found = regions.RegionMap(points, r, logs.sigmas[level]).locate(points[empty]).region
        inside = level[found]
        returned[empty] = np.where(found >= 0, logs.predict[empty, inside], ABSTAIN)
    return returned
