"""Images kept as bytes are the same images, bit for bit, or are not kept as bytes."""

from fractions import Fraction

import numpy as np
import pytest

from training import ByteImages, accuracy, as_bytes, build, byte_images
from training.byte_images import PIXELS

#: What CUDA makes of p / 255, which it computes as a multiplication, where that is another number.
RECIPROCAL = np.arange(256, dtype=np.float32) * np.float32(1 / 255)
RECIPROCAL = RECIPROCAL[(np.arange(256) / 255).astype(np.float32) != RECIPROCAL]


def bits(array):
    return np.ascontiguousarray(array).view(np.int32)


def test_a_byte_stands_for_the_float_that_is_nearest_to_its_255th():
    for p, value in enumerate(PIXELS):
        neighbours = (np.nextafter(value, np.float32(-1)), np.nextafter(value, np.float32(2)))
        off, *others = (abs(Fraction(float(x)) - Fraction(p, 255)) for x in (value, *neighbours))
        assert off < min(others)


def every_byte():
    """Two images that together have every value."""
    return np.arange(256, dtype=np.uint8).reshape(2, 2, 8, 8)


def test_pixels_on_the_grid_come_back_bit_for_bit():
    images = every_byte() / np.float32(255)
    kept = as_bytes(images)
    assert isinstance(kept, ByteImages)
    np.testing.assert_array_equal(kept.pixels, every_byte())
    assert kept.pixels.nbytes * 4 == images.nbytes
    assert kept.shape == images.shape
    assert len(kept) == 2
    for which in (np.array([1, 0, 1]), slice(1, None), np.array([], dtype=np.int64)):
        np.testing.assert_array_equal(bits(kept[which]), bits(images[which]))


def test_arrays_of_any_kind_count_by_their_values_in_float32():
    images = every_byte() / np.float32(255)
    for same in (images.astype(np.float64), images[::-1].copy()[::-1], images.astype(">f4"), np.asfortranarray(images)):
        np.testing.assert_array_equal(as_bytes(same).pixels, every_byte())


@pytest.mark.parametrize(
    "odd",
    [
        np.nextafter(PIXELS[77], np.float32(0)),
        np.nextafter(PIXELS[77], np.float32(1)),
        RECIPROCAL[0],
        np.float32(-0.0),
        np.float32(256 / 255),
        np.float32(-1 / 255),
        np.float32(np.nan),
        np.float32(np.inf),
        np.float32(3e38),
        np.float32(1e-45),
    ],
)
def test_one_pixel_off_the_grid_keeps_all_as_they_are(odd, monkeypatch):
    monkeypatch.setattr(byte_images, "_ROWS", 1)
    images = every_byte() / np.float32(255)
    assert as_bytes(images) is not None
    images[1, 1, 7, 7] = odd  # in the last of the parts
    assert as_bytes(images) is None


def test_the_digits_of_scikit_learn_are_not_on_the_grid():
    assert as_bytes(np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4) / 16) is None


def test_accuracy_takes_them():
    images, labels = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8), np.arange(40) % 10
    model = build("digits_cnn", 10, seed=0)
    assert accuracy(model, ByteImages(images), labels) == accuracy(model, images / np.float32(255), labels)
