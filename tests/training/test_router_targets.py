"""Two groups of images, told apart by their lower half: one far from the class border, the other near it."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from smoothing import SmoothedClassifier
from training import RouterSampling, expected_radii, validate_router
from training.chunks import FIRST_INDEX

SIGMAS = np.array([0.1, 0.8])
ROUTER_SIGMA, ALPHA = 0.5, 0.01
SAMPLING = RouterSampling(n0=200, n=1000, n_router=300, alpha=ALPHA)


class Halves(nn.Module):
    """Logits from the length of a half of the image: `low` for the lower half, else the upper."""

    def __init__(self, *, low, sign=1):
        super().__init__()
        self.rows = slice(2, 4) if low else slice(0, 2)
        self.sign = sign

    def forward(self, images):
        score = self.sign * (images[:, :, self.rows] - 0.5).flatten(1).sum(dim=1) / 8**0.5  # a distance to the border
        return torch.stack([-score, score], dim=1)


@pytest.fixture(scope="module")
def data():
    """60 images of two classes, half of them 0.9 from the border, half 0.15, as the lower half says; and labels."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 60)
    margin = np.repeat([0.9, 0.15], 30) * np.where(labels == 1, 1, -1)
    images = np.empty((60, 1, 4, 4), dtype=np.float32)
    images[:, :, :2] = (0.5 + margin / 8**0.5)[:, None, None, None]
    images[:, :, 2:] = np.repeat([1.0, 0.0], 30)[:, None, None, None]
    return images, labels


@pytest.fixture
def base():
    return SmoothedClassifier(Halves(low=False), 2, threads=1, seed=3)


def test_targets_are_the_radii_of_the_label_at_every_level(base, data):
    images, labels = data
    wrong = labels.copy()
    wrong[:7] = 1 - wrong[:7]
    names = np.arange(60) * 11
    found = expected_radii(base, images, wrong, sigmas=SIGMAS, n0=200, n=1000, alpha=ALPHA, indices=names)
    assert found.shape == (60, 2)
    assert (found[:7] == 0).all()
    # near the true radii of a linear classifier, which are its margins, as far as 1,000 samples can show them
    most = SIGMAS * stats.norm.ppf(ALPHA ** (1 / 1000))
    assert (found[7:30, 0] <= most[0]).all()
    assert (found[7:30, 0] > 0.9 * most[0]).all()
    assert found[7:30, 1].mean() == pytest.approx(0.9, rel=0.15)
    assert found[30:, 0].mean() == pytest.approx(0.15, rel=0.2)
    # by the public choice of levels, image by image, with the noise of no test image
    for i in (0, 10, 40):
        alone = base.select_sigma(
            images[[i]], SIGMAS, n0=200, rule="expected-radius", n=1000, alpha=ALPHA, indices=[FIRST_INDEX + names[i]]
        )
        right = alone.classes[0] == wrong[i]
        np.testing.assert_array_equal(found[i], np.where(right, alone.expected_radius[0], 0))


