"""Data sets of the user's own: any map-style data set of (image, label), read item by item, each checked."""

import math
from collections.abc import Mapping, Sized
from typing import Any, TypeGuard

import numpy as np
from jaxtyping import Float32, Int64
from torch import Tensor
from torch.utils.data import Subset

from smoothing.forward import one_line
from training.byte_images import PIXELS
from training.data import ImageData, StreamedImages
from training.factories import factory_of
from training.pictures import values_of, with_channels

#: Names of the image and of its class in an item that is a dict, the first that is there.
IMAGE_COLUMNS = ("image", "img", "pixel_values")
LABEL_COLUMNS = ("label", "labels", "fine_label", "target", "class")

#: Kinds of data sets that are no code: `KIND:PATH`.
PATH_KINDS = ("imagefolder", "hf")


def is_own_dataset(name: object) -> TypeGuard[str]:
    """Whether a data set's name is `package.module:factory`. No file may ask for that: the user names it."""
    return isinstance(name, str) and ":" in name and name.partition(":")[0] not in PATH_KINDS


class DatasetImages(StreamedImages):
    """The images of a map-style data set, read one after the other when they are asked for.

    Parameters
    ----------
    dataset : map-style data set
        `len(dataset)` items; `dataset[i]` is (image, label), or a dict with one of `IMAGE_COLUMNS` and one of
        `LABEL_COLUMNS`, and always the same. An image is a Pillow image of 8 bits a channel; a tensor (C, H, W) or an
        array (H, W, C), (C, H, W) or (H, W), uint8 or floats in [0, 1]. C is 1 or 3; a grey image among those of three
        channels has three equal ones. A label is a whole number.
    name : str
        What errors call it.
    num_classes : int
        Labels are 0 to num_classes - 1.
    image_size : int, optional
        Scale the shorter side of Pillow images to this and take the middle square. Otherwise all images must be as
        large as the first.

    Attributes
    ----------
    labels : int64 array of shape (n,)
        What `dataset.targets` or `dataset.labels` says, compared with each item that is read; without one of them all
        items are read to begin with.

    Raises
    ------
    ValueError
        Naming the first item that is no such thing.
    """

    labels: Int64[np.ndarray, " n"]

    def __init__(self, dataset: Any, name: str, *, num_classes: int, image_size: int | None = None) -> None:
        self._dataset, self._name, self._classes, self._size = dataset, name, num_classes, image_size
        if not hasattr(dataset, "__len__"):
            raise ValueError(
                f"{name}: a {type(dataset).__name__} has no length: need a map-style data set, with len and [i]"
            )
        with one_line(f"{name}: its length cannot be read"):
            n = len(dataset)
        if not n:
            raise ValueError(f"{name}: holds no item")
        first, _ = self._item(0)
        super().__init__(np.arange(n), first.shape)
        with one_line(f"{name}: its list of labels cannot be read"):
            stated = _stated_labels(dataset)
        if stated is None:
            self.labels = np.array([self._checked(i)[1] for i in range(n)], dtype=np.int64)
        else:
            self.labels = np.array([self._label(label, self._where(i)) for i, label in enumerate(stated)], np.int64)

    def read(self, rows: Int64[np.ndarray, " b"]) -> list[Float32[np.ndarray, "c h w"]]:
        """Return the images of these items, one after the other: a data set need not stand several threads."""
        return [self._checked(row)[0] for row in rows.tolist()]

    def _where(self, row: int) -> str:
        return f"{self._name} item {row}"

    def _checked(self, row: int) -> tuple[Float32[np.ndarray, "c h w"], int]:
        """Return image and label of an item that is like the first, and has the label that is known."""
        image, label = self._item(row)
        where = self._where(row)
        image = with_channels(image, self._image_shape[0], where)
        if image.shape != self._image_shape:
            theirs, ours = ("x".join(map(str, shape)) for shape in (image.shape, self._image_shape))
            raise ValueError(
                f"{where} is an image of {theirs}, item 0 of {ours}: all must have one size; {self._remedy}"
            )
        known = getattr(self, "labels", None)
        if known is not None and label != known[row]:
            raise ValueError(
                f"{where} has label {label}, but the data set's list of labels says {known[row]}: make them agree"
            )
        return image, label

    @property
    def _remedy(self) -> str:
        return "give an image size that all are scaled to, or resize them in the data set"

    def _item(self, row: int) -> tuple[Float32[np.ndarray, "c h w"], int]:
        where = self._where(row)
        with one_line(f"{where} cannot be read"):
            item = self._dataset[row]
        image, label = _pair(item, where)
        return values(image, where, self._size), self._label(label, where)

    def _label(self, label: Any, where: str) -> int:
        return check_label(label, where, self._classes)


