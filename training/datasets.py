"""Data sets by their names: those that are known, folders, and code of the user's own."""

import os
from collections.abc import Callable, Mapping

from training.data import ImageData, image_folder
from training.hub_folders import hub_folder
from training.own_datasets import is_own_dataset, own_dataset
from training.standard_sets import cifar10, cifar100, digits, fashion_mnist, mnist, svhn

_READERS: Mapping[str, Callable[..., ImageData]] = {
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "svhn": svhn,
}
"""What reads files of known data sets below a folder, by name."""

#: What names a data set besides a folder, `imagefolder:PATH` or `hf:PATH`, and `package.module:factory`.
DATASETS = ("digits", *_READERS)


def load_data(
    name: str,
    root: str | os.PathLike[str],
    *,
    download: bool = False,
    image_size: int | None = None,
    train: bool = True,
) -> ImageData:
    """Load a data set by its name.

    Parameters
    ----------
    name : str
        One of `DATASETS`, `imagefolder:PATH`, `hf:PATH`, or `package.module:factory`: the module is imported, which
        runs it, and the factory called with "train" and "test". Names from somebody's file must be looked at by
        `is_own_dataset` before.
    root : path
        Where the files of one of `DATASETS` are, but for the digits.
    download : bool, default=False
        Fetch them where they are not there.
    image_size : int, optional
        Side that pictures of a folder or of a factory are scaled to.
    train : bool, default=True
        Whether training images are wanted. Without, a folder, MNIST, Fashion-MNIST or SVHN may lack them, and none may
        be there.

    Raises
    ------
    ValueError
        For a name that is not known, and where files are missing.
    """
    kind, _, path = name.partition(":")
    if is_own_dataset(name):
        return own_dataset(name, image_size=image_size, train=train)
    if kind == "imagefolder" and path:
        return image_folder(path, image_size=image_size, train=train)
    if kind == "hf" and path:
        return hub_folder(name, image_size=image_size, train=train)
    if name not in DATASETS:
        raise ValueError(
            f"dataset {name!r}: choose {', '.join(DATASETS)}, imagefolder:PATH, hf:PATH or package.module:factory"
        )
    if image_size is not None:
        raise ValueError(f"image size {image_size}: {name} has a size of its own; leave it out")
    return digits() if name == "digits" else _READERS[name](root, download=download, train=train)
