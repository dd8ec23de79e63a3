"""The certificates, the comparison and the summary of a run, each against its rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

import regions
from srs.verify.arithmetic import Real, mp, student_half_width, tail
from srs.verify.evidence import Described, Map, Rows
from srs.verify.proofs import Proof, best_levels
from srs.verify.rows import Table

_USUAL = ("idx", "label", "predict", "radius", "correct", "time")
_OLD = ("sigma", "R", "r", "p_lower", "region", "counts", "n")
_NEW = (*_OLD, "p_upper", "runner_up", "runner_up_counts", "share")

_ONE_SIDED = ":one-sided"

#: The ways to size regions that every run is compared with.
_COMPARED = ("paper-ascending", "paper-descending", "paper-lp", "sigma-lp", "class-lp")

#: With this probability no more certificates are wrong than the summary says.
_DELTA = Fraction(1, 1000)

#: Numbers of the summary that depend on the order of additions, relatively; sums of radii that depend on R as well.
_CLOSE, _CLOSE_SUM = 1e-9, 1e-7


def micro(text: str) -> int | None:
    """Return a number of six decimals in millionths; None where it is none."""
    if "." not in text or len(text.partition(".")[2]) > 6 or not text.replace(".", "", 1).isdecimal():
        return None
    return int(Decimal(text).scaleb(6))


def floored(value: Real) -> int:
    """Return how many millionths there are in a number >= 0."""
    return int(mp.floor(value * 10**6))


@dataclass(frozen=True)
class Range:
    """Between what the toolkit's margins may leave of a radius, and what the votes prove."""

    least: Real
    most: Real

    @classmethod
    def of(cls, proof: Proof, sigma: float) -> "Range":
        """Return the radii of a proof at a noise level."""
        zero = mp.mpf(0)
        return cls(max(zero, sigma * proof.least), max(zero, sigma * proof.radius))

    def holds(self, value: float) -> bool:
        """Whether a radius with all its digits is one of these."""
        return bool(self.least <= value <= self.most)

    def holds_floored(self, value: int | None) -> bool:
        """Whether a radius in millionths is one of these, rounded down."""
        return value is not None and floored(self.least) <= value <= floored(self.most)


def level_problems(run: Described, rows: Rows, found: Map | None) -> list[str]:
    """Say where `levels.tsv` is not the choice of the rule, from selection votes alone."""
    lacking = [f"selection.tsv: image {rows.idx[j]} {one.lacking}" for j, one in enumerate(rows.chosen) if one.lacking]
    if lacking:
        return lacking
    if run.settings.overlap == "joint":
        if found is None:
            return ["levels.tsv: a joint choice needs the images, which cannot be read"]
        wanted = joint(run, found, [one.expected for one in rows.chosen])
        allowed = [{at} for at in wanted]
    else:
        allowed = [best_levels(one.expected) for one in rows.chosen]
    return [
        f"levels.tsv: image {rows.idx[j]} is at sigma = {run.sigmas[at]:g}, selection votes choose "
        f"{run.sigmas[min(allowed[j])]:g}"
        for j, at in enumerate(rows.level)
        if at not in allowed[j]
    ]


def joint(run: Described, found: Map, expected: Sequence[Sequence[float]]) -> list[int]:
    """Return the levels that are chosen together with the radii, for such a table of radii."""
    return regions.allocate_levels(found.centres, run.sigmas, np.array(expected)).level.tolist()


@dataclass(frozen=True, eq=False)
class Certificates:
    """`certificates.tsv`: what other checks need of it.

    Attributes
    ----------
    predict : list of int
    radius : list of int
        In millionths.
    r, R : list of float
    cut : list of Fraction
        min(R, r), of the numbers as they are written.
    exact : bool
        Whether numbers have all their digits: earlier versions wrote six decimals.
    """

    predict: list[int]
    radius: list[int]
    r: list[float]
    R: list[float]
    cut: list[Fraction]
    exact: bool


