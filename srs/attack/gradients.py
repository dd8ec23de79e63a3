"""What the attack knows of the base classifier: gradients of the smoothed loss, and votes of its own noise."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor, nn

from smoothing import RoutedClassifier, SmoothedClassifier
from smoothing.forward import logits_of, one_line
from srs.attack.target import Target
from training import SmoothAdv

#: How often levels are looked up anew, noise drawn anew and steps halved on the way.
ROUNDS = 4

#: Noise samples that say which level a router names.
_NAMING = 128

#: Noisy images of a pass.
_PASS = 4096

#: Largest gap between the two largest logits, in the median: where softmax is flat in float32, logits are divided.
_GAP = 10.0

Levels = Callable[[Float32[np.ndarray, "m c h w"]], Float64[np.ndarray, " m"]]


class White:
    """An adversary's view of the classifier: white-box, with noise of its own, which judges nothing.

    Parameters
    ----------
    classifier : SmoothedClassifier
        Whose base classifiers are asked.
    router : RoutedClassifier, optional
        Names levels outside every region.
    target : Target
        Whose map says with which level G votes.
    samples, steps : int
        Noise samples of a gradient; steps of a walk.
    seed : int
        Of the noise.
    """

    def __init__(
        self,
        classifier: SmoothedClassifier,
        target: Target,
        *,
        samples: int,
        steps: int,
        seed: int,
        router: RoutedClassifier | None = None,
    ) -> None:
        self._classifier, self._router, self.target, self._samples = classifier, router, target, samples
        self._walks = [
            SmoothAdv(1.0, -(-steps // ROUNDS), step_size=2.0 / -(-steps // ROUNDS) / 2**k) for k in range(ROUNDS)
        ]
        self._noise = torch.Generator(classifier.device).manual_seed(seed)
        self._softened: dict[int, _Softened] = {}

    @property
    def has_router(self) -> bool:
        """Whether a network names levels outside every region."""
        return self._router is not None

    def levels(self, points: Float32[np.ndarray, "m c h w"]) -> Float64[np.ndarray, " m"]:
        """Return the noise level with which G votes at points, NaN where it has no answer.

        That of a router is the one that it names most often under this attack's own noise, where it names one.
        """
        sigma = self.target.table.locate(points).sigma
        lost = np.flatnonzero(np.isnan(sigma))
        if isinstance(self.target.outside, float):
            sigma[lost] = self.target.outside
        elif self._router is not None and lost.size:
            sigma[lost] = self._router.sigmas[self.named(points[lost])]
        return sigma

    def named(self, points: Float32[np.ndarray, "m c h w"]) -> Int64[np.ndarray, " m"]:
        """Return the level that the router names most often at points, by its number."""
        smoothed, sigma = self._smoothed_router()

        def votes(base: nn.Module, some: np.ndarray, noise: Tensor) -> Tensor:
            return self._shares(base, points[some], noise, smoothed.num_classes).argmax(dim=1)

        found = self._in_parts(_NAMING, np.full(len(points), sigma), votes, (len(points),), smoothed)
        return found.astype(np.int64)

    def walk_to_another_level(
        self, centre: Float32[np.ndarray, "m c h w"], radius: Float64[np.ndarray, " m"]
    ) -> Float32[np.ndarray, "m c h w"]:
        """Walk inside balls to where the router least names the levels that it names at their centres."""
        smoothed, sigma = self._smoothed_router()
        points, named, levels = centre, self.named(centre), np.full(len(centre), sigma)
        for walk in self._walks:
            points = self._walked(walk, points, centre, radius, named, levels, smoothed)
        return points

    def _smoothed_router(self) -> tuple[SmoothedClassifier, float]:
        assert self._router is not None
        assert self._router.router is not None
        assert self._router.router_sigma is not None
        return self._router.router, self._router.router_sigma

    def walk(
        self,
        begin: Float32[np.ndarray, "m c h w"],
        centre: Float32[np.ndarray, "m c h w"],
        radius: Float64[np.ndarray, " m"],
        labels: Int64[np.ndarray, " m"],
        levels: Levels,
        back: Callable[[Float32[np.ndarray, "m c h w"]], Float32[np.ndarray, "m c h w"]] | None = None,
    ) -> Float32[np.ndarray, "m c h w"]:
        """Walk to where the smoothed classifier is least for the labels, inside balls around the centres.

        Parameters
        ----------
        begin, centre, radius, labels
            Points, their balls, and the classes to leave.
        levels : callable
            With which noise level to vote at points; asked again on the way, so walks cross borders.
        back : callable, optional
            Brings points back to where a walk is to stay, between rounds.
        """
        points = begin
        for walk in self._walks:
            points = self._walked(walk, points, centre, radius, labels, levels(points), self._classifier)
            if back is not None:
                points = back(points)
        return points

    def _walked(
        self,
        walk: SmoothAdv,
        begin: Float32[np.ndarray, "m c h w"],
        centre: Float32[np.ndarray, "m c h w"],
        radius: Float64[np.ndarray, " m"],
        labels: Int64[np.ndarray, " m"],
        sigma: Float64[np.ndarray, " m"],
        smoothed: SmoothedClassifier,
    ) -> Float32[np.ndarray, "m c h w"]:
        """Walk with these levels."""

        def work(base: nn.Module, some: np.ndarray, noise: Tensor) -> Tensor:
            return walk(
                base,
                self._tensor(centre[some]),
                self._tensor(labels[some]),
                noise=noise,
                begin=self._tensor(begin[some]),
                scale=self._tensor(radius[some].astype(np.float32)),
            )

        return self._in_parts(self._samples, sigma, work, begin.shape, smoothed).astype(np.float32)

    def margins(
        self, points: Float32[np.ndarray, "m c h w"], labels: Int64[np.ndarray, " m"], samples: int
    ) -> Float64[np.ndarray, " m"]:
        """Return the labels' share of G's votes less that of the best other class; -inf where G has no answer."""
        sigma = self.levels(points)
        found = np.full(len(points), -np.inf)
        held = np.flatnonzero(~np.isnan(sigma))

        def gap(base: nn.Module, some: np.ndarray, noise: Tensor) -> Tensor:
            shares = self._shares(base, points[held[some]], noise, self._classifier.num_classes)
            own = self._tensor(labels[held[some]])[:, None]
            return (shares.gather(1, own) - shares.scatter(1, own, -1.0).amax(1, keepdim=True))[:, 0]

        if held.size:
            found[held] = self._in_parts(samples, sigma[held], gap, (held.size,), self._classifier)
        return found

    def _shares(
        self, base: nn.Module, points: Float32[np.ndarray, "m c h w"], noise: Tensor, classes: int
    ) -> Float[Tensor, "m classes"]:
        """Return the share of the votes of each class."""
        noisy = (self._tensor(points) + noise).flatten(0, 1)
        with torch.no_grad():
            votes = nn.functional.one_hot(logits_of(base(noisy)).argmax(1), classes)
        return votes.reshape(len(noise), len(points), -1).float().mean(dim=0)

    def _in_parts(
        self,
        samples: int,
        sigma: Float64[np.ndarray, " m"],
        work: Callable[[nn.Module, np.ndarray, Tensor], Tensor],
        shape: tuple[int, ...],
        smoothed: SmoothedClassifier,
    ) -> np.ndarray:
        """Do the work for points with one base classifier after the other, part by part."""
        found = np.zeros(shape)
        c, h, w = self.target.centre.shape[1:]
        for base, rows in self._by_base(sigma, smoothed):
            size = max(1, _PASS // samples)
            for some in (rows[first : first + size] for first in range(0, len(rows), size)):
                noise = torch.empty((samples, len(some), c, h, w), device=self._classifier.device)
                noise.normal_(generator=self._noise)
                noise *= self._tensor(sigma[some].astype(np.float32))[:, None, None, None]
                with one_line("the attack needs gradients of the base classifier"):
                    found[some] = work(base, some, noise).detach().cpu().numpy()
        return found

    def _by_base(
        self, sigma: Float64[np.ndarray, " m"], smoothed: SmoothedClassifier
    ) -> Iterator[tuple[nn.Module, Int64[np.ndarray, " rows"]]]:
        bases = {level: self._soft(smoothed, level) for level in np.unique(sigma).tolist()}
        for base in dict.fromkeys(bases.values()):
            yield base, np.flatnonzero([bases[level] is base for level in sigma.tolist()])

    def _soft(self, smoothed: SmoothedClassifier, level: float) -> "_Softened":
        """Return the base classifier of a level with logits that softmax tells apart."""
        base = smoothed.base(level)
        if id(base) not in self._softened:
            some = self._tensor(self.target.centre[:64])
            with torch.no_grad(), one_line("the base classifier cannot be run"):
                noise = level * torch.empty_like(some).normal_(generator=self._noise)
                first, second = logits_of(base(some + noise)).float().topk(2, dim=1).values.T
            gap = float((first - second).median())
            self._softened[id(base)] = _Softened(base, max(1.0, gap / _GAP))
        return self._softened[id(base)]

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._classifier.device)


class _Softened(nn.Module):
    """Logits divided by a number, which changes no vote."""

    def __init__(self, base: nn.Module, divisor: float) -> None:
        super().__init__()
        self.base, self._divisor = base, divisor

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return logits_of(self.base(images)) / self._divisor
