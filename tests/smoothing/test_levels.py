import pytest

from smoothing import sigma_grid


@pytest.mark.parametrize(
    ("low", "high", "step", "expected"),
    [
        (0.1, 0.3, 0.1, [0.1, 0.2, 0.3]),  # 0.3 / 0.1 < 3 in floating point
        (0.12, 0.5, 0.12, [0.12, 0.24, 0.36, 0.48]),
        (0.0, 1.0, 0.25, [0.25, 0.5, 0.75, 1.0]),
        (0.5, 0.5, 0.25, [0.5]),
        (0.12, 0.25, 0.05, [0.15, 0.2, 0.25]),
    ],
)
def test_the_grid_is_the_multiples_of_the_step_within_the_range(low, high, step, expected):
    assert sigma_grid(low, high, step).tolist() == expected


@pytest.mark.parametrize(
    ("low", "high", "step", "message"),
    [
        (0.3, 0.4, 0.25, "sigma_step = 0.25: none of its multiples"),
        (0.5, 0.4, 0.1, "sigma_min = 0.5 is above sigma_max = 0.4"),
        (-0.1, 0.4, 0.1, "sigma_min = -0.1"),
        (0.0, 0.0, 0.1, "sigma_max = 0.0"),
        (0.1, 0.4, 0.0, "sigma_step = 0.0"),
        (0.1, float("inf"), 0.1, "sigma_max = inf"),
        (float("nan"), 1.0, 0.1, "sigma_min = nan"),
    ],
)
def test_an_empty_or_senseless_grid_is_refused(low, high, step, message):
    with pytest.raises(ValueError, match=message):
        sigma_grid(low, high, step)
