"""What a router learns from, and whether it has learnt enough: expected radii at every level (Eq. 5's machinery)."""

import os
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from torch import nn

from smoothing import SmoothedClassifier, agreeing_radius
from smoothing.confidence import weighted_alpha
from smoothing.progress import Progress
from smoothing.router_bounds import imagined_votes, router_clearance
from smoothing.routing import ROUTER_SHARE
from training.chunks import FIRST_INDEX, in_chunks
from training.data import Images

#: A router is preferred to one level for all images where its advantage on held-out images is more than so many
#: standard errors: it is then really better at a one-sided confidence of 95%.
ERRORS = 1.645


@dataclass(frozen=True, kw_only=True)
class RouterSampling:
    """How many samples radii are expected from, and for which certificates.

    Attributes
    ----------
    n0 : int
        Noise samples of the base classifier per image and level.
    n : int
        For how many final samples, of both models, radii are expected if they vote like those.
    n_router : int
        Noise samples of the router per held-out image.
    alpha : float
        Failure probability of a certificate. A routed one leaves the base classifier half of it.
    """

    n0: int
    n: int
    n_router: int
    alpha: float


@dataclass(frozen=True, kw_only=True)
class RouterValidation:
    """A router against each constant level, on held-out training images: mean expected radii, 0 for a wrong class.

    The labels of these images are used. No radius here is certified.

    Attributes
    ----------
    sigmas : tuple of float
        The levels.
    constant : tuple of float
        Mean radius with each level for all images, at alpha.
    best : float
        Mean radius if each image had its own best level, at alpha: no router reaches more.
    router : float
        Mean radius of the routed classifier, min(r_s, min over k of max(r_k, t_k)), at alpha in all (docs/router.md).
    min_radius : float
        Mean of min(R_S, R_c) from the same votes.
    error : float
        Standard error of the mean difference, image by image, between `router` and the best constant level.
    images, unseen : int
        Held-out images, and how many of these the base classifier was not trained on, as far as its checkpoint says.
    n0, n, n_router : int
        As in `RouterSampling`.
    alpha : float
    """

    sigmas: tuple[float, ...]
    constant: tuple[float, ...]
    best: float
    router: float
    min_radius: float
    error: float
    images: int
    unseen: int
    n0: int
    n: int
    n_router: int
    alpha: float

    @property
    def level(self) -> int:
        """Which constant level is the best one."""
        return int(np.argmax(self.constant))

    @property
    def difference(self) -> float:
        """Mean radius that the router gains over the best constant level; negative where it loses."""
        return self.router - self.constant[self.level]

    @property
    def better(self) -> bool:
        """Whether the router is preferred: it gains more than `ERRORS` standard errors."""
        return self.difference > ERRORS * self.error

    @property
    def passes(self) -> int:
        """Forward passes that this took, of both models."""
        return self.images * (2 * len(self.sigmas) * self.n0 + self.n_router)


def expected_radii(
    classifier: SmoothedClassifier,
    images: Images,
    labels: Int64[np.ndarray, " n"],
    *,
    sigmas: Float64[np.ndarray, " K"],
    n0: int,
    n: int,
    alpha: float = 0.001,
    indices: Int64[np.ndarray, " n"] | None = None,
    partial: str | os.PathLike[str] | None = None,
    progress: bool | Progress = False,
) -> Float64[np.ndarray, "n K"]:
    """Return the radius that each training image may expect at each level, 0 where its label does not win.

    Looks at labels: for training only. Costs n0 passes for each image and level.

    Parameters
    ----------
    classifier : SmoothedClassifier
        The base classifier.
    images, labels
        Training images and their classes.
    sigmas : array of shape (K,)
        The levels, increasing.
    n0 : int
        Noise samples per image and level.
    n : int
        For how many final samples the radius is expected, if they vote like those n0.
    alpha : float, default=0.001
        Failure probability of those certificates.
    indices : int array of shape (n,), default=0, 1, ...
        Each image's index among the training images, which names its noise streams; never those of a test image.
    partial, progress
        As in `training.chunks.in_chunks`.

    Returns
    -------
    array of shape (n, K)
        l2 radii in the images' units, as in Eq. 5 but for the rule: by the final samples, not by these.

    Raises
    ------
    ValueError
        What `SmoothedClassifier.select_sigma` refuses.
    """
    names = np.arange(len(labels)) if indices is None else indices

    def compute(rows: Int64[np.ndarray, " b"]) -> Float64[np.ndarray, "b K"]:
        named = FIRST_INDEX + names[rows]
        found = classifier.select_sigma(
            images[rows], sigmas, n0=n0, rule="expected-radius", n=n, alpha=alpha, indices=named
        )
        return np.where(found.classes == labels[rows, None], found.expected_radius, 0.0)

    return in_chunks(compute, len(labels), len(sigmas), title="radii at all levels", partial=partial, progress=progress)


