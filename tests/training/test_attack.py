import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from training import SmoothAdv, build, smoothed_loss

LABELS = torch.tensor([3, 1, 4, 1, 5])


def setup(m=4, dtype=torch.float32, sigma=0.3):
    generator = torch.Generator().manual_seed(0)
    model = build("digits_cnn", 10, seed=1).to(dtype)
    images = torch.rand((5, 1, 8, 8), generator=generator, dtype=dtype)
    levels = sigma * torch.arange(1, 6, dtype=dtype).reshape(1, 5, 1, 1, 1) / 5  # each image its own
    return model, images, levels * torch.randn((m, 5, 1, 8, 8), generator=generator, dtype=dtype)


def test_the_loss_is_minus_log_of_the_averaged_probability():
    model, images, noise = setup(m=3)
    p = torch.stack([model(images + eta).softmax(dim=1)[torch.arange(5), LABELS] for eta in noise])
    torch.testing.assert_close(smoothed_loss(model, images, LABELS, noise=noise), -p.mean(dim=0).log())


def test_the_loss_is_finite_where_probabilities_underflow():
    class Certain(nn.Module):
        def forward(self, images):
            return torch.tensor([0.0, -500.0]).expand(len(images), 2) + 0 * images.sum()

    images = torch.zeros((1, 1, 2, 2))
    loss = smoothed_loss(Certain(), images, torch.tensor([1]), noise=torch.zeros((4, 1, 1, 2, 2)))
    assert loss.item() == pytest.approx(500)


