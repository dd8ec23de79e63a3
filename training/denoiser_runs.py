"""Training a denoiser in a folder: to return clean images, and then to keep what a classifier says of them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from smoothing import SmoothedClassifier
from smoothing.progress import Progress
from training.checkpoints import DENOISER, load_checkpoint, training_config
from training.data import ImageData, compact
from training.denoiser_checkpoints import DenoiserFacts
from training.denoisers import denoiser_network
from training.denoising import DenoisingLearner, Stability
from training.evaluate import check_fit
from training.losses import mean_squared_error
from training.models import is_factory
from training.settings import TrainSettings
from training.stage import Stage
from training.staged_run import StagedRun
from training.subset import training_subset


class DenoiserRun(StagedRun):
    """A denoiser learns to return clean images, and then to keep a classifier's answers, if one is named."""

    def __init__(self, settings: TrainSettings, data: ImageData, progress: bool | Progress) -> None:
        self.classifier = _classifier(settings, data)
        images, self.labels = training_subset(data, settings.train_images, settings.seed)
        self.images = compact(images)
        self.shape = tuple(data.test_images.shape[1:])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            super().__init__(settings, progress, denoiser_network(settings.model, self.shape[0]))
        low, high = settings.denoiser_levels
        self.facts = DenoiserFacts(
            sigma_min=float(low),
            sigma_max=float(high),
            image_shape=self.shape,
            base=None if self.classifier is None else _weights(self.classifier, data.num_classes),
            seed=settings.seed,
        )

    def entries(self) -> dict[str, Any]:
        """Return what the denoiser is for."""
        return {DENOISER: self.facts.entry()}

    def take_up(self, saved: Mapping[str, Any]) -> None:
        """See that the checkpoint is of a denoiser for the same images, levels and classifier."""
        if saved.get(DENOISER) != self.facts.entry():
            raise ValueError(
                f"--checkpoint {self.settings.checkpoint}: the run in {self.settings.out} keeps the answers of another "
                "classifier; give the same, or begin in another folder"
            )

    def train(self) -> None:
        """Train through both stages, or the first where no classifier is named, from where the checkpoint stands."""
        if not any(row["stage"] == "finetune" for row in self.epochs):
            self._fit(self.settings.denoiser_stage(mean_squared_error))
        if self.classifier is not None:
            loss = Stability(self.classifier.to(self.device).eval().requires_grad_(False), self.shape)
            self._fit(self.settings.denoiser_stage(loss, finetune=True))

    def _fit(self, stage: Stage) -> None:
        self.fit(self.net, self.images, self.labels, stage=stage, kind=DenoisingLearner)


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
