"""A training run in a folder: any method from data to checkpoint, one epoch after the other, and on after a kill.

The folder holds `config.yaml`, `checkpoint.pt` and `log.tsv` (one row an epoch), and `tensorboard/` where asked for.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from smoothing import SmoothedClassifier
from smoothing.machine import processes, threads_each
from smoothing.progress import Progress
from training.checkpoints import check_savable
from training.data import ImageData, compact
from training.datasets import load_data
from training.denoiser_runs import DenoiserRun
from training.evaluate import check_fit
from training.levels import choose_levels
from training.loop import Epoch
from training.margin_levels import choose_levels_by_margins
from training.models import build, normalized
from training.router_runs import RouterRun
from training.run_folder import CHECKPOINT, Logs, check_run_folder, claimed
from training.settings import TrainSettings
from training.staged_run import StagedRun
from training.subset import training_subset
from training.tracking import check_tracker


def run(settings: TrainSettings, *, progress: bool | Progress = False) -> tuple[Epoch, ...]:
    """Train by the method that the settings name.

    sample-wise is Algorithm 1: pretrain with sigma drawn anew per image and epoch, choose each image's sigma (Eq. 5),
    finetune there. gaussian, smooth-adv and macer have one stage at one sigma. router learns which level an image
    should have, for a base classifier that is there; denoiser learns to take noise away. After each epoch the
    checkpoint is replaced, whole or not at all; a run that was killed, at any moment, and goes on with `resume` ends
    with the weights it would have had (bit for bit on one CPU, with the same number of threads).

    Parameters
    ----------
    settings : TrainSettings
    progress : bool or callable, default=False
        Show a bar on stderr, or call progress(stage, done, total) from time to time.

    Returns
    -------
    tuple of Epoch
        What each epoch reported, of all stages, earlier starts included.

    Raises
    ------
    ValueError
        Where the data, the model or the folder cannot be used; the message says why.
    FloatingPointError
        Where training diverges; the checkpoint is the last good one.
    """
    group = processes(settings.device)
    main = group.is_main_process
    if main:
        check_tracker(settings.tracker)
        check_run_folder(settings)
    data = load_data(settings.dataset, settings.data_dir, download=settings.download, image_size=settings.image_size)
    with ExitStack() as open_things:
        if settings.threads is not None:
            open_things.enter_context(threads_each(settings.threads))
        kinds: Mapping[str, Callable[..., StagedRun]] = {"router": RouterRun, "denoiser": DenoiserRun}
        training = kinds.get(settings.method, _Run)(settings, data, progress)
        del data  # the run keeps what it trains on, as bytes where it can
        if main:
            open_things.enter_context(claimed(settings))
        group.wait_for_everyone()
        training.resume()
        with Logs(settings, training.epochs) if main else nullcontext() as logs:
            training.logs = logs
            training.train()
    return tuple(Epoch(**row) for row in training.epochs)


class _Run(StagedRun):
    """A base classifier learns, and each image may get a sigma of its own (Eq. 5) in between."""

    def __init__(self, settings: TrainSettings, data: ImageData, progress: bool | Progress) -> None:
        super().__init__(settings, progress, build(settings.model, data.num_classes, seed=settings.seed))
        self.num_classes = data.num_classes
        images, self.labels = training_subset(data, settings.train_images, settings.seed)
        self.images = compact(images)
        self.model = normalized(self.net, settings.normalizer)
        check_savable(self.net, f"--model {settings.model}")
        check_fit(self.model, data, f"--model {settings.model}")
        self.chosen: Float64[np.ndarray, " n"] | None = None
        self.chosen_passes: int | None = None  # forward passes of a choice that counts them

    def entries(self) -> dict[str, Any]:
        """Return the classifier's normaliser and classes, and the chosen sigmas."""
        return {
            "normalizer": self.settings.normalizer,
            "num_classes": self.num_classes,
            "chosen": None if self.chosen is None else torch.from_numpy(self.chosen),
            "chosen_passes": self.chosen_passes,
        }

    def take_up(self, saved: Mapping[str, Any]) -> None:
        """Take up the chosen sigmas."""
        chosen, passes, file = saved.get("chosen"), saved.get("chosen_passes"), self.settings.out / CHECKPOINT
        if passes is not None and not (type(passes) is int and passes >= 0):
            raise ValueError(
                f"{file} does not say how many passes chose the levels: restore it, or begin in another folder"
            )
        self.chosen_passes = passes
        if chosen is None:
            return
        if not (isinstance(chosen, torch.Tensor) and chosen.dtype == torch.float64 and chosen.layout == torch.strided):
            raise self.unknown_progress()
        self.chosen = chosen.numpy()
        if self.chosen.shape != self.labels.shape or not np.isin(self.chosen, self.settings.levels).all():
            raise ValueError(f"{file} holds no noise level of this run for each image: begin in another folder")

    def train(self) -> None:
        """Train through all stages of the method, from where the checkpoint stands."""
        if self.chosen is None:
            self.fit(self.model, self.images, self.labels, stage=self.settings.stage())
            if self.settings.method == "sample-wise":
                self.chosen = self.choose()
        if self.chosen is not None:
            self.fit(self.model, self.images, self.labels, stage=self.settings.stage(self.chosen))

    def choose(self) -> Float64[np.ndarray, " n"]:
        """Return each image's sigma (Eq. 5) under the model as it is."""
        classifier = SmoothedClassifier(
            self.model,
            self.num_classes,
            precision=self.settings.precision,
            channels_last=self.settings.channels_last,
            compile=self.settings.compile,
            seed=self.settings.seed,
            device=self.device,
        )
        partial = self.settings.out / f"sigmas-{classifier.identity.weights[:12]}.partial"
        if self.settings.choice == "margins":
            assert self.settings.choice_passes is not None
            found = choose_levels_by_margins(
                classifier,
                self.images,
                self.labels,
                sigmas=self.settings.levels,
                passes=self.settings.choice_passes,
                n0=self.settings.n0,
                partial=partial,
                progress=self.progress,
            )
            self.chosen_passes = found.passes
            return found.sigma
        return choose_levels(
            classifier,
            self.images,
            self.labels,
            sigmas=self.settings.levels,
            n0=self.settings.n0,
            racing=self.settings.racing,
            partial=partial,
            progress=self.progress,
        )
