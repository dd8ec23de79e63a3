"""The certificates, levels and regions of a run, against the votes of its rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import numpy as np

from srs.verify.arithmetic import Real, mp, normal_quantile
from srs.verify.background import Around, Made, Placed, agreed
from srs.verify.evidence import Described, Map, Rows
from srs.verify.geometry import joint_levels, overlapping
from srs.verify.proofs import Proof, best_levels
from srs.verify.rows import Table

_USUAL = ("idx", "label", "predict", "radius", "correct", "time")
_OLD = ("sigma", "R", "r", "p_lower", "region", "counts", "n")
_NEW = (*_OLD, "p_upper", "runner_up", "runner_up_counts", "share")

#: Radii of a map that is made again are equal within this, relatively.
_CLOSE = 1e-9


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
    return joint_levels(found.centres, run.sigmas, expected)


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


def certificate_problems(
    run: Described, rows: Rows, table: Table, found: Certificates, there: Map, placed: Placed
) -> list[str]:
    """Say which certificates are not what the votes of their rows prove."""
    n, sigmas = len(rows.idx), run.sigmas
    if table.rows != n:
        return [f"certificates.tsv: holds {table.rows} rows of {n} images"]
    alpha = placed.alpha
    names = ("idx", "label", "correct", "region", "counts", "n")
    whole = {name: table.wholes(name) for name in names}
    more = not run.old
    if more:
        whole |= {name: table.wholes(name) for name in ("runner_up", "runner_up_counts")}
    number = {name: table.numbers(name) for name in ("sigma", "p_lower", *(("p_upper", "share") if more else ()))}
    times = table.microseconds("time")
    ends = None if placed.around is None else agreement(run, rows, there, placed, placed.around, two_sided=True)
    problems = []
    for j, at in enumerate(placed.level):
        cell, chosen = rows.estimation[j][at], rows.chosen[j]
        assert cell is not None  # the table of votes was read for these levels
        one = chosen.classes[at]
        top, proof = cell.top(one), rows.proof(j, at, alpha, len(run.rungs))
        R, r = found.R[j], found.r[j]
        wanted = {
            "idx": rows.idx[j],
            "label": rows.label[j],
            "correct": int(found.predict[j] == rows.label[j]),
            "region": j if (r if ends is None else there.radii[j]) > 0 else -1,
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
            source = "levels.tsv has" if ends is None else "regions.npz and what decides outside give"
            wrong.append(f"sigma = {number['sigma'][j]:g}, {source} {sigmas[at]:g}")
        if times[j] is not None and times[j] != rows.microseconds[j]:
            wrong.append("time is not that of its rows")
        if not _lower_holds(number["p_lower"][j], proof, found.exact):
            wrong.append(f"p_lower = {number['p_lower'][j]:g}, its votes prove {float(proof.lower):.12g}")
        proven = Range.of(proof, sigmas[at])
        if not (proven.holds(R) if found.exact else proven.holds_floored(micro(table.texts("R")[j]))):
            wrong.append(f"R = {R:.12g}, its votes prove {float(proven.most):.12g}")
        elif found.exact and more and not _made_of(R, sigmas[at], number["p_lower"][j], number["p_upper"][j]):
            wrong.append(f"R = {R!r} is not that of Eq. 2 for its p_lower and p_upper")
        if ends is not None and not ends[j].holds(r):
            wrong.append(f"r = {r:.12g}, levels agree up to {float(ends[j].most):.12g}")
        wrong += _cut_problems(placed.lost, found, j, one, simultaneous=run.settings.overlap == "class")
        problems += [f"certificates.tsv: image {rows.idx[j]}: {text}" for text in wrong]
    return problems


def agreement(
    run: Described, rows: Rows, there: Map, placed: Placed, outside: Around, *, two_sided: bool
) -> list[Range]:
    """Return between which radii the levels agree around each image."""
    n, k = len(rows.idx), len(run.sigmas)
    classes = [one.classes for one in rows.chosen]
    proven = [
        [
            Range.of(rows.proof(j, at, placed.alpha, len(run.rungs), two_sided=two_sided), run.sigmas[at])
            if classes[j][at] == classes[j][placed.level[j]]
            else Range(mp.mpf(0), mp.mpf(0))
            for at in range(k)
        ]
        for j in range(n)
    ]
    least, most = (
        agreed(run, there, placed, named, classes, [[getattr(one, name) for one in row] for row in proven])
        for name, named in (("least", outside.least), ("most", outside.most))
    )
    return [Range(low, high) for low, high in zip(least, most, strict=True)]


def constancy(run: Described, rows: Rows, placed: Placed, outside: Around, *, two_sided: bool) -> list[Range]:
    """Return between which radii a router names one level and that certifies the class: min(R_S, R_c)."""
    found = []
    for j, at in enumerate(placed.level):
        proof = rows.proof(j, at, placed.alpha, len(run.rungs), two_sided=two_sided)
        R, others = Range.of(proof, run.sigmas[at]), [k for k in range(len(run.sigmas)) if k != at]
        least, most = (
            min([end, *(named.clearance[j][k] for k in others)])
            for end, named in ((R.least, outside.least), (R.most, outside.most))
        )
        found.append(Range(least, most))
    return found


def _cut_problems(lost: float, found: Certificates, j: int, one: int, *, simultaneous: bool) -> list[str]:
    """Say where the radius is not min(R, r), less what a lookup may be off, or the class not the one voted for."""
    inside = max(found.cut[j] - Fraction(lost), Fraction(0))
    nearly = max(inside - (Fraction(2) ** -50 if lost else 0), Fraction(0))  # floats round the difference down
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
    elif simultaneous and found.exact and found.r[j] and Fraction(found.r[j]) + Fraction(lost) > Fraction(found.R[j]):
        wrong.append(f"r = {found.r[j]!r} exceeds R = {found.R[j]!r} less {lost:.2g}: others rely on this region")
    return wrong


def _made_of(R: float, sigma: float, lower: float, upper: float) -> bool:
    """Whether a radius is that of two bounds, quantiles moved by 2^-36 of their size, up to roundings of float64."""
    z, w = normal_quantile(mp.mpf(lower)), normal_quantile(mp.mpf(upper))
    if not (mp.isfinite(z) and mp.isfinite(w)):
        return R == 0
    margin, size = mp.mpf(2) ** -36, abs(z) + abs(w)
    wanted = max(sigma * (z - w - margin * size) / 2, mp.mpf(0))
    return bool(abs(R - wanted) <= sigma * size * mp.mpf(2) ** -45)


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


def map_problems(
    run: Described, rows: Rows, certificates: Certificates, found: Map, placed: Placed, made: Sequence[Made] = ()
) -> list[str]:
    """Say where `regions.npz` is not what `certificates.tsv` and `summary.json` say."""
    problems, hashed = [], found.content_hash
    if found.stored_hash != hashed:
        problems.append("regions.npz: was changed after it was written: its content has another hash than it says")
    if run.summary.get("regions", None if run.old else "") not in (hashed, None):
        problems.append("regions.npz: is not the map whose hash summary.json has")
    radii = found.radii.tolist(), certificates.r
    if placed.around is not None:  # the column r says up to where levels agree, and the map follows from selection
        maps = [one.there.radii for one in made] or [found.radii]
        near = min(maps, key=lambda one: float(np.abs(one - found.radii).max()))
        radii = found.radii.tolist(), np.where(_close(near, found.radii), found.radii, near).tolist()
    if not certificates.exact:
        radii = [floored(mp.mpf(r)) / 1e6 for r in radii[0]], [round(r * 1e6) / 1e6 for r in radii[1]]
    columns: tuple[tuple[str, Sequence[float], Sequence[float]], ...] = (
        ("sigma", found.sigma.tolist(), [run.sigmas[at] for at in placed.level]),
        ("classes", found.classes.tolist(), certificates.predict),
        ("radii", *radii),
    )
    for name, ours, theirs in columns:
        for j in [j for j in range(len(rows.idx)) if ours[j] != theirs[j]]:
            source = "selection votes make" if name == "radii" and made else "certificates.tsv and levels.tsv"
            said = f"{source} {theirs[j]:g}"
            problems.append(f"regions.npz: image {rows.idx[j]} has {name} {ours[j]:g}, {said}")
    return problems


def _close(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return which radii are equal but for rounding."""
    return np.asarray(np.abs(one - other) <= _CLOSE * np.maximum(one, other))


def groups_of(overlap: str, level: Sequence[int], classes: Sequence[int]) -> list[list[int]] | None:
    """Return labels of images, pairs that share one of which may overlap in this mode."""
    if overlap == "paper":
        return None
    return [list(level)] if overlap in ("sigma", "joint") else [list(level), list(classes)]


def overlap_problems(rows: Rows, found: Map, radii: Sequence[float], level: Sequence[int], mode: str) -> list[str]:
    """Say where regions overlap that must not, by an exact search."""
    classes = [one.classes[at] for one, at in zip(rows.chosen, level, strict=True)]
    groups = groups_of(mode.partition("-")[0], level, classes)
    pair = overlapping(found.centres, radii, groups)
    if pair is None:
        return []
    i, j, count = pair
    how_many = "" if count is None else f" ({count} such pairs)"
    return [f"{mode}: regions of images {rows.idx[i]} and {rows.idx[j]} overlap{how_many}"]
