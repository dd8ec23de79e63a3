"""The images that a log is about: found by their index in the test set."""

from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from srs.arrays import as_pixels, read_array
from srs.logs.read import Logs


def log_points(
    logs: Logs,
    dataset: str,
    data_dir: str | PathLike[str],
    *,
    image_size: int | None = None,
    order: str = "sorted",
    rows: Int64[np.ndarray, " m"] | slice = slice(None),
) -> Float32[np.ndarray, "m d"]:
    """Return the logs' images, flattened, with pixels in [0, 1].

    Parameters
    ----------
    logs : Logs
    dataset : str
        As `training.load_data` takes it; of `imagefolder:PATH`, PATH/test, PATH/val or PATH holds a folder per class.
    data_dir : path
        Where the files of a known data set are.
    image_size : int, optional
        Side that images of a folder are scaled and cropped to.
    order : {"sorted", "class"}, default="sorted"
        For folders. "sorted": image idx is that of the list of files, sorted by class, then name, as
        `torchvision.datasets.ImageFolder` numbers them. "class": the k-th image of a class in the log is the k-th file
        of that class, which is how a data set with an order of its own is unpacked into folders; the log must list all
        images.
    rows : int array or slice, default=all
        The rows of the logs whose images are wanted; the data set is compared with all of them.

    Raises
    ------
    ValueError
        Where the data set does not hold the images of the logs, or their labels differ.
    """
    kind, _, path = dataset.partition(":")
    if kind == "imagefolder" and path:
        return _folder_points(logs, Path(path), image_size, order, rows)
    if order != "sorted":
        raise ValueError(f"--image-order {order}: only folders of images have one; leave it out for {dataset}")
    from training import load_data  # PyTorch, which arrays do not need

    data = load_data(dataset, data_dir, image_size=image_size, train=False)
    _check_labels(logs, dataset, np.asarray(data.test_labels), "give the data set that the logs are about")
    images = data.test_images[logs.idx[rows]]
    return images.reshape(len(images), -1)


def array_points(
    logs: Logs, source: str, rows: Int64[np.ndarray, " m"] | slice = slice(None)
) -> Float32[np.ndarray, "m d"]:
    """Return these rows' images from an array of the whole test set, image idx in row idx; pixels in [0, 1]."""
    images = read_array(source, ("points", "images"))
    if images.ndim < 2 or logs.idx[-1] >= len(images):
        raise ValueError(f"{source} has shape {images.shape}: the logs need image {logs.idx[-1]}, one in each row")
    chosen = logs.idx[rows]
    return as_pixels(images[chosen].reshape(len(chosen), -1), source)


def _folder_points(
    logs: Logs, root: Path, size: int | None, order: str, rows: Int64[np.ndarray, " m"] | slice
) -> Float32[np.ndarray, "m d"]:
    from training import image_folder

    data = image_folder(root, image_size=size, train=False)
    if order == "class":
        if (logs.idx != np.arange(len(logs.idx))).any():
            raise ValueError(f"{logs.files[0]} leaves images out: --image-order class needs a log of every image")
        chosen = _nth_of_class(logs, root, data.test_labels)
    else:
        remedy = "if files are numbered within their class, give --image-order class"
        _check_labels(logs, str(root), data.test_labels, remedy)
        chosen = logs.idx
    images = np.asarray(data.test_images[chosen[rows]])
    return images.reshape(len(images), -1)


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