def own_dataset(name: str, *, image_size: int | None = None, train: bool = True) -> ImageData:
    """Call a factory of the user's own, with "train" and "test", for the data sets of training and test images.

    Parameters
    ----------
    name : str
        `package.module:factory`: its module is imported, which runs it.
    image_size : int, optional
        As in `DatasetImages`.
    train : bool, default=True
        Whether training images are wanted; without, the factory is called with "test" alone.

    Raises
    ------
    ValueError
        Where it cannot be called, and where what it returns is no such data set, or does not say how many classes there
        are: by `classes`, a list of their names, by `num_classes`, or by a feature with names, as Hugging Face has it.
    """
    factory = factory_of(name, name)
    parts = {}
    for split in ("train", "test") if train else ("test",):
        with one_line(f"{name}: calling it with {split!r} failed"):
            parts[split] = factory(split)
    counts = {split: _classes_of(part, f"{name} {split}") for split, part in parts.items()}
    if train and counts["train"] != counts["test"]:
        raise ValueError(f"{name}: the classes of train are not those of test: give both the same, in the same order")
    num_classes, class_names = counts["test"]
    images = {
        split: DatasetImages(part, f"{name} {split}", num_classes=num_classes, image_size=image_size)
        for split, part in parts.items()
    }
    test = images["test"]
    if train and images["train"].shape[1:] != test.shape[1:]:
        large, small = ("x".join(map(str, images[split].shape[1:])) for split in ("train", "test"))
        raise ValueError(f"{name}: training images of {large} and test images of {small}: make them of one size")
    return ImageData(
        name,
        num_classes,
        train_images=images["train"] if train else np.empty((0, *test.shape[1:]), np.float32),
        train_labels=images["train"].labels if train else test.labels[:0],
        test_images=test,
        test_labels=test.labels,
        class_names=class_names,
    )


def values(image: Any, where: str, size: int | None) -> Float32[np.ndarray, "c h w"]:
    """Return somebody's image as float32 of shape (C, H, W), pixels in [0, 1]; `DatasetImages` says what it may be."""
    from PIL import Image

    if isinstance(image, Image.Image):
        return values_of(image, where, size=size)
    if not isinstance(image, Tensor | np.ndarray):
        raise ValueError(f"{where}: the image is a {type(image).__name__}: expected a PIL image, a tensor or an array")
    with one_line(f"{where} cannot be read"):
        image = image.detach().cpu() if isinstance(image, Tensor) else image
    array = _channels_first(image, where)
    if size is not None and array.shape[1:] != (size, size):
        raise ValueError(f"{where} is no PIL image, which alone is scaled: resize it in the data set to {size}x{size}")
    if array.dtype == np.uint8:
        return np.asarray(PIXELS[array])
    if array.dtype.kind != "f":
        raise ValueError(f"{where} holds {array.dtype}: expected uint8 from 0 to 255, or floats in [0, 1]")
    inside = (array >= 0) & (array <= 1)  # false for NaN too
    if not inside.all():
        raise ValueError(
            f"{where} has a pixel of {float(array[~inside][0]):g}: they are in [0, 1], or uint8; leave normalising to "
            "the model"
        )
    return np.ascontiguousarray(array, dtype=np.float32)


