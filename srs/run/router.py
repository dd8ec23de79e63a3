"""The router of a run: what its checkpoint says, that it belongs to the base classifier, and what a manifest keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64

from smoothing.fingerprint import classifier_difference
from srs.run.settings import MOST

if TYPE_CHECKING:
    from torch import nn

    from smoothing import RoutedClassifier, SmoothedClassifier


@dataclass(frozen=True)
class RouterRecord:
    """What a run knows of its router.

    Attributes
    ----------
    sigma : float or None
        The router's own noise level. None: it names one level for every input, so no network is asked.
    level : float or None
        That level; None where a network names levels.
    """

    sigma: float | None
    level: float | None


@dataclass(frozen=True, eq=False)
class Router:
    """A router that was read: `record`, its `network` where it has one, and the levels that this chooses from."""

    record: RouterRecord
    network: nn.Module | None
    sigmas: Float64[np.ndarray, " k"]

    def smoothed(self, classifier: SmoothedClassifier) -> RoutedClassifier | None:
        """Return the classifier with this router in front; None where it names one level for every input."""
        from smoothing import RoutedClassifier

        if self.network is None:
            return None
        return RoutedClassifier(classifier, self.network, self.sigmas, router_sigma=self.record.sigma)

    def manifest(self, routed: RoutedClassifier | None, shape: Sequence[int]) -> dict[str, Any]:
        """Return what `manifest.json` says of it; `check` are logits for fixed images, as of the base classifier."""
        router = None if routed is None else routed.router
        return {
            **asdict(self.record),
            "classifier": None if router is None else asdict(router.identity),
            "check": [] if router is None else list(router.check_logits(shape)),
        }


def read_router(
    file: Path, sigmas: Sequence[float], shape: Sequence[int], classifier: SmoothedClassifier, *, always: bool = False
) -> Router:
    """Read a router's checkpoint, and see that it is for this classifier, these levels and such images.

    `always`: take its network also where held-out images did not show it to be better than one level.

    Raises
    ------
    ValueError
        Where it is not, and where the file cannot be used.
    OSError
        Where it cannot be opened.
    """
    from training import load_router

    found = load_router(file, fallback=not always)
    source = f"--router {file}"
    found.check(base=classifier.identity.weights, image_shape=shape, source=source)
    if found.levels != tuple(sigmas):
        theirs, ours = (" ".join(f"{sigma:g}" for sigma in levels) for levels in (found.levels, sigmas))
        raise ValueError(
            f"{source}: chooses among the levels {theirs}, and certificates are made at {ours}; give "
            f"--sigmas {theirs}, or train a router for these"
        )
    level = found.sigmas[0] if found.router is None else None
    return Router(RouterRecord(found.router_sigma, level), found.router, np.array(sigmas))


def router_record(manifest: Mapping[str, Any]) -> RouterRecord | None:
    """Return what a checked manifest says of the run's router; None where it has none."""
    said = manifest.get("router")
    return None if said is None else RouterRecord(said["sigma"], said["level"])


def check_router(said: Any, sigmas: Sequence[float], *, named: bool) -> None:
    """Raise `ValueError` unless `router` of a manifest is there where the settings name one, and is one.

    What it says of the network is left to the comparison with the network itself.
    """
    if (said is not None) != named:
        raise ValueError("it names a router and the settings do not" if said is not None else "it names no router")
    if said is None:
        return
    if not isinstance(said, dict) or said.keys() != {"sigma", "level", "classifier", "check"}:
        raise ValueError("router is no such part of a manifest")
    sigma, level, check = said["sigma"], said["level"], said["check"]
    if isinstance(said["classifier"], dict) and isinstance(said["classifier"].get("weights"), str):
        good = _is_positive(sigma) and level is None and isinstance(check, list)
    else:
        good = sigma is None and level in sigmas and not isinstance(level, bool) and said["classifier"] is None
    if not good:
        raise ValueError(f"router has sigma = {str(sigma)[:40]} and level = {str(level)[:40]}")


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= MOST


def router_difference(ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None) -> str | None:
    """Say in what two checked manifests' routers differ, theirs and ours; None where they are the same."""
    if ours is None or theirs is None:
        return None if ours is theirs else "existence"
    for name in ("sigma", "level"):
        if ours[name] != theirs[name]:
            return f"{name} ({theirs[name]}, here {ours[name]})"
    return None if ours["classifier"] is None else classifier_difference(ours, theirs)
