import math

import pytest
import torch
from scipy import stats

from training import Consistency, Macer, best_level, cross_entropy, soft_radius


def logit(p):
    return math.log(p / (1 - p))


def test_cross_entropy_is_the_mean_over_the_copies():
    logits = torch.tensor([[[logit(0.8), 0.0]], [[logit(0.5), 0.0]]], dtype=torch.float64)
    loss = cross_entropy(logits, torch.tensor([0]), torch.tensor([0.5]))
    assert loss.tolist() == pytest.approx([-(math.log(0.8) + math.log(0.5)) / 2])


def test_macer_by_hand():
    # Two classes, z^_y = Phi(1) after sharpening: xi = 1 - (-1) = 2, so the hinge leaves 8 - 2 = 6.
    beta = 16.0
    sharp = logit(stats.norm.cdf(1.0))
    logits = torch.tensor([[[sharp / beta, 0.0]]], dtype=torch.float64)
    z = 1 / (1 + math.exp(-sharp / beta))
    loss = Macer(lam=12.0, beta=beta, gamma=8.0)(logits, torch.tensor([0]), torch.tensor([0.5], dtype=torch.float64))
    assert loss.tolist() == pytest.approx([-math.log(z) + 12.0 * 0.5 / 2 * 6.0])


def test_macer_averages_probabilities_before_the_logarithm():
    # One copy says Phi(2), the other Phi(0) = 1/2, sharpened: z^_y is their mean, and so is z at inverse temperature 1.
    a, b = logit(stats.norm.cdf(2.0)), 0.0
    logits = torch.tensor([[[a, 0.0]], [[b, 0.0]]], dtype=torch.float64)
    mean = (stats.norm.cdf(2.0) + 0.5) / 2
    xi = 2 * stats.norm.ppf(mean)
    loss = Macer(lam=1.0, beta=1.0, gamma=8.0)(logits, torch.tensor([0]), torch.tensor([2.0], dtype=torch.float64))
    assert loss.tolist() == pytest.approx([-math.log(mean) + 8.0 - xi])


