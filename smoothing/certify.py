"""The smoothed classifier: votes under noise, and what they certify (Cohen et al., 2019; Eq. 1, 2 and 7)."""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from numpy.typing import ArrayLike
from torch import Tensor, nn

from smoothing import _validate
from smoothing.confidence import certified_radius, lower_confidence_bound, top_two_p_value
from smoothing.noise import noise_blocks
from smoothing.results import ABSTAIN, Certificates, Predictions, SigmaChoice


class SmoothedClassifier:
    """The class that a base classifier returns most often under Gaussian noise, g(x, sigma) of Eq. 1.

    Votes depend on (seed, stage, image index, sample) alone: not on the batch size or on the order of the images, as
    long as the model scores an image the same way whatever else is in its batch. Floating point keeps that promise up
    to rounding, which moves a vote only where two classes tie to the last digits.

    Parameters
    ----------
    model : torch.nn.Module
        Maps float32 images of shape (b, C, H, W) to logits of shape (b, num_classes); any normalisation is part of it.
        It is moved to `device` and put in evaluation mode.
    num_classes : int
        At least 2.
    batch_size : int, default=512
        Noisy images per forward pass; those of several images share one.
    seed : int, default=0
        Names the noise streams, in [0, 2**128).
    device : str or torch.device, default="cpu"
        Where the model runs. Noise is always drawn on the CPU, so that it is the same on every device.

    Notes
    -----
    The theorem is about exact Gaussian noise and exact arithmetic. Noise and logits here are float32.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        *,
        batch_size: int = 512,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.device = _validate.check_device(device)
        self.model = model.to(self.device).eval()
        self.num_classes = _validate.check_count("num_classes", num_classes, least=2)
        self.batch_size = _validate.check_count("batch_size", batch_size)
        self.seed = _validate.check_seed(seed)

    def select_sigma(
        self, images: ArrayLike | Tensor, sigmas: ArrayLike, n0: int, alpha: float, *, indices: ArrayLike | None = None
    ) -> SigmaChoice:
        """Choose every image's noise level: the one with the largest estimated radius (Eq. 7). No label is seen.

        Parameters
        ----------
        images : array or tensor of shape (n, C, H, W)
            Pixels in [0, 1].
        sigmas : array of shape (k,)
            Levels to choose from, increasing.
        n0 : int
            Selection samples per image and level; the levels share an image's samples, scaled.
        alpha : float
            The radius of a level is estimated with a lower bound at this failure probability.
        indices : int array of shape (n,), default=0, 1, ...
            Each image's index in its data set, which names its noise stream.

        Returns
        -------
        SigmaChoice
            Among equal radii the smallest level wins, so an image that abstains at every level gets the smallest.
            Costs n * k * n0 evaluations of the model.
        """
        grid = _validate.check_grid(sigmas)
        alpha = _validate.check_alpha(alpha)
        pixels, names = self._images(images, indices)
        classes, radii = [], []
        for sigma in grid:
            levels = np.full(len(pixels), sigma)
            votes = self._count_votes(pixels, levels, n0, "select", names)
            classes.append(votes.argmax(axis=1))
            radii.append(certified_radius(levels, lower_confidence_bound(votes.max(axis=1), n0, alpha)))
        table = np.stack(radii, axis=1)
        level = table.argmax(axis=1)
        return SigmaChoice(grid, level, grid[level], np.stack(classes, axis=1), table)

    def certify(
        self,
        images: ArrayLike | Tensor,
        sigma: ArrayLike,
        n0: int,
        n: int,
        alpha: float,
        *,
        indices: ArrayLike | None = None,
    ) -> Certificates:
        """Guess each image's class from n0 selection samples and certify it with n fresh ones (Cohen et al., CERTIFY).

        With probability at least 1 - alpha, per image: where the result does not abstain, g(., sigma) returns the
        certified class everywhere in the open ball of the certified radius. True whatever the guess was.

        Parameters
        ----------
        images : array or tensor of shape (n, C, H, W)
            Pixels in [0, 1].
        sigma : float or array of shape (n,)
            Noise level, one for all images or one each.
        n0, n : int
            Selection and estimation samples per image.
        alpha : float
            Failure probability per image.
        indices : int array of shape (n,), default=0, 1, ...
            Each image's index in its data set, which names its noise stream.
        """
        pixels, names = self._images(images, indices)
        levels = _validate.check_levels(sigma, len(pixels))
        alpha = _validate.check_alpha(alpha)
        guess = self._count_votes(pixels, levels, n0, "select", names).argmax(axis=1)
        return self.certify_classes(pixels, levels, guess, n, alpha, indices=names)

    def certify_classes(
        self,
        images: ArrayLike | Tensor,
        sigma: ArrayLike,
        classes: ArrayLike,
        n: int,
        alpha: float,
        *,
        indices: ArrayLike | None = None,
    ) -> Certificates:
        """Certify given classes with n estimation samples per image; see `certify` for the guarantee and arguments.

        Parameters
        ----------
        classes : int array of shape (n,)
            The class to certify for each image, from `SigmaChoice.classes` or any other source that has not seen the
            estimation samples.
        """
        pixels, names = self._images(images, indices)
        levels = _validate.check_levels(sigma, len(pixels))
        alpha = _validate.check_alpha(alpha)
        guess = _validate.check_classes(classes, len(pixels), self.num_classes)
        votes = self._count_votes(pixels, levels, n, "estimate", names)
        counts = votes[np.arange(len(votes)), guess]
        p_lower = lower_confidence_bound(counts, n, alpha)
        radius = certified_radius(levels, p_lower)
        predict = np.where(p_lower > 0.5, guess, ABSTAIN)
        return Certificates(predict, radius, levels, counts, p_lower, n, alpha)

    def predict(
        self, images: ArrayLike | Tensor, sigma: ArrayLike, n: int, alpha: float, *, indices: ArrayLike | None = None
    ) -> Predictions:
        """Return g(x, sigma), or abstain (Cohen et al., PREDICT).

        With probability at least 1 - alpha, per image: the answer is -1 or the class that Eq. 1 defines.

        Parameters
        ----------
        images : array or tensor of shape (n, C, H, W)
            Pixels in [0, 1].
        sigma : float or array of shape (n,)
            Noise level, one for all images or one each.
        n : int
            Samples per image, from a stream that neither selection nor estimation uses.
        alpha : float
            Failure probability per image.
        indices : int array of shape (n,), default=0, 1, ...
            Each image's index in its data set, which names its noise stream.
        """
        pixels, names = self._images(images, indices)
        levels = _validate.check_levels(sigma, len(pixels))
        alpha = _validate.check_alpha(alpha)
        votes = self._count_votes(pixels, levels, n, "predict", names)
        second, first = np.sort(votes, axis=1)[:, -2:].T
        p_value = top_two_p_value(first, second)
        predict = np.where(p_value <= alpha, votes.argmax(axis=1), ABSTAIN)
        return Predictions(predict, votes, p_value, levels, alpha)

    def _images(
        self, images: ArrayLike | Tensor, indices: ArrayLike | None
    ) -> tuple[Float[Tensor, "n c h w"], Int64[np.ndarray, " n"]]:
        pixels = _validate.check_images(images)
        return pixels, _validate.check_indices(indices, len(pixels))

    @torch.inference_mode()
    def _count_votes(
        self,
        images: Float[Tensor, "n c h w"],
        levels: Float64[np.ndarray, " n"],
        n: int,
        stage: str,
        indices: Int64[np.ndarray, " n"],
    ) -> Int64[np.ndarray, "n classes"]:
        """Count the classes that the model gives to images + level * noise, n samples per image.

        One buffer is filled with noisy images whoever they belong to, and sent through the model each time it is full.
        """
        n = _validate.check_count("n" if stage != "select" else "n0", n)
        shape = tuple(images.shape[1:])
        votes = torch.zeros(len(images) * self.num_classes, dtype=torch.int64, device=self.device)
        batch = torch.empty((self.batch_size, *shape))
        owner = torch.empty(self.batch_size, dtype=torch.int64)
        filled = 0
        for row, (image, level, index) in enumerate(zip(images, levels.tolist(), indices.tolist(), strict=True)):
            for block in noise_blocks(self.seed, stage, index, n, shape):
                noisy = torch.from_numpy(block).mul_(level).add_(image)
                while len(noisy):
                    part = noisy[: self.batch_size - filled]
                    batch[filled : filled + len(part)] = part
                    owner[filled : filled + len(part)] = row
                    filled += len(part)
                    noisy = noisy[len(part) :]
                    if filled == self.batch_size:
                        self._vote(batch, owner, votes)
                        filled = 0
        if filled:
            self._vote(batch[:filled], owner[:filled], votes)
        return votes.reshape(len(images), self.num_classes).cpu().numpy()

    def _vote(self, batch: Float[Tensor, "b c h w"], owner: Tensor, votes: Tensor) -> None:
        """Add the model's classes for one batch to the votes of the images they belong to."""
        logits = self.model(batch.to(self.device))
        if not isinstance(logits, Tensor) or logits.shape != (len(batch), self.num_classes):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"the model returned {found} for {len(batch)} images of {self.num_classes} classes")
        if bool(torch.isnan(logits).any()):
            raise ValueError("the model returned NaN: check its weights (did training diverge?) and its normalisation")
        cells = owner.to(self.device) * self.num_classes + logits.argmax(dim=1)
        votes += torch.bincount(cells, minlength=len(votes))
