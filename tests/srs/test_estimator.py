"""The estimator in ART's shape, next to ART's own, on a linear model whose smoothed radius is known."""

import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

import regions
import srs
from smoothing import SmoothedClassifier
from srs.predict.predictor import Predictor
from tests.smoothing.oracles import Halfspace

W, B, SIGMA, N, ALPHA = torch.tensor([[[0.6, -0.8], [0.3, 0.5]]]), -0.3, 0.25, 4000, 1e-6


def instance(rng):
    """Images whose exact smoothed radius is 0.2 to 1.5 sigma, their classes, and the radius."""
    images = rng.random((400, 1, 2, 2)).astype(np.float32)
    exact = Halfspace(W, B).radius(torch.from_numpy(images)).numpy()
    kept = np.flatnonzero((exact > 0.2 * SIGMA) & (exact < 1.5 * SIGMA))[:30]
    assert len(kept) == 30
    images = images[kept]
    return images, Halfspace(W, B)(torch.from_numpy(images)).argmax(dim=1).numpy(), exact[kept]


def estimator(outside=9.0):
    """Of one region that holds all images, and ends nowhere near."""
    table = regions.RegionMap(np.full((1, 4), 0.5), [outside], [SIGMA])
    G = Predictor(SmoothedClassifier(Halfspace(W, B), 2, seed=3), table, alpha=ALPHA)
    return srs.Estimator(SimpleNamespace(predict=G, certify=G.certify, num_classes=2), n=N, n0=100)


def bounds(exact):
    """Between which numbers the one-sided radius lies but with probability 6e-7: of counts 5 deviations off."""
    p = stats.norm.cdf(exact / SIGMA)
    off = 5 * np.sqrt(N * p * (1 - p))
    counts = np.clip([N * p - off, N * p + off], 1, N)
    lower = np.where(counts >= N, ALPHA ** (1 / N), stats.beta.ppf(ALPHA, counts, N - counts + 1))
    return SIGMA * stats.norm.ppf(lower)


def test_radii_of_a_linear_model_are_the_known_ones(rng):
    images, classes, exact = instance(rng)
    found, radius = estimator().certify(images, N, batch_size=7)
    low, high = bounds(exact)
    assert (found == classes).all()
    assert (radius <= exact).all()  # wrong with probability 30e-6
    assert ((low <= radius) & (radius <= high)).all()
    one_hot = estimator().predict(images, batch_size=7)
    assert one_hot.shape == (30, 2)
    certain = one_hot.any(axis=1)
    assert (one_hot.argmax(axis=1)[certain] == classes[certain]).all()
    assert certain[exact > 0.5 * SIGMA].all()


@pytest.mark.skipif(
    importlib.util.find_spec("art") is None,
    reason="adversarial-robustness-toolbox is not installed, which the extra test brings",
)
@pytest.mark.filterwarnings("ignore")  # ART's own
def test_art_says_the_same_of_a_linear_model(rng):
    from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

    class Theirs(PyTorchRandomizedSmoothing):
        def _lower_confidence_bound(self, n_class_samples, n_total_samples):
            """Clopper and Pearson's, as theirs is; theirs needs statsmodels, which ART does not bring."""
            k, n = n_class_samples, n_total_samples
            return stats.beta.ppf(self.alpha, k, n - k + 1) if k else 0.0

    images, classes, exact = instance(rng)
    np.random.seed(0)  # noqa: NPY002 (where theirs come from)
    theirs = Theirs(
        Halfspace(W, B), torch.nn.CrossEntropyLoss(), (1, 2, 2), 2, device_type="cpu", sample_size=N, scale=SIGMA,
        alpha=ALPHA,
    )  # fmt: skip
    ours = estimator()
    low, high = bounds(exact)
    for one in (ours, theirs):
        found, radius = one.certify(images, n=N)
        assert (found == classes).all()
        assert ((low <= radius) & (radius <= high)).all()
    # PREDICT: both abstain near the edge, and are the class elsewhere
    for one in (ours, theirs):
        scores = one.predict(images)
        assert scores.shape == (30, 2)
        assert (scores.argmax(axis=1)[exact > 0.5 * SIGMA] == classes[exact > 0.5 * SIGMA]).all()
    assert ours.nb_classes == theirs.nb_classes
    assert ours.channels_first == theirs.channels_first


def test_outside_the_regions_it_abstains(rng):
    images, _, _ = instance(rng)
    nowhere = estimator(outside=1e-3)
    assert (nowhere.certify(images, 100)[0] == -1).all()
    assert not nowhere.certify(images, 100)[1].any()
    assert not nowhere.predict(images).any()


@pytest.mark.parametrize(
    ("x", "size", "message"),
    [
        (np.zeros((2, 2)), 8, r"x has shape \(2, 2\): expected \(m, C, H, W\)"),
        (np.zeros((0, 1, 2, 2)), 8, "x has shape"),
        (np.zeros((1, 1, 2, 2)), 0, "batch_size = 0: must be at least 1"),
        (np.full((1, 1, 2, 2), np.nan, np.float32), 8, "pixels must be finite"),
    ],
)
def test_what_cannot_be_used_is_refused(x, size, message):
    for ask in (lambda: estimator().certify(x, 100, size), lambda: estimator().predict(x, size)):
        with pytest.raises(ValueError, match=message):
            ask()
