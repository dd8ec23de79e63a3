"""The joint choice of levels and radii: against enumeration, and against the simple answers it must not fall behind."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from regions import OverlapGraph, allocate_levels, verify
from regions._levels import bound as _levels_bound
from regions._levels import enumeration as _levels_exact
from regions._levels import messages as _levels_messages
from regions._levels.block_moves import improve
from regions._levels.problem import LevelProblem, State
from regions._levels.search import COARSE, fuse
from tests import oracles, strategies


def chosen(groups, level):
    """Labels at the chosen levels: the level itself and every array of groups."""
    rows = np.arange(len(level))
    return [level, *(g if g.ndim == 1 else g[rows, level] for g in groups)]


def optimum(points, R, groups=()):
    """Enumerate all choices of levels, with the oracle's radii for each."""
    n, K = R.shape
    best = 0.0
    for level in itertools.product(range(K), repeat=n):
        level = np.array(level, dtype=int)
        bounds = R[np.arange(n), level]
        if bounds.sum() > best:
            best = max(best, oracles.optimum(points, bounds, chosen(groups, level)))
    return best


@st.composite
def problems(draw, max_points=4, max_levels=3, max_groups=1):
    """(points, levels, R, groups), with zeros among R, equal columns, and groups that may depend on the level."""
    points, most = draw(strategies.instances(max_points=max_points, max_dimension=2))
    n = len(most)
    K = draw(st.integers(1, max_levels))
    shares = draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.8, 1.0]), min_size=n * K, max_size=n * K))
    R = most[:, None] * np.array(shares).reshape(n, K)
    groups = []
    for _ in range(draw(st.integers(0, max_groups))):
        shape = draw(st.sampled_from([(n,), (n, K)]))
        size = int(np.prod(shape))
        groups.append(np.array(draw(st.lists(st.integers(0, 2), min_size=size, max_size=size)), int).reshape(shape))
    return points, np.arange(1, K + 1) / 4, R, groups


def check(points, levels, R, groups, answer):
    """What every answer guarantees."""
    n, K = R.shape
    rows = np.arange(n)
    assert answer.level.shape == answer.sigma.shape == answer.radii.shape == (n,)
    np.testing.assert_array_equal(answer.sigma, levels[answer.level])
    bounds = R[rows, answer.level]
    assert verify(points, answer.radii, bounds, groups=chosen(groups, answer.level))
    assert oracles.overlaps(points, answer.radii, chosen(groups, answer.level)) == []
    assert answer.objective <= answer.upper_bound
    assert 0 <= answer.gap <= 1
    assert answer.objective == pytest.approx(answer.radii.sum(), rel=1e-14)
    best = R.argmax(axis=1)
    simple = [oracles.optimum(points, R[:, k], chosen(groups, np.full(n, k))) for k in range(K)]
    simple.append(oracles.optimum(points, R[rows, best], chosen(groups, best)))
    assert answer.objective >= max(simple) * (1 - 1e-9)
    assert answer.status


def check_against_enumeration(problem, sweeps):
    points, levels, R, groups = problem
    answer = allocate_levels(points, levels, R, groups=groups or None, sweeps=sweeps)
    check(points, levels, R, groups, answer)
    best = optimum(points, R, groups)
    assert answer.objective == pytest.approx(best, rel=1e-9, abs=1e-300)  # components this small are enumerated
    assert best * (1 - 1e-9) <= answer.upper_bound <= best * (1 + 1e-9) + 1e-140


@settings(max_examples=60, deadline=None)
@given(problem=problems(), sweeps=st.sampled_from([0, 1, 10]))
def test_small_problems_are_solved_and_proven(problem, sweeps):
    check_against_enumeration(problem, sweeps)


@pytest.mark.slow
@settings(max_examples=2_000, deadline=None)
@given(problem=problems(), sweeps=st.sampled_from([0, 1, 10]))
def test_small_problems_are_solved_and_proven_by_thousands(problem, sweeps):
    check_against_enumeration(problem, sweeps)


@settings(max_examples=60, deadline=None)
@given(problem=problems(max_points=30, max_levels=5, max_groups=2))
def test_guarantees_on_larger_problems(problem):
    points, levels, R, groups = problem
    check(points, levels, R, groups, allocate_levels(points, levels, R, groups=groups or None))


