"""Denoisers in front of a classifier: denoised smoothing (Salman et al., 2020), also with a diffusion model.

A classifier that never saw noise votes on images that a denoiser has cleaned: f(D(x + noise)). For the certificate that
is one more base classifier, so whatever the denoiser does, the certificate holds; how large it is depends on both.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from smoothing.forward import one_line

#: Mean and standard deviation of pixels, roughly: where the training of a denoiser begins.
_MEAN, _SD = 0.3, 0.35

#: A noise level that is another one by less than this, relatively, is the same: alphas come in float32.
_ROUNDING = 1e-5


class Denoiser(nn.Module):
    """A denoiser that takes the noise level: `forward(images, sigma)`, for subclasses to define.

    `images` are noisy ones of shape (b, C, H, W), pixels in [0, 1] but for the noise; `sigma`, of shape (b,), is the
    level of each. Returns images of the same shape and range. The same images must give the same answer every time:
    whoever draws noise in here is refused when votes are drawn.
    """

    def forward(self, images: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        """Return the images without noise."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward(images, sigma)")

    def at(self, sigma: float) -> "DenoiserAt":
        """Return this denoiser for one noise level, as a module from images to images. Weights are shared.

        Raises
        ------
        ValueError
            Where it is not made for that level.
        """
        self.check_level(sigma)
        return DenoiserAt(self, float(sigma))

    def check_level(self, sigma: float) -> None:
        """Raise `ValueError`, one line, where this denoiser is not made for a noise level."""
        if not 0 < sigma < float("inf"):
            raise ValueError(f"sigma = {sigma}: a denoiser needs a level that is finite and > 0")


