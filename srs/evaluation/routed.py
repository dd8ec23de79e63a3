"""What a router certifies: alone, where its level may change among levels that agree or not at all, and with regions.

The router's part of alpha, the levels and the map follow from selection samples alone. So the samples that certify
decide nothing about them, and each certificate rests on its own image's samples (docs/router.md).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from smoothing import certified_radius
from smoothing.bounds import counted_bounds
from smoothing.router_bounds import imagined_votes, router_clearance
from smoothing.selection import Outcome
from srs.evaluation.background import Background, Outside, Promised, with_background
from srs.evaluation.rules import RuleAnswers, allocated, floored
from srs.modes import ROUTED, ROUTER, Mode
from srs.run.votes import Record, Routing, split_between


@dataclass(frozen=True, eq=False)
class Routed:
    """The votes of a run with a router, and how alpha is split between its two networks.

    Attributes
    ----------
    record : Record
        With `routing`.
    points : array of shape (n, d)
        The images.
    main : Mode
        What the run certifies with.
    share : float
        The router's part of alpha, which promises most, by selection samples.
    alphas : pair of float
        The classifier's part of alpha and the router's; together they do not exceed it.
    outside : Outside
        What the router names, as selection samples promise it.
    """

    record: Record
    points: Float64[np.ndarray, "n d"]
    main: Mode
    share: float
    alphas: tuple[float, float]
    outside: Outside

    @classmethod
    def of(
        cls, record: Record, routing: Routing, points: Float64[np.ndarray, "n d"], main: Mode, alpha: float
    ) -> "Routed":
        """Split alpha as promises most for all images together."""
        imagined = imagined_votes(routing.selected, int(routing.estimated[0].sum()))
        found = []
        for share, outcome in routing.outcomes.items():
            alphas = split_between(alpha, share)
            outside = Outside(routing.level, clearance(routing, imagined, alphas[1]))
            promised = outside.radius(outcome.classes, outcome.expected_radius).sum()
            found.append((float(promised), cls(record, points, main, share, alphas, outside)))
        return max(found, key=lambda pair: pair[0])[1]

    def rules(
        self, level: Int64[np.ndarray, " n"] | None, lost: float, *, one_sided: bool = False
    ) -> dict[str, RuleAnswers]:
        """Answer by the router alone, twice, and by the main mode where that has regions.

        Parameters
        ----------
        level : int array of shape (n,), optional
            The levels of regions, which the main mode has.
        lost : float
            The sampler's lookup error: a region may be that much nearer.
        one_sided : bool, default=False
            Bound the probability of the certified class alone.
        """
        record, routing = self.record, self.record.routing
        assert routing is not None  # a record without one has no router
        outcome = routing.outcomes[self.share]
        share = np.zeros_like(record.share) if one_sided else record.share
        proved = certified_radius(record.sigmas, *counted_bounds(record.counts, self.alphas[0], share))
        proven = Outside(routing.level, clearance(routing, routing.estimated, self.alphas[1]))
        alone = Background.alone(self.points, record.sigmas, self.outside)
        found = {ROUTER: self._constant(proven, proved), ROUTED.name: self._answers(alone, proved, proven, 0.0)}
        if level is not None:
            promised = Promised(level, record.classes, _promise(outcome, one_sided), record.samples)
            background = with_background(self.points, record.sigmas, promised, self.main.inside, self.outside)
            found[self.main.name] = self._answers(background, proved, proven, lost)
        return found

    def _constant(self, proven: Outside, proved: Float64[np.ndarray, "n K"]) -> RuleAnswers:
        """Answer by min(R_S, R_c): within R_S the router names one level."""
        at = np.arange(len(proven.level))
        R, others = proved[at, proven.level], proven.clearance.copy()
        others[at, proven.level] = np.inf
        classes = np.where(R > 0, self.record.classes[at, proven.level], -1)
        return self._row(classes, R, others.min(axis=1), proven.level, None, 0.0)

    def _answers(
        self, background: Background, proved: Float64[np.ndarray, "n K"], proven: Outside, lost: float
    ) -> RuleAnswers:
        level, classes = background.level, self.record.classes
        R, r = background.radii(classes, proved, proven)
        predict = np.where(R > 0, classes[np.arange(len(level)), level], -1)
        return self._row(predict, R, r, level, background, lost)

    def _row(
        self,
        predict: Int64[np.ndarray, " n"],
        R: Float64[np.ndarray, " n"],
        r: Float64[np.ndarray, " n"],
        level: Int64[np.ndarray, " n"],
        background: Background | None,
        lost: float,
    ) -> RuleAnswers:
        predict, radius = allocated(predict, R, r, lost)
        return RuleAnswers(
            label=self.record.label,
            predict=predict,
            radius=floored(radius),
            level=level,
            R=R,
            r=r,
            allocation=None if background is None else background.allocation,
        )


def clearance(routing: Routing, votes: Int64[np.ndarray, "n K"], alpha: float) -> Float64[np.ndarray, "n K"]:
    """Return up to where the router does not name each level, 0 for the one at the image, by such votes."""
    at, n = np.arange(len(votes)), len(votes)
    if routing.sigma is None:
        return Outside.constant(int(routing.level[0]), n, votes.shape[1]).clearance
    found = router_clearance(votes, routing.level, routing.sigma, alpha)
    found[at, routing.level] = 0.0
    return found


def _promise(outcome: Outcome, one_sided: bool) -> Float64[np.ndarray, "n K"]:
    return outcome.one_sided if one_sided else outcome.expected_radius
