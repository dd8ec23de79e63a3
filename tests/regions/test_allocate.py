"""The contract every method keeps: feasible in exact arithmetic, within bounds, below its own bound, equivariant."""

import dataclasses
import re
import warnings

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regions import allocate, allocate_graph, overlap_graph, verify
from tests import oracles, strategies

VARIANTS = {
    "lp": {"method": "lp"},
    "lp-cvxpy": {"method": "lp", "solver": "cvxpy"},
    "matching": {"method": "matching"},
    "auto": {"method": "auto"},
    "max-min": {"method": "max-min"},
    "greedy": {"method": "greedy"},
    "greedy-reserve": {"method": "greedy", "reserve": True},
    "greedy-descending": {"method": "greedy", "order": "descending"},
    "greedy-arrival": {"method": "greedy", "order": "arrival"},
}
EXACT = ("lp", "lp-cvxpy", "matching", "auto")
every_method = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
exact_methods = pytest.mark.parametrize("options", [VARIANTS[name] for name in EXACT], ids=EXACT)


def test_every_method_is_under_contract():
    with pytest.raises(ValueError, match="method = 'none'") as refused:
        allocate([[0.0]], [1.0], "none")
    choices = str(refused.value).removeprefix("method = 'none'")
    assert {options["method"] for options in VARIANTS.values()} == set(re.findall(r"'([a-z-]+)'", choices))


@every_method
@settings(max_examples=60)
@given(instance=strategies.grouped_instances())
def test_feasible_and_bounded(options, instance):
    points, R, groups = instance
    allocation = allocate(points, R, groups=groups or None, **options)
    assert (allocation.radii >= 0).all()
    assert (allocation.radii <= R).all()
    assert oracles.overlaps(points, allocation.radii, groups) == []
    assert verify(points, allocation.radii, R, groups=groups or None)
    assert allocation.objective == pytest.approx(allocation.radii.sum(), rel=1e-14)
    if allocation.upper_bound is None:
        assert allocation.gap is None
    else:
        assert allocation.objective <= allocation.upper_bound
        assert 0 <= allocation.gap <= (1e-9 if options["method"] in ("lp", "matching", "auto") else 0.5 + 1e-9)
    assert allocation.status
    assert not allocation.radii.flags.writeable


@exact_methods
@settings(max_examples=60)
@given(instance=strategies.grouped_instances(), seed=st.none() | st.integers(0, 2**32 - 1))
def test_optimum_of_equation_10(options, instance, seed):
    points, R, groups = instance
    weights = None if seed is None else np.random.default_rng(seed).exponential(size=len(R)).round(1)
    if weights is not None and options["method"] == "matching":
        weights = np.full(len(R), weights.max(initial=0.0))  # it treats equal weights only
    allocation = allocate(points, R, groups=groups or None, weights=weights, **options)
    best = oracles.optimum(points, R, groups, weights)
    assert allocation.objective == pytest.approx(best, rel=1e-9, abs=1e-300)
    assert allocation.upper_bound >= best * (1 - 1e-9)  # the oracle, too, is feasible up to a tolerance only


@exact_methods
@settings(max_examples=60)
@given(
    places=st.lists(st.integers(0, 12), max_size=9),
    sizes=st.lists(st.integers(1, 8), min_size=9, max_size=9),
    exponent=st.sampled_from([0, 0, -440, 440]),
)
def test_bounds_are_rounded_upwards(options, places, sizes, exponent):
    # integer data: vertices of Eq. 10 have coordinates in multiples of 1/4, so the optimum is known exactly
    points, R = np.array(places, dtype=float).reshape(-1, 1), np.array(sizes[: len(places)], dtype=float)
    quarters = 4 * oracles.optimum(points, R)
    best = oracles.Fraction(round(quarters), 4) * oracles.Fraction(2) ** exponent
    assert abs(quarters - round(quarters)) < 1e-6
    scale = 2.0**exponent
    allocation = allocate(points * scale, R * scale, **options)
    assert oracles.Fraction(allocation.upper_bound) >= best
    assert sum(map(oracles.Fraction, allocation.radii.tolist()), oracles.Fraction()) <= best
    if allocation.certificate is not None:
        checked = verify(points * scale, allocation.radii, R * scale, certificate=allocation.certificate)
        assert oracles.Fraction(checked.upper_bound) >= best


def test_bounds_are_valid_where_squares_underflow():
    allocation = allocate([[0.0], [1e-140]], [1e-140, 1e-140])
    assert allocation.upper_bound >= 1e-140
    assert allocation.graph.distance[0] <= 1e-140 <= allocation.graph.distance_upper[0]


