"""What a `summary.json` says about rules, whether a run's or that of logs."""

import math
from collections.abc import Mapping
from typing import Any

import regions
from smoothing import ABSTAIN
from srs.evaluation.intervals import Interval, mean_interval
from srs.evaluation.metrics import average_certified_radius, certified_accuracy, radius_grid
from srs.evaluation.rules import Answers, RuleAnswers


def describe(
    rules: Mapping[str, RuleAnswers], main: str, one_sided: Mapping[str, RuleAnswers] | None = None
) -> dict[str, Any]:
    """Return what is found by every rule and first by the main one, ready for JSON.

    Keys are `main`, its `abstentions` and `average_certified_radius`, then `epsilon` and `rules` of `describe_rules`,
    and `allocations`.
    """
    described = describe_rules(rules, main, one_sided)
    stressed = described["rules"][main]
    return {
        "main": main,
        "abstentions": stressed["abstentions"],
        "average_certified_radius": stressed["average_certified_radius"],
        **described,
        "allocations": {
            name: _allocation(rule.allocation) for name, rule in rules.items() if rule.allocation is not None
        },
    }


def describe_rules(
    rules: Mapping[str, Answers], main: str | None = None, one_sided: Mapping[str, Answers] | None = None
) -> dict[str, Any]:
    """Return `epsilon`, radii up to the largest that a rule certifies, and for each of the `rules` its numbers.

    Accuracies are fractions. Intervals are those of `intervals.mean_interval`. `above_main` is the paired one of the
    average certified radius less the main rule's, [mean, low, high]: name a main rule only where all of the rules are
    about the same images in the same order. `clean_accuracy_smoothed` is there where it is known which class is
    returned at the image itself, and what ends in `_one_sided` where `one_sided` has the rule's answers with one-sided
    certificates.
    """
    epsilon = radius_grid(max(float(rule.radius.max(initial=0)) for rule in rules.values()))
    described: dict[str, Any] = {}
    for name, rule in rules.items():
        described[name] = {"sound": rule.sound, "abstentions": int((rule.predict == ABSTAIN).sum())}
        if rule.returned is not None:
            described[name]["clean_accuracy_smoothed"] = float((rule.returned == rule.label).mean())
        described[name]["average_certified_radius"] = average_certified_radius(rule.radius, rule.correct)
        described[name]["average_certified_radius_interval"] = _plain(mean_interval(rule.correct_radius))[1:]
        if main is not None and name != main:
            difference = rule.correct_radius - rules[main].correct_radius
            described[name]["above_main"] = _plain(mean_interval(difference))
        described[name]["certified_accuracy"] = certified_accuracy(rule.radius, rule.correct, epsilon).tolist()
        if one_sided is not None and name in one_sided:
            other = one_sided[name]
            described[name]["abstentions_one_sided"] = int((other.predict == ABSTAIN).sum())
            mean = average_certified_radius(other.radius, other.correct)
            described[name]["average_certified_radius_one_sided"] = mean
            accuracy = certified_accuracy(other.radius, other.correct, epsilon)
            described[name]["certified_accuracy_one_sided"] = accuracy.tolist()
    return {"epsilon": epsilon.tolist(), "rules": described}


def _plain(interval: Interval) -> list[float | None]:
    """Return mean, low and high; None for what a single image leaves unknown."""
    return [None if math.isnan(value) else value for value in (interval.mean, interval.low, interval.high)]


def _allocation(allocation: regions.Allocation) -> dict[str, Any]:
    """Return what is known about an allocation; how long it took is not a result."""
    return {
        "objective": allocation.objective,
        "upper_bound": allocation.upper_bound,
        "gap": allocation.gap,
        "method": allocation.method,
        "status": allocation.status,
        "edges": len(allocation.graph.i),
        "stats": {name: value for name, value in allocation.stats.items() if not name.startswith("seconds")},
    }
