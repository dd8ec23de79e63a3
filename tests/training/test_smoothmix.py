"""SmoothMix against its formula by hand, and against a model whose adversarial images are known."""

import math

import pytest
import torch
from torch import nn

from training import SmoothMix

#: Two copies of one image that are (.8, .2) and (.4, .6) sure, on average (.6, .4); and of its mixed image.
OWN = torch.log(torch.tensor([[[0.8, 0.2]], [[0.4, 0.6]]], dtype=torch.float64))
MIXED = torch.log(torch.tensor([[[0.5, 0.5]], [[0.7, 0.3]]], dtype=torch.float64))
RIGHT, WRONG = torch.tensor([0]), torch.tensor([1])


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize(
    ("share", "target"),
    [
        (0.0, (0.6, 0.4)),
        (0.25, (0.575, 0.425)),  # .75 * .6 + .25 / 2
        (0.5, (0.55, 0.45)),
    ],
)
def test_the_loss_by_hand(share, target):
    loss = SmoothMix(eta=3.0).loss(OWN, MIXED, RIGHT, share=torch.tensor([share], dtype=torch.float64))
    assert loss.tolist() == pytest.approx([3.0 * (kl(target, (0.5, 0.5)) + kl(target, (0.7, 0.3))) / 2])


def test_the_target_of_three_classes_is_mixed_with_a_third():
    own = torch.log(torch.tensor([[[0.7, 0.2, 0.1]]], dtype=torch.float64))
    mixed = torch.log(torch.tensor([[[0.3, 0.3, 0.4]]], dtype=torch.float64))
    target = (0.6 * 0.7 + 0.4 / 3, 0.6 * 0.2 + 0.4 / 3, 0.6 * 0.1 + 0.4 / 3)
    loss = SmoothMix(eta=1.0).loss(own, mixed, RIGHT, share=torch.tensor([0.4], dtype=torch.float64))
    assert loss.tolist() == pytest.approx([kl(target, (0.3, 0.3, 0.4))])


@pytest.mark.parametrize(("eta", "labels"), [(3.0, WRONG), (0.0, RIGHT)])
def test_nothing_is_added_where_the_smoothed_class_is_wrong_or_the_weight_is_0(eta, labels):
    own, mixed = OWN.clone().requires_grad_(), MIXED.clone().requires_grad_()
    loss = SmoothMix(eta=eta).loss(own, mixed, labels, share=torch.tensor([0.25], dtype=torch.float64))
    assert loss.tolist() == [0.0]
    for gradient in torch.autograd.grad(loss.sum(), (own, mixed)):
        assert not gradient.any()


def test_the_gradient_agrees_with_finite_differences_in_both_sets():
    generator = torch.Generator().manual_seed(0)
    own, mixed = (
        torch.randn((2, 6, 4), generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    labels = own.detach().softmax(dim=2).mean(dim=0).argmax(dim=1)
    labels[0] = (labels[0] + 1) % 4
    share = torch.linspace(0.0, 0.5, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x, y: SmoothMix(eta=2.0).loss(x, y, labels, share=share), (own, mixed))


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_gradient_is_finite_where_a_probability_is_0(share):
    own = torch.tensor([[[900.0, 0.0]], [[800.0, 0.0]]], requires_grad=True)
    mixed = torch.tensor([[[0.0, 900.0]], [[0.0, 0.0]]], requires_grad=True)
    loss = SmoothMix().loss(own, mixed, RIGHT, share=torch.tensor([share]))
    assert loss.isfinite().all()
    for gradient in torch.autograd.grad(loss.sum(), (own, mixed)):
        assert gradient.isfinite().all()


class Plane(nn.Module):
    """Class 0 where the sum of the pixels is small: adversarial images of it are brighter, of class 1 darker."""

    def forward(self, images):
        total = images.flatten(1).mean(dim=1) - 0.5
        return torch.stack([-total, total], dim=1)


def test_the_mixed_image_lies_on_the_way_to_one_that_is_reach_times_sigma_away():
    images = torch.full((3, 1, 8, 8), 0.5)
    labels, sigma, share = torch.tensor([0, 1, 0]), torch.tensor([0.1, 0.1, 0.4]), torch.tensor([0.5, 0.5, 0.25])
    noise = torch.zeros(2, 3, 1, 8, 8)
    found = SmoothMix(reach=4.0, steps=3).mixed(Plane(), images, labels, noise=noise, sigma=sigma, share=share)
    # 4 sigma along the diagonal of 64 pixels is sigma / 2 a pixel
    moved = torch.tensor([0.5 * 0.05, -0.5 * 0.05, 0.25 * 0.2]).reshape(3, 1, 1, 1)
    torch.testing.assert_close(found, images + moved.expand(3, 1, 8, 8))


def test_mixed_images_stay_in_the_box():
    images = torch.rand((4, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    found = SmoothMix().mixed(
        Plane(),
        images,
        torch.tensor([0, 1, 0, 1]),
        noise=torch.zeros(1, 4, 1, 8, 8),
        sigma=torch.full((4,), 10.0),
        share=torch.full((4,), 0.5),
    )
    assert found.min() >= 0
    assert found.max() <= 1
    assert (found - images).abs().max() > 0.3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eta": -1.0}, "eta = -1.0"),
        ({"eta": math.inf}, "eta = inf"),
        ({"reach": 0.0}, "reach = 0.0: must be finite and > 0"),
        ({"reach": math.nan}, "reach = nan"),
        ({"steps": 0}, "steps = 0: must be at least 1"),
    ],
)
def test_bad_numbers_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SmoothMix(**options)