def read_certificates(run: Described) -> tuple[Table, Certificates]:
    """Read `certificates.tsv`, of this version or of an earlier one."""
    file = run.folder / "certificates.tsv"
    try:
        table = Table(file, (*_USUAL, *_NEW))
    except ValueError:
        if not run.old:
            raise
        table = Table(file, (*_USUAL, *_OLD))
    radius = []
    for row, text in enumerate(table.texts("radius")):
        value = micro(text)
        if value is None:
            raise table.error(row, f"radius = {text[:40]!r} has no six decimals")
        radius.append(value)
    written = [text for name in ("R", "r", "p_lower") for text in table.texts(name)]
    exact = any(micro(text) is None for text in written)
    r, R = table.numbers("r"), table.numbers("R")
    number = (lambda text: Fraction(float(text))) if exact else Fraction
    cut = [min(map(number, pair)) for pair in zip(table.texts("r"), table.texts("R"), strict=True)]
    found = Certificates(table.wholes("predict"), radius, r, R, cut, exact)
    return table, found


def certificate_problems(run: Described, rows: Rows, table: Table, found: Certificates) -> list[str]:
    """Say which certificates are not what the votes of their rows prove."""
    n, sigmas = len(rows.idx), run.sigmas
    if table.rows != n:
        return [f"certificates.tsv: holds {table.rows} rows of {n} images"]
    alpha = run.alpha / n if run.settings.overlap == "class" else run.alpha
    names = ("idx", "label", "correct", "region", "counts", "n")
    whole = {name: table.wholes(name) for name in names}
    more = not run.old
    if more:
        whole |= {name: table.wholes(name) for name in ("runner_up", "runner_up_counts")}
    number = {name: table.numbers(name) for name in ("sigma", "p_lower", *(("p_upper", "share") if more else ()))}
    times = table.microseconds("time")
    problems = []
    for j, at in enumerate(rows.level):
        cell, chosen = rows.estimation[j][at], rows.chosen[j]
        assert cell is not None  # the table of votes was read for these levels
        one = chosen.classes[at]
        top, proof = cell.top(one), rows.proof(j, at, alpha, len(run.rungs))
        R, r = found.R[j], found.r[j]
        wanted = {
            "idx": rows.idx[j],
            "label": rows.label[j],
            "correct": int(found.predict[j] == rows.label[j]),
            "region": j if r > 0 else -1,
            "counts": top.own,
            "n": cell.sizes[-1],
        }
        wrong = []
        if more:
            wanted |= {"runner_up": top.rival, "runner_up_counts": top.other}
            if number["share"][j] != chosen.shares[at]:
                wrong.append(f"share = {number['share'][j]:g}, selection votes choose {chosen.shares[at]:g}")
            if not _upper_holds(number["p_upper"][j], proof, found.exact):
                wrong.append(f"p_upper = {number['p_upper'][j]:g}, its votes prove {float(proof.upper):.12g}")
        wrong += [f"{name} = {whole[name][j]}, its rows give {value}" for name, value in wanted.items()
                  if whole[name][j] != value]  # fmt: skip
        if number["sigma"][j] != sigmas[at]:
            wrong.append(f"sigma = {number['sigma'][j]:g}, levels.tsv has {sigmas[at]:g}")
        if times[j] is not None and times[j] != rows.microseconds[j]:
            wrong.append("time is not that of its rows")
        if not _lower_holds(number["p_lower"][j], proof, found.exact):
            wrong.append(f"p_lower = {number['p_lower'][j]:g}, its votes prove {float(proof.lower):.12g}")
        proven = Range.of(proof, sigmas[at])
        if not (proven.holds(R) if found.exact else proven.holds_floored(micro(table.texts("R")[j]))):
            wrong.append(f"R = {R:.12g}, its votes prove {float(proven.most):.12g}")
        wrong += _cut_problems(run, found, j, one)
        problems += [f"certificates.tsv: image {rows.idx[j]}: {text}" for text in wrong]
    return problems


