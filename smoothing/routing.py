"""A smoothed classifier whose noise level a router chooses, itself smoothed: G(x) = g(x, sigma_S(x)).

It is inductive: it answers and certifies images that nobody has seen, without a table of regions. What is proved, and
how: docs/router.md.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from numpy.typing import ArrayLike
from torch import Tensor, nn

from smoothing import _validate, _validate_inputs
from smoothing.agreement import agreeing_radius
from smoothing.bounds import counted_bounds
from smoothing.classifier import SmoothedClassifier, as_ladder
from smoothing.confidence import certified_radius, shared_alpha, top_two_p_value, weighted_alpha
from smoothing.results import ABSTAIN, Identity
from smoothing.router_bounds import imagined_votes, levels_not_rejected, router_clearance
from smoothing.routing_results import RoutedCertificates, RoutedIdentity, RoutedPredictions
from smoothing.selection import Plan

#: The router's share of alpha, unless another one is given.
ROUTER_SHARE = 0.5


class RoutedClassifier:
    """G(x) = g(x, sigma_S(x)), where S(x) is the level that a router names most often under noise of its own level.

    Parameters
    ----------
    classifier : SmoothedClassifier
        g. The router uses its device, threads, precision, sampler and stream of random numbers, and noise of another
        seed, which is a hash of its seed: the two never share a sample.
    router : torch.nn.Module or None
        Maps float32 images of shape (b, C, H, W) to K logits, one for each level; what `SmoothedClassifier` says of
        models goes for it too. None where there is one level.
    sigmas : array of shape (K,)
        The levels, increasing.
    router_sigma : float, optional
        The router's own noise level, > 0. None where there is no router.
    """

    def __init__(
        self,
        classifier: SmoothedClassifier,
        router: nn.Module | None,
        sigmas: ArrayLike,
        *,
        router_sigma: float | None = None,
    ) -> None:
        self.sigmas = _validate.check_grid(sigmas)
        levels = len(self.sigmas)
        if (router is None) != (levels == 1):
            given = "no router" if router is None else "a router"
            raise ValueError(f"{given} for {levels} levels: give a router for two levels or more, and None for one")
        if (router is None) != (router_sigma is None):
            raise ValueError(f"router_sigma = {router_sigma}: give the noise level of a router, and None without one")
        self._classifier = classifier
        self.router_sigma = router_sigma
        self._router: SmoothedClassifier | None = None
        if router is not None:
            self.router_sigma = _validate.check_number("router_sigma", router_sigma, 0, strict=True)
            self._router = _smoothed_router(classifier, router, levels)

    @property
    def router(self) -> SmoothedClassifier | None:
        """The smoothed router, whose classes are the levels; None where there is one level."""
        return self._router

    @property
    def identity(self) -> RoutedIdentity:
        """What is certified, as it is now."""
        return self._named(self._classifier.identity, None if self._router is None else self._router.identity)

    def certify(
        self,
        images: ArrayLike | Tensor,
        *,
        n0: int,
        n: int,
        n_router: int | None = None,
        alpha: float = 0.001,
        router_share: float | None = None,
        indices: ArrayLike | None = None,
    ) -> RoutedCertificates:
        """Certify G at images that nobody has to have seen before.

        With probability at least 1 - alpha, per image: where the result does not abstain, G returns the certified class
        everywhere in the open ball of the certified radius.

        Selection samples fix the anchor s, which is the level that the router names most often, the class c, which is
        the most voted one at s, and which levels are sampled further. Fresh samples then bound r_k, within which
        g(., sigma_k) returns c, and t_k, within which S is not k. The radius is min(r_s, min over k != s of
        max(r_k, t_k)), as levels that agree do no harm (`agreeing_radius`). It is never below min(R_S, R_c).

        alpha = alpha_c + alpha_L + alpha_U: of one radius r_k, of the bound of the router's share of s, and of that of
        its share of one other level. None is divided by the number of levels. For, with the true numbers, the minimum
        is attained by one term, of one level k, which is fixed: the certified radius is too large only if the
        estimate of r_k, or the bound of the share of s, or that of the share of k is wrong (docs/router.md).

        Parameters
        ----------
        images : array or tensor of shape (n, C, H, W)
            Pixels in [0, 1].
        n0 : int
            Selection samples per image, at each level and of the router.
        n : int
            Estimation samples per image and level that is sampled.
        n_router : int, optional
            Estimation samples of the router per image. None where there is no router.
        alpha : float, default=0.001
            Failure probability per image.
        router_share : float, optional
            The router's share of alpha, alpha_L + alpha_U, in (0, 1); 1/2 unless given. Without a router all of alpha
            is the base classifier's, and the certificate is that of `SmoothedClassifier.certify`.
        indices : int array of shape (n,), default=0, 1, ...
            Each image's index in its data set, which names its noise streams.

        Raises
        ------
        ValueError
            One line, for arguments out of range, a router with another number of logits than there are levels, and
            images that either model does not take.
        """
        pixels = _validate_inputs.check_images(images)
        names = _validate.check_indices(indices, len(pixels))
        n0, n = _validate.check_count("n0", n0), _validate.check_count("n", n)
        alpha_base, alpha_router = self.alphas(alpha, router_share)
        drawn = self._router_samples(n_router)
        identity = self.begin(pixels)

        plan = Plan(n0, "expected-radius", alpha_base, n)
        grid = np.tile(self.sigmas, (len(pixels), 1))
        selecting = self.route(pixels, names, n=n0, stage="select")
        found, _ = self._classifier.select_votes(pixels, names, grid, plan=plan)
        anchor, every = selecting.argmax(axis=1), np.arange(len(pixels))
        classes = np.repeat(found.classes[every, anchor][:, None], len(self.sigmas), axis=1)
        promised = np.where(found.classes == classes, found.expected_radius, 0.0)
        imagined = self._clearance(imagined_votes(selecting, drawn), anchor, alpha_router)
        sampled = _worth_sampling(promised, imagined, anchor)

        ladder = as_ladder(n)
        tally = self._classifier.estimate_votes(
            pixels, names, grid, wanted=sampled, classes=classes, share=found.share, ladder=ladder, alpha=alpha_base
        )
        bounds = counted_bounds(tally.counted(classes), alpha_base, found.share, ladder.weights)
        level_radius = certified_radius(grid, *bounds)
        clearance = self._clearance(self.route(pixels, names, n=drawn, stage="estimate"), anchor, alpha_router)
        radius = agreeing_radius(level_radius, clearance, anchor)
        passes = 0 if self._router is None else n0 + drawn
        return RoutedCertificates(
            predict=np.where(radius > 0, classes[:, 0], ABSTAIN),
            level=anchor,
            radius=radius,
            router_radius=clearance.min(axis=1),
            base_radius=level_radius[every, anchor],
            level_radius=level_radius,
            clearance=clearance,
            sampled=sampled,
            samples=passes + n0 * len(self.sigmas) + n * sampled.sum(axis=1),
            alpha=_validate.check_alpha(alpha),
            identity=identity,
        )

    def predict(
        self,
        images: ArrayLike | Tensor,
        *,
        n: int,
        n_router: int | None = None,
        alpha: float = 0.001,
        router_share: float | None = None,
        indices: ArrayLike | None = None,
    ) -> RoutedPredictions:
        """Return G(x), or abstain.

        With probability at least 1 - alpha, per image: the answer is -1 or G(x).

        Every level is kept that an exact test, at its part alpha_r / (K - 1) of the router's alpha_r, does not find
        less likely than the most voted one. Each level that is kept votes, and answers as `SmoothedClassifier.predict`
        does at alpha - alpha_r. G answers where all answers are one class. For S(x) is kept, with probability at least
        1 - alpha_r, and then only the answer of this one level has to be right: no division by the number of levels.

        Parameters
        ----------
        images, alpha, router_share, indices
            As in `certify`.
        n : int
            Samples per image at each level that is kept, from streams that neither selection nor estimation uses.
        n_router : int, optional
            Samples of the router per image, likewise. None where there is no router.
        """
        pixels = _validate_inputs.check_images(images)
        names = _validate.check_indices(indices, len(pixels))
        n = _validate.check_count("n", n)
        alpha_base, alpha_router = self.alphas(alpha, router_share)
        drawn = self._router_samples(n_router)
        if self._router is not None:
            shared_alpha(alpha_router, len(self.sigmas) - 1)  # refused before the work
        identity = self.begin(pixels)

        votes = self.route(pixels, names, n=drawn, stage="predict")
        kept = levels_not_rejected(votes, alpha_router) if self._router is not None else votes > 0
        grid = np.tile(self.sigmas, (len(pixels), 1))
        counted = self._classifier.count_votes(pixels, names, grid, wanted=kept, start=0, stop=n, stage="predict")
        answers = np.where(kept, _answers(counted, alpha_base), ABSTAIN)
        level = votes.argmax(axis=1)
        first = answers[np.arange(len(pixels)), level]
        agreed = ((answers == first[:, None]) | ~kept).all(axis=1)
        return RoutedPredictions(
            predict=np.where(agreed, first, ABSTAIN),
            level=level,
            kept=kept,
            answers=answers,
            count=counted[np.arange(len(pixels)), level].max(axis=1),
            alpha=_validate.check_alpha(alpha),
            identity=identity,
        )

    def alphas(self, alpha: float, share: float | None = None) -> tuple[float, float]:
        """Return the base classifier's part of alpha and the router's; together they do not exceed it.

        :meta private:
        """
        alpha = _validate.check_alpha(alpha)
        if self._router is None:
            if share is not None:
                raise ValueError(f"router_share = {share}: there is no router; leave it out")
            return alpha, 0.0
        part = ROUTER_SHARE if share is None else _validate.check_real("router_share", share)
        if not 0 < part < 1:
            raise ValueError(f"router_share = {part}: must lie strictly between 0 and 1, such as 0.5")
        base, router = weighted_alpha(alpha, (1 - part, part))
        return base, router

    def _router_samples(self, n_router: int | None) -> int:
        """Return how many samples the router gets: of one level none, which is written as one vote."""
        if self._router is not None:
            return _validate.check_count("n_router", n_router)
        if n_router is not None:
            raise ValueError(f"n_router = {n_router}: there is no router; leave it out")
        return 1

    def begin(self, pixels: Float32[Tensor, "n c h w"]) -> RoutedIdentity:
        """See that both models may vote on these images, and return what they are now.

        :meta private:
        """
        base = self._classifier.begin(pixels)
        return self._named(base, None if self._router is None else self._router.begin(pixels))

    def _named(self, base: Identity, router: Identity | None) -> RoutedIdentity:
        return RoutedIdentity(base, router, tuple(self.sigmas.tolist()), self.router_sigma)

    def route(
        self, pixels: Float32[Tensor, "n c h w"], names: Int64[np.ndarray, " n"], *, n: int, stage: str
    ) -> Int64[np.ndarray, "n K"]:
        """Count how many of the samples 0 to n - 1 of a stage name which level, for checked images.

        :meta private:
        """
        if self._router is None:
            return np.full((len(pixels), 1), n)
        sigma = np.full((len(pixels), 1), self.router_sigma)
        wanted = np.ones((len(pixels), 1), dtype=bool)
        with _naming_the_router(len(self.sigmas)):
            votes = self._router.count_votes(pixels, names, sigma, wanted=wanted, start=0, stop=n, stage=stage)
        return votes[:, 0]

    def _clearance(
        self, votes: Int64[np.ndarray, "n K"], anchor: Int64[np.ndarray, " n"], alpha: float
    ) -> Float64[np.ndarray, "n K"]:
        if self.router_sigma is None:
            return np.full(votes.shape, np.inf)
        return router_clearance(votes, anchor, self.router_sigma, alpha)


def router_seed(seed: int) -> int:
    """Return the seed of a router's noise, a hash of the base classifier's: the two never share a sample."""
    digest = hashlib.sha256(f"router {seed}".encode()).digest()
    return int.from_bytes(digest[:16], "big")


def _smoothed_router(classifier: SmoothedClassifier, router: nn.Module, levels: int) -> SmoothedClassifier:
    """Smooth a router as the base classifier is smoothed, with noise of its own."""
    base = classifier.identity
    with _naming_the_router(levels):
        return SmoothedClassifier(
            router,
            levels,
            sampler=base.sampler,
            stream=base.stream,
            precision=base.precision,
            threads=classifier.threads,
            seed=router_seed(base.seed),
            device=classifier.device,
        )


@contextmanager
def _naming_the_router(levels: int) -> Iterator[None]:
    """Say of which model an error is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"router, one logit for each of {levels} levels: {error}") from error


def _worth_sampling(
    promised: Float64[np.ndarray, "n K"], clearance: Float64[np.ndarray, "n K"], anchor: Int64[np.ndarray, " n"]
) -> Bool[np.ndarray, "n K"]:
    """Return the anchor, and levels that could otherwise decide within the radius that selection samples promise."""
    rho = agreeing_radius(promised, clearance, anchor)
    worth = clearance < rho[:, None]
    worth[np.arange(len(anchor)), anchor] = True
    return worth


def _answers(votes: Int64[np.ndarray, "n K classes"], alpha: float) -> Int64[np.ndarray, "n K"]:
    """Return the most voted class at each level, or -1 where the test of the two most voted ones cannot tell."""
    ordered = np.sort(votes, axis=2)
    return np.where(top_two_p_value(ordered[..., -1], ordered[..., -2]) <= alpha, votes.argmax(axis=2), ABSTAIN)