def validate_router(
    classifier: SmoothedClassifier,
    router: nn.Module,
    images: Images,
    *,
    labels: Int64[np.ndarray, " n"],
    sigmas: Float64[np.ndarray, " K"],
    router_sigma: float,
    sampling: RouterSampling,
    unseen: int = 0,
    indices: Int64[np.ndarray, " n"] | None = None,
    partial: str | os.PathLike[str] | None = None,
    progress: bool | Progress = False,
) -> RouterValidation:
    """Compare a router, smoothed at its own level, with each constant level on held-out training images.

    Looks at labels: never for test images. The radius of the routed classifier is that of its certificate, with the
    expected radii at the base classifier's part of alpha, and the clearances that n votes of the router would prove at
    its own part if they fell as `n_router` do; a constant level has all of alpha.

    Parameters
    ----------
    classifier : SmoothedClassifier
        The base classifier.
    router : torch.nn.Module
        Maps images to K logits.
    images, labels
        Held-out training images, at least two, and their classes.
    sigmas : array of shape (K,)
        The levels, increasing, at least two.
    router_sigma : float
        The router's own noise level.
    sampling : RouterSampling
    unseen : int, default=0
        How many of the images the base classifier was not trained on.
    indices, partial, progress
        As in `expected_radii`.

    Raises
    ------
    ValueError
        For less than two images, and what `SmoothedClassifier` refuses: a router with another number of logits, say.
    """
    if len(labels) < 2:
        raise ValueError(f"{len(labels)} held-out images: too few to tell a gain from chance; give two or more")
    smoothed = SmoothedClassifier(
        router,
        len(sigmas),
        precision=classifier.identity.precision,
        threads=classifier.threads,
        seed=classifier.identity.seed,
        device=classifier.device,
    )
    names = np.arange(len(labels)) if indices is None else indices
    alpha_base, alpha_router = weighted_alpha(sampling.alpha, (1 - ROUTER_SHARE, ROUTER_SHARE))

    def compute(rows: Int64[np.ndarray, " b"]) -> Float64[np.ndarray, "b width"]:
        pixels, truth, named = images[rows], labels[rows], FIRST_INDEX + names[rows]
        alone, shared = (
            classifier.select_sigma(
                pixels, sigmas, n0=sampling.n0, rule="expected-radius", n=sampling.n, alpha=alpha, indices=named
            )
            for alpha in (sampling.alpha, alpha_base)
        )
        votes = smoothed.predict(pixels, router_sigma, n=sampling.n_router, indices=named).votes
        anchor, every = votes.argmax(axis=1), np.arange(len(rows))
        clearance = router_clearance(imagined_votes(votes, sampling.n), anchor, router_sigma, alpha_router)
        certified = shared.classes[every, anchor]
        radius = np.where(shared.classes == certified[:, None], shared.expected_radius, 0.0)
        radii = agreeing_radius(radius, clearance, anchor), np.minimum(radius[every, anchor], clearance.min(axis=1))
        return np.hstack(
            [
                np.where(alone.classes == truth[:, None], alone.expected_radius, 0.0),
                np.where((certified == truth)[:, None], np.stack(radii, axis=1), 0.0),
            ]
        )

    width = len(sigmas) + 2
    found = in_chunks(compute, len(labels), width, title="validate", partial=partial, progress=progress)
    constant, routed = found[:, :-2], found[:, -2]
    means = constant.mean(axis=0)
    gained = routed - constant[:, means.argmax()]
    return RouterValidation(
        sigmas=tuple(sigmas.tolist()),
        constant=tuple(means.tolist()),
        best=float(constant.max(axis=1).mean()),
        router=float(routed.mean()),
        min_radius=float(found[:, -1].mean()),
        error=float(gained.std(ddof=1) / np.sqrt(len(gained))),
        images=len(labels),
        unseen=unseen,
        n0=sampling.n0,
        n=sampling.n,
        n_router=sampling.n_router,
        alpha=sampling.alpha,
    )
