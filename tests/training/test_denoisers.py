"""Denoisers: what they compute where that is known, and that what is certified is what was asked for."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from smoothing import SmoothedClassifier
from training import build
from training.denoisers import (
    DENOISERS,
    DenoisedClassifier,
    Denoiser,
    DenoisingUNet,
    DiffusionDenoiser,
    denoised,
    denoiser_network,
)

SIGMAS = (0.1, 0.25, 0.5, 1.0)

#: Signal that is left where noise of SIGMAS has been added to pixels in [0, 1]: (1 - a) / a = (2 sigma)^2.
ALPHAS = [1 / (1 + 4 * sigma**2) for sigma in SIGMAS]


class Shrink(Denoiser):
    """Moves pixels towards a mean by a factor that the level decides: the posterior mean of a Gaussian prior."""

    def __init__(self, mean=0.4, sd=0.2):
        super().__init__()
        self.mean, self.sd = mean, sd

    def factor(self, sigma):
        return self.sd**2 / (self.sd**2 + sigma**2)

    def forward(self, images, sigma):
        return self.mean + self.factor(sigma).reshape(-1, 1, 1, 1) * (images - self.mean)


class Line(nn.Module):
    """Two classes, apart by a plane."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), bias

    def forward(self, images):
        score = images.flatten(1) @ self.weight + self.bias
        return torch.stack([score, -score], dim=1)


class Noise(nn.Module):
    """The noise in x_t, known exactly, for images that are drawn from a Gaussian of this mean and deviation."""

    def __init__(self, mean, sd, extra=0):
        super().__init__()
        self.mean, self.sd, self.extra, self.asked = mean, sd, extra, []

    def forward(self, x, t):
        self.asked += t.tolist()
        alpha = torch.tensor(ALPHAS)[t].reshape(-1, 1, 1, 1)
        gain = alpha.sqrt() * self.sd**2 / (alpha * self.sd**2 + 1 - alpha)
        expected = self.mean + gain * (x - alpha.sqrt() * self.mean)  # E[x_0 | x_t]
        noise = (x - alpha.sqrt() * expected) / (1 - alpha).sqrt()
        return torch.cat([noise, torch.full_like(noise, 1e3).repeat(1, self.extra, 1, 1)], dim=1)


@pytest.fixture
def images():
    return torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_a_denoised_classifier_classifies_what_the_denoiser_returns(images):
    classifier, denoiser = Line(torch.linspace(-1, 1, 16), 0.1), Shrink()
    model = DenoisedClassifier(denoiser.at(0.25), classifier)
    factor = 0.04 / (0.04 + 0.0625)
    assert torch.allclose(model(images), classifier(0.4 + factor * (images - 0.4)), atol=1e-6)


def test_certificates_are_those_of_the_composed_classifier(images):
    sigmas, weight, bias = [0.25, 0.5], torch.linspace(-1, 1.2, 16), 0.05
    denoiser = Shrink()
    smoothed = SmoothedClassifier(denoised(denoiser, Line(weight, bias), sigmas), 2, threads=1)
    for sigma in sigmas:
        factor = denoiser.factor(sigma)  # the same plane, moved: its smoothed radius is the distance to it
        score = factor * images.flatten(1) @ weight + (1 - factor) * 0.4 * weight.sum() + bias
        distance = (score.abs() / (factor * weight.norm())).detach().double().numpy()
        found = smoothed.certify(images, sigma, n0=200, n=20_000, alpha=1e-6)
        voted = found.predict >= 0
        assert voted.sum() >= 4
        assert (found.predict[voted] == (score < 0).long().numpy()[voted]).all()
        assert (found.radius <= distance).all()  # each fails with probability at most 1e-6
        p = norm.cdf(distance / sigma)  # of the class; the bound is 5 deviations below the votes, chance another 5
        least = sigma * norm.ppf(np.clip(p - 10 * np.sqrt(p * (1 - p) / 20_000) - 20 / 20_000, 1e-9, 1))
        assert (found.radius >= least)[voted].all()


