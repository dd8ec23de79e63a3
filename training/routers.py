"""Networks that name a noise level for an image: the routers of Dual Randomized Smoothing (ICLR 2026)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smoothing.forward import logits_of
from training.models import network

#: Kinds of routers. "free": a logit for each level. "monotone": one score and ordered thresholds.
KINDS = ("free", "monotone")

#: Between neighbouring thresholds at first. A level half-way between its own has three quarters of the probability.
FIRST_STEP = 4.0


class MonotoneRouter(nn.Module):
    """One score and ordered thresholds: the higher the score, the higher the level (adjacent-category logits).

    With score s and thresholds theta_1 < ... < theta_{K-1}, level k (from 0) has the logit
    sum over j <= k of (s - theta_j). So the level of the largest logit is the number of thresholds below s; it rises
    with s, and where it changes, at s = theta_k, exactly levels k - 1 and k tie. Logits are concave in k: the further a
    level is from the named one, the less likely it is, so only neighbours compete.

    Parameters
    ----------
    net : torch.nn.Module
        Maps images of shape (b, C, H, W) to scores of shape (b, 1), or to something that holds them as `logits`.
    levels : int
        K, at least 2.
    """

    def __init__(self, net: nn.Module, levels: int) -> None:
        super().__init__()
        self.net = net
        # the first threshold, and logarithms of the steps to the next ones: even at first, 0 in the middle
        self.steps = nn.Parameter(torch.full((levels - 1,), math.log(FIRST_STEP)))
        with torch.no_grad():
            self.steps[0] = FIRST_STEP * (1 - levels / 2)

    @property
    def thresholds(self) -> Float[Tensor, " thresholds"]:
        """theta_1 < ... < theta_{K-1}."""
        return torch.cat([self.steps[:1], self.steps[1:].exp()]).cumsum(dim=0)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b K"]:
        """Return logits, one for each level."""
        score = logits_of(self.net(images))
        if score.shape[1:] != (1,):
            raise ValueError(
                f"the network of a monotone router returned {tuple(score.shape)}: expected a score an image"
            )
        rises = (score - self.thresholds).cumsum(dim=1)
        return torch.cat([torch.zeros_like(rises[:, :1]), rises], dim=1)


def router_network(arch: str, levels: int, *, kind: str = "free") -> nn.Module:
    """Return a router with initial weights from PyTorch's global random state, without a normaliser.

    Parameters
    ----------
    arch : str
        As in `training.build`: a base classifier's architecture, with a logit for each level, or one for the score.
    levels : int
        K, at least 2.
    kind : {"free", "monotone"}, default="free"
        "monotone" is a `MonotoneRouter`.

    Raises
    ------
    ValueError
        For a name that is not known, or less than two levels.
    """
    if kind not in KINDS:
        raise ValueError(f"kind = {kind!r}: choose {', '.join(KINDS)}")
    if levels < 2:
        raise ValueError(f"levels = {levels}: a router chooses among two or more; one level needs none")
    return network(arch, levels) if kind == "free" else MonotoneRouter(network(arch, 1), levels)
