"""The paper's MNIST instance, rebuilt from published certification logs. Needs SRS_DATA."""

from typing import NamedTuple

import numpy as np
import pytest

from regions import OverlapGraph, allocate_graph, overlap_graph, verify

pytestmark = pytest.mark.data


class Instance(NamedTuple):
    points: np.ndarray
    R: np.ndarray
    sigma: np.ndarray
    graph: OverlapGraph


@pytest.fixture(scope="module")
def mnist(data_folder):
    raw = (data_folder / "MNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()
    points = np.frombuffer(raw, dtype=np.uint8, offset=16).reshape(10_000, 784) / 255
    R, sigma = np.zeros(10_000), np.zeros(10_000)
    for level in ("0.25", "0.5", "1.0"):
        log = np.genfromtxt(
            data_folder / "certify-logs" / f"mnist_catrs_{level}.tsv", skip_header=1, usecols=(0, 2, 3), delimiter="\t"
        )
        np.testing.assert_array_equal(log[:, 0], np.arange(10_000))
        better = (log[:, 1] != -1) & (log[:, 2] > R)
        R[better], sigma[better] = log[better, 2], float(level)
    return Instance(points, R, sigma, overlap_graph(points, R))


def test_overlap_graph(mnist):
    # counts of strict inequalities between real distances: exact
    assert mnist.graph.n_edges == 240_586
    assert np.count_nonzero(mnist.graph.degree) == 4_064
    assert mnist.graph.degree.max() == 670
    assert mnist.R.sum() == pytest.approx(21_036.53, abs=0.005)


def test_lp_optimum(mnist):
    allocation = allocate_graph(mnist.graph)
    assert allocation.objective == pytest.approx(17_808.31, abs=0.005)  # the digits the reference gives
    assert allocation.gap < 1e-11
    assert verify(mnist.points, allocation.radii, mnist.R)


@pytest.mark.parametrize(
    ("order", "reference"), [("ascending", 17_626.2), ("descending", 17_311.4), ("arrival", 17_330.3)]
)
def test_greedy_sums(mnist, order, reference):
    allocation = allocate_graph(mnist.graph, "greedy", order=order)
    ties = 0.0 if order == "arrival" else 5.0  # the order within equal degrees moves the sum a little
    assert allocation.objective == pytest.approx(reference, abs=0.05 + ties)
    assert verify(mnist.points, allocation.radii, mnist.R)


def test_sigma_groups(mnist):
    graph = overlap_graph(mnist.points, mnist.R, groups=mnist.sigma)
    allocation = allocate_graph(graph)
    assert graph.n_edges == 335
    assert allocation.objective == pytest.approx(20_985.89, abs=0.005)
    assert verify(mnist.points, allocation.radii, mnist.R, groups=mnist.sigma)
