import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from torch.utils.data import Subset, TensorDataset

from training import DatasetImages, is_own_dataset, load_data
from training.own_datasets import values


class Items:
    """A map-style data set of what it is given; counts what is read."""

    def __init__(self, items, classes=None, **said):
        self.items, self.read = items, []
        if classes is not None:
            self.classes = classes
        for name, value in said.items():
            setattr(self, name, value)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, at):
        self.read.append(at)
        return self.items[at]


PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
EXPECTED = PIXELS.transpose(0, 3, 1, 2) / np.float32(255)
LABELS = [1, 0, 2, 1]


def of(items, **kwargs):
    return DatasetImages(Items(items, **kwargs), "own:set test", num_classes=3)


AS = {
    "picture": Image.fromarray,
    "array, channels last": lambda pixels: pixels,
    "array, channels first": lambda pixels: pixels.transpose(2, 0, 1),
    "tensor": lambda pixels: torch.from_numpy(pixels.transpose(2, 0, 1).copy()),
    "tensor, channels last": torch.from_numpy,
    "floats": lambda pixels: torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(255)),
    "doubles": lambda pixels: (pixels / np.float32(255)).astype(np.float64),
}


@pytest.mark.parametrize("how", AS.values(), ids=AS)
@pytest.mark.parametrize("item", [lambda x, y: (x, y), lambda x, y: [x, y], lambda x, y: {"img": x, "fine_label": y}])
def test_every_kind_of_item_gives_the_same_floats(how, item):
    images = of([item(how(pixels), label) for pixels, label in zip(PIXELS, LABELS, strict=True)])
    assert images.shape == (4, 3, 6, 5)
    assert images.labels.tolist() == LABELS
    assert images[:].dtype == np.float32
    np.testing.assert_array_equal(images[:], EXPECTED)
    np.testing.assert_array_equal(images[np.array([3, 1])], EXPECTED[[3, 1]])
    np.testing.assert_array_equal(images.subset(np.array([2, 0, 1]))[1:], EXPECTED[[0, 1]])
    assert images[:0].shape == (0, 3, 6, 5)


@given(hnp.arrays(np.uint8, (4, 2)))
def test_grey_images_may_lack_their_channel(pixels):
    expected = (pixels / np.float32(255))[None]
    for image in (pixels, torch.from_numpy(pixels), Image.fromarray(pixels)):
        np.testing.assert_array_equal(values(image, "item", None), expected)


@given(
    hnp.arrays(np.float32, (2, 2, 1), elements=st.floats(width=32)),
    st.sampled_from([np.asarray, torch.from_numpy]),
)
def test_floats_are_in_the_unit_interval_or_refused(pixels, how):
    if np.all((pixels >= 0) & (pixels <= 1)):
        np.testing.assert_array_equal(values(how(pixels), "item", None), pixels.transpose(2, 0, 1))
    else:
        with pytest.raises(ValueError, match=r"item has a pixel of .*leave normalising to the model"):
            values(how(pixels), "item", None)


def test_a_list_of_labels_spares_reading_every_item():
    dataset = Items(list(zip(map(Image.fromarray, PIXELS), LABELS, strict=True)), targets=torch.tensor(LABELS))
    images = DatasetImages(dataset, "own:set test", num_classes=3)
    assert dataset.read == [0]
    assert images.labels.tolist() == LABELS
    part = DatasetImages(Subset(dataset, [3, 2]), "own:set test", num_classes=3)
    assert part.labels.tolist() == [1, 2]
    np.testing.assert_array_equal(part[:], EXPECTED[[3, 2]])


def test_labels_that_contradict_the_list_are_refused_where_they_are_read():
    images = of(list(zip(PIXELS, LABELS, strict=True)), targets=[1, 0, 0, 1])
    with pytest.raises(ValueError, match="item 2 has label 2, but the data set's list of labels says 0"):
        images[np.array([2])]


def test_grey_among_colours_has_three_equal_channels():
    images = of([(PIXELS[0], 0), (Image.fromarray(PIXELS[1, :, :, 0]), 1)])
    np.testing.assert_array_equal(images[np.array([1])][0], np.repeat(EXPECTED[1, :1], 3, axis=0))


GOOD = (PIXELS[0], 0)
WRONG = {
    "no pair": (PIXELS[1], r"item 1 is a ndarray: expected \(image, label\)"),
    "three values": ((PIXELS[1], 0, "x"), r"item 1 is 3 values: expected \(image, label\)"),
    "other columns": ({"picture": 1, "label": 0}, "item 1 holds picture, label: expected image and label"),
    "a path": (("a.png", 0), "item 1: the image is a str: expected a PIL image, a tensor or an array"),
    "other size": ((PIXELS[1, :5], 0), "item 1 is an image of 3x5x5, item 0 of 3x6x5: all must have one size"),
    "channels": ((np.zeros((6, 5, 4), np.uint8), 0), r"shape \(6, 5, 4\): expected \(C, H, W\) or \(H, W, C\)"),
    "one dimension": ((np.zeros(30, np.uint8), 0), r"item 1 has an image of shape \(30,\)"),
    "ambiguous": ((np.zeros((3, 5, 3), np.uint8), 0), "channels may be first or last: return a tensor"),
    "integers": ((PIXELS[1].astype(np.int64), 0), "item 1 holds int64: expected uint8 from 0 to 255, or floats"),
    "normalised": ((EXPECTED[1] - np.float32(0.5), 0), "item 1 has a pixel of -0"),
    "not a number": ((np.full((6, 5, 3), np.nan), 0), "item 1 has a pixel of nan"),
    "transparent": ((Image.new("RGBA", (5, 6)), 0), "item 1 has transparent pixels"),
    "deep picture": ((Image.new("I;16", (5, 6)), 0), "item 1 is a I;16 image"),
    "label beyond": ((PIXELS[1], 3), "item 1 has label 3, but there are 3 classes, 0 to 2"),
    "negative label": ((PIXELS[1], -1), "item 1 has label -1"),
    "label of a float": ((PIXELS[1], 1.0), "item 1 has the label 1.0: expected a whole number"),
    "label of text": ((PIXELS[1], "ant"), "item 1 has the label 'ant': expected a whole number"),
    "label of truth": ((PIXELS[1], True), "item 1 has the label True"),
    "several labels": ((PIXELS[1], torch.tensor([0, 1])), "item 1 has the label a Tensor"),
}  # fmt: skip


