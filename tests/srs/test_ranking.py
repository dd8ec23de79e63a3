"""Which numbers of a table are the best: against scipy's paired test, and what may never be."""

from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
from scipy.stats import ttest_rel

from srs.evaluation.describe import describe_rules
from srs.evaluation.evaluate import Results
from srs.evaluation.rules import Answers
from srs.modes import ROUTED, Mode
from srs.report.best import rank
from srs.report.chapter import Chapter
from srs.report.finished_run import StoredRun
from srs.report.tables import markdown, rule_table

N = 60
LABEL = np.arange(N) % 3
EPSILON = [0.0, 0.5, 1.0]


def rule(radius, *, right=N, sound=True, returned=None):
    """Answers with these radii, of which the first `right` are for the label."""
    predict = np.where(np.arange(N) < right, LABEL, (LABEL + 1) % 3)
    return Answers(label=LABEL, predict=predict, radius=np.asarray(radius), sound=sound, returned=returned)


def of_column(answers, column):
    if column == "ACR":
        return answers.radius * answers.correct
    if column == "clean":
        return (answers.returned == answers.label).astype(float)
    return ((answers.radius > float(column)) & (answers.correct == 1)).astype(float)


@pytest.mark.parametrize("seed", range(8))
def test_the_best_are_those_that_a_paired_test_does_not_tell_apart_from_the_largest_mean(seed):
    rng = np.random.default_rng(seed)
    base = rng.uniform(0, 1.2, N)
    rules = {
        f"r{k}": rule(
            (base + rng.normal(0.02 * k, 0.1, N)).clip(0),
            right=int(rng.integers(40, N)),
            returned=np.where(rng.random(N) < 0.8, LABEL, 0),
        )
        for k in range(6)
    }
    found = rank(rules, list(rules), EPSILON, "").best
    assert set(found) == {"ACR", "clean", "0.00", "0.50", "1.00"}
    sizes = set()
    for column, best in found.items():
        values = {name: of_column(answers, column) for name, answers in rules.items()}
        top = max(values, key=lambda name: values[name].mean())
        expected = {top}
        for name, value in values.items():
            if not np.array_equal(value, values[top]):
                low = ttest_rel(values[top], value).confidence_interval(0.95).low
                expected |= {name} if low <= 0 else set()
        assert best == expected
        sizes.add(len(best))
    assert len(sizes) > 1  # some are told apart, some not


def test_rows_of_equal_numbers_are_all_best():
    """The differences of the two are not 0, and their interval is not what decides."""
    radius = np.full(N, 0.5)
    other = radius.copy()
    other[0], other[1] = 0.4, 0.6
    best = rank({"a": rule(radius), "b": rule(other)}, ["a", "b"], EPSILON, "").best
    assert best["ACR"] == best["0.00"] == {"a", "b"}
    assert best["1.00"] == frozenset()  # nobody certifies anything there


def test_what_is_told_apart_is_not_best():
    assert rank({"a": rule(np.full(N, 0.5)), "b": rule(np.full(N, 0.4))}, ["a", "b"], [0.45], "").best == {
        "ACR": {"a"}, "clean": frozenset(), "0.45": {"a"},
    }  # fmt: skip


def test_rows_that_prove_nothing_are_never_best_and_take_nothing_away():
    rules = {"unsound": rule(np.full(N, 0.9), sound=False), "a": rule(np.full(N, 0.5))}
    found = rank(rules, ["a", "unsound"], EPSILON, "")
    assert found.best["ACR"] == found.best["0.00"] == {"a"}
    assert found.best["0.50"] == frozenset()
    assert found.apart == frozenset()


def test_rows_of_another_claim_are_never_best_and_nothing_is_best_below_them():
    radius = np.full(N, 0.5)
    rules = {"a": rule(radius), "more": rule(radius + 0.2), "same": rule(radius)}
    found = rank(rules, ["a"], [0.0, 0.6], "they assume more")
    assert found.apart == {"more", "same"}
    assert found.best["ACR"] == found.best["0.60"] == frozenset()
    assert found.best["0.00"] == {"a"}
    assert rank({"a": rules["a"], "same": rules["same"]}, ["a"], [0.0], "").best["ACR"] == {"a"}


def test_one_sided_radii_are_ranked_by_themselves():
    rules = {"a": rule(np.full(N, 0.5)), "b": rule(np.full(N, 0.4))}
    one_sided = {"a": rule(np.full(N, 0.1)), "b": rule(np.full(N, 0.2))}
    best = rank(rules, ["a", "b"], [], "", one_sided).best
    assert (best["ACR"], best["one-sided"]) == ({"a"}, {"b"})


def test_of_a_single_image_only_ties_are_known():
    def one(radius):
        return Answers(label=LABEL[:1], predict=LABEL[:1], radius=np.array([radius]))

    best = rank({"a": one(0.5), "b": one(0.4), "c": one(0.5)}, ["a", "b", "c"], [], "").best
    assert best["ACR"] == {"a", "c"}


def test_markdown_shows_them_in_bold_and_says_what_that_means():
    radius = np.full(N, 0.5)
    rules = {"a": rule(radius), "b|*x*": rule(radius - 0.1), "c": rule(radius - 0.2), "d": rule(radius, sound=False)}
    ranking = rank(rules, ["a", "b|*x*", "d"], EPSILON, "of another claim")
    text = markdown("", rule_table(describe_rules(rules, "a"), "a", named=str, ranking=ranking))
    lines = text.splitlines()
    assert lines[4].startswith("| **a** | **0.500** | ")
    assert lines[5].startswith(r"| b\|\*x\* | 0.400 | ")
    assert lines[6].startswith("| c † | 0.300 | ")
    assert lines[7].startswith("| d (unsound here) | 0.500 | ")
    assert "rows with † are never bold, and nothing is where they have more: of another claim" in text
    assert "rows that prove nothing do not count" in text
    assert "ACR" in text
    assert "Bold" not in markdown("", rule_table(describe_rules(rules, "a"), "a", named=str))


JOINT = Mode("joint", "lp")


def chapter(*, alpha=0.001, mode=JOINT, sampler="gaussian", share=0.5):
    run = Mock(spec=StoredRun)
    run.settings, run.record = SimpleNamespace(sampler=sampler), SimpleNamespace(share=np.full(N, share))
    results = Mock(spec=Results)
    results.alpha, results.main = alpha, mode
    return Chapter("run", "run", run, results, None, None)


@pytest.mark.parametrize(
    "other",
    [
        {"alpha": 0.01},
        {"sampler": "discrete"},
        {"mode": Mode("class", "lp")},  # all at once
        {"mode": ROUTED},  # for images that nobody has seen
        {"share": 0.0},  # one-sided
    ],
    ids=str,
)
def test_runs_of_another_claim_setting_or_bound_are_not_ranked_together(other):
    assert chapter().claims_like(chapter(mode=Mode("sigma", "lp"), share=0.25))
    assert not chapter().claims_like(chapter(**other))
