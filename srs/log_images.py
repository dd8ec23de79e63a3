"""The images that a log is about: found by their index in the test set."""

from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from srs.arrays import read_array
from srs.logs import Logs
from training import FolderImages, load_data
from training.data import IMAGE_SUFFIXES


def log_points(
    logs: Logs, dataset: str, data_dir: str | PathLike[str], *, image_size: int | None = None, order: str = "sorted"
) -> Float32[np.ndarray, "n d"]:
    """Return the logs' images, flattened, with pixels in [0, 1].

    Parameters
    ----------
    logs : Logs
    dataset : str
        One of `training.DATASETS`, or `imagefolder:PATH`; then PATH, PATH/test or PATH/val holds a folder per class.
    data_dir : path
        Where MNIST or CIFAR-10 are.
    image_size : int, optional
        Side that images of a folder are scaled and cropped to.
    order : {"sorted", "class"}, default="sorted"
        For folders. "sorted": image idx is that of the list of files, sorted by class, then name, as
        `torchvision.datasets.ImageFolder` numbers them. "class": the k-th image of a class in the log is the k-th file
        of that class, which is how a data set with an order of its own is unpacked into folders; the log must list all
        images.

    Raises
    ------
    ValueError
        Where the data set does not hold the images of the logs, or their labels differ.
    """
    kind, _, path = dataset.partition(":")
    if kind == "imagefolder" and path:
        return _folder_points(logs, Path(path), image_size, order)
    if order != "sorted":
        raise ValueError(f"--image-order {order}: only folders of images have one; leave it out for {dataset}")
    data = load_data(dataset, data_dir, image_size=image_size)
    _check_labels(logs, dataset, np.asarray(data.test_labels), "give the data set that the logs are about")
    images = data.test_images[logs.idx]
    return images.reshape(len(images), -1)


def array_points(logs: Logs, source: str) -> np.ndarray:
    """Return the logs' images from an array of the whole test set, image idx in row idx; pixels in [0, 1]."""
    images = read_array(source, ("points", "images"))
    if images.ndim < 2 or logs.idx[-1] >= len(images):
        raise ValueError(f"{source} has shape {images.shape}: the logs need image {logs.idx[-1]}, one in each row")
    points = images[logs.idx].reshape(len(logs.idx), -1)
    if points.dtype == np.uint8:
        return np.asarray(points.astype(np.float32) / np.float32(255))
    if points.size and not (points.min() >= 0 and points.max() <= 1):
        raise ValueError(f"{source}: pixels must be floats in [0, 1], the units of the radii, or 8-bit integers")
    return np.asarray(points)


def _folder_points(logs: Logs, root: Path, size: int | None, order: str) -> Float32[np.ndarray, "n d"]:
    files, labels = _classes(root)
    if order == "class":
        if (logs.idx != np.arange(len(logs.idx))).any():
            raise ValueError(f"{logs.files[0]} leaves images out: --image-order class needs a log of every image")
        chosen = _nth_of_class(logs, root, labels)
    else:
        remedy = "if files are numbered within their class, give --image-order class"
        _check_labels(logs, str(root), labels, remedy)
        chosen = logs.idx
    images = FolderImages([files[i] for i in chosen], size)[:]
    return images.reshape(len(images), -1)


def _classes(root: Path) -> tuple[list[Path], Int64[np.ndarray, " n"]]:
    """Return all files of a folder of classes, sorted by class, then name, and their classes."""
    folder = next((root / part for part in ("test", "val") if (root / part).is_dir()), root)
    if not folder.is_dir():
        raise ValueError(f"imagefolder:{root}: there is no such folder; name one that holds a folder per class")
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    found = [
        (file, k)
        for k, name in enumerate(names)
        for file in sorted((folder / name).iterdir())
        if file.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not found:
        raise ValueError(f"imagefolder:{root}: {folder} holds no folders with images; name one that does")
    return [file for file, _ in found], np.array([k for _, k in found], dtype=np.int64)


def _nth_of_class(logs: Logs, root: Path, labels: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " n"]:
    chosen = np.empty(len(logs.idx), dtype=np.int64)
    for label in np.unique(logs.labels):
        rows, files = np.flatnonzero(logs.labels == label), np.flatnonzero(labels == label)
        if len(rows) != len(files):
            raise ValueError(
                f"imagefolder:{root} has {len(files)} images of class {label}, the logs have {len(rows)}: give the "
                "test set that the logs are about"
            )
        chosen[rows] = files
    return chosen


def _check_labels(logs: Logs, name: str, labels: Int64[np.ndarray, " m"], remedy: str) -> None:
    """Raise where a data set is not the one that the logs are about. Nothing else is done with labels here."""
    if logs.idx[-1] >= len(labels):
        raise ValueError(f"{logs.files[0]}: image {logs.idx[-1]} is not in {name}, which has {len(labels)}; {remedy}")
    differs = labels[logs.idx] != logs.labels
    if differs.any():
        row = int(differs.argmax())
        raise ValueError(
            f"{logs.files[0]}, line {logs.lines[row, 0]}: image {logs.idx[row]} has label {logs.labels[row]}, in "
            f"{name} it has {labels[logs.idx[row]]}: {remedy}"
        )
