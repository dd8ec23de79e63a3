"""What an adapter returns."""

from typing import NamedTuple

from torch import nn


class Known(NamedTuple):
    """A network with its weights, and what its library knows of it.

    `moments` are mean and standard deviation of its pixels, one number for each channel; () where pixels stay as they
    are, None where nobody says. `labels` are the names of its classes in order, None where there are none.
    """

    net: nn.Module
    moments: tuple[tuple[float, ...], tuple[float, ...]] | tuple[()] | None
    labels: tuple[str, ...] | None
