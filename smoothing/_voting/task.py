"""What a pass is about."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float32, Float64, Int64

_Numbers = TypeVar("_Numbers", int, np.ndarray)


@dataclass(frozen=True, eq=False)
class Task:
    """The images and levels of a pass.

    Attributes
    ----------
    images : float32 array of shape (n, H, W, C)
    indices : int array of shape (n,)
        Each image's index in its data set.
    sigma : array of shape (n, k)
        Noise levels.
    stage : str
        Key of `noise.STAGES`.
    num_classes : int
    """

    images: Float32[np.ndarray, "n h w c"]
    indices: Int64[np.ndarray, " n"]
    sigma: Float64[np.ndarray, "n k"]
    stage: str
    num_classes: int

    def cell(self, row: _Numbers, level: _Numbers) -> _Numbers:
        """Return where votes for class 0 of images at levels are counted."""
        cells: _Numbers = (row * self.sigma.shape[1] + level) * self.num_classes
        return cells
