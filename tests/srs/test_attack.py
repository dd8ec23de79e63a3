"""srs-attack: what it says of runs of a linear classifier, whose smoothed class is known everywhere, is true."""

import csv
import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from math import comb, isqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import regions
from smoothing import RoutedClassifier, SmoothedClassifier
from srs.attack.attack import attack
from srs.attack.gradients import White
from srs.attack.inside import distance_above, settled
from srs.attack.search import PER_IMAGE, inside
from srs.attack.settings import AttackSettings
from srs.attack.target import Target
from srs.attack.verdict import Verdict
from tests.oracles import squared_distance
from tests.smoothing.oracles import Halfspace
from tests.srs.programs import assert_refused, call

#: Class 1 where the mean of 192 numbers is above 1/2, so the true radius is sqrt(192) |mean - 1/2|, at any sigma.
LINEAR = """
import torch

def make(num_classes, scale=1.0):
    layer = torch.nn.Linear(192, 2)
    with torch.no_grad():
        layer.weight[:] = scale * torch.tensor([[-1.0], [1.0]]).expand(2, 192) / 192**0.5
        layer.bias[:] = scale * torch.tensor([0.5, -0.5]) * 192**0.5
    return torch.nn.Sequential(torch.nn.Flatten(), layer)

def steep(num_classes):
    return make(num_classes, 1e6)

class Rigid(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = make(2)

    def forward(self, images):
        return torch.nn.functional.one_hot(self.inner(images).argmax(dim=1), 2).float()

def rigid(num_classes):
    return Rigid()
"""
RUN = ("--dataset", "imagefolder:pictures", "--n0", "100", "--n", "1000", "--seed", "1")
ONE = ("--sigma-min", "0.4", "--sigma-max", "0.4", "--sigma-step", "0.1")
FAST = {"steps": 8, "samples": 16, "restarts": 1, "n": 2000, "seed": 7}
COUNT = 24


def make_pictures(folder):
    """Grey noise, so light or dark that true radii are from 0.15 to 0.6; images are far apart."""
    rng = np.random.default_rng(3)
    for k, distance in enumerate(np.linspace(0.15, 0.6, COUNT)):
        name = ("dark", "light")[k % 2]
        pixels = rng.uniform(-0.15, 0.15, size=(8, 8, 3))
        pixels += 0.5 - pixels.mean() + (2 * (k % 2) - 1) * distance / 192**0.5
        (folder / "pictures/test" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(255 * pixels).astype(np.uint8)).save(folder / f"pictures/test/{name}/{k:02d}.png")


def true_radius(images):
    return 192**0.5 * np.abs(images.reshape(len(images), -1).astype(np.float64).mean(axis=1) - 0.5)


