"""Base classifiers. Each takes images in [0, 1] and normalises them itself."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Normalize(nn.Module):
    """Subtract a mean and divide by a standard deviation, per channel.

    Parameters
    ----------
    mean, sd : tuple of float
        One number per channel.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, mean: tuple[float, ...], sd: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1))
        self.register_buffer("sd", torch.tensor(sd).reshape(-1, 1, 1))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the normalised images."""
        return (images - self.mean) / self.sd


class DigitsCNN(nn.Module):
    """Two strided convolutions and a linear layer for 8x8 grey images; a million images a second on two CPU cores."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Normalize((0.305,), (0.376,)),  # of scikit-learn's digits
            nn.Conv2d(1, 32, kernel_size=4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 10),
        )

    def forward(self, images: Float[Tensor, "b 1 8 8"]) -> Float[Tensor, "b 10"]:
        """Return logits."""
        logits: Tensor = self.layers(images)
        return logits


def digits_cnn(seed: int) -> DigitsCNN:
    """Return a `DigitsCNN` whose initial weights the seed decides; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DigitsCNN()
