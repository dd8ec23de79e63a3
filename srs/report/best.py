"""Which rows of a table are best, and which others claim something else and cannot be."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from srs.evaluation.intervals import mean_interval
from srs.evaluation.metrics import average_certified_radius
from srs.evaluation.rules import Answers

ACR, ONE_SIDED, CLEAN = "ACR", "one-sided", "clean"
"""Columns in which more is better, beside those of radii."""


@dataclass(frozen=True)
class Ranking:
    """The best of rules that are about the same images.

    Attributes
    ----------
    best : dict of str to frozenset of str
        By column: the rule with the largest mean among those that claim the same, and those that are not told apart
        from it: the paired 95% interval of the difference holds 0. Empty where a sound rule that claims something else
        has a larger mean, and where no rule has anything.
    apart : frozenset of str
        The sound rules that claim something else.
    why : str
        What it is that these claim.
    """

    best: Mapping[str, frozenset[str]]
    apart: frozenset[str]
    why: str


def rank(
    rules: Mapping[str, Answers],
    alike: Collection[str],
    epsilon: Sequence[float],
    why: str,
    one_sided: Mapping[str, Answers] | None = None,
) -> Ranking:
    """Rank rules about the same images, in the same order.

    Parameters
    ----------
    rules : mapping of str to Answers
    alike : collection of str
        Those that claim the same. Unsound ones among them do not count.
    epsilon : sequence of float
        Radii at which certified accuracy is compared.
    why : str
        What the others claim.
    one_sided : mapping of str to Answers, optional
        The same with one-sided certificates.
    """
    sound = [name for name, rule in rules.items() if rule.sound]
    same = [name for name in sound if name in alike]
    columns = {ACR: {name: rules[name].correct_radius for name in sound}}
    if one_sided is not None:
        columns[ONE_SIDED] = {name: one_sided[name].correct_radius for name in sound if name in one_sided}
    columns[CLEAN] = {
        name: np.asarray(rules[name].returned == rules[name].label, dtype=np.float64)
        for name in sound
        if rules[name].returned is not None
    }
    for value in epsilon:
        columns[f"{value:.2f}"] = {
            name: np.asarray((rules[name].radius > value) & (rules[name].correct == 1), dtype=np.float64)
            for name in sound
        }
    best = {column: _best(values, [name for name in same if name in values]) for column, values in columns.items()}
    return Ranking(best, frozenset(sound).difference(same), why)


def _best(values: Mapping[str, Float64[np.ndarray, " n"]], same: Sequence[str]) -> frozenset[str]:
    """Return the best of some rules and what is not told apart from it, given every rule's value of each image."""
    if not same:
        return frozenset()
    mean = {name: average_certified_radius(value, np.ones(len(value), np.int64)) for name, value in values.items()}
    first = max(same, key=mean.__getitem__)
    if mean[first] <= 0 or any(mean[name] > mean[first] for name in values):
        return frozenset()
    return frozenset(
        name for name in same if mean[name] == mean[first] or mean_interval(values[first] - values[name]).low <= 0
    )
