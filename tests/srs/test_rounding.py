"""Printed radii: whatever was certified, what is kept of its printed form is not larger."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from smoothing import lower_confidence_bound
from srs import limits
from srs.logs.read import Logs
from srs.logs.recover_votes import lower, recover_votes


def logs_of(printed, sigmas, predict=None):
    printed = np.asarray(printed, dtype=float)
    n = len(printed)
    classes = np.where(printed > 0, 3, -1) if predict is None else np.asarray(predict)
    return Logs(
        tuple(Path(f"m_{sigma}.tsv") for sigma in sigmas),
        np.asarray(sigmas, dtype=float),
        np.arange(n),
        np.full(n, 3),
        classes,
        printed,
        np.zeros(n),
        np.arange(n)[:, None] + np.full(len(sigmas), 2),
    )


radii = st.lists(st.floats(1e-6, 50), min_size=1, max_size=30)
PRINTERS = {
    "three significant digits": "{:.3}".format,
    "five significant digits": "{:.5}".format,
    "three decimals": "{:.3f}".format,
    "six decimals": "{:.6f}".format,
}


@pytest.mark.parametrize("printer", PRINTERS.values(), ids=PRINTERS)
@given(radii)
def test_half_a_unit_undoes_rounding_to_the_nearest(printer, values):
    printed = np.array([float(printer(value)) for value in values])
    kept = lower(logs_of(printed[:, None], [0.5]), "half")[:, 0]
    assert (kept <= np.array(values)).all()
    assert (kept >= 0).all()


@given(radii)
def test_a_whole_unit_undoes_rounding_up(values):
    printed = np.ceil(np.array(values) * 1000) / 1000
    kept = lower(logs_of(printed[:, None], [0.5]), "unit")[:, 0]
    assert (kept <= np.array(values)).all()


def test_units_are_those_of_the_digits_that_a_file_prints():
    printed = np.array([0.529, 1.15, 1.7, 12.3, 0.0529, 0.0])
    kept = lower(logs_of(printed[:, None], [1.0]), "half")[:, 0]
    assert kept == pytest.approx([0.5285, 1.145, 1.695, 12.25, 0.05285, 0.0], abs=1e-15)
    assert lower(logs_of(printed[:, None], [1.0]), "none")[:, 0] == pytest.approx(printed, abs=1e-14)


def test_exponents_are_digits_like_others():
    """`{:.3}` writes 6.02e-05: the unit of its last digit is 1e-07. Zeros are dropped: 0.001 is 1.00e-03."""
    printed = np.array([[float(text)] for text in ("0.953", "6.02e-05", "1E-3", "1.15", "5e-324")])
    kept = lower(logs_of(printed, [1.0]), "half")[:, 0]
    assert kept == pytest.approx([0.9525, 6.015e-05, 0.995e-3, 1.145, 0.0], rel=1e-12, abs=1e-320)
    assert (kept <= printed[:, 0]).all()


def radius(count, n, alpha, sigma):
    """Cohen et al.'s radius by another route: SciPy's beta distribution, nothing rounded."""
    p = stats.beta.ppf(alpha, count, n - count + 1)
    return sigma * stats.norm.ppf(p) if p > 0.5 else 0.0


@pytest.mark.parametrize(("n", "alpha"), [(100_000, 0.001), (1000, 0.01), (10_000, 0.05)])
def test_recovered_votes_are_at_most_the_true_ones_and_print_the_same(rng, n, alpha):
    sigmas = [0.25, 1.0]
    counts = np.concatenate([rng.integers(n // 2, n, size=(300, 2)), n - rng.integers(0, 40, size=(60, 2)), [[n, n]]])
    exact = np.array([[radius(k, n, alpha, s) for k, s in zip(row, sigmas, strict=True)] for row in counts])
    printed = np.array([[float(f"{value:.3}") for value in row] for row in exact])
    votes = recover_votes(logs_of(printed, sigmas), n, alpha, "half")
    assert votes.n == n
    certified = exact > 0
    assert (votes.counts[certified] <= counts[certified]).all()
    assert (votes.counts[~certified] == 0).all()
    again = np.array(
        [[radius(k, n, alpha, s) if k else 0.0 for k, s in zip(row, sigmas, strict=True)] for row in votes.counts]
    )
    unit = 10.0 ** (np.floor(np.log10(np.where(certified, printed, 1.0))) - 2)
    assert (np.abs(again - printed)[certified] <= 0.5000001 * unit[certified]).all()
    # so the bound at a smaller alpha never exceeds what the true votes would have certified there
    strict = votes.radii(np.array(sigmas), alpha / 700)
    truth = np.array([[radius(k, n, alpha / 700, s) for k, s in zip(row, sigmas, strict=True)] for row in counts])
    assert (strict <= truth + 1e-12).all()
    assert (strict[-1] > 0.9 * truth[-1]).all()


def test_files_whose_radii_were_rounded_down_are_read_too():
    n, alpha = 1000, 0.001
    exact = np.array([[radius(k, n, alpha, 0.5)] for k in range(600, 1001)])
    printed = np.floor(exact * 1e6) / 1e6
    votes = recover_votes(logs_of(printed, [0.5]), n, alpha, "none")
    assert (votes.counts[:, 0] == np.arange(600, 1001)).all()


@pytest.mark.parametrize(("n", "alpha", "sigma"), [(10_000, 0.001, 0.25), (100_000, 0.1, 0.25), (100_000, 0.001, 0.24)])
def test_a_radius_that_no_count_gives_betrays_other_settings(n, alpha, sigma):
    top = float(f"{radius(100_000, 100_000, 0.001, 0.25):.3}")  # a unanimous vote
    next_one = float(f"{radius(99_999, 100_000, 0.001, 0.25):.3}")
    logs = logs_of(np.array([[0.1], [next_one], [top]]), [sigma])
    with pytest.raises(ValueError, match=r"line \d: radius = .* is not one that .* votes give") as caught:
        recover_votes(logs, n, alpha, "half")
    assert "give --n and --alpha of " in str(caught.value)


def test_an_image_that_abstained_gets_no_votes():
    votes = recover_votes(logs_of([[0.3, 0.0]], [0.5, 1.0], predict=[[3, -1]]), 1000, 0.001, "half")
    assert votes.counts[0, 1] == 0
    assert votes.radii(np.array([0.5, 1.0]), 0.001)[0, 1] == 0


MIXED = [(100_000, 0.001, 0.25), (10_000, 0.01, 0.5)]


def mixed_logs():
    """Logs of two levels, each with an n and an alpha of its own."""
    votes = [(n, n - 1, n - 7, int(0.9 * n), int(0.6 * n)) for n, _, _ in MIXED]
    columns = [
        [float(f"{radius(k, n, alpha, sigma):.3}") for k in counts]
        for counts, (n, alpha, sigma) in zip(votes, MIXED, strict=True)
    ]
    return logs_of(np.array(columns).T, [0.25, 0.5]), np.array(votes).T


def test_every_log_may_have_its_own_n_and_alpha():
    logs, true = mixed_logs()
    votes = recover_votes(logs, [100_000, 10_000], [0.001, 0.01], "half")
    assert votes.n == (100_000, 10_000)
    assert (votes.counts <= true).all()
    assert votes.counts[0].tolist() == [100_000, 10_000]
    stricter = votes.radii(logs.sigmas, 0.0005)
    truth = [[radius(k, n, 0.0005, s) for k, (n, _, s) in zip(row, MIXED, strict=True)] for row in true]
    assert (stricter <= np.array(truth) + 1e-12).all()
    assert stricter[0] == pytest.approx(truth[0], rel=1e-6)


@pytest.mark.parametrize(
    ("n", "alpha", "file", "fits"),
    [
        ([100_000, 10_000], 0.001, "m_0.5.tsv", "--alpha 0.01 would fit this log"),
        ([100_000, 1000], [0.001, 0.01], "m_0.5.tsv", "--n 100000 or --n 10000 .*would fit this log"),
        ([100_000, 10_000], [0.05, 0.01], "m_0.25.tsv", "--alpha 0.001 would fit this log"),
    ],
)
def test_the_refusal_says_what_would_fit(n, alpha, file, fits):
    with pytest.raises(ValueError, match=rf"^{file}, line \d: .* {fits}; give --n and --alpha of each log"):
        recover_votes(mixed_logs()[0], n, alpha, "half")


def test_commands_and_library_agree_on_the_smallest_alpha():
    assert lower_confidence_bound(1000, 1000, limits.SMALLEST_ALPHA) > 0
    with pytest.raises(ValueError, match="alpha"):
        lower_confidence_bound(1000, 1000, float(np.nextafter(limits.SMALLEST_ALPHA, 0)))
