"""What a data set is: images in [0, 1], labels beside them, a fixed split. And folders of images as one."""

import copy
import os
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32, Int64

from smoothing.images import ImageSource
from smoothing.limits import MOST_CLASSES
from training.byte_images import ByteImages, as_bytes
from training.pictures import read_picture, with_channels


class StreamedImages(ImageSource):
    """Images that are read when they are asked for: `images[indices]` is a float32 array as of an array of images.

    Parameters
    ----------
    rows : int array of shape (n,)
        Which images of the source these are, by the source's numbers.
    image_shape : tuple (C, H, W)
    """

    def __init__(self, rows: Int64[np.ndarray, " n"], image_shape: tuple[int, ...]) -> None:
        self.rows = rows
        self._image_shape = image_shape

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (n, C, H, W).

        :meta private:
        """
        return (len(self.rows), *self._image_shape)

    def __getitem__(self, which: slice | Int64[np.ndarray, " b"]) -> Float32[np.ndarray, "b c h w"]:
        images = self.read(self.rows[which])
        return np.stack(images) if images else np.empty((0, *self._image_shape), np.float32)

    def subset(self, which: Int64[np.ndarray, " b"]) -> "StreamedImages":
        """Return these images, still unread."""
        part = copy.copy(self)
        part.rows = self.rows[which]
        return part

    @abstractmethod
    def read(self, rows: Int64[np.ndarray, " b"]) -> list[Float32[np.ndarray, "c h w"]]:
        """Return the images of these numbers, all of the same shape, or raise `ValueError` that names a wrong one."""


class FolderImages(StreamedImages):
    """Images in files, decoded when they are asked for.

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
        super().__init__(np.arange(len(self.files)), self._read(self.files[0], None).shape)

    def read(self, rows: Int64[np.ndarray, " b"]) -> list[Float32[np.ndarray, "3 h w"]]:
        """Return the images of these files; several are decoded at once."""
        with ThreadPoolExecutor() as pool:
            return list(pool.map(lambda row: self._read(self.files[row], self._image_shape), rows.tolist()))

    def _read(self, file: Path, shape: tuple[int, ...] | None) -> Float32[np.ndarray, "3 h w"]:
        pixels = with_channels(read_picture(file, size=self._size), 3, file)
        if shape is not None and pixels.shape != shape:
            raise ValueError(
                f"{file} has {pixels.shape[2]}x{pixels.shape[1]} pixels, the first image {shape[2]}x{shape[1]}: "
                "give an image size that all are scaled to"
            )
        return pixels


#: Images of a data set, in memory or not; all of them give `images[indices]` as float32 in [0, 1].
Images: TypeAlias = Float32[np.ndarray, "_ _ _ _"] | ByteImages | StreamedImages


def compact(images: Images) -> Images:
    """Return the images, those of an array as bytes where that loses nothing."""
    return (as_bytes(images) or images) if isinstance(images, np.ndarray) else images


def subset(images: Images, which: Int64[np.ndarray, " b"]) -> Images:
    """Return some of the images, kept as they were."""
    return images[which] if isinstance(images, np.ndarray) else images.subset(which)


@dataclass(frozen=True, eq=False)
class ImageData:
    """Training and test images with their labels.

    Attributes
    ----------
    name : str
        What the data set is called in reports.
    num_classes : int
        Labels are 0 to num_classes - 1.
    train_images, test_images : float32 arrays of shape (n, C, H, W), ByteImages or StreamedImages
        Pixels in [0, 1], never normalised: normalisation belongs to the model.
    train_labels, test_labels : int64 arrays of shape (n,)
        True classes.
    class_names : tuple of str, optional
        What the classes are called, in their order, where that is known.
    """

    name: str
    num_classes: int
    _: KW_ONLY
    train_images: Images
    train_labels: Int64[np.ndarray, " train"]
    test_images: Images
    test_labels: Int64[np.ndarray, " test"]
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.num_classes <= MOST_CLASSES:
            raise ValueError(
                f"{self.name} has {self.num_classes:,} classes, of at most {MOST_CLASSES:,}: number them 0, 1, 2, ..."
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
    train_images: Images = np.empty((0, *test_images.shape[1:]), np.float32)
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


#: Endings of the files that `torchvision.datasets.ImageFolder` takes for images, large or small.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")

#: Endings of pictures that it leaves out.
_OTHER_SUFFIXES = (
    ".gif", ".jfif", ".jpe", ".jif", ".jp2", ".apng", ".dib", ".pbm", ".pnm", ".tga", ".ico", ".avif", ".heic", ".heif",
)  # fmt: skip


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