class DenoiserAt(nn.Module):
    """A denoiser for one noise level. The level is an attribute, so it is a part of a base classifier's hash.

    Parameters
    ----------
    denoiser : torch.nn.Module
        Called with images and the level of each.
    sigma : float
    """

    def __init__(self, denoiser: nn.Module, sigma: float) -> None:
        super().__init__()
        self.denoiser, self.sigma = denoiser, sigma

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the images without noise."""
        cleaned: Tensor = self.denoiser(images, images.new_full((len(images),), self.sigma))
        return cleaned


class DenoisedClassifier(nn.Module):
    """Denoise, then classify: f(D(x)).

    Parameters
    ----------
    denoiser : torch.nn.Module
        From images of shape (b, C, H, W) to images of that shape, for one noise level: `Denoiser.at`, or a network that
        was trained for that level.
    classifier : torch.nn.Module
        From images in [0, 1] to logits, any normaliser included.
    """

    def __init__(self, denoiser: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.denoiser, self.classifier = denoiser, classifier

    def forward(self, images: Float[Tensor, "b c h w"]) -> object:
        """Return what the classifier does with the denoised images.

        Raises
        ------
        ValueError
            Where the denoiser returns something else than images of the same shape.
        """
        cleaned = self.denoiser(images)
        if not isinstance(cleaned, Tensor) or cleaned.shape != images.shape:
            found = tuple(cleaned.shape) if isinstance(cleaned, Tensor) else type(cleaned).__name__
            raise ValueError(f"the denoiser returned {found} for images of shape {tuple(images.shape)}")
        return self.classifier(cleaned)


def denoised(
    denoiser: Denoiser | Mapping[float, nn.Module],
    classifier: nn.Module | Mapping[float, nn.Module],
    sigmas: Sequence[float],
) -> dict[float, DenoisedClassifier]:
    """Return the base classifier of every noise level, as `SmoothedClassifier` takes them.

    Parameters
    ----------
    denoiser : Denoiser, or mapping of noise level to torch.nn.Module
        One that takes the level; or one for each, from images to images.
    classifier : torch.nn.Module, or mapping of noise level to torch.nn.Module
        From images in [0, 1] to logits: one for all levels, or one for each.
    sigmas : sequence of float
        The levels.

    Raises
    ------
    ValueError
        Where a level has no denoiser or no classifier.
    """
    return {
        sigma: DenoisedClassifier(
            denoiser.at(sigma) if isinstance(denoiser, Denoiser) else _of_level(denoiser, sigma, "denoiser"),
            classifier if isinstance(classifier, nn.Module) else _of_level(classifier, sigma, "classifier"),
        )
        for sigma in map(float, sigmas)
    }


def _of_level(models: Mapping[float, nn.Module], sigma: float, what: str) -> nn.Module:
    if sigma not in models:
        raise ValueError(f"sigma = {sigma:g} has no {what}: there is one for {', '.join(f'{s:g}' for s in models)}")
    return models[sigma]


class DiffusionDenoiser(Denoiser):
    """The one-step denoiser of a diffusion model (Carlini et al., 2023): the image that its noise estimate implies.

    A model of x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e, with pixels of x_0 in [-1, 1] and e standard normal, is asked for
    e. The range is twice that of pixels in [0, 1], so noise of level sigma there is noise of level 2 sigma here, and
    step t has the noise sqrt((1 - a_t) / a_t). t is the first step that has at least 2 sigma, as in published code.
    Then

        x_t = sqrt(a_t) (2 x - 1),   x_0 = (x_t - sqrt(1 - a_t) e(x_t, t)) / sqrt(a_t),   D(x) = (x_0 + 1) / 2,

    with x_0 kept within [-1, 1] unless `clip` is off. No noise is drawn: that in x is the smoothed classifier's own.

    Parameters
    ----------
    eps_model : torch.nn.Module
        eps_model(x_t, t), t whole numbers of shape (b,), returns the noise, of the shape of x_t; or twice as many
        channels, where a learned variance follows, which is not used.
    alphas_cumprod : array or tensor of shape (T,)
        a_0 > a_1 > ... > a_{T-1}, in (0, 1): how much of the signal's variance is left at each step.
    clip : bool, default=True

    Raises
    ------
    ValueError
        Where `alphas_cumprod` are no such numbers.
    """

    alphas: Tensor
    levels: Tensor

    def __init__(self, eps_model: nn.Module, alphas_cumprod: ArrayLike | Tensor, *, clip: bool = True) -> None:
        super().__init__()
        alphas = torch.as_tensor(alphas_cumprod, dtype=torch.float64).detach().cpu()
        if alphas.ndim != 1 or len(alphas) == 0 or not bool(((alphas > 0) & (alphas < 1)).all()):
            raise ValueError("alphas_cumprod: expected one number for each step, strictly between 0 and 1")
        if not bool((alphas.diff() < 0).all()):
            raise ValueError("alphas_cumprod: must fall from step to step, as noise grows")
        self.eps_model, self.clip = eps_model, clip
        self.register_buffer("alphas", alphas.float())
        self.register_buffer("levels", (((1 - alphas) / alphas).sqrt() / 2).float())  # of pixels in [0, 1]

    def check_level(self, sigma: float) -> None:
        """Raise `ValueError`, one line, where the diffusion has no step with so much noise."""
        super().check_level(sigma)
        most = float(self.levels[-1])
        if sigma * (1 - _ROUNDING) > most:
            raise ValueError(f"sigma = {sigma:g}: the diffusion's last step has noise {most:.4g}; take smaller levels")

    def step(self, sigma: Float[Tensor, " b"]) -> Tensor:
        """Return t, of shape (b,): the first step whose noise is at least sigma, but for rounding."""
        least = sigma.to(self.levels) * (1 - _ROUNDING)
        return torch.searchsorted(self.levels, least).clamp(max=len(self.levels) - 1)

    def forward(self, images: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        """Return the images without noise."""
        t = self.step(sigma)
        kept = self.alphas[t].reshape(-1, 1, 1, 1)
        x = kept.sqrt() * (2 * images - 1)
        noise = self.eps_model(x, t)
        if not isinstance(noise, Tensor) or noise.shape not in (x.shape, (len(x), 2 * x.shape[1], *x.shape[2:])):
            found = tuple(noise.shape) if isinstance(noise, Tensor) else type(noise).__name__
            raise ValueError(f"the diffusion model returned {found} for images of shape {tuple(x.shape)}")
        x0 = (x - (1 - kept).sqrt() * noise[:, : x.shape[1]]) / kept.sqrt()
        cleaned: Tensor = x0.clamp(-1, 1) if self.clip else x0
        return (cleaned + 1) / 2


class _Block(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.second = nn.Conv2d(width, width, kernel_size=3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        added: Tensor = self.second(functional.silu(self.first(functional.silu(x))))
        return x + added


class DenoisingUNet(Denoiser):
    """A small U-Net at a half and a quarter of the resolution; the noise level is a channel of its input.

    Its output is combined with the noisy image as in Karras et al. (2022), Eq. 7: at any level the network has inputs
    and targets of about unit size, and it begins as the best linear denoiser of pixels without correlation.

    Parameters
    ----------
    channels : int
        C of the images, whatever their size.
    width : int, default=16
        Channels at half the resolution; twice as many at a quarter.
    """

    def __init__(self, channels: int, width: int = 16) -> None:
        super().__init__()
        self.enter = nn.Conv2d(4 * channels + 1, width, kernel_size=3, padding=1)
        self.fine = _Block(width)
        self.down = nn.Conv2d(width, 2 * width, kernel_size=3, stride=2, padding=1)
        self.coarse = nn.Sequential(_Block(2 * width), _Block(2 * width))
        self.up = nn.Conv2d(2 * width, 4 * width, kernel_size=1)
        self.finish = _Block(width)
        self.leave = nn.Conv2d(width, 4 * channels, kernel_size=3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, images: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        """Return the images without noise."""
        level = sigma.reshape(-1, 1, 1, 1)
        centred, total = images - _MEAN, level**2 + _SD**2
        residual = self._network(centred / total.sqrt(), level.log() / 4)
        return _MEAN + _SD**2 / total * centred + level * _SD / total.sqrt() * residual

    def _network(self, x: Float[Tensor, "b c h w"], level: Float[Tensor, "b 1 1 1"]) -> Float[Tensor, "b c h w"]:
        height, width = x.shape[2:]
        x = functional.pad(x, (0, -width % 4, 0, -height % 4), mode="replicate")
        halved = functional.pixel_unshuffle(x, 2)
        fine = self.fine(self.enter(torch.cat([halved, level.expand(-1, 1, *halved.shape[2:])], dim=1)))
        coarse = self.coarse(self.down(fine))
        back = self.finish(fine + functional.pixel_shuffle(self.up(coarse), 2))
        return functional.pixel_shuffle(self.leave(functional.silu(back)), 2)[..., :height, :width]


#: Denoisers by the names that checkpoints use, made from a number of channels.
DENOISERS: Mapping[str, Callable[[int], Denoiser]] = {
    "unet_small": DenoisingUNet,
    "unet": lambda channels: DenoisingUNet(channels, width=32),
}


def denoiser_network(arch: str, channels: int) -> Denoiser:
    """Return a denoiser with initial weights from PyTorch's global random state.

    Parameters
    ----------
    arch : str
        One of `DENOISERS`.
    channels : int
        C of the images.

    Raises
    ------
    ValueError
        For a name that is not known, or a number of channels that it cannot have.
    """
    if arch not in DENOISERS:
        raise ValueError(f"arch = {arch!r}: choose {', '.join(DENOISERS)}")
    with one_line(f"arch = {arch!r}: cannot be built for {channels} channels"):
        return DENOISERS[arch](channels)
