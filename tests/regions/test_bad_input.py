import subprocess
import sys

import numpy as np
import pytest

from regions import RegionMap, allocate, allocate_graph, overlap_graph, verify

GOOD = {"points": [[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]], "R": [1.0, 1.0, 1.0]}

# ruff: noqa: E501 (one case a line)
CASES = {
    "nan point": ({"points": [[0.0, np.nan], [1.0, 0.0], [0.0, 2.0]]}, r"points\[0, 1\] = nan: coordinates must be finite"),
    "infinite point": ({"points": [[0.0, 0.0], [-np.inf, 0.0], [0.0, 2.0]]}, r"points\[1, 0\] = -inf"),
    "huge point": ({"points": [[0.0, 0.0], [1e200, 0.0], [0.0, 2.0]]}, r"points\[1, 0\] = 1e\+200: .* rescale"),
    "one-dimensional points": ({"points": [0.0, 1.0, 2.0]}, r"points has shape \(3,\): expected \(n, d\)"),
    "no coordinates": ({"points": np.zeros((3, 0))}, r"points has shape \(3, 0\): every point needs"),
    "text points": ({"points": [["a", "b"]] * 3}, r"points has dtype <U1: expected real numbers"),
    "complex points": ({"points": np.ones((3, 2)) * 1j}, r"points has dtype complex128"),
    "object points": ({"points": np.array([[object()]] * 3)}, r"points has dtype object"),
    "ragged points": ({"points": [[1.0], [1.0, 2.0], [3.0]]}, r"points cannot be read as an array"),
    "unrepresentable integer": ({"points": [[2**53 + 1], [0], [1]]}, r"points\[0, 0\] = 9007199254740993: not representable"),
    "masked points": ({"points": np.ma.masked_array(np.ones((3, 2)), mask=np.eye(3, 2))}, r"points is a masked array, whose mask would be lost: fill it"),
    "masked point in a list": ({"points": [np.ma.masked_array([0.0, 1.0], mask=[1, 0]), [1.0, 1.0], [2.0, 2.0]]}, r"points is a masked array"),
    "masked R": ({"R": np.ma.masked_array([1.0, 1.0, 1.0], mask=[0, 1, 0])}, r"R is a masked array"),
    "masked groups": ({"groups": np.ma.masked_array([0, 0, 1], mask=[0, 1, 0])}, r"groups is a masked array"),
    "masked groups in a list": ({"groups": [[0, 0, 1], np.ma.masked_array([0, 0, 1], mask=[0, 1, 0])]}, r"groups(\[1\])? is a masked array"),
    "masked weights": ({"weights": np.ma.masked_array([1.0, 1.0, 1.0])}, r"weights is a masked array"),
    "masked order": ({"method": "greedy", "order": np.ma.masked_array([0, 1, 2])}, r"order is a masked array"),
    "dates": ({"points": np.zeros((3, 2), dtype="datetime64[s]")}, r"points has dtype datetime64\[s\]"),
    "negative R": ({"R": [1.0, -0.2, 1.0]}, r"R\[1\] = -0.2: radii must be finite and >= 0"),
    "nan R": ({"R": [1.0, 1.0, np.nan]}, r"R\[2\] = nan: radii must be finite"),
    "infinite R": ({"R": [np.inf, 1.0, 1.0]}, r"R\[0\] = inf: radii must be finite"),
    "short R": ({"R": [1.0, 1.0]}, r"R has shape \(2,\): expected \(3,\)"),
    "matrix R": ({"R": [[1.0], [1.0], [1.0]]}, r"R has shape \(3, 1\): expected \(3,\)"),
    "text R": ({"R": ["1", "2", "3"]}, r"R has dtype <U1: expected real numbers"),
    "short groups": ({"groups": [0, 1]}, r"groups has shape \(2,\): expected \(3,\)"),
    "short second group": ({"groups": ([0, 1, 2], [0, 1])}, r"groups\[1\] has shape \(2,\)"),
    "matrix of groups": ({"groups": np.array([[0, 0, 1], [7, 8, 7]])}, r"groups has shape \(2, 3\): expected \(3,\); several arrays of labels go into a list"),
    "square matrix of groups": ({"groups": np.zeros((3, 3), dtype=int)}, r"groups has shape \(3, 3\): expected \(3,\); several"),
    "matrix in a list": ({"groups": [[0, 1, 2], np.zeros((3, 2))]}, r"groups\[1\] has shape \(3, 2\): expected \(3,\); several"),
    "labels merged by rounding": ({"groups": [2**53, 2**53 + 1, 0.5]}, r"groups\[1\] = 9007199254740993: cannot be told from other labels"),
    "labels of two types": ({"groups": [1, "1", 2]}, r"groups\[0\] = 1: cannot be told from other labels; give labels of one type"),
    "nan group": ({"groups": [0.5, np.nan, 0.5]}, r"groups\[1\] = nan: a label must not be NaN"),
    "unknown method": ({"method": "magic"}, r"method = 'magic': choose 'lp', 'matching', 'greedy', 'max-min', 'auto'"),
    "unknown order": ({"method": "greedy", "order": "up"}, r"order = 'up': choose 'ascending', 'descending', 'arrival'"),
    "repeated order": ({"method": "greedy", "order": [0, 1, 1]}, r"order is not a permutation of 0 .. 2"),
    "short order": ({"method": "greedy", "order": [0, 1]}, r"order has shape \(2,\)"),
    "fractional order": ({"method": "greedy", "order": [0.0, 1.0, 2.0]}, r"order has dtype float64"),
    "order without greedy": ({"order": "ascending"}, r"order = 'ascending' has no effect with method='lp': use it with 'greedy'"),
    "solver without lp": ({"method": "greedy", "solver": "highs"}, r"solver = 'highs' has no effect with method='greedy'"),
    "limit without lp": ({"method": "greedy", "time_limit": 1.0}, r"time_limit = 1.0 has no effect"),
    "unknown solver": ({"solver": "abacus"}, r"solver = 'abacus': choose 'highs', 'cvxpy'"),
    "zero time": ({"time_limit": 0}, r"time_limit = 0: expected a positive number of seconds"),
    "nan time": ({"time_limit": float("nan")}, r"time_limit = nan"),
    "reserve without greedy": ({"reserve": True}, r"reserve = True has no effect with method='lp': use it with 'greedy'"),
    "start without matching": ({"start": [0.0, 0.0, 0.0]}, r"start = <list> has no effect with method='lp': use it with 'matching'"),
    "negative start": ({"method": "matching", "start": [0.0, -1.0, 0.0]}, r"start\[1\] = -1.0: radii must be finite and >= 0"),
    "short start": ({"method": "matching", "start": [0.0]}, r"start has shape \(1,\): expected \(3,\)"),
    "unequal weights": ({"method": "matching", "weights": [1.0, 1.0, 2.0]}, r"weights differ, which method='matching' cannot treat: use 'lp' or 'auto'"),
    "no jobs": ({"parallel": 0}, r"parallel = 0: expected a number of jobs \(-1: all\), the name of a joblib backend, or None"),
    "unknown search": ({"search": "abacus"}, r"search = 'abacus': choose 'auto', 'faiss', 'blocks', 'tree'"),
    "negative weight": ({"weights": [1.0, -1.0, 1.0]}, r"weights\[1\] = -1.0: weights must be finite and >= 0"),
    "nan weight": ({"weights": [1.0, np.nan, 1.0]}, r"weights\[1\] = nan"),
    "short weights": ({"weights": [1.0]}, r"weights has shape \(1,\)"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), CASES.values(), ids=CASES)
