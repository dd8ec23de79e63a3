"""Known answers that share no code with what they check."""

from decimal import Decimal, localcontext
from fractions import Fraction
from math import comb

import mpmath
import numpy as np
import torch
from scipy import optimize, stats
from torch import nn


def binomial_tail(n: int, k: int, p: float) -> Fraction:
    """P(Binomial(n, p) >= k), exactly, for the float p as it is."""
    q = Fraction(p)
    return sum((comb(n, i) * q**i * (1 - q) ** (n - i) for i in range(k, n + 1)), Fraction(0))


def binomial_tail_decimal(n: int, k: int, p: float) -> Decimal:
    """P(Binomial(n, p) >= k) with 50 digits, by recurrence: for n too large for fractions."""
    with localcontext() as context:
        context.prec = 60
        context.Emin = -(10**9)
        exact = Decimal(p)
        odds = exact / (1 - exact)
        term = Decimal(comb(n, k)) * exact**k * (1 - exact) ** (n - k)
        total = term
        for i in range(k, n):
            term *= Decimal(n - i) / Decimal(i + 1) * odds
            total += term
        return total


def normal_cdf(x: float) -> Decimal:
    """Phi(x) with about 50 digits, from its power series: 1/2 + phi(x) (x + x^3/3 + x^5/15 + ...)."""
    with localcontext() as context:
        context.prec = 80
        z = Decimal(x)
        pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")
        term = total = z
        for i in range(1, 400):
            term *= z * z / (2 * i + 1)
            total += term
        return Decimal("0.5") + total * (-z * z / 2).exp() / (2 * pi).sqrt()


def normal_quantile(p: float) -> mpmath.mpf:
    """Phi^-1(p) with more than 50 digits, for 0 < p < 1: by Newton's method on log Phi, which is concave."""
    with mpmath.workdps(80):
        if p > 0.5:
            return -_quantile_of_tail(1 - mpmath.mpf(p))
        return _quantile_of_tail(mpmath.mpf(p)) if p < 0.5 else mpmath.mpf(0)


def _quantile_of_tail(p: mpmath.mpf) -> mpmath.mpf:
    x, step = mpmath.mpf(-40), mpmath.mpf(1)
    while abs(step) > mpmath.mpf(10) ** -60 * abs(x):
        tail, density = mpmath.erfc(-x / mpmath.sqrt(2)) / 2, mpmath.npdf(x)
        step = (mpmath.log(p) - mpmath.log(tail)) * tail / density
        x += step
    return x


def compositions(n: int, parts: int) -> np.ndarray:
    """All ways in which n votes can fall on so many classes, one a row."""
    if parts == 1:
        return np.array([[n]])
    return np.concatenate([np.insert(compositions(n - k, parts - 1), 0, k, axis=1) for k in range(n + 1)])


def two_sided_radius(p: np.ndarray, a: int) -> float:
    """Eq. 2 at sigma = 1 for class a, with the true probabilities; negative where another class is more likely."""
    return float(stats.norm.ppf(p[a]) - stats.norm.ppf(np.delete(p, a).max())) / 2


class Halfspace(nn.Module):
    """Class 1 where w.x + b > 0, else class 0; smoothed at any sigma, its true radius is |w.x + b| / |w|."""

    def __init__(self, w: torch.Tensor, b: float) -> None:
        super().__init__()
        self.w, self.b = w, b

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        score = (images * self.w).flatten(1).sum(1) + self.b
        return torch.stack([-score, score], dim=1)

    def radius(self, images: torch.Tensor) -> torch.Tensor:
        return ((images * self.w).flatten(1).sum(1).double() + self.b).abs() / self.w.double().norm()


class Constant(nn.Module):
    """Always the same logits."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(images), -1)


class Coin(nn.Module):
    """Class by the sign of the first pixel: a fair coin for an image whose first pixel is 0."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixel = images[:, 0, 0, 0]
        return torch.stack([pixel, -pixel], dim=1)


class Ball(nn.Module):
    """Class 1 inside the ball of radius rho around grey, class 0 outside; smoothed, its radius is known too."""

    def __init__(self, rho: float) -> None:
        super().__init__()
        self.rho = rho

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        score = self.rho - (images - 0.5).flatten(1).norm(dim=1)
        return torch.stack([-score, score], dim=1)

    def probability(self, distance: float, sigma: float, d: int) -> float:
        """P(class 1) at so far from the centre: a noncentral chi-square with d degrees of freedom."""
        return float(stats.ncx2.cdf((self.rho / sigma) ** 2, d, max(distance / sigma, 1e-12) ** 2))

    def radius(self, distance: float, sigma: float, d: int) -> float:
        """How far inside the smoothed class 1 an image lies: its probability falls with the distance alone."""
        edge = optimize.brentq(lambda t: self.probability(t, sigma, d) - 0.5, 0, 10 * self.rho)
        return edge - distance


class Stump(nn.Module):
    """Class 0 where the first pixel, as a score, is below all thresholds; each threshold passed is one class more."""

    def __init__(self, *thresholds: float) -> None:
        super().__init__()
        self.thresholds = torch.tensor(thresholds)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        passed = (images[:, 0, 0, :1] > self.thresholds).sum(dim=1)
        return nn.functional.one_hot(passed, len(self.thresholds) + 1).float()
