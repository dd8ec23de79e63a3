"""Annotations are checked while testing, those of functions inside functions too, whichever of these is called."""

import numpy as np
import pytest
from jaxtyping import Float32, TypeCheckError, jaxtyped

from regions import overlap_graph
from tests import checked


def scaling(factor):
    @jaxtyped(typechecker=checked.check)
    def scaled(x: Float32[np.ndarray, "n 3"], by: float = factor) -> Float32[np.ndarray, "n 3"]:
        return x * np.float32(by) if by < 9 else x.astype(np.float64)

    return scaled


def test_each_function_has_its_own_closure_and_defaults_and_all_are_checked():
    x = np.ones((2, 3), np.float32)
    for factor in (2, 3.5, 2):
        scaled = scaling(factor)
        assert (scaled(x) == factor).all()
        assert (scaled(x, by=4) == 4).all()  # an int counts as a float
        for wrong in (x[:, :2], x.astype(np.float64), [[1.0, 2.0, 3.0]]):
            with pytest.raises(TypeCheckError, match="parameter 'x'"):
                scaled(wrong)
        with pytest.raises(TypeCheckError, match="parameter 'by'"):
            scaled(x, by="four")
        with pytest.raises(TypeCheckError, match="return value"):
            scaled(x, by=9)


def test_annotations_are_compiled_once():
    scaled = scaling(2.0)
    known = len(checked._CHECKED)
    assert scaling(scaled.__wrapped__.__defaults__[0]) is not scaled
    assert len(checked._CHECKED) == known


def test_our_packages_are_checked():
    with pytest.raises(TypeCheckError):
        overlap_graph([[0.0]], [1.0], search=3)