def test_identity_covers_level_denoiser_and_classifier():
    def weights(sigmas=(0.25, 0.5), seed=0, classifier=0, change=0.0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            denoiser = DenoisingUNet(1)
        with torch.no_grad():
            denoiser.leave.bias += change
        model = build("digits_cnn", 10, seed=classifier)
        return SmoothedClassifier(denoised(denoiser, model, sigmas), 10).identity.weights

    same = weights()
    assert weights() == same
    assert len({same, weights((0.25, 0.6)), weights(seed=1), weights(classifier=1), weights(change=1e-6)}) == 5
    # the same module under another level's name is another classifier, also where there is one level
    net = DenoisingUNet(1)
    one, other = (SmoothedClassifier(DenoisedClassifier(net.at(s), build("digits_cnn", 10)), 10) for s in (0.2, 0.3))
    assert one.identity.weights != other.identity.weights


def test_a_denoiser_of_each_level_and_a_classifier_of_each(images):
    denoisers = {0.1: nn.Identity(), 0.2: Shrink().at(0.2)}
    classifiers = {0.1: Line(torch.ones(16), 0.0), 0.2: Line(torch.ones(16), 1.0)}
    found = denoised(denoisers, classifiers, [0.1, 0.2])
    assert list(found) == [0.1, 0.2]
    assert torch.allclose(found[0.1](images)[:, 0], images.sum(dim=(1, 2, 3)))
    assert torch.allclose(found[0.2](images)[:, 0], (0.4 + 0.5 * (images - 0.4)).sum(dim=(1, 2, 3)) + 1)
    with pytest.raises(ValueError, match=r"^sigma = 0\.3 has no denoiser: there is one for 0\.1"):
        denoised({0.1: nn.Identity()}, nn.Identity(), [0.1, 0.3])
    with pytest.raises(ValueError, match=r"^sigma = 0\.3 has no classifier: there is one for 0\.1"):
        denoised(Shrink(), {0.1: nn.Identity()}, [0.3])


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_a_level_that_is_none_has_no_denoiser(sigma):
    with pytest.raises(ValueError, match="a denoiser needs a level that is finite and > 0"):
        Shrink().at(sigma)


class Wrong(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, *given):
        return self.answer(given[0])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x[..., :3], r"the denoiser returned \(\d+, 1, 4, 3\) for images of shape \(\d+, 1, 4, 4\)"),
        (lambda x: None, r"the denoiser returned NoneType for images of shape"),
        (lambda x: x + torch.rand_like(x), r"the model answers the same images differently when asked again"),
    ],
)
def test_a_denoiser_that_is_none_is_refused_in_a_line(images, answer, message):
    smoothed = SmoothedClassifier(DenoisedClassifier(Wrong(answer), Line(torch.ones(16), -8.0)), 2, threads=1)
    with pytest.raises(ValueError, match=message) as error:
        smoothed.certify(images, 0.25, n0=10, n=50)
    assert "\n" not in str(error.value)


# --- diffusion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sd", [0.0, 0.3])
@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("extra", [0, 1])
def test_with_the_true_noise_one_step_is_the_posterior_mean(sd, sigma, extra):
    mean = -0.2  # of pixels in [-1, 1]: 0.4 of those in [0, 1], whose deviation is half as large
    eps = Noise(mean, sd, extra)
    denoiser = DiffusionDenoiser(eps, ALPHAS, clip=False)
    noisy = 0.4 + 0.5 * torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    shrunk = (sd / 2) ** 2 / ((sd / 2) ** 2 + sigma**2)
    expected = 0.4 + shrunk * (noisy - 0.4)
    assert torch.allclose(denoiser.at(sigma)(noisy), expected, atol=2e-5)
    assert set(eps.asked) == {SIGMAS.index(sigma)}