@pytest.mark.parametrize(
    ("first", "label", "why"),
    [
        (stats.norm.cdf(1.0), 1, "the smoothed class is wrong"),
        (stats.norm.cdf(2.1), 0, "xi = 4.2 is beyond gamma = 4"),
        (1.0 - 1e-300, 0, "xi is infinite"),
    ],
)
def test_macer_widens_no_radius_where(first, label, why):
    logits = torch.tensor([[[logit(first) if first < 1 else 800.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    loss = Macer(lam=16.0, beta=1.0, gamma=4.0)(logits, torch.tensor([label]), torch.ones(1, dtype=torch.float64))
    plain = cross_entropy(logits, torch.tensor([label]), torch.ones(1))
    torch.testing.assert_close(loss, plain)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert gradient.isfinite().all()


def test_macer_weighs_every_image_with_its_own_sigma():
    logits = torch.full((1, 2, 2), 0.0, dtype=torch.float64)
    logits[:, :, 0] = 0.3
    sigma = torch.tensor([0.25, 1.0], dtype=torch.float64)
    loss = Macer(beta=1.0)(logits, torch.tensor([0, 0]), sigma)
    classification = cross_entropy(logits, torch.tensor([0, 0]), sigma)
    radius = loss - classification
    assert radius[1].item() == pytest.approx(4 * radius[0].item())
    assert radius[0] > 0


def test_macers_gradient_agrees_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((4, 6, 5), generator=generator, dtype=torch.float64, requires_grad=True)
    labels = logits.detach().mean(dim=0).argmax(dim=1)
    sigma = torch.linspace(0.2, 1.0, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: Macer(beta=2.0)(x, labels, sigma), logits)


#: Two copies of one image that are (.8, .2) and (.4, .6) sure: on average (.6, .4).
TWO = torch.tensor([[[logit(0.8), 0.0]], [[logit(0.4), 0.0]]], dtype=torch.float64)


def test_consistency_by_hand():
    divergence = (
        0.6 * math.log(0.6 / 0.8) + 0.4 * math.log(0.4 / 0.2) + 0.6 * math.log(0.6 / 0.4) + 0.4 * math.log(0.4 / 0.6)
    ) / 2
    entropy = -0.6 * math.log(0.6) - 0.4 * math.log(0.4)
    classification = -(math.log(0.8) + math.log(0.4)) / 2
    loss = Consistency(lam=7.0, eta=0.3)(TWO, torch.tensor([0]), torch.ones(1))
    assert loss.tolist() == pytest.approx([classification + 7.0 * divergence + 0.3 * entropy])
    wrong = Consistency(lam=7.0, eta=0.3)(TWO, torch.tensor([1]), torch.ones(1))
    assert wrong.tolist() == pytest.approx(
        [-(math.log(0.2) + math.log(0.6)) / 2 + 7.0 * divergence + 0.3 * entropy]  # the penalty has no label in it
    )


def test_consistency_without_weights_is_cross_entropy():
    labels = torch.tensor([1])
    assert Consistency(lam=0.0, eta=0.0)(TWO, labels, torch.ones(1)) == cross_entropy(TWO, labels, torch.ones(1))


def test_copies_that_agree_leave_the_entropy_alone():
    logits = TWO[:1].repeat(3, 1, 1)
    loss = Consistency(lam=1e6, eta=2.0)(logits, torch.tensor([0]), torch.ones(1))
    assert loss.tolist() == pytest.approx([-math.log(0.8) + 2.0 * (-0.8 * math.log(0.8) - 0.2 * math.log(0.2))])


def test_equal_weights_are_the_cross_entropy_to_the_mean():
    # lambda = eta: mean_i KL(F^ || F_i) + H(F^) = -mean_i sum_c F^_c log F_i,c
    logits = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = logits.softmax(dim=2)
    labels = torch.tensor([0, 1, 2, 3, 0])
    loss = Consistency(lam=1.5, eta=1.5)(logits, labels, torch.ones(5))
    to_the_mean = -(p.mean(dim=0) * p.log()).sum(dim=2).mean(dim=0)
    torch.testing.assert_close(loss, cross_entropy(logits, labels, torch.ones(5)) + 1.5 * to_the_mean)


def test_consistency_s_gradient_agrees_with_finite_differences_and_is_finite_where_a_probability_is_0():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((3, 6, 5), generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(6) % 5
    assert torch.autograd.gradcheck(lambda x: Consistency(3.0, 0.7)(x, labels, torch.ones(6)), logits)
    for second in ([0.0, 900.0], [800.0, 0.0]):  # 0 in one copy, and on average
        sure = torch.tensor([[[900.0, 0.0]], [second]], requires_grad=True)
        loss = Consistency()(sure, torch.tensor([0]), torch.ones(1))
        (gradient,) = torch.autograd.grad(loss.sum(), sure)
        assert loss.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("options", [{"lam": -1.0}, {"eta": -0.1}, {"eta": math.inf}, {"lam": math.nan}])
def test_bad_weights_of_consistency_are_named(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} = "):
        Consistency(**options)


@pytest.mark.parametrize("options", [{"lam": -1.0}, {"beta": 0.0}, {"gamma": math.inf}, {"lam": math.nan}])
def test_bad_numbers_are_named(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} = "):
        Macer(**options)


def test_soft_radius_is_what_the_soft_choice_loses():
    # Two copies choose (.8, .2) and (.4, .6): on average (.6, .4), which is worth .6 * 1 + .4 * 3 = 1.8 of 3.
    logits = torch.tensor([[[logit(0.8), 0.0]], [[logit(0.4), 0.0]]], dtype=torch.float64)
    radii = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
    assert soft_radius(logits, radii, torch.tensor([0.5])).tolist() == pytest.approx([1.2])
    sure = torch.tensor([[[0.0, 60.0], [60.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    table = torch.tensor([[1.0, 3.0], [1.0, 3.0], [2.0, 2.0]], dtype=torch.float64)
    assert soft_radius(sure, table, torch.ones(3)).tolist() == pytest.approx([0.0, 2.0, 0.0])


def test_best_level_is_the_cross_entropy_to_the_first_largest_radius():
    logits = torch.log(torch.tensor([[[0.5, 0.3, 0.2]] * 3, [[0.5, 0.1, 0.4]] * 3], dtype=torch.float64))
    radii = torch.tensor([[0.1, 0.0, 0.4], [0.0, 0.7, 0.7], [0.0, 0.0, 0.0]], dtype=torch.float64)
    expected = [-(math.log(0.2) + math.log(0.4)) / 2, -(math.log(0.3) + math.log(0.1)) / 2, 0.0]
    assert best_level(logits, radii, torch.ones(3)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("loss", [soft_radius, best_level])
def test_the_slope_of_a_router_s_loss_is_that_of_its_value(loss):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    radii = torch.rand(4, 3, dtype=torch.float64, generator=generator)
    radii[3] = 0
    assert torch.autograd.gradcheck(lambda x: loss(x, radii, torch.ones(4)), (logits,))
    loss(logits, radii, torch.ones(4)).sum().backward()
    assert (logits.grad[:, :3] != 0).all()
    assert (logits.grad[:, 3] == 0).all()  # nothing to choose where there is no radius
    # a small step against the slope makes each loss smaller
    after = loss((logits - 1e-3 * logits.grad).detach(), radii, torch.ones(4))
    assert (after[:3] < loss(logits.detach(), radii, torch.ones(4))[:3]).all()