@pytest.mark.parametrize("exponent", [-460, -500, -540, -800, -1000, 490])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("lp", {}),
        ("lp", {"weights": np.linspace(1.0, 2.0, 30)}),
        ("matching", {}),
        ("max-min", {}),
        ("greedy", {}),
        ("greedy", {"reserve": True}),
    ],
)
@pytest.mark.parametrize("d", [2, 12])
def test_any_scale_has_the_same_answer(rng, d, exponent, method, options):
    points, R = rng.random((30, d)), rng.uniform(0.1, 0.2, 30) * (1 if d == 2 else 4)
    points[3] = points[4]
    at_one = allocate(points, R, method, **options)
    points, R = np.ldexp(points, exponent), np.ldexp(R, exponent)  # exact
    found = allocate(points, R, method, **options)
    assert np.ldexp(found.objective, -exponent) == pytest.approx(at_one.objective, rel=1e-13)
    assert found.gap == pytest.approx(at_one.gap, abs=1e-13)
    assert found.status == at_one.status
    checked = verify(points, found.radii, R, certificate=found.certificate)
    assert checked
    if at_one.upper_bound is not None:
        assert found.objective <= found.upper_bound
        assert np.ldexp(found.upper_bound, -exponent) == pytest.approx(at_one.upper_bound, rel=1e-13)
    if checked.upper_bound is not None:
        assert found.objective <= checked.upper_bound <= found.objective * (1 + 1e-12)


@pytest.mark.parametrize("exponent", [-1030, -1050, -1060, -1070])
@pytest.mark.parametrize("method", ["lp", "matching", "max-min", "greedy"])
def test_where_float64_lacks_digits_bounds_hold_and_nothing_false_is_called_optimal(rng, exponent, method):
    points = np.ldexp(rng.integers(1, 1 << 10, (30, 2)) / 1024, exponent)
    R = np.ldexp(rng.integers(100, 200, 30) / 1024, exponent)
    found = allocate(points, R, method)
    assert verify(points, found.radii, R)
    # the same numbers, not rounded again, at a scale where they have all digits
    best = allocate(np.ldexp(points, 1060), np.ldexp(R, 1060), "matching")
    if found.upper_bound is not None:
        assert np.ldexp(found.upper_bound, 1060) >= best.objective
        assert not found.status.startswith("optimal") or found.gap <= 1e-6


def test_a_gap_between_tiny_lengths_is_stated():
    found = allocate([[0.0]], [1.0], "matching")
    assert dataclasses.replace(found, objective=1e-200, upper_bound=4e-200).gap == 0.75
    assert dataclasses.replace(found, objective=0.0, upper_bound=5e-324).gap == 1


def test_equal_points_are_told_from_near_ones():
    twins = allocate([[0.0], [0.0]], [1.0, 1.0])
    assert twins.upper_bound == twins.objective == twins.gap == 0
    near = allocate([[0.0], [1e-160]], [1.0, 1.0])
    assert near.objective == pytest.approx(1e-160, rel=1e-13)
    assert near.gap < 1e-13


@pytest.mark.parametrize("light", [1e-8, 1e-14, 1e-200])
def test_a_light_component_is_optimised_like_a_heavy_one(rng, light):
    points = np.concatenate([rng.random((60, 3)), rng.random((60, 3)) + 100])
    R = np.ones(120)
    allocation = allocate(points, R, weights=np.repeat([1.0, light], 60))
    assert allocation.radii[60:].sum() == pytest.approx(oracles.optimum(points[60:], R[60:]), rel=1e-9)


def test_tiny_isolated_balls_do_not_warn():
    np.testing.assert_array_equal(allocate([[0.0], [1.0]], [1e-310, 0.1]).radii, [1e-310, 0.1])


def test_a_room_that_is_rounding_alone_is_no_ball():
    # ball 0 leaves ball 1 a radius of 1, less rounding; point 2 lies on its boundary, and ball 3 conflicts with 2 alone
    points, R = np.array([[0.0], [3.0], [2.0], [1.0]]), np.array([2.0, 1.5, 0.5, 1.5])
    graph = overlap_graph(points, R, groups=[[0, 1, 0, 1], [0, 1, 2, 0]])
    radii = allocate_graph(graph, "greedy", order="arrival").radii
    np.testing.assert_allclose(radii, [2.0, 1.0, 0.0, 1.5], rtol=1e-12)
    assert radii[1] < 1