def certify(folder, out, *flags, factory="make"):
    process = call("certify", folder, "--model", f"linear:{factory}", *RUN, *flags, "--out", out)
    assert process.returncode == 0, process.stderr


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with pictures, the linear model, and an honest run of one level."""
    folder = tmp_path_factory.mktemp("attack")
    (folder / "linear.py").write_text(LINEAR)
    make_pictures(folder)
    certify(folder, "run", *ONE)
    return folder


def attacked(folder, run, factory="make", **how):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        given = FAST | {"run": Path(run), "model": f"linear:{factory}"} | how
        return attack(AttackSettings(**given), lambda text: nullcontext())


def forge(folder, out, factor=3.0, source="run"):
    """Multiply all radii of a run, in the table and in the map, whose new hash the summary gets."""
    shutil.copytree(folder / source, folder / out, dirs_exist_ok=True)
    file = folder / out / "certificates.tsv"
    with file.open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    for row in rows:
        row |= {name: repr(factor * float(row[name])) for name in ("radius", "R", "r")}
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0], delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    table = regions.RegionMap.load(folder / out / "regions.npz")
    forged = regions.RegionMap(table.centres, factor * table.radii, table.sigma, classes=table.classes)
    forged.save(folder / out / "regions.npz")
    summary = json.loads((folder / out / "summary.json").read_text())
    (folder / out / "summary.json").write_text(json.dumps(summary | {"regions": forged.content_hash}))


# What is known of runs.


def test_an_honest_run_is_not_found_out(home):
    found = attacked(home, "run")
    assert found.verdict.balls > COUNT // 2
    assert found.verdict.points >= 3 * found.verdict.balls
    assert (found.verdict.breaks, found.verdict.unanswered, found.verdict.broken) == (0, 0, 0)
    assert found.verdict.consistent
    assert found.verdict.p_value == 1


@pytest.mark.parametrize("factory", ["make", "steep"])
def test_a_run_whose_radii_were_forged_is_found_out(home, tmp_path, factory):
    """Also where softmax is flat in float32, so that gradients as they are vanish."""
    for name in ("linear.py", "pictures"):
        (tmp_path / name).symlink_to(home / name)
    certify(tmp_path, "run", *ONE, factory=factory)
    forge(tmp_path, "forged")
    found = attacked(tmp_path, "forged", factory)
    exact = true_radius(found.target.centre)
    # where the forged ball reaches 0.1 beyond the true radius the other class has Phi(0.1 / 0.4) = 0.599 of the votes
    # or more. Of 2000 it must have 0.553 to be told at 1e-6, which is four standard deviations below.
    broken = np.unique(found.points.owner[found.breaks])
    must = np.flatnonzero(found.target.radius * (1 - 1e-3) > exact + 0.1)
    assert len(must) > COUNT // 2
    assert set(must) <= set(broken)
    assert (found.target.radius[broken] > exact[broken]).all()
    assert not found.verdict.consistent
    assert found.verdict.p_value < 1e-20
    assert f"{len(broken)} of {COUNT} certificates are broken" in found.verdict.sentence
    assert (true_radius(found.points.pixels)[found.breaks] > 0).all()
    assert (found.points.distance[found.breaks] > exact[found.points.owner[found.breaks]]).all()


def test_certificates_that_reach_beyond_every_region_are_found_out(home):
    """The map is honest, and the table of certificates claims more than it."""
    forge(home, "table")
    for name in ("regions.npz", "summary.json"):
        shutil.copy(home / "run" / name, home / "table" / name)
    found = attacked(home, "table")
    assert found.verdict.without_answer > COUNT // 2
    assert found.unanswered.sum() == found.verdict.unanswered >= found.verdict.without_answer
    assert not found.verdict.consistent
    assert "by points that no region holds" in found.verdict.sentence


def test_the_upper_bound_is_never_below_the_truth_and_close_to_it(home):
    certify(home, "outside", *ONE, "--outside", "auto")
    found = attacked(home, "outside", steps=20, n=10_000)
    exact = true_radius(found.target.centre)
    assert (found.failed_at == found.misled_at).all()  # G answers everywhere
    assert (found.misled_at > exact).all()
    # a lead of 0.08 in votes, which is asked for, is Phi^-1(0.54) = 0.1 sigma beyond; 0.05 are left to the search
    assert (found.misled_at < exact + 0.1 * 0.4 + 0.05).all()
    curves = found.curves()
    for epsilon, certified, left in zip(curves["epsilon"], curves["certified"], curves["not_misled"], strict=True):
        assert certified <= np.mean(exact > epsilon) <= left
    assert curves["epsilon"][-1] >= 1
    assert curves["not_misled"][-1] == 0


def test_who_abstains_outside_every_region_fails_there(home):
    found = attacked(home, "run")
    has = found.target.radius > 0
    table = found.target.table
    alone = table.radii[np.isin(table.centres, found.target.x).all(axis=1)]
    assert (found.failed_at[has] >= alone[has]).all()
    assert (found.failed_at[has] <= alone[has] + 1e-4).all()  # images are far apart, so the rim is the way out
    assert (found.misled_at >= true_radius(found.target.centre)).all()


def test_images_are_drawn_from_all_of_a_run_and_every_prediction_is_paid_for(home):
    found = attacked(home, "run", images=5, seed=11)
    assert found.verdict.attacked == len(found.target.idx) == 5
    assert found.alpha <= 0.0005 / (PER_IMAGE * 5)
    assert found.held.sum() <= PER_IMAGE * 5
    other = attacked(home, "run", images=5, seed=12)
    assert set(other.target.idx) != set(found.target.idx)
    again = attacked(home, "run", images=5, seed=11)
    assert np.array_equal(again.points.pixels, found.points.pixels)
    assert np.array_equal(again.answers, found.answers)


def test_with_discrete_noise_points_are_8_bit_images(home):
    certify(home, "discrete", *ONE, "--sampler", "discrete")
    forge(home, "forged-discrete", source="discrete")
    found = attacked(home, "forged-discrete")
    assert np.array_equal(np.rint(found.points.pixels * 255).astype(np.float32) / np.float32(255), found.points.pixels)
    assert found.verdict.broken > COUNT // 2
    assert attacked(home, "discrete").verdict.broken == 0


def test_a_classifier_without_gradients_is_refused(home):
    certify(home, "rigid", *ONE, factory="rigid")
    with pytest.raises(ValueError, match="the attack needs gradients of the base classifier: "):
        attacked(home, "rigid", "rigid")


# Levels that change inside a ball.


def target(radii, sigma, centres, *, radius, predict=0, outside=None):
    """One image in the middle of 2 x 2 grey levels, and regions."""
    return Target(
        idx=np.array([0]),
        label=np.array([predict]),
        predict=np.array([predict]),
        centre=np.full((1, 1, 2, 2), 0.5, np.float32),
        radius=np.array([radius]),
        table=regions.RegionMap(centres, radii, sigma),
        outside=outside,
        sigmas=np.array([0.2, 0.5]),
    )


class Flat(torch.nn.Module):
    """Always the same class, with gradients that are 0."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, images):
        return self.logits + 0 * images.flatten(1).sum(dim=1, keepdim=True)


