"""Routers from a base classifier to a checkpoint that certifies: as a run, killed and resumed, and with bad input."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from smoothing import RoutedClassifier, SmoothedClassifier
from training import (
    ROUTER_PRESETS,
    Engine,
    Stage,
    build,
    digits,
    fit,
    load_checkpoint,
    load_router,
    run,
    save_checkpoint,
)

TINY = replace(
    ROUTER_PRESETS["digits-router"][1],
    sigmas=(0.15, 0.3, 0.6),
    train_images=160,
    validation_images=60,
    epochs=3,
    n0=30,
    n=1000,
    n_router=100,
    batch=40,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A checkpoint of a base classifier that was trained for a second."""
    file = tmp_path_factory.mktemp("base") / "base.pt"
    data, model = digits(), build("digits_cnn", 10, seed=0)
    stage = Stage(epochs=4, sigma=(0.1, 0.6), lr=3e-3, optimizer="adam", batch_size=64)
    fit(model, data.train_images, data.train_labels, stage=stage, engine=Engine(device="cpu"))
    save_checkpoint(file, model, arch="digits_cnn", num_classes=10)
    return file


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, run(replace(TINY, checkpoint=base, out=out))


@pytest.mark.parametrize("fallback", [True, False])
def test_a_run_leaves_a_router_that_certifies_and_predicts(whole, base, fallback):
    out, rows = whole
    assert [(row.stage, row.epoch) for row in rows] == [("router", 0), ("router", 1), ("router", 2)]
    found = load_router(out / "checkpoint.pt", fallback=fallback)
    smoothed = SmoothedClassifier(load_checkpoint(base), 10, threads=1)
    found.check(base=smoothed.identity.weights, image_shape=(1, 8, 8), source="router")
    routed = RoutedClassifier(smoothed, found.router, found.sigmas, router_sigma=found.router_sigma)
    n_router = None if found.router is None else 100
    certified = routed.certify(digits().test_images[:5], n0=30, n=200, n_router=n_router, alpha=0.01)
    assert (certified.radius > 0).any()
    assert (found.levels, found.trained_sigma, found.kind) == ((0.15, 0.3, 0.6), 0.5, "free")
    if not fallback:
        assert found.router is not None
        assert not found.router.training
        assert found.router(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert np.argmax(found.validation.constant) == found.validation.level
