"""How the margin of an image's label depends on the noise level: one model of all images, from a few passes of each.

The margin is the label's logit minus the largest other one; the label is voted for where it is positive. Under noise of
level sigma a margin of image i is taken for normal, with mean B(sigma) c_i and variance exp(w . z_i(sigma)) lambda_i:

- B are Chebyshev polynomials, c_i ~ N(mean, covariance): curves of images resemble each other;
- z_i(sigma) holds B(sigma) and the image's standardised c_i, alone and times the level: where the network is sure,
  margins vary more;
- lambda_i ~ inverse gamma(shape, shape): what is left of an image's own scale.

What all images share is estimated by expectation-maximisation, the empirical Bayes estimate of a random-coefficient
model (Laird and Ware, 1982); then each image's c_i and lambda_i have a posterior from its own margins.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy import special

#: Degree of the mean's polynomial, where there are so many levels. Three and five were as good, two was worse.
DEGREE = 4

#: Rounds of expectation-maximisation, and of the alternation that finds the posterior of an image.
_ROUNDS, _IMAGE_ROUNDS = 30, 10

#: Shapes that lambda's distribution may have, from very different scales to nearly equal ones.
_SHAPES = np.array([1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128])

#: A margin so many times the median size is as good as certain: no outlier decides what all images share.
_FAR = 6.0

#: Where the variances begin: low, so that differences between images count as such until they are seen to be noise.
_FIRST_LOG = -3.0

#: Two over the variance of w a priori: without, the coefficients of an image, which resemble each other, drift apart.
_RIDGE = 20.0

#: Logarithms of variances, in units of the squared scale, stay within this.
_MOST_LOG = 20.0


@dataclass(frozen=True, eq=False)
class ImageCurves:
    """The posterior of some images' curves, in units of `MarginCurves.scale`.

    Attributes
    ----------
    mean, covariance
        Of the coefficients c_i.
    spread : array of shape (n,)
        lambda_i.
    shape : float
        Shape of the posterior gamma distribution of 1 / lambda_i.
    """

    mean: Float64[np.ndarray, "n d"]
    covariance: Float64[np.ndarray, "n d d"]
    spread: Float64[np.ndarray, " n"]
    shape: float


@dataclass(frozen=True, eq=False)
class MarginCurves:
    """What the margins of all images share.

    Attributes
    ----------
    mean, covariance
        Of the coefficients c_i over the images.
    log_variance : array of shape (3d,)
        w.
    shape : float
        Of lambda_i.
    scale : float
        Margins are divided by it, and beyond `_FAR` of it they are not told apart.
    """

    mean: Float64[np.ndarray, " d"]
    covariance: Float64[np.ndarray, "d d"]
    log_variance: Float64[np.ndarray, " w"]
    shape: float
    scale: float

    @classmethod
    def fit(cls, x: Float64[np.ndarray, "n j"], margins: Float64[np.ndarray, "n j"], degree: int) -> "MarginCurves":
        """Estimate what images share.

        Parameters
        ----------
        x : array of shape (n, j)
            Level of each pass, scaled to [-1, 1].
        margins : array of shape (n, j)
        degree : int
            Of the polynomial, below the number of levels.
        """
        scale = float(np.median(np.abs(margins))) or 1.0
        m, basis = _scaled(margins, scale), _basis(x, degree)
        n, d = len(m), degree + 1
        flat = basis.reshape(-1, d)
        mean = np.linalg.solve(flat.T @ flat + np.eye(d), flat.T @ m.ravel())
        log_variance = np.concatenate([[_FIRST_LOG], np.zeros(3 * d - 1)])
        shared = cls(mean, np.eye(d), log_variance, 8.0, 1.0)
        images = ImageCurves(np.tile(mean, (n, 1)), np.zeros((n, d, d)), np.ones(n), shared.shape)
        for _ in range(_ROUNDS):
            images, squares = shared._update(images, basis, x, m)
            mean = images.mean.mean(axis=0)
            away = images.mean - mean
            covariance = (away.T @ away + images.covariance.sum(axis=0) + 1e-3 * np.eye(d)) / (n + 1e-3)
            shared = cls(mean, covariance, shared._regressed(images, basis, x, squares), shared.shape, 1.0)
            ratios = (squares / np.exp(shared._logs(images, basis, x))).sum(axis=1)
            shape = _likeliest_shape(ratios, m.shape[1])
            shared = cls(mean, covariance, shared.log_variance, shape, 1.0)
            images = shared._rescaled(images, ratios, m.shape[1])
        return cls(shared.mean, shared.covariance, shared.log_variance, shared.shape, scale)

    def of(self, x: Float64[np.ndarray, "n j"], margins: Float64[np.ndarray, "n j"]) -> ImageCurves:
        """Return the posterior of images, from their own margins."""
        m, d = _scaled(margins, self.scale), len(self.mean)
        basis = _basis(x, d - 1)
        n = len(m)
        images = ImageCurves(np.tile(self.mean, (n, 1)), np.zeros((n, d, d)), np.ones(n), self.shape)
        for _ in range(_IMAGE_ROUNDS):
            images, squares = self._update(images, basis, x, m)
            ratios = (squares / np.exp(self._logs(images, basis, x))).sum(axis=1)
            images = self._rescaled(images, ratios, m.shape[1])
        return images

    def quantiles(
        self, images: ImageCurves, x: Float64[np.ndarray, " k"]
    ) -> tuple[Float64[np.ndarray, "n k"], Float64[np.ndarray, "n k"]]:
        """Return mean and deviation of eta at levels x, where the label has the probability Phi(eta)."""
        basis = _basis(x, len(self.mean) - 1)
        deviation = self._deviations(images, basis, x)
        eta = images.mean @ basis.T / deviation
        variance = np.einsum("kd,nde,ke->nk", basis, images.covariance, basis) / deviation**2
        return eta, np.sqrt(variance + eta**2 / (4 * images.shape))

    def draw(
        self, images: ImageCurves, x: Float64[np.ndarray, " k"], rng: np.random.Generator
    ) -> Float64[np.ndarray, "n k"]:
        """Return eta at levels x of a curve drawn from each image's posterior."""
        basis = _basis(x, len(self.mean) - 1)
        normal, gamma = rng.standard_normal(images.mean.shape), rng.gamma(images.shape, size=len(images.mean))
        drawn = images.mean + np.einsum("nde,ne->nd", np.linalg.cholesky(images.covariance), normal)
        precision = np.sqrt(gamma / images.shape)[:, None]
        found: Float64[np.ndarray, "n k"] = drawn @ basis.T / self._deviations(images, basis, x) * precision
        return found

    def _update(
        self,
        images: ImageCurves,
        basis: Float64[np.ndarray, "n j d"],
        x: Float64[np.ndarray, "n j"],
        m: Float64[np.ndarray, "n j"],
    ) -> tuple[ImageCurves, Float64[np.ndarray, "n j"]]:
        """Return the posterior at the variances as they are, and the expected squares of what the curves leave."""
        weights = np.exp(-self._logs(images, basis, x)) / images.spread[:, None]
        weighted = basis * weights[..., None]
        prior = np.linalg.inv(self.covariance)
        covariance = np.linalg.inv(prior + weighted.transpose(0, 2, 1) @ basis)
        covariance = (covariance + covariance.transpose(0, 2, 1)) / 2
        right = np.einsum("njd,nj->nd", weighted, m) + prior @ self.mean
        mean = np.einsum("nde,ne->nd", covariance, right)
        squares = (m - np.einsum("njd,nd->nj", basis, mean)) ** 2
        squares += np.einsum("njd,njd->nj", basis @ covariance, basis)
        return ImageCurves(mean, covariance, images.spread, images.shape), squares

    def _rescaled(self, images: ImageCurves, ratios: Float64[np.ndarray, " n"], passes: int) -> ImageCurves:
        """Return the images with the spread that the ratios of squares to variances show."""
        shape = self.shape + passes / 2
        return ImageCurves(images.mean, images.covariance, (self.shape + ratios / 2) / shape, shape)

    def _regressed(
        self,
        images: ImageCurves,
        basis: Float64[np.ndarray, "n j d"],
        x: Float64[np.ndarray, "n j"],
        squares: Float64[np.ndarray, "n j"],
    ) -> Float64[np.ndarray, " w"]:
        """Return w after a scoring step of the gamma regression of squares on the image's covariates."""
        z = self._covariates(images, basis, x)
        variances = np.exp(np.clip(z @ self.log_variance, -_MOST_LOG, _MOST_LOG)) * images.spread[:, None]
        excess = np.clip(squares / variances - 1, -1, 5).ravel()  # one outlier does not throw the step
        flat = z.reshape(-1, z.shape[-1])
        ridge = np.full(z.shape[-1], _RIDGE)
        gradient = flat.T @ excess - ridge * self.log_variance
        return np.asarray(self.log_variance + np.linalg.solve(flat.T @ flat + np.diag(ridge), gradient))

    def _logs(
        self, images: ImageCurves, basis: Float64[np.ndarray, "... d"], x: Float64[np.ndarray, "..."]
    ) -> Float64[np.ndarray, "..."]:
        """Return logarithms of variances, without lambda."""
        logs = self._covariates(images, basis, x) @ self.log_variance
        return np.asarray(np.clip(logs, -_MOST_LOG, _MOST_LOG))

    def _deviations(
        self, images: ImageCurves, basis: Float64[np.ndarray, "k d"], x: Float64[np.ndarray, " k"]
    ) -> Float64[np.ndarray, "n k"]:
        n = len(images.mean)
        logs = self._logs(images, np.broadcast_to(basis, (n, *basis.shape)), np.broadcast_to(x, (n, len(x))))
        return np.asarray(np.exp(logs / 2) * np.sqrt(images.spread)[:, None])

    def _covariates(
        self, images: ImageCurves, basis: Float64[np.ndarray, "n j d"], x: Float64[np.ndarray, "n j"]
    ) -> Float64[np.ndarray, "n j w"]:
        own = ((images.mean - self.mean) / np.sqrt(np.diag(self.covariance)))[:, None, :]
        return np.concatenate([basis, np.broadcast_to(own, basis.shape), own * x[..., None]], axis=-1)


def _scaled(margins: Float64[np.ndarray, "n j"], scale: float) -> Float64[np.ndarray, "n j"]:
    return np.clip(margins / scale, -_FAR, _FAR)


def _basis(x: Float64[np.ndarray, "..."], degree: int) -> Float64[np.ndarray, "... d"]:
    basis: Float64[np.ndarray, "... d"] = np.polynomial.chebyshev.chebvander(x, degree)
    return basis


def _likeliest_shape(ratios: Float64[np.ndarray, " n"], passes: int) -> float:
    """Return the shape of lambda under which the ratios of squares to variances are likeliest."""
    a, half = _SHAPES[:, None], passes / 2
    likelihood = special.gammaln(a + half) - special.gammaln(a) + a * np.log(a) - (a + half) * np.log(a + ratios / 2)
    return float(_SHAPES[likelihood.sum(axis=1).argmax()])
