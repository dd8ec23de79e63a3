"""Noise on a device has the CPU's bits, however it is made."""

import dataclasses
import importlib.util
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from smoothing._voting import device_check, device_noise, device_operations, device_tables, discrete
from smoothing._voting.device_noise import DeviceNoise, ways
from smoothing._voting.device_tables import CELLS, SIGN, discrete_tables
from smoothing._voting.discrete import noise_table
from smoothing._voting.philox import Philox
from smoothing._voting.quantile import CELL_BITS
from smoothing._voting.samplers import make_noise

from . import same_bits
from .same_bits import CPU, INDICES, SIGMAS, images, names, on_the_cpu, same

TRITON = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton has no wheel for this machine")


def test_plain_operations_have_the_cpus_bits():
    same_bits.check("eager")


@pytest.mark.parametrize("how", ["compiled", pytest.param("triton", marks=TRITON)])
def test_so_have_other_ways(how):
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, same_bits.__file__, how], capture_output=True, text=True, timeout=600, env=environment
    )
    assert done.returncode == 0, done.stderr


#: What Triton makes of the kernels for an H100, without one.
COMPILE = """
import sys
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from smoothing._voting import triton_kernels, triton_noise

names = "out given row sample level index images key "
numbers = {"cells": "i32", "steps": "i32", "pixels": "i32", "half": "i32"}
floats = {"out": "*fp32", "unit": "*fp32", "grey": "*fp32", "first": "*i32"}
for kernel, pixels in ((triton_kernels.gaussian_kernel, "*fp32"), (triton_kernels.discrete_kernel, "*u8")):
    types = {**numbers, **floats, "images": pixels, "GIVEN": "constexpr", "PAIRS": "constexpr"}
    signature = {name: types.get(name, "*i64") for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs={"GIVEN": False, "PAIRS": 256})
    made = compile(source, target=GPUTarget("cuda", 90, 32), options=triton_noise.OPTIONS)
    sys.stdout.write(made.asm["ptx"] + "\\n=====\\n")
"""


@TRITON
def test_kernels_for_a_gpu_round_each_float_operation_once_and_divide_by_nothing(tmp_path):
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    gaussian, integers = done.stdout.split("=====")[:2]
    for code in (gaussian, integers):
        assert "mul.wide.u32" in code
        assert not re.search(r"\b(fma|div|rem|sqrt|ex2|lg2)\.|\.ftz|\.f64", code)
    assert set(re.findall(r"\S+\.f32\S*", gaussian)) == {"cvt.rn.f32.s64", "mul.rn.f32", "add.rn.f32"}
    assert not re.findall(r"\S+\.f32\S*", integers)


@pytest.mark.parametrize("sampler", ["discrete", "gaussian"])
def test_stages_seeds_and_images_have_numbers_of_their_own(sampler):
    pictures, batch = images((1, 3, 3)), names(8)
    for seed, stage in ((0, "select"), (2**100, "predict")):
        noise = make_noise(sampler, "philox4x32", seed)
        made = DeviceNoise(noise, pictures, INDICES, SIGMAS, stage, CPU)
        assert same(made.fill(*batch), on_the_cpu(noise, pictures, *batch, stage))


def test_memory_is_bounded_by_working_in_parts(monkeypatch):
    pictures, batch = images((1, 5, 5)), names(20)
    made = DeviceNoise(make_noise("gaussian", "philox4x32", 0), pictures, INDICES, SIGMAS, "estimate", CPU)
    whole, sizes, drawn = made.fill(*batch), [], device_operations.drawn

    def watched(*arguments):
        noisy, ties = drawn(*arguments)
        sizes.append(noisy.numel())
        return noisy, ties

    monkeypatch.setattr(device_operations, "drawn", watched)
    monkeypatch.setitem(device_operations.MOST_NUMBERS, "cpu", 80)
    assert same(made.fill(*batch), whole)
    assert sizes == [3 * 26] * 6 + [2 * 26]  # a pixel more, where their number is odd


@pytest.mark.parametrize("sigma", [0.004, 0.25, 1.0])
def test_integers_have_the_rounded_distribution(sigma):
    # Chi-square over cells of at least 50 expected; false alarm: 1 in 100,000, seed fixed.
    noise = make_noise("discrete", "philox4x32", 3)
    made = DeviceNoise(noise, torch.zeros((1, 3, 32, 32)), np.array([8]), np.array([sigma]), "estimate", CPU)
    sample = torch.arange(128)
    k = torch.round(255 * made.fill(torch.zeros_like(sample), sample, torch.zeros_like(sample))).flatten().numpy()
    s = 255 * sigma
    cells = np.arange(-int(6 * s) - 2, int(6 * s) + 3)
    expected = k.size * np.diff(stats.norm.cdf((np.append(cells, cells[-1] + 1) - 0.5) / s))
    observed = np.array([(k == cell).sum() for cell in cells])
    middle = expected >= 50
    rest, rare = k.size - expected[middle].sum(), k.size - observed[middle].sum()
    statistic = ((observed - expected) ** 2 / expected)[middle].sum() + (rare - rest) ** 2 / max(rest, 1)
    assert statistic < stats.chi2.isf(1e-5, middle.sum())


