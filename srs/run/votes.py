"""The votes of a run, and what its rule made of them. Everything that a run reports is computed from these."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from smoothing import Ladder
from smoothing.confidence import weighted_alpha
from smoothing.drawing.files import LEVELS, ROUTES, Design, Selected, VoteFiles
from smoothing.drawing.stages import Table
from smoothing.selection import Outcome, Plan, select_again
from smoothing.storage import whole_lines
from smoothing.votes import Counts
from srs.run.router import RouterRecord
from srs.run.run_settings import RunSettings

#: What is said of a run whose rows are not all there.
NOT_FINISHED = "the run has not come to its end; go on with srs-certify --resume"


#: What part of alpha a router may get; selection samples choose among them.
ROUTER_SHARES = (0.1, 0.25, 0.5)


@dataclass(frozen=True, eq=False)
class Routing:
    """What a router named around n images, among k levels, and what the levels promise beside it.

    Attributes
    ----------
    sigma : float or None
        The router's own noise level. None: it names one level for every input, and no sample of it was drawn.
    level : int array of shape (n,)
        The level that it named most often among selection samples.
    selected, estimated : int arrays of shape (n, k)
        How often it named each level, among selection samples and among fresh ones.
    outcomes : mapping of float to Outcome
        What selection samples of the classifier let expect where the router gets such a part of alpha.
    seconds : float
        Time of its votes.
    """

    sigma: float | None
    level: Int64[np.ndarray, " n"]
    selected: Int64[np.ndarray, "n k"]
    estimated: Int64[np.ndarray, "n k"]
    outcomes: Mapping[float, Outcome]
    seconds: float


@dataclass(frozen=True, eq=False)
class Record:
    """What a run drew and counted, for n images and k levels.

    Attributes
    ----------
    sigmas : array of shape (k,)
        The grid.
    idx, label : int arrays of shape (n,)
        Index in the data set, true class.
    clean, classes : int arrays of shape (n, k)
        Class without noise, and the most voted class of the selection samples, which is the one to certify.
    expected_radius, expected_radius_one_sided : arrays of shape (n, k)
        What the rule ranks by, from selection samples: for the run's bound, and where certificates are one-sided.
    samples : int array of shape (n, k)
        How many selection samples there are.
    share : array of shape (n, k)
        Share of alpha for the classes that are not certified, from selection samples; 0 is the one-sided bound.
    level : int array of shape (n,)
        Where the run certifies each image.
    counts : Counts
        Votes of the estimation samples.
    seconds : array of shape (n,)
        Each image's share of the wall time of choosing its level and certifying it there.
    stages : dict of str to float
        Time of "select" and "certify", of all images and processes together; of "route" where a router voted.
    routing : Routing, optional
        None where the run has no router.
    """

    sigmas: Float64[np.ndarray, " k"]
    idx: Int64[np.ndarray, " n"]
    label: Int64[np.ndarray, " n"]
    clean: Int64[np.ndarray, "n k"]
    classes: Int64[np.ndarray, "n k"]
    expected_radius: Float64[np.ndarray, "n k"]
    expected_radius_one_sided: Float64[np.ndarray, "n k"]
    samples: Int64[np.ndarray, "n k"]
    share: Float64[np.ndarray, "n k"]
    level: Int64[np.ndarray, " n"]
    counts: Counts
    seconds: Float64[np.ndarray, " n"]
    stages: dict[str, float]
    routing: Routing | None = None

    @property
    def own_level(self) -> Int64[np.ndarray, " n"]:
        """The level that the rule chooses for each image by itself; another than `level` only where chosen jointly."""
        return np.asarray(self.expected_radius.argmax(axis=1))

    @property
    def certified(self) -> Bool[np.ndarray, "n k"]:
        """Which images were certified at which level."""
        return np.asarray(self.counts.drawn > 0)


def vote_files(
    folder: Path,
    settings: RunSettings,
    idx: Int64[np.ndarray, " n"],
    sigmas: Float64[np.ndarray, " k"],
    num_classes: int,
    router: RouterRecord | None = None,
) -> VoteFiles:
    """Return the files of a run's votes, as its settings lay them out."""
    ladder = ladder_of(settings)
    plan = Plan(
        n0=settings.n0,
        rule=settings.rule,
        alpha=settings.mode.share(settings.alpha, len(idx)),
        final=ladder.rungs[-1],
        racing=settings.racing,
        bound=settings.bound,
        joint=settings.overlap == "joint",
    )
    design = Design(
        idx=idx,
        sigma=np.tile(sigmas, (len(idx), 1)),
        num_classes=num_classes,
        plan=plan,
        ladder=ladder,
        chosen_only=settings.chosen_only,
        routed=router is not None and router.sigma is not None,
    )
    return VoteFiles(folder, design)


