"""The engine of accelerators, on the CPU: the same votes, one by one, and nothing read back before the end."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from smoothing import SmoothedClassifier
from smoothing._voting import engine
from smoothing._voting.device_noise import DeviceNoise
from smoothing._voting.noise import BLOCK

from .oracles import Constant


@pytest.fixture(scope="module")
def images():
    pixels = torch.randint(0, 256, (5, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return pixels / np.float32(255)


@pytest.fixture(scope="module")
def expected(close_calls, images):
    """The CPU engine's votes, by sampler."""
    return {
        sampler: SmoothedClassifier(close_calls, 10, sampler=sampler).predict(images, 0.7, n=300).votes
        for sampler in ("gaussian", "discrete")
    }


@pytest.mark.parametrize("sampler", ["gaussian", "discrete"])
@pytest.mark.parametrize("batch_size", [64, 100, 256])
def test_the_votes_are_the_cpu_engines_to_the_last_one(close_calls, images, expected, sampler, batch_size):
    assert (expected[sampler] > 10).sum() > 25  # several classes for every image: close calls
    there = SmoothedClassifier(close_calls, 10, sampler=sampler, batch_size=batch_size, noise_on="device")
    np.testing.assert_array_equal(there.predict(images, 0.7, n=300).votes, expected[sampler])
    order = [4, 0, 2]
    np.testing.assert_array_equal(
        there.predict(images[order], 0.7, n=300, indices=order).votes, expected[sampler][order]
    )


@pytest.mark.parametrize("sampler", ["gaussian", "discrete"])
def test_every_image_has_the_noise_of_its_own_level(close_calls, images, sampler):
    """Levels out of order, one of them twice: places in a list of levels are not those in an image's row."""
    levels = [0.7, 0.3, 0.9, 0.3, 0.5]
    here, there = (SmoothedClassifier(close_calls, 10, sampler=sampler, noise_on=on) for on in ("cpu", "device"))
    found = there.predict(images, levels, n=300).votes
    np.testing.assert_array_equal(found, here.predict(images, levels, n=300).votes)
    for level in set(levels):
        alone = [k for k, own in enumerate(levels) if own == level]
        expected = there.predict(images[alone], level, n=300, indices=alone).votes
        np.testing.assert_array_equal(found[alone], expected)


def test_samples_can_be_drawn_in_pieces_at_some_levels(close_calls, images):
    levels, indices, all_levels = np.array([[0.3, 0.7]] * 5), np.arange(5), np.ones((5, 2), bool)
    some = np.array([[True, False], [False, False], [True, True], [False, True], [True, False]])

    def count(noise_on, start, stop, wanted=all_levels):
        smoothed = SmoothedClassifier(close_calls, 10, noise_on=noise_on, batch_size=100)
        return smoothed._engine.count(images, indices, levels, wanted, start, stop, "estimate")

    whole = count("cpu", 0, BLOCK + 50)
    np.testing.assert_array_equal(count("device", 0, BLOCK + 50), whole)
    np.testing.assert_array_equal(count("device", 0, 30) + count("device", 30, BLOCK + 50), whole)
    np.testing.assert_array_equal(count("device", 0, BLOCK + 50, some), whole * some[..., None])


def test_experts_answer_at_their_own_level(images):
    bank = {0.25: Constant(1.0, 0.0), 0.5: Constant(0.0, 1.0)}
    choice = SmoothedClassifier(bank, 2, noise_on="device").select_sigma(images, [0.25, 0.5], n0=50)
    assert choice.classes.tolist() == [[0, 1]] * 5


class Watched(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts what would wait for a device: a number, or whole tensors, that Python gets to see."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
            torch.ops.aten.equal.default,
            torch.ops.aten.masked_select.default,
        ):
            self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


