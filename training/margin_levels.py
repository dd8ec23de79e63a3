"""Each training image's noise level (Eq. 5) from a few passes: margins of its label, and one model of all images.

A vote tells whether the label's margin is positive; the margin itself tells how far it is from changing sides. So a few
margins at different levels, with what other images' curves look like, say about as much as hundreds of votes.
"""

import itertools
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from scipy import stats

from smoothing import SmoothedClassifier, _validate
from smoothing.arithmetic import arithmetic
from smoothing.confidence import certified_radius, lower_confidence_bound
from smoothing.forward import evaluating, run
from smoothing.identity import own_passes
from smoothing.machine import current
from smoothing.progress import Progress
from training.chunks import FIRST_INDEX, in_chunks
from training.data import Images
from training.margin_curves import DEGREE, ImageCurves, MarginCurves

#: Rounds of passes: the first spread over all levels, the others where the level of the largest radius may lie.
ROUNDS = 3

#: Forward passes of an image unless told otherwise; and the fewest, two a round.
PASSES, FEWEST_PASSES = 30, 2 * ROUNDS

#: Noisy images in a forward pass, at most; those of one image stay together.
BATCH = 256

#: The most forward passes of an image: a round of them is one batch.
MOST_PASSES = ROUNDS * BATCH

#: Images that the model of all images is fitted to, at most; and images whose curves are held at once.
FIT_IMAGES = ROWS = 10_000

#: An image whose most likely curve has a radius below this part of the level, at every level: its label wins nowhere.
NOTHING = 0.01

#: Marks the noise of these passes: a stage beside those of `smoothing`, whose numbers are small.
_MARK = 2**16

#: Where the expected radius is tabulated, as a function of eta = Phi^-1(probability of the label).
_ETAS = np.linspace(-2.0, 8.0, 501)
_VOTES = (np.arange(33) + 0.5) / 33
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(7)


@dataclass(frozen=True, eq=False)
class MarginChoice:
    """Each image's level, and what it cost.

    Attributes
    ----------
    sigma : array of shape (n,)
        The chosen levels.
    passes : int
        Forward passes, of all images together.
    """

    sigma: Float64[np.ndarray, " n"]
    passes: int


def choose_levels_by_margins(
    classifier: SmoothedClassifier,
    images: Images,
    labels: Int64[np.ndarray, " n"],
    *,
    sigmas: Float64[np.ndarray, " k"],
    passes: int = PASSES,
    n0: int = 500,
    alpha: float = 0.001,
    partial: str | os.PathLike[str] | None = None,
    progress: bool | Progress = False,
) -> MarginChoice:
    """Return the level of the grid where each image's label is expected to have the largest certified radius (Eq. 5).

    What `choose_levels` finds by n0 votes at every level is estimated from a few passes an image. Looks at labels: for
    training only. No radius here is certified: margins are taken for normal under noise (`MarginCurves`).

    A third of the passes is spread evenly over the levels. Each of the others goes to the level that is best for a
    curve drawn from the image's posterior so far (Thompson, 1933), so most go near the level that will be chosen. At
    the end each image gets the level with the largest posterior mean of the radius that n0 votes would certify; where
    the image's mean curve has next to no radius at any level, the smallest.

    Parameters
    ----------
    classifier : SmoothedClassifier
        The pretrained model: one for all levels.
    images, labels
        Training images and their classes. The result for one image depends on all of them.
    sigmas : array of shape (k,)
        The grid, increasing.
    passes : int, default=30
        Forward passes of each image, at least 6; where there is one level, none is needed.
    n0, alpha
        For how many votes, and at which failure probability, radii are expected; no such votes are drawn.
    partial : path, optional
        As in `in_chunks`: a file for each round, with the number of the round added to the name.
    progress : bool or callable, default=False
        Show a bar on stderr, or call progress(stage, done, total) from time to time.

    Raises
    ------
    ValueError
        For less than 6 passes or more than 768, and where the model returns no finite logits.
    """
    grid, passes = _validate.check_grid(sigmas), _validate.check_count("passes", passes, least=FEWEST_PASSES)
    if passes > MOST_PASSES:
        raise ValueError(f"passes = {passes}: must be at most {MOST_PASSES}; votes on the grid serve then")
    n0, alpha = _validate.check_count("n0", n0), _validate.check_alpha(alpha)
    n, seed = len(labels), classifier.identity.seed
    if len(grid) == 1 or not n:
        return MarginChoice(np.full(n, grid[0]), 0)
    radii = _ExpectedRadii(grid, n0, alpha)
    levels, margins = np.empty((n, 0), dtype=np.int64), np.empty((n, 0))
    cuts = [passes * part // ROUNDS for part in range(ROUNDS + 1)]
    for number, (start, stop) in enumerate(itertools.pairwise(cuts)):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_MARK, number)))
        asked = _proposed(radii, levels, margins, stop - start, rng) if start else _spread(n, len(grid), stop, rng)

        def compute(
            rows: Int64[np.ndarray, " b"], asked: Int64[np.ndarray, "n q"] = asked, start: int = start
        ) -> Float64[np.ndarray, "b width"]:
            found = _margins(classifier, images[rows], labels[rows], grid[asked[rows]], FIRST_INDEX + rows, start)
            return np.hstack([asked[rows], found])

        table = in_chunks(
            compute,
            n,
            2 * (stop - start),
            title=f"choose sigma, round {number + 1} of {ROUNDS}",
            partial=None if partial is None else f"{os.fspath(partial)}.{number + 1}",
            progress=progress,
        )
        drawn, found = np.hsplit(table, 2)
        levels, margins = np.hstack([levels, drawn.astype(np.int64)]), np.hstack([margins, found])
    best = np.concatenate([radii.best(*part) for part in _curves(radii, levels, margins)])

    def own(rows: Int64[np.ndarray, " b"]) -> Float64[np.ndarray, "b 1"]:
        return grid[best[rows], None]

    # Processes on unlike machines may round differently: each decides for its own images, and all take that.
    return MarginChoice(in_chunks(own, n, 1, title="choose sigma")[:, 0], levels.size)