@settings(max_examples=200)
@given(instance=strategies.grouped_instances(max_points=12), seed=st.integers(0, 2**32 - 1))
def test_greedy_is_equation_11(instance, seed):
    points, R, groups = instance
    graph = overlap_graph(points, R, groups=groups or None)
    permutation = np.random.default_rng(seed).permutation(len(R))
    orders = {
        "arrival": np.arange(len(R)),
        "ascending": sorted(range(len(R)), key=lambda k: (graph.degree[k], k)),
        "descending": sorted(range(len(R)), key=lambda k: (-graph.degree[k], k)),
    }
    for order, sequence in [*orders.items(), (permutation, permutation)]:
        allocation = allocate_graph(graph, "greedy", order=order)
        expected = oracles.greedy(points, R, sequence, groups)
        np.testing.assert_allclose(allocation.radii, expected, rtol=1e-9, atol=1e-9 * R.max(initial=0))


@every_method
def test_permuting_the_points_permutes_the_radii(options, rng):
    points, R = rng.normal(size=(200, 3)), rng.random(200)
    permutation = rng.permutation(200)
    allocation = allocate(points, R, **options)
    if options["method"] != "greedy":  # unique up to ties between optima
        permuted = allocate(points[permutation], R[permutation], **options)
        assert permuted.objective == pytest.approx(allocation.objective, rel=1e-11)
    else:  # unique up to ties in degree, which the order of treatment, given explicitly, does not have
        degree = allocation.graph.degree
        first = {"ascending": degree, "descending": -degree, "arrival": np.zeros(200)}
        treated = np.argsort(first[options.get("order", "ascending")], kind="stable")
        order = np.argsort(permutation)[treated]
        permuted = allocate(points[permutation], R[permutation], **{**options, "order": order})
        np.testing.assert_array_equal(permuted.radii, allocation.radii[permutation])


@every_method
@pytest.mark.parametrize("scale", [2.0**-30, 2.0**30, 1e-9, 1e9])
def test_scaling_all_lengths_scales_the_radii(options, scale, rng):
    points, R = rng.normal(size=(150, 4)), rng.random(150) * 2
    allocation, scaled = allocate(points, R, **options), allocate(points * scale, R * scale, **options)
    assert allocation.graph.n_edges > 100
    assert scaled.objective == pytest.approx(allocation.objective * scale, rel=1e-11)
    if options["method"] == "greedy" or np.frexp(scale)[0] == 0.5:  # else rounding may choose among tied optima
        np.testing.assert_allclose(scaled.radii, allocation.radii * scale, rtol=1e-9, atol=1e-9 * scale)
    assert verify(points * scale, scaled.radii, R * scale)


def test_components_of_very_different_scale_are_all_solved():
    # a pair at distance 1e9 beside a path of three at distances of 1e-9: absolute tolerances would lose the small ones
    points = np.array([[0.0], [1e9], [4e9], [4e9 + 2e-6], [4e9 + 4e-6]])
    points[3:] = points[2] + np.array([[2.0**-18], [2.0**-17]])
    R = np.array([1e9, 1e9, 1e-5, 1e-5, 1e-5])
    radii = allocate(points, R).radii
    assert radii[0] + radii[1] == pytest.approx(1e9, rel=1e-12)
    assert radii[2:].sum() == pytest.approx(2 * 2.0**-18, rel=1e-9)  # the ends take all, the middle nothing


@pytest.mark.parametrize("leaves", [3, 50])
def test_star_gives_everything_to_the_leaves(leaves):
    angle = 2 * np.pi * np.arange(leaves) / leaves
    points = 100 * np.c_[np.r_[0, np.cos(angle)], np.r_[0, np.sin(angle)]]
    points[0] = 0.0
    R = np.r_[
        99.0, np.full(leaves, 2.0)
    ]  # leaves are 200 sin(pi / leaves) > 4 apart: they conflict with the centre only
    allocation = allocate(points, R)
    np.testing.assert_allclose(allocation.radii, np.r_[98.0, np.full(leaves, 2.0)], rtol=1e-12)


def test_odd_cycle_is_half_integral():
    # equilateral triangle of side 1: the optimum of Eq. 10 is 3/2 with all radii 1/2, not an integral 1
    points = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
    allocation = allocate(points, [1.0, 1.0, 1.0])
    np.testing.assert_allclose(allocation.radii, 0.5, rtol=1e-12)


def test_greedy_leaves_a_point_inside_an_earlier_ball_empty_and_later_balls_ignore_it():
    points, R = [[0.0], [1.0], [1.5]], [1.2, 3.0, 3.0]
    allocation = allocate(points, R, "greedy", order="arrival")
    np.testing.assert_allclose(allocation.radii, [1.2, 0.0, 0.3], rtol=1e-12)
    lp = allocate(points, R)  # Eq. 10 keeps every point out of every other ball
    np.testing.assert_allclose(lp.objective, 1.5, rtol=1e-12)