def _cut_problems(run: Described, found: Certificates, j: int, one: int) -> list[str]:
    """Say where the radius is not min(R, r), less what a lookup may be off, or the class not the one voted for."""
    inside = max(found.cut[j] - Fraction(run.lost), Fraction(0))
    nearly = max(inside - (Fraction(2) ** -50 if run.lost else 0), Fraction(0))  # floats round the difference down
    wrong, radius, predict = [], found.radius[j], found.predict[j]
    if not int(nearly * 10**6) <= radius <= int(inside * 10**6):
        wrong.append(f"radius = {radius / 1e6:g} is not min(R, r) = {float(inside):.12g} rounded down")
    if found.exact:
        allowed = {one} if nearly > 0 else {-1} if inside <= 0 else {one, -1}
    else:  # a tiny radius may have been written as 0
        allowed = {one} if radius else {one, -1}
    if predict not in allowed or (predict == -1 and radius):
        wrong.append(f"predict = {predict} with radius {radius / 1e6:g}, its votes are for {one}")
    if found.r[j] > found.R[j]:
        wrong.append(f"r = {found.r[j]:g} exceeds R = {found.R[j]:g}")
    return wrong


def _lower_holds(value: float, proof: Proof, exact: bool) -> bool:
    least = proof.lower * (1 - proof.slack)
    if exact:
        return bool(least <= value <= proof.lower)
    return floored(least) <= round(value * 1e6) <= floored(proof.lower)


def _upper_holds(value: float, proof: Proof, exact: bool) -> bool:
    most = min(proof.upper + proof.slack, mp.mpf(1))
    if exact:
        return bool(proof.upper <= value <= most)
    return int(mp.ceil(proof.upper * 10**6)) <= round(value * 1e6) <= int(mp.ceil(most * 10**6))


def map_problems(run: Described, rows: Rows, certificates: Certificates, found: Map) -> list[str]:
    """Say where `regions.npz` is not what `certificates.tsv` and `summary.json` say."""
    problems, hashed = [], found.content_hash
    if found.stored_hash != hashed:
        problems.append("regions.npz: was changed after it was written: its content has another hash than it says")
    if run.summary.get("regions", None if run.old else "") not in (hashed, None):
        problems.append("regions.npz: is not the map whose hash summary.json has")
    columns = {
        "sigma": (found.sigma.tolist(), [run.sigmas[at] for at in rows.level]),
        "classes": (found.classes.tolist(), certificates.predict),
        "radii": (found.radii.tolist(), certificates.r),
    }
    if not certificates.exact:
        columns["radii"] = ([floored(mp.mpf(r)) for r in found.radii.tolist()],
                            [round(r * 1e6) for r in certificates.r])  # fmt: skip
    for name, (ours, theirs) in columns.items():
        for j in [j for j in range(len(rows.idx)) if ours[j] != theirs[j]]:
            problems.append(
                f"regions.npz: image {rows.idx[j]} has {name} {ours[j]:g}, certificates.tsv and levels.tsv {theirs[j]:g}"
            )
    return problems


def groups_of(overlap: str, level: Sequence[int], classes: Sequence[int]) -> list[list[int]] | None:
    """Return labels of images, pairs that share one of which may overlap in this mode."""
    if overlap == "paper":
        return None
    return [list(level)] if overlap in ("sigma", "joint") else [list(level), list(classes)]


def overlap_problems(
    rows: Rows, found: Map, radii: Sequence[float], level: Sequence[int], mode: str
) -> list[str]:
    """Say where regions overlap that must not, by the exact search of `regions.verify`."""
    classes = [one.classes[at] for one, at in zip(rows.chosen, level, strict=True)]
    verified = regions.verify(found.centres, np.array(radii), groups=groups_of(mode.partition("-")[0], level, classes))
    if verified:
        return []
    i, j = verified.overlapping[0].tolist()
    count = len(verified.overlapping)
    return [f"{mode}: regions of images {rows.idx[i]} and {rows.idx[j]} overlap ({count} such pairs)"]


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
    run: Described, rows: Rows, found: Map, certificates: Certificates, compared: Mapping[str, Compared]
) -> Compare:
    """Say which rows of `comparison.tsv` are not what the votes prove."""
    k, n = len(run.sigmas), len(rows.idx)
    full = len(rows.everywhere) == k
    two_sided = any(share for one in rows.chosen for share in one.shares)
    problems, sized, wanted = list[str](), {}, set[str]()
    for suffix in ("", _ONE_SIDED) if two_sided else ("",):
        levels = _levels(run, rows, found, suffix, full)
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
    main = compared.get(run.mode)
    if main is not None and (main.predict, main.radius) != (certificates.predict, certificates.radius):
        problems.append(f"comparison.tsv: {run.mode} is not what certificates.tsv has")
    if wanted != compared.keys():
        names = ", ".join(sorted(wanted ^ compared.keys()))
        problems.append(f"comparison.tsv: lacks rules, or has others than the settings say: {names}")
    return Compare(problems, sized)


def _levels(run: Described, rows: Rows, found: Map, suffix: str, full: bool) -> dict[str, list[int]]:
    """Return the rules that there are, and the level of each image in each."""
    n, main = len(rows.idx), run.mode
    ranked = [one.one_sided if suffix and full else one.expected for one in rows.chosen]
    level = rows.level
    if suffix and full:
        level = joint(run, found, ranked) if run.settings.overlap == "joint" else [row.index(max(row)) for row in ranked]
    own = [row.index(max(row)) for row in ranked]
    if run.settings.overlap != "joint" and not (suffix and full):
        own = rows.level
    rules = {f"sigma={run.sigmas[at]:g}": [at] * n for at in rows.everywhere}
    if any(rows.estimation[j][at] is None for j, at in enumerate(own)):
        return rules | {"overlapping": level, main: level}
    return rules | {"overlapping": own} | dict.fromkeys(_COMPARED, own) | {main: level}


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
                f"{rule.correct[j]}; its votes prove {one} within {float(proven.most):.6f}, its label is {rows.label[j]}"
            )
    return problems


def allocation_problems(
    run: Described,
    rows: Rows,
    found: Map,
    certificates: Certificates,
    compared: Mapping[str, Compared],
    sized: Mapping[str, tuple[list[float], list[int]]],
    same_versions: bool,
) -> list[str]:
    """Say where what the summary says of an allocation is not what sizing the regions again gives."""
    stored: Any = run.summary.get("allocations")
    if not isinstance(stored, dict) or stored.keys() != sized.keys():
        return ["summary.json: allocations are not those of comparison.tsv"]
    problems = []
    for name, (R, level) in sized.items():
        overlap, _, how = name.partition("-")
        method = {"method": how} if how in ("lp", "matching") else {"method": "greedy", "order": how}
        radii = compared[name].radius
        if name == run.mode:
            if certificates.exact:
                R = certificates.R
            total = math.fsum(found.radii.tolist())
            low = high = total
        else:
            low = sum(radii) / 1e6
            high = low + len(radii) * (1e-6 + run.lost)
        classes = [one.classes[at] if most > 0 else -1 for one, at, most in zip(rows.chosen, level, R, strict=True)]
        again = regions.allocate(found.centres, np.array(R), groups=groups_of(overlap, level, classes), **method)
        said = stored[name]
        wanted: dict[str, Any] = {"objective": again.objective, "upper_bound": again.upper_bound}
        if isinstance(said, dict):
            problems += differences(wanted, {key: said.get(key) for key in wanted}, f"allocations {name}", _CLOSE_SUM)
            problems += _inside(said, name, low, high, run.old)
        else:
            problems.append(f"summary.json: allocations {name} is no description")
            continue
        if same_versions:
            stats = {key: value for key, value in again.stats.items() if not key.startswith("seconds")}
            also = {"method": again.method, "status": again.status, "edges": len(again.graph.i), "stats": stats}
            problems += differences(also, {key: said.get(key) for key in also}, f"allocations {name}")
    return problems


