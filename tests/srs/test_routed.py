"""Runs with a router, beside regions and alone, against a G that is known everywhere.

Base classifiers and router are half-spaces in the plane: smoothed, each is the same half-space, so G(z) is known at
every point z. Alpha is so small that no wrong certificate will be seen.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

import regions
from smoothing import agreeing_radius, lower_confidence_bound
from smoothing.agreement import outside_clearance
from smoothing.bounds import counted_bounds
from smoothing.confidence import certified_radius, weighted_alpha
from smoothing.drawing.stages import Share
from smoothing.images import RunImages
from smoothing.router_bounds import router_clearance
from srs.evaluation.evaluate import evaluate
from srs.modes import ROUTED, ROUTER, Mode, short_title, title
from srs.predict.predictor import Predictor
from srs.report.assumptions import assumptions
from srs.run.draw import draw_run, record_of
from srs.run.router import Router, RouterRecord
from srs.run.settings import CertifySettings
from tests.smoothing.oracles import Constant, Halfspace
from tests.smoothing.test_routing import around
from tests.srs.test_certify_pipeline import assert_same, make_inputs

SIGMAS, ROUTER_SIGMA, ALPHA = np.array([0.2, 0.5]), 0.3, 1e-6
BASE = {0.2: (0.6, 0.8, -0.6), 0.5: (1.0, 0.3, -0.55)}
NAMED = (1.0, -0.5, -0.2)  # level 1 where x_1 - x_2 / 2 > 0.2


def halfspace(w1, w2, b):
    return Halfspace(torch.tensor([[[w1, w2]]]), b)


def side(form, points):
    """Whether points (n, 2) lie in a half-space, 1 or 0."""
    w1, w2, b = form
    return (points @ np.array([w1, w2]) + b > 0).astype(int)


def answers(table, points):
    """The level and the class that G has at points (n, 2), by definition."""
    where = table.locate(points)
    level = np.where(where.held, np.searchsorted(SIGMAS, where.sigma), side(NAMED, points))
    classes = np.stack([side(form, points) for form in BASE.values()], axis=1)
    return level, classes[np.arange(len(points)), level]


def inputs_of(network=None, record=None, n=60, **settings):
    known = {"rule": "expected-radius", "n0": 300, "n": 3000, "alpha": ALPHA, "overlap": "sigma"}
    known |= {"router": Path("router.pt"), "classifier": "both", "outside": "router"}
    inputs = make_inputs(SIGMAS, {sigma: halfspace(*form) for sigma, form in BASE.items()}, **(known | settings))
    images = torch.rand((n, 1, 1, 2), generator=torch.Generator().manual_seed(3)).numpy()
    router = Router(record or RouterRecord(ROUTER_SIGMA, None), network or halfspace(*NAMED), SIGMAS)
    labels = np.arange(n) % 2
    return dataclasses.replace(
        inputs, images=RunImages(images, np.arange(n)), indices=np.arange(n), labels=labels, router=router
    )


def constant(level):
    inputs = inputs_of(record=RouterRecord(None, level))
    return dataclasses.replace(inputs, router=Router(RouterRecord(None, level), None, SIGMAS))


def drawn(folder, inputs, share=None):
    return draw_run(folder, inputs, inputs.classifier, share)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    inputs, folder = inputs_of(), tmp_path_factory.mktemp("routed")
    assert drawn(folder, inputs) is None
    return inputs, record_of(folder, inputs), folder


def evaluated(run, mode, alpha=ALPHA):
    inputs, record, _ = run
    return evaluate(record, inputs.points, mode, alpha)


@pytest.mark.parametrize("mode", [Mode("sigma", "lp", "router"), Mode("paper", "lp", "router"), ROUTED])
def test_no_move_within_a_certified_radius_changes_the_answer(run, mode):
    found = evaluated(run, mode)
    levels_change = regions_met = 0
    for rule, table in ((found.answers, found.table), (found.rules[ROUTED.name], empty(found))):
        for point, predict, radius in zip(found.points, rule.predict, rule.radius, strict=True):
            if predict >= 0:
                moved = around(point, radius)
                level, there = answers(table, moved)
                assert (there == predict).all()
                levels_change += len(np.unique(level)) > 1
                regions_met += len(np.unique(table.locate(moved).region)) > 1
    assert levels_change > 3
    assert regions_met > 3 or mode == ROUTED
    assert (found.answers.predict >= 0).mean() > 0.6


def empty(found):
    return regions.RegionMap(found.points, np.zeros(len(found.points)), found.sigma)


@pytest.mark.parametrize("mode", [Mode("sigma", "lp", "router"), ROUTED])
def test_radii_are_those_of_the_formula(run, mode):
    found, (_, record, _) = evaluated(run, mode), run
    routing, share = record.routing, found.routed.share
    base, router = weighted_alpha(ALPHA, (1 - share, share))
    r = certified_radius(SIGMAS, *counted_bounds(record.counts, base, record.share))
    m = router_clearance(routing.estimated, routing.level, ROUTER_SIGMA, router)
    table, lengths = found.table, np.linalg.norm(found.points[:, None] - found.points[None], axis=-1)
    filled, gap = table.radii > 0, lengths - table.radii
    for j, point in enumerate(found.points):
        held = table.locate(point[None]).held[0]
        s = int(np.flatnonzero(table.sigma[j] == SIGMAS)[0]) if held else int(routing.level[j])
        k, leave = 1 - s, max(0.0, -gap[j, filled].min(initial=0.0))
        near = max(0.0, gap[j, filled & (table.sigma == SIGMAS[k])].min(initial=np.inf))
        named = 0.0 if routing.level[j] == k else m[j, k]
        same = record.classes[j, k] == record.classes[j, s]
        wanted = min(r[j, s], max(r[j, k] if same else 0.0, min(near, max(named, leave))))
        assert found.level[j] == s
        assert found.answers.radius[j] == pytest.approx(max(wanted, 0), abs=2e-6)
        assert found.answers.radius[j] <= wanted + 1e-12


def test_levels_that_agree_are_never_worse_than_the_smaller_of_two_radii(run):
    found = evaluated(run, ROUTED)
    for rules in (found.rules, found.one_sided):
        assert (rules[ROUTED.name].radius >= rules[ROUTER].radius).all()
    assert (found.rules[ROUTED.name].radius > found.rules[ROUTER].radius + 0.01).any()
    assert found.answers is found.rules[ROUTED.name]
    assert not found.radii.any()


def test_every_way_to_choose_levels_is_compared(run):
    found = evaluated(run, Mode("sigma", "lp", "router"))
    assert list(found.rules) == [
        "sigma=0.2", "sigma=0.5", "overlapping", "paper-ascending", "paper-descending", "paper-lp", "sigma-lp",
        "class-lp", "router", "router-agreeing", "sigma-lp+router",
    ]  # fmt: skip
    assert all(rule.sound for name, rule in found.rules.items() if name != "overlapping")
    assert max(len(short_title(name)) for name in found.rules) <= 27
    assert found.proofs.guarantee.endswith("for G with the sigma that the router names outside every region")
    assert evaluated(run, ROUTED).proofs.guarantee.endswith("for G with the sigma that the router names")


def test_what_each_rule_assumes_and_costs(run):
    inputs, record, _ = run
    found = evaluated(run, Mode("sigma", "lp", "router"))
    rows = {one.title: one for one in assumptions(found, inputs.settings)}
    # 300 selection samples and 3,000 others, of the classifier at each of two levels, and of the router
    for rule, kind, samples in (
        ("sigma=0.2", "inductive", 300 + 3000),
        ("sigma-lp", "transductive", 600 + 3000),
        (ROUTER, "inductive", (300 + 3000) + (300 + 3000)),
        (ROUTED.name, "inductive", (600 + 6000) + (300 + 3000)),
        ("sigma-lp+router", "transductive, and inductive outside the regions", (600 + 6000) + (300 + 3000)),
    ):
        assert (rows[title(rule)].kind, rows[title(rule)].samples) == (kind, samples)
    assert {one.holds for one in rows.values()} == {"each image", "all images at once"}
    assert title("overlapping") not in rows
    np.testing.assert_array_equal(found.named_of(4), record.routing.estimated[4] / 3000)
    assert (
        evaluate(dataclasses.replace(record, routing=None), found.points, Mode("sigma", "lp"), ALPHA).named_of(4)
        is None
    )


def test_selection_samples_alone_split_alpha_and_make_the_map(run):
    inputs, record, _ = run
    before = evaluated(run, Mode("sigma", "lp", "router"))
    routing = dataclasses.replace(record.routing, estimated=record.routing.estimated[:, ::-1])
    counts = record.counts.take(np.arange(len(record.idx))[::-1])
    other = evaluate(
        dataclasses.replace(record, counts=counts, routing=routing),
        inputs.points,
        Mode("sigma", "lp", "router"),
        ALPHA,
    )
    assert before.routed.share == other.routed.share
    assert before.table.content_hash != other.table.content_hash or (before.radii == other.radii).all()
    np.testing.assert_array_equal(before.radii, other.radii)
    assert not np.array_equal(before.answers.radius, other.answers.radius)


def test_shares_and_interruptions_give_the_same_rows(run, tmp_path):
    inputs, record, folder = run
    left = [drawn(tmp_path, inputs, Share(k, 2)) for k in (1, 0)]
    assert left[0].stage == "estimation"
    assert left[1] is None
    assert_same_routed(record_of(tmp_path, inputs), record)
    for name in ("router_selection.tsv", "router_estimation.tsv"):
        text = (folder / name).read_bytes()
        (tmp_path / name).unlink()
        (tmp_path / f"{name}.part0").write_bytes(text[: len(text) // 2])
        assert drawn(tmp_path, inputs) is None
        assert_same_routed(record_of(tmp_path, inputs), record)
    (tmp_path / "router_estimation.tsv").unlink()
    with pytest.raises(ValueError, match="has not come to its end"):
        record_of(tmp_path, inputs)


def assert_same_routed(found, wanted):
    assert_same(dataclasses.replace(found, routing=None), dataclasses.replace(wanted, routing=None))
    for name in ("level", "selected", "estimated"):
        np.testing.assert_array_equal(getattr(found.routing, name), getattr(wanted.routing, name))


def test_a_router_that_names_one_level_is_that_level_outside(tmp_path):
    inputs = constant(0.5)
    assert drawn(tmp_path, inputs) is None
    assert not (tmp_path / "router_selection.tsv").exists()
    record = record_of(tmp_path, inputs)
    for overlap in ("sigma", "paper"):
        found = evaluate(record, inputs.points, Mode(overlap, "lp", "router"), ALPHA)
        plain = evaluate(dataclasses.replace(record, routing=None), inputs.points, Mode(overlap, "lp", 0.5), ALPHA)
        np.testing.assert_array_equal(found.answers.radius, plain.answers.radius)
        np.testing.assert_array_equal(found.answers.predict, plain.answers.predict)
        for rule in (ROUTER, ROUTED.name):
            np.testing.assert_array_equal(found.rules[rule].radius, found.rules["sigma=0.5"].radius)


def test_the_radius_is_too_large_no_more_often_than_alpha_says(rng):
    """Votes are simulated around one image whose shares, distances and true radius are known."""
    alpha, draws, n, sigma_r = 0.2, 40_000, 200, 0.4
    sigmas = np.array([0.2, 0.4, 0.6])
    wrong_without_own = 0
    for p, named, near, leave in (
        ([0.90, 0.85, 0.7], [0.5, 0.3, 0.2], [0.3, 0.05, 0.2], 0.0),
        ([0.99, 0.60, 0.8], [0.6, 0.3, 0.1], [0.5, 0.02, 0.4], 0.03),
        ([0.80, 0.95, 0.9], [0.6, 0.2, 0.2], [0.1, 0.3, 0.9], 0.0),
    ):

        def rho(radius, m, near=near, leave=leave):
            many = len(radius)
            m[:, 0] = 0.0
            t = outside_clearance(np.tile(near, (many, 1)), np.full(many, leave), m)
            return agreeing_radius(radius, t, np.zeros(many, dtype=int))

        exact = sigmas * stats.norm.ppf(p)
        z = stats.norm.ppf(named)
        true = rho(exact[None], np.maximum(sigma_r / 2 * (z[0] - z), 0)[None])[0]
        votes = rng.binomial(n, p, (draws, 3))
        base, router = weighted_alpha(alpha, (0.5, 0.5))
        lower = stats.beta.ppf(base, votes, n - votes + 1)
        radius = sigmas * np.maximum(stats.norm.ppf(lower), 0)
        routes = rng.multinomial(n, named, draws)
        m = router_clearance(routes, np.zeros(draws, dtype=int), sigma_r, router)
        wrong = int((rho(radius, m) > true).sum())
        assert wrong <= stats.binom.ppf(0.999, draws, alpha)
        # leaving out the level at the image itself claims too much
        others = np.concatenate([np.full((draws, 1), np.inf), radius[:, 1:]], axis=1)
        wrong_without_own += int((rho(others, m) > true).sum() > stats.binom.ppf(0.999, draws, alpha))
    assert wrong_without_own


@pytest.fixture(scope="module")
def votes_of_many():
    """Votes around many points of the half-planes, some of them in regions: what certificates are made of."""
    rng, m, n = np.random.default_rng(17), 125_000, 100
    points = rng.random((m, 2))
    table = regions.RegionMap(
        [[0.3, 0.5], [0.62, 0.3], [0.55, 0.75], [0.85, 0.55]], [0.12, 0.15, 0.1, 0.2], [0.5, 0.2, 0.5, 0.2]
    )
    lines = np.array([NAMED, *BASE.values()])
    distance = (points @ lines[:, :2].T + lines[:, 2]) / np.linalg.norm(lines[:, :2], axis=1)
    p = stats.norm.cdf(distance / [ROUTER_SIGMA, *SIGMAS])  # of level 1, and of class 1 at each level
    where = table.locate(points)
    anchor = (rng.binomial(20, p[:, 0]) > 10).astype(int)
    level = np.where(where.held, np.searchsorted(SIGMAS, where.sigma), anchor)
    every = np.arange(m)
    classes = (rng.binomial(20, p[every, 1 + level]) > 10).astype(int)
    own = np.where(classes[:, None] == 1, p[:, 1:], 1 - p[:, 1:])
    named = np.where(anchor == 1, p[:, 0], 1 - p[:, 0])
    return table, points, lines, level, anchor, classes, rng.binomial(n, own), rng.binomial(n, named), n


def violations(votes_of_many, alpha, *, own=True, leave=True, near=True):
    """How many certificates one of eight moves breaks: with a step of the proof left out, where that is said."""
    table, points, lines, level, anchor, classes, votes, routes, n = votes_of_many
    base, router = weighted_alpha(alpha, (0.5, 0.5))
    every, counts = np.arange(len(points)), np.arange(n + 1)
    lower = lower_confidence_bound(counts, n, base)
    radius = np.stack([certified_radius(sigma, lower)[votes[:, k]] for k, sigma in enumerate(SIGMAS)], axis=1)
    margin = router_clearance(np.stack([counts, n - counts], axis=1), np.zeros(n + 1, int), ROUTER_SIGMA, router)
    m = np.zeros(radius.shape)
    m[every, 1 - anchor] = margin[routes, 1]
    around_them = table.surroundings(points, SIGMAS, radius.max(axis=1))
    D = around_them.clearance if near else np.full(radius.shape, np.inf)
    t = outside_clearance(D, around_them.exit if leave else np.full(len(points), np.inf), m)
    if not own:
        radius[every, level] = np.inf
        t[every, level] = np.inf
    rho = np.minimum(agreeing_radius(radius, t, level), 5.0)
    broken = np.zeros(len(points), dtype=bool)
    unit = lines[:, :2] / np.linalg.norm(lines[:, :2], axis=1)[:, None]
    for step in (*unit, *-unit, np.array([0.6, 0.8]), np.array([-0.8, 0.6])):
        moved = points + (rho * (1 - 1e-9))[:, None] * step
        broken |= (rho > 0) & (answers(table, moved)[1] != classes)
    return int(broken.sum()), len(points)


def test_a_million_moves_break_no_more_certificates_than_alpha_says(votes_of_many):
    for alpha in (0.002, 0.02, 0.2):
        wrong, of = violations(votes_of_many, alpha)
        assert wrong <= stats.binom.ppf(0.999, of, alpha)
    # and each step of the proof is needed
    for left_out in ("own", "leave", "near"):
        wrong, of = violations(votes_of_many, 0.002, **{left_out: False})
        assert wrong > stats.binom.ppf(0.999, of, 0.002), left_out


def predictor(table, seed=11, alpha=ALPHA):
    inputs = dataclasses.replace(inputs_of(), settings=dataclasses.replace(inputs_of().settings, seed=seed))
    return Predictor(inputs.classifier, table, router=inputs.routed, alpha=alpha)


def test_new_images_are_certified_and_answered(run):
    table = evaluated(run, Mode("sigma", "lp", "router")).table
    images = torch.rand((80, 1, 1, 2), generator=torch.Generator().manual_seed(9)).numpy()
    points = images.reshape(-1, 2).astype(np.float64)
    found = predictor(table).certify(images, n=3000, n0=300)
    held = table.locate(points).held
    level, true = answers(table, points)
    assert held.any()
    assert not held.all()
    certain = found.predict >= 0
    assert (found.predict == true)[certain].all()
    np.testing.assert_array_equal(found.region >= 0, held)
    np.testing.assert_array_equal(found.sigma[held], SIGMAS[level[held]])
    assert (found.radius[~held] > 0).mean() > 0.4
    changes = 0
    for point, predict, radius in zip(points, found.predict, found.radius, strict=True):
        if radius > 0:
            there, classes = answers(table, around(point, radius))
            assert (classes == predict).all()
            changes += len(np.unique(there)) > 1
    assert changes > 3
    # answers inside the certified balls: never another class
    moved = np.concatenate([around(point, radius, 3, 1) for point, radius in zip(points, found.radius, strict=True)])
    asked = moved.astype(np.float32).reshape(-1, 1, 1, 2).clip(0, 1)
    where = asked.reshape(-1, 2).astype(np.float64)
    said = predictor(table, seed=12)(asked, n=500)
    assert ((said.predict == -1) | (said.predict == answers(table, where)[1])).all()
    assert (said.predict >= 0).mean() > 0.5


def test_a_network_that_changes_is_found_out(run):
    table = evaluated(run, ROUTED).table
    inputs = inputs_of()
    asked = Predictor(inputs.classifier, table, router=inputs.routed, alpha=ALPHA)
    image = np.full((1, 1, 1, 2), 0.5, np.float32)
    asked(image, n=10)
    inputs.router.network.b += 0.1
    for ask in (asked, asked.certify):
        with pytest.raises(RuntimeError, match="a network was changed after it was loaded"):
            ask(image, n=10)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"outside": "router"}, "--outside router: there is none; name its checkpoint with --router"),
        ({"classifier": "router"}, "--classifier router: there is none; name its checkpoint with --router"),
        ({"classifier": "both"}, "--classifier both: there is none"),
        ({"router_always": True}, "--router-always: there is none; name its checkpoint with --router"),
        ({"router": Path("r.pt"), "classifier": "regions"}, "--router r.pt: has no effect with --classifier regions"),
        ({"router": Path("r.pt"), "outside": "sigma=0.25"}, "--outside sigma=0.25: the router decides there"),
        ({"router": Path("r.pt"), "outside": "auto"}, "--outside auto: the router decides there"),
        ({"router": Path("r.pt"), "racing": True}, "--router r.pt: compares levels that --racing leaves out"),
        ({"router": Path("r.pt"), "chosen_only": True}, "--router r.pt: needs certificates at every level"),
        ({"router": Path("r.pt"), "overlap": "class"}, "--router r.pt: levels that agree need no --overlap class"),
        ({"router": Path("r.pt"), "classifier": "router", "overlap": "paper"}, "--overlap paper: --classifier router"),
    ],
)
def test_flags_that_do_not_go_together_are_refused_in_one_line(flags, message):
    with pytest.raises(ValueError, match="^" + message.replace(".", r"\.")):
        CertifySettings(**flags).check()


def test_a_constant_answer_is_not_certified_beyond_any_bound(tmp_path):
    # a classifier that always answers 1: every radius is that of n equal votes, at the router's level or any other
    inputs = dataclasses.replace(inputs_of(), base={0.2: Constant(0.0, 1.0), 0.5: Constant(0.0, 1.0)})
    assert drawn(tmp_path, inputs) is None
    found = evaluate(record_of(tmp_path, inputs), inputs.points, ROUTED, ALPHA)
    most = 0.5 * stats.norm.ppf(found.routed.alphas[0] ** (1 / 3000))
    assert found.answers.radius.max() <= most
