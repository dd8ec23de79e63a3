"""Numbers for readers: rounded to the safe side, with as many digits as can be read."""

from decimal import Context


def significant(value: float, rounding: str, digits: int = 9) -> str:
    """Write a number with so many significant digits, rounded as `decimal` names it: certificates down, bounds up."""
    return format(Context(prec=digits, rounding=rounding).create_decimal(value).normalize(), "g")
