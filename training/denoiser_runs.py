"""Training a denoiser in a folder: to return clean images, and then to keep what a classifier says of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from smoothing import SmoothedClassifier
from smoothing.machine import processes, usable_device
from smoothing.progress import Progress
from training.checkpoints import DENOISER, load_checkpoint, save_checkpoint, training_config
from training.data import ImageData, compact
from training.denoiser_checkpoints import DenoiserFacts
from training.denoisers import denoiser_network
from training.denoising import DenoisingLearner, Stability
from training.evaluate import check_fit
from training.loop import fit
from training.losses import mean_squared_error
from training.models import is_factory
from training.run_folder import CHECKPOINT, Logs, are_epochs, saved_state
from training.settings import TrainSettings
from training.stage import Stage
from training.subset import training_subset


class DenoiserRun:
    """Where the training of a denoiser stands: the network, and the epochs so far."""

    def __init__(self, settings: TrainSettings, data: ImageData, progress: bool | Progress) -> None:
        self.settings, self.progress = settings, progress
        self.classifier = _classifier(settings, data)
        images, self.labels = training_subset(data, settings.train_images, settings.seed)
        self.images = compact(images)
        self.shape = tuple(data.test_images.shape[1:])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.net = denoiser_network(settings.model, self.shape[0])
        low, high = settings.denoiser_levels
        self.facts = DenoiserFacts(
            sigma_min=float(low),
            sigma_max=float(high),
            image_shape=self.shape,
            base=None if self.classifier is None else _weights(self.classifier, data.num_classes),
            seed=settings.seed,
        )
        self.epochs: list[dict[str, Any]] = []
        self.logs: Logs | None = None
        self._state: dict[str, Any] | None = None

    def resume(self) -> None:
        """Take up what the checkpoint holds, if there is one."""
        file = self.settings.out / CHECKPOINT
        saved = saved_state(self.settings, self.net)
        if saved is None:
            return
        if saved.get(DENOISER) != self.facts.entry():
            raise ValueError(
                f"--checkpoint {self.settings.checkpoint}: the run in {file.parent} keeps the answers of another "
                "classifier; give the same, or begin in another folder"
            )
        self._state, self.epochs = _progress(file, saved)

    def train(self) -> None:
        """Train through both stages, or the first where no classifier is named, from where the checkpoint stands."""
        if not any(row["stage"] == "finetune" for row in self.epochs):
            self._fit(self.settings.denoiser_stage(mean_squared_error))
        if self.classifier is not None:
            device = usable_device(_device(self.settings))
            loss = Stability(self.classifier.to(device).eval().requires_grad_(False), self.shape)
            self._fit(self.settings.denoiser_stage(loss, finetune=True))

    def _fit(self, stage: Stage) -> None:
        earlier = [row for row in self.epochs if row["stage"] != stage.name]
        begun = len(earlier) < len(self.epochs)

        def keep(state: dict[str, Any]) -> None:
            self.epochs = [*earlier, *state["history"]]
            if self.logs is not None:
                self._save(state)
                self.logs.add(self.epochs)

        fit(
            self.net,
            self.images,
            self.labels,
            stage=stage,
            engine=self.settings.engine,
            seed=self.settings.seed,
            state=self._state if begun else None,
            after_epoch=keep,
            progress=self.progress,
            kind=DenoisingLearner,
        )

    def _save(self, state: dict[str, Any]) -> None:
        save_checkpoint(
            self.settings.out / CHECKPOINT,
            self.net,
            arch=self.settings.model,
            config=self.settings.to_dict(),
            denoiser=self.facts.entry(),
            epochs=self.epochs,
            state=state,
        )


def _classifier(settings: TrainSettings, data: ImageData) -> nn.Module | None:
    """Return the classifier whose answers are to be kept, if one is named."""
    file = settings.checkpoint
    if file is None:
        return None
    arch = training_config(file).get("model")
    if is_factory(arch):
        raise ValueError(
            f"--checkpoint {file}: is for {arch}, and a file alone runs no code and loads no library's model: leave "
            "--checkpoint out, which trains without finetuning"
        )
    classifier = load_checkpoint(file)
    check_fit(classifier, data, f"--checkpoint {file}")
    return classifier


def _weights(classifier: nn.Module, num_classes: int) -> str:
    return SmoothedClassifier(classifier, num_classes).identity.weights


def _device(settings: TrainSettings) -> Any:
    return processes().device if settings.device == "auto" else settings.device


def _progress(file: Path, saved: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the stage's state and the epochs so far, from a checkpoint."""
    state, epochs = saved.get("state"), saved.get("epochs")
    if isinstance(state, dict) and isinstance(epochs, list) and all(map(are_epochs, (epochs, state.get("history")))):
        return state, epochs
    raise ValueError(f"{file} does not say how far training came: restore it, or begin in another folder")
