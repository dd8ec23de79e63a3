"""Data sets: images in [0, 1], labels beside them, a fixed split. Arrays, or folders read as they are asked."""

import math
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from training.pictures import read_picture, with_channels

#: Decides which digits are test images. Fixed, so that "test image 17" is the same image in every run.
SPLIT_SEED = 0


class FolderImages:
    """Images in files, decoded when they are asked for: `images[indices]` is a float32 array as of an array of images.

    Parameters
    ----------
    files : sequence of path
        Pictures, as `pictures.read_picture` takes them: RGB, or grey, which is then given as three equal channels.
    image_size : int, optional
        Scale the shorter side to this and take the middle square. Otherwise all must be as large as the first.
    """

    def __init__(self, files: Sequence[str | os.PathLike[str]], *, image_size: int | None = None) -> None:
        self.files = tuple(map(Path, files))
        self._size = image_size
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
        return FolderImages([self.files[i] for i in which], image_size=self._size)

    def _read(self, file: Path, shape: tuple[int, ...] | None) -> Float32[np.ndarray, "3 h w"]:
        pixels = with_channels(read_picture(file, size=self._size), 3, file)
        if shape is not None and pixels.shape != shape:
            raise ValueError(
                f"{file} has {pixels.shape[2]}x{pixels.shape[1]} pixels, the first image {shape[2]}x{shape[1]}: "
                "give an image size that all are scaled to"
            )
        return pixels


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
    class_names : tuple of str, optional
        What the classes are called, in their order, where that is known.
    """

    name: str
    num_classes: int
    _: KW_ONLY
    train_images: Float32[np.ndarray, "train c h w"] | FolderImages
    train_labels: Int64[np.ndarray, " train"]
    test_images: Float32[np.ndarray, "test c h w"] | FolderImages
    test_labels: Int64[np.ndarray, " test"]
    class_names: tuple[str, ...] | None = None


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
    folder = Path(root) / "MNIST" / "raw"
    names = {part: (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")}
    wanted = [part for part in ("train", "t10k") if train or part == "t10k"]
    files = [name for part in wanted for name in names[part]]
    if not all((folder / name).is_file() for name in files):
        remedy = f"put {', '.join(files[:-1])} and {files[-1]} into {folder}"
        if not download:
            raise ValueError(f"{root} holds no readable MNIST: {remedy}, unpacked, or ask for the download")
        _download_mnist(root, remedy)
    parts = {part: _idx_pair(*(folder / name for name in names[part])) for part in wanted}
    test_images, test_labels = parts["t10k"]
    train_images, train_labels = parts.get("train", (test_images[:0], test_labels[:0]))
    if train_images.shape[1:] != test_images.shape[1:]:
        large, small = ("x".join(map(str, images.shape[2:])) for images in (train_images, test_images))
        raise ValueError(f"{folder}: training images of {large} and test images of {small}: need one data set's files")
    return ImageData(
        "mnist",
        10,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
    )


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
    return ImageData(
        "cifar10",
        10,
        train_images=images[0],
        train_labels=labels[0],
        test_images=images[1],
        test_labels=labels[1],
        class_names=tuple(test.classes),
    )


def image_folder(root: str | os.PathLike[str], *, image_size: int | None = None, train: bool = True) -> ImageData:
    """Find the images of a folder `{train,test}/{class}/FILE`; `val` may stand for `test`. Read when they are used.

    Classes and images are numbered as by `torchvision.datasets.ImageFolder` over each part: classes are its folders,
    sorted; a class's images are all files below its folder that end in one of `IMAGE_SUFFIXES`, sorted by folder, then
    name. A picture that this leaves out is warned about.

    Parameters
    ----------
    root : path
        The folder that holds both parts, with the same classes.
    image_size : int, optional
        As in `FolderImages`.
    train : bool, default=True
        Whether training images are wanted. Without, there are none; `root` needs no part `train`, and may be the folder
        of the test images' classes itself.

    Raises
    ------
    ValueError
        Where a part, a class or a class's images are missing, or where the classes of the parts differ.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise ValueError(f"imagefolder:{folder}: there is no such folder; name one that holds {{train,test}}/CLASS/")
    test = next((folder / part for part in ("test", "val") if (folder / part).is_dir()), folder)
    if test == folder and (train or (folder / "train").is_dir()):
        missing = "test" if (folder / "train").is_dir() else "train"
        raise ValueError(f"{folder} has no folder {missing}: put images into {folder}/{{train,test}}/CLASS/")
    if train and not (folder / "train").is_dir():
        raise ValueError(f"{folder} has no folder train: put images into {folder}/{{train,test}}/CLASS/")
    names = _class_names(test)
    if (folder / "train").is_dir():
        odd = sorted(set(names) ^ set(_class_names(folder / "train")))
        if odd:
            raise ValueError(f"{folder}: train and {test.name} differ in {odd[0]}; need the same folders in both")
    test_images, test_labels = _numbered(test, names, image_size)
    train_images: np.ndarray | FolderImages = np.empty((0, *test_images.shape[1:]), np.float32)
    train_labels = test_labels[:0]
    if train:
        train_images, train_labels = _numbered(folder / "train", names, image_size)
    return ImageData(
        f"imagefolder:{folder.name}",
        len(names),
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=tuple(names),
    )


