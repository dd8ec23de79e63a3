"""Bounds for a class and for its runner-up together: what Eq. 2 needs, within one failure probability.

The votes are for a class A that other samples chose. Their failure probability alpha is split between the lower bound
of A and the upper bounds of the other classes. It is not divided among those: the bound of the most probable one alone
has to hold, and that is one fixed class, though nobody knows which (M18).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from smoothing import _validate
from smoothing.confidence import (
    complement_above,
    lower_confidence_bound,
    signed_radius,
    upper_confidence_bound,
    weighted_alpha,
)
from smoothing.votes import Counts

#: What certificates are made of: Eq. 2 with the runner-up's bound, or with 1 - p_lower in its place.
BOUNDS = ("runner-up", "top-class")

#: The shares of alpha that `split_alpha` chooses from where there are more than two classes. 1/2 was nearly always the
#: best, or else 0, where the runner-up has nearly all that the class leaves. 1/32 stands for 0: there it loses less
#: than 0.2 % of the radius, and it insures against classes that selection votes did not show (M18).
SHARES = (1 / 32, 1 / 2)


def split_alpha(
    counts: Any, runner_up: Any, n0: Any, num_classes: int, n: int, alpha: float
) -> Float64[np.ndarray, "*shape"]:
    """Choose the share of alpha for the bounds of the other classes, from selection votes: the most promising one.

    Each of `SHARES` is tried on n votes that fall as the selection votes did, and the one with the largest radius is
    taken. Half a vote is added to both counts: a runner-up that got none is not taken for impossible. The share is 0
    with two classes, since p_B = 1 - p_A, and for alpha so small that its parts are below 1e-100.

    Certificates are sound whatever the share, as long as it does not depend on the votes that certify.

    Parameters
    ----------
    counts, runner_up, n0 : int or array-like of int
        Selection votes for the class, for the most voted of the others, and of all classes; they broadcast.
    num_classes : int
        How many classes there are, at least 2.
    n : int
        How many votes will certify, at most 10**9.
    alpha : float
        Failure probability of those votes, in [1e-100, 1): for a ladder, that of one rung.

    Returns
    -------
    float array of the shape to which counts, runner_up and n0 broadcast
        0 or one of `SHARES` for each.

    Raises
    ------
    ValueError
        For votes that are not whole numbers or exceed n0 together, for alpha out of range, and for fewer than two
        classes.
    """
    first, second, drawn = _pair_of(counts, runner_up, n0)
    n, alpha = _validate.check_count("n", n), _validate.check_alpha(alpha)
    shares = [share for share in SHARES if alpha_shares(alpha, share)[1] > 0]
    if _validate.check_count("num_classes", num_classes, least=2) == 2 or not shares:
        return np.zeros(first.shape)
    cells, where = np.unique(np.stack([first.ravel(), second.ravel(), drawn.ravel()]), axis=1, return_inverse=True)
    own, other = (np.rint((votes + 0.5) / (cells[2] + 1) * n).astype(np.int64) for votes in cells[:2])
    other = np.minimum(other, n - own)
    radii = [signed_radius(1.0, *runner_up_bounds(own, other, n, alpha, share)) for share in shares]
    return np.asarray(np.array(shares)[np.argmax(radii, axis=0)][where].reshape(first.shape))


def alpha_shares(alpha: Any, share: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return alpha_A and alpha_B = share * alpha, which together do not exceed alpha in exact arithmetic.

    They are alpha and 0 where the share is 0, and where a part would be below 1e-100: bounds are not computed there.

    Parameters
    ----------
    alpha, share : float or array-like of float
        Numbers that broadcast; every share lies in [0, 1).
    """
    total = _validate.check_array("alpha", alpha).astype(np.float64)
    part = _validate.check_array("share", share).astype(np.float64)
    _validate.refuse_first("share", part, (part >= 0) & (part < 1), "a share of alpha lies in [0, 1)")
    others = np.asarray(total * part)
    own = np.nextafter(total - others, 0.0)
    divided = (part > 0) & (np.minimum(own, others) >= _validate.SMALLEST_ALPHA)
    return np.where(divided, own, total), np.where(divided, others, 0.0)


