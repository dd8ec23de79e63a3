"""A training run in a folder: any method from data to checkpoint, one epoch after the other, and on after a kill.

The folder holds `config.yaml`, `checkpoint.pt` and `log.tsv` (one row an epoch), and `tensorboard/` where asked for.
"""

from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from smoothing import SmoothedClassifier
from smoothing.machine import processes, threads_each, usable_device
from smoothing.progress import Progress
from training.checkpoints import check_savable, save_checkpoint
from training.data import ImageData, compact
from training.datasets import load_data
from training.denoiser_runs import DenoiserRun
from training.evaluate import check_fit
from training.levels import choose_levels
from training.loop import Epoch, fit
from training.margin_levels import choose_levels_by_margins
from training.models import build, normalized
from training.router_runs import RouterRun
from training.run_folder import CHECKPOINT, Logs, are_epochs, check_run_folder, claimed, saved_state
from training.settings import TrainSettings
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
        kinds: Mapping[str, type[_Run | RouterRun | DenoiserRun]] = {"router": RouterRun, "denoiser": DenoiserRun}
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


class _Run:
    """Where a run stands: the model, each image's chosen sigma once there is one, and the epochs so far."""

    def __init__(self, settings: TrainSettings, data: ImageData, progress: bool | Progress) -> None:
        self.settings = settings
        self.progress = progress
        self.num_classes = data.num_classes
        images, self.labels = training_subset(data, settings.train_images, settings.seed)
        self.images = compact(images)
        self.net = build(settings.model, data.num_classes, seed=settings.seed)
        self.model = normalized(self.net, settings.normalizer)
        check_savable(self.net, f"--model {settings.model}")
        check_fit(self.model, data, f"--model {settings.model}")
        self.chosen: Float64[np.ndarray, " n"] | None = None
        self.chosen_passes: int | None = None  # forward passes of a choice that counts them
        self.epochs: list[dict[str, Any]] = []
        self.logs: Logs | None = None
        self._state: dict[str, Any] | None = None

    def resume(self) -> None:
        """Take up what the checkpoint holds, if there is one."""
        file = self.settings.out / CHECKPOINT
        saved = saved_state(self.settings, self.net)
        if saved is None:
            return
        self._state, self.epochs, chosen = _progress(file, saved)
        grid = self.settings.levels
        if chosen is not None and (chosen.shape != self.labels.shape or not np.isin(chosen, grid).all()):
            raise ValueError(f"{file} holds no noise level of this run for each image: begin in another folder")
        self.chosen, self.chosen_passes = chosen, _passes(file, saved)

    def train(self) -> None:
        """Train through all stages of the method, from where the checkpoint stands."""
        chosen = self.chosen
        if chosen is None:
            self.fit(None)
        if self.settings.method == "sample-wise":
            self.fit(self.choose() if chosen is None else chosen)

    def fit(self, chosen: Float64[np.ndarray, " n"] | None) -> None:
        """Train through a stage, finetuning where sigmas are given, from where the checkpoint stands."""
        stage = self.settings.stage(chosen)
        earlier = [row for row in self.epochs if row["stage"] != stage.name]
        begun = len(earlier) < len(self.epochs)

        def keep(state: dict[str, Any]) -> None:
            self.epochs = [*earlier, *state["history"]]
            if self.logs is not None:
                self._save(state, chosen)
                self.logs.add(self.epochs)

        fit(
            self.model,
            self.images,
            self.labels,
            stage=stage,
            engine=self.settings.engine,
            seed=self.settings.seed,
            state=self._state if begun else None,
            after_epoch=keep,
            progress=self.progress,
        )

    def choose(self) -> Float64[np.ndarray, " n"]:
        """Return each image's sigma (Eq. 5) under the model as it is."""
        device = usable_device(processes().device if self.settings.device == "auto" else self.settings.device)
        classifier = SmoothedClassifier(
            self.model,
            self.num_classes,
            precision=self.settings.precision,
            channels_last=self.settings.channels_last,
            compile=self.settings.compile,
            seed=self.settings.seed,
            device=device,
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

    def _save(self, state: dict[str, Any], chosen: Float64[np.ndarray, " n"] | None) -> None:
        save_checkpoint(
            self.settings.out / CHECKPOINT,
            self.net,
            arch=self.settings.model,
            normalizer=self.settings.normalizer,
            num_classes=self.num_classes,
            config=self.settings.to_dict(),
            chosen=None if chosen is None else torch.from_numpy(chosen),
            chosen_passes=self.chosen_passes,
            epochs=self.epochs,
            state=state,
        )
        if chosen is not None:  # the checkpoint holds them now
            for partial in self.settings.out.glob("sigmas-*.partial.*"):
                partial.unlink()


def _progress(
    file: Path, saved: Mapping[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]], Float64[np.ndarray, " n"] | None]:
    """Return a stage's state, the epochs so far, and the sigma of each image if there is one, from a checkpoint."""
    state, epochs, chosen = (saved.get(name) for name in ("state", "epochs", "chosen"))
    if isinstance(state, dict) and isinstance(epochs, list) and all(map(are_epochs, (epochs, state.get("history")))):
        if chosen is None:
            return state, epochs, None
        if isinstance(chosen, torch.Tensor) and chosen.dtype == torch.float64 and chosen.layout == torch.strided:
            return state, epochs, chosen.numpy()
    raise ValueError(f"{file} does not say how far training came: restore it, or begin in another folder")


def _passes(file: Path, saved: Mapping[str, Any]) -> int | None:
    """Return how many passes a checkpoint says that choosing levels took; None where they were not counted."""
    passes = saved.get("chosen_passes")
    if passes is None or (type(passes) is int and passes >= 0):
        return passes
    raise ValueError(f"{file} does not say how many passes chose the levels: restore it, or begin in another folder")
