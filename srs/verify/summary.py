"""The numbers of `summary.json`, and the guarantee that it states, against the rows and the settings."""

import math
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, TypeGuard

from srs.verify.arithmetic import mp, student_half_width, tail
from srs.verify.background import Placed
from srs.verify.certificates import Certificates, groups_of
from srs.verify.comparison import ONE_SIDED, Compared
from srs.verify.evidence import Described, Map, Rows
from srs.verify.geometry import size_again

#: With this probability more certificates are wrong than the summary says.
_DELTA = 0.001

#: Numbers that depend on the order of additions, relatively; sums of radii, which depend on rounding of R as well.
_CLOSE, _CLOSE_SUM = 1e-9, 1e-7


def allocation_problems(
    run: Described,
    rows: Rows,
    found: Map,
    certificates: Certificates,
    compared: Mapping[str, Compared],
    sized: Mapping[str, tuple[list[float], list[int]]],
    same_versions: bool,
    placed: Placed,
) -> list[str]:
    """Say where what the summary says of an allocation is not what sizing the regions again gives."""
    stored: Any = run.summary.get("allocations")
    if not isinstance(stored, dict) or stored.keys() != sized.keys():
        return ["summary.json: allocations are not those of comparison.tsv"]
    problems = []
    for name, (R, level) in sized.items():
        overlap, _, how = name.partition("+")[0].partition("-")
        method: dict[str, Any] = {"method": how if how in ("lp", "matching") else "greedy"}
        if method["method"] == "greedy":
            method["order"] = how
        radii = compared[name].radius
        if name == placed.name:
            if certificates.exact and placed.around is None:
                R = certificates.R
            total = math.fsum(found.radii.tolist())
            low = high = total
        else:
            low = sum(radii) / 1e6
            high = low + len(radii) * (1e-6 + run.lost)
        classes = [one.classes[at] if most > 0 else -1 for one, at, most in zip(rows.chosen, level, R, strict=True)]
        bounds = [math.nextafter(max(r - run.lost, 0.0), 0.0) for r in R] if overlap == "class" and run.lost else R
        again = size_again(found.centres, bounds, run.lost, groups_of(overlap, level, classes), method)
        said = stored[name]
        wanted: dict[str, Any] = {"objective": again.objective, "upper_bound": again.upper_bound}
        if isinstance(said, dict):
            problems += differences(wanted, {key: said.get(key) for key in wanted}, f"allocations {name}", _CLOSE_SUM)
            problems += _inside(said, name, low, high, run.old)
        else:
            problems.append(f"summary.json: allocations {name} is no description")
            continue
        if same_versions:
            problems += differences(again.about, {key: said.get(key) for key in again.about}, f"allocations {name}")
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
    if gap != wanted or not _is_number(gap):
        return [f"summary.json: allocations {name}: gap = {gap!s:.40} is not that of sum and bound"]
    return []


def _is_number(value: Any) -> TypeGuard[int | float]:
    """Whether float64 can compute with a value; a JSON file may hold whole numbers that it cannot."""
    return isinstance(value, float) or (type(value) is int and abs(value) <= sys.float_info.max)


def guarantee_of(run: Described, images: int, placed: Placed) -> str:
    """Return the sentence that is true of these settings."""
    alpha = run.settings.alpha
    if placed.around is not None:
        sigma = "the sigma that the router names"
        if placed.around.routing is None:
            sigma = f"sigma = {run.sigmas[placed.around.promised.level[0]]:g}"
        where = " outside every region" if run.has_regions else ""
        return f"each certificate holds with probability at least 1 - {alpha:g}, per image, for G with {sigma}{where}"
    if run.settings.overlap != "class":
        return f"each certificate holds with probability at least 1 - {alpha:g}, per image"
    return (
        f"all certificates hold at once with probability at least 1 - {alpha:g}: each is made at {alpha:g} / {images}, "
        "because regions of one class may overlap and rely on each other"
    )


def summary_problems(
    run: Described, rows: Rows, hashed: str, compared: Mapping[str, Compared], placed: Placed
) -> list[str]:
    """Say which numbers of `summary.json` are not those of the rows; what an earlier version left out is let pass."""
    n, manifest, main = len(rows.idx), run.manifest, placed.name
    if main not in compared:
        return [f"comparison.tsv: lacks the rule of the run, {main}"]
    sure = {name: rule for name, rule in compared.items() if not name.endswith(ONE_SIDED)}
    largest = max((max(rule.radius) for rule in sure.values()), default=0)
    steps = max(9, -(-largest // 250_000))
    epsilon = [step * 0.25 for step in range(steps + 1)]
    clean = "clean_accuracy" if "clean_accuracy" in run.summary else "clean_accuracy_base"  # of earlier versions
    cleaned = zip(rows.clean, placed.level, rows.label, strict=True)
    wanted: dict[str, Any] = {
        "settings": dict(run.config),
        "data": {"name": manifest["data"]["name"], "images": n, "sha256": manifest["data"]["sha256"]},
        "classifier": dict(manifest["classifier"]),
        "device": manifest["device"],
        "seed": manifest["seed"],
        "versions": dict(manifest["versions"]),
        "alpha": run.settings.alpha,
        "simultaneous": run.settings.overlap == "class",
        "guarantee": guarantee_of(run, n, placed),
        "regions": hashed,
        **({} if "denoiser" not in run.manifest else {"denoiser": run.manifest["denoiser"]}),
        **_around(run, placed),
        clean: _share(row[at] == one for row, at, one in cleaned),
        "main": main,
        "abstentions": compared[main].predict.count(-1),
        "average_certified_radius": _mean_radius(compared[main]),
        "epsilon": epsilon,
        "rules": {name: _described(name, rule, compared, main, epsilon) for name, rule in sure.items()},
        "allocations": run.summary.get("allocations"),
        "wrong_at_most": {"certificates": _wrong_at_most(n, run.alpha), "probability": 1 - _DELTA},
        "levels": {f"sigma={run.sigmas[at]:g}": _level(rows, at, compared[f"sigma={run.sigmas[at]:g}"])
                   for at in rows.everywhere if f"sigma={run.sigmas[at]:g}" in compared},
        "seconds": {stage: value / 10**6 for stage, value in rows.stages.items()},
    }  # fmt: skip
    stored = dict(run.summary)
    return differences(_as_far_as(wanted, stored) if run.old else wanted, stored, "")


def _around(run: Described, placed: Placed) -> dict[str, Any]:
    """Return what the summary says of what decides outside every region."""
    outside = placed.around
    if outside is None:
        return {}
    if outside.routing is None:
        return {"outside": run.sigmas[outside.promised.level[0]]}
    said = run.manifest["router"]
    weights = None if said["classifier"] is None else said["classifier"]["weights"]
    router = {"sigma": said["sigma"], "level": said["level"], "weights": weights}
    router["share_of_alpha"] = outside.routing.share
    return {"outside": "router", "router": router}


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
    other = compared.get(name + ONE_SIDED, rule)
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
    found, most = 0, mp.mpf(_DELTA) * (1 + 1e-12)  # a tail of exactly this size is not above it
    while tail(found + 1, n, alpha) > most:
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
        return [
            text for one, other in zip(wanted, stored, strict=True) for text in differences(one, other, place, close)
        ]
    same = type(wanted) is type(stored) and wanted == stored
    if isinstance(wanted, float) and _is_number(stored):
        same = abs(wanted - stored) <= close * max(abs(wanted), 1e-3)
    return [] if same else [f"{where} = {stored!s:.60}, expected {wanted!s:.60}"]
