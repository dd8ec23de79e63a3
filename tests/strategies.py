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