@settings(max_examples=40, deadline=None)
@given(problem=problems(), seed=st.integers(0, 2**32 - 1), nodes=st.integers(2, 9))
def test_any_messages_give_a_bound(problem, seed, nodes):
    # the bound must not rest on the messages being good ones
    points, _, R, groups = problem
    assume(len(R))
    i, j = np.array(list(itertools.combinations(range(len(R)), 2)), dtype=int).reshape(-1, 2).T
    n, K = R.shape
    labels = np.stack([np.broadcast_to(g.reshape(n, -1), (n, K)) for g in groups], axis=2) if groups else None
    labels = np.ascontiguousarray(labels) if groups else np.zeros((n, K, 0), dtype=int)
    distance = np.linalg.norm(points[i] - points[j], axis=1)
    network = _levels_bound.neighbours(n, i, j, distance * (1 + 1e-12))
    rng = np.random.default_rng(seed)
    messages = rng.normal(scale=R.max() + 1e-300, size=(2 * i.size, K, nodes))
    best = optimum(points, R, groups)
    for share in (rng.random(n) / np.maximum(1, network.later), 1 / np.maximum(1, network.later)):
        assert _levels_bound.value(network, R, labels, share, messages) >= best * (1 - 1e-9)


@settings(max_examples=60, deadline=None)
@given(problem=problems(max_points=5, max_groups=0))
def test_enumeration_finds_the_optimum_from_any_answer(problem):
    points, _, R, _ = problem
    state = State(np.zeros(len(R), dtype=int), R[:, 0].copy())
    proven, bound = _levels_exact.settle(problem_of(points, R), state)
    assert proven.all()
    assert verify(points, state.radii, R[np.arange(len(R)), state.level], groups=state.level)
    best = optimum(points, R)
    assert state.radii.sum() == pytest.approx(best, rel=1e-9, abs=1e-140)
    assert best * (1 - 1e-9) <= bound <= best * (1 + 1e-9) + 1e-140


@pytest.mark.parametrize(("name", "limit"), [("_NODES", 1), ("_LEAVES", 0), ("_POINTS", 1), ("_ALL_NODES", 0)])
@settings(max_examples=25, deadline=None)
@given(problem=problems())
def test_components_that_take_too_long_keep_a_valid_bound(name, limit, problem):
    points, levels, R, groups = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_levels_exact, name, limit)
        answer = allocate_levels(points, levels, R, groups=groups or None)
    check(points, levels, R, groups, answer)
    best = optimum(points, R, groups)
    assert answer.objective <= best * (1 + 1e-9)
    assert answer.upper_bound >= best * (1 - 1e-9)


def clusters(rng, n=150, K=4, d=3):
    centres = rng.random((10, d)) * 2
    points = centres[rng.integers(10, size=n)] + 0.1 * rng.normal(size=(n, d))
    levels = np.arange(1, K + 1) / K
    return points, levels, levels * rng.random((n, K)) * (rng.random((n, K)) > 0.1)


@pytest.mark.parametrize("K", [1, 2, 7, 18])
def test_any_number_of_levels(K, rng):
    points, levels, R = clusters(rng, K=K)
    answer = allocate_levels(points, levels, R)
    check(points, levels, R, [], answer)
    if K == 1:
        assert answer.gap < 1e-12
    else:
        assert answer.gap < 0.1


def test_search_and_bound_are_close_on_clusters(rng):
    points, levels, R = clusters(rng, n=60)
    assert allocate_levels(points, levels, R, rounds=3, sweeps=20).gap < 0.05


@pytest.mark.parametrize("n", [0, 1])
def test_few_points(n):
    answer = allocate_levels(np.zeros((n, 2)), [0.5, 1.0], np.full((n, 2), [1.0, 3.0]))
    assert answer.objective == 3.0 * n
    assert answer.gap < 1e-15
    np.testing.assert_array_equal(answer.sigma, [1.0] * n)


def test_an_empty_list():
    assert allocate_levels([], [0.5], []).objective == 0.0


def test_points_without_a_radius_constrain_nobody():
    answer = allocate_levels([[0.0], [0.5], [0.75]], [1.0, 2.0], [[0.0, 5.0], [0.0, 0.0], [4.0, 0.0]])
    np.testing.assert_array_equal(answer.radii, [5.0, 0.0, 0.0])
    assert answer.level[0] == 1
    assert answer.upper_bound >= 5.0


def test_a_common_level_beats_two_best_ones():
    # both balls hold the other's centre: at their best levels they must share a distance of 1
    answer = allocate_levels([[0.0], [1.0]], [0.5, 1.0], [[3.0, 2.5], [2.0, 3.0]])
    np.testing.assert_array_equal(answer.level, [1, 1])
    np.testing.assert_array_equal(answer.radii, [2.5, 3.0])
    assert answer.objective == 5.5


