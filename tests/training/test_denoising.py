"""What a denoiser minimises, by hand, and what training gives it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from training import Engine, Stage, build, digits, fit
from training.denoisers import Denoiser, denoiser_network
from training.denoising import DenoisingLearner, Stability
from training.losses import mean_squared_error

CPU = Engine(device="cpu")
STAGE = Stage(epochs=1, sigma=(0.3, 0.3), lr=3e-3, optimizer="adam", batch_size=64, loss=mean_squared_error)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_squared_error_by_hand():
    images = torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    cleaned = torch.tensor([[[0.0, 0.0], [0.5, 0.5]], [[1.0, 1.0], [0.5, 0.1]]])  # two copies of each
    found = mean_squared_error(cleaned, images, torch.ones(2))
    assert found.tolist() == pytest.approx([(0.5 + 0.5) / 2, (0 + 0.08) / 2])


class Scores(nn.Module):
    """Logits (sum of the pixels, 1)."""

    def forward(self, images):
        assert images.shape[1:] == (1, 1, 2)
        score = images.flatten(1).sum(dim=1)
        return torch.stack([score, torch.ones_like(score)], dim=1)


def test_the_stability_loss_by_hand():
    images = torch.tensor([[2.0, 1.0], [0.0, 0.0]])  # of classes 0 and 1
    cleaned = torch.tensor([[[1.0, 1.0], [0.0, 2.0]], [[0.0, 0.0], [0.0, 0.0]]])
    found = Stability(Scores(), (1, 1, 2))(cleaned, images, torch.ones(2))
    first = (math.log(1 + math.exp(1 - 2)) + math.log(1 + math.exp(1 - 0))) / 2
    second = (math.log(1 + math.exp(2 - 1)) + math.log(1 + math.exp(0 - 1))) / 2
    assert found.tolist() == pytest.approx([first, second])


class Spy(Denoiser):
    """Remembers what it was asked for, and returns the images times a weight."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.ones(())), []

    def forward(self, images, sigma):
        self.seen.append((images.detach().clone(), sigma.clone()))
        return self.weight * images


def test_each_copy_comes_with_its_own_level():
    sigma = np.where(np.arange(200) % 2, 0.5, 0.1).astype(np.float32)
    images = np.full((200, 1, 16, 16), 0.25, dtype=np.float32)
    spy = Spy()
    stage = replace(STAGE, sigma=sigma, m=3, lr=1e-9, batch_size=50)
    rows = fit(spy, images, np.zeros(200, dtype=np.int64), stage=stage, engine=CPU, kind=DenoisingLearner)
    noisy, level = (torch.cat(parts) for parts in zip(*spy.seen, strict=True))
    assert len(noisy) == 600
    assert sorted(level.unique().tolist()) == pytest.approx([0.1, 0.5])
    deviation = (noisy - 0.25).flatten(1).square().mean(dim=1).sqrt() / level  # 256 pixels: 1 +- 0.044
    assert (deviation - 1).abs().max() < 0.3
    assert rows[0].loss == pytest.approx((0.1**2 + 0.5**2) / 2, rel=0.05)  # nothing is taken away
    assert rows[0].accuracy < 0.6  # the weight is 1 but for a billionth: near and far is a matter of chance


def test_a_denoiser_learns_more_than_a_linear_one_knows():
    data = digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = denoiser_network("unet_small", 1)
    stage = replace(STAGE, epochs=25, sigma=(0.2, 0.5), schedule="cosine")
    fit(net, data.train_images, data.train_labels, stage=stage, engine=CPU, kind=DenoisingLearner)
    images = torch.from_numpy(data.test_images)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    mean, sd = data.train_images.mean(axis=0), data.train_images.std(axis=0)  # of every pixel
    for sigma in (0.25, 0.5):
        noisy = images + sigma * noise
        linear = torch.from_numpy(mean + sd**2 / (sd**2 + sigma**2 + 1e-12) * (noisy.numpy() - mean))
        with torch.no_grad():
            ours = (net.at(sigma)(noisy) - images).square().mean()
        assert ours < 0.9 * (linear - images).square().mean()


def test_finetuning_keeps_the_answers_of_a_classifier():
    data = digits()
    classifier = build("digits_cnn", 10, seed=0)
    quick = Stage(epochs=15, sigma=(0.0, 0.0), lr=3e-3, optimizer="adam", batch_size=64)
    fit(classifier, data.train_images, data.train_labels, stage=quick, engine=CPU)
    before = nn.utils.parameters_to_vector(classifier.parameters()).clone()
    images = torch.from_numpy(data.test_images)
    noisy = images + 0.5 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = denoiser_network("unet_small", 1)

    def kept():
        with torch.no_grad():
            return float((classifier(net.at(0.5)(noisy)).argmax(1) == classifier(images).argmax(1)).float().mean())

    begun = kept()
    stage = replace(STAGE, epochs=10, sigma=(0.5, 0.5), loss=Stability(classifier.requires_grad_(False), (1, 8, 8)))
    wrong = np.zeros(len(data.train_labels), dtype=np.int64)  # labels are not looked at
    fit(net, data.train_images, wrong, stage=stage, engine=CPU, kind=DenoisingLearner)
    assert kept() > begun + 0.1
    assert torch.equal(nn.utils.parameters_to_vector(classifier.parameters()), before)
