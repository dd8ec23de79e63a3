"""What every sampler promises on every stream."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from smoothing._voting.noise import BLOCK, DEFAULT_STREAM, STAGES, STREAMS
from smoothing._voting.samplers import SAMPLERS, Noise, make_noise

ALL = list(itertools.product(SAMPLERS, STREAMS))
SHAPE = (5, 3, 3)


def draw(noise, stage="estimate", index=7, first=0, count=BLOCK):
    out = np.empty((count, *SHAPE), noise.raw)
    noise.draw(stage, index, first, out)
    return out


@pytest.fixture(params=ALL, ids="-".join)
def noise(request):
    return make_noise(*request.param, seed=12)


def test_a_noise_knows_its_names(noise):
    assert isinstance(noise, Noise)
    assert (noise.name, noise.stream) in ALL
    assert make_noise(noise.name, noise.stream, 0).raw is noise.raw
    assert DEFAULT_STREAM in STREAMS


@pytest.mark.parametrize("cuts", [[0, 1, 128], [0, 50, 51, 100, 128], [127, 128], [64, 128]])
@pytest.mark.parametrize("block", [0, 1, 12345])
def test_numbers_do_not_depend_on_how_a_block_is_cut(noise, cuts, block):
    whole = draw(noise, first=block * BLOCK)
    for start, stop in itertools.pairwise(cuts):
        part = draw(noise, first=block * BLOCK + start, count=stop - start)
        np.testing.assert_array_equal(part, whole[start:stop])


def test_every_part_of_a_name_names_other_numbers(noise):
    names = itertools.product((0, 1, 2**64), STAGES, (0, 1, 2**32 - 1), (0, 1, 128, 2**31))
    drawn = [draw(make_noise(noise.name, noise.stream, seed), *name, count=1).tobytes() for seed, *name in names]
    assert len(set(drawn)) == len(drawn) == 3 * 3 * 3 * 4


def test_threads_may_share_a_noise(noise):
    alone = [draw(noise, first=block * BLOCK) for block in range(40)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda block: draw(noise, first=block * BLOCK), range(40)))
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("sigma", [0.12, 1.0, 3.0])
def test_noisy_images_are_grey_plus_noise_of_its_level(noise, sigma):
    # Mean and variance of 5,760 numbers, by their normal approximations; false alarm: 2 in 100,000, seed fixed.
    image = np.full(SHAPE, np.float32(128) / np.float32(255))
    out = np.full((BLOCK, *SHAPE), np.nan, np.float32)
    noise.add(draw(noise), image, sigma, out)
    difference = out.astype(np.float64) - 128 / 255
    rounding = 1 / 12 / 255**2 if noise.name == "discrete" else 0.0  # Sheppard's correction
    deviation = np.sqrt(sigma**2 + rounding)
    assert abs(difference.mean()) < 4.5 * deviation / np.sqrt(out.size)
    assert abs((difference**2).mean() / deviation**2 - 1) < 4.5 * np.sqrt(2 / out.size)


def test_noisy_images_do_not_depend_on_which_are_made_together(noise):
    image = (np.random.default_rng(0).integers(0, 256, SHAPE) / 255).astype(np.float32)
    raw, whole, parts = draw(noise), *np.full((2, BLOCK, *SHAPE), np.nan, np.float32)
    noise.add(raw, image, 0.25, whole)
    for start, stop in ((0, 1), (1, 77), (77, 128)):
        noise.add(raw[start:stop], image, 0.25, parts[start:stop])
    np.testing.assert_array_equal(parts, whole)


def test_the_older_stream_is_numpys_generator_of_each_block():
    for block in (0, 3):
        name = np.random.SeedSequence(12, spawn_key=({"select": 0, "estimate": 1, "predict": 2}["estimate"], 7, block))
        words = np.random.SFC64(name).random_raw(BLOCK * 45).reshape(BLOCK, *SHAPE)
        normal = np.random.Generator(np.random.SFC64(name)).standard_normal((BLOCK, *SHAPE), dtype=np.float32)
        np.testing.assert_array_equal(draw(make_noise("discrete", "sfc64", 12), first=block * BLOCK), words)
        np.testing.assert_array_equal(draw(make_noise("gaussian", "sfc64", 12), first=block * BLOCK), normal)


@pytest.mark.parametrize(
    ("sampler", "stream", "message"),
    [
        ("laplace", "sfc64", "sampler = 'laplace': choose 'gaussian' or 'discrete'"),
        ("gaussian", "mt19937", "stream = 'mt19937': choose 'philox4x32' or 'sfc64'"),
        ("gaussian", None, "stream = None: choose"),
        ("gaussian", ["sfc64"], "stream = \\['sfc64'\\]: choose"),
    ],
)
def test_unknown_names_list_the_choices(sampler, stream, message):
    with pytest.raises(ValueError, match=message):
        make_noise(sampler, stream, 0)