@every_method
def test_degenerate_instances(options):
    assert allocate(np.zeros((0, 3)), [], **options).radii.shape == (0,)
    assert allocate([], [], **options).objective == 0
    np.testing.assert_array_equal(allocate([[3.0]], [0.7], **options).radii, [0.7])
    np.testing.assert_array_equal(allocate([[3.0], [4.0]], [0.0, 0.0], **options).radii, [0.0, 0.0])
    np.testing.assert_array_equal(allocate([[3.0], [4.0]], [0.5, 0.5], **options).radii, [0.5, 0.5])
    same = allocate(np.ones((5, 2)), np.ones(5), **options)
    assert np.count_nonzero(same.radii) == (1 if options["method"] == "greedy" and "reserve" not in options else 0)


@every_method
def test_inputs_of_every_kind_give_the_same_radii(options, rng):
    torch = pytest.importorskip("torch")
    images = rng.integers(0, 256, size=(60, 1, 4, 4), dtype=np.uint8)
    R = rng.random(60) * 400
    reference = allocate(images.reshape(60, 16).astype(float), R, **options).radii
    wide = np.zeros((60, 32))
    wide[:, ::2] = images.reshape(60, 16)
    for points in (images, images.astype(np.float16), wide[:, ::2], torch.from_numpy(images), images.tolist()):
        np.testing.assert_array_equal(allocate(points, R, **options).radii, reference)
    np.testing.assert_array_equal(allocate(images, torch.from_numpy(R), **options).radii, reference)
    assert (reference < R).any()


@every_method
def test_inputs_are_left_alone(options, rng):
    points, R = rng.random((50, 2)), rng.random(50)
    before = points.copy(), R.copy()
    allocate(points, R, **options)
    np.testing.assert_array_equal(points, before[0])
    np.testing.assert_array_equal(R, before[1])


@every_method
def test_same_input_same_radii(options, rng):
    points, R = rng.random((300, 3)), rng.random(300) * 0.4
    np.testing.assert_array_equal(allocate(points, R, **options).radii, allocate(points, R, **options).radii)


def test_weights_move_the_optimum():
    points, R = [[0.0], [1.0]], [1.0, 1.0]
    assert allocate(points, R, weights=[1.0, 2.0]).radii.tolist() == pytest.approx([0.0, 1.0])
    assert allocate(points, R, weights=[2.0, 1.0]).radii.tolist() == pytest.approx([1.0, 0.0])
    assert allocate(points, R, weights=[3e200 * 1e-60, 1e140]).objective == pytest.approx(3e140)
    assert allocate(points, R, weights=[0.0, 0.0]).upper_bound == 0
    greedy = allocate(points, R, "greedy", weights=[5.0, 1.0])
    assert greedy.objective == pytest.approx(5 * greedy.radii[0] + greedy.radii[1])


def test_graph_and_points_give_the_same_allocation(rng):
    points, R = rng.random((100, 2)), rng.random(100) * 0.2
    graph = overlap_graph(points, R)
    for options in VARIANTS.values():
        np.testing.assert_array_equal(allocate_graph(graph, **options).radii, allocate(points, R, **options).radii)


def test_random_trees_are_solved_to_the_last_digit(rng):
    tree = nx.random_labeled_tree(60, seed=1)
    position = nx.spring_layout(tree, seed=2, dim=3)
    points = np.array([position[k] for k in range(60)])
    R = rng.random(60) * 0.5
    allocation = allocate(points, R)
    assert allocation.gap < 1e-12
    assert allocation.objective == pytest.approx(oracles.optimum(points, R), rel=1e-10)


