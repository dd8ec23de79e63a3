"""A model whose answer is no function of each image alone is refused before it votes."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from smoothing import SmoothedClassifier
from smoothing._voting.probing import TOLERANCE, same_logits, same_text

SHAPE = (1, 4, 4)
OWN = torch.Generator().manual_seed(0)


class Linear(nn.Module):
    """A linear classifier, and what a user's forward makes of it."""

    def __init__(self, forward):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(16, 5)
        self.how = forward
        self.calls = 0

    def plain(self, images):
        return self.linear(images.flatten(1))

    def forward(self, images):
        self.calls += 1
        return self.how(self, images)


def seeded_dropout(model, images):
    torch.manual_seed(0)
    return model.linear(functional.dropout(images.flatten(1), 0.5))


def seeded_mask(model, images):
    torch.manual_seed(0)
    return model.linear(images.flatten(1) * torch.bernoulli(torch.full((16,), 0.5)))


def stochastic_depth(model, images):
    return model.plain(images) * (0.0 if torch.rand(()) < 1e-3 else 1.0)


def previous(model, images):
    added = getattr(model, "seen", torch.zeros(()))
    model.seen = images.mean()
    return model.plain(images) + added * torch.arange(5)


@pytest.fixture
def images():
    return torch.rand((3, *SHAPE), generator=torch.Generator().manual_seed(1))


COMPANY, AGAIN, DRAWS, SIZE = "rest of its batch", "differently when asked again", "draws random", "how many images"


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
@pytest.mark.parametrize(
    ("forward", "reasons"),
    [
        (lambda m, x: (m.plain(x) - m.plain(x).mean(0)) / (1 + m.plain(x).std(0, correction=0)), COMPANY),
        (lambda m, x: m.plain(x / x.amax()), COMPANY),
        (lambda m, x: m.plain(x) + 0.01 * x.mean() * torch.arange(5), COMPANY),
        (lambda m, x: torch.softmax(m.plain(x), dim=0), COMPANY),
        (lambda m, x: m.plain(x) * len(x), SIZE),
        (lambda m, x: m.linear(functional.dropout(x.flatten(1), 0.5)), f"{AGAIN}|{DRAWS}"),
        (lambda m, x: m.linear(functional.dropout(x.flatten(1), 1e-6)), DRAWS),
        (lambda m, x: m.plain(x) + random.random(), AGAIN),
        (lambda m, x: m.plain(x) * (-1 if np.random.random() < 1e-6 else 1), DRAWS),  # noqa: NPY002
        (stochastic_depth, f"{AGAIN}|{DRAWS}"),
        (lambda m, x: m.plain(x) + 0.1 * torch.randn((len(x), 5), generator=OWN), AGAIN),
        (lambda m, x: m.plain(x) * (-1) ** (m.calls % 2), AGAIN),
        (previous, AGAIN),
    ],
)
def test_no_function_of_each_image_is_refused(images, forward, reasons, batch_size):
    smoothed = SmoothedClassifier(Linear(forward), 5, batch_size=batch_size)
    with pytest.raises(ValueError, match=f"{reasons}|{SIZE}") as caught:
        smoothed.certify(images, 0.25, n0=10, n=10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "forward", [lambda m, x: m.plain(x) + (torch.arange(len(x)) == 0)[:, None] * torch.arange(5), seeded_dropout]
)
def test_an_answer_that_depends_on_the_place_in_the_batch_is_refused(images, forward):
    with pytest.raises(ValueError, match="its place there"):
        SmoothedClassifier(Linear(forward), 5, batch_size=16).predict(images, 0.25, n=10)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
@pytest.mark.parametrize(
    "forward",
    [
        Linear.plain,
        seeded_mask,  # one mask for all: a function, however odd
        lambda m, x: m.plain(
            (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True)
        ),  # NaN on constants
        lambda m, x: m.plain(x) + 1e6,
        lambda m, x: m.plain(x).bfloat16(),
        lambda m, x: torch.where(m.plain(x) > 0, m.plain(x), -torch.inf),
        lambda m, x: m.linear(x.sub_(0.5).flatten(1)),
        lambda m, x: {"logits": m.plain(x)},
        lambda m, x: SimpleNamespace(logits=m.plain(x)),
    ],
)
def test_functions_of_each_image_vote(images, forward, batch_size):
    found = SmoothedClassifier(Linear(forward), 5, batch_size=batch_size).predict(images, 0.25, n=10)
    assert found.votes.sum() == 30


def test_a_model_for_one_size_of_batch_votes(images):
    def fixed(model, batch):
        assert len(batch) == 16
        return model.plain(batch)

    smoothed = SmoothedClassifier(Linear(fixed), 5, batch_size=16)
    assert smoothed.predict(images, 0.25, n=10).votes.sum() == 30
    assert smoothed.base_predict(images, [0.25]).shape == (3, 1)


def test_the_look_at_a_model_leaves_random_states_and_votes_alone(images):
    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002

    model = Linear(Linear.plain)
    before = states()
    smoothed = SmoothedClassifier(model, 5, batch_size=100)
    first = smoothed.predict(images, 0.25, n=100)
    assert states() == before
    calls = model.calls
    again = smoothed.predict(images, 0.25, n=100)
    np.testing.assert_array_equal(first.votes, again.votes)
    assert model.calls - calls < calls < 30  # once for a classifier and a shape


