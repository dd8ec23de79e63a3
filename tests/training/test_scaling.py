"""A model that was made for normalised pixels, and is given plain ones."""

import numpy as np
import pytest
import torch
from torch import nn

from training import Normalize
from training.scaling import restoring

IMAGES = np.random.default_rng(0).random((60, 3, 2, 2), dtype=np.float32)
LABELS = (IMAGES.mean(axis=(1, 2, 3)) > 0.5).astype(np.int64)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Bright(nn.Module):
    """Whether an image is bright, for pixels with that mean and deviation taken out; others it takes for dark."""

    def __init__(self, mean, sd):
        super().__init__()
        self.mean, self.sd = (torch.tensor(value).reshape(-1, 1, 1) for value in (mean, sd))

    def forward(self, images):
        known = images.amin(dim=(1, 2, 3)) < -0.5  # which no pixel is
        bright = (images * self.sd + self.mean).mean(dim=(1, 2, 3)) > 0.5
        one = (known & bright).float()
        return torch.stack([1 - one, one], dim=1)


def labels(right):
    """Labels of which this share are for class 0, and the others 1."""
    return (np.arange(60) >= right * 60).astype(np.int64)


def test_the_normaliser_that_restores_a_model_is_named():
    bright = IMAGES[LABELS == 1]
    found = restoring(Bright(*IMAGENET), bright, np.ones(len(bright), np.int64))
    assert found is not None
    assert (found.normalizer, found.before, found.images) == ("imagenet", 0.0, len(bright))
    assert found.after > 0.9
    assert str(found).startswith(f"without noise the base classifier is right on 0% of {len(bright)} images, and on ")
    assert str(found).endswith("behind --normalizer imagenet: was it trained on pixels scaled so?")


@pytest.mark.parametrize(
    ("model", "images", "classes"),
    [
        (nn.Sequential(Normalize(*IMAGENET), Bright((0.0,) * 3, (1.0,) * 3)), IMAGES, 1 - LABELS),
        (Bright(*IMAGENET), IMAGES[:19], np.ones(19, np.int64)),
        (Bright(*IMAGENET), IMAGES, labels(0.5)),
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), IMAGES, np.full(60, 2)),
        (Bright((0.0,), (1.0,)), IMAGES[:, :2], np.ones(60, np.int64)),
    ],
    ids=["has one", "few images", "good enough", "nothing restores it", "no normaliser for two channels"],
)
def test_nothing_is_said_otherwise(model, images, classes):
    assert restoring(model, images, classes) is None