class TestUnreliableSolver:
    """Whatever a solver returns, the answer is feasible, the bound valid, and failure is loud."""

    @pytest.fixture
    def instance(self, rng):
        return rng.random((200, 2)), rng.random(200) * 0.2

    def tamper(self, monkeypatch, **changes):
        from regions._methods import solvers

        real = solvers.solve

        def unreliable(*args):
            solution = real(*args)
            return dataclasses.replace(solution, **{name: change(solution) for name, change in changes.items()})

        monkeypatch.setattr(solvers, "solve", unreliable)

    @pytest.mark.parametrize(
        "radii",
        [
            lambda s: s.radii + 0.3,
            lambda s: s.radii * np.nan,
            lambda s: -s.radii,
            lambda s: np.full_like(s.radii, np.inf),
            lambda s: s.radii * (1 + 1e-7),
            lambda s: np.zeros_like(s.radii),
        ],
        ids=["too large", "nan", "negative", "infinite", "slightly infeasible", "zero"],
    )
    def test_bad_radii(self, monkeypatch, instance, radii):
        points, R = instance
        best = oracles.optimum(points, R)
        self.tamper(monkeypatch, radii=radii)
        allocation = allocate(points, R)
        assert oracles.overlaps(points, allocation.radii) == []
        assert (allocation.radii <= R).all()
        assert allocation.objective <= best * (1 + 1e-12)
        assert allocation.upper_bound >= best * (1 - 1e-12)
        if allocation.gap > 1e-6:
            assert "not proven optimal" in allocation.status

    @pytest.mark.parametrize(
        "duals",
        [
            lambda s: s.edge_duals * 0,
            lambda s: -s.edge_duals,
            lambda s: s.edge_duals * np.nan,
            lambda s: s.edge_duals * 0.5,
            lambda s: s.edge_duals + 0.1,
        ],
        ids=["zero", "negative", "nan", "half", "shifted"],
    )
    def test_bad_duals_give_a_weaker_but_valid_bound(self, monkeypatch, instance, duals):
        points, R = instance
        best = oracles.optimum(points, R)
        self.tamper(monkeypatch, edge_duals=duals)
        allocation = allocate(points, R)
        assert allocation.upper_bound >= best
        assert allocation.gap > 1e-3
        assert "not proven optimal" in allocation.status

    def test_failure_falls_back_to_greedy_with_a_warning(self, monkeypatch, instance):
        points, R = instance
        self.tamper(
            monkeypatch,
            radii=lambda s: np.zeros_like(s.radii),
            edge_duals=lambda s: np.zeros_like(s.edge_duals),
            optimal=lambda s: False,
            status=lambda s: "broken: mend it",
        )
        with pytest.warns(RuntimeWarning, match="highs stopped before the optimum: broken: mend it"):
            allocation = allocate(points, R)
        assert allocation.method.startswith("lp (highs) on 0 of ")
        assert "repaired on 0, greedy on " in allocation.method
        assert allocation.status == "broken: mend it"
        assert oracles.overlaps(points, allocation.radii) == []
        best = oracles.optimum(points, R)
        assert 0.9 * best < allocation.objective <= best * (1 + 1e-12)
        assert allocation.upper_bound >= best

    def test_failure_keeps_what_the_solver_had_when_it_is_better(self, monkeypatch, instance):
        points, R = instance
        self.tamper(monkeypatch, radii=lambda s: s.radii + 1e-9, optimal=lambda s: False)
        with pytest.warns(RuntimeWarning):
            allocation = allocate(points, R)
        assert ", greedy on 0" in allocation.method
        assert allocation.objective == pytest.approx(oracles.optimum(points, R), rel=1e-6)

    def test_parts_that_failed_fall_back_alone(self, monkeypatch, rng):
        from regions._methods import solvers

        points = rng.random((3000, 2))  # in 30 clusters, far apart: more than one part
        points += 100 * rng.integers(30, size=(3000, 1))
        R = rng.random(3000) * 0.3
        whole = allocate(points, R)
        assert whole.stats["parts"] > 2
        real, calls = solvers.solve, []

        def second_fails(*args):
            calls.append(args)
            solution = real(*args)
            if len(calls) != 2:
                return solution
            return dataclasses.replace(solution, radii=solution.radii * 0, optimal=False, status="broken: mend it")

        monkeypatch.setattr(solvers, "solve", second_fails)
        with pytest.warns(RuntimeWarning, match="broken: mend it"):
            allocation = allocate(points, R)
        parts = whole.stats["parts"]
        assert allocation.method == f"lp (highs) on {parts - 1} of {parts} parts, repaired on 0, greedy on 1"
        assert allocation.status == "broken: mend it"
        assert 0.9 * whole.objective < allocation.objective < whole.objective
        assert allocation.upper_bound == pytest.approx(whole.upper_bound)
        assert verify(points, allocation.radii, R)

    @pytest.mark.parametrize("solver", ["highs", "cvxpy"])
    def test_time_limit(self, rng, solver):
        points, R = rng.random((3000, 2)), rng.random(3000) * 0.1
        with pytest.warns(RuntimeWarning, match="time limit"):
            allocation = allocate(points, R, solver=solver, time_limit=1e-3)
        assert "time limit reached" in allocation.status
        assert verify(points, allocation.radii, R)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            full = allocate(points, R)
        assert allocation.objective <= full.objective <= full.upper_bound <= allocation.upper_bound
        assert full.gap < 1e-9