def test_groups_may_depend_on_the_level():
    points, levels, R = [[0.0], [1.0]], [0.5, 1.0], [[3.0, 2.5], [2.0, 3.0]]
    assert allocate_levels(points, levels, R, groups=[7, 7]).objective == 6.0
    assert allocate_levels(points, levels, R, groups=np.array([[7, 1], [2, 7]])).objective == 6.0
    assert allocate_levels(points, levels, R, groups=np.array([[7, 1], [7, 2]])).objective == 5.5
    both = (np.array([0, 1]), np.array([[7, 1], [2, 7]]))
    assert allocate_levels(points, levels, R, groups=both).objective == 6.0


def test_deterministic_and_equivariant(rng):
    points, levels, R = clusters(rng)
    answer = allocate_levels(points, levels, R, rounds=3)
    again = allocate_levels(points, levels, R, rounds=3)
    np.testing.assert_array_equal(answer.level, again.level)
    np.testing.assert_array_equal(answer.radii, again.radii)
    assert answer.upper_bound == again.upper_bound
    scaled = allocate_levels(points * 2.0**-20, levels, R * 2.0**-20, rounds=3)
    assert scaled.objective == pytest.approx(answer.objective * 2.0**-20, rel=1e-3)
    permutation = rng.permutation(len(points))
    permuted = allocate_levels(points[permutation], levels, R[permutation], rounds=3)
    assert permuted.objective == pytest.approx(answer.objective, rel=2e-2)  # another local optimum, perhaps


def test_a_time_limit_still_gives_an_answer(rng):
    points, levels, R = clusters(rng)
    check(points, levels, R, [], allocate_levels(points, levels, R, time_limit=1e-9))


def problem_of(points, R):
    from regions import overlap_graph

    return LevelProblem(overlap_graph(points, R.max(axis=1)), R, np.zeros((*R.shape, 0), dtype=int))


def test_moves_never_lose(rng):
    points, _, R = clusters(rng)
    problem = problem_of(points, R)
    state = State.best_levels(problem)
    for _ in range(3):
        for k in range(R.shape[1]):
            before = state.radii.sum()
            fuse(problem, state, State(np.full(len(R), k), R[:, k].copy()), COARSE)
            assert state.radii.sum() >= before
        before = state.radii.sum()
        improve(problem, state)
        assert state.radii.sum() >= before
        check_graph = problem.radii_problem(state.level)
        assert isinstance(check_graph, OverlapGraph)
        assert verify(points, state.radii, R[np.arange(len(R)), state.level], groups=state.level)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_two_levels_from_a_common_one_are_a_minimum_cut(seed):
    # with radii that fit the grid, the best expansion from a common level is found exactly
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 12, size=(5, 1)).astype(float)
    R = rng.integers(0, 2, size=(5, 2)) * 4.0
    problem = problem_of(points, R)
    state = State(np.zeros(5, dtype=int), R[:, 0].copy())
    fuse(problem, state, State(np.ones(5, dtype=int), R[:, 1].copy()), (8, 8))
    assert state.radii.sum() == pytest.approx(optimum(points, R))


def test_nearest_edges_cover_every_point():
    i, j = np.array([0, 0, 0, 1, 2]), np.array([1, 2, 3, 2, 3])
    keep = np.zeros(5, dtype=bool)
    _levels_messages.nearest_edges(i, j, np.arange(5), 1, keep)
    np.testing.assert_array_equal(keep, [True, True, True, False, False])


def test_enumeration_finds_what_is_only_a_little_better():
    """The bound (L3) of the optimum, 1.05, is tight: were distances taken for shorter, it would be ruled out."""
    problem = problem_of(np.array([[0.0], [1.05]]), np.array([[1.0, 0.0], [0.0, 0.9]]))
    state = State(np.zeros(2, dtype=int), np.array([1.0, 0.0]))
    proven, bound = _levels_exact.settle(problem, state)
    assert proven.all()
    assert state.level.tolist() == [0, 1]
    assert state.radii.sum() == pytest.approx(1.05, rel=1e-12)
    assert state.radii.sum() <= bound <= 1.05 * (1 + 1e-9)


@pytest.mark.parametrize("classes", [0, 1, 2])
@pytest.mark.parametrize("nodes", [2, 5])
def test_messages_from_envelopes_are_near_the_exact_ones(rng, classes, nodes):
    K = 5
    for _ in range(100):
        R = rng.random((2, K)) * (rng.random((2, K)) < 0.7)
        labels = rng.integers(2, size=(2, K, classes))
        f = rng.normal(size=(K, nodes))
        f[R[0] == 0] = f[R[0] == 0][:, :1]  # an empty ball has one radius
        args = (0, 1, float(rng.random() * 1.5), R, labels, f)
        exact, near = np.empty((K, nodes)), np.empty((K, nodes))
        most = _levels_messages.best_reply(*args, np.empty((K, nodes)), exact)
        assert most == _levels_messages.near_reply(*args, np.empty((K, 40_000)), np.empty(K), near)
        assert np.abs(near - exact).max() < 2e-3 * np.ptp(f) * nodes