def test_allocate_names_the_value(changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        allocate(**{**GOOD, **changes})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "same",
    [
        lambda x: x.astype(">f8"),
        lambda x: x.astype(">f4"),
        lambda x: x.astype(">i2"),
        lambda x: x.astype(np.float16),
        lambda x: x.astype(np.longdouble),
        lambda x: np.asfortranarray(x),
        lambda x: x[::-1].copy()[::-1],
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: np.broadcast_to(x, x.shape),  # read-only
        lambda x: x.tolist(),
        lambda x: list(x),
    ],
)
def test_arrays_of_any_layout_and_byte_order_mean_the_same(same):
    x, R = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [7.0, 7.0]]), np.array([1.0, 1.0, 2.0, 1.0])
    expected = allocate(x, R)
    found = allocate(same(x), same(R))
    np.testing.assert_array_equal(found.radii, expected.radii)
    assert verify(same(x), found.radii, same(R))


def test_wrong_types_are_value_errors_too():
    # in a process of its own: here the type checker of the tests would complain first
    script = """
from regions import allocate
good = {"points": [[0.0], [1.0]], "R": [1.0, 1.0]}
for bad in ({"points": 3.0}, {"R": None}, {"method": 3}, {"time_limit": "soon"}, {"order": 3, "method": "greedy"}, {"search": 3}):
    try:
        allocate(**{**good, **bad})
    except ValueError as error:
        print(error)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [
        "points has shape (): expected (n, d), or (n, ...) to be flattened to it",
        "R has dtype object: expected real numbers",
        "method = 3: choose 'lp', 'matching', 'greedy', 'max-min', 'auto'",
        "time_limit = 'soon': expected a positive number of seconds, or None for no limit",
        "order has shape (): expected (2,), one value for each of 2 points",
        "search = 3: choose 'auto', 'faiss', 'blocks', 'tree'",
    ]


@pytest.mark.parametrize("name", ["nan point", "negative R", "short groups"])
def test_every_entry_validates(name):
    changes, message = CASES[name]
    arguments = {**GOOD, **changes}
    with pytest.raises(ValueError, match=message):
        overlap_graph(**arguments)
    arguments["radii"] = arguments.pop("R")
    with pytest.raises(ValueError, match=message.replace("R", "radii", 1)):
        verify(**arguments)


def test_graph_entry_validates():
    graph = overlap_graph(**GOOD)
    with pytest.raises(ValueError, match="method = 'magic'"):
        allocate_graph(graph, "magic")
    with pytest.raises(ValueError, match=r"weights has shape \(1,\)"):
        allocate_graph(graph, weights=[1.0])
    with pytest.raises(ValueError, match="order is not a permutation"):
        allocate_graph(graph, "greedy", order=[3, 4, 5])


def test_a_tensor_that_needs_gradients_is_refused_in_one_line():
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match=r"points cannot be read as an array: .*detach") as caught:
        allocate(torch.zeros(3, 2, requires_grad=True), GOOD["R"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radii": [1.0, -1.0]}, r"radii\[1\] = -1.0"),
        ({"sigma": [0.5, 0.0]}, r"sigma\[1\] = 0.0: the noise level of a non-empty region must be finite and > 0"),
        ({"sigma": [0.5, np.nan]}, r"sigma\[1\] = nan"),
        ({"sigma": [0.5]}, r"sigma has shape \(1,\)"),
        ({"classes": [0.5, 1.0]}, "classes has dtype float64: expected integers"),
        ({"classes": np.array([2**64 - 1, 0], dtype=np.uint64)}, r"classes\[0\] = 18446744073709551615: too large"),
        ({"centres": [[0.0], [np.nan]]}, r"centres\[1, 0\] = nan"),
    ],
)
def test_region_map_names_the_value(changes, message):
    with pytest.raises(ValueError, match=message):
        RegionMap(**{"centres": [[0.0], [4.0]], "radii": [1.0, 1.0], "sigma": [0.5, 0.5], **changes})