#: What names a data set besides `imagefolder:PATH`.
DATASETS = ("digits", "mnist", "cifar10")

#: Endings of the files that `torchvision.datasets.ImageFolder` takes for images, large or small.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

#: Endings of pictures that it leaves out.
_OTHER_SUFFIXES = (
    ".gif", ".jfif", ".jpe", ".jif", ".jp2", ".apng", ".dib", ".pbm", ".pnm", ".tga", ".ico", ".avif", ".heic", ".heif",
)  # fmt: skip


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
        One of `DATASETS`, or `imagefolder:PATH`.
    root : path
        Where the files of MNIST and CIFAR-10 are.
    download : bool, default=False
        Fetch MNIST or CIFAR-10 where it is not there.
    image_size : int, optional
        Side that images of a folder are scaled to.
    train : bool, default=True
        Whether training images are wanted. Without, a folder or MNIST may lack them, and none may be there.

    Raises
    ------
    ValueError
        For a name that is not known, and where files are missing.
    """
    kind, _, path = name.partition(":")
    if image_size is not None and kind != "imagefolder":
        raise ValueError(f"image size {image_size}: {name} has a size of its own; leave it out")
    if kind == "imagefolder" and path:
        return image_folder(path, image_size=image_size, train=train)
    if name == "digits":
        return digits()
    if name == "mnist":
        return mnist(root, download=download, train=train)
    if name == "cifar10":
        return cifar10(root, download=download)
    raise ValueError(f"dataset {name!r}: choose {', '.join(DATASETS)} or imagefolder:PATH")


def _class_names(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not names:
        raise ValueError(f"{folder} holds no folder of images: need one for each class")
    return names


def _numbered(folder: Path, names: list[str], size: int | None) -> tuple[FolderImages, Int64[np.ndarray, " n"]]:
    """Return all images of a folder of classes, and their classes."""
    files: list[Path] = []
    labels: list[int] = []
    ignored = [
        file
        for file in sorted(folder.iterdir())
        if _ends(file.name, IMAGE_SUFFIXES + _OTHER_SUFFIXES) and not file.is_dir()
    ]
    for k, name in enumerate(names):
        below = _below(folder / name)
        found = [file for file in below if _ends(file.name, IMAGE_SUFFIXES)]
        if not found:
            raise ValueError(
                f"{folder / name} holds no image ({', '.join(IMAGE_SUFFIXES)}), but each folder counts as a class: put "
                "some in, or remove the folder"
            )
        ignored += [file for file in below if _ends(file.name, _OTHER_SUFFIXES)]
        files += found
        labels += [k] * len(found)
    if ignored:
        warnings.warn(
            f"{folder}: pictures are left out, as by ImageFolder: {len(ignored)}, such as {ignored[0]}; images lie in "
            f"a class's folder and end in {', '.join(IMAGE_SUFFIXES)}",
            stacklevel=3,
        )
    return FolderImages(files, image_size=size), np.array(labels, dtype=np.int64)


def _ends(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes)


def _below(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted by their folder, then name."""
    seen: set[str] = set()
    found = []
    for path, _, names in os.walk(folder, onerror=_complain, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:
            raise ValueError(f"{path} leads to {real}, whose images are listed already: remove this link")
        seen.add(real)
        found.append((path, names))
    return [Path(path) / name for path, names in sorted(found) for name in sorted(names)]


def _complain(error: OSError) -> None:
    raise error


def _idx_pair(image_file: Path, label_file: Path) -> tuple[Float32[np.ndarray, "n 1 h w"], Int64[np.ndarray, " n"]]:
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
    return (images / np.float32(255))[:, None], labels.astype(np.int64)


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


def _download_mnist(root: str | os.PathLike[str], remedy: str) -> None:
    from torchvision.datasets import MNIST  # a second to import

    try:
        MNIST(Path(root), download=True)
    except (RuntimeError, ValueError, OSError, AssertionError) as error:
        raise ValueError(f"MNIST cannot be downloaded ({error}): {remedy}") from error


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