def test_the_gradient_agrees_with_finite_differences():
    model, images, noise = setup(dtype=torch.float64)
    images.requires_grad_()
    (gradient,) = torch.autograd.grad(smoothed_loss(model, images, LABELS, noise=noise).sum(), images)
    h = 1e-6
    for pixel in ((0, 0, 1, 2), (2, 0, 4, 4), (4, 0, 7, 0)):
        losses = []
        for sign in (1, -1):
            moved = images.detach().clone()
            moved[pixel] += sign * h
            losses.append(smoothed_loss(model, moved, LABELS, noise=noise)[pixel[0]].item())
        assert gradient[pixel].item() == pytest.approx((losses[0] - losses[1]) / (2 * h), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("method", ["pgd", "ddn"])
@settings(max_examples=25)
@given(epsilon=st.floats(0, 3), steps=st.integers(0, 6), m=st.integers(1, 3))
def test_examples_stay_in_the_ball_and_in_the_box(method, epsilon, steps, m):
    model, images, noise = setup(m)
    before = images.clone(), noise.clone()
    found = SmoothAdv(epsilon, steps, method=method)(model, images, LABELS, noise=noise)
    assert torch.equal(images, before[0])
    assert torch.equal(noise, before[1])
    assert not found.requires_grad
    assert found.min() >= 0
    assert found.max() <= 1
    assert (found - images).flatten(1).norm(dim=1).max() <= epsilon * (1 + 1e-5) + 1e-6
    if steps == 0:
        assert torch.equal(found, images)


@pytest.mark.parametrize("method", ["pgd", "ddn"])
def test_the_smoothed_loss_grows(method):
    model, images, noise = setup(m=8)
    labels = model(images).argmax(dim=1)
    with torch.no_grad():
        before = smoothed_loss(model, images, labels, noise=noise)
        found = SmoothAdv(1.0, 8, method=method)(model, images, labels, noise=noise)
        after = smoothed_loss(model, found, labels, noise=noise)
    assert torch.all(after > before)


def test_one_step_follows_the_normalised_gradient():
    model, images, noise = setup()
    images = 0.4 + 0.2 * images  # away from the box
    copy = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(smoothed_loss(model, copy, LABELS, noise=noise).sum(), copy)
    found = SmoothAdv(0.1, 1, step_size=0.05)(model, images, LABELS, noise=noise)
    expected = 0.05 * gradient / gradient.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(found - images, expected, rtol=1e-4, atol=1e-6)
    far = SmoothAdv(0.1, 1)(model, images, LABELS, noise=noise)  # 2 epsilon / steps, then back onto the ball
    torch.testing.assert_close(far - images, 2 * expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["pgd", "ddn"])
def test_a_scale_of_each_image_is_that_of_its_lengths(method):
    """Images that are twice as large, with twice the noise, of a model that halves them: all lengths are doubled."""

    class Halved(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model(images / 2)

    model, images, noise = setup()
    images = 0.2 + 0.1 * images  # away from the box, twice as large too
    alone = SmoothAdv(0.1, 3, method=method)(model, images, LABELS, noise=noise)
    scaled = SmoothAdv(0.1, 3, method=method)(
        Halved(model), 2 * images, LABELS, noise=2 * noise, scale=torch.full((5,), 2.0)
    )
    torch.testing.assert_close(scaled - 2 * images, 2 * (alone - images), rtol=1e-3, atol=1e-5)
    mixed = SmoothAdv(0.1, 3, method=method)(model, images, LABELS, noise=noise, scale=torch.tensor([1, 0.5, 1, 2, 1]))
    torch.testing.assert_close(mixed[[0, 2, 4]], alone[[0, 2, 4]])
    lengths = (mixed - images).flatten(1).norm(dim=1)
    assert lengths[1] <= 0.05 * (1 + 1e-5)
    assert 0.1 < lengths[3] <= 0.2 * (1 + 1e-5)


def test_a_walk_goes_on_from_where_it_is_told_to():
    """Two walks of one step, the second from the end of the first, are one walk of two steps."""
    model, images, noise = setup()
    images = 0.4 + 0.2 * images
    once = SmoothAdv(0.1, 1, step_size=0.03)
    first = once(model, images, LABELS, noise=noise)
    twice = once(model, images, LABELS, noise=noise, begin=first)
    assert torch.equal(twice, SmoothAdv(0.1, 2, step_size=0.03)(model, images, LABELS, noise=noise))
    assert not torch.equal(twice, first)


@pytest.mark.parametrize("method", ["pgd", "ddn"])
def test_images_without_a_gradient_stay_and_do_not_harm_the_others(method):
    class Half(nn.Module):
        """Flat where the first pixel is below 1/2."""

        def forward(self, images):
            steep = (images[:, 0, 0, 0] > 0.5).to(images.dtype).detach()
            return torch.stack([steep * images.flatten(1).sum(dim=1), torch.zeros(len(images))], dim=1)

    images = torch.full((2, 1, 2, 2), 0.6)
    images[0, 0, 0, 0] = 0.1
    found = SmoothAdv(0.2, 3, method=method)(
        Half(), images, torch.zeros(2, dtype=torch.int64), noise=torch.zeros((2, 2, 1, 2, 2))
    )
    assert torch.isfinite(found).all()
    assert torch.equal(found[0], images[0])
    assert not torch.equal(found[1], images[1])


@pytest.mark.parametrize("method", ["pgd", "ddn"])
def test_no_pass_is_wasted_and_the_model_is_left_as_it_was(method):
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(), nn.Linear(64, 10))

        def forward(self, images):
            seen.append(len(images))
            assert not self.training
            return self.net(images)

    _, images, noise = setup(m=3)
    model = Spy().train()
    model.net[2].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    SmoothAdv(0.5, 4, method=method)(model, images, LABELS, noise=noise)
    assert seen == [3 * 5] * 4  # k steps of m samples
    assert model.training
    assert not model.net[2].training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_ddn_stays_close_to_the_boundary():
    class Plane(nn.Module):
        """Class 0 where the mean pixel is above 1/2."""

        def forward(self, images):
            score = 50 * (images.flatten(1).mean(dim=1) - 0.5)
            return torch.stack([score, -score], dim=1)

    images = torch.full((1, 1, 8, 8), 0.55)  # 8 * 0.05 = 0.4 from the boundary
    noise = torch.zeros((1, 1, 1, 8, 8))
    found = SmoothAdv(3.0, 60, method="ddn")(Plane(), images, torch.zeros(1, dtype=torch.int64), noise=noise)
    assert float((found - images).norm()) == pytest.approx(0.4, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": -1.0}, "epsilon = -1.0"),
        ({"epsilon": math.inf}, "epsilon = inf"),
        ({"epsilon": math.nan}, "epsilon = nan"),
        ({"steps": -1}, "steps = -1"),
        ({"step_size": -0.1}, "step_size = -0.1"),
        ({"method": "fgsm"}, "method = 'fgsm': choose 'pgd' or 'ddn'"),
        ({"method": "ddn", "step_size": 0.1}, "step_size = 0.1: method 'ddn' sets its own"),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SmoothAdv(**({"epsilon": 1.0, "steps": 2} | options))


class Watched(nn.Module):
    """Says whether weights require gradients while it runs, and fails where it is told to."""

    def __init__(self, fails=False):
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.fixed = nn.Parameter(torch.ones(10), requires_grad=False)
        self.fails, self.seen = fails, []

    def forward(self, images):
        self.seen.append(any(parameter.requires_grad for parameter in self.parameters()))
        if self.fails:
            raise RuntimeError("no")
        return self.linear(images.flatten(1)) * self.fixed


@pytest.mark.parametrize("method", ["pgd", "ddn"])
def test_weights_need_no_gradients_while_the_attack_runs(method):
    model, (_, images, noise) = Watched(), setup(m=2)
    SmoothAdv(0.5, 3, method=method)(model, images, LABELS, noise=noise)
    assert model.seen == [False] * 3
    assert model.linear.weight.requires_grad
    assert model.linear.bias.requires_grad
    assert not model.fixed.requires_grad


def test_weights_learn_again_after_an_attack_that_failed():
    model, (_, images, noise) = Watched(fails=True), setup(m=2)
    with pytest.raises(RuntimeError, match="no"):
        SmoothAdv(0.5, 3)(model, images, LABELS, noise=noise)
    assert model.linear.weight.requires_grad
    assert not model.fixed.requires_grad
    assert model.training