@pytest.mark.parametrize(("item", "message"), WRONG.values(), ids=WRONG)
def test_an_item_that_is_none_is_named(item, message):
    with pytest.raises(ValueError, match=message) as caught:
        of([GOOD, item])
    assert str(caught.value).startswith("own:set test item 1")
    assert "\n" not in str(caught.value)


def test_a_colour_image_among_grey_ones_is_refused():
    with pytest.raises(ValueError, match="item 1 is a colour picture, but grey ones are needed"):
        of([(PIXELS[0, :, :, 0], 0), (PIXELS[1], 0)])


def test_what_is_no_map_style_data_set_is_refused():
    with pytest.raises(ValueError, match="own:set: a generator has no length: need a map-style data set"):
        DatasetImages((item for item in [GOOD]), "own:set", num_classes=3)
    with pytest.raises(ValueError, match="own:set: holds no item"):
        DatasetImages([], "own:set", num_classes=3)

    class Broken(Items):
        def __getitem__(self, at):
            raise OSError("disk is gone\nentirely")

    with pytest.raises(ValueError, match=r"own:set item 0 cannot be read: OSError: disk is gone$"):
        DatasetImages(Broken([1]), "own:set", num_classes=3)


class Failing(Items):
    """Fails where nothing but an item was asked for."""

    def __init__(self, items, where):
        super().__init__(items)
        self.where = where

    def __len__(self):
        if self.where == "length":
            raise RuntimeError("no length\nat all")
        return super().__len__()

    @property
    def targets(self):
        if self.where == "labels":
            raise RuntimeError("no labels\nat all")
        return None


@pytest.mark.parametrize("where", ["length", "labels"])
def test_what_fails_beside_items_is_one_line(where):
    with pytest.raises(ValueError, match=rf"own:set: its .*{where} cannot be read: RuntimeError: no {where}$"):
        DatasetImages(Failing([GOOD], where), "own:set", num_classes=3)


def test_a_tensor_without_numbers_is_one_line():
    with pytest.raises(ValueError, match="own:set item 0 cannot be read: NotImplementedError"):
        DatasetImages(Items([(torch.empty(1, 4, 4, device="meta"), 0)]), "own:set", num_classes=3)


FACTORY = """
import numpy as np, torch
from torch.utils.data import TensorDataset
calls = []

def sets(split):
    calls.append(split)
    rng = np.random.default_rng(len(split))
    found = TensorDataset(torch.from_numpy(rng.integers(0, 256, (5, 1, 4, 4), dtype=np.uint8)), torch.arange(5) % 3)
    found.classes = ["ant", "bee", "cat"]
    return found

def without_classes(split):
    return TensorDataset(torch.zeros(2, 1, 4, 4), torch.arange(2))

def counted(split):
    found = without_classes(split)
    found.num_classes = 2 if split == "test" else 3
    return found

def fails(split):
    raise KeyError(split)

def grows(split):
    found = TensorDataset(torch.zeros(2, 1, 4, 4 + (split == "train")), torch.arange(2))
    found.num_classes = 2
    return found
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_sets.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_sets", None)


@pytest.mark.usefixtures("own")
def test_a_factory_is_called_for_its_parts():
    data = load_data("own_sets:sets", "data")
    assert (data.name, data.num_classes, data.class_names) == ("own_sets:sets", 3, ("ant", "bee", "cat"))
    assert (data.train_images.shape, data.test_images.shape) == ((5, 1, 4, 4), (5, 1, 4, 4))
    assert data.test_labels.tolist() == [0, 1, 2, 0, 1]
    load_data("own_sets:sets", "data", train=False)
    assert sys.modules["own_sets"].calls == ["train", "test", "test"]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_sets:without_classes", "train: a TensorDataset does not say how many classes there are: give it num_cl"),
        ("own_sets:counted", "the classes of train are not those of test"),
        ("own_sets:fails", "calling it with 'train' failed: KeyError: 'train'"),
        ("own_sets:grows", "training images of 1x4x5 and test images of 1x4x4"),
        ("own_sets:nothing", "has no attribute 'nothing'; name package.module:factory"),
        ("no_such_module:sets", "No module named 'no_such_module'; name package.module:factory"),
    ],
)
def test_what_is_wrong_with_a_factory_is_one_line(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_data(name, "data")
    assert str(caught.value).startswith(name)
    assert "\n" not in str(caught.value)


def test_names_of_code_are_told_from_others():
    assert is_own_dataset("package.module:factory")
    assert not any(map(is_own_dataset, ("digits", "imagefolder:a:b", "hf:a:b", None, 3)))


def test_a_tensor_data_set_has_items_that_are_pairs():
    pixels = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    images = DatasetImages(TensorDataset(pixels, torch.tensor([0, 1, 0])), "own:set", num_classes=2)
    np.testing.assert_array_equal(images[:], pixels.numpy())