class _ExpectedRadii:
    """Radii that n0 votes are expected to certify at the levels of a grid (Eq. 5)."""

    def __init__(self, grid: Float64[np.ndarray, " k"], n0: int, alpha: float) -> None:
        self.grid = grid
        self.x = 2 * (grid - grid[0]) / (grid[-1] - grid[0]) - 1
        counts = np.asarray(stats.binom.ppf(_VOTES, n0, stats.norm.cdf(_ETAS)[:, None]), dtype=np.int64)
        p_lower = lower_confidence_bound(counts, n0, alpha)
        self._table = certified_radius(1.0, p_lower).mean(axis=1)  # per unit of sigma

    def at(self, eta: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, "n k"]:
        """Return the radius where the label has probability Phi(eta)."""
        return np.asarray(self.grid * np.interp(eta, _ETAS, self._table))

    def best(self, curves: MarginCurves, images: ImageCurves) -> Int64[np.ndarray, " n"]:
        """Return the level with the largest posterior mean; 0 where the label wins nowhere."""
        eta, deviation = curves.quantiles(images, self.x)
        parts = [w * self.at(eta + h * deviation) for h, w in zip(_NODES, _WEIGHTS, strict=True)]
        mean = np.sum(parts, axis=0) / _WEIGHTS.sum()
        wins = (self.at(eta) > NOTHING * self.grid).any(axis=1)
        return np.where(wins, mean.argmax(axis=1), 0)


def _curves(
    radii: _ExpectedRadii, levels: Int64[np.ndarray, "n j"], margins: Float64[np.ndarray, "n j"]
) -> Iterator[tuple[MarginCurves, ImageCurves]]:
    """Give the model of all images, and the curves of `ROWS` images after the others."""
    n = len(levels)
    x = radii.x[levels]
    some = np.unique(np.linspace(0, n - 1, min(n, FIT_IMAGES)).astype(np.int64))
    shared = MarginCurves.fit(x[some], margins[some], min(DEGREE, len(radii.grid) - 1))
    for first in range(0, n, ROWS):
        part = slice(first, first + ROWS)
        yield shared, shared.of(x[part], margins[part])


def _spread(n: int, k: int, passes: int, rng: np.random.Generator) -> Int64[np.ndarray, "n q"]:
    """Return levels of each image's first passes: one at random from each of so many equal parts of the grid."""
    places = (np.arange(passes) + rng.random((n, passes))) * k / passes
    return np.minimum(places.astype(np.int64), k - 1)


def _proposed(
    radii: _ExpectedRadii,
    levels: Int64[np.ndarray, "n j"],
    margins: Float64[np.ndarray, "n j"],
    passes: int,
    rng: np.random.Generator,
) -> Int64[np.ndarray, "n q"]:
    """Return levels of each image's next passes: the best ones of curves drawn from its posterior."""
    return np.concatenate(
        [
            np.stack([radii.at(curves.draw(images, radii.x, rng)).argmax(axis=1) for _ in range(passes)], axis=1)
            for curves, images in _curves(radii, levels, margins)
        ]
    )


def _margins(
    classifier: SmoothedClassifier,
    images: np.ndarray,
    labels: Int64[np.ndarray, " b"],
    sigma: Float64[np.ndarray, "b q"],
    indices: Int64[np.ndarray, " b"],
    start: int,
) -> Float64[np.ndarray, "b q"]:
    """Return the label's logit minus the largest other one, under noise of each image's levels.

    The noise depends on the seed, the image's index and `start`, the number of its earlier passes, alone.
    """
    model, seed = classifier.base(float(sigma.max())), classifier.identity.seed
    device, narrow = classifier.device, classifier.identity.precision == "bfloat16"
    evaluating(model)
    q, found = sigma.shape[1], []
    together = max(1, BATCH // q)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=narrow)
    pool = ThreadPoolExecutor(torch.get_num_threads())
    with torch.no_grad(), arithmetic(classifier.identity.precision), own_passes(model), current(device), autocast, pool:
        for first in range(0, len(images), together):
            part = slice(first, first + together)
            noisy = np.empty((len(images[part]), q, *images.shape[1:]), np.float32)
            names = [(seed, index, start) for index in indices[part].tolist()]
            list(pool.map(_fill, noisy, images[part], sigma[part].astype(np.float32), names))
            logits = run(model, torch.from_numpy(noisy.reshape(-1, *images.shape[1:])).to(device), own=True)
            values = logits.cpu().double().numpy()
            if not np.isfinite(values).all():
                raise ValueError("the model returned NaN or infinity: take --choice grid, which needs votes alone")
            own = np.repeat(labels[part], q)[:, None]
            label = np.take_along_axis(values, own, axis=1)[:, 0]
            np.put_along_axis(values, own, -np.inf, axis=1)
            found.append((label - values.max(axis=1)).reshape(-1, q))
    return np.concatenate(found)


def _fill(
    noisy: Float32[np.ndarray, "q c h w"],
    image: Float32[np.ndarray, "c h w"],
    sigma: Float32[np.ndarray, " q"],
    name: tuple[int, int, int],
) -> None:
    """Write noisy copies of an image, one at each level; seed, index and number of earlier passes name the noise."""
    seed, index, start = name
    bits = np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(_MARK, index, start)))
    np.random.Generator(bits).standard_normal(out=noisy, dtype=np.float32)
    noisy *= sigma[:, None, None, None]
    noisy += image
