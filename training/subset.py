"""Which training images a run takes, where it does not take all."""

import numpy as np
from jaxtyping import Int64

from training.data import ImageData, Images, subset


def training_subset(data: ImageData, count: int | None, seed: int) -> tuple[Images, Int64[np.ndarray, " n"]]:
    """Return so many training images and their labels, in the data's order, drawn at random with the seed; None: all.

    Raises
    ------
    ValueError
        Where there are not so many.
    """
    images, labels = data.train_images, data.train_labels
    if count is None:
        return images, labels
    if count > len(labels):
        raise ValueError(f"--train-images {count}: {data.name} has {len(labels)}")
    which = np.sort(np.random.default_rng(seed).permutation(len(labels))[:count])
    return subset(images, which), labels[which]