def searched(model, attacked_target, restarts=1, router=None):
    classifier = SmoothedClassifier(model, 2, seed=1)
    if router is not None:
        router = RoutedClassifier(classifier, router, [0.2, 0.5], router_sigma=0.3)
    white = White(classifier, attacked_target, samples=8, steps=8, seed=2, router=router)
    return inside(white, restarts, np.random.default_rng(4), None)


def test_a_small_region_of_another_level_inside_the_ball_is_entered():
    """Its level has another class; base classifiers are constant, so no gradient leads there."""
    one = target([0.02, 0.3], [0.5, 0.2], [[0.65, 0.5, 0.5, 0.5], [0.5] * 4], radius=0.2)
    found = searched({0.2: Flat(1.0, 0.0), 0.5: Flat(0.0, 1.0)}, one)
    assert (found.distance < 0.2).all()
    assert (one.table.locate(found.pixels).region == 0).any()


def test_the_level_outside_leads_out_of_the_region():
    """The ball goes on outside the region, where only the level outside has a gradient, towards an edge 0.18 away."""
    one = target([0.1], [0.2], [[0.5] * 4], radius=0.2, outside=0.5)
    edge = Halfspace(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), -0.68)
    found = searched({0.2: Flat(1.0, 0.0), 0.5: edge}, one, restarts=0)
    assert (found.distance < 0.2).all()
    assert found.pixels[:, 0, 0, 0].max() > 0.68
    assert np.isnan(one.table.locate(found.pixels).sigma).any()


def test_a_border_of_a_router_is_crossed():
    """No base classifier has a gradient; beyond an edge 0.15 away the router names the level of the other class."""
    one = target([0.0], [0.2], [[0.5] * 4], radius=0.2, outside="router")
    edge = Halfspace(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), -0.65)
    found = searched({0.2: Flat(1.0, 0.0), 0.5: Flat(0.0, 1.0)}, one, restarts=0, router=edge)
    assert (found.distance < 0.2).all()
    assert (found.pixels[:, 0, 0, 0] > 0.65).any()


def test_points_of_a_ball_smaller_than_rounding_are_its_centre():
    found = searched(Flat(1.0, 0.0), target([0.1], [0.2], [[0.5] * 4], radius=1e-9))
    assert (found.pixels == 0.5).all()
    assert (found.distance == 0).all()


# Exactly inside.


def exact_root_above(square):
    """The square root of a fraction, rounded up to 30 digits."""
    scaled = square * 10**60
    return Fraction(isqrt(-(-scaled.numerator // scaled.denominator)) + 1, 10**30)


numbers = st.floats(0, 1, width=32)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12))
def test_distances_are_never_rounded_down(pairs):
    x, z = (np.array([column], np.float32) for column in zip(*pairs, strict=True))
    found = distance_above(x.astype(np.float64), z)[0]
    square = squared_distance(x[0], z[0])
    assert Fraction(found) ** 2 >= square
    assert Fraction(found) <= exact_root_above(square) * (1 + Fraction(1, 10**12))


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 255), st.floats(-2, 2)), min_size=1, max_size=12),
    st.floats(1e-4, 3),
    st.booleans(),
)
def test_settled_points_are_images_inside_the_ball(pairs, radius, on_grid):
    """Exactly inside, in fractions, for balls that float32 numbers are fine enough for."""
    levels, away = zip(*pairs, strict=True)
    x = (np.array([levels], np.float32) / np.float32(255)).astype(np.float64)
    found = settled(x, x + np.array([away]), np.array([radius]), 255 if on_grid else None)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    assert squared_distance(x[0], found[0]) < Fraction(radius) ** 2
    if on_grid:
        assert np.array_equal(np.rint(found * 255).astype(np.float32) / np.float32(255), found)
    else:  # as far as was asked for, but for rounding
        wanted = np.linalg.norm(np.clip(x + np.array([away]), 0, 1) - x)
        assert distance_above(x, found)[0] >= min(wanted, radius) - 1e-5


