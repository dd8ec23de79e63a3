"""Numbers for readers: rounded to the safe side, with as many digits as can be read."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal


def significant(value: float, rounding: str, digits: int = 9) -> str:
    """Write a number with so many significant digits, rounded as `decimal` names it: certificates down, bounds up."""
    return format(Context(prec=digits, rounding=rounding).create_decimal(value).normalize(), "g")


def floored(value: float, digits: int) -> str:
    """Write a number rounded down to so many decimals, all of them shown."""
    return str(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_FLOOR))


def raised(value: float, digits: int) -> str:
    """Write a number rounded up to so many decimals, all of them shown: what is lost is never less than it says."""
    return str(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_CEILING))


def percent(share: float, digits: int = 1) -> str:
    """Write a share in percent, rounded down.

    A share k / n of whole images is written as the exact k / n would be, though 100 * 0.948 is below 94.8 in floating
    point: for n up to 10**8 an exact share that is no decimal is further from one than the ninth decimal.
    """
    return floored(round(100 * share, 9), digits)


def percent_above(share: float, digits: int = 1) -> str:
    """Write a share in percent, rounded up, as `percent` rounds down: an upper bound is never below itself."""
    return raised(round(100 * share, 9), digits)


def confidence(alpha: float) -> str:
    """Write 1 - alpha in percent, exactly; as "1 - alpha" where that would take more than six decimals."""
    exact = Decimal(f"{alpha:g}")
    exponent = exact.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -8:
        return f"1 - {alpha:g}"
    return f"{(100 * (1 - exact)).normalize():f}%"


def readable(guarantee: str, alpha: float) -> str:
    """Return a guarantee at a failure probability alpha in the words of readers: 99.9% where it says 1 - 0.001."""
    return guarantee.replace(f"1 - {alpha:g}", confidence(alpha))