def check_label(label: Any, where: str, num_classes: int) -> int:
    """Return a label as a number from 0 to num_classes - 1, or say what is wrong with it."""
    plain = label
    if isinstance(label, Tensor | np.ndarray | np.generic) and math.prod(label.shape) == 1:
        plain = label.item()
    if isinstance(plain, bool) or not isinstance(plain, int):
        shown = f"{plain!r:.40}" if isinstance(plain, str | float | bool) else f"a {type(plain).__name__}"
        raise ValueError(f"{where} has the label {shown}: expected a whole number, the class from 0 on")
    if not 0 <= plain < num_classes:
        raise ValueError(f"{where} has label {plain}, but there are {num_classes} classes, 0 to {num_classes - 1}")
    return plain


def column(names: tuple[str, ...], there: Any) -> str | None:
    """Return the first of the names that is there."""
    return next((name for name in names if name in there), None)


def _pair(item: Any, where: str) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        image, label = column(IMAGE_COLUMNS, item), column(LABEL_COLUMNS, item)
        if image is None or label is None:
            held = ", ".join(map(str, list(item)[:6]))
            raise ValueError(f"{where} holds {held}: expected image and label, or return (image, label)")
        return item[image], item[label]
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    held = f"{len(item)} values" if isinstance(item, tuple | list) else f"a {type(item).__name__}"
    raise ValueError(f"{where} is {held}: expected (image, label), or a dict with image and label")


def _channels_first(image: Tensor | np.ndarray, where: str) -> np.ndarray:
    """Return an image's array as (C, H, W)."""
    tensor = isinstance(image, Tensor)
    with one_line(f"{where}: the image cannot be read"):
        array = image.float().numpy() if isinstance(image, Tensor) and image.is_floating_point() else np.asarray(image)
    if array.ndim == 2 and array.size:
        return array[None]
    first, last = (array.ndim == 3 and array.shape[axis] in (1, 3) for axis in (0, -1))
    if not (first or last) or 0 in array.shape:
        raise ValueError(f"{where} has an image of shape {array.shape}: expected (C, H, W) or (H, W, C), C = 1 or 3")
    if first and last and not tensor and array.size > 1:
        raise ValueError(
            f"{where} has an array of shape {array.shape}, whose channels may be first or last: return a tensor "
            "(C, H, W)"
        )
    return array if first else array.transpose(2, 0, 1)


def _stated_labels(dataset: Any) -> Any:
    """Return what a data set says about all labels without being read; None where it says nothing."""
    if isinstance(dataset, Subset):
        inner = _stated_labels(dataset.dataset)
        return None if inner is None else [inner[i] for i in dataset.indices]
    named = column(LABEL_COLUMNS, getattr(dataset, "column_names", None) or ())
    found: Any = dataset[named] if named is not None else getattr(dataset, "targets", getattr(dataset, "labels", None))
    if not isinstance(found, Sized) or len(found) != len(dataset):
        return None
    labels: Any = found
    return list(labels)


def _classes_of(dataset: Any, where: str) -> tuple[int, tuple[str, ...] | None]:
    """Return how many classes a data set says there are, and what they are called where it says that."""
    if isinstance(dataset, Subset):
        return _classes_of(dataset.dataset, where)
    with one_line(f"{where}: its classes cannot be read"):
        features = getattr(dataset, "features", None)
        names = getattr(dataset, "classes", None)
        if isinstance(features, Mapping) and (named := column(LABEL_COLUMNS, features)) is not None:
            names = getattr(features[named], "names", None)
        if isinstance(names, list | tuple) and names:
            return len(names), tuple(map(str, names))
        count = getattr(dataset, "num_classes", None)
    if isinstance(count, int | np.integer) and not isinstance(count, bool) and count > 0:
        return int(count), None
    raise ValueError(
        f"{where}: a {type(dataset).__name__} does not say how many classes there are: give it num_classes, or "
        "classes, a list of their names"
    )
