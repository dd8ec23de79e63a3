"""A denoiser's file is checked like a base classifier's, and the two are never taken for each other."""

import dataclasses
import math

import pytest
import torch

from training import build, load_checkpoint, load_denoiser, load_router, save_checkpoint
from training.denoiser_checkpoints import DenoiserFacts
from training.denoisers import denoiser_network

FACTS = DenoiserFacts(sigma_min=0.1, sigma_max=0.6, image_shape=(1, 8, 8), base="0f" * 32, seed=7)


def written(folder, *, facts=FACTS, arch="unet_small", about=None, **extra):
    """A denoiser's checkpoint; `about` replaces parts of what it says of the denoiser."""
    file = folder / "denoiser.pt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = denoiser_network(arch, facts.image_shape[0])
        torch.nn.init.normal_(net.leave.weight)
    save_checkpoint(file, net, arch=arch, denoiser=facts.entry() | (about or {}), **extra)
    return file, net


@pytest.mark.parametrize("arch", ["unet_small", "unet"])
@pytest.mark.parametrize("base", [None, "0f" * 32])
def test_what_was_written_is_read(tmp_path, arch, base):
    facts = dataclasses.replace(FACTS, base=base, image_shape=(3, 8, 8))
    file, net = written(tmp_path, facts=facts, arch=arch)
    found = load_denoiser(file)
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(found.denoiser.at(0.3)(images), net.at(0.3)(images))
    assert not found.denoiser.training
    assert (found.facts, found.arch) == (facts, arch)


def test_denoisers_and_classifiers_are_not_taken_for_each_other(tmp_path):
    file, _ = written(tmp_path)
    with pytest.raises(ValueError, match=r"denoiser\.pt is a denoiser, which returns images and no classes: give the"):
        load_checkpoint(file)
    with pytest.raises(ValueError, match="holds no router"):
        load_router(file)
    base = tmp_path / "base.pt"
    save_checkpoint(base, build("digits_cnn", 10), arch="digits_cnn")
    with pytest.raises(ValueError, match=r"base\.pt holds no denoiser: give what srs-train --method denoiser wrote"):
        load_denoiser(base)
    torch.save({"denoiser": {"weight": torch.ones(3)}}, base)  # somebody's part of that name
    with pytest.raises(ValueError, match="holds no denoiser"):
        load_denoiser(base)


def test_a_denoiser_is_for_some_levels_and_one_shape_of_images(tmp_path):
    found = load_denoiser(written(tmp_path)[0])
    found.check(sigmas=[0.1, 0.30000000000000004, 0.6000000000000001], image_shape=(1, 8, 8), source="d.pt")
    with pytest.raises(ValueError, match=r"^d\.pt is a denoiser for images of 1x8x8, not 1x28x28: train one for these"):
        found.check(sigmas=[0.1], image_shape=(1, 28, 28), source="d.pt")
    for sigma in (0.0999, 0.61):
        with pytest.raises(ValueError, match=rf"^d\.pt is a denoiser for sigma from 0\.1 to 0\.6, and {sigma} is not"):
            found.check(sigmas=[0.2, sigma], image_shape=(1, 8, 8), source="d.pt")
    one = load_denoiser(written(tmp_path, facts=dataclasses.replace(FACTS, sigma_min=0.6))[0])
    with pytest.raises(ValueError, match=r"^d\.pt is a denoiser for sigma = 0\.6, and 0\.5 is not among these: give"):
        one.check(sigmas=[0.5], image_shape=(1, 8, 8), source="d.pt")


@pytest.mark.parametrize(
    ("about", "name"),
    [
        ({"sigma_min": 0.0}, "sigma_min"),
        ({"sigma_min": 1}, "sigma_min"),
        ({"sigma_min": None}, "sigma_min"),
        ({"sigma_max": 0.05}, "sigma_max"),
        ({"sigma_max": math.inf}, "sigma_max"),
        ({"sigma_max": math.nan}, "sigma_max"),
        ({"image_shape": [1, 8]}, "image_shape"),
        ({"image_shape": [0, 8, 8]}, "image_shape"),
        ({"image_shape": [10**9, 8, 8]}, "image_shape"),
        ({"image_shape": "1x8"}, "image_shape"),
        ({"base": "0f"}, "base"),
        ({"base": 3}, "base"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
    ],
)
def test_what_the_file_says_is_checked(tmp_path, about, name):
    file, _ = written(tmp_path, about=about)
    with pytest.raises(ValueError, match=rf"denoiser\.pt is damaged: {name} of its denoiser is not what srs-train"):
        load_denoiser(file)


@pytest.mark.parametrize("arch", ["lenet", "mine:make", None, ["unet"]])
def test_only_our_own_denoisers_are_built(tmp_path, arch):
    file, _ = written(tmp_path)
    content = torch.load(file, weights_only=True)
    torch.save({**content, "arch": arch}, file)
    with pytest.raises(ValueError, match="is damaged: it names no denoiser that is known here"):
        load_denoiser(file)


def test_weights_must_be_exactly_those_of_the_network_and_finite(tmp_path):
    file, _ = written(tmp_path)
    content = torch.load(file, weights_only=True)
    torch.save({**content, "arch": "unet"}, file)
    with pytest.raises(ValueError, match="belongs to another network"):
        load_denoiser(file)
    content["state_dict"]["leave.bias"][0] = math.nan
    torch.save(content, file)
    with pytest.raises(ValueError, match=r"leave\.bias holds NaN or infinity"):
        load_denoiser(file)


def test_a_network_that_is_none_of_ours_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"^arch = 'lenet': choose unet_small, unet$"):
        save_checkpoint(tmp_path / "d.pt", denoiser_network("unet", 1), arch="lenet", denoiser=FACTS.entry())
    with pytest.raises(ValueError, match=r"^arch = 'unet': choose lenet"):
        save_checkpoint(tmp_path / "d.pt", denoiser_network("unet", 1), arch="unet")
    assert not list(tmp_path.iterdir())
