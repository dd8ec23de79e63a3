"""What a router names around each image, what its votes prove, and its part of alpha, in arithmetic of its own."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from srs.verify.arithmetic import Real, mp
from srs.verify.evidence import Described, Rows, rule_of
from srs.verify.proofs import Chosen, Proof, choose, proof

#: What part of alpha a router with a network may get: selection votes choose among them.
_SHARES = (0.1, 0.25, 0.5)

#: Sums of promised radii that float64 and its margins may put in either order, relatively.
_EQUAL = 1e-7

#: What base classifier and router have in common.
_COMMON = ("precision", "sampler", "stream")


@dataclass(frozen=True, eq=False)
class Outside:
    """What decides outside every region.

    Attributes
    ----------
    name : str
        What files call it: a noise level, or "router".
    level : list of int
        The level that is named at each image.
    clearance : list of lists
        For each image and level a distance within which that level is not named; 0 for the one at the image.
    """

    name: str
    level: list[int]
    clearance: list[list[Real]]

    @classmethod
    def constant(cls, name: str, level: int, images: int, levels: int) -> "Outside":
        """Return one level for every input."""
        row = [mp.mpf(0) if k == level else mp.inf for k in range(levels)]
        return cls(name, [level] * images, [row] * images)

    def promised(self, chosen: Sequence[Chosen], radius: Sequence[Sequence[float]]) -> list[float]:
        """Return up to where no level is named that does not agree, by such radii at all levels."""
        found = []
        for one, row, at, away in zip(chosen, radius, self.level, self.clearance, strict=True):
            agree = [radius if same == one.classes[at] else 0.0 for radius, same in zip(row, one.classes, strict=True)]
            ends = [max(away[k], mp.mpf(agree[k])) for k in range(len(row)) if k != at]
            found.append(float(min([mp.mpf(row[at]), *ends])))
        return found


@dataclass(frozen=True, eq=False)
class Routing:
    """What a router names, and its part of alpha.

    Attributes
    ----------
    share : float
        The router's part of alpha that `summary.json` names, where selection votes may choose it; else their choice.
    allowed : tuple of float
        What selection votes may choose: one part, but for sums that rounding may swap.
    alpha : Fraction
        The rest, which is the classifier's.
    chosen : list of Chosen
        What selection votes say of each image where the classifier has that part.
    promised, least, most : Outside
        By selection votes; by estimation votes, with what the toolkit's margins may leave, and what the votes prove.
    """

    share: float
    allowed: tuple[float, ...]
    alpha: Fraction
    chosen: list[Chosen]
    promised: Outside
    least: Outside
    most: Outside


def route(run: Described, rows: Rows) -> Routing:
    """Return what the run's router names; `ValueError` where the run has none."""
    said: Mapping[str, Any] | None = run.manifest.get("router")
    if said is None:
        raise ValueError("config.yaml: a router decides, and manifest.json has none")
    n, k = len(rows.idx), len(run.sigmas)
    if rows.routes is None:
        outside = Outside.constant("router", run.sigmas.index(said["level"]), n, k)
        return Routing(0.0, (0.0,), run.alpha, rows.chosen, outside, outside, outside)
    sigma, level = said["sigma"], [cell.winner() for cell in rows.routes.selection]
    imagined = [_imagined(cell.votes[0], cell.sizes[0], run.settings.n, k) for cell in rows.routes.selection]
    found = {}
    for share in _SHARES:
        alpha, routers = _parts(run.alpha, share)
        rule = replace(rule_of(run), alpha=alpha)
        chosen = [choose(cells, run.sigmas, rule) for cells in rows.selection]
        found[share] = alpha, chosen, _named(level, _proofs(imagined, level, routers), sigma)
    sums = {
        share: math.fsum(promised.promised(chosen, [one.expected for one in chosen]))
        for share, (_, chosen, promised) in found.items()
    }
    best = max(sums.values())
    allowed = tuple(share for share, value in sums.items() if value == best or value > best * (1 - _EQUAL))
    share = stated if (stated := _stated(run)) in allowed else max(sums, key=lambda one: sums[one])
    alpha, chosen, promised = found[share]
    votes = [_counts(cell.votes[0], k) for cell in rows.routes.estimation]
    proofs = _proofs(votes, level, _parts(run.alpha, share)[1])
    least, most = _named(level, proofs, sigma, least=True), _named(level, proofs, sigma)
    return Routing(share, allowed, alpha, chosen, promised, least, most)


def _stated(run: Described) -> float:
    """Return the router's part of alpha that the summary names; NaN where it names none."""
    stated = run.summary.get("router")
    share = stated.get("share_of_alpha") if isinstance(stated, dict) else None
    return share if isinstance(share, float) else math.nan


def _parts(alpha: Fraction, share: float) -> tuple[Fraction, Fraction]:
    """Return the classifier's part of alpha, and the router's."""
    return alpha - alpha * Fraction(share), alpha * Fraction(share)


def _counts(votes: Mapping[int, int], k: int) -> list[int]:
    return [votes.get(at, 0) for at in range(k)]


def _imagined(votes: Mapping[int, int], drawn: int, n: int, k: int) -> list[int]:
    """Return about n votes that fall as these did, half a vote added to each level."""
    return [math.ceil((count + 0.5) / (drawn + 1) * n) for count in _counts(votes, k)]


def _proofs(votes: Sequence[Sequence[int]], level: Sequence[int], alpha: Fraction) -> list[list[Proof | None]]:
    """Return what each image's votes prove of its level against each other one; None for the level itself.

    With two levels the other has all that this one has not, and needs no bound of its own.
    """
    share = 0.0 if len(votes[0]) == 2 else 0.5
    return [
        [None if k == at else proof(row[at], count, sum(row), alpha, share) for k, count in enumerate(row)]
        for row, at in zip(votes, level, strict=True)
    ]


def _named(level: list[int], proofs: Sequence[Sequence[Proof | None]], sigma: float, *, least: bool = False) -> Outside:
    zero = mp.mpf(0)
    clearance = [
        [zero if one is None else max(zero, sigma * (one.least if least else one.radius)) for one in row]
        for row in proofs
    ]
    return Outside("router", level, clearance)


def routing_problems(run: Described, rows: Rows, routing: Routing) -> list[str]:
    """Say where manifest and summary are not what the settings and selection votes say of the router."""
    said, problems = run.manifest["router"], []
    if (stated := _stated(run)) not in routing.allowed:
        wanted = f"selection votes choose {routing.share:g}" if rows.routes else "a constant level needs none"
        problems.append(f"summary.json: the router's part of alpha is {stated:g}, {wanted}")
    if (network := said["classifier"]) is None:
        return problems
    seed = int.from_bytes(hashlib.sha256(f"router {run.manifest['seed']}".encode()).digest()[:16], "big")
    base = run.manifest["classifier"]
    expected = {"num_classes": len(run.sigmas), "seed": seed, **{name: base.get(name) for name in _COMMON}}
    problems += [
        f"manifest.json: the router's {name} is {network.get(name)!s:.40}, expected {value}"
        for name, value in expected.items()
        if network.get(name) != value
    ]
    return problems
