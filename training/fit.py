"""Training under Gaussian noise of a random level per image (Eq. 4): Algorithm 1's pretraining."""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import nn
from torch.nn.functional import cross_entropy
from tqdm import trange

from training.attack import SmoothAdv


@dataclass(frozen=True)
class TrainingLog:
    """What training reports.

    Attributes
    ----------
    losses : tuple of float
        Mean cross entropy of each epoch, in nats, under that epoch's noise.
    seconds : float
        Wall time.
    """

    losses: tuple[float, ...]
    seconds: float


def train(
    model: nn.Module,
    images: Float32[np.ndarray, "n c h w"],
    labels: Int64[np.ndarray, " labels"],
    *,
    sigma_min: float,
    sigma_max: float,
    epochs: int = 60,
    batch_size: int = 128,
    lr: float = 3e-3,
    attack: SmoothAdv | None = None,
    m: int = 1,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> TrainingLog:
    """Fit the model, in place, to images + sigma * noise, sigma ~ Uniform(sigma_min, sigma_max) (Eq. 4).

    The level is drawn anew per image and epoch. Adam with a cosine learning rate. Seeded: the same arguments give the
    same weights on the same machine.

    Parameters
    ----------
    model : torch.nn.Module
        Maps (b, C, H, W) to logits; moved to `device` and left in evaluation mode.
    images : float32 array of shape (n, C, H, W)
        Pixels in [0, 1].
    labels : int64 array of shape (n,)
        True classes, one per image.
    sigma_min, sigma_max : float
        Range of the noise level, l2 per pixel, 0 <= sigma_min <= sigma_max.
    epochs, batch_size, lr, seed
        Passes over the images, images per step, peak learning rate, seed of order, levels and noise.
    attack : SmoothAdv, optional
        Trains on adversarial examples instead of the images, under the very noise that they were made for.
    m : int, default=1
        Noise samples per image and step, for the attack and for the loss.
    device : str or torch.device, default="cpu"
        Where to train. Random numbers are drawn on the CPU, the same for every device.
    progress : bool, default=False
        Show a bar on stderr.

    Raises
    ------
    ValueError
        When the ranges or lengths do not fit together.
    FloatingPointError
        When the loss stops being finite; the weights are useless then.
    """
    _check(images, labels, sigma_min, sigma_max, epochs, batch_size, m)
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    steps = epochs * math.ceil(len(x) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)

    losses = []
    for epoch in trange(epochs, desc="train", unit="epoch", disable=not progress, leave=False):
        total = 0.0
        sigma = sigma_min + (sigma_max - sigma_min) * torch.rand(len(x), generator=generator)  # Eq. 4
        for batch in torch.split(torch.randperm(len(x), generator=generator), batch_size):
            clean, label = x[batch].to(device), y[batch].to(device)
            noise = sigma[batch].reshape(-1, 1, 1, 1) * torch.randn((m, *clean.shape), generator=generator)
            noise = noise.to(device)
            hard = clean if attack is None else attack(model, clean, label, noise)
            loss = cross_entropy(model((hard + noise).flatten(0, 1)), label.repeat(m))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(batch)
        losses.append(total / len(x))
        if not math.isfinite(total):
            raise FloatingPointError(f"loss = {losses[-1]} in epoch {epoch}: training diverged; lower lr = {lr}")
    model.eval()
    return TrainingLog(tuple(losses), time.perf_counter() - start)


@torch.inference_mode()
def accuracy(
    model: nn.Module,
    images: Float32[np.ndarray, "n c h w"],
    labels: Int64[np.ndarray, " n"],
    *,
    device: str | torch.device = "cpu",
) -> float:
    """Return the fraction of images, without noise, that the model classifies correctly; in [0, 1]."""
    model.to(device).eval()
    hits = [
        model(x.to(device)).argmax(dim=1).cpu() == y
        for x, y in zip(
            torch.split(torch.from_numpy(images), 1024), torch.split(torch.from_numpy(labels), 1024), strict=True
        )
    ]
    return float(torch.cat(hits).double().mean())


def _check(
    images: np.ndarray, labels: np.ndarray, sigma_min: float, sigma_max: float, epochs: int, batch_size: int, m: int
) -> None:
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(f"{len(images)} images and {len(labels)} labels: need as many of each, and at least one")
    if not 0 <= sigma_min <= sigma_max < math.inf:
        raise ValueError(f"sigma range [{sigma_min}, {sigma_max}]: need 0 <= sigma_min <= sigma_max, finite")
    if epochs < 1 or batch_size < 1 or m < 1:
        raise ValueError(f"epochs = {epochs}, batch_size = {batch_size}, m = {m}: all must be at least 1")
