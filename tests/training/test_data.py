import gzip
import hashlib
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import CIFAR10, CIFAR100, MNIST, SVHN, FashionMNIST, ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from training import cifar10, cifar100, digits, fashion_mnist, image_folder, load_data, mnist, svhn
from training.data import IMAGE_SUFFIXES


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
    np.testing.assert_array_equal(np.asarray(data.test_images).ravel(), raw.astype(np.float32) / np.float32(255))


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
    assert image_folder(folder, image_size=8).train_images[np.arange(7)].shape == (7, 3, 8, 8)


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
    with pytest.raises(ValueError, match=r"test/ant holds no image .*but each folder counts as a class"):
        image_folder(tmp_path)


def random_tree(folder, rng):
    """A folder of classes as people have them: nested, hidden, with other files, names that sort in odd ways."""
    names = ["a", "B", "10", "9", "é", ".hidden", "a b", "a-b", "a.png"]
    files = [
        "0.png",
        "10.PNG",
        "2.Jpeg",
        ".jpg",
        "._x.png",
        "a.tif",
        "é.webp",
        "notes.txt",
        "x.png.bak",
        "Thumbs.db",
        "png",
    ]
    for name in rng.permutation(names)[: rng.integers(1, 6)]:
        for below in ("", "sub", "sub/deeper", "Sub", ".sub"):
            if rng.random() < 0.4:
                (folder / name / below).mkdir(parents=True, exist_ok=True)
                for file in rng.permutation(files)[: rng.integers(0, 6)]:
                    Image.new("RGB", (2, 2)).save(folder / name / below / file, format="PNG")
    (folder / "readme.txt").write_text("not a class")


def test_folders_are_numbered_as_by_torchvision(tmp_path, rng):
    compared = refused = 0
    for k in range(60):
        folder = tmp_path / str(k)
        for part in ("train", "test"):
            (folder / part).mkdir(parents=True)
        random_tree(folder / "test", rng)
        for entry in (folder / "test").iterdir():
            if entry.is_dir():
                picture(folder / "train" / entry.name / "0.png", (1, 2, 3))
        try:
            theirs = ImageFolder(folder / "test")
        except FileNotFoundError:  # no class, or one without an image
            with pytest.raises(ValueError, match=r"holds no (image|folder of images)"):
                image_folder(folder, train=False)
            refused += 1
            continue
        data = image_folder(folder)
        assert [(str(file), label) for file, label in zip(data.test_images.files, data.test_labels, strict=True)] == (
            theirs.samples
        )
        assert data.num_classes == len(theirs.classes)
        compared += 1
    assert compared > 10
    assert refused > 10


def test_the_endings_are_those_of_torchvision():
    assert set(IMAGE_SUFFIXES) == set(IMG_EXTENSIONS)


@pytest.mark.parametrize("place", ["test/ant/9.jfif", "test/ant/sub/9.GIF", "test/9.png"])
def test_pictures_that_are_left_out_are_named(folder, place):
    picture(folder / "9.png", (1, 2, 3))
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / "9.png").rename(folder / place)
    with pytest.warns(UserWarning, match=rf"pictures are left out, as by ImageFolder: 1, such as .*{place}"):
        assert len(image_folder(folder).test_images) == 4


def test_links_that_lead_in_circles_are_refused(folder):
    (folder / "test" / "ant" / "again").symlink_to(folder / "test" / "ant", target_is_directory=True)
    with pytest.raises(ValueError, match=r"ant/again leads to .*ant, whose images are listed already"):
        image_folder(folder)


def test_test_images_alone_are_enough_unless_training_ones_are_wanted(folder):
    whole = image_folder(folder)
    shutil.rmtree(folder / "train")
    for root in (folder, folder / "test"):
        alone = image_folder(root, train=False)
        assert (len(alone.train_images), len(alone.train_labels)) == (0, 0)
        np.testing.assert_array_equal(alone.test_images[:], whole.test_images[:])
        np.testing.assert_array_equal(alone.test_labels, whole.test_labels)
        with pytest.raises(ValueError, match="has no folder train"):
            image_folder(root)
    with pytest.raises(ValueError, match=r"imagefolder:.*nowhere: there is no such folder"):
        image_folder(folder / "nowhere", train=False)


