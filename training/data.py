"""Data sets: images in [0, 1], labels beside them, a fixed split. Arrays, or folders read as they are asked."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

#: Decides which digits are test images. Fixed, so that "test image 17" is the same image in every run.
SPLIT_SEED = 0


class FolderImages:
    """Images in files, decoded when they are asked for: `images[indices]` is a float32 array as of an array of images.

    Parameters
    ----------
    files : sequence of path
        Anything that Pillow reads; turned into RGB.
    size : int, optional
        Scale the shorter side to this and take the middle square. Otherwise all must be as large as the first.
    """

    def __init__(self, files: Sequence[str | os.PathLike[str]], size: int | None = None) -> None:
        self.files = tuple(map(Path, files))
        self._size = size
        self.shape = (len(self.files), *self._read(self.files[0], None).shape)
        """Shape (n, 3, H, W)."""

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, which: slice | Int64[np.ndarray, " b"]) -> Float32[np.ndarray, "b 3 h w"]:
        files = self.files[which] if isinstance(which, slice) else [self.files[i] for i in which]
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(lambda file: self._read(file, self.shape[1:]), files))
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), np.float32)

    def subset(self, which: Int64[np.ndarray, " b"]) -> "FolderImages":
        """Return these images, still in their files."""
        return FolderImages([self.files[i] for i in which], self._size)

    def _read(self, file: Path, shape: tuple[int, ...] | None) -> Float32[np.ndarray, "3 h w"]:
        from PIL import Image, ImageOps, UnidentifiedImageError

        try:
            with Image.open(file) as opened:
                image = opened.convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{file}: not a readable image; remove or replace it") from error
        if self._size is not None:
            image = ImageOps.fit(image, (self._size, self._size), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
        if shape is not None and pixels.shape != shape:
            raise ValueError(
                f"{file} has {pixels.shape[2]}x{pixels.shape[1]} pixels, the first image {shape[2]}x{shape[1]}: "
                "give an image size that all are scaled to"
            )
        return np.ascontiguousarray(pixels)


@dataclass(frozen=True, eq=False)
class ImageData:
    """Training and test images with their labels.

    Attributes
    ----------
    name : str
        What the data set is called in reports.
    num_classes : int
        Labels are 0 to num_classes - 1.
    train_images, test_images : float32 arrays of shape (n, C, H, W), or FolderImages
        Pixels in [0, 1], never normalised: normalisation belongs to the model.
    train_labels, test_labels : int64 arrays of shape (n,)
        True classes.
    """

    name: str
    num_classes: int
    train_images: Float32[np.ndarray, "train c h w"] | FolderImages
    train_labels: Int64[np.ndarray, " train"]
    test_images: Float32[np.ndarray, "test c h w"] | FolderImages
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


def mnist(root: str | os.PathLike[str], *, download: bool = False) -> ImageData:
    """Read MNIST's 60,000 + 10,000 handwritten digits, 28x28 with 256 grey levels.

    Parameters
    ----------
    root : path
        The folder that holds `MNIST/raw/` with the four files of the data set, as torchvision lays them out.
    download : bool, default=False
        Fetch them where they are not there.

    Raises
    ------
    ValueError
        Where they are not there, or damaged.
    """
    from torchvision.datasets import MNIST  # a second to import

    files = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte"
    train, test = _torchvision(MNIST, root, download, f"put {files} into {Path(root) / 'MNIST' / 'raw'}")
    images = [(part.data.numpy() / np.float32(255))[:, None] for part in (train, test)]
    labels = [part.targets.numpy().astype(np.int64) for part in (train, test)]
    return ImageData("mnist", 10, images[0], labels[0], images[1], labels[1])


def cifar10(root: str | os.PathLike[str], *, download: bool = False) -> ImageData:
    """Read CIFAR-10's 50,000 + 10,000 colour images of 32x32 pixels.

    Parameters
    ----------
    root : path
        The folder that holds `cifar-10-batches-py/` with the Python version of the data set. torchvision unpickles
        those files, after comparing them with their published checksums.
    download : bool, default=False
        Fetch them where they are not there.

    Raises
    ------
    ValueError
        Where they are not there, or damaged.
    """
    from torchvision.datasets import CIFAR10  # a second to import

    folder = Path(root) / "cifar-10-batches-py"
    train, test = _torchvision(
        CIFAR10, root, download, f"put data_batch_1 to data_batch_5, test_batch and batches.meta into {folder}"
    )
    images = [np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)) / np.float32(255) for part in (train, test)]
    labels = [np.array(part.targets, dtype=np.int64) for part in (train, test)]
    return ImageData("cifar10", 10, images[0], labels[0], images[1], labels[1])


def image_folder(root: str | os.PathLike[str], *, size: int | None = None) -> ImageData:
    """Find the images of a folder `{train,test}/{class}/FILE`; `val` may stand for `test`. Read when they are used.

    Parameters
    ----------
    root : path
        The folder that holds both parts, with the same classes; class and file names are sorted.
    size : int, optional
        As in `FolderImages`.

    Raises
    ------
    ValueError
        Where a part or its images are missing, or the classes differ.
    """
    folder = Path(root)
    test = "val" if not (folder / "test").is_dir() and (folder / "val").is_dir() else "test"
    classes = {}
    for part in ("train", test):
        if not (folder / part).is_dir():
            raise ValueError(f"{folder} has no folder {part}: put images into {folder}/{{train,test}}/CLASS/")
        classes[part] = sorted(entry.name for entry in (folder / part).iterdir() if entry.is_dir())
    names = classes["train"]
    if not names or classes[test] != names:
        odd = sorted(set(names) ^ set(classes[test]))
        raise ValueError(
            f"{folder}: {'train and ' + test + ' differ in ' + odd[0] if odd else 'no class'}; need the "
            f"same folders of classes in both"
        )
    found = {
        part: [(file, k) for k, name in enumerate(names) for file in _image_files(folder / part / name)]
        for part in classes
    }
    for part, pairs in found.items():
        if not pairs:
            raise ValueError(f"{folder / part} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    images = [FolderImages([file for file, _ in found[part]], size) for part in ("train", test)]
    labels = [np.array([k for _, k in found[part]], dtype=np.int64) for part in ("train", test)]
    return ImageData(f"imagefolder:{folder.name}", len(names), images[0], labels[0], images[1], labels[1])


#: What names a data set besides `imagefolder:PATH`.
DATASETS = ("digits", "mnist", "cifar10")

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})


def load_data(
    name: str, root: str | os.PathLike[str], *, download: bool = False, image_size: int | None = None
) -> ImageData:
    """Load a data set by its name.

    Parameters
    ----------
    name : str
        One of `DATASETS`, or `imagefolder:PATH`.
    root : path
        Where the files of MNIST and CIFAR-10 are.
    download : bool, default=False
        Fetch MNIST or CIFAR-10 where it is not there.
    image_size : int, optional
        Side that images of a folder are scaled to.

    Raises
    ------
    ValueError
        For a name that is not known, and where files are missing.
    """
    kind, _, path = name.partition(":")
    if image_size is not None and kind != "imagefolder":
        raise ValueError(f"image size {image_size}: {name} has a size of its own; leave it out")
    if kind == "imagefolder" and path:
        return image_folder(path, size=image_size)
    if name == "digits":
        return digits()
    if name in ("mnist", "cifar10"):
        return (mnist if name == "mnist" else cifar10)(root, download=download)
    raise ValueError(f"dataset {name!r}: choose {', '.join(DATASETS)} or imagefolder:PATH")


def _image_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)


def _torchvision(
    kind: Callable[..., Any], root: str | os.PathLike[str], download: bool, remedy: str
) -> tuple[Any, Any]:
    """Return training and test part of a torchvision data set."""
    try:
        train, test = (kind(Path(root), train=part, download=download) for part in (True, False))
    except (RuntimeError, ValueError, OSError) as error:
        name = getattr(kind, "__name__", "data set")
        if download:
            raise ValueError(f"{name} cannot be downloaded ({error}): {remedy}") from error
        raise ValueError(f"{root} holds no readable {name}: {remedy}, or ask for the download") from error
    return train, test