def test_a_tie_is_decided_on_the_cpu_and_reported_by_the_device(monkeypatch, own_tables):
    noise, pictures = make_noise("discrete", "philox4x32", 12), images((1, 3, 5))[:1]
    words = np.empty((1, 15), np.uint64)
    Philox(12).words("estimate", 5, 77, words)
    table = noise_table(0.25)
    thresholds = table.thresholds.copy()
    planted = int(np.searchsorted(thresholds, words[0, 11]))
    thresholds[planted] = words[0, 11]
    first = np.searchsorted(thresholds, np.arange(2**16, dtype=np.uint64) << np.uint64(48)).astype(np.int32)
    tied = dataclasses.replace(table, thresholds=thresholds, first=first)
    for module in (discrete, device_tables):
        monkeypatch.setattr(module, "noise_table", lambda sigma: tied)

    made = DeviceNoise(noise, pictures, np.array([5]), np.array([0.25]), "estimate", CPU)
    zero = torch.tensor([0])
    found = made.fill(zero, torch.tensor([77]), zero)
    assert int(made.undecided) == 1
    made.fill(zero, torch.tensor([78]), zero)
    assert int(made.undecided) == 1
    made.fill(zero, torch.tensor([77]), zero)
    assert int(made.undecided) == 2

    image, out = pictures[0].permute(1, 2, 0).contiguous().numpy(), np.empty((1, 3, 5, 1), np.float32)
    noise.add(words.reshape(1, 3, 5, 1), image, 0.25, out)
    k = np.rint(255 * (out - image)).ravel().astype(int)
    assert k[11] - tied.lowest in (planted, planted + 1)
    elsewhere = np.arange(15) != 11
    np.testing.assert_array_equal(found.numpy().ravel()[elsewhere], out.ravel()[elsewhere])


@pytest.mark.parametrize("sigmas", [[0.001], [0.12, 3.0], [1.0, 0.004, 4.0]])
def test_the_search_on_a_device_finds_any_threshold(sigmas):
    tables = discrete_tables(sigmas)
    for level, sigma in enumerate(sigmas):
        thresholds = noise_table(sigma).thresholds
        words = np.concatenate([thresholds, thresholds + np.uint64(1), thresholds - np.uint64(1)])
        expected = np.searchsorted(thresholds, words)
        tied = thresholds[expected] == words
        made = DeviceNoise(
            make_noise("discrete", "philox4x32", 0),
            torch.zeros((1, 1, 1, len(words))), np.array([0]), np.array(sigmas), "estimate", CPU,
        )  # fmt: skip
        zero = torch.tensor([0])
        noisy = made.noisy(zero, zero, torch.tensor([level]), torch.from_numpy((words ^ SIGN).view(np.int64))[None])
        k = np.rint(255 * noisy.numpy().ravel().astype(np.float64)).astype(np.int64)
        np.testing.assert_array_equal(k[~tied], (expected + noise_table(sigma).lowest)[~tied])
        assert int(made.undecided) == tied.sum() >= len(thresholds)
    assert tables.steps <= 1 + max(1, int(2 * max(sigmas))).bit_length()  # few thresholds in any cell


def test_cells_are_those_of_the_quantile():
    start, stop = device_tables._cell_bounds()
    assert start[CELLS - 2**CELL_BITS] == 0
    filled = start < stop
    np.testing.assert_array_equal(np.sort(start[filled])[1:], np.sort(stop[filled])[:-1])  # side by side
    assert int(stop.max()) == 2**63
    for cell in np.flatnonzero(filled)[::37].tolist():
        octave, place = divmod(cell, 2**CELL_BITS)
        for word in {int(start[cell]), int(stop[cell]) - 1}:
            tail = 2 * word + 1
            assert tail.bit_length() == 64 - octave
            assert (tail << octave) - 2**63 >> 63 - CELL_BITS == place


@pytest.fixture
def own_tables(monkeypatch):
    """No table is kept for, or taken from, another test."""
    for name in ("_search", "tables_on_device"):
        monkeypatch.setattr(device_tables, name, getattr(device_tables, name).__wrapped__)
    monkeypatch.setattr(device_operations, "tables_on_device", device_tables.tables_on_device)


def wrong_products(c0, c1, c2, c3, keys, philox=device_operations.philox):
    """As a compiler has made it: the first product in 32 bits."""
    return philox((c0 * -0x2DAEE0AD).to(torch.int32).to(torch.int64) & 0xFFFFFFFF, c1, c2, c3, keys)


