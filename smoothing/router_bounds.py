"""What the votes of a router prove: how far away another level can win, and which levels may be the right one.

A router names a noise level for every input, as a classifier names a class. Smoothed at its own level, sigma_r, its
answer S(x) is the level that it names most often. docs/router.md has the proofs.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int64

from smoothing.bounds import runner_up_bounds
from smoothing.confidence import certified_radius, shared_alpha, top_two_p_value


def router_clearance(
    votes: Int64[np.ndarray, "n K"], anchor: Int64[np.ndarray, " n"], router_sigma: float, alpha: float
) -> Float64[np.ndarray, "n K"]:
    """Return how far from each image each level cannot be what the smoothed router names.

    t_k = max(0, sigma_r / 2 (Phi^-1(p_lower) - Phi^-1(p_upper_k))), where p_lower bounds the share of the anchor from
    below, and p_upper_k that of level k from above (Eq. 2 for this pair). A level without a vote has such a bound too.

    Parameters
    ----------
    votes : int array of shape (n, K)
        How many samples of the router's own noise named each level; at least one for each image.
    anchor : int array of shape (n,)
        The level that others are compared with, fixed before these votes were drawn.
    router_sigma : float
        The noise level sigma_r of these votes.
    alpha : float
        Failure probability, half for the anchor's bound and half for the other's. With two levels all of it is the
        anchor's, since the other has the rest.

    Returns
    -------
    array of shape (n, K)
        t_k, rounded down: for each image and **any one level** k that does not depend on these votes, S is not k within
        the open ball of t_k, with probability at least 1 - alpha. Infinite for the anchor, which is not another level.
        0 for all others where the anchor is not seen to win.
    """
    every, levels = np.arange(len(votes)), votes.shape[1]
    own, rest = votes[every, anchor][:, None], votes.copy()
    rest[every, anchor] = 0
    share = 0.0 if levels == 2 else 0.5
    found = certified_radius(router_sigma, *runner_up_bounds(own, rest, votes.sum(axis=1)[:, None], alpha, share))
    found[every, anchor] = np.inf
    return found


def imagined_votes(votes: Int64[np.ndarray, "n K"], n: int) -> Int64[np.ndarray, "n K"]:
    """Return about n votes that fall as these did, half a vote added to each level: none is taken to be impossible.

    For planning and comparing: what follows from imagined votes proves nothing.
    """
    share = (votes + 0.5) / (votes.sum(axis=1, keepdims=True) + 1)
    return np.asarray(np.ceil(share * n).astype(np.int64))


def levels_not_rejected(votes: Int64[np.ndarray, "n K"], alpha: float) -> Bool[np.ndarray, "n K"]:
    """Return which levels may be the one that the smoothed router names at each image.

    A level is rejected where an exact one-sided test says, at alpha / (K - 1), that it is less likely than the most
    voted one. With probability at least 1 - alpha, per image, S(x) is among those that are left.

    Parameters
    ----------
    votes : int array of shape (n, K)
        As in `router_clearance`.
    alpha : float
        Failure probability.
    """
    each = shared_alpha(alpha, max(1, votes.shape[1] - 1))
    two_sided = top_two_p_value(votes.max(axis=1, keepdims=True), votes)
    # min(1, 2 p) tells p only where it is below 1; where it is 1, p is at least 1/2 and nothing is rejected
    return np.asarray((two_sided == 1) | (two_sided > 2 * each))