def _inside(said: Mapping[str, Any], name: str, low: float, high: float, old: bool) -> list[str]:
    """Say where the sum of radii is not that of the rows, and the gap not that of sum and bound."""
    objective, bound, gap = said.get("objective"), said.get("upper_bound"), said.get("gap")
    if not _is_number(objective) or not low * (1 - _CLOSE) <= objective <= high * (1 + _CLOSE):
        return [f"summary.json: allocations {name}: objective = {objective!s:.40} is not the sum of its radii"]
    if bound is None:
        return [] if gap is None else [f"summary.json: allocations {name}: has a gap to no bound"]
    if not _is_number(bound) or bound < objective:
        return [f"summary.json: allocations {name}: upper_bound = {bound!s:.40} is below the sum of radii"]
    wanted = (bound - objective) / bound if bound > objective else 0.0
    if not _is_number(gap) or abs(gap - wanted) > 1e-15:
        return [f"summary.json: allocations {name}: gap = {gap!s:.40} is not that of sum and bound"]
    return []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def guarantee_of(run: Described, images: int) -> str:
    """Return the sentence that is true of these settings."""
    alpha = run.settings.alpha
    if run.settings.overlap != "class":
        return f"each certificate holds with probability at least 1 - {alpha:g}, per image"
    return (
        f"all certificates hold at once with probability at least 1 - {alpha:g}: each is made at {alpha:g} / {images}, "
        "because regions of one class may overlap and rely on each other"
    )