GOOD = {"points": [[0.0], [1.0]], "sigmas": [0.5, 1.0], "R": [[1.0, 2.0], [2.0, 1.0]]}
CASES = {
    "no levels": ({"sigmas": []}, r"sigmas has shape \(0,\): expected \(K,\)"),
    "matrix of levels": ({"sigmas": [[0.5, 1.0]]}, r"sigmas has shape \(1, 2\)"),
    "zero level": ({"sigmas": [0.0, 1.0]}, r"sigmas\[0\] = 0.0: a noise level must be finite and > 0"),
    "nan level": ({"sigmas": [0.5, np.nan]}, r"sigmas\[1\] = nan"),
    "falling levels": ({"sigmas": [1.0, 0.5]}, r"sigmas\[1\] = 0.5: noise levels must increase"),
    "repeated level": ({"sigmas": [0.5, 0.5]}, r"sigmas\[1\] = 0.5: noise levels must increase"),
    "vector R": ({"R": [1.0, 2.0]}, r"R has shape \(2,\): expected \(2, 2\), 2 points at 2 levels"),
    "wide R": ({"R": np.ones((2, 3))}, r"R has shape \(2, 3\)"),
    "negative R": ({"R": [[1.0, 2.0], [-0.5, 1.0]]}, r"R\[1, 0\] = -0.5: radii must be finite and >= 0"),
    "nan R": ({"R": [[1.0, np.nan], [0.5, 1.0]]}, r"R\[0, 1\] = nan"),
    "huge R": ({"R": [[1.0, 1e200], [0.5, 1.0]]}, r"R\[0, 1\] = 1e\+200: radii must not exceed"),
    "nan point": ({"points": [[0.0], [np.nan]]}, r"points\[1, 0\] = nan"),
    "short groups": ({"groups": [1]}, r"groups has shape \(1,\): expected \(2,\) or \(2, 2\)"),
    "short second group": ({"groups": ([1, 2], [1, 2, 3])}, r"groups\[1\] has shape \(3,\)"),
    "nan group": ({"groups": [1.0, np.nan]}, r"groups\[1\] = nan"),
    "negative rounds": ({"rounds": -1}, "rounds = -1: expected an integer >= 0"),
    "no time": ({"time_limit": 0.0}, "time_limit = 0.0: expected a positive number of seconds"),
    "negative seed": ({"seed": -1}, "seed = -1: expected an integer >= 0"),
    "negative sweeps": ({"sweeps": -3}, "sweeps = -3: expected an integer >= 0"),
}


@pytest.mark.parametrize(("changes", "message"), CASES.values(), ids=CASES)
def test_names_the_value(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        allocate_levels(**{**GOOD, **changes})
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def mnist(data_folder):
    raw = (data_folder / "MNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()
    with np.load(data_folder / "mnist_levels.npz") as file:
        arrays = {name: file[name] for name in ("sigma", "radius", "predict")}
    return np.frombuffer(raw, dtype=np.uint8, offset=16).reshape(10_000, 784) / 255, arrays


@pytest.mark.data
def test_mnist(mnist):
    points, arrays = mnist
    R = arrays["radius"].astype(np.float64)
    answer = allocate_levels(points, arrays["sigma"], R)
    assert verify(points, answer.radii, R[np.arange(len(R)), answer.level], groups=answer.level)
    assert answer.stats["objective_best_level"] == pytest.approx(15_455.09, abs=0.01)
    assert answer.objective > 16_101
    assert answer.upper_bound < 16_150  # proven: no choice of levels and radii reaches 16,150
    assert answer.gap < 0.005


@pytest.mark.parametrize("exponent", [-500, -540, -1000, -1030, -1060])
def test_tiny_scales_have_the_same_levels_and_true_bounds(rng, exponent):
    points = np.ldexp(rng.integers(1, 1 << 10, (30, 2)) / 1024, exponent)
    R = np.ldexp(rng.integers(50, 200, (30, 3)) / 1024, exponent)
    levels = np.array([0.25, 0.5, 1.0])
    found = allocate_levels(points, levels, R)
    at_one = allocate_levels(np.ldexp(points, -exponent), levels, np.ldexp(R, -exponent))  # exact
    np.testing.assert_array_equal(found.level, at_one.level)
    assert verify(points, found.radii, R[np.arange(30), found.level], groups=found.level)
    lost = 30 * 2.0 ** (-1074 - exponent)  # each radius may lose a digit
    assert found.objective <= found.upper_bound
    assert np.ldexp(found.upper_bound, -exponent) >= at_one.objective
    assert np.ldexp(found.objective, -exponent) >= at_one.objective * (1 - 1e-12) - 2 * lost