def runner_up_bounds(
    counts: Any, runner_up: Any, n: Any, alpha: Any, share: Any
) -> tuple[Float64[np.ndarray, "*shape"], Float64[np.ndarray, "*shape"]]:
    """Bound the probability of a class from below, and those of all other classes from above.

    With probability at least 1 - alpha, per image, p_lower does not exceed the probability of the class, and p_upper
    is not below that of the most probable other class. `certified_radius` makes Eq. 2 of them (M19).

    p_lower is the Clopper-Pearson bound at (1 - share) alpha. p_upper is the smaller of 1 - p_lower and of the largest
    upper bound of another class at share * alpha, which is that of the most voted one (M18).

    Parameters
    ----------
    counts : int or array-like of int
        Votes for a class that was fixed before these votes were drawn.
    runner_up : int or array-like of int
        Most votes that any other class got: these votes decide which class that is, not those that chose the first.
    n : int or array-like of int
        Votes drawn, for all classes, from 1 to 10**9.
    alpha : float or array-like of float
        Failure probability of both bounds together.
    share : float or array-like of float
        Share of alpha for the other classes, in [0, 1), fixed before these votes were drawn: see `split_alpha`. 0 gives
        the one-sided bounds, p_upper = 1 - p_lower, and so does a share that leaves less than 1e-100 of alpha to
        either side. All five arguments broadcast.

    Returns
    -------
    p_lower : float array of the shape to which the arguments broadcast
        In [0, 1), rounded down.
    p_upper : float array of that shape
        In (0, 1], rounded up.

    Raises
    ------
    ValueError
        For votes that are not whole numbers or exceed n together, and for alpha outside [1e-100, 1).
    """
    first, second, drawn = _pair_of(counts, runner_up, n)
    own, others = alpha_shares(alpha, share)
    p_lower = lower_confidence_bound(first, drawn, own)
    p_upper = complement_above(p_lower)
    second, drawn, others = (np.broadcast_to(array, p_upper.shape) for array in (second, drawn, others))
    two_sided = others > 0
    bound = upper_confidence_bound(second[two_sided], drawn[two_sided], others[two_sided])
    p_upper[two_sided] = np.minimum(p_upper[two_sided], bound)
    return p_lower, p_upper


def ladder_bounds(
    counts: Any, runner_up: Any, n: Any, alpha: float, share: Any, weights: Sequence[float] | None = None
) -> tuple[Float64[np.ndarray, "*shape"], Float64[np.ndarray, "*shape"]]:
    """Combine the bounds of several sample sizes: the best of each kind, at alpha divided among them.

    The guarantee is that of `runner_up_bounds`, with the same parameters but for a leading axis of rungs.

    Parameters
    ----------
    counts, runner_up : int arrays of shape (rungs, *shape)
        Votes among all that had been drawn by each rung.
    n : int or array-like of int
        How many had been drawn, in an array that broadcasts with the votes: shape (rungs, 1) for a vector of images.
        0 at rungs that were not reached, whose bounds are 0 and 1.
    alpha : float
        Failure probability over all rungs, in [1e-100, 1).
    share : float or array-like of float
        One for all rungs of an image: an array that broadcasts with `shape`.
    weights : sequence of float, optional
        What part of alpha each rung gets, as in `Ladder`; equal parts unless given.
    """
    first, second, drawn = _pair_of(counts, runner_up, n)
    if not first.ndim or not len(first):
        raise ValueError(f"counts of shape {first.shape}: expected an axis of at least one rung")
    reached = drawn > 0
    each = np.broadcast_to(_validate.check_array("share", share), first.shape)[reached]
    p_lower, p_upper = np.zeros(first.shape), np.ones(first.shape)
    parts = np.array(weighted_alpha(alpha, [1.0] * len(first) if weights is None else weights))
    if len(parts) != len(first):
        raise ValueError(f"{len(parts)} weights for {len(first)} rungs: expected one for each")
    spent = np.broadcast_to(parts.reshape(-1, *[1] * (first.ndim - 1)), first.shape)[reached]
    p_lower[reached], p_upper[reached] = runner_up_bounds(first[reached], second[reached], drawn[reached], spent, each)
    return p_lower.max(axis=0), p_upper.min(axis=0)


def counted_bounds(
    counts: Counts, alpha: float, share: Float64[np.ndarray, "n k"], weights: Sequence[float] | None = None
) -> tuple[Float64[np.ndarray, "n k"], Float64[np.ndarray, "n k"]]:
    """Return p_lower and p_upper of each class that is certified: see `ladder_bounds`.

    With probability at least 1 - alpha, for each image and level, both hold, whenever drawing stopped.

    Parameters
    ----------
    counts : Counts
        Votes after each of m rounds, each of which spends its part of alpha.
    alpha : float
        Failure probability of each image and level.
    share : array of shape (n, k)
        Share of alpha for the other classes; 0 where their votes are not known.
    weights : sequence of float, optional
        Those of the `Ladder` that was climbed; equal parts, alpha / m, unless given.
    """
    if counts.other is None and share.any():
        raise ValueError("these votes are for one class, and prove nothing of the runner-up: the share must be 0")
    other = np.zeros_like(counts.own) if counts.other is None else counts.other
    return ladder_bounds(counts.own, other, counts.n, alpha, share, weights)


def _pair_of(counts: Any, runner_up: Any, n: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return votes for two classes and for all of them, broadcast to one shape."""
    names = ("counts", "runner_up", "n")
    votes = [_validate.check_votes(name, value) for name, value in zip(names, (counts, runner_up, n), strict=True)]
    try:
        first, second, drawn = np.broadcast_arrays(*votes)
    except ValueError:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in zip(names, votes, strict=True))
        raise ValueError(f"votes of shapes {shapes}: no one shape") from None
    _validate.refuse_first("runner_up", second, first + second <= drawn, "more votes for two classes than were drawn")
    return first, second, drawn
