"""Hypothesis strategies for points and bounds that are hard on geometry: ties, duplicates, touching, huge norms."""

import numpy as np
from hypothesis import strategies as st

SCALES = (1.0, 1e-9, 1e9, 2.0**-40)


@st.composite
def instances(draw, max_points=9, max_dimension=4):
    """(points, R): lattice points with lattice radii, or random floats, shifted and scaled as a whole."""
    n = draw(st.integers(0, max_points))
    d = draw(st.integers(1, max_dimension))
    if draw(st.booleans()):  # a lattice: many duplicates, ties and touching balls
        points = np.array(draw(st.lists(st.lists(st.integers(0, 3), min_size=d, max_size=d), min_size=n, max_size=n)))
        R = np.array(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))) / 2
    else:
        seed = draw(st.integers(0, 2**32 - 1))
        rng = np.random.default_rng(seed)
        points = rng.normal(size=(n, d))
        R = rng.exponential(draw(st.sampled_from([0.3, 1.0, 3.0])), size=n) * (rng.random(n) > 0.15)
    shift = draw(st.sampled_from([0.0, 0.0, 1e6]))
    scale = draw(st.sampled_from(SCALES))
    return (points.reshape(n, d) + shift) * scale, R * scale


@st.composite
def grouped_instances(draw, **kwargs):
    """(points, R, groups) with none, one or two arrays of labels."""
    points, R = draw(instances(**kwargs))
    count = draw(st.integers(0, 2))
    labels = st.lists(st.integers(0, 2), min_size=len(R), max_size=len(R))
    return points, R, [np.array(draw(labels), dtype=int) for _ in range(count)]


@st.composite
def assembled_instances(draw, max_pieces=4):
    """(points, R, groups) in the plane: stars, polygons, rows, lattices and copies of one point, apart or not.

    Lengths are 1 but for the lattices' diagonals, and bounds are often multiples of a quarter: a polygon is a cycle of
    the overlap graph, odd or even, and ties abound. Pieces that are far apart are components of their own.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    points = []
    for number in range(draw(st.integers(1, max_pieces))):
        shape, n = draw(st.sampled_from(SHAPES)), draw(st.integers(1, 9))
        points.append(_piece(shape, n) + number * draw(st.sampled_from([0.0, 1.5, 100.0])))
    points = np.concatenate(points)
    n = len(points)
    bounds = draw(st.sampled_from([[0.75], [0.0, 0.5, 0.75], [0.0, 0.25, 0.5, 1.0, 4.0], None]))
    R = rng.exponential(size=n) if bounds is None else rng.choice(bounds, size=n)
    groups = [rng.integers(3, size=n) for _ in range(draw(st.integers(0, 2)))]
    scale = draw(st.sampled_from(SCALES))
    return points * scale, R * scale, groups


SHAPES = ("star", "polygon", "row", "lattice", "copies")


def _piece(shape, n):
    k = np.arange(n)
    angle = 2 * np.pi * k / n
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    if shape == "star":
        return np.append(circle, [[0.0, 0.0]], axis=0)
    if shape == "polygon":
        return circle / (2 * np.sin(np.pi / max(n, 2)))
    if shape == "row":
        return np.column_stack([k, 0 * k])
    return np.column_stack(np.divmod(k, 3)) if shape == "lattice" else np.zeros((n, 2))
