"""What the judged points say of a run: whether its certificates hold as often as alpha promises."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Context

from scipy import stats


@dataclass(frozen=True)
class Verdict:
    """How many certificates are broken, and whether that is consistent with alpha.

    Attributes
    ----------
    attacked : int
        Images, those without a certificate among them.
    balls : int
        Certified balls.
    points : int
        Points strictly inside certified balls that G was asked about.
    breaks, undecided, unanswered : int
        Points at which G answers another class; at which the votes do not tell, which breaks nothing; and which no
        region holds, so that G has no answer there, whatever is certified.
    broken : int
        Images with a point at which G answers another class or none.
    without_answer : int
        Images with a point that has no answer.
    alpha : float
        Of the certificates: each is wrong with at most this probability, or any where they hold together.
    simultaneous : bool
        Whether the certificates are to hold all at once.
    significance : float
        Probability that an honest run is found out, half of it spent on the predictions.
    p_value : float
        Probability that so many certificates of an honest run are wrong, at most.
    """

    attacked: int
    balls: int
    points: int
    breaks: int
    undecided: int
    unanswered: int
    broken: int
    without_answer: int
    alpha: float
    simultaneous: bool
    significance: float

    @property
    def p_value(self) -> float:
        """P(Binomial(attacked, alpha) >= broken); of certificates that hold together alpha, once one is broken.

        Each image's certificate rests on samples of its own, so wrong ones are no more than such a binomial number.
        Where certificates rely on each other, one event of probability alpha may break many.
        """
        if not self.broken:
            return 1.0
        if self.simultaneous:
            return self.alpha
        return float(stats.binom.sf(self.broken - 1, self.attacked, self.alpha))

    @property
    def least_p_value(self) -> float:
        """The p-value where every certificate is broken: no number of breaks has a smaller one."""
        return self.alpha if self.simultaneous else float(self.alpha**self.attacked)

    @property
    def consistent(self) -> bool:
        """Whether the breaks can be chance. A point without an answer cannot: no noise decides about that."""
        return not self.without_answer and self.p_value > self.significance / 2

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        said = f"G was asked at {self.points:,} points inside {self.balls:,} certified balls"
        if not self.balls:
            return f"nothing was tested: none of {self.attacked:,} images has a certificate"
        if not self.broken:
            return f"no broken certificate was found: {said}, and nowhere answers another class"
        broken = f"{self.broken:,} of {self.attacked:,} certificates are broken"
        if self.without_answer:
            return f"{broken}, {self.without_answer:,} of them by points that no region holds: no run may have any"
        together, test = (", all together", "") if self.simultaneous else ("", " (exact binomial test)")
        be = "can" if self.consistent else "cannot"
        chance = (
            f"{broken}: alpha = {self.alpha:g}{together} makes so many wrong with probability at most "
            f"{_raised(self.p_value)}, so that {be} be chance{test}"
        )
        if self.least_p_value <= self.significance / 2:
            return chance
        needed = _raised(2 * self.least_p_value)
        remedy = f": that takes --significance above {needed}" if 2 * self.least_p_value < 1 else ""
        return f"{chance}; no number of breaks would show more{remedy}"


def _raised(value: float) -> str:
    """Write a probability rounded up to two digits; 0.001 as itself, though the float is above that."""
    return format(Context(prec=2, rounding=ROUND_CEILING).create_decimal(repr(value)).normalize(), "g")
