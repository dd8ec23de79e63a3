"""Choosing sigma and certifying, written down as it happens: a run that is killed goes on where it was.

Labels are written beside the rows for reports; choosing, certifying and allocating do not see them.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, Int64

from smoothing import SmoothedClassifier
from smoothing.drawing.draw import Missing, draw
from smoothing.drawing.files import VoteFiles
from smoothing.drawing.stages import Share
from smoothing.progress import Progress
from srs.geometry import allocate_levels
from srs.run.inputs import Inputs
from srs.run.votes import Record, read_record, vote_files


def draw_run(
    folder: Path,
    inputs: Inputs,
    classifier: SmoothedClassifier,
    share: Share | None = None,
    *,
    wait: bool = False,
    progress: bool | Progress = False,
) -> Missing | None:
    """Draw and count a share of a run's samples, or all, from where its files stand; see `smoothing.drawing.draw`.

    An image's estimation samples are named by (seed, stage, index), so its row at its level is the one that certifying
    it there alone would give; looking it up among the others is sound because selection samples picked it.
    """

    def joint(radii: Float64[np.ndarray, "n k"]) -> Int64[np.ndarray, " n"]:
        points = inputs.points if inputs.in_bytes else inputs.images[:].reshape(len(inputs.images), -1)
        return allocate_levels(points, inputs.sigmas, radii)

    return draw(
        files_of(folder, inputs),
        classifier,
        lambda positions: torch.from_numpy(inputs.images[positions]),
        inputs.labels,
        share or Share(),
        joint=joint if inputs.settings.overlap == "joint" else None,
        router=inputs.routed,
        wait=wait,
        progress=progress,
    )


def files_of(folder: Path, inputs: Inputs) -> VoteFiles:
    """Return the files of a run's votes."""
    return vote_files(
        folder, inputs.settings, inputs.indices, inputs.sigmas, inputs.data.num_classes, inputs.router_record
    )


def record_of(folder: Path, inputs: Inputs) -> Record:
    """Return all votes of a run, which must be there."""
    return read_record(files_of(folder, inputs), inputs.router_record)
