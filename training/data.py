"""Data sets as plain arrays: images in [0, 1], labels beside them, a fixed split."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

#: Decides which digits are test images. Fixed, so that "test image 17" is the same image in every run.
SPLIT_SEED = 0


@dataclass(frozen=True, eq=False)
class ImageData:
    """Training and test images with their labels.

    Attributes
    ----------
    name : str
        What the data set is called in reports.
    num_classes : int
        Labels are 0 to num_classes - 1.
    train_images, test_images : float32 arrays of shape (n, C, H, W)
        Pixels in [0, 1], never normalised: normalisation belongs to the model.
    train_labels, test_labels : int64 arrays of shape (n,)
        True classes.
    """

    name: str
    num_classes: int
    train_images: Float32[np.ndarray, "train c h w"]
    train_labels: Int64[np.ndarray, " train"]
    test_images: Float32[np.ndarray, "test c h w"]
    test_labels: Int64[np.ndarray, " test"]


def digits(test_fraction: float = 0.2) -> ImageData:
    """Load scikit-learn's 1,797 handwritten digits, 8x8 with 17 grey levels; comes with scikit-learn, no download.

    Parameters
    ----------
    test_fraction : float, default=0.2
        Share of each class that is kept for testing, in (0, 1).

    Returns
    -------
    ImageData
        Stratified by class and always split the same way.
    """
    from sklearn.datasets import load_digits  # scikit-learn takes a second to import: only who asks pays
    from sklearn.model_selection import train_test_split

    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction = {test_fraction}: must lie strictly between 0 and 1")
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    split = train_test_split(images, labels, test_size=test_fraction, random_state=SPLIT_SEED, stratify=labels)
    train_images, test_images, train_labels, test_labels = split
    return ImageData(
        "digits", 10, train_images, train_labels.astype(np.int64), test_images, test_labels.astype(np.int64)
    )


def mnist(root: str | os.PathLike[str]) -> ImageData:
    """Read MNIST's 60,000 + 10,000 handwritten digits, 28x28 with 256 grey levels; nothing is downloaded.

    Parameters
    ----------
    root : path
        The folder that holds `MNIST/raw/` with the four files of the data set, as torchvision lays them out.

    Raises
    ------
    ValueError
        Where they are not there.
    """
    from torchvision.datasets import MNIST  # a second to import

    try:
        train, test = (MNIST(Path(root), train=part, download=False) for part in (True, False))
    except (RuntimeError, ValueError, OSError) as error:
        raise ValueError(
            f"{root} holds no readable MNIST: put train-images-idx3-ubyte, train-labels-idx1-ubyte, "
            f"t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte into {Path(root) / 'MNIST' / 'raw'}"
        ) from error
    images = [(part.data.numpy() / np.float32(255))[:, None] for part in (train, test)]
    labels = [part.targets.numpy().astype(np.int64) for part in (train, test)]
    return ImageData("mnist", 10, images[0], labels[0], images[1], labels[1])