def test_the_step_is_that_of_published_code():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alphas = (1 - betas).cumprod(dim=0)
    denoiser = DiffusionDenoiser(nn.Identity(), alphas.float())
    for sigma in (0.06, 0.12, 0.25, 0.5, 1.0, 3.0):
        t, real = 0, 0.0
        while real < 2 * sigma:  # diffusion denoised smoothing's way to find it
            t += 1
            real = math.sqrt((1 - alphas[t]) / alphas[t])
        assert denoiser.step(torch.tensor([sigma])).tolist() == [t]


def test_each_image_has_its_own_step():
    eps = Noise(0.0, 0.3)
    DiffusionDenoiser(eps, ALPHAS)(torch.rand(4, 1, 4, 4), torch.tensor([0.05, 0.2, 0.25, 0.9]))
    assert eps.asked == [0, 1, 1, 3]


def test_pixels_stay_where_pixels_are_unless_somebody_says_otherwise():
    far = torch.full((1, 1, 2, 2), 3.0)
    eps = Wrong(torch.zeros_like)
    assert torch.equal(DiffusionDenoiser(eps, ALPHAS).at(0.25)(far), torch.ones(1, 1, 2, 2))
    assert torch.allclose(DiffusionDenoiser(eps, ALPHAS, clip=False).at(0.25)(far), far)


@pytest.mark.parametrize(
    ("alphas", "message"),
    [
        ([], "expected one number for each step"),
        ([[0.9, 0.5]], "expected one number for each step"),
        ([1.0, 0.5], "strictly between 0 and 1"),
        ([0.9, 0.0], "strictly between 0 and 1"),
        ([0.9, math.nan], "strictly between 0 and 1"),
        ([0.5, 0.9], "must fall from step to step"),
    ],
)
def test_alphas_that_are_none_are_refused(alphas, message):
    with pytest.raises(ValueError, match=f"^alphas_cumprod: .*{message}"):
        DiffusionDenoiser(nn.Identity(), alphas)


def test_more_noise_than_the_diffusion_knows_is_refused():
    denoiser = DiffusionDenoiser(nn.Identity(), ALPHAS)
    denoiser.at(1.0)
    with pytest.raises(ValueError, match=r"^sigma = 1\.1: the diffusion's last step has noise 1; take smaller levels"):
        denoiser.at(1.1)


@pytest.mark.parametrize(
    ("answer", "found"),
    [(lambda x: x[:, :, :1], r"\(2, 1, 1, 4\)"), (lambda x: [x], "list"), (lambda x: x.repeat(1, 3, 1, 1), r"\(2, 3")],
)
def test_what_is_no_noise_is_refused(answer, found):
    denoiser = DiffusionDenoiser(Wrong(answer), ALPHAS).at(0.25)
    with pytest.raises(ValueError, match=f"^the diffusion model returned {found}"):
        denoiser(torch.rand(2, 1, 4, 4))


# --- our own network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", DENOISERS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (1, 28, 28), (2, 7, 5)])
def test_a_network_begins_as_the_best_linear_denoiser_and_takes_any_size(arch, shape):
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(2))
    net = denoiser_network(arch, shape[0])
    shrunk = 0.35**2 / (0.35**2 + 0.5**2)
    assert torch.allclose(net.at(0.5)(images), 0.3 + shrunk * (images - 0.3), atol=1e-6)
    with torch.no_grad():
        net.leave.weight.normal_(generator=torch.Generator().manual_seed(3))
    both = net(images, torch.tensor([0.1, 0.5, 0.5]))
    assert torch.allclose(both[:1], net.at(0.1)(images[:1]), atol=1e-5)
    assert torch.allclose(both[1:], net.at(0.5)(images[1:]), atol=1e-5)
    change = (net.at(0.5)(images) - net.at(0.4)(images)).abs().max()
    assert change > 0.01


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match=r"^arch = 'unet_big': choose unet_small, unet$"):
        denoiser_network("unet_big", 1)
