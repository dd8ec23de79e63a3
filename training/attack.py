"""Smooth-Adv: adversarial examples of the smoothed classifier itself (Eq. 3; Salman et al., 2019)."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from smoothing.forward import logits_of


def smoothed_loss(
    model: nn.Module,
    images: Float[Tensor, "b c h w"],
    labels: Int64[Tensor, " b"],
    *,
    noise: Float[Tensor, "m b c h w"],
) -> Float[Tensor, " b"]:
    """Return -log of the averaged probability of the label, -log 1/m sum_i f(x + eta_i)_y, for every image (Eq. 3).

    Parameters
    ----------
    model : torch.nn.Module
        Maps (b, C, H, W) to logits; called once, with m * b images.
    images, labels
        Images x and true classes y.
    noise : tensor of shape (m, b, C, H, W)
        eta, already scaled by each image's own sigma.
    """
    m, b = noise.shape[:2]
    logits = logits_of(model((images + noise).flatten(0, 1)))
    log_p = log_softmax(logits, dim=1, dtype=torch.promote_types(logits.dtype, torch.float32)).reshape(m, b, -1)
    chosen = log_p.gather(2, labels.expand(m, b).unsqueeze(2)).squeeze(2)
    return math.log(m) - torch.logsumexp(chosen, dim=0)


@dataclass(frozen=True)
class SmoothAdv:
    """An l2 attack on the smoothed classifier: the noise is drawn once and shared by all steps.

    Attributes
    ----------
    epsilon : float
        l2 budget, in units of pixels in [0, 1], >= 0.
    steps : int
        Gradient steps k, >= 0; each costs m forward and backward passes an image, and there are no others.
    step_size : float, optional
        Length of a step; 2 epsilon / steps unless given.
    method : {"pgd", "ddn"}, default="pgd"
        "pgd" walks along normalised gradients and projects onto the ball. "ddn" decouples direction and norm (Rony et
        al., 2019): the norm grows by 5% while the smoothed class is right and shrinks by 5% when it is not, so examples
        stay close to the boundary; never beyond epsilon. The length of its steps falls from 1 to 0.01.

    Raises
    ------
    ValueError
        When a number is out of range or the method is not known.
    """

    epsilon: float
    steps: int
    _: KW_ONLY
    step_size: float | None = None
    method: str = "pgd"

    def __post_init__(self) -> None:
        for name, value in (("epsilon", self.epsilon), ("step_size", self.step_size)):
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} = {value}: must be finite and >= 0")
        if self.steps < 0:
            raise ValueError(f"steps = {self.steps}: must be at least 0")
        if self.method not in ("pgd", "ddn"):
            raise ValueError(f"method = {self.method!r}: choose 'pgd' or 'ddn'")
        if self.method == "ddn" and self.step_size is not None:
            raise ValueError(f"step_size = {self.step_size}: method 'ddn' sets its own; leave it out")

    def __call__(
        self,
        model: nn.Module,
        images: Float[Tensor, "b c h w"],
        labels: Int64[Tensor, " b"],
        *,
        noise: Float[Tensor, "m b c h w"],
        begin: Float[Tensor, "b c h w"] | None = None,
        scale: Float[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Return images within l2 distance epsilon, in [0, 1], that the smoothed classifier finds harder.

        No argument is changed, nor is the model, which runs in evaluation mode. An image whose gradient is 0 stays
        where it is.

        Parameters
        ----------
        model, images, labels, noise
            As in `smoothed_loss`.
        begin : tensor of shape (b, C, H, W), optional
            Where to begin, in [0, 1]. Default: at the images.
        scale : tensor of shape (b,), optional
            All lengths, epsilon and those of steps, are multiplied by each image's own number > 0. Default: 1.
        """
        start = images.detach()
        x = start.clone() if begin is None else begin.detach().clone()
        unit = _column(torch.ones(len(x), dtype=x.dtype, device=x.device) if scale is None else scale)
        norm = torch.full((len(x),), min(1.0, self.epsilon), dtype=x.dtype, device=x.device)
        with _evaluating(model), torch.enable_grad():
            for step in range(self.steps):
                x.requires_grad_()
                loss = smoothed_loss(model, x, labels, noise=noise)
                (gradient,) = torch.autograd.grad(loss.sum(), x)
                direction = _normalised(gradient)
                x = x.detach()
                if self.method == "pgd":
                    length = 2 * self.epsilon / self.steps if self.step_size is None else self.step_size
                    delta = _shortened((x + unit * (length * direction) - start) / unit, self.epsilon)
                else:
                    length = 0.01 + 0.99 * (1 + math.cos(math.pi * step / self.steps)) / 2
                    right = loss.detach() < math.log(2)  # the label has at least half of the averaged probability
                    norm = (norm * torch.where(right, 1.05, 0.95)).clamp(max=self.epsilon)
                    delta = _normalised(x + unit * (length * direction) - start) * _column(norm)
                # start lies in the box, so clipping brings every pixel closer to it: the ball is not left
                x = (start + unit * delta).clamp(0, 1)
        return x


def _column(values: Float[Tensor, " b"]) -> Float[Tensor, "b 1 1 1"]:
    return values.reshape(-1, 1, 1, 1)


def _norms(vectors: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 1 1"]:
    return _column(vectors.flatten(1).norm(dim=1))


def _normalised(vectors: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Return vectors of length 1; zero stays zero."""
    norms = _norms(vectors)
    return torch.where(norms > 0, vectors / norms.clamp(min=torch.finfo(norms.dtype).tiny), 0.0)


def _shortened(vectors: Float[Tensor, "b c h w"], most: float) -> Float[Tensor, "b c h w"]:
    """Return vectors of length at most `most`."""
    norms = _norms(vectors)
    return torch.where(norms > most, vectors * (most / norms.clamp(min=torch.finfo(norms.dtype).tiny)), vectors)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Freeze normalisation, dropout and weights, and put every module back into the mode it was in.

    Compiled models compute gradients of all that requires them, asked for or not: of weights in vain.
    """
    modes = [(module, module.training) for module in model.modules()]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode
