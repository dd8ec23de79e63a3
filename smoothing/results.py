"""What the smoothed classifier returns: frozen records of arrays, one row per image."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

#: The class that stands for "no answer".
ABSTAIN = -1


@dataclass(frozen=True, eq=False)
class SigmaChoice:
    """A noise level for every image, chosen without its label (Eq. 7).

    Attributes
    ----------
    sigmas : array of shape (k,)
        The grid, increasing.
    level : int array of shape (n,)
        Which of the grid's levels was chosen.
    sigma : array of shape (n,)
        The chosen level itself.
    classes : int array of shape (n, k)
        The most voted class at every level: the class to certify there.
    radii : array of shape (n, k)
        What the selection samples alone would certify. They chose the level, so they prove nothing about it.
    """

    sigmas: Float64[np.ndarray, " k"]
    level: Int64[np.ndarray, " n"]
    sigma: Float64[np.ndarray, " n"]
    classes: Int64[np.ndarray, "n k"]
    radii: Float64[np.ndarray, "n k"]


@dataclass(frozen=True, eq=False)
class Certificates:
    """Certified predictions at given noise levels.

    With probability at least 1 - alpha, per image, over the estimation noise: where `predict` is not -1, the smoothed
    classifier of Eq. 1 at level sigma returns `predict` everywhere in the open ball of radius `radius`.

    Attributes
    ----------
    predict : int array of shape (n,)
        The certified class, or -1 (abstained).
    radius : array of shape (n,)
        l2 radius, in the images' units; 0 where abstained.
    sigma : array of shape (n,)
        Noise level.
    counts : int array of shape (n,)
        Votes for the class that was to be certified, out of n.
    p_lower : array of shape (n,)
        Lower confidence bound for that class's probability.
    n : int
        Estimation samples per image.
    alpha : float
        Failure probability per image.
    """

    predict: Int64[np.ndarray, " n"]
    radius: Float64[np.ndarray, " n"]
    sigma: Float64[np.ndarray, " n"]
    counts: Int64[np.ndarray, " n"]
    p_lower: Float64[np.ndarray, " n"]
    n: int
    alpha: float


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions without a radius.

    Attributes
    ----------
    predict : int array of shape (n,)
        The class, or -1 where the two most voted classes could not be told apart.
    votes : int array of shape (n, num_classes)
        Votes for every class.
    p_value : array of shape (n,)
        Of the two-sided test between the two most voted classes.
    sigma : array of shape (n,)
        Noise level.
    alpha : float
        Failure probability per image.
    """

    predict: Int64[np.ndarray, " n"]
    votes: Int64[np.ndarray, "n classes"]
    p_value: Float64[np.ndarray, " n"]
    sigma: Float64[np.ndarray, " n"]
    alpha: float
