import inspect

import numpy as np
import pytest
import torch
from scipy import stats

from smoothing import ABSTAIN, SmoothedClassifier, certified_radius, lower_confidence_bound

from .oracles import Coin, Constant, Halfspace, Stump

SHAPE = (1, 3, 3)


@pytest.fixture
def images():
    return torch.rand((6, *SHAPE), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def halfspace():
    return Halfspace(torch.linspace(-1, 1, 9).reshape(SHAPE), 0.1)


def test_certified_radii_of_a_halfspace_cover_the_truth(halfspace):
    # Each radius exceeds the closed form with probability at most alpha, over independent streams. More than `limit`
    # of 2,000 do so with probability below 1e-6: the false-alarm rate.
    alpha, trials = 0.05, 2000
    image = torch.full((1, *SHAPE), 0.6)
    truth = float(halfspace.radius(image)[0])
    limit = stats.binom.isf(1e-6, trials, alpha)
    smoothed = SmoothedClassifier(halfspace, 2, seed=1)
    result = smoothed.certify_classes(image.expand(trials, *SHAPE), 0.5, np.ones(trials, int), n=200, alpha=alpha)
    too_large = int((result.radius > truth).sum())
    assert too_large <= limit
    assert too_large >= stats.binom.ppf(1e-6, trials, alpha / 4)  # a bound that is never exceeded is not tight


def test_the_radius_of_a_halfspace_does_not_depend_on_sigma(images, halfspace):
    smoothed = SmoothedClassifier(halfspace, 2)
    truth = halfspace.radius(images).numpy()
    for sigma in (0.25, 1.0):
        found = smoothed.certify(images, sigma, n0=100, n=20_000, alpha=0.001)
        assert np.all(found.radius <= truth)  # false alarm: 12 * 0.001, seed fixed
        np.testing.assert_allclose(found.radius, truth, atol=0.1 * sigma)


def test_results_do_not_depend_on_the_order_or_number_of_images(images, halfspace):
    smoothed = SmoothedClassifier(halfspace, 2)
    sigma = np.linspace(0.2, 1.0, len(images))
    whole = smoothed.certify(images, sigma, n0=50, n=500, alpha=0.01)
    order = np.array([4, 0, 5, 2])
    part = smoothed.certify(images[order], sigma[order], n0=50, n=500, alpha=0.01, indices=order)
    for name in ("predict", "radius", "sigma", "counts", "p_lower"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[order])


def test_every_method_draws_from_its_own_stage(images, halfspace, monkeypatch):
    stages = []

    smoothed = SmoothedClassifier(halfspace, 2, batch_size=60, threads=1)
    noise = type(smoothed._engine.noise)
    draw = noise.draw

    def spy(self, stage, *rest):
        stages.append(stage)
        draw(self, stage, *rest)

    monkeypatch.setattr(noise, "draw", spy)
    smoothed.select_sigma(images, [0.5], n0=10)
    assert set(stages) == {"select"}
    stages.clear()
    smoothed.certify_classes(images, 0.5, np.zeros(6, int), n=10, alpha=0.01)
    assert set(stages) == {"estimate"}
    stages.clear()
    smoothed.certify(images, 0.5, n0=10, n=10, alpha=0.01)
    assert stages == 6 * ["select"] + 6 * ["estimate"]
    stages.clear()
    smoothed.predict(images, 0.5, n=10, alpha=0.01)
    assert set(stages) == {"predict"}


def test_selection_estimation_and_prediction_use_different_samples(halfspace):
    images = torch.full((50, *SHAPE), 0.5)
    smoothed = SmoothedClassifier(halfspace, 2)
    select = smoothed.select_sigma(images, [1.0], n0=400)
    estimate = smoothed.certify_classes(images, 1.0, np.zeros(50, int), n=400)
    predict = smoothed.predict(images, 1.0, n=400)
    expected = certified_radius(np.ones((50, 1)), lower_confidence_bound(predict.votes[:, 1:], 400, 0.001))
    assert not np.array_equal(select.expected_radius, expected)
    votes = [select.expected_radius[:, 0], estimate.counts, predict.votes[:, 1]]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        # Equal streams correlate perfectly; independent ones exceed 0.6 over 50 images less than once in 100,000.
        assert abs(np.corrcoef(votes[first], votes[second])[0, 1]) < 0.6


def test_without_a_majority_it_abstains():
    smoothed = SmoothedClassifier(Coin(), 2)
    images = torch.zeros((20, *SHAPE))
    certified = smoothed.certify(images, 1.0, n0=100, n=1000, alpha=1e-6)  # false alarm: 20 * 1e-6
    assert np.all(certified.predict == ABSTAIN)
    assert np.all(certified.radius == 0)
    assert np.all(smoothed.predict(images, 1.0, n=1000, alpha=1e-6).predict == ABSTAIN)


def test_a_wrong_guess_abstains_and_never_certifies_the_other_class(images):
    smoothed = SmoothedClassifier(Constant(0.0, 1.0, 0.5), 3)
    result = smoothed.certify_classes(images, 1.0, np.zeros(6, int), n=100, alpha=0.01)
    assert np.all(result.predict == ABSTAIN)
    assert np.all(result.counts == 0)


def test_a_constant_classifier_gets_the_radius_of_a_unanimous_vote(images):
    result = SmoothedClassifier(Constant(0.0, 1.0, 0.5), 3).certify(images, 0.5, n0=10, n=1000, alpha=0.001)
    assert np.all(result.predict == 1)
    assert np.all(result.counts == 1000)
    p_lower = (0.001 * 31 / 32) ** (1 / 1000)  # a small share of alpha is for classes that 10 votes did not show
    p_upper = 1 - (0.001 / 32) ** (1 / 1000)
    other = min(p_upper, 1 - p_lower)
    expected = 0.25 * (stats.norm.ppf(p_lower) - stats.norm.ppf(other))
    np.testing.assert_allclose(result.radius, expected, rtol=1e-8)
    np.testing.assert_array_equal(result.runner_up, -1)
    alone = SmoothedClassifier(Constant(0.0, 1.0, 0.5), 3).certify(
        images, 0.5, n0=10, n=1000, alpha=0.001, bound="top-class"
    )
    np.testing.assert_allclose(alone.radius, 0.5 * stats.norm.ppf(0.001 ** (1 / 1000)), rtol=1e-8)
    assert np.all(alone.p_lower + alone.p_upper == 1)


def test_the_runner_up_is_the_most_voted_of_the_others():
    images = torch.full((3, 1, 1, 1), 0.5)
    smoothed = SmoothedClassifier(Stump(0.2, 0.45, 0.8), 4)
    choice = smoothed.select_sigma(images, [0.2, 0.4], n0=100, rule="expected-radius", n=1000)
    assert choice.share.tolist() == choice.shares[np.arange(3), choice.level].tolist()
    found = smoothed.certify_classes(images, choice.sigma, choice.predict, n=1000, share=choice.share)
    votes = smoothed._engine.count(
        images, np.arange(3), choice.sigma[:, None], np.ones((3, 1), dtype=bool), 0, 1000, "estimate"
    )[:, 0]
    votes[np.arange(3), choice.predict] = -1
    np.testing.assert_array_equal(found.runner_up, votes.argmax(axis=1))
    np.testing.assert_array_equal(found.runner_up_counts, votes.max(axis=1))
    alone = smoothed.certify_classes(images, choice.sigma, choice.predict, n=1000)
    assert np.all(alone.p_upper >= 1 - alone.p_lower)
    assert np.all(found.p_upper < alone.p_upper)
    with pytest.raises(ValueError, match=r"share\[1\] = 1.0: a share of alpha lies in \[0, 1\)"):
        smoothed.certify_classes(images, choice.sigma, choice.predict, n=1000, share=[0.5, 1.0, 0.5])
    with pytest.raises(ValueError, match="share has shape"):
        smoothed.certify_classes(images, choice.sigma, choice.predict, n=1000, share=[0.5, 0.5])
    with pytest.raises(ValueError, match="bound = 'both': choose 'runner-up' or 'top-class'"):
        smoothed.certify(images, 0.2, n0=10, n=100, bound="both")


def test_prediction_returns_the_smoothed_class(images, halfspace):
    result = SmoothedClassifier(halfspace, 2).predict(images, 0.2, n=2000, alpha=0.001)
    truth = halfspace(images).argmax(1).numpy()
    answered = result.predict != ABSTAIN
    np.testing.assert_array_equal(result.predict[answered], truth[answered])  # false alarm: 6 * 0.001, seed fixed
    assert answered.sum() >= 4


def test_no_method_takes_a_label():
    for method in ("select_sigma", "certify", "certify_classes", "certify_levels", "predict"):
        assert not {"labels", "label", "y", "targets"} & set(
            inspect.signature(getattr(SmoothedClassifier, method)).parameters
        )


def test_inputs_are_left_alone(images, halfspace):
    before = images.clone()
    array = images.numpy().astype(np.float64)
    smoothed = SmoothedClassifier(halfspace, 2)
    first = smoothed.certify(images, 0.5, n0=10, n=100, alpha=0.01)
    second = smoothed.certify(array, 0.5, n0=10, n=100, alpha=0.01)
    assert torch.equal(images, before)
    np.testing.assert_array_equal(first.counts, second.counts)


GOOD = {"images": np.zeros((2, *SHAPE), np.float32), "sigma": 0.5, "n0": 10, "n": 10, "alpha": 0.01, "indices": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.full((2, *SHAPE), 1.5)}, r"images\[0, 0, 0, 0\] = 1.5: pixels must be finite and in \[0, 1\]"),
        ({"images": np.full((2, *SHAPE), -0.1)}, r"= -0.1: pixels"),
        ({"images": np.full((2, *SHAPE), np.nan)}, r"= nan: pixels"),
        ({"images": np.zeros((2, 9))}, r"images have shape \(2, 9\)"),
        ({"images": np.zeros((0, *SHAPE))}, r"images have shape \(0, 1, 3, 3\)"),
        ({"images": np.zeros((2, *SHAPE), np.uint8)}, "divide 8-bit pixels by 255"),
        ({"images": "picture.png"}, "images: "),
        ({"sigma": 0.0}, r"sigma\[0\] = 0.0: noise levels must be finite and > 0"),
        ({"sigma": [0.5, -1.0]}, r"sigma\[1\] = -1.0"),
        ({"sigma": [0.5, np.inf]}, r"sigma\[1\] = inf"),
        ({"sigma": [0.5, 0.5, 0.5]}, r"sigma has shape \(3,\)"),
        ({"n0": 0}, "n0 = 0: must be at least 1"),
        ({"n": 0}, "n = 0: must be at least 1"),
        ({"alpha": 0.0}, "alpha = 0.0"),
        ({"alpha": 1.0}, "alpha = 1.0"),
        ({"alpha": float("nan")}, "alpha = nan"),
        ({"indices": [0, -1]}, r"indices\[1\] = -1"),
        ({"indices": [0.5, 1.0]}, "whole numbers"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = GOOD | change
    with pytest.raises(ValueError, match=message):
        SmoothedClassifier(Coin(), 2).certify(**arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 2**128}, r"must be below 2\*\*128"),
        ({"device": "abacus"}, "device = 'abacus' cannot be used"),
        ({"num_classes": 1}, "num_classes = 1"),
        ({"threads": 0}, "threads = 0"),
        ({"precision": "float16"}, "precision = 'float16': choose 'float32' or 'tf32' or 'bfloat16'"),
        ({"sampler": "uniform"}, "sampler = 'uniform': choose 'gaussian' or 'discrete'"),
        ({"model": {}}, "empty bank"),
        ({"model": {0.0: Coin()}}, "noise level of the bank = 0.0: must be finite and > 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SmoothedClassifier(**({"model": Coin(), "num_classes": 2} | options))


def test_classes_out_of_range_are_named(images):
    with pytest.raises(ValueError, match=r"classes\[0\] = 2: classes are 0 to 1"):
        SmoothedClassifier(Coin(), 2).certify_classes(images, 0.5, np.full(6, 2), n=10, alpha=0.01)


def test_the_identity_tells_classifiers_apart():
    def identity(model, **options):
        return SmoothedClassifier(model, 2, **options).identity

    torch.manual_seed(0)
    one, other = (torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 2)) for _ in range(2))
    assert identity(one) == identity(one)
    different = [
        identity(one),
        identity(other),
        identity({0.5: one}),
        identity({0.5: one, 1.0: one}),
        identity(one, seed=1),
        identity(one, sampler="discrete"),
        identity(one, precision="bfloat16"),
    ]
    assert len(set(different)) == len(different)