def test_nothing_is_read_back_before_the_end_of_a_pass(close_calls, images):
    smoothed = SmoothedClassifier(close_calls, 10, batch_size=100, threads=1, noise_on="device")
    smoothed.predict(images, 0.7, n=10)  # the look at the model reads
    with Watched() as watched:
        smoothed.predict(images, 0.7, n=1000)
    assert watched.seen == []
    with Watched() as watched:  # the CPU engine looks at every batch
        SmoothedClassifier(close_calls, 10, batch_size=100, threads=1).predict(images, 0.7, n=1000)
    assert len(watched.seen) >= 50


READY = []  # a global is not a part of a model's identity, so the model is not looked at again


class Nan(nn.Module):
    """Diverges on one noisy image in a hundred, not on the first ones that it is shown."""

    def forward(self, noisy):
        logits = noisy.flatten(1)[:, :2].clone()
        if READY:
            logits[17] = torch.nan
        return logits


@pytest.mark.parametrize("noise_on", ["cpu", "device"])
def test_a_nan_is_found_at_the_end_of_the_pass_and_padding_is_not(images, noise_on, monkeypatch):
    model = Nan()
    smoothed = SmoothedClassifier(model, 2, batch_size=32, threads=1, noise_on=noise_on)
    smoothed.predict(images[:1], 0.5, n=10)
    monkeypatch.setattr(f"{__name__}.READY", [True])
    assert smoothed.predict(images[:1], 0.5, n=10).votes.sum() == 10  # the 18th place holds no sample
    with pytest.raises(ValueError, match="the model returned NaN or infinity"):
        smoothed.predict(images[:1], 0.5, n=18)


def test_where_64_bits_do_not_decide_the_pass_is_made_on_the_cpu(close_calls, images, expected, monkeypatch):
    fill, calls = DeviceNoise.fill, []

    def tied(self, row, sample, level):
        noisy = fill(self, row, sample, level)
        calls.append(len(row))
        self.undecided += (sample == 7).sum()
        return torch.zeros_like(noisy)  # whatever it is, it does not count

    smoothed = SmoothedClassifier(close_calls, 10, sampler="discrete", noise_on="device")
    smoothed.predict(images, 0.7, n=10)
    monkeypatch.setattr(DeviceNoise, "fill", tied)
    np.testing.assert_array_equal(smoothed.predict(images, 0.7, n=300).votes, expected["discrete"])
    assert sum(calls) >= 1500


def test_a_device_with_other_bits_gets_noise_from_the_cpu_and_one_line_says_so(
    close_calls, images, expected, monkeypatch
):
    engine._warn.cache_clear()
    wrong = ["eager noise on cpu: 3 of 9 pixels are others"]
    monkeypatch.setattr(engine, "usable_way", lambda sampler, device: (None, wrong))
    monkeypatch.setattr(engine, "count_on_device", None)
    smoothed = SmoothedClassifier(close_calls, 10, noise_on="device")
    with pytest.warns(
        RuntimeWarning, match=r"noise is made on the CPU and copied.*: eager noise on cpu: 3 of 9"
    ) as caught:
        found = smoothed.predict(images, 0.7, n=300).votes
    assert len(caught) == 1
    np.testing.assert_array_equal(found, expected["gaussian"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        smoothed.predict(images, 0.7, n=30)


def test_streams_of_the_cpu_stay_there(close_calls):
    with pytest.raises(ValueError, match="noise_on = 'device': stream 'sfc64' is made on the CPU; take 'philox4x32'"):
        SmoothedClassifier(close_calls, 10, stream="sfc64", noise_on="device")
    with pytest.raises(ValueError, match="stream = 'mt19937': choose 'philox4x32' or 'sfc64'"):
        SmoothedClassifier(close_calls, 10, stream="mt19937")


def test_the_streams_differ_and_each_is_named(close_calls, images):
    old, new = (SmoothedClassifier(close_calls, 10, stream=name) for name in ("sfc64", "philox4x32"))
    assert (old.identity.stream, new.identity.stream) == ("sfc64", "philox4x32")
    assert SmoothedClassifier(close_calls, 10).identity == new.identity
    assert (old.predict(images, 0.7, n=300).votes != new.predict(images, 0.7, n=300).votes).any()