def test_tolerance_is_relative_to_the_spread_of_an_images_logits():
    logits = np.array([[1.0, -1.0, 0.0], [2.0, -2.0, 0.0]])
    step = 1.5 * TOLERANCE["float32"]  # of the mean spread, 1.5
    for scale in (1e-6, 1.0, 1e6):
        assert same_logits(scale * (logits + 0.9 * step), scale * logits, "float32")
        assert not same_logits(scale * (logits + 1.1 * step), scale * logits, "float32")
    assert not same_logits(logits[:1], logits, "float32")
    assert not same_logits(logits * np.nan, logits, "float32")


@pytest.mark.parametrize("stored", [None, 3, "text", ["a b c"], [["1", "2"]], ["1 2"], []])
def test_kept_logits_that_are_none_are_another_classifiers(stored):
    assert same_text(["1 2 3"], ["1.0001 2 3"], "float32")
    assert not same_text(["1 2 3"], stored, "float32")


class Flips(nn.Module):
    """Turns the logits of one row of the batch, or those of some batch sizes, around."""

    def __init__(self, row=None, sizes=()):
        super().__init__()
        self.linear = nn.Linear(9, 3)
        self.row, self.sizes = row, sizes

    def forward(self, images):
        logits = self.linear(images.flatten(1)).clone()
        if self.row is not None:
            logits[self.row : self.row + 1] *= -1
        return -logits if len(images) in self.sizes else logits


@pytest.mark.parametrize(
    "model",
    [
        *(Flips(row=row) for row in (0, 1, 12, 19, 31)),
        Flips(sizes=(31,)),
        Flips(sizes=(1,)),
        Flips(sizes=(33,)),
        Flips(sizes=(16,)),
    ],
)
def test_every_place_and_some_sizes_are_looked_at(model):
    images = torch.rand((5, 1, 3, 3), generator=torch.Generator().manual_seed(0))
    smoothed = SmoothedClassifier(model, 3, batch_size=32, threads=1)
    with pytest.raises(ValueError, match="depends on"):
        smoothed.predict(images, 0.5, n=10)


def test_the_same_network_without_flips_is_taken():
    images = torch.rand((5, 1, 3, 3), generator=torch.Generator().manual_seed(0))
    assert SmoothedClassifier(Flips(), 3, batch_size=32, threads=1).predict(images, 0.5, n=10).votes.sum() == 50


@pytest.mark.parametrize("spoil", [lambda y: y / 0.0, lambda y: y * float("nan"), lambda y: y - float("inf")])
def test_logits_that_are_not_finite_are_refused(spoil):
    class Spoilt(Flips):
        def forward(self, images):
            return spoil(super().forward(images))

    images = torch.rand((2, 1, 3, 3), generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="the model returned NaN or infinity"):
        SmoothedClassifier(Spoilt(), 3, threads=1).predict(images, 0.5, n=10)


def test_classes_may_be_left_out_by_minus_infinity():
    class Masked(Flips):
        def forward(self, images):
            logits = super().forward(images)
            logits[:, 1] = -float("inf")
            return logits

    images = torch.rand((2, 1, 3, 3), generator=torch.Generator().manual_seed(0))
    assert SmoothedClassifier(Masked(), 3, threads=1).predict(images, 0.5, n=10).votes[:, 1].sum() == 0


class BySize(nn.Module):
    """Another function for batches of some sizes."""

    def __init__(self, smallest, largest):
        super().__init__()
        self.smallest, self.largest = smallest, largest

    def forward(self, images):
        logits = images.flatten(1)[:, :5].clone()
        if self.smallest <= len(images) <= self.largest:
            logits[:, 4] = 100.0
        return logits


@pytest.mark.parametrize("size", [32, 64, 128])
def test_every_size_that_batches_have_is_seen(images, size):
    smoothed = SmoothedClassifier(BySize(size, size + 1), 5, batch_size=256, threads=1)
    with pytest.raises(ValueError, match="answer for an image depends on how many images its batch has"):
        smoothed.predict(images, 0.25, n=10)


class Later(nn.Module):
    """A function of each image until somebody switches its noise on."""

    def __init__(self):
        super().__init__()
        self.noisy = False

    def forward(self, images):
        logits = images.flatten(1)[:, :5]
        return logits + torch.randn_like(logits) if self.noisy else logits


def test_a_model_that_changes_later_is_seen_again(images):
    model = Later()
    smoothed = SmoothedClassifier(model, 5, batch_size=64)
    smoothed.predict(images, 0.25, n=10)
    model.noisy = True
    with pytest.raises(ValueError, match="such votes certify nothing"):
        smoothed.predict(images, 0.25, n=10)


class ByShape(nn.Module):
    """A function of each image of 4 x 4 pixels, and of none larger."""

    def forward(self, images):
        logits = images.flatten(1)[:, :5]
        return logits + torch.randn_like(logits) if images.shape[-1] > 4 else logits


def test_a_model_is_seen_again_with_images_of_another_shape(images):
    smoothed = SmoothedClassifier(ByShape(), 5, batch_size=64)
    smoothed.predict(images, 0.25, n=10)
    with pytest.raises(ValueError, match="such votes certify nothing"):
        smoothed.predict(torch.zeros((2, 1, 8, 8)), 0.25, n=10)


class Dazzled(nn.Module):
    """Gives all images of a small batch another class where one of them is bright."""

    def forward(self, images):
        logits = images.flatten(1)[:, :5].clone()
        if len(images) == 32 and images.amax() > 5:
            logits[:, 4] += 100
        return logits


def test_company_is_looked_at_in_small_batches_too(images):
    smoothed = SmoothedClassifier(Dazzled(), 5, batch_size=256, threads=1)
    with pytest.raises(ValueError, match="depends on the rest of its batch"):
        smoothed.predict(images, 0.25, n=10)