def test_results_record_what_was_certified(images, halfspace):
    smoothed = SmoothedClassifier(halfspace, 2, precision="bfloat16", seed=5)
    for result in (smoothed.certify(images, 0.5, n0=10, n=10), smoothed.predict(images, 0.5, n=10)):
        assert result.identity == smoothed.identity
        assert (result.identity.precision, result.identity.seed) == ("bfloat16", 5)


def test_simultaneous_certificates_share_alpha(images, halfspace):
    smoothed = SmoothedClassifier(halfspace, 2)
    each = smoothed.certify(images, 0.5, n0=50, n=500, alpha=0.06, simultaneous=True)
    alone = smoothed.certify(images, 0.5, n0=50, n=500, alpha=0.01)
    assert each.simultaneous
    assert not alone.simultaneous
    np.testing.assert_array_equal(each.counts, alone.counts)
    np.testing.assert_allclose(each.p_lower, alone.p_lower, rtol=1e-9)
    assert np.all(each.p_lower <= lower_confidence_bound(each.counts, 500, 0.06 / 6))


def test_all_levels_at_once_are_each_level_alone(images, halfspace):
    smoothed = SmoothedClassifier(halfspace, 2)
    sigmas, classes = [0.2, 0.5, 1.0], np.arange(18).reshape(6, 3) % 2
    together = smoothed.certify_levels(images, sigmas, classes, n=300, alpha=0.01)
    for k, sigma in enumerate(sigmas):
        alone = smoothed.certify_classes(images, sigma, classes[:, k], n=300, alpha=0.01)
        for name in ("predict", "radius", "sigma", "counts", "n", "p_lower"):
            np.testing.assert_array_equal(getattr(together[k], name), getattr(alone, name))


def test_arguments_that_were_taken_by_position_still_are_for_one_version(images, halfspace):
    smoothed = SmoothedClassifier(halfspace, 2, seed=1)
    with pytest.warns(DeprecationWarning, match="certify: give n0=, n=, alpha= by name"):
        former = smoothed.certify(images, 0.5, 20, 100, 0.01)
    np.testing.assert_array_equal(former.radius, smoothed.certify(images, 0.5, n0=20, n=100, alpha=0.01).radius)
    with pytest.raises(TypeError, match="n given twice"):
        smoothed.certify(images, 0.5, 20, 100, n=100)
    with pytest.raises(TypeError, match="positional"):
        smoothed.certify(images, 0.5, 20, 100, 0.01, False)
