"""The core that runs and logs share: proofs and levels in, what every rule certifies out."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import ttest_1samp

import regions
from smoothing import ABSTAIN
from smoothing.tables import floor_text
from srs.evaluation import sizing
from srs.evaluation.describe import describe, describe_rules
from srs.evaluation.rules import Answers, Choice, Proofs, answer, at
from srs.evaluation.sizing import Sizer
from srs.modes import COMPARED, Mode, short_title
from srs.report.latex import latex
from srs.report.tables import TerminalTable, markdown, rule_table
from tests.srs import tex

SIGMAS = np.array([0.25, 0.5, 1.0])
MODES = (*COMPARED, Mode("joint", "lp"), Mode("sigma", "matching"), Mode("paper", "arrival"), Mode("sigma", "max-min"))
SHRUNK = {"constant": 1.0, "chosen": 0.9, "simultaneous": 0.6}


@pytest.fixture
def points(rng):
    return rng.random((70, 2)) * 3


@pytest.fixture
def label(rng):
    return rng.integers(0, 3, size=70)


def proofs_of(rng):
    R = np.where(rng.random((70, 3)) < 0.2, 0.0, rng.random((70, 3)))
    return Proofs(
        rng.integers(0, 3, size=(70, 3)), **{name: R * share for name, share in SHRUNK.items()}, guarantee="invented"
    )


def choice_of(rng, modes=MODES):
    own = rng.integers(0, 3, size=70)
    return Choice((0, 2), own, dict.fromkeys(modes, own))


def same(one, other):
    assert one.keys() == other.keys()
    for name, answers in one.items():
        for field in ("level", "predict", "radius", "correct", "R", "r"):
            np.testing.assert_array_equal(getattr(answers, field), getattr(other[name], field))


def test_every_rule_certifies_inside_its_certificate_and_region(rng, points, label):
    proofs, choice = proofs_of(rng), choice_of(rng)
    found = answer(points, SIGMAS, proofs, choice, label)
    assert list(found) == ["sigma=0.25", "sigma=1", "overlapping", *(mode.name for mode in MODES)]
    tables = {"sigma=0.25": proofs.constant, "sigma=1": proofs.constant, "class-lp": proofs.simultaneous}
    for name, answers in found.items():
        R = at(tables.get(name, proofs.chosen), answers.level)
        np.testing.assert_array_equal(answers.R, R)
        expected = [float(floor_text(value)) for value in np.minimum(R, answers.r).tolist()]
        np.testing.assert_array_equal(answers.radius, expected)
        held = (R > 0) & (answers.r > 0)
        np.testing.assert_array_equal(answers.predict, np.where(held, at(proofs.predict, answers.level), ABSTAIN))
        np.testing.assert_array_equal(answers.correct, answers.predict == label)
        assert (answers.allocation is None) == np.isinf(answers.r).all()
    assert [name for name, answers in found.items() if not answers.sound] == ["overlapping"]
    unsure = answer(points, SIGMAS, replace(proofs, certified=False), choice, label)
    assert [name for name, answers in unsure.items() if not answers.sound] == ["overlapping", "class-lp"]


def test_two_kinds_of_proof_do_not_know_of_each_other(rng, points, label):
    """Evaluated alone, before or after the other: the same, and what was given is left as it was."""
    cases = [(proofs_of(rng), choice_of(rng)) for _ in range(2)]
    before = [(proofs.chosen.copy(), proofs.predict.copy(), choice.overlapping.copy()) for proofs, choice in cases]
    first, second = (answer(points, SIGMAS, proofs, choice, label) for proofs, choice in cases)
    other = answer(points, SIGMAS, *cases[1], label)
    same(answer(points, SIGMAS, *cases[0], label), first)
    same(other, second)
    assert (first["paper-lp"].radius != second["paper-lp"].radius).any()
    for (proofs, choice), arrays in zip(cases, before, strict=True):
        for now, then in zip((proofs.chosen, proofs.predict, choice.overlapping), arrays, strict=True):
            np.testing.assert_array_equal(now, then)


def test_a_search_for_two_kinds_of_proof_gives_each_what_its_own_gives(rng, points, label, monkeypatch):
    cases = [(proofs_of(rng), choice_of(rng)) for _ in range(2)]
    size = Sizer.among(points, [R for proofs, choice in cases for R in choice.to_size(proofs)], {})
    alone = [answer(points, SIGMAS, proofs, choice, label) for proofs, choice in cases]
    monkeypatch.setattr(regions, "overlap_graph", None)  # nobody searches again
    for (proofs, choice), expected in zip(cases, alone, strict=True):
        same(answer(points, SIGMAS, proofs, choice, label, size=size), expected)


@pytest.mark.parametrize("listed", [True, False])
def test_one_search_gives_every_mode_what_a_search_of_its_own_gives(rng, points, listed, monkeypatch):
    monkeypatch.setattr(sizing, "SHARED_EDGES", 50 if listed else 0)
    proofs, level = proofs_of(rng), rng.integers(0, 3, size=70)
    predict = at(proofs.predict, level)
    radii = {mode: at(proofs.of(mode), level) for mode in MODES}
    size = Sizer.among(points, list(radii.values()), {})
    assert (size.near is not None) == listed
    for mode, R in radii.items():
        groups = {"paper": None, "class": [level, predict]}.get(mode.overlap, [level])
        found = size(mode, R, level, predict)
        alone = regions.allocate(points, R, groups=groups, **mode.method)
        np.testing.assert_array_equal(found.radii, alone.radii)
        np.testing.assert_array_equal(found.graph.distance, alone.graph.distance)
        assert (found.status, found.upper_bound) == (alone.status, alone.upper_bound)


def test_an_allocation_that_was_found_with_its_levels_is_taken(rng, points, label):
    proofs, mode = proofs_of(rng), Mode("joint", "lp")
    joint = regions.allocate_levels(points, SIGMAS, proofs.chosen)
    choice = Choice((), joint.level, {mode: joint.level}, {mode: joint.allocation})
    found = answer(points, SIGMAS, proofs, choice, label)["joint-lp"]
    assert found.allocation is joint.allocation
    np.testing.assert_array_equal(found.r, joint.radii)


def test_terminal_latex_and_markdown_show_the_same_cells(rng, points, label):
    found = answer(points, SIGMAS, replace(proofs_of(rng), certified=False), choice_of(rng), label)
    clean = {
        name: replace(answers, returned=at(np.tile(label[:, None], 3), answers.level))
        for name, answers in found.items()
    }
    for rules, columns in (
        (found, ("ACR", "+-", "diff", "+-", "abstain", "0.00")),
        (clean, ("ACR", "+-", "diff", "+-", "clean", "abstain", "0.00")),
    ):
        summary = json.loads(json.dumps(describe(rules, "sigma-lp")))
        table = rule_table(summary, summary["main"])
        assert table.columns[: len(columns)] == columns
        [shown] = TerminalTable("caption", table).__rich_console__(Console(), Console(width=1000).options)
        lines = zip(*(column.cells for column in shown.columns), strict=True)
        [(_, _, head, in_tex)] = tex.tables(latex("", table))
        assert any(cells[-1] == "-" for _, cells in table.rows)
        wide = [at for at in range(len(table.columns)) if any(cells[at] != "-" for _, cells in table.rows)]
        assert list(map(tex.shown, head)) == ["rule", *(table.columns[at] for at in wide)]
        in_md = [line.strip("| ").split(" | ") for line in markdown("", table).splitlines() if " | " in line]
        for line, (name, numbers), md, (title, cells) in zip(lines, in_tex, in_md[2:], table.rows, strict=True):
            assert list(map(tex.shown, numbers)) == md[1:] == list(line[1:]) == [cells[at] for at in wide]
            assert tex.shown(name) == md[0].replace("*", "") == line[0][2:] == title
        styles = {name: row.style for (name, _), row in zip(table.rows, shown.rows, strict=True)}
        assert styles["one sigma may overlap, LP"] == "bold"
        assert styles["one sigma or class may overlap, LP (unsound here)"] == "dim"
        assert styles["overlapping (unsound)"] == "dim"


def printed(table, width):
    """The lines of a table on a screen so wide, as cells, without the name of the rule."""
    screen = Console(width=width, file=io.StringIO())
    screen.print(TerminalTable("certified accuracy", table))
    lines = screen.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    names = ["rule", *(name for name, _ in table.rows)]
    found = {name: line[2:].removeprefix(name).split() for name, line in zip(names, lines[1:], strict=True)}
    marks = {name: line[0] for name, line in zip(names, lines[1:], strict=True)}
    return found, marks


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_a_narrow_terminal_leaves_columns_out_and_cuts_no_number_short(rng, points, label, width):
    found = answer(points, SIGMAS, proofs_of(rng), choice_of(rng, COMPARED), label)
    summary = describe(found, "paper-lp")
    table = rule_table(summary, summary["main"], named=short_title)
    lines, marks = printed(table, width)
    assert marks == dict.fromkeys(marks, " ") | {"paper, LP": ">"}
    shown = lines.pop("rule")
    empty = {name for at, name in enumerate(table.columns) if all(cells[at] == "-" for _, cells in table.rows)}
    assert empty & {"1.25", "2.25"}  # no radius exceeds 1
    left_out = TerminalTable("", table).left_out(width)
    assert sorted([*shown, *left_out, *empty]) == sorted(table.columns)
    assert list(left_out) == {
        40: ["+-", "diff", "+-", "abstain", "0.25", "0.75"], 60: ["abstain", "0.25", "0.75"], 80: [], 120: [], 200: [],
    }.get(width)  # fmt: skip
    assert ("diff: " in table.legend_without(left_out)) == ("diff" in shown)
    for name, cells in table.rows:
        at = -1
        for cell, column in zip(lines[name], shown, strict=True):  # each below its own header
            at = table.columns.index(column, at + 1)
            assert cell == cells[at]


def test_radii_are_thinned_out_evenly_and_least_wanted_columns_go_first(label):
    radius = np.linspace(0, 2.6, 70)
    table = rule_table(describe_rules({"sigma=1": Answers(label=label, predict=label, radius=radius)}, "sigma=1"))
    lines, _ = printed(table, 200)
    assert lines["rule"] == ["ACR", "+-", "abstain", *(f"{0.25 * k:.2f}" for k in range(11))]  # up to the largest, 2.6
    # 11 for the name with its mark, 12 for ACR and +-, 5 for each radius
    assert printed(table, 11 + 12 + 11 * 5)[0]["rule"][2:] == lines["rule"][3:]
    assert printed(table, 11 + 12 + 11 * 5 - 1)[0]["rule"][2:] == [
        "abstain", "0.00", "0.50", "1.00", "1.50", "2.00", "2.50",
    ]  # fmt: skip
    assert printed(table, 11 + 12 + 10)[0]["rule"][2:] == ["0.00", "1.50"]


def test_differences_stand_beside_their_paired_intervals(rng, label):
    """Of rules whose radii differ by much from image to image and by little from each other."""
    radius = rng.uniform(0, 2, 70)
    more = radius + rng.uniform(0, 0.1, 70)
    rules = {name: Answers(label=label, predict=label, radius=value) for name, value in (("a", radius), ("b", more))}
    interval = ttest_1samp(more - radius, 0.0).confidence_interval(0.95)
    half = (interval.high - interval.low) / 2
    table = rule_table(describe_rules(rules, "a"), "a", named=str)
    assert table.columns[:4] == ("ACR", "+-", "diff", "+-")
    (_, main), (_, other) = table.rows
    assert main[2:4] == ("-", "-")
    assert other[2] == f"+{(more - radius).mean():.3f}"
    assert half <= float(other[3]) < half + 1e-3 < float(other[1]) / 5
    for text in (markdown("", table, ["a note"]), latex("", table, ["a note"])):
        assert "diff: ACR less that of 'a'" in text.replace("`a'", "'a'")
        assert "A note." in text
    assert "diff" not in rule_table(describe_rules(rules), named=str).columns
    alone = {name: replace(rule, label=label[:1], predict=label[:1], radius=radius[:1]) for name, rule in rules.items()}
    assert "diff" not in rule_table(describe_rules(alone, "a"), "a", named=str).columns


def test_a_baseline_is_not_taken_for_a_rule_of_its_name(label):
    log = Answers(label=label, predict=label, radius=np.full(70, 0.3))
    table = rule_table(describe_rules({"overlapping": log}), named=str)
    assert table.unsound == frozenset()
    assert [name for name, _ in table.rows] == ["overlapping"]


@pytest.mark.parametrize(
    ("rule", "short"),
    [
        ("sigma=0.1", "sigma = 0.1"),
        ("overlapping", "overlapping (unsound)"),
        ("joint-lp", "joint, LP"),
        ("paper-ascending", "paper, ascending"),
        ("joint-lp+0.3", "sigma = 0.3 outside regions"),
    ],
)
def test_rules_have_short_names_for_terminals(rule, short):
    assert short_title(rule) == short