# The verdict.

NOTHING = {
    "attacked": 60, "balls": 50, "points": 150, "breaks": 0, "undecided": 3, "unanswered": 0, "broken": 0,
    "without_answer": 0, "alpha": 0.001, "simultaneous": False, "significance": 0.001,
}  # fmt: skip


def tail(n, least, p):
    """P(Binomial(n, p) >= least), in fractions."""
    q = Fraction(p)
    return float(sum(comb(n, k) * q**k * (1 - q) ** (n - k) for k in range(least, n + 1)))


@pytest.mark.parametrize("broken", [1, 2, 3, 5])
def test_the_test_is_that_of_the_binomial_distribution_of_certificates(broken):
    found = Verdict(**NOTHING | {"broken": broken, "breaks": 2 * broken})
    assert found.p_value == pytest.approx(tail(60, broken, 0.001), rel=1e-9)
    # of 60 certificates at alpha = 0.001, 2 are wrong with probability 0.0017 and 3 with 3.3e-5: 0.0005 lies between
    assert found.consistent == (broken < 3)
    assert ("cannot be chance" in found.sentence) == (broken >= 3)


def test_undecided_points_break_nothing():
    found = Verdict(**NOTHING | {"undecided": 150})
    assert found.consistent
    assert found.p_value == 1
    assert "no broken certificate was found" in found.sentence


def test_certificates_that_hold_together_share_one_alpha():
    """One event of probability alpha may break many; more of them prove no more."""
    for broken in (1, 40):
        found = Verdict(**NOTHING | {"simultaneous": True, "broken": broken})
        assert found.p_value == 0.001
        assert found.consistent  # 0.001 is more than 0.0005
    assert not Verdict(**NOTHING | {"simultaneous": True, "broken": 1, "alpha": 0.0004}).consistent


@pytest.mark.parametrize(
    ("about", "needed"),
    [
        ({"simultaneous": True, "broken": 40}, "0.002"),
        ({"attacked": 1, "balls": 1, "broken": 1, "alpha": 2**-10}, "0.002"),  # 2**-9, rounded up
        ({}, None),
    ],
)
def test_a_test_that_no_number_of_breaks_can_fail_says_so(about, needed):
    found = Verdict(**NOTHING | {"broken": 2} | about)
    assert found.consistent
    assert ("no number of breaks would show more" in found.sentence) == (needed is not None)
    assert ("exact binomial test" in found.sentence) == (not found.simultaneous)
    if needed is not None:
        assert found.sentence.endswith(f"that takes --significance above {needed}")
        assert not replace(found, significance=1.01 * float(needed)).consistent


def test_a_run_that_certifies_nothing_is_not_said_to_hold():
    found = Verdict(**NOTHING | {"balls": 0, "points": 0, "undecided": 0})
    assert found.sentence == "nothing was tested: none of 60 images has a certificate"


def test_no_chance_makes_a_hole():
    found = Verdict(**NOTHING | {"broken": 1, "without_answer": 1, "unanswered": 1, "alpha": 0.9})
    assert not found.consistent


# The command.


def small(**how):
    return [f"--{name}={value}" for name, value in ({**FAST, "model": "linear:make"} | how).items()]


