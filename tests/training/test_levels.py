import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from smoothing import SmoothedClassifier
from training import choose_levels
from training.chunks import CHUNK_IMAGES, FIRST_INDEX

GRID = np.array([0.1, 0.15, 0.25])
N0, ALPHA = 100, 0.01


class Ball(nn.Module):
    """Class 1 inside a ball around the grey image, class 0 outside: the best sigma differs from image to image."""

    def __init__(self):
        super().__init__()
        self.passes = 0

    def forward(self, images):
        self.passes += len(images)
        score = 0.6 - (images - 0.5).flatten(1).norm(dim=1)
        return torch.stack([-score, score], dim=1)


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(0)
    spread = np.linspace(0, 1, CHUNK_IMAGES + 40).reshape(-1, 1, 1, 1)
    return (0.5 + spread * generator.uniform(-0.5, 0.5, (len(spread), 1, 2, 2))).astype(np.float32)


@pytest.fixture(scope="module")
def labels(images):
    return (np.linalg.norm((images - 0.5).reshape(len(images), -1), axis=1) < 0.5).astype(np.int64)


def test_the_choice_is_a_brute_force_table_of_equation_5(images, labels):
    smoothed = SmoothedClassifier(Ball(), 2, threads=1)
    found = choose_levels(smoothed, images, labels, sigmas=GRID, n0=N0, alpha=ALPHA, racing=False)
    # The table: votes for the label, level by level, from the same named samples; Clopper-Pearson and Phi^-1 by SciPy.
    table = np.zeros((len(images), len(GRID)))
    for k, sigma in enumerate(GRID):
        rows = FIRST_INDEX + np.arange(len(images))
        alone = smoothed.select_training_sigma(images, labels, [sigma], n0=N0, alpha=ALPHA, indices=rows)
        table[:, k] = alone.expected_radius[:, 0]
        counts = np.array([_count_of(radius, sigma) for radius in alone.expected_radius[:, 0]])
        assert np.all((counts >= 0) & (counts <= N0))
    np.testing.assert_array_equal(found, GRID[table.argmax(axis=1)])
    assert set(found) == set(GRID)


def _count_of(radius, sigma):
    """The number of votes of N0 whose one-sided Clopper-Pearson bound certifies this radius; -1 where there is none."""
    counts = np.arange(N0 + 1)
    p = np.concatenate([[0.0], stats.beta.ppf(ALPHA, counts[1:], N0 - counts[1:] + 1)])
    radii = np.where(p > 0.5, sigma * stats.norm.ppf(np.maximum(p, 0.5)), 0.0)
    near = np.flatnonzero(np.isclose(radii, radius, atol=1e-9))
    return near[-1] if len(near) else -1


def test_labels_that_win_nowhere_get_the_smallest_level(images, labels):
    wrong = choose_levels(
        SmoothedClassifier(Ball(), 2, threads=1), images[:5], 1 - labels[:5], sigmas=GRID, n0=N0, alpha=ALPHA
    )
    assert wrong.tolist() == [0.1] * 5


def test_an_interruption_costs_one_chunk_and_changes_nothing(images, labels, tmp_path):
    whole = choose_levels(SmoothedClassifier(Ball(), 2, threads=1), images, labels, sigmas=GRID, n0=N0, alpha=ALPHA)
    partial = tmp_path / "levels.partial"

    class Dies(Ball):
        def forward(self, batch):
            if self.passes > 1.05 * CHUNK_IMAGES * N0 * len(GRID):
                raise KeyboardInterrupt
            return super().forward(batch)

    with pytest.raises(KeyboardInterrupt):
        choose_levels(
            SmoothedClassifier(Dies(), 2, threads=1, batch_size=128),
            images,
            labels,
            sigmas=GRID,
            n0=N0,
            alpha=ALPHA,
            racing=False,
            partial=partial,
        )
    (file,) = tmp_path.iterdir()
    assert file.stat().st_size == 8 * CHUNK_IMAGES
    file.write_bytes(file.read_bytes() + b"\x00" * 11)  # an image and a torn one of the chunk that was lost
    model = Ball()
    again = choose_levels(
        SmoothedClassifier(model, 2, threads=1, batch_size=128),
        images,
        labels,
        sigmas=GRID,
        n0=N0,
        alpha=ALPHA,
        racing=False,
        partial=partial,
    )
    complete = choose_levels(
        SmoothedClassifier(Ball(), 2, threads=1), images, labels, sigmas=GRID, n0=N0, alpha=ALPHA, racing=False
    )
    np.testing.assert_array_equal(again, complete)
    assert file.stat().st_size == 8 * len(images)  # nothing torn is left in it
    assert model.passes < 2 * 40 * N0 * len(GRID)  # the first chunk was not drawn again
    assert len(whole) == len(again)


def test_training_images_share_no_noise_with_test_images_of_the_same_index(images, labels):
    smoothed = SmoothedClassifier(Ball(), 2, threads=1)
    seen = []
    select = smoothed.select_training_sigma
    smoothed.select_training_sigma = lambda *arguments, **options: (
        seen.append(options["indices"]) or select(*arguments, **options)
    )
    choose_levels(smoothed, images, labels, sigmas=GRID, n0=10, alpha=ALPHA)
    assert min(map(min, seen)) >= 2**31
