"""What flags may be, known before PyTorch is imported."""

import math
import re
from collections.abc import Sequence
from itertools import pairwise

#: What may be done with an input that no region holds, where nothing is certified for it.
OUTSIDE = ("abstain", "smallest-sigma", "nearest-region", "best-sigma")

#: Smallest failure probability for which `smoothing` computes bounds; known here before PyTorch is imported.
SMALLEST_ALPHA = 1e-100

#: Width of a column of a paper, and the least and largest of figures, in inches: below the least, legends have no room.
COLUMN, LEAST_WIDTH, LARGEST_WIDTH = 3.25, 2.0, 20.0


def check_width(width: float) -> None:
    """Raise `ValueError` for a --width that no figure can have."""
    if not LEAST_WIDTH <= width <= LARGEST_WIDTH:
        raise ValueError(f"--width {width:g}: must be from {LEAST_WIDTH:g} to {LARGEST_WIDTH:g} inches")


def check_alpha(alpha: float) -> None:
    """Raise `ValueError` for an --alpha that no bound can be computed for."""
    if not 0 < alpha < 1:
        raise ValueError(f"--alpha {alpha}: must lie strictly between 0 and 1, such as 0.001")
    if alpha < SMALLEST_ALPHA:
        raise ValueError(f"--alpha {alpha}: must be at least {SMALLEST_ALPHA:g}; bounds are not computed below")


def check_levels(sigmas: Sequence[float], most: int) -> None:
    """Raise `ValueError` for --sigmas that are no noise levels in increasing order, or more than so many."""
    if len(sigmas) > most:
        raise ValueError(f"--sigmas: names {len(sigmas):,} levels; give at most {most:,}")
    said = " ".join(f"{sigma:g}" for sigma in sigmas)
    if not all(0 < sigma < math.inf for sigma in sigmas):
        raise ValueError(f"--sigmas {said}: noise levels must be finite and > 0")
    if any(later <= earlier for earlier, later in pairwise(sigmas)):
        raise ValueError(f"--sigmas {said}: must increase, each level once")


def named_level(text: str) -> float | None:
    """Return the noise level that "sigma=S" names; None where the text names none."""
    found = re.fullmatch(r"sigma=([0-9.eE+-]{1,40})", text, re.ASCII)
    try:
        sigma = float(found[1]) if found else math.nan
    except ValueError:
        return None
    return sigma if 0 < sigma < math.inf else None


def named_outside(outside: float | str) -> str:
    """Return what decides outside every region, for readers: "sigma = 0.25" or "a router"."""
    return "a router" if isinstance(outside, str) else f"sigma = {outside:g}"
