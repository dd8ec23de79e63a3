import hashlib
import pickle

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from training import cifar10, digits, image_folder, load_data, mnist


def test_digits_are_images_in_the_unit_interval_with_their_labels():
    data = digits()
    assert data.train_images.shape == (1437, 1, 8, 8)
    assert data.test_images.shape == (360, 1, 8, 8)
    for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
        assert images.dtype == np.float32
        assert (images.min(), images.max()) == (0, 1)
        assert len(labels) == len(images)
        assert np.all(images * 16 == np.round(images * 16))  # 17 grey levels, exact in float32


def test_the_split_is_always_the_same_and_balanced():
    first, second = digits(), digits()
    np.testing.assert_array_equal(first.test_images, second.test_images)
    counts = np.bincount(first.test_labels, minlength=10)
    assert counts.min() >= 34
    assert counts.max() <= 38


def test_no_test_image_is_trained_on():
    data = digits()
    trained = {image.tobytes() for image in data.train_images}
    assert not any(image.tobytes() in trained for image in data.test_images)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_a_senseless_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match=f"test_fraction = {fraction}"):
        digits(fraction)


@pytest.mark.data
def test_mnist_is_read_as_it_is(data_folder):
    data = mnist(data_folder)
    assert (data.name, data.num_classes) == ("mnist", 10)
    assert data.train_images.shape == (60_000, 1, 28, 28)
    assert data.test_images.shape == (10_000, 1, 28, 28)
    assert data.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    raw = np.frombuffer((data_folder / "MNIST/raw/t10k-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
    np.testing.assert_array_equal(data.test_images.ravel(), raw.astype(np.float32) / np.float32(255))


def test_missing_mnist_says_which_files_go_where(tmp_path):
    with pytest.raises(ValueError, match=r"holds no readable MNIST: put train-images-idx3-ubyte, .* into .*MNIST/raw"):
        mnist(tmp_path)


def picture(path, value, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, value).save(path)


@pytest.fixture
def folder(tmp_path):
    for part, count in (("train", 3), ("test", 2)):
        for k, name in enumerate(("ant", "bee")):
            for number in range(count):
                picture(tmp_path / part / name / f"{number}.png", (100 * k, 50 * number, 255))
    return tmp_path


def test_an_image_folder_is_read_as_it_is_used(folder):
    data = image_folder(folder)
    assert (data.num_classes, data.train_images.shape) == (2, (6, 3, 4, 6))
    assert data.train_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.test_labels.tolist() == [0, 0, 1, 1]
    batch = data.train_images[np.array([5, 0])]
    assert batch.dtype == np.float32
    np.testing.assert_array_equal(batch[0, :, 0, 0], np.float32([100, 100, 255]) / np.float32(255))
    np.testing.assert_array_equal(batch[1], data.train_images[0:1][0])
    np.testing.assert_array_equal(data.train_images.subset(np.array([5]))[np.array([0])][0], batch[0])


def test_val_may_stand_for_test(folder):
    (folder / "test").rename(folder / "val")
    assert len(load_data(f"imagefolder:{folder}", folder).test_images) == 4


def test_sizes_are_made_equal_on_request_and_never_silently(folder):
    picture(folder / "train" / "bee" / "large.png", (1, 2, 3), size=(20, 10))
    with pytest.raises(ValueError, match=r"large.png has 20x10 pixels, the first image 6x4: give an image size"):
        image_folder(folder).train_images[np.arange(7)]
    assert image_folder(folder, size=8).train_images[np.arange(7)].shape == (7, 3, 8, 8)


def test_what_is_wrong_with_a_folder_is_named(folder):
    (folder / "train" / "ant" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"0.png: not a readable image"):
        image_folder(folder)
    (folder / "train" / "wasp").mkdir()
    with pytest.raises(ValueError, match="train and test differ in wasp"):
        image_folder(folder)
    with pytest.raises(ValueError, match="has no folder train"):
        image_folder(folder / "train")


def test_empty_parts_are_named(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part / "ant").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"train holds no images"):
        image_folder(tmp_path)


def test_cifar10_is_read_as_torchvision_lays_it_out(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels, labels, sums = {}, {}, {}
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        pixels[name] = generator.integers(0, 256, (4, 3072), dtype=np.uint8)
        labels[name] = generator.integers(0, 10, 4).tolist()
        (folder / name).write_bytes(pickle.dumps({"data": pixels[name], "labels": labels[name]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(k) for k in range(10)]}))
    for file in folder.iterdir():
        sums[file.name] = hashlib.md5(file.read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [[f"data_batch_{k}", sums[f"data_batch_{k}"]] for k in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})
    data = cifar10(tmp_path)
    assert data.train_images.shape == (20, 3, 32, 32)
    expected = pixels["test_batch"].reshape(4, 3, 32, 32) / np.float32(255)
    np.testing.assert_array_equal(data.test_images, expected.astype(np.float32))
    assert data.test_labels.tolist() == labels["test_batch"]
    (folder / "data_batch_3").write_bytes(b"altered")
    with pytest.raises(ValueError, match="holds no readable CIFAR10: put data_batch_1"):
        cifar10(tmp_path)


def test_data_sets_have_names(tmp_path):
    with pytest.raises(ValueError, match="dataset 'svhn': choose digits, mnist, cifar10 or imagefolder:PATH"):
        load_data("svhn", tmp_path)
    with pytest.raises(ValueError, match="image size 32: digits has a size of its own"):
        load_data("digits", tmp_path, image_size=32)
    assert load_data("digits", tmp_path).name == "digits"
