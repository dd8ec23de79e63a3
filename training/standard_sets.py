"""Data sets that everybody knows, from scikit-learn or the files that torchvision lays out."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from training.byte_images import ByteImages
from training.data import ImageData

#: Decides which digits are test images. Fixed, so that "test image 17" is the same image in every run.
SPLIT_SEED = 0

#: What Fashion-MNIST's classes are called; its files do not say it.
FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


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
        "digits",
        10,
        train_images=train_images,
        train_labels=train_labels.astype(np.int64),
        test_images=test_images,
        test_labels=test_labels.astype(np.int64),
    )


def mnist(root: str | os.PathLike[str], *, download: bool = False, train: bool = True) -> ImageData:
    """Read MNIST's 60,000 + 10,000 handwritten digits, 28x28 with 256 grey levels, or other data in such files.

    Parameters
    ----------
    root : path
        The folder that holds `MNIST/raw/` with the four files of the data set, as torchvision lays them out.
    download : bool, default=False
        Fetch them where they are not there.
    train : bool, default=True
        Whether training images are wanted; without, there are none, and their files are not needed.

    Raises
    ------
    ValueError
        Where files are not there, are damaged, or do not belong together: as many labels as images, each from 0 to 9.
    """
    return _idx_files("mnist", "MNIST", root, download=download, train=train, class_names=None)


def fashion_mnist(root: str | os.PathLike[str], *, download: bool = False, train: bool = True) -> ImageData:
    """Read Fashion-MNIST's 60,000 + 10,000 pictures of clothes, 28x28 with 256 grey levels.

    As `mnist`, from `FashionMNIST/raw/`.
    """
    return _idx_files("fashion-mnist", "FashionMNIST", root, download=download, train=train, class_names=FASHION)


def cifar10(root: str | os.PathLike[str], *, download: bool = False, train: bool = True) -> ImageData:
    """Read CIFAR-10's 50,000 + 10,000 colour images of 32x32 pixels.

    Parameters
    ----------
    root : path
        The folder that holds `cifar-10-batches-py/` with the Python version of the data set. torchvision unpickles
        those files, after comparing them with their published checksums.
    download : bool, default=False
        Fetch them where they are not there.
    train : bool, default=True
        Whether training images are wanted; all files must be there in any case.

    Raises
    ------
    ValueError
        Where they are not there, or damaged.
    """
    from torchvision.datasets import CIFAR10  # a second to import

    folder = Path(root) / "cifar-10-batches-py"
    remedy = f"put data_batch_1 to data_batch_5, test_batch and batches.meta into {folder}"
    return _cifar("cifar10", CIFAR10, root, remedy, download=download, train=train)


def cifar100(root: str | os.PathLike[str], *, download: bool = False, train: bool = True) -> ImageData:
    """Read CIFAR-100's 50,000 + 10,000 colour images of 32x32 pixels, of 100 classes.

    As `cifar10`, from `cifar-100-python/`.
    """
    from torchvision.datasets import CIFAR100  # a second to import

    remedy = f"put train, test and meta into {Path(root) / 'cifar-100-python'}"
    return _cifar("cifar100", CIFAR100, root, remedy, download=download, train=train)


def svhn(root: str | os.PathLike[str], *, download: bool = False, train: bool = True) -> ImageData:
    """Read SVHN's 73,257 + 26,032 colour images of house numbers, 32x32 pixels; class k is digit k.

    Parameters
    ----------
    root : path
        The folder that holds `train_32x32.mat` and `test_32x32.mat`, which are compared with their published checksums.
    download : bool, default=False
        Fetch them where they are not there.
    train : bool, default=True
        Whether training images are wanted; without, there are none, and their file is not needed.

    Raises
    ------
    ValueError
        Where they are not there, or damaged.
    """
    from torchvision.datasets import SVHN  # a second to import

    names = ["train", "test"] if train else ["test"]
    files = " and ".join(f"{name}_32x32.mat" for name in names)
    ways = [{"split": name} for name in names]
    *first, test = _torchvision(SVHN, root, ways, download, f"put {files} into {root}")
    train_images, train_labels = _part(first[0].data, first[0].labels) if first else _none(3, 32, 32)
    test_images, test_labels = _part(test.data, test.labels)
    return ImageData(
        "svhn",
        10,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=tuple(map(str, range(10))),
    )


_Part = tuple[ByteImages, Int64[np.ndarray, " n"]]


def _part(pixels: UInt8[np.ndarray, "n c h w"], labels: Any) -> _Part:
    return ByteImages(np.ascontiguousarray(pixels)), np.array(labels, dtype=np.int64)


def _none(*image_shape: int) -> _Part:
    return ByteImages(np.empty((0, *image_shape), np.uint8)), np.empty(0, np.int64)


def _cifar(
    name: str, kind: Callable[..., Any], root: str | os.PathLike[str], remedy: str, *, download: bool, train: bool
) -> ImageData:
    ways = [{"train": part} for part in ((True, False) if train else (False,))]
    *first, test = _torchvision(kind, root, ways, download, remedy)
    parts = [_part(part.data.transpose(0, 3, 1, 2), part.targets) for part in (*first, test)]
    train_images, train_labels = parts[0] if first else _none(3, 32, 32)
    test_images, test_labels = parts[-1]
    return ImageData(
        name,
        len(test.classes),
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=tuple(test.classes),
    )


def _idx_files(
    name: str,
    title: str,
    root: str | os.PathLike[str],
    *,
    download: bool,
    train: bool,
    class_names: tuple[str, ...] | None,
) -> ImageData:
    """Read a data set in MNIST's four files, from the folder that torchvision calls it by."""
    folder = Path(root) / title / "raw"
    names = {part: (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")}
    wanted = [part for part in ("train", "t10k") if train or part == "t10k"]
    files = [file for part in wanted for file in names[part]]
    if not all((folder / file).is_file() for file in files):
        remedy = f"put {', '.join(files[:-1])} and {files[-1]} into {folder}"
        if not download:
            raise ValueError(f"{root} holds no readable {title}: {remedy}, unpacked, or ask for the download")
        _download_idx(title, root, remedy)
    parts = {part: _idx_pair(*(folder / file for file in names[part])) for part in wanted}
    test_images, test_labels = parts["t10k"]
    train_images, train_labels = parts.get("train", _none(*test_images.shape[1:]))
    if train_images.shape[1:] != test_images.shape[1:]:
        large, small = ("x".join(map(str, images.shape[2:])) for images in (train_images, test_images))
        raise ValueError(f"{folder}: training images of {large} and test images of {small}: need one data set's files")
    return ImageData(
        name,
        10,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=class_names,
    )


def _idx_pair(image_file: Path, label_file: Path) -> _Part:
    """Read images and their labels from two files of MNIST's format."""
    images, labels = _idx(image_file, 3), _idx(label_file, 1)
    if len(images) != len(labels):
        raise ValueError(
            f"{image_file} holds {len(images)} images, {label_file.name} {len(labels)} labels: need files of one part"
        )
    if images.size == 0:
        raise ValueError(f"{image_file} holds no images: fetch it again")
    if labels.max() > 9:
        row = int((labels > 9).argmax())
        raise ValueError(f"{label_file}: label {row} is {labels[row]}, but classes are 0 to 9: fetch the file again")
    return _part(images[:, None], labels)


def _idx(file: Path, dimensions: int) -> UInt8[np.ndarray, "..."]:
    """Read bytes in MNIST's format: 0, 0, 8, the number of dimensions, each of them as a big-endian int, the bytes."""
    with file.open("rb") as stream:
        head = stream.read(4 + 4 * dimensions)
        if head[:2] == b"\x1f\x8b":
            raise ValueError(f"{file} is packed (gzip): unpack it under this name")
        if head[:4] != bytes((0, 0, 8, dimensions)) or len(head) < 4 + 4 * dimensions:
            kind = "a web page" if head.lstrip()[:1] == b"<" else "no file of MNIST"
            raise ValueError(f"{file} is {kind}: fetch it again, and unpack it")
        shape = [int.from_bytes(head[at : at + 4]) for at in range(4, len(head), 4)]
        size, held = len(head) + math.prod(shape), os.fstat(stream.fileno()).st_size
        if held != size:
            state = "cut off" if held < size else "too long"
            raise ValueError(f"{file} has {held:,} bytes and announces {size:,}: it is {state}; fetch it again")
        return np.frombuffer(stream.read(), dtype=np.uint8).reshape(shape)


def _download_idx(title: str, root: str | os.PathLike[str], remedy: str) -> None:
    from torchvision import datasets  # a second to import

    try:
        getattr(datasets, title)(Path(root), download=True)
    except (RuntimeError, ValueError, OSError, AssertionError) as error:
        raise ValueError(f"{title} cannot be downloaded ({error}): {remedy}") from error


def _torchvision(
    kind: Callable[..., Any],
    root: str | os.PathLike[str],
    ways: Sequence[dict[str, Any]],
    download: bool,
    remedy: str,
) -> list[Any]:
    """Return parts of a torchvision data set: those that it makes when it is called in these ways."""
    try:
        return [kind(Path(root), download=download, **way) for way in ways]
    except (RuntimeError, ValueError, OSError) as error:
        name = getattr(kind, "__name__", "data set")
        if download:
            raise ValueError(f"{name} cannot be downloaded ({error}): {remedy}") from error
        raise ValueError(f"{root} holds no readable {name}: {remedy}, or ask for the download") from error