def wrong_words(pairs, *names, words=device_operations.words):
    return words(pairs.flip(0), *names)


def shallow(octaves, cell_of_word=device_operations.cell_of_word):
    """Right but for words as rare as 1 in 2**octaves."""

    def cells(*arguments):
        upper, cell, place = cell_of_word(*arguments)
        return upper, cell.clamp(max=octaves * 2**CELL_BITS - 1), place

    return cells


def reciprocal(sigmas, tables=device_tables.discrete_tables):
    """As CUDA divides by a constant."""
    found = tables(sigmas)
    return found._replace(grey=np.rint(found.grey * np.float32(255)) * (np.float32(1) / np.float32(255)))


def blind(word, image, level, *tables, sampler=device_operations.discrete):
    """Ties are not seen."""
    noisy, ties = sampler(word, image, level, *tables)
    return noisy, torch.zeros_like(ties)


@pytest.mark.parametrize(
    ("module", "name", "broken", "sampler", "message"),
    [
        (device_operations, "philox", wrong_products, "gaussian", "Philox4x32-10 of counter ffffffff"),
        (device_operations, "words", wrong_words, "gaussian", "of 12560 noisy pixels are not the CPU's"),
        (device_operations, "cell_of_word", shallow(40), "gaussian", "1 of 12560 noisy pixels are not the CPU's"),
        (device_operations, "cell_of_word", shallow(45), "gaussian", "of 3140 noisy pixels are not the CPU's"),
        (device_tables, "discrete_tables", reciprocal, "discrete", "noisy pixels are not the CPU's"),
        (device_operations, "discrete", blind, "discrete", "0 ties were found instead of"),
    ],
)
def test_the_check_finds_what_compilers_have_done(monkeypatch, own_tables, module, name, broken, sampler, message):
    check = device_check.trouble.__wrapped__
    assert check(sampler, CPU, "eager") is None
    monkeypatch.setattr(module, name, broken)
    if name == "discrete":
        monkeypatch.setitem(device_operations.SAMPLERS, name, broken)
    found = check(sampler, CPU, "eager")
    assert found is not None
    assert found.startswith("eager noise on cpu: ")
    assert message in found


def test_a_device_that_cannot_make_noise_is_said_in_one_line(monkeypatch):
    def refuse(*arguments):
        raise NotImplementedError("no shifts here\nand more lines")

    monkeypatch.setattr(device_operations, "philox", refuse)
    found = device_check.trouble.__wrapped__("gaussian", CPU, "eager")
    assert found == "eager noise on cpu: NotImplementedError: no shifts here"


def test_a_device_is_checked_once(monkeypatch):
    device_check.trouble.cache_clear()
    asked = []
    monkeypatch.setattr(device_check, "_known_answers", lambda *arguments: asked.append(arguments))
    for _ in range(3):
        assert device_check.trouble("gaussian", CPU) is None
    assert asked == [(CPU, "eager")]
    device_check.trouble.cache_clear()


def test_triton_comes_first_where_it_runs(monkeypatch):
    for found, expected in ((object(), ("triton", "eager")), (None, ("eager",))):
        monkeypatch.setattr(device_noise.importlib.util, "find_spec", lambda name, found=found: found)
        assert ways(torch.device("cuda", 1)) == ways(torch.device("xpu")) == expected
        assert ways(CPU) == ways(torch.device("mps")) == ("eager",)


@pytest.mark.parametrize(
    ("right", "way"), [({"triton", "eager"}, "triton"), ({"triton"}, "triton"), ({"eager"}, "eager"), (set(), None)]
)
def test_a_way_that_is_wrong_gives_place_to_the_next(monkeypatch, right, way):
    monkeypatch.setattr(device_check, "ways", lambda device: ("triton", "eager"))
    monkeypatch.setattr(device_check, "trouble", lambda sampler, device, how: None if how in right else f"{how}: no")
    wrong = {"triton": [], "eager": ["triton: no"], None: ["triton: no", "eager: no"]}[way]
    assert device_check.usable_way("gaussian", CPU) == (way, wrong)


@pytest.mark.parametrize(
    ("stream", "how", "indices", "message"),
    [
        ("sfc64", None, [0], "stream = 'sfc64': devices make noise from 'philox4x32' alone"),
        ("philox4x32", "fast", [0], "how = 'fast': choose 'eager', 'compiled', 'triton'"),
        ("philox4x32", None, [2**32], "index = 4294967296: stream 'philox4x32' numbers images from 0 to"),
    ],
)
def test_bad_input_is_refused(stream, how, indices, message):
    noise = make_noise("gaussian", stream, 0)
    with pytest.raises(ValueError, match=message):
        DeviceNoise(noise, torch.zeros((1, 1, 2, 2)), np.array(indices), np.array([1.0]), "estimate", CPU, how)
