"""Every rule that a run is compared with, against the votes of its rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from srs.verify.arithmetic import mp
from srs.verify.background import Around, Made, Placed, alone, maps, placed_by
from srs.verify.certificates import Certificates, Range, agreement, constancy, floored, joint, micro, overlap_problems
from srs.verify.evidence import Described, Map, Rows
from srs.verify.rows import Table

#: Ends the name of a rule whose certificates are one-sided.
ONE_SIDED = ":one-sided"

#: The ways to size regions that every run is compared with.
_COMPARED = ("paper-ascending", "paper-descending", "paper-lp", "sigma-lp", "class-lp")


@dataclass(frozen=True, eq=False)
class Compared:
    """The rows of one rule of `comparison.tsv`, radii in millionths."""

    predict: list[int]
    radius: list[int]
    correct: list[int]

    @property
    def certified(self) -> list[float]:
        """Radius of each image that is certified for its label, 0 for others."""
        return [float(Decimal(radius).scaleb(-6)) * one for radius, one in zip(self.radius, self.correct, strict=True)]


def read_comparison(run: Described, rows: Rows) -> dict[str, Compared]:
    """Read `comparison.tsv`."""
    table = Table(run.folder / "comparison.tsv", ("rule", "idx", "predict", "radius", "correct"))
    idx, predict, correct = table.wholes("idx"), table.wholes("predict"), table.wholes("correct")
    names, texts, n = table.texts("rule"), table.texts("radius"), len(rows.idx)
    found = {}
    for start in range(0, table.rows, n):
        part, name = slice(start, start + n), names[start]
        radius = [value for value in map(micro, texts[part]) if value is not None]
        if idx[part] != rows.idx or set(names[part]) != {name} or name in found or len(radius) < n:
            raise table.error(start, "does not begin a rule with a radius of six decimals for every image, in order")
        found[name] = Compared(predict[part], radius, correct[part])
    return found


@dataclass(frozen=True, eq=False)
class Compare:
    """Every rule that a run is compared with, from the rows alone.

    Attributes
    ----------
    problems : list of str
    sized : dict of str to pair of lists
        For each way to size regions the radii R that the votes prove, and the levels.
    """

    problems: list[str]
    sized: dict[str, tuple[list[float], list[int]]]


def compare(
    run: Described,
    rows: Rows,
    found: Map,
    certificates: Certificates,
    compared: Mapping[str, Compared],
    placed: Placed,
    made: Sequence[Made] = (),
) -> Compare:
    """Say which rows of `comparison.tsv` are not what the votes prove."""
    k, n = len(run.sigmas), len(rows.idx)
    full = len(rows.everywhere) == k
    two_sided = any(share for one in rows.chosen for share in one.shares)
    problems, sized, wanted = list[str](), {}, set[str]()
    for suffix in ("", ONE_SIDED) if two_sided else ("",):
        levels = _levels(run, rows, found, suffix, full, placed)
        wanted |= {name + suffix for name in levels}
        for name, level in levels.items():
            rule = compared.get(name + suffix)
            if rule is None:
                continue
            alpha = run.alpha / n if name.startswith("class-") else run.alpha
            proofs = [rows.proof(j, at, alpha, len(run.rungs), two_sided=not suffix) for j, at in enumerate(level)]
            ranges = [Range.of(proof, run.sigmas[at]) for proof, at in zip(proofs, level, strict=True)]
            has_regions = not name.startswith("sigma=") and name != "overlapping"
            problems += _rule_problems(rows, name + suffix, rule, level, ranges, has_regions, run.lost)
            if has_regions:
                # floats that are not larger than what was written in decimals
                radii = [math.nextafter(radius / 10**6, 0.0) for radius in rule.radius]
                problems += overlap_problems(rows, found, radii, level, name + suffix)
                if not suffix:
                    sized[name] = [float(one.most) for one in ranges], list(level)
        around = placed.around
        if around is not None and around.routing is not None:
            ends = _router_ends(run, rows, found, around, two_sided=not suffix)
            wanted |= {name + suffix for name in ends}
            for name, ranges in ends.items():
                if (rule := compared.get(name + suffix)) is not None:
                    level = around.promised.level
                    problems += _rule_problems(rows, name + suffix, rule, level, ranges, False, 0.0)
        if around is not None and run.has_regions:
            wanted.add(placed.name + suffix)
            rule = compared.get(placed.name + suffix)
            if rule is not None and suffix:
                problems += _other_map_problems(run, rows, found, around, rule)
    if placed.around is not None and run.has_regions:  # of its radii, `certificates` has spoken
        sized[placed.name] = made[0].bounds.tolist(), rows.level
    main = compared.get(placed.name)
    if main is not None and (main.predict, main.radius) != (certificates.predict, certificates.radius):
        problems.append(f"comparison.tsv: {placed.name} is not what certificates.tsv has")
    if wanted != compared.keys():
        names = ", ".join(sorted(wanted ^ compared.keys()))
        problems.append(f"comparison.tsv: lacks rules, or has others than the settings say: {names}")
    return Compare(problems, sized)


def _router_ends(run: Described, rows: Rows, found: Map, outside: Around, *, two_sided: bool) -> dict[str, list[Range]]:
    """Return what a router proves by itself: where it names one level, and where it names levels that agree."""
    empty, placed = alone(run, found, outside)
    return {
        "router": constancy(run, rows, placed, outside, two_sided=two_sided),
        placed.name: agreement(run, rows, empty, placed, outside, two_sided=two_sided),
    }


def _levels(run: Described, rows: Rows, found: Map, suffix: str, full: bool, placed: Placed) -> dict[str, list[int]]:
    """Return the rules that there are, and the level of each image in each."""
    n = len(rows.idx)
    ranked = [one.one_sided if suffix and full else one.expected for one in rows.chosen]
    level = _one_sided_levels(run, rows, found) if suffix and full else rows.level
    own = [row.index(max(row)) for row in ranked]
    if run.settings.overlap != "joint" and not (suffix and full):
        own = rows.level
    rules = {f"sigma={run.sigmas[at]:g}": [at] * n for at in rows.everywhere}
    beside = placed.around is None or (run.routed and run.has_regions)  # regions, and nothing outside of them
    main = {run.mode: level} if beside else {}
    if any(rows.estimation[j][at] is None for j, at in enumerate(own)):
        return rules | {"overlapping": level} | main
    return rules | {"overlapping": own} | dict.fromkeys(_COMPARED, own) | main


def _one_sided_levels(run: Described, rows: Rows, found: Map) -> list[int]:
    """Return the levels that images take for one-sided certificates."""
    ranked = [one.one_sided for one in rows.chosen]
    return joint(run, found, ranked) if run.settings.overlap == "joint" else [row.index(max(row)) for row in ranked]


def _other_map_problems(run: Described, rows: Rows, found: Map, outside: Around, rule: Compared) -> list[str]:
    """Say where the rule that answers outside is not what one-sided certificates prove, with a map made for them."""
    ranked, level, problems = [one.one_sided for one in outside.chosen], _one_sided_levels(run, rows, found), []
    for made in maps(run, rows, found, outside, ranked, level):
        there = placed_by(run, made.there, outside)
        ends = agreement(run, rows, made.there, there, outside, two_sided=False)
        problems.append(_rule_problems(rows, there.name + ONE_SIDED, rule, there.level, ends, True, run.lost))
    return min(problems, key=len)


def _rule_problems(
    rows: Rows, name: str, rule: Compared, level: Sequence[int], ranges: Sequence[Range], has_regions: bool, lost: float
) -> list[str]:
    problems = []
    for j, (at, proven) in enumerate(zip(level, ranges, strict=True)):
        one, predict, radius = rows.chosen[j].classes[at], rule.predict[j], rule.radius[j]
        if has_regions:
            good = radius <= floored(max(proven.most - lost, mp.mpf(0))) and predict in (one, -1)
            good = good and (predict == one or radius == 0) and (predict == -1 or proven.most > 0)
        else:
            good = proven.holds_floored(radius)
            good = good and predict in ({one} if proven.least > 0 else {-1} if proven.most <= 0 else {one, -1})
        if not good or rule.correct[j] != int(predict == rows.label[j]):
            problems.append(
                f"comparison.tsv: {name}, image {rows.idx[j]}: predict {predict}, radius {radius / 1e6:g}, correct "
                f"{rule.correct[j]}; votes prove {one} within {float(proven.most):.6f}, its label is {rows.label[j]}"
            )
    return problems
