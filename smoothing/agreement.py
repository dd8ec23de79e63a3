"""Certificates of a classifier whose noise level changes from place to place: levels that agree do no harm.

G(z) = g(z, S(z)), where S names a noise level for every input z: that of the region that holds z, say. Let level k be
used nowhere nearer to an image x than t_k, and let the smoothed classifier at level k return class c within r_k of x.
Level s is the one that is used at x. Then G returns c within

    rho = min(r_s, min over k != s of max(r_k, t_k)).

docs/outside.md has the proof, and says why no share of alpha is lost to the number of levels.
"""

import numpy as np
from jaxtyping import Float64, Int64


def agreeing_radius(
    radius: Float64[np.ndarray, "n K"], clearance: Float64[np.ndarray, "n K"], level: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Return the radius within which G returns one class, whichever level decides.

    Parameters
    ----------
    radius : array of shape (n, K)
        r_k: certified radius at level k **for the class that is certified at the image's own level**; 0 where that
        class is not certified there, or where nobody asked.
    clearance : array of shape (n, K)
        t_k: within this l2 distance of the image no input has level k. It must not depend on the samples that `radius`
        comes from. Infinite where the level is not used at all.
    level : int array of shape (n,)
        s: the level at the image itself. Its clearance does not count: max(r_s, t_s) is never below r_s.

    Returns
    -------
    array of shape (n,)
        rho, in the unit of `radius`; 0 where nothing is certified. If each entry of `radius` is too large with
        probability at most alpha, each rho is too large with probability at most alpha.
    """
    own = radius[np.arange(len(level)), level]
    return np.asarray(np.minimum(own, np.maximum(radius, clearance).min(axis=1)))


def outside_clearance(
    near: Float64[np.ndarray, "n K"], leaving: Float64[np.ndarray, " n"], named: Float64[np.ndarray, "n K"]
) -> Float64[np.ndarray, "n K"]:
    """Return t_k = min(D_k, max(m_k, D_out)) for regions with levels of their own, and another rule outside them.

    Level k is used in a region of level k, none of which is nearer than D_k, or outside every region, which is no
    nearer than D_out, where the other rule names k, which it does no nearer than m_k.

    Parameters
    ----------
    near : array of shape (n, K)
        D_k: distance to the nearest region of each level, rounded down.
    leaving : array of shape (n,)
        D_out: distance to leave all regions, rounded down; 0 outside.
    named : array of shape (n, K)
        m_k: the other rule names level k nowhere nearer; 0 for the level that it names at the image.
    """
    return np.asarray(np.minimum(near, np.maximum(named, leaving[:, None])))
