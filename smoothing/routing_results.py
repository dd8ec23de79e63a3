"""What a routed classifier returns: frozen records of arrays, one row per image."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from smoothing.results import Identity


@dataclass(frozen=True)
class RoutedIdentity:
    """What was certified: results of two runs belong together only where these are equal.

    Attributes
    ----------
    base : Identity
        The smoothed classifier whose level is chosen.
    router : Identity or None
        The smoothed router; None where there is one level.
    sigmas : tuple of float
        The levels.
    router_sigma : float or None
        The router's own noise level.
    """

    base: Identity
    router: Identity | None
    sigmas: tuple[float, ...]
    router_sigma: float | None


@dataclass(frozen=True, eq=False)
class RoutedCertificates:
    """Certificates of G(x) = g(x, sigma_S(x)): see `RoutedClassifier.certify`.

    With probability at least 1 - alpha over the estimation noise, per image: where `predict` is not -1, G returns
    `predict` everywhere in the open ball of radius `radius`.

    Attributes
    ----------
    predict : int array of shape (n,)
        The certified class, or -1 (abstained).
    level : int array of shape (n,)
        The anchor: the level that the router named most often among selection samples.
    radius : array of shape (n,)
        l2 radius, in the images' units; 0 where abstained.
    router_radius : array of shape (n,)
        R_S, within which the router names the anchor and nothing else; 0 where that is not certified, infinite where
        there is one level.
    base_radius : array of shape (n,)
        R_c, within which g(., sigma) at the anchor returns the class; 0 where that is not certified.
    level_radius : array of shape (n, K)
        r_k, within which g(., sigma_k) returns the class; 0 where not certified, or not sampled.
    clearance : array of shape (n, K)
        t_k, within which the router does not name level k; infinite for the anchor itself.
    sampled : bool array of shape (n, K)
        Which levels got estimation samples.
    samples : int array of shape (n,)
        Forward passes of each image: base classifier and router, selection and estimation.
    alpha : float
        Failure probability of each image.
    identity : RoutedIdentity
        What was certified.
    """

    predict: Int64[np.ndarray, " n"]
    level: Int64[np.ndarray, " n"]
    radius: Float64[np.ndarray, " n"]
    router_radius: Float64[np.ndarray, " n"]
    base_radius: Float64[np.ndarray, " n"]
    level_radius: Float64[np.ndarray, "n K"]
    clearance: Float64[np.ndarray, "n K"]
    sampled: Bool[np.ndarray, "n K"]
    samples: Int64[np.ndarray, " n"]
    alpha: float
    identity: RoutedIdentity

    @property
    def min_radius(self) -> Float64[np.ndarray, " n"]:
        """min(R_S, R_c), for comparison: what is certified where S may not change at all. Never above `radius`."""
        return np.asarray(np.minimum(self.router_radius, self.base_radius))


@dataclass(frozen=True, eq=False)
class RoutedPredictions:
    """Predictions of G without a radius: see `RoutedClassifier.predict`.

    Attributes
    ----------
    predict : int array of shape (n,)
        The class, or -1 where levels that may be the right one do not agree, or one of them abstains.
    level : int array of shape (n,)
        The level that the router named most often.
    kept : bool array of shape (n, K)
        The levels that may be the right one.
    answers : int array of shape (n, K)
        What each of them says; -1 where it abstains, and at levels that are not kept.
    count : int array of shape (n,)
        Votes for the most voted class at that level.
    alpha : float
        Failure probability per image.
    identity : RoutedIdentity
        What was asked.
    """

    predict: Int64[np.ndarray, " n"]
    level: Int64[np.ndarray, " n"]
    kept: Bool[np.ndarray, "n K"]
    answers: Int64[np.ndarray, "n K"]
    count: Int64[np.ndarray, " n"]
    alpha: float
    identity: RoutedIdentity
