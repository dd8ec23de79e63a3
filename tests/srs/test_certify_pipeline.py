"""The pipeline in one process, on a classifier whose best sigma differs from image to image."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import regions
from smoothing import ABSTAIN, Ladder, SmoothedClassifier
from smoothing.drawing.draw import MOST_TOGETHER, Missing
from smoothing.drawing.stages import Share
from smoothing.images import RunImages
from srs.evaluation.evaluate import evaluate
from srs.evaluation.losses import losses
from srs.evaluation.rules import allocated
from srs.evaluation.sizing import Sizer
from srs.modes import COMPARED, Mode, title
from srs.report.summary import certificates, summarize
from srs.run.draw import draw_run, files_of
from srs.run.inputs import Inputs
from srs.run.run_settings import settled
from srs.run.settings import CertifySettings
from srs.run.votes import read_record
from training import ImageData

SIGMAS = np.array([0.1, 0.25, 0.5])
N0, N, ALPHA = 50, 400, 0.01


class Ball(nn.Module):
    """Class 1 inside a ball around the grey image, class 0 outside."""

    def forward(self, images):
        score = 0.6 - (images - 0.5).flatten(1).norm(dim=1)
        return torch.stack([-score, score], dim=1)


def make_inputs(sigmas=SIGMAS, base=None, num_classes=2, **settings):
    generator = np.random.default_rng(0)
    n = 2 * MOST_TOGETHER + 3
    spread = np.linspace(0, 1, n).reshape(-1, 1, 1, 1)
    images = (0.5 + spread * generator.uniform(-0.5, 0.5, (n, 1, 2, 2))).astype(np.float32)
    labels = np.arange(n) % 2
    known = {"n0": N0, "n": N, "alpha": ALPHA, "overlap": "paper", "precision": "float32"}
    known |= {"rule": "max-radius", "bound": "runner-up", "classifier": "regions"}
    known |= {"dataset": "balls", "data_dir": Path("data"), "sigma_min": 0.1, "sigma_max": 0.5, "sigma_step": 0.05}
    settings = settled(CertifySettings(**(known | settings)))
    data = ImageData(
        "balls", num_classes, train_images=images, train_labels=labels, test_images=images, test_labels=labels
    )
    return Inputs(
        settings, data, base or Ball(), sigmas, np.arange(n) * 3, labels, RunImages(images, np.arange(n)), "cpu"
    )


def record_of(folder, inputs):
    draw_run(folder, inputs, SmoothedClassifier(Ball(), 2, batch_size=33))
    return read_record(files_of(folder, inputs))


def evaluated(folder, inputs, alpha=ALPHA):
    return evaluate(record_of(folder, inputs), inputs.points, inputs.settings.mode, alpha)


@pytest.fixture(scope="module")
def inputs():
    return make_inputs()


@pytest.fixture(scope="module")
def results(inputs, tmp_path_factory):
    return evaluated(tmp_path_factory.mktemp("record"), inputs)


MANIFEST = {
    "data": {"name": "balls", "sha256": "-"}, "classifier": {}, "device": "cpu", "seed": 0, "versions": {},
}  # fmt: skip


def test_the_entry_of_the_chosen_level_is_its_certificate(inputs, results, tmp_path):
    # What draw_run claims: certifying at the chosen sigma alone gives the very same numbers.
    assert len(np.unique(results.record.level)) > 1
    smoothed = SmoothedClassifier(Ball(), 2)
    names = inputs.indices
    choice = smoothed.select_sigma(inputs.images, SIGMAS, n0=N0, alpha=ALPHA, indices=names)
    np.testing.assert_array_equal(choice.level, results.record.level)
    alone = smoothed.certify_classes(inputs.images, choice.sigma, choice.predict, n=N, alpha=ALPHA, indices=names)
    only = evaluated(tmp_path, make_inputs(chosen_only=True))
    assert not any(rule.startswith("sigma=") for rule in only.rules)
    for found in (results, only):
        np.testing.assert_array_equal(found.bounds.predict, alone.predict)
        np.testing.assert_array_equal(found.bounds.radius, alone.radius)
        np.testing.assert_array_equal(found.bounds.p_lower, alone.p_lower)
        np.testing.assert_array_equal(certificates(found).extra["counts"], alone.counts)
        np.testing.assert_array_equal(found.rules["paper-lp"].radius, results.rules["paper-lp"].radius)


def test_constant_levels_are_certified_as_if_alone(results, tmp_path):
    constants = [rule for rule in results.rules if rule.startswith("sigma=")]
    assert constants == ["sigma=0.1", "sigma=0.25", "sigma=0.5"]
    for rule, sigma in zip(constants, SIGMAS, strict=True):
        folder = tmp_path / rule
        folder.mkdir()
        alone = evaluated(folder, make_inputs(np.array([sigma])))
        np.testing.assert_array_equal(alone.rules[rule].radius, results.rules[rule].radius)
        np.testing.assert_array_equal(alone.rules["overlapping"].radius, results.rules[rule].radius)


def test_the_rule_is_the_one_that_was_asked_for(inputs, tmp_path):
    found = record_of(tmp_path, make_inputs(rule="anchor", chosen_only=True))
    choice = SmoothedClassifier(Ball(), 2).select_sigma(
        inputs.images, SIGMAS, n0=N0, rule="anchor", alpha=ALPHA, n=N, indices=inputs.indices
    )
    np.testing.assert_array_equal(found.level, choice.level)


def assert_same(record, other):
    """Two records, but for the time they took."""
    for field in dataclasses.fields(record):
        mine, theirs = getattr(record, field.name), getattr(other, field.name)
        if field.name == "counts":
            for name in ("n", "own", "other"):
                np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
        elif field.name not in ("seconds", "stages"):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", ["selection.tsv", "estimation.tsv"])
@pytest.mark.parametrize("chosen_only", [True, False])
def test_cut_off_after_any_byte_it_ends_with_the_same_record(name, chosen_only, tmp_path, rng):
    inputs = make_inputs(chosen_only=chosen_only)
    whole = record_of(tmp_path, inputs)
    text = (tmp_path / name).read_bytes()
    for size in [0, 3, len(text) - 1, *rng.integers(0, len(text), size=5).tolist()]:
        (tmp_path / name).unlink()
        (tmp_path / f"{name}.part0").write_bytes(text[:size])
        if name == "selection.tsv":
            (tmp_path / "levels.tsv").unlink()
            (tmp_path / "estimation.tsv").unlink()
        assert_same(record_of(tmp_path, inputs), whole)
        assert {file.name for file in tmp_path.iterdir()} == {"selection.tsv", "levels.tsv", "estimation.tsv", ".lock"}


@pytest.mark.parametrize("overlap", ["paper", "joint"])
@pytest.mark.parametrize("chosen_only", [True, False])
def test_shares_done_one_after_the_other_give_the_rows_of_one_process(overlap, chosen_only, tmp_path):
    inputs = make_inputs(overlap=overlap, chosen_only=chosen_only)
    (tmp_path / "whole").mkdir()
    whole = record_of(tmp_path / "whole", inputs)
    smoothed = SmoothedClassifier(Ball(), 2, batch_size=50)
    rounds = 2 if overlap == "joint" else 1
    left = [draw_run(tmp_path, inputs, smoothed, Share(k, 3)) for _ in range(rounds) for k in (2, 0, 1)]
    if overlap == "joint":  # all levels at once: the first two shares wait for the third's selection samples
        assert [missing.stage for missing in left[:2]] == ["selection", "selection"]
        assert [missing.shares(3) for missing in left[:2]] == ["1/3 and 2/3", "2/3"]
        left = left[2:]  # the third draws its estimation samples at once, and the others in their second start
        assert left.pop() is None
    assert all(isinstance(missing, Missing) and missing.stage == "estimation" for missing in left[:2])
    assert [missing.shares(3) for missing in left[:2]] == [["1/3 and 2/3", "2/3"], ["1/3 and 3/3", "1/3"]][rounds - 1]
    assert left[2:] == [None]
    assert_same(read_record(files_of(tmp_path, inputs)), whole)
    for name in ("selection.tsv", "levels.tsv", "estimation.tsv"):
        mine, theirs = ((folder / name).read_text().splitlines() for folder in (tmp_path, tmp_path / "whole"))
        last = 1 if name != "levels.tsv" else 0  # the time
        assert [row.split("\t")[: -last or None] for row in mine] == [
            row.split("\t")[: -last or None] for row in theirs
        ]


def test_early_stopping_draws_less_and_proves_what_its_votes_prove(inputs, tmp_path):
    settings = {"rungs": (100, 400), "n": 2000, "min_gain": 0.1, "target_loss": 0.02, "rule": "expected-radius"}
    found = evaluated(tmp_path, make_inputs(**settings))
    record = found.record
    assert len(set(np.unique(record.counts.drawn)) & {100, 400, 2000}) > 1
    smoothed = SmoothedClassifier(Ball(), 2)
    ladder = Ladder((100, 400, 2000), min_gain=0.1, target_loss=0.02)
    for k, certificates_ in enumerate(
        smoothed.certify_levels(inputs.images, SIGMAS, record.classes, n=ladder, alpha=ALPHA, indices=inputs.indices)
    ):
        np.testing.assert_array_equal(record.counts.drawn[:, k], certificates_.n)
        np.testing.assert_array_equal(record.counts.last[:, k], certificates_.counts)
        rule = found.rules[f"sigma={SIGMAS[k]:g}"]
        assert np.all(rule.radius <= certificates_.radius)
        np.testing.assert_allclose(rule.radius, certificates_.radius, atol=1e-6)
        np.testing.assert_array_equal(rule.predict, certificates_.predict)


def test_rows_of_another_run_are_refused(tmp_path):
    inputs = make_inputs()
    draw_run(tmp_path, inputs, inputs.classifier)
    moved = dataclasses.replace(inputs, indices=inputs.indices + 1)
    with pytest.raises(ValueError, match=r"selection\.tsv holds rows of other images"):
        read_record(files_of(tmp_path, moved))
    with pytest.raises(ValueError, match=r"selection\.tsv holds rows of other noise levels"):
        read_record(files_of(tmp_path, dataclasses.replace(inputs, sigmas=SIGMAS * 2)))
    lines = (tmp_path / "estimation.tsv").read_text().splitlines()
    fields = lines[3].split("\t")
    lines[3] = "\t".join([*fields[:3], f"0:{N + 1}", *fields[4:]])
    (tmp_path / "estimation.tsv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=rf"estimation\.tsv, line 4: votes = '0:{N + 1}'.* add up to {N}"):
        read_record(files_of(tmp_path, inputs))


def test_every_mode_keeps_apart_what_it_must_and_no_more(inputs, results):
    record, points = results.record, inputs.points
    alone = SmoothedClassifier(Ball(), 2).certify_classes(
        inputs.images, results.sigma, record.classes[np.arange(len(record.level)), record.level], n=N, alpha=ALPHA,
        simultaneous=True, indices=inputs.indices,
    )  # fmt: skip
    R = results.bounds.radius
    may_overlap = {
        "paper": (R, None),
        "sigma": (R, [record.level]),
        "class": (alone.radius, [record.level, alone.predict]),
    }
    assert {mode.name for mode in COMPARED} == set(results.allocations)
    for mode in COMPARED:
        radius, groups = may_overlap[mode.overlap]
        expected = regions.allocate(points, radius, groups=groups).objective
        found = results.allocations[mode.name]
        assert regions.verify(points, found.radii, radius, groups=groups)
        if mode.how == "lp":
            assert found.objective == pytest.approx(expected, rel=1e-9)
    assert results.allocations["paper-lp"].objective < results.allocations["sigma-lp"].objective


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        ("paper", 0.3),  # all conflict: 0.1, 0, 0.2
        ("sigma", 0.5),  # the first two may overlap: 0.3, 0.2, 0
        ("joint", 0.5),
        ("class", 1.3),  # the last two as well, so that only 0 and 0.3 are kept apart: 0.3 in all, and R = 1
    ],
)
def test_a_mode_lets_overlap_what_shares_its_sigma_or_class(overlap, expected):
    points, level, predict = np.array([[0.0], [0.1], [0.3]]), np.array([0, 0, 1]), np.array([0, 1, 1])
    R = np.ones(3)
    allocation = Sizer.among(points, [R], {})(Mode(overlap, "lp"), R, level, predict)
    assert allocation.objective == pytest.approx(expected)


def test_regions_of_one_class_overlap_only_at_the_simultaneous_level(inputs, tmp_path):
    found = evaluated(tmp_path, make_inputs(overlap="class"))
    assert found.main == Mode("class", "lp")
    n, record = len(inputs.images), found.record
    choice = SmoothedClassifier(Ball(), 2).select_sigma(
        inputs.images, SIGMAS, n0=N0, alpha=ALPHA / n, indices=inputs.indices
    )
    alone = SmoothedClassifier(Ball(), 2).certify_classes(
        inputs.images, choice.sigma, choice.predict, n=N, alpha=ALPHA, simultaneous=True, indices=inputs.indices
    )
    np.testing.assert_array_equal(found.bounds.radius, alone.radius)
    np.testing.assert_array_equal(found.bounds.predict, alone.predict)
    groups = [record.level, alone.predict]
    assert regions.verify(inputs.points, found.radii, alone.radius, groups=groups)
    summary = summarize(found, {}, MANIFEST)
    assert summary["simultaneous"]
    assert summary["guarantee"].startswith("all certificates hold at once with probability at least 1 - 0.01")


def test_joint_levels_come_from_selection_samples_and_radii_from_estimation(inputs, tmp_path):
    found = evaluated(tmp_path, make_inputs(overlap="joint"))
    smoothed = SmoothedClassifier(Ball(), 2)
    choice = smoothed.select_sigma(inputs.images, SIGMAS, n0=N0, alpha=ALPHA, indices=inputs.indices)
    joint = regions.allocate_levels(inputs.points, SIGMAS, choice.expected_radius)
    np.testing.assert_array_equal(found.record.level, joint.level)
    assert (found.record.level != choice.level).any()
    classes = choice.classes[np.arange(len(joint.level)), joint.level]
    alone = smoothed.certify_classes(inputs.images, joint.sigma, classes, n=N, alpha=ALPHA, indices=inputs.indices)
    np.testing.assert_array_equal(found.bounds.radius, alone.radius)
    assert regions.verify(inputs.points, found.radii, alone.radius, groups=joint.level)
    # the other modes are still those of each image's own level
    own = smoothed.certify_classes(
        inputs.images, choice.sigma, choice.predict, n=N, alpha=ALPHA, indices=inputs.indices
    )
    assert regions.verify(inputs.points, found.allocations["paper-lp"].radii, own.radius)
    assert found.allocations["paper-lp"].objective > 0


def test_estimation_samples_have_no_part_in_the_joint_choice(tmp_path):
    levels = []
    for n in (N, 2 * N):
        folder = tmp_path / str(n)
        folder.mkdir()
        levels.append(record_of(folder, make_inputs(overlap="joint", n=n)).level)
    np.testing.assert_array_equal(*levels)


def test_another_alpha_moves_bounds_and_regions_and_nothing_else(inputs, results):
    strict = evaluate(results.record, results.points, results.main, ALPHA / 100)
    assert strict.record is results.record
    smoothed = SmoothedClassifier(Ball(), 2)
    record = results.record
    classes = record.classes[np.arange(len(record.level)), record.level]
    alone = smoothed.certify_classes(
        inputs.images, results.sigma, classes, n=N, alpha=ALPHA / 100, indices=inputs.indices
    )
    np.testing.assert_array_equal(strict.bounds.radius, alone.radius)
    np.testing.assert_array_equal(strict.bounds.predict, alone.predict)
    assert (strict.bounds.radius < results.bounds.radius).any()
    assert regions.verify(results.points, strict.radii, strict.bounds.radius)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1])
def test_alpha_must_be_a_probability(results, alpha):
    with pytest.raises(ValueError, match=r"alpha = .*: must lie strictly between 0 and 1"):
        evaluate(results.record, results.points, results.main, alpha)


def test_experts_are_asked_at_their_own_level(tmp_path):
    class Always(nn.Module):
        def __init__(self, answer):
            super().__init__()
            self.register_buffer("answer", torch.eye(2)[answer])

        def forward(self, images):
            return self.answer.expand(len(images), 2)

    experts = {0.1: Always(0), 0.25: Always(1)}
    inputs = make_inputs(np.array([0.1, 0.25]), experts)
    draw_run(tmp_path, inputs, inputs.classifier)
    record = read_record(files_of(tmp_path, inputs))
    assert (record.classes == [0, 1]).all()
    assert (record.clean == [0, 1]).all()
    assert (record.counts.last == N).all()


def test_labels_change_what_is_correct_and_nothing_else(results):
    record = dataclasses.replace(results.record, label=1 - results.record.label)
    other = evaluate(record, results.points, results.main, ALPHA)
    for name, answers in results.rules.items():
        changed = other.rules[name]
        np.testing.assert_array_equal(changed.radius, answers.radius)
        np.testing.assert_array_equal(changed.predict, answers.predict)
        certified = answers.predict != ABSTAIN
        np.testing.assert_array_equal((changed.correct + answers.correct)[certified], 1)
        np.testing.assert_array_equal((changed.correct + answers.correct)[~certified], 0)


def test_sound_rules_stay_inside_their_certificate_and_region(results):
    for name, allocation in results.allocations.items():
        answers = results.rules[name]
        assert np.all(answers.radius <= allocation.radii)
        np.testing.assert_array_equal(answers.predict[allocation.radii == 0], ABSTAIN)
        assert np.all(answers.radius[answers.predict == ABSTAIN] == 0)
    assert results.rules["paper-lp"].radius.sum() < results.rules["overlapping"].radius.sum()


def test_an_empty_region_abstains():
    predict, radius = allocated(np.array([3, 4, -1]), np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.0, 0.0]))
    assert predict.tolist() == [3, ABSTAIN, ABSTAIN]
    assert radius.tolist() == [0.25, 0.0, 0.0]


def test_discrete_votes_lose_what_looking_up_float_images_may_be_off(results):
    cut = evaluate(results.record, results.points, results.main, ALPHA, "discrete")
    lost = 2.0**-24 * results.points.shape[1] ** 0.5
    for name in cut.allocations:
        answers = cut.rules[name]
        some = answers.radius > 0
        assert some.any()
        assert np.all(answers.radius[some] <= (np.minimum(answers.R, answers.r) - lost)[some])
        assert np.all(answers.predict[answers.radius == 0] == ABSTAIN)
    # a region smaller than that certifies nothing
    assert allocated(np.array([3]), np.array([0.5]), np.array([lost]), lost)[0].tolist() == [ABSTAIN]


def test_every_certified_image_finds_its_own_region(results):
    table = certificates(results)
    regionmap = regions.RegionMap(results.points, results.radii, table.extra["sigma"], classes=table.predict)
    located = regionmap.locate(results.points)
    held = table.extra["region"] >= 0
    np.testing.assert_array_equal(located.region[held], table.extra["region"][held])
    np.testing.assert_array_equal(located.sigma[held], table.extra["sigma"][held])


def test_the_summary_counts_only_strictly_larger_radii(results):
    summary = summarize(results, {}, MANIFEST)
    lp = results.rules["paper-lp"]
    for epsilon, value in zip(summary["epsilon"], summary["rules"]["paper-lp"]["certified_accuracy"], strict=True):
        assert value == sum(r > epsilon and c for r, c in zip(lp.radius, lp.correct, strict=True)) / len(lp.radius)
    assert summary["rules"]["overlapping"]["sound"] is False
    assert all(rule["sound"] for name, rule in summary["rules"].items() if name != "overlapping")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("sigma=0.25", "sigma = 0.25"),
        ("overlapping", "overlapping (unsound)"),
        ("paper-lp", "sample-wise, LP"),
        ("class-matching", "one sigma or class may overlap, matching"),
        ("joint-arrival", "sigma chosen jointly, arrival"),
    ],
)
def test_rules_have_titles(rule, expected):
    assert title(rule) == expected


def test_the_neighbour_in_the_way_need_not_be_the_nearest():
    points, R = np.array([[0.0], [-0.5], [0.9], [9.0]]), np.array([1.0, 0.1, 0.7, 1.0])
    allocation = regions.allocate(points, R, "greedy", order=[2, 1, 0, 3])
    assert allocation.radii.tolist() == pytest.approx([0.2, 0.1, 0.7, 1.0])
    found = losses(R, allocation.radii, allocation)
    assert found.lost.tolist() == pytest.approx([0.8, 0, 0, 0])
    assert found.neighbour.tolist() == [2, -1, -1, -1]
    assert found.distance[0] == pytest.approx(0.9)
    assert np.isnan(found.distance[1:]).all()


class Brightest(nn.Module):
    """The class is the brightest of four pixels, so that votes of large noise spread over all four."""

    def forward(self, images):
        return images.flatten(1)


@pytest.mark.parametrize("overlap", ["paper", "joint", "class"])
def test_the_one_sided_column_is_the_run_that_is_told_to_be_one_sided(overlap, tmp_path):
    both, alone = (
        make_inputs(base=Brightest(), overlap=overlap, rule="expected-radius", bound=bound, num_classes=4)
        for bound in ("runner-up", "top-class")
    )
    found = []
    for name, inputs in (("both", both), ("alone", alone)):
        (tmp_path / name).mkdir()
        draw_run(tmp_path / name, inputs, SmoothedClassifier(Brightest(), 4))
        record = read_record(files_of(tmp_path / name, inputs))
        found.append(evaluate(record, inputs.points, inputs.settings.mode, ALPHA))
    with_runner_up, one_sided = found
    assert one_sided.one_sided is one_sided.rules
    assert with_runner_up.one_sided.keys() == one_sided.rules.keys()
    for name, rule in one_sided.rules.items():
        for field in ("level", "predict", "radius", "R"):
            np.testing.assert_array_equal(
                getattr(with_runner_up.one_sided[name], field), getattr(rule, field), err_msg=f"{name} {field}"
            )
    larger = with_runner_up.rules["sigma=0.5"].radius - one_sided.rules["sigma=0.5"].radius
    assert larger.max() > 0.05
    assert (with_runner_up.record.level != one_sided.record.level).any()


def test_a_run_at_chosen_levels_has_its_one_sided_column_there(tmp_path, monkeypatch):
    inputs = make_inputs(base=Brightest(), chosen_only=True, num_classes=4)
    draw_run(tmp_path, inputs, SmoothedClassifier(Brightest(), 4))
    searches, search = [], regions.overlap_graph
    monkeypatch.setattr(regions, "overlap_graph", lambda *given, **how: searches.append(1) or search(*given, **how))
    found = evaluate(read_record(files_of(tmp_path, inputs)), inputs.points, inputs.settings.mode, ALPHA)
    assert len(searches) == 1  # for both columns
    assert found.one_sided.keys() == found.rules.keys()
    assert (found.record.expected_radius_one_sided.argmax(axis=1) != found.record.level).any()
    np.testing.assert_array_equal(found.one_sided["paper-lp"].level, found.record.level)
    assert found.one_sided["paper-lp"].radius.sum() < found.rules["paper-lp"].radius.sum()
