"""Ways to size regions: which pairs conflict, and how the radii are found."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

#: Labels of the points, pairs that share one of which may overlap, from each image's level and certified class.
GROUPS: Mapping[str, Callable[[np.ndarray, np.ndarray], list[np.ndarray] | None]] = {
    "paper": lambda level, predict: None,
    # Regions of one sigma may overlap: sigma is constant on their union, which is all that the theorem asks.
    "sigma": lambda level, predict: [level],
    "joint": lambda level, predict: [level],
    # Regions certified for one class as well: either sigma returns it. Needs all certificates to hold at once.
    "class": lambda level, predict: [level, predict],
}

_OVERLAPS = {
    "paper": "sample-wise",
    "sigma": "one sigma may overlap",
    "joint": "sigma chosen jointly",
    "class": "one sigma or class may overlap",
}
_METHODS = {"lp": "LP", "matching": "matching"}

#: Orders of the greedy method (Eq. 11).
ORDERS = ("ascending", "descending", "arrival")


@dataclass(frozen=True)
class Mode:
    """An overlap mode and a method.

    Attributes
    ----------
    overlap : {"paper", "sigma", "joint", "class", "router"}
        Which pairs conflict. "router": there are no regions.
    how : str
        "lp", "matching", or the order of greedy; "agreeing" where there are no regions.
    outside : float, "auto" or "router", optional
        The noise level outside every region; "auto": the one that promises most, by selection samples; "router": the
        one that a router names. None: nothing is answered there.
    """

    overlap: str
    how: str
    outside: float | Literal["auto", "router"] | None = None

    @classmethod
    def of(cls, overlap: str, method: str, order: str | None, outside: str = "abstain") -> "Mode":
        """Return the mode that settings name; `outside` is "abstain", "auto", "router", or "sigma=" and a level."""
        how = method if method != "greedy" else order or "ascending"
        if outside == "router":
            return cls(overlap, how, "router")
        if outside == "auto":
            return cls(overlap, how, "auto")
        return cls(overlap, how, None if outside == "abstain" else float(outside.removeprefix("sigma=")))

    @property
    def name(self) -> str:
        """What files call it."""
        beside = "" if self.outside is None or not self.has_regions else f"+{self.outside}"
        return f"{self.overlap}-{self.how}{beside}"

    @property
    def has_regions(self) -> bool:
        """Whether images get regions."""
        return self.overlap != ROUTED.overlap

    @property
    def inside(self) -> "Mode":
        """The same, with nothing answered outside."""
        return replace(self, outside=None)

    def check_outside(self, sigmas: Sequence[float]) -> None:
        """Raise `ValueError` where the level outside every region is none of these."""
        if self.outside not in (None, "auto", "router", *sigmas):
            there = " ".join(f"{sigma:g}" for sigma in sigmas)
            given = f"--outside sigma={self.outside}"
            raise ValueError(f"{given}: certificates are made at the levels {there}; take one of them")

    @property
    def simultaneous(self) -> bool:
        """Whether one certificate relies on its neighbours', so that all must hold at once."""
        return simultaneous(self.name)

    def share(self, alpha: float, images: int) -> float:
        """Return the failure probability that each of so many images gets."""
        from smoothing.confidence import shared_alpha  # PyTorch takes seconds to import, and the help needs modes

        return shared_alpha(alpha, images) if self.simultaneous else alpha

    @property
    def method(self) -> dict[str, Any]:
        """The arguments of `regions.allocate` that say how."""
        return {"method": "greedy", "order": self.how} if self.how in ORDERS else {"method": self.how}

    def groups(self, level: Int64[np.ndarray, " n"], predict: Int64[np.ndarray, " n"]) -> list[np.ndarray] | None:
        """Return the groups of `regions.allocate` for images certified for these classes at these levels."""
        return GROUPS[self.overlap](level, predict)


#: No regions: a router names the level of every input.
ROUTED = Mode("router", "agreeing", "router")

ROUTER = "router"
"""The rule min(R_S, R_c): a router's certificate where its level may not change at all."""

#: What every run is compared with.
COMPARED = (
    Mode("paper", "ascending"),
    Mode("paper", "descending"),
    Mode("paper", "lp"),
    Mode("sigma", "lp"),
    Mode("class", "lp"),
)

OVERLAPPING = "overlapping"
"""The rule r = R. Overlapping regions prove nothing: they bound what an allocation can reach."""


def simultaneous(rule: str) -> bool:
    """Whether certificates of a rule of this name rely on each other's; see `Mode.simultaneous`."""
    return rule.partition("-")[0] == "class"


def short_title(rule: str) -> str:
    """Return how a rule is named where there is little room: overlap modes as `--overlap` does."""
    if rule in (OVERLAPPING, ROUTER, ROUTED.name) or rule.startswith("sigma=") or "+" in rule:
        return title(rule)
    overlap, _, how = rule.partition("-")
    return f"{overlap}, {_METHODS.get(how, how)}"


#: What the names of overlap modes mean: which regions may overlap.
MEANING = (
    "joint: regions of one sigma may overlap, sigma chosen with the radii; sigma: the same, each image at its own; "
    "paper: none may; class: those of one class may too"
)


def title(rule: str) -> str:
    """Return how a rule is named for readers."""
    if rule == OVERLAPPING:
        return "overlapping (unsound)"
    if rule.startswith("sigma="):
        return rule.replace("=", " = ")
    if rule == ROUTER:
        return "router, min(R_S, R_c)"
    if rule == ROUTED.name:
        return "router, levels agree"
    sized, _, outside = rule.partition("+")
    if outside == "router":
        return "regions, router outside"
    if outside:
        return f"sigma = {outside} outside regions"
    overlap, _, how = sized.partition("-")
    return f"{_OVERLAPS[overlap]}, {_METHODS.get(how, how)}"
