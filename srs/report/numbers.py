"""Numbers for readers: rounded to the safe side, with as many digits as can be read."""

from decimal import ROUND_FLOOR, Context, Decimal


def significant(value: float, rounding: str, digits: int = 9) -> str:
    """Write a number with so many significant digits, rounded as `decimal` names it: certificates down, bounds up."""
    return format(Context(prec=digits, rounding=rounding).create_decimal(value).normalize(), "g")


def floored(value: float, digits: int) -> str:
    """Write a number rounded down to so many decimals, all of them shown."""
    return str(Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_FLOOR))


def percent(share: float) -> str:
    """Write a share in percent with one decimal, rounded down; shares of whole images are not lost to rounding."""
    return floored(round(100 * share, 9), 1)
