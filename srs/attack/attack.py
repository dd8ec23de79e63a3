"""Attack a finished run: search with one noise, judge with another, and say what follows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.stats import norm

from smoothing import ABSTAIN
from smoothing.confidence import shared_alpha
from srs.attack.gradients import White
from srs.attack.search import PER_IMAGE, Points, beyond, inside
from srs.attack.settings import AttackSettings
from srs.attack.target import Target, read_target
from srs.attack.verdict import Verdict
from srs.evaluation.metrics import STEP, certified_accuracy, radius_grid
from srs.predict.loading import open_classifier, read_run
from srs.predict.predictor import Predictor
from srs.predict.run_classifier import FLAGS
from srs.run.sources import files_of

#: Grey levels of the sampler that knows no others.
_GRID = {"discrete": 255, "gaussian": None}

#: Beyond the balls, up to so many times the largest certified radius, and at least so far.
_REACH, _LEAST = 2.0, 4 * STEP


@dataclass(frozen=True, eq=False)
class Found:
    """What an attack found.

    Attributes
    ----------
    settings : AttackSettings
    target : Target
    points : Points
        All points that were judged.
    answers : int array of shape (m,)
        What G says at each: -1 where the votes do not tell, or no region holds the point.
    held : bool array of shape (m,)
        Whether G has an answer there.
    reach : float
        How far from the images was looked.
    alpha : float
        Failure probability of each answer: all are right together with probability at least 1 - significance / 2.
    verdict : Verdict
    seed : int
    """

    settings: AttackSettings
    target: Target
    points: Points
    answers: Int64[np.ndarray, " m"]
    held: Bool[np.ndarray, " m"]
    reach: float
    alpha: float
    verdict: Verdict
    seed: int

    @property
    def in_ball(self) -> Bool[np.ndarray, " m"]:
        """Which points lie strictly inside the certified ball of their image."""
        return _in_ball(self.target, self.points)

    @property
    def breaks(self) -> Bool[np.ndarray, " m"]:
        """Which of them are answered with another class than the certified one."""
        return _breaks(self.target, self.points, self.answers)

    @property
    def unanswered(self) -> Bool[np.ndarray, " m"]:
        """Which of them no region holds."""
        return np.asarray(self.in_ball & ~self.held)

    @property
    def misled_at(self) -> Float64[np.ndarray, " K"]:
        """The distance of the nearest point at which G answers another class than the label; infinite: none found."""
        wrong = (self.answers != ABSTAIN) & (self.answers != self.target.label[self.points.owner])
        return _nearest(self.target, self.points[wrong])

    @property
    def failed_at(self) -> Float64[np.ndarray, " K"]:
        """The same, or of the nearest point that no region holds."""
        return np.asarray(np.minimum(self.misled_at, _nearest(self.target, self.points[~self.held])))

    @property
    def epsilon(self) -> Float64[np.ndarray, " e"]:
        """Radii at which accuracies are reported: as far as the attack looked."""
        grid = radius_grid(self.reach)
        return np.asarray(grid[grid <= self.reach])

    def curves(self) -> dict[str, list[float]]:
        """Return at each radius the certified accuracy, and the accuracy that the attack leaves, as fractions.

        `answers_label`: no point was found within the radius at which G does not give the label. `not_misled`: none at
        which it answers another class; having no answer counts as safe.
        """
        correct = np.asarray(self.target.predict == self.target.label, dtype=np.int64)
        return {
            "epsilon": self.epsilon.tolist(),
            "certified": certified_accuracy(self.target.radius, correct, self.epsilon).tolist(),
            "answers_label": [float((self.failed_at > radius).mean()) for radius in self.epsilon],
            "not_misled": [float((self.misled_at > radius).mean()) for radius in self.epsilon],
        }


def attack(settings: AttackSettings, phase: Callable[[str], Any]) -> Found:
    """Attack a finished run, whoever the folder comes from; `phase` is told what is being done.

    With probability at least 1 - significance / 2, all answers of G that are returned are right or -1.

    Raises
    ------
    ValueError, OSError
        As `srs.load_run`; where a file is damaged; where the base classifier has no gradients.
    """
    with phase("checking the folder"):
        run = read_run(settings.run)
        alpha = _alpha_each(settings, len(run.regions))
        loaded = open_classifier(
            run,
            model=settings.model,
            files=files_of(settings.checkpoint, settings.expert),
            router=settings.router,
            denoiser=settings.denoiser,
            arch=settings.arch,
            device=settings.device,
            outside="abstain",
            alpha=alpha,
            seed=settings.seed,
            words=FLAGS,
        )
        predictor, seed = loaded.predictor, loaded.seed
        # the generator's numbers choose images and points, and are none of those that judge
        rng = np.random.default_rng([seed, 1])
        target = read_target(run, settings.images, rng)
    white = White(
        predictor.classifier,
        target,
        samples=settings.samples,
        steps=settings.steps,
        seed=int(rng.integers(2**63)),
        router=predictor.router,
    )
    grid = _GRID[run.described.settings.sampler]
    reach = max(_LEAST, _REACH * float(target.radius.max(initial=0)))
    with phase("attacking inside the certified balls"):
        everyone = np.arange(len(target.idx))
        points = Points.of(target, everyone, target.centre) + inside(white, settings.restarts, rng, grid)
    with phase("attacking beyond them"):
        wrong, unanswered = beyond(white, reach, _clear(alpha, settings.n), rng, grid)
        points = points + wrong + unanswered
    with phase("asking G at the points that were found"):
        answers, held = _judge(predictor, points, settings.n)
    mode, certified = run.described.settings.mode, run.described.settings.alpha
    verdict = _verdict(target, points, answers, held, certified, mode.simultaneous, settings.significance)
    return Found(settings, target, points, answers, held, reach, alpha, verdict, seed)


def _alpha_each(settings: AttackSettings, images: int) -> float:
    """Return the failure probability of every answer: half of what is allowed, over all that may be asked about."""
    return shared_alpha(settings.significance / 2, PER_IMAGE * min(images, settings.images))


def _clear(alpha: float, n: int) -> float:
    """Return by which share of the votes a class must lead so that n votes mostly tell at this alpha."""
    return float(norm.isf(alpha / 2)) / math.sqrt(n) + 0.03


def _judge(predictor: Predictor, points: Points, n: int) -> tuple[Int64[np.ndarray, " m"], Bool[np.ndarray, " m"]]:
    """Ask G, with noise that nobody has seen."""
    found = predictor(points.pixels, n=n)
    return found.predict, found.n > 0


def _verdict(
    target: Target,
    points: Points,
    answers: Int64[np.ndarray, " m"],
    held: Bool[np.ndarray, " m"],
    alpha: float,
    simultaneous: bool,
    significance: float,
) -> Verdict:
    within, breaks = _in_ball(target, points), _breaks(target, points, answers)
    lost = within & ~held
    return Verdict(
        attacked=len(target.idx),
        balls=int((target.radius > 0).sum()),
        points=int(within.sum()),
        breaks=int(breaks.sum()),
        undecided=int((within & held & (answers == ABSTAIN)).sum()),
        unanswered=int(lost.sum()),
        broken=len(np.unique(points.owner[breaks | lost])),
        without_answer=len(np.unique(points.owner[lost])),
        alpha=alpha,
        simultaneous=simultaneous,
        significance=significance,
    )


def _in_ball(target: Target, points: Points) -> Bool[np.ndarray, " m"]:
    return np.asarray(points.distance < target.radius[points.owner])


def _breaks(target: Target, points: Points, answers: Int64[np.ndarray, " m"]) -> Bool[np.ndarray, " m"]:
    wrong = (answers != ABSTAIN) & (answers != target.predict[points.owner])
    return np.asarray(_in_ball(target, points) & wrong)


def _nearest(target: Target, points: Points) -> Float64[np.ndarray, " K"]:
    found = np.full(len(target.idx), np.inf)
    np.minimum.at(found, points.owner, points.distance)
    return found
