"""What a `summary.json` says about rules, whether a run's or that of logs."""

from collections.abc import Mapping
from typing import Any

import regions
from smoothing import ABSTAIN
from srs.evaluation.metrics import average_certified_radius, certified_accuracy, radius_grid
from srs.evaluation.rules import Answers, RuleAnswers


def describe(rules: Mapping[str, RuleAnswers], main: str) -> dict[str, Any]:
    """Return what is found by every rule and first by the main one, ready for JSON.

    Keys are `main`, its `abstentions` and `average_certified_radius`, then `epsilon` and `rules` of `describe_rules`,
    and `allocations`.
    """
    described = describe_rules(rules)
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


def describe_rules(rules: Mapping[str, Answers]) -> dict[str, Any]:
    """Return `epsilon`, radii up to the largest that a rule certifies, and for each of the `rules` its numbers.

    Accuracies are fractions. `clean_accuracy` is there where it is known which class is returned at the image itself.
    """
    epsilon = radius_grid(max(float(rule.radius.max(initial=0)) for rule in rules.values()))
    described: dict[str, Any] = {}
    for name, rule in rules.items():
        described[name] = {"sound": rule.sound, "abstentions": int((rule.predict == ABSTAIN).sum())}
        if rule.returned is not None:
            described[name]["clean_accuracy"] = float((rule.returned == rule.label).mean())
        described[name]["average_certified_radius"] = average_certified_radius(rule.radius, rule.correct)
        described[name]["certified_accuracy"] = certified_accuracy(rule.radius, rule.correct, epsilon).tolist()
    return {"epsilon": epsilon.tolist(), "rules": described}


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