def summary_problems(run: Described, rows: Rows, hashed: str, compared: Mapping[str, Compared]) -> list[str]:
    """Say which numbers of `summary.json` are not those of the rows; what an earlier version left out is let pass."""
    n, manifest, main = len(rows.idx), run.manifest, run.mode
    if main not in compared:
        return [f"comparison.tsv: lacks the rule of the run, {main}"]
    sure = {name: rule for name, rule in compared.items() if not name.endswith(_ONE_SIDED)}
    largest = max((max(rule.radius) for rule in sure.values()), default=0)
    steps = max(9, -(-largest // 250_000))
    epsilon = [step * 0.25 for step in range(steps + 1)]
    wanted: dict[str, Any] = {
        "settings": dict(run.config),
        "data": {"name": manifest["data"]["name"], "images": n, "sha256": manifest["data"]["sha256"]},
        "classifier": dict(manifest["classifier"]),
        "device": manifest["device"],
        "seed": manifest["seed"],
        "versions": dict(manifest["versions"]),
        "alpha": run.settings.alpha,
        "simultaneous": run.settings.overlap == "class",
        "guarantee": guarantee_of(run, n),
        "regions": hashed,
        "clean_accuracy": _share(row[at] == one for row, at, one in zip(rows.clean, rows.level, rows.label, strict=True)),
        "main": main,
        "abstentions": compared[main].predict.count(-1),
        "average_certified_radius": _mean_radius(compared[main]),
        "epsilon": epsilon,
        "rules": {name: _described(name, rule, compared, main, epsilon) for name, rule in sure.items()},
        "allocations": run.summary.get("allocations"),
        "wrong_at_most": {"certificates": _wrong_at_most(n, run.alpha), "probability": 1 - 0.001},
        "levels": {f"sigma={run.sigmas[at]:g}": _level(rows, at, compared[f"sigma={run.sigmas[at]:g}"])
                   for at in rows.everywhere if f"sigma={run.sigmas[at]:g}" in compared},
        "seconds": {stage: value / 10**6 for stage, value in rows.stages.items()},
    }  # fmt: skip
    stored = dict(run.summary)
    return differences(_as_far_as(wanted, stored) if run.old else wanted, stored, "")


def _described(
    name: str, rule: Compared, compared: Mapping[str, Compared], main: str, epsilon: Sequence[float]
) -> dict[str, Any]:
    found: dict[str, Any] = {"sound": name != "overlapping", "abstentions": rule.predict.count(-1)}
    mean = _mean_radius(rule)
    found["average_certified_radius"] = mean
    found["average_certified_radius_interval"] = _interval(rule.certified)[1:]
    if name != main:
        pairs = zip(rule.certified, compared[main].certified, strict=True)
        found["above_main"] = _interval([one - other for one, other in pairs])
    found["certified_accuracy"] = _accuracy(rule, epsilon)
    other = compared.get(name + _ONE_SIDED, rule)
    found["abstentions_one_sided"] = other.predict.count(-1)
    found["average_certified_radius_one_sided"] = _mean_radius(other)
    found["certified_accuracy_one_sided"] = _accuracy(other, epsilon)
    return found


def _mean_radius(rule: Compared) -> float:
    total = sum(radius * one for radius, one in zip(rule.radius, rule.correct, strict=True))
    return float(Fraction(total, 10**6 * len(rule.radius)))


def _interval(values: list[float]) -> list[float | None]:
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return [mean, None, None]
    half = student_half_width(values)
    return [mean, mean - half, mean + half]


def _accuracy(rule: Compared, epsilon: Sequence[float]) -> list[float]:
    pairs = list(zip(rule.radius, rule.correct, strict=True))
    return [_share(one == 1 and radius > eps * 10**6 for radius, one in pairs) for eps in epsilon]


def _share(values: Any) -> float:
    kept = list(values)
    return sum(map(bool, kept)) / len(kept)


def _level(rows: Rows, at: int, rule: Compared) -> dict[str, float]:
    shares = []
    for cells, chosen in zip(rows.estimation, rows.chosen, strict=True):
        cell = cells[at]
        assert cell is not None  # every image was certified here
        shares.append(cell.top(chosen.classes[at]).own / cell.sizes[-1])
    shares.sort()
    n = len(shares)
    pairs = list(zip(rule.predict, rows.label, strict=True))
    return {
        "clean": _share(row[at] == one for row, one in zip(rows.clean, rows.label, strict=True)),
        "certified": _share(predict == one for predict, one in pairs),
        "wrong": _share(predict not in (one, -1) for predict, one in pairs),
        "abstained": _share(predict == -1 for predict, _ in pairs),
        "p_median": (shares[(n - 1) // 2] + shares[n // 2]) / 2,
    }


def _wrong_at_most(n: int, alpha: Fraction) -> int:
    found = 0
    while tail(found + 1, n, alpha) > mp.mpf(_DELTA.numerator) / _DELTA.denominator:
        found += 1
    return found


def _as_far_as(wanted: Any, stored: Any) -> Any:
    if not isinstance(wanted, dict) or not isinstance(stored, dict):
        return wanted
    return {name: _as_far_as(value, stored[name]) for name, value in wanted.items() if name in stored}


def differences(wanted: Any, stored: Any, place: str, close: float = _CLOSE) -> list[str]:
    """Say where stored values are not the wanted ones, numbers within rounding."""
    where = f"summary.json: {place or 'it'}"
    if isinstance(wanted, Mapping):
        if not isinstance(stored, Mapping) or wanted.keys() != stored.keys():
            other = sorted(map(str, set(wanted) ^ set(stored))) if isinstance(stored, Mapping) else ["another kind"]
            return [f"{where} lacks or has besides: {', '.join(other)[:80]}"]
        return [text for name, value in wanted.items() for text in
                differences(value, stored[name], f"{place} {name}".strip(), close)]  # fmt: skip
    if isinstance(wanted, list):
        if not isinstance(stored, list) or len(stored) != len(wanted):
            return [f"{where} is no list of {len(wanted)}"]
        return [text for one, other in zip(wanted, stored, strict=True) for text in differences(one, other, place, close)]
    same = type(wanted) is type(stored) and wanted == stored
    if isinstance(wanted, float) and _is_number(stored):
        same = abs(wanted - stored) <= close * max(abs(wanted), 1e-3)
    return [] if same else [f"{where} = {stored!s:.60}, expected {wanted!s:.60}"]
