"""What the smoothed classifier returns: frozen records of arrays, one row per image."""

import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

#: The class that stands for "no answer".
ABSTAIN = -1


@dataclass(frozen=True)
class Identity:
    """What was smoothed: results of two runs belong together only where these are equal.

    Attributes
    ----------
    weights : str
        SHA-256 of the base classifiers and their levels: the module tree with its classes, parameters, buffers, hooks
        and plain attributes. Code, global variables and files are not hashed.
    num_classes : int
    precision : str
        "float32" (IEEE), "tf32" or "bfloat16": what the base classifier computes in is part of it.
    sampler : str
        "gaussian" or "discrete".
    compiled : bool or str
        Whether the base classifier ran through `torch.compile`, which may round differently, and in which mode.
    seed : int
        Names the noise streams.
    scheme : int
        How all this was found: identities of another scheme are not compared, since they left something out.
    stream : str
        Where random numbers come from. "sfc64" is what earlier records mean that do not name theirs.
    """

    weights: str
    num_classes: int
    precision: str
    sampler: str
    compiled: bool | str
    seed: int
    scheme: int = 1
    stream: str = "sfc64"


@dataclass(frozen=True, eq=False)
class SigmaChoice:
    """A noise level for every image (Eq. 7; Eq. 5 where labels were given).

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
    expected_radius : array of shape (n, k)
        What the rule ranked by, 0 where it ruled a level out. Selection samples gave these numbers and chose the level
        by them, so they prove nothing about it.
    samples : int array of shape (n, k)
        Selection samples drawn: n0 everywhere, unless racing dropped a level early.
    rule : str
        How the level was chosen.
    shares : array of shape (n, k)
        At every level, which share of alpha to spend on the classes that are not certified (`bounds.split_alpha`): to
        be passed on to `certify_classes` and `certify_levels`. 0 for one-sided certificates.
    """

    sigmas: Float64[np.ndarray, " k"]
    level: Int64[np.ndarray, " n"]
    sigma: Float64[np.ndarray, " n"]
    classes: Int64[np.ndarray, "n k"]
    expected_radius: Float64[np.ndarray, "n k"]
    samples: Int64[np.ndarray, "n k"]
    rule: str
    shares: Float64[np.ndarray, "n k"]

    @property
    def radii(self) -> Float64[np.ndarray, "n k"]:
        """The former name of `expected_radius`."""
        warnings.warn("SigmaChoice.radii is called expected_radius now", DeprecationWarning, stacklevel=2)
        return self.expected_radius

    @property
    def share(self) -> Float64[np.ndarray, " n"]:
        """Each image's share of alpha at its chosen level."""
        return np.asarray(self.shares[np.arange(len(self.level)), self.level])

    @property
    def predict(self) -> Int64[np.ndarray, " n"]:
        """Each image's class to certify at its chosen level."""
        return np.asarray(self.classes[np.arange(len(self.level)), self.level])


@dataclass(frozen=True, eq=False)
class Certificates:
    """Certified predictions at given noise levels.

    With probability at least 1 - alpha over the estimation noise, per image or for all of them at once, as
    `simultaneous` says: where `predict` is not -1, the smoothed classifier of Eq. 1 at level sigma returns `predict`
    everywhere in the open ball of radius `radius`.

    Attributes
    ----------
    predict : int array of shape (n,)
        The certified class, or -1 (abstained).
    radius : array of shape (n,)
        l2 radius, in the images' units; 0 where abstained.
    sigma : array of shape (n,)
        Noise level.
    counts : int array of shape (n,)
        Votes for the class that was to be certified.
    n : int array of shape (n,)
        Out of how many estimation samples.
    p_lower : array of shape (n,)
        Lower confidence bound for that class's probability.
    p_upper : array of shape (n,)
        Upper confidence bound for the probability of every other class: 1 - p_lower, or less.
    runner_up : int array of shape (n,)
        The class with most votes but for the one to be certified; -1 where no other has any.
    runner_up_counts : int array of shape (n,)
        Its votes.
    share : array of shape (n,)
        The share of alpha that p_upper spends; p_lower spends the rest.
    alpha : float
        Failure probability, as given.
    simultaneous : bool
        False: alpha is that of each image. True: alpha is that of any image of this call being wrong.
    identity : Identity
        What was certified.
    """

    predict: Int64[np.ndarray, " n"]
    radius: Float64[np.ndarray, " n"]
    sigma: Float64[np.ndarray, " n"]
    counts: Int64[np.ndarray, " n"]
    n: Int64[np.ndarray, " n"]
    p_lower: Float64[np.ndarray, " n"]
    p_upper: Float64[np.ndarray, " n"]
    runner_up: Int64[np.ndarray, " n"]
    runner_up_counts: Int64[np.ndarray, " n"]
    share: Float64[np.ndarray, " n"]
    alpha: float
    simultaneous: bool
    identity: Identity


@dataclass(frozen=True, eq=False)
class Decisions:
    """Answers to whether images' classes are robust at given radii: see `SmoothedClassifier.certify_at`.

    With probability at least 1 - alpha over the estimation noise, for each image and its radius, `answer` is not wrong.

    Attributes
    ----------
    answer : int array of shape (n,)
        1: the class is the answer everywhere in the closed ball of this radius. 0: Eq. 2 cannot certify this class
        beyond this radius, with however many samples. -1: not decided.
    classes : int array of shape (n,)
        The class in question, which selection samples chose.
    radius : array of shape (n,)
        l2 radius that was asked for, in the images' units.
    sigma : array of shape (n,)
        Noise level.
    counts : int array of shape (n,)
        Votes for the class.
    n : int array of shape (n,)
        Out of how many estimation samples.
    alpha : float
        Failure probability of each answer.
    identity : Identity
        What was certified.
    """

    answer: Int64[np.ndarray, " n"]
    classes: Int64[np.ndarray, " n"]
    radius: Float64[np.ndarray, " n"]
    sigma: Float64[np.ndarray, " n"]
    counts: Int64[np.ndarray, " n"]
    n: Int64[np.ndarray, " n"]
    alpha: float
    identity: Identity


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
    identity : Identity
        What was smoothed.
    """

    predict: Int64[np.ndarray, " n"]
    votes: Int64[np.ndarray, "n classes"]
    p_value: Float64[np.ndarray, " n"]
    sigma: Float64[np.ndarray, " n"]
    alpha: float
    identity: Identity