def ladder_of(settings: RunSettings) -> Ladder:
    """Return the numbers of estimation samples that are tried."""
    if not settings.rungs:
        return Ladder((settings.n,))
    rungs, loss = (*settings.rungs, settings.n), settings.target_loss
    if settings.min_gain is None:
        return Ladder(rungs, target_loss=loss)
    return Ladder(rungs, settings.min_gain, target_loss=loss)


def read_record(files: VoteFiles, router: RouterRecord | None = None) -> Record:
    """Read all votes of a run; `ValueError` where they are damaged, and where the run has not come to its end."""
    n = len(files.design.idx)
    selected, level = files.selected(), files.levels()
    if level is None or len(selected.images) < n:
        raise ValueError(f"{files.folder}: {NOT_FINISHED}")
    estimated = files.estimated(level)
    if len(estimated.images) < n:
        raise ValueError(f"{files.folder}: {NOT_FINISHED}")
    routing = None if router is None else _routing(files, router, selected)
    for image in files.design.idx[selected.label < 0].tolist()[:1]:
        raise ValueError(f"{files.selection.file} is damaged: image {image} has no label; restore it")
    stages = {"select": float(selected.seconds.sum()), "certify": float(estimated.seconds.sum())}
    if routing is not None and routing.sigma is not None:
        stages["route"] = routing.seconds
    return Record(
        sigmas=files.design.sigma[0],
        idx=files.design.idx,
        label=selected.label,
        clean=selected.clean,
        classes=selected.outcome.classes,
        expected_radius=selected.outcome.expected_radius,
        expected_radius_one_sided=selected.outcome.one_sided,
        samples=selected.outcome.samples,
        share=selected.outcome.share,
        level=level,
        counts=estimated.votes.counted(selected.outcome.classes),
        seconds=selected.seconds + estimated.seconds[np.arange(n), level],
        stages=stages,
        routing=routing,
    )


def _routing(files: VoteFiles, router: RouterRecord, selected: Selected) -> Routing:
    """Read what the router of a run named, and see what levels promise beside it."""
    design = files.design
    n, k = design.sigma.shape
    if router.sigma is None:
        votes = np.zeros((n, k), dtype=np.int64)
        votes[:, design.sigma[0].tolist().index(router.level)] = 1
        return Routing(None, votes.argmax(axis=1), votes, votes, {0.0: selected.outcome}, 0.0)
    drawn = [files.routed(stage) for stage in ROUTES]
    if any(len(part.images) < n for part in drawn):
        raise ValueError(f"{files.folder}: {NOT_FINISHED}")
    outcomes = {}
    for share in ROUTER_SHARES:
        plan = replace(design.plan, alpha=split_between(design.plan.alpha, share)[0])
        outcome = select_again(selected.votes, design.num_classes, design.sigma, plan)
        assert outcome is not None  # nothing is left out by racing, so alpha does not change what is drawn
        outcomes[share] = outcome
    selecting, estimating = drawn
    seconds = float(selecting.seconds.sum() + estimating.seconds.sum())
    level = selecting.votes.argmax(axis=1)
    return Routing(router.sigma, level, selecting.votes, estimating.votes, outcomes, seconds)


def split_between(alpha: float, share: float) -> tuple[float, float]:
    """Return the classifier's part of alpha and the router's, whose share this is; together they do not exceed alpha.

    Raises
    ------
    ValueError
        Where a part is below 1e-100, for which bounds are not computed.
    """
    if share == 0:
        return alpha, 0.0
    base, router = weighted_alpha(alpha, (1 - share, share))
    return base, router


def images_of(folder: Path) -> Int64[np.ndarray, " n"]:
    """Return the indices of a finished run's images, in order, as `levels.tsv` has them."""
    table = Table(folder / LEVELS, ("idx", "sigma"), whole_lines(folder / LEVELS))
    idx = table.integers("idx", 0)
    if not len(idx) or len(np.unique(idx)) < len(idx):
        what = "an image twice" if len(idx) else "no image"
        raise ValueError(f"{folder / LEVELS} is damaged: it has {what}; restore it")
    return idx