def test_training_classes_number_the_test_images_even_where_training_images_are_not_wanted(folder):
    (folder / "test" / "ant").rename(folder / "ant")
    with pytest.raises(ValueError, match="train and test differ in ant"):
        image_folder(folder, train=False)
    (folder / "test").rename(folder / "elsewhere")
    with pytest.raises(ValueError, match="has no folder test"):
        image_folder(folder, train=False)


def idx_file(path, values):
    shape = b"".join(size.to_bytes(4) for size in values.shape)
    path.write_bytes(bytes((0, 0, 8, values.ndim)) + shape + values.astype(np.uint8).tobytes())


@pytest.fixture
def digits_files(tmp_path, rng):
    """Five training and three test images in MNIST's format."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 5), ("t10k", 3)):
        idx_file(raw / f"{part}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        idx_file(raw / f"{part}-labels-idx1-ubyte", rng.integers(0, 10, count))
    return raw


def test_files_of_mnists_format_are_read_as_by_torchvision(digits_files, tmp_path):
    data = mnist(tmp_path)
    for part, images, labels in (
        (True, data.train_images, data.train_labels),
        (False, data.test_images, data.test_labels),
    ):
        theirs = MNIST(tmp_path, train=part)
        np.testing.assert_array_equal(images[:][:, 0], theirs.data.numpy() / np.float32(255))
        np.testing.assert_array_equal(labels, theirs.targets.numpy())
    for file in digits_files.glob("train-*"):
        file.unlink()
    with pytest.raises(ValueError, match="holds no readable MNIST: put train-images"):
        mnist(tmp_path)
    assert len(mnist(tmp_path, train=False).test_images) == 3


IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def other_labels(raw):
    return (raw / "train-labels-idx1-ubyte").read_bytes()


DAMAGED = {
    "labels of the other part": (LABELS, lambda raw, old: other_labels(raw), "3 images, t10k-labels-idx1-ubyte 5"),
    "a label beyond 9": (LABELS, lambda raw, old: old[:-1] + b"\x0a", "label 2 is 10, but classes are 0 to 9"),
    "packed": (IMAGES, lambda raw, old: gzip.compress(old, mtime=0), r"is packed \(gzip\): unpack it under this name"),
    "a web page": (LABELS, lambda raw, old: b"<!DOCTYPE html><html>404</html>", "is a web page: fetch it again"),
    "images for labels": (LABELS, lambda raw, old: (raw / IMAGES).read_bytes(), "is no file of MNIST"),
    "empty": (IMAGES, lambda raw, old: b"", "is no file of MNIST"),
    "half a header": (IMAGES, lambda raw, old: old[:10], "is no file of MNIST"),
    "cut off": (IMAGES, lambda raw, old: old[:-1], "announces 2,368: it is cut off"),
    "too long": (LABELS, lambda raw, old: old + b"\0", "has 12 bytes and announces 11: it is too long"),
    "no images": (IMAGES, lambda raw, old: old[:4] + bytes(4) + old[8:16], "0 images, t10k-labels-idx1-ubyte 3 labels"),
    "other sizes": (IMAGES, lambda raw, old: old[:11] + b"\x0e\0\0\0\x38" + old[16:], "28x28 and test images of 14x56"),
    "a size that no memory holds": (IMAGES, lambda raw, old: old[:4] + b"\xff" * 12 + old[16:], "it is cut off"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "change", "message"), DAMAGED.values(), ids=DAMAGED)
def test_files_of_mnist_that_do_not_belong_together(digits_files, tmp_path, name, change, message):
    file = digits_files / name
    file.write_bytes(change(digits_files, file.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        mnist(tmp_path)
    assert str(digits_files) in str(caught.value)


def test_a_pickle_under_the_name_of_a_cifar10_file_is_never_loaded(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    class Hostile:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(ValueError, match="holds no readable CIFAR10"):
        cifar10(tmp_path)
    assert not (tmp_path / "ran").exists()
    pickle.loads((folder / "test_batch").read_bytes())
    assert (tmp_path / "ran").exists()  # it would have


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
    with pytest.raises(ValueError, match=r"dataset 'moons': choose digits, mnist, fashion-mnist, .*, hf:PATH or pack"):
        load_data("moons", tmp_path)
    with pytest.raises(ValueError, match="image size 32: digits has a size of its own"):
        load_data("digits", tmp_path, image_size=32)
    assert load_data("digits", tmp_path).name == "digits"


def test_fashion_mnist_has_files_like_those_of_mnist(digits_files, tmp_path):
    (tmp_path / "MNIST").rename(tmp_path / "FashionMNIST")
    data = fashion_mnist(tmp_path)
    theirs = FashionMNIST(tmp_path, train=False)
    assert (data.name, data.class_names) == ("fashion-mnist", tuple(FashionMNIST.classes))
    np.testing.assert_array_equal(data.test_images.pixels[:, 0], theirs.data.numpy())
    with pytest.raises(ValueError, match=r"holds no readable FashionMNIST: put train-images.* into .*FashionMNIST/raw"):
        fashion_mnist(tmp_path / "elsewhere")


def test_cifar100_is_read_as_torchvision_lays_it_out(tmp_path, monkeypatch, rng):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    pixels = {name: rng.integers(0, 256, (4, 3072), dtype=np.uint8) for name in ("train", "test")}
    names = [f"class {k}" for k in range(100)]
    for name, data in pixels.items():
        labels = rng.integers(0, 100, 4).tolist()
        (folder / name).write_bytes(pickle.dumps({"data": data, "fine_labels": labels}))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": names}))
    sums = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    for part in ("train", "test"):
        monkeypatch.setattr(CIFAR100, f"{part}_list", [[part, sums[part]]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": sums["meta"]})
    data = cifar100(tmp_path)
    assert (data.num_classes, data.class_names) == (100, tuple(names))
    assert data.test_labels.tolist() == labels
    np.testing.assert_array_equal(data.train_images.pixels, pixels["train"].reshape(4, 3, 32, 32))
    alone = cifar100(tmp_path, train=False)
    assert (alone.train_images.shape, alone.train_labels.shape) == ((0, 3, 32, 32), (0,))
    np.testing.assert_array_equal(alone.test_images.pixels, pixels["test"].reshape(4, 3, 32, 32))
    (folder / "test").write_bytes(b"altered")
    with pytest.raises(ValueError, match="holds no readable CIFAR100: put train, test and meta into"):
        cifar100(tmp_path)


def test_svhn_has_digit_k_as_class_k(tmp_path, monkeypatch, rng):
    pixels = rng.integers(0, 256, (32, 32, 3, 5), dtype=np.uint8)
    labels = np.array([[1], [10], [9], [2], [10]])
    listed = dict(SVHN.split_list)
    for part in ("train", "test"):
        file = tmp_path / f"{part}_32x32.mat"
        savemat(file, {"X": pixels, "y": labels})
        listed[part] = ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]
    monkeypatch.setattr(SVHN, "split_list", listed)
    data = svhn(tmp_path)
    assert data.test_labels.tolist() == [1, 0, 9, 2, 0]
    np.testing.assert_array_equal(data.test_images.pixels, pixels.transpose(3, 2, 0, 1))
    assert data.train_images.shape == (5, 3, 32, 32)
    (tmp_path / "train_32x32.mat").unlink()
    assert len(svhn(tmp_path, train=False).train_images) == 0
    with pytest.raises(ValueError, match=r"holds no readable SVHN: put train_32x32\.mat and test_32x32\.mat into"):
        svhn(tmp_path)
