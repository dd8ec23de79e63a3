"""Numbers for readers: rounded to the safe side, with as many digits as can be read."""

from decimal import ROUND_FLOOR, Context, Decimal

#: Smallest failure probability for which `smoothing` computes bounds; known here before PyTorch is imported.
SMALLEST_ALPHA = 1e-100


def check_alpha(alpha: float) -> None:
    """Raise `ValueError` for an --alpha that no bound can be computed for."""
    if not 0 < alpha < 1:
        raise ValueError(f"--alpha {alpha}: must lie strictly between 0 and 1, such as 0.001")
    if alpha < SMALLEST_ALPHA:
        raise ValueError(f"--alpha {alpha}: must be at least {SMALLEST_ALPHA:g}; bounds are not computed below")


def significant(value: float, rounding: str, digits: int = 9) -> str:
    """Write a number with so many significant digits, rounded as `decimal` names it: certificates down, bounds up."""
    return format(Context(prec=digits, rounding=rounding).create_decimal(value).normalize(), "g")


def floored(value: float, digits: int) -> str:
    """Write a number rounded down to so many decimals, all of them shown."""
    return str(Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_FLOOR))


def percent(share: float) -> str:
    """Write a share in percent with one decimal, rounded down; shares of whole images are not lost to rounding."""
    return floored(round(100 * share, 9), 1)
