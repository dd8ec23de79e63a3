"""The denoiser of a run: what its checkpoint says, how it comes before the base classifier, what a manifest keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from training import DenoisedClassifier, Denoiser

_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, eq=False)
class RunDenoiser:
    """A denoiser that was read, and the SHA-256 of it alone."""

    denoiser: Denoiser
    weights: str

    def before(
        self, base: nn.Module | Mapping[float, nn.Module], sigmas: Sequence[float]
    ) -> dict[float, DenoisedClassifier]:
        """Return the base classifier of every level with this denoiser before it."""
        from training import denoised

        return denoised(self.denoiser, base, sigmas)

    def manifest(self) -> dict[str, Any]:
        """Return what `manifest.json` says of it; the base classifier's own hash covers it as well."""
        return {"weights": self.weights}


def read_denoiser(
    file: Path, sigmas: Sequence[float], shape: Sequence[int], *, called: str | None = None
) -> RunDenoiser:
    """Read a denoiser's checkpoint, and see that it is for these levels and such images.

    `called`: what errors call it. Default: as the flag names it.

    Raises
    ------
    ValueError
        Where it is not, and where the file cannot be used.
    OSError
        Where it cannot be opened.
    """
    from smoothing.identity import hash_bank
    from training import load_denoiser

    found = load_denoiser(file)
    found.check(sigmas=sigmas, image_shape=shape, source=called or f"--denoiser {file}")
    return RunDenoiser(found.denoiser, hash_bank({None: found.denoiser}))


def check_denoiser(said: Any, *, named: bool) -> None:
    """Raise `ValueError` unless `denoiser` of a manifest is there where the settings name one, and holds a hash."""
    if (said is not None) != named:
        raise ValueError("it names a denoiser and the settings do not" if said is not None else "it names no denoiser")
    if said is None:
        return
    hashed = isinstance(said, dict) and said.keys() == {"weights"} and isinstance(said["weights"], str)
    if not hashed or not _HASH.fullmatch(said["weights"]):
        raise ValueError(f"denoiser = {str(said)[:60]} is no such part of a manifest")


def weights_of(manifest: Mapping[str, Any]) -> str | None:
    """Return the hash of the denoiser in a checked manifest; None where the run has none."""
    said = manifest.get("denoiser")
    return None if said is None else str(said["weights"])