@pytest.mark.parametrize(("router_sigma", "better"), [(ROUTER_SIGMA, True), (0.25, False)])
def test_the_radius_of_a_router_that_tells_the_groups_apart_is_that_of_the_certificate(
    base, data, router_sigma, better
):
    # with little noise of its own the router clears 2.4 * 0.25 at most, less than the radii of the first group
    images, labels = data
    router = Halves(low=True)
    found = validate_router(
        base, router, images, labels=labels, sigmas=SIGMAS, router_sigma=router_sigma, sampling=SAMPLING
    )
    # by hand, image by image
    names = FIRST_INDEX + np.arange(60)
    votes = SmoothedClassifier(router, 2, threads=1, seed=3).predict(images, router_sigma, n=300, indices=names).votes
    tables = {
        alpha: base.select_sigma(images, SIGMAS, n0=200, rule="expected-radius", n=1000, alpha=alpha, indices=names)
        for alpha in (ALPHA, ALPHA / 2)
    }
    routed, smaller = [], []
    for i in range(60):
        anchor = int(votes[i, 1] > votes[i, 0])
        other = 1 - anchor
        own = math.ceil((votes[i, anchor] + 0.5) / 301 * 1000)  # of 1,000 votes, if they fall as these do
        imagined = own + math.ceil((votes[i, other] + 0.5) / 301 * 1000)
        lower = stats.beta.ppf(ALPHA / 2, own, imagined - own + 1)  # Clopper and Pearson
        t = router_sigma * stats.norm.ppf(lower)
        classes, radii = tables[ALPHA / 2].classes[i], tables[ALPHA / 2].expected_radius[i]
        right = classes[anchor] == labels[i]
        agreeing = radii[other] if classes[other] == classes[anchor] else 0
        routed.append(right * min(radii[anchor], max(agreeing, t)))
        smaller.append(right * min(radii[anchor], t))
    constant = np.where(tables[ALPHA].classes == labels[:, None], tables[ALPHA].expected_radius, 0)
    best = constant.mean(axis=0).argmax()
    gained = np.array(routed) - constant[:, best]
    assert found.constant == pytest.approx(constant.mean(axis=0))
    assert found.best == pytest.approx(constant.max(axis=1).mean())
    assert found.router == pytest.approx(np.mean(routed), rel=1e-6)
    assert found.min_radius == pytest.approx(np.mean(smaller), rel=1e-6)
    assert found.error == pytest.approx(stats.sem(gained), rel=1e-4)
    assert (found.level, found.difference) == (best, pytest.approx(gained.mean(), rel=1e-4))
    assert found.better == better
    assert found.min_radius <= found.router <= found.best
    assert found.passes == 60 * (2 * 2 * 200 + 300)


def test_a_router_that_is_wrong_or_constant_is_not_better(base, data):
    images, labels = data
    how = {"router_sigma": ROUTER_SIGMA, "sampling": SAMPLING}
    swapped = validate_router(base, Halves(low=True, sign=-1), images, labels=labels, sigmas=SIGMAS, **how)
    assert swapped.difference < 0
    assert not swapped.better
    always = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    nn.init.zeros_(always[1].weight)
    always[1].bias.data = torch.tensor([0.0, 1.0])
    constant = validate_router(base, always, images, labels=labels, sigmas=SIGMAS, **how)
    # it costs alpha, and R_S ends some radii: never more than the constant level itself
    assert constant.router <= constant.constant[1]
    assert not constant.better


def test_one_image_and_a_router_of_other_levels_are_refused(base, data):
    images, labels = data
    how = {"router_sigma": ROUTER_SIGMA, "sampling": SAMPLING}
    with pytest.raises(ValueError, match="1 held-out images: too few to tell a gain from chance; give two or more"):
        validate_router(base, Halves(low=True), images[:1], labels=labels[:1], sigmas=SIGMAS, **how)
    with pytest.raises(ValueError, match=r"the model returned \(.*, 2\) for .* images of 3 classes"):
        validate_router(base, Halves(low=True), images, labels=labels, sigmas=np.array([0.1, 0.2, 0.3]), **how)


def test_a_gain_within_chance_is_no_gain(base, data):
    images, labels = data
    how = {"router_sigma": ROUTER_SIGMA, "sampling": SAMPLING, "unseen": 12}
    found = validate_router(base, Halves(low=True), images, labels=labels, sigmas=SIGMAS, **how)
    assert found.unseen == 12
    vague = type(found)(**{**vars(found), "error": found.difference / 1.6})
    clear = type(found)(**{**vars(found), "error": found.difference / 1.7})
    assert (vague.better, clear.better) == (False, True)


def test_labels_of_held_out_images_count_right_answers_alone(base, data):
    images, labels = data
    how = {"router_sigma": ROUTER_SIGMA, "sampling": SAMPLING}
    found = validate_router(base, Halves(low=True), images, labels=1 - labels, sigmas=SIGMAS, **how)
    assert found.router == found.min_radius == 0
    assert max(found.constant) < 0.02  # an image near the border may vote for the other class at the large level
