import numpy as np
import pytest

from training import digits, mnist


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