def test_the_command_says_it_and_its_exit_code_too(home, tmp_path):
    forge(home, "forged")
    process = call("attack", home, "run", *small(), installed=True)
    assert process.returncode == 0, process.stderr
    assert process.stdout.endswith("run: consistent with its alpha\n")
    assert "repeat with --seed 7" in process.stdout
    summary = json.loads((home / "run-attack/attack.json").read_text())
    assert summary["consistent"]
    assert summary["verdict"] in process.stdout
    assert sorted(path.name for path in (home / "run-attack").iterdir()) == [
        "attack.json", "attack.pdf", "attack.svg", "attack.tsv",
    ]  # fmt: skip
    process = call("attack", home, "forged", *small(), "--out", tmp_path / "found", installed=True)
    assert process.returncode == 1, process.stderr
    assert "NOT consistent" in process.stdout.splitlines()[-1]
    summary = json.loads((tmp_path / "found/attack.json").read_text())
    rows = list(csv.DictReader((tmp_path / "found/attack.tsv").read_text().splitlines(), delimiter="\t"))
    assert len(rows) == summary["images"] == COUNT
    assert sum(int(row["breaks"]) for row in rows) == summary["breaks"] > 0
    assert sum(int(row["unanswered"]) for row in rows) == summary["unanswered"]
    assert sum(int(row["breaks"]) > 0 for row in rows) == summary["certificates_broken"]
    for row in rows:
        assert float(row["farthest"]) <= float(row["radius"])
    broken = np.load(tmp_path / "found/breaks.npz")
    assert len(broken["images"]) == summary["breaks"] + summary["unanswered"]
    assert (broken["predict"] != broken["certified"]).all()
    assert "<svg" in (tmp_path / "found/attack.svg").read_text()


def test_nothing_is_overwritten_and_nothing_is_left_half_written(home, tmp_path):
    (tmp_path / "held").mkdir()
    (tmp_path / "held/attack.json").write_text("mine")
    process = call("attack", home, "run", *small(), "--out", tmp_path / "held", installed=True)
    assert_refused(process, "srs-attack", "holds files already; name another folder, or replace it with --overwrite")
    assert (tmp_path / "held/attack.json").read_text() == "mine"
    flags = (*small(n=100, steps=1), "--out", tmp_path / "held", "--overwrite")
    assert call("attack", home, "run", *flags, installed=True).returncode == 0
    assert json.loads((tmp_path / "held/attack.json").read_text())["n"] == 100
    assert [path.name for path in tmp_path.iterdir()] == ["held"]


BAD = {
    "no run": (["nowhere"], "nowhere: no such folder"),
    "model not named": (["run", "--out", "new"], "add --model linear:make if you trust that module"),
    "images": (["run", "--images", "0"], "--images 0: must be from 1"),
    "steps": (["run", "--steps", "0"], "--steps 0: must be from 1"),
    "significance": (["run", "--significance", "1"], "--significance 1.0: must be at least 1e-12 and below 1"),
    "seed": (["run", "--seed", "-1"], "--seed -1: must be in [0, 2**64)"),
    "alpha": (["run", "--model", "other:make", "--out", "new"], "the run in run has linear:make"),
    "weights": (["run", "--model", "linear:steep", "--out", "new"], "the run in run has linear:make"),
    "two": (["run", "--model", "linear:make", "--checkpoint", "a.pt"], "both name a base classifier"),
    "a file": (["run", "--out", "linear.py"], "--out linear.py: is a file"),
    "device": (["run", "--model", "linear:make", "--device", "abacus", "--out", "new"], "--device abacus"),
}


@pytest.mark.parametrize(("flags", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_2(home, flags, message):
    before = sorted(path for path in home.rglob("*") if "__pycache__" not in str(path))
    assert_refused(call("attack", home, *flags, installed=True), "srs-attack", message)
    assert sorted(path for path in home.rglob("*") if "__pycache__" not in str(path)) == before


CHANGED = {
    "an image left out": (lambda rows: rows[:-1], "is not about the run's images"),
    "another label": (lambda rows: [{**rows[0], "label": "1", "correct": str(int(rows[0]["predict"] == "1"))},
                                    *rows[1:]], "its images or labels are not those it was made of"),
    "a class that is none": (lambda rows: [*rows[:-1], {**rows[-1], "predict": "2", "correct": "0"}],
                             "it has classes that the run has not"),
    "no number": (lambda rows: [{**rows[0], "radius": "nan"}, *rows[1:]], "radii are finite"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), CHANGED.values(), ids=CHANGED)
def test_a_table_that_is_not_the_run_s_is_refused(home, change, message):
    forge(home, "changed", 1.0)
    file = home / "changed/certificates.tsv"
    with file.open() as stream:
        rows = change(list(csv.DictReader(stream, delimiter="\t")))
    file.write_text("\n".join(["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]) + "\n")
    with pytest.raises(ValueError, match=message):
        attacked(home, "changed")
