import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import regions
from smoothing import ABSTAIN, SmoothedClassifier
from srs.pipeline import ALLOCATIONS, CHUNK_IMAGES, Run, allocated, certify_levels
from srs.report import certificates, comparison, main_rule, summarize
from srs.settings import CertifySettings

SIGMAS = np.array([0.1, 0.25, 0.5])
N0, N, ALPHA = 50, 400, 0.01


class Ball(nn.Module):
    """Class 1 inside a ball around the grey image, class 0 outside: the best sigma differs from image to image."""

    def forward(self, images):
        score = 0.6 - (images - 0.5).flatten(1).norm(dim=1)
        return torch.stack([-score, score], dim=1)


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(0)
    spread = np.linspace(0, 1, 2 * CHUNK_IMAGES + 3).reshape(-1, 1, 1, 1)
    return (0.5 + spread * generator.uniform(-0.5, 0.5, (len(spread), 1, 2, 2))).astype(np.float32)


@pytest.fixture(scope="module")
def levels(images):
    indices = np.arange(len(images)) * 3
    return certify_levels(SmoothedClassifier(Ball(), 2), images, SIGMAS, N0, N, ALPHA, indices=indices)


@pytest.fixture(scope="module")
def run(images, levels):
    points = images.reshape(len(images), -1).astype(np.float64)
    R = levels.chosen.radius
    return Run(
        settings=CertifySettings(),
        data_name="balls",
        device="cpu",
        indices=np.arange(len(images)) * 3,
        labels=np.arange(len(images)) % 2,
        points=points,
        levels=levels,
        allocations={name: allocate(points, R, levels.level) for name, allocate in ALLOCATIONS.items()},
        clean_accuracy=0.5,
        seconds={"certify": 1.0},
    )


def test_the_table_entry_is_the_certificate_at_the_chosen_level(images, levels):
    # What the comment in the pipeline claims: certifying at the chosen sigma alone gives the very same numbers.
    assert len(np.unique(levels.level)) > 1
    smoothed = SmoothedClassifier(Ball(), 2, batch_size=33)
    indices = np.arange(len(images)) * 3
    choice = smoothed.select_sigma(images, SIGMAS, N0, alpha=ALPHA, indices=indices)
    np.testing.assert_array_equal(choice.level, levels.level)
    alone = smoothed.certify_classes(images, choice.sigma, choice.predict, N, ALPHA, indices=indices)
    only = certify_levels(smoothed, images, SIGMAS, N0, N, ALPHA, chosen_only=True, indices=indices)
    assert only.constant == {}
    for name in ("predict", "radius", "sigma", "counts", "n", "p_lower"):
        np.testing.assert_array_equal(getattr(levels.chosen, name), getattr(alone, name))
        np.testing.assert_array_equal(getattr(only.chosen, name), getattr(alone, name))


def test_constant_levels_are_certified_as_if_alone(images, levels):
    smoothed = SmoothedClassifier(Ball(), 2)
    indices = np.arange(len(images)) * 3
    assert list(levels.constant) == SIGMAS.tolist()
    for sigma, votes in levels.constant.items():
        alone = certify_levels(smoothed, images, np.array([sigma]), N0, N, ALPHA, indices=indices)
        np.testing.assert_array_equal(votes.radius, alone.chosen.radius)
        assert np.all(alone.sigma == sigma)


def test_the_rule_is_the_one_that_was_asked_for(images):
    smoothed = SmoothedClassifier(Ball(), 2)
    indices = np.arange(len(images))
    found = certify_levels(smoothed, images, SIGMAS, N0, N, ALPHA, rule="anchor", chosen_only=True, indices=indices)
    choice = smoothed.select_sigma(images, SIGMAS, N0, "anchor", ALPHA, n=N, indices=indices)
    np.testing.assert_array_equal(found.level, choice.level)


def test_of_one_noise_level_no_radius_is_lost_to_neighbours(run):
    same = dataclasses.replace(run.levels, sigmas=SIGMAS[:1], level=np.zeros_like(run.levels.level))
    R = same.chosen.radius
    constant = dataclasses.replace(
        run,
        levels=same,
        allocations={name: allocate(run.points, R, same.level) for name, allocate in ALLOCATIONS.items()},
    )
    assert main_rule(run) == "lp"
    assert main_rule(constant) == "lp-groups"
    np.testing.assert_array_equal(constant.allocations["lp-groups"].radii, R)


def test_labels_change_what_is_correct_and_nothing_else(run):
    other = dataclasses.replace(run, labels=1 - run.labels)
    for name, rows in comparison(run).items():
        changed = comparison(other)[name]
        np.testing.assert_array_equal(changed.radius, rows.radius)
        np.testing.assert_array_equal(changed.predict, rows.predict)
        certified = rows.predict != ABSTAIN
        np.testing.assert_array_equal((changed.correct + rows.correct)[certified], 1)
        np.testing.assert_array_equal((changed.correct + rows.correct)[~certified], 0)


def test_sound_rules_stay_inside_their_certificate_and_region(run):
    R = run.levels.chosen.radius
    rows = comparison(run)
    assert {*ALLOCATIONS, "overlapping"} < set(rows)
    for name, allocation in run.allocations.items():
        assert np.all(rows[name].radius <= np.minimum(R, allocation.radii))
        np.testing.assert_array_equal(rows[name].predict[allocation.radii == 0], ABSTAIN)
        assert np.all(rows[name].radius[rows[name].predict == ABSTAIN] == 0)
    assert rows["lp"].radius.sum() < rows["overlapping"].radius.sum()  # the regions do bind in this example


def test_an_empty_region_abstains():
    predict, radius = allocated(np.array([3, 4, -1]), np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.0, 0.0]))
    assert predict.tolist() == [3, ABSTAIN, ABSTAIN]
    assert radius.tolist() == [0.25, 0.0, 0.0]


def test_every_certified_image_finds_its_own_region(run):
    table = certificates(run, comparison(run)["lp"])
    regionmap = regions.RegionMap(run.points, run.allocations["lp"].radii, table.extra["sigma"], classes=table.predict)
    located = regionmap.locate(run.points)
    held = table.extra["region"] >= 0
    np.testing.assert_array_equal(located.region[held], table.extra["region"][held])
    np.testing.assert_array_equal(located.sigma[held], table.extra["sigma"][held])


def test_the_summary_counts_only_strictly_larger_radii(run):
    rows = comparison(run)
    summary = summarize(run, rows)
    lp = rows["lp"]
    for epsilon, value in zip(summary["epsilon"], summary["rules"]["lp"]["certified_accuracy"], strict=True):
        assert value == sum(r > epsilon and c for r, c in zip(lp.radius, lp.correct, strict=True)) / len(lp.radius)
    assert summary["rules"]["overlapping"]["sound"] is False
    assert all(rule["sound"] for name, rule in summary["rules"].items() if name != "overlapping")
