"""G(x) of Eq. 9: an input is classified with the noise level of the region that holds it."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64

from regions import Location, RegionMap
from smoothing import (
    ABSTAIN,
    Certificates,
    Predictions,
    RoutedClassifier,
    RoutedIdentity,
    SmoothedClassifier,
    agreeing_radius,
    make_sampler,
)
from smoothing._validate_inputs import check_images
from smoothing.agreement import outside_clearance
from smoothing.confidence import shared_alpha
from smoothing.router_bounds import router_clearance
from srs.evaluation.rules import less
from srs.limits import OUTSIDE, named_level
from srs.predict.numbers import Numbers

#: Regions whose distances to inputs are computed together.
_TOGETHER = 256


@dataclass(frozen=True, eq=False)
class Answers:
    """What G says about m inputs.

    Attributes
    ----------
    predict : int array of shape (m,)
        The class, or -1: abstained.
    region : int array of shape (m,)
        The region that holds the input, -1 where none does.
    sigma : array of shape (m,)
        Noise level of the vote; NaN where there was none.
    margin : array of shape (m,)
        l2 distance to the region's boundary, rounded down; 0 outside.
    count, n : int arrays of shape (m,)
        Votes for the class that has most of them (of a certificate: for the class to be certified), out of so many.
    R : array of shape (m,)
        Radius that the vote certifies at `sigma` (Eq. 2); 0 where nothing was certified.
    radius : array of shape (m,)
        Certified l2 radius of G: min(R, margin), or less where an overlapping region of another sigma decides nearer
        by, less the sampler's lookup error; 0 where nothing was certified. With a level outside every region: up to
        where no level decides that does not agree, at most R.
    cut : bool array of shape (m,), or None
        Where the radius ends because another sigma decides there; None where nothing was looked up.
    """

    predict: Int64[np.ndarray, " m"]
    region: Int64[np.ndarray, " m"]
    sigma: Float64[np.ndarray, " m"]
    margin: Float64[np.ndarray, " m"]
    count: Int64[np.ndarray, " m"]
    n: Int64[np.ndarray, " m"]
    R: Float64[np.ndarray, " m"]
    radius: Float64[np.ndarray, " m"]
    cut: Bool[np.ndarray, " m"] | None = None


@dataclass(frozen=True, eq=False)
class _Outside:
    """What decides outside every region: levels, that at each of m inputs, how far others are, and alpha left."""

    levels: Float64[np.ndarray, " K"]
    sigma: Float64[np.ndarray, " m"]
    clearance: Float64[np.ndarray, "m K"]
    alpha: float


class Predictor:
    """The classifier G (Eq. 9) over a frozen map of regions.

    Parameters
    ----------
    classifier : SmoothedClassifier
        What was certified, but for its seed: that must be another one than that of the run which made the regions. A
        secret seed, where an adversary may choose the images: who knows the noise can search for images that it
        misleads.
    table : RegionMap
        Its centres are flattened images.
    sigmas : sequence of float, optional
        The levels that inputs outside every region may get. Default: those of the table.
    outside : {"abstain", "smallest-sigma", "nearest-region", "best-sigma", "sigma=S"}, default="abstain"
        What to do with an input that no region holds: no answer; the vote at the smallest level; at the level of the
        region whose boundary is nearest; at the level that certifies the largest radius with n0 samples (Eq. 7). With
        "sigma=0.25", say, G has this level outside every region, and is certified there too.
    alpha : float, default=0.001
        Failure probability of every answer.
    router : RoutedClassifier, optional
        The classifier with a router in front: outside every region G has the level that this names, and is certified
        there too. `outside` is then left at its default.

    Notes
    -----
    Every input gets the next number, which names its noise within the seed: numbers are never used twice, so no two
    inputs share noise, nor does an input that is asked about again, whichever thread asks. Answers depend on the seed
    and on what was asked before, and on nothing else. Threads wait for each other: one call keeps all workers busy. A
    process that was forked afterwards is refused an answer, since it would draw the same noise, and so is everybody
    once the classifier is not the one that it was at first.
    """

    def __init__(
        self,
        classifier: SmoothedClassifier,
        table: RegionMap,
        *,
        sigmas: Sequence[float] = (),
        outside: str = "abstain",
        alpha: float = 0.001,
        router: RoutedClassifier | None = None,
    ) -> None:
        self._around, self.router = named_level(outside), router
        self._routed = None if router is None else router.identity
        if outside not in OUTSIDE and self._around is None:
            raise ValueError(f"outside = {outside!r}: choose {', '.join(OUTSIDE)}, or a level as in sigma=0.25")
        self.classifier, self.table, self.outside = classifier, table, outside
        self.alpha = shared_alpha(alpha, 1)
        self.sigmas = np.unique([*sigmas] if len(sigmas) else table.sigma[table.radii > 0]).astype(np.float64)
        if outside != "abstain" and self._around is None and not self.sigmas.size:
            raise ValueError(f"outside = {outside!r}: the map has no region, so pass the noise levels as sigmas")
        self._numbers, self._turn, self._identity = Numbers(), threading.Lock(), classifier.identity

    def __call__(self, images: Float32[np.ndarray, "m c h w"], *, n: int = 1000, n0: int = 1000) -> Answers:
        """Answer by a vote of n samples: with probability at least 1 - alpha, per image, it is -1 or G(x).

        Parameters
        ----------
        images : float32 array of shape (m, C, H, W)
            Pixels in [0, 1].
        n : int, default=1000
            Votes per image.
        n0 : int, default=1000
            Samples per level that choose it, where `outside` is "best-sigma".
        """
        where, sigma, names = self._levels(images, n0)
        answered = np.flatnonzero(~np.isnan(sigma))
        answers = _nothing(where, sigma)
        routed = np.flatnonzero(np.isnan(sigma))
        if self.router is not None and routed.size:
            with self.voting():
                named = self.router.predict(images[routed], n=n, n_router=n, alpha=self.alpha, indices=names[routed])
            self._check_same_router(named.identity)
            answers.predict[routed], answers.sigma[routed] = named.predict, self.router.sigmas[named.level]
            answers.count[routed], answers.n[routed] = named.count, n
        if answered.size:
            with self.voting() as classifier:
                found = classifier.predict(
                    images[answered], sigma[answered], n=n, alpha=self.alpha, indices=names[answered]
                )
            self.check_same(found)
            answers.predict[answered] = found.predict
            answers.count[answered] = found.votes.max(axis=1)
            answers.n[answered] = n
        return answers

    def certify(self, images: Float32[np.ndarray, "m c h w"], *, n: int = 10_000, n0: int = 1000) -> Answers:
        """Certify G at new inputs: with probability at least 1 - alpha, per image, G is `predict` within `radius`.

        G uses one sigma in the whole ball (Eq. 2, Eq. 6): it lies in the region, and ends where an overlapping region
        of another sigma decides, as regions of one class do with the overlap mode "class". So the statement rests on
        fresh samples alone and never on the map's certificates, whatever alpha they were made at.
        Inputs outside every region are answered as by a call, with a radius of 0.

        Where G has a level outside every region, or a router, levels that agree do no harm
        (`smoothing.agreeing_radius`): the ball goes on where another level decides as far as that certifies the same
        class, by samples of its own.

        Parameters
        ----------
        images : float32 array of shape (m, C, H, W)
            Pixels in [0, 1].
        n : int, default=10_000
            Estimation samples per image, fresh; of the router, if there is one, as many.
        n0 : int, default=1000
            Selection samples per image, which guess the class.
        """
        where, sigma, names = self._levels(images, n0)
        alpha, outside = self.alpha, self._outside_of(images, names, n=n, n0=n0)
        if outside is not None:
            sigma, alpha = np.where(np.isnan(sigma), outside.sigma, sigma), outside.alpha
        answered = np.flatnonzero(~np.isnan(sigma))
        answers = _nothing(where, sigma)
        if answered.size:
            level = sigma[answered]
            with self.voting() as classifier:
                found = classifier.certify(images[answered], level, n0=n0, n=n, alpha=alpha, indices=names[answered])
            self.check_same(found)
            answers.predict[answered] = found.predict
            answers.count[answered] = found.counts
            answers.n[answered] = n
            answers.R[answered] = found.radius
            lost = make_sampler(found.identity.sampler).lookup_error(self.table.centres.shape[1])
            if outside is not None:
                same = self._agreeing(images, sigma, names, found, outside, n=n, n0=n0)
                answers.radius[:] = less(same, lost)
                return replace(answers, cut=same < answers.R)
            constant = self.table.same_sigma(images, where)  # 0 outside every region
            answers.radius[answered] = less(np.minimum(found.radius, constant[answered]), lost)
            nearer = constant < np.minimum(answers.R, where.margin)
            return replace(answers, cut=nearer)
        return answers

    def _outside_of(
        self, images: Float32[np.ndarray, "m c h w"], names: Int64[np.ndarray, " m"], *, n: int, n0: int
    ) -> _Outside | None:
        """Return what decides outside every region, and up to where; None where nothing is certified there.

        Of a router: its own selection samples say which level it names at an image, and fresh ones up to where no
        other. The base classifier is left the rest of alpha.
        """
        if self.router is not None:
            alpha, router_alpha = self.router.alphas(self.alpha)
            pixels = torch.from_numpy(images)
            with self.voting():
                self._check_same_router(self.router.begin(pixels))
                named = self.router.route(pixels, names, n=n0, stage="select").argmax(axis=1)
                votes = self.router.route(pixels, names, n=n, stage="estimate")
            assert self.router.router_sigma is not None  # who has a router has its noise level
            clearance = router_clearance(votes, named, self.router.router_sigma, router_alpha)
            clearance[np.arange(len(named)), named] = 0.0
            return _Outside(self.router.sigmas, self.router.sigmas[named], clearance, alpha)
        if self._around is None:
            return None
        levels = np.unique([*self.table.sigma[self.table.radii > 0], self._around])
        clearance = np.full((len(images), len(levels)), np.inf)
        clearance[:, levels == self._around] = 0.0
        return _Outside(levels, np.full(len(images), self._around), clearance, self.alpha)

    def _agreeing(
        self,
        images: Float32[np.ndarray, "m c h w"],
        sigma: Float64[np.ndarray, " m"],
        names: Int64[np.ndarray, " m"],
        found: Certificates,
        outside: _Outside,
        *,
        n: int,
        n0: int,
    ) -> Float64[np.ndarray, " m"]:
        """Return up to where levels agree around inputs whose own levels have these certificates.

        Levels that are farther away than an input's own radius are not asked: they could not change the minimum.
        """
        levels = outside.levels
        around = self.table.surroundings(images, levels, found.radius)
        clearance = outside_clearance(around.clearance, around.exit, outside.clearance)
        radius = np.zeros((len(images), len(levels)))
        own = np.searchsorted(levels, sigma)
        radius[np.arange(len(images)), own] = found.radius
        for k, level in enumerate(levels.tolist()):
            asked = np.flatnonzero((own != k) & (clearance[:, k] < found.radius))
            if asked.size:
                with self.voting() as classifier:
                    other = classifier.certify(
                        images[asked], level, n0=n0, n=n, alpha=outside.alpha, indices=names[asked]
                    )
                self.check_same(other)
                radius[asked, k] = np.where(other.predict == found.predict[asked], other.radius, 0.0)
        return agreeing_radius(radius, clearance, own)

    def numbers(self, m: int) -> Int64[np.ndarray, " m"]:
        """Take the names of the next m images' noise, which nobody else gets.

        :meta private:
        """
        return self._numbers.take(m)

    @contextmanager
    def voting(self) -> Iterator[SmoothedClassifier]:
        """Wait for this thread's turn with the classifier.

        :meta private:
        """
        with self._turn:
            yield self.classifier

    def check_same(self, found: Predictions | Certificates) -> None:
        """Raise `RuntimeError` where another classifier voted than the one that was handed over.

        :meta private:
        """
        if found.identity != self._identity:
            raise RuntimeError("the base classifier was changed after it was loaded: load it again")

    def _check_same_router(self, found: RoutedIdentity) -> None:
        if found != self._routed:
            raise RuntimeError("a network was changed after it was loaded: load the run again")

    def _levels(
        self, images: Float32[np.ndarray, "m c h w"], n0: int
    ) -> tuple[Location[np.ndarray, np.ndarray], Float64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
        """Look the inputs up, settle the level of those outside, and give everyone a number."""
        check_images(images)  # before the lookup: outside every region nobody else would look at them
        where = self.table.locate(images)
        names = self.numbers(len(images))
        sigma, lost = where.sigma.copy(), np.flatnonzero(where.region < 0)
        if self._around is not None:
            sigma[lost] = self._around
        elif lost.size and self.outside == "smallest-sigma":
            sigma[lost] = self.sigmas[0]
        elif lost.size and self.outside == "nearest-region":
            sigma[lost] = self._nearest(images[lost].reshape(lost.size, -1))
        elif lost.size and self.outside == "best-sigma":
            with self.voting() as classifier:
                sigma[lost] = classifier.select_sigma(images[lost], self.sigmas, n0=n0, indices=names[lost]).sigma
        return where, sigma, names

    def _nearest(self, points: Float32[np.ndarray, "m d"]) -> Float64[np.ndarray, " m"]:
        filled = np.flatnonzero(self.table.radii > 0)
        if not filled.size:
            raise ValueError("outside = 'nearest-region': the map has no region; choose another rule")
        table, gaps = self.table, np.empty((len(points), filled.size))
        for start in range(0, filled.size, _TOGETHER):
            some = filled[start : start + _TOGETHER]
            centres, radii = table.centres[some] / table.divisor, table.radii[some]
            gaps[:, start : start + _TOGETHER] = [np.linalg.norm(centres - point, axis=1) - radii for point in points]
        return np.asarray(table.sigma[filled[gaps.argmin(axis=1)]])


def _nothing(where: Location[np.ndarray, np.ndarray], sigma: Float64[np.ndarray, " m"]) -> Answers:
    """Return answers before anyone voted."""
    m = len(sigma)
    count, n = np.zeros(m, np.int64), np.zeros(m, np.int64)
    return Answers(np.full(m, ABSTAIN), where.region, sigma, where.margin, count, n, np.zeros(m), np.zeros(m))
