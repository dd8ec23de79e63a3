import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from smoothing import ImageSource, Selection, SmoothedClassifier, certify_to_file
from smoothing import images as module
from smoothing.ahead import AHEAD
from smoothing.fingerprint import hash_arrays
from smoothing.images import RunImages


class Generated(ImageSource):
    """Images made when they are asked for; notes which were, and in which thread."""

    def __init__(self, n, shape=(3, 4, 5), change=None):
        self._shape, self.change = (n, *shape), change
        self.asked, self.most, self.threads = [], 0, set()

    @property
    def shape(self):
        return self._shape

    def one(self, at):
        image = np.random.default_rng(at).random(self._shape[1:], dtype=np.float32)
        if self.change == at and self.asked.count(at) > 1:
            image[0, 0, 0] = 1 - image[0, 0, 0]
        return image

    def __getitem__(self, which):
        rows = np.arange(len(self))[which].tolist()
        self.asked += rows
        self.most = max(self.most, len(rows))
        self.threads.add(threading.get_ident())
        return np.stack([self.one(at) for at in rows])

    def array(self):
        return np.stack(
            [np.random.default_rng(at).random(self._shape[1:], dtype=np.float32) for at in range(len(self))]
        )


@pytest.fixture
def small(monkeypatch):
    """Little memory: nothing is held, and few images are looked at together."""
    monkeypatch.setattr(module, "HELD", 0)
    monkeypatch.setattr(module, "_TOGETHER", 3 * 60)


@given(st.data(), st.booleans(), st.integers(1, 12), st.integers(1, 200))
def test_images_and_their_hash_are_those_of_an_array(data, held, n, together):
    source = Generated(n)
    which = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=9)))
    whole = source.array()[which]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HELD", 2**28 if held else 0)
        patch.setattr(module, "_TOGETHER", together)
        for given_source in (source, source.array()):
            seen = []
            images = RunImages(given_source, which, look=lambda first, some, seen=seen: seen.append((first, some)))
            assert images.shape == whole.shape
            assert images.sha256(which, np.arange(n)) == hash_arrays(whole, which, np.arange(n))
            np.testing.assert_array_equal(images[:], whole)
            rows = np.array(data.draw(st.lists(st.integers(0, len(which) - 1), max_size=5)), dtype=np.int64)
            if rows.size:
                np.testing.assert_array_equal(images[rows], whole[rows])
            np.testing.assert_array_equal(np.concatenate([some for _, some in seen]), whole)
            assert [first for first, _ in seen] == np.cumsum([0, *(len(some) for _, some in seen)])[:-1].tolist()


@pytest.mark.usefixtures("small")
def test_what_does_not_fit_is_read_where_it_is_used():
    source = Generated(20)
    images = RunImages(source, np.arange(20))
    assert source.asked == list(range(20))
    assert source.most == 3
    images[np.array([7, 2])]
    assert source.asked[20:] == [7, 2]


def test_what_fits_is_read_once():
    source = Generated(20)
    images = RunImages(source, np.arange(5, 9))
    images[np.array([1, 3])]
    assert source.asked == [5, 6, 7, 8]


@pytest.mark.usefixtures("small")
def test_an_image_that_was_changed_is_refused_where_it_is_read_again():
    images = RunImages(Generated(9, change=4), np.arange(9))
    images[np.array([3, 5])]
    with pytest.raises(ValueError, match="test image 4 is another one than when it was read before"):
        images[np.array([3, 4])]


@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan])
def test_pixels_outside_the_unit_interval_are_refused(value):
    class Wrong(Generated):
        def one(self, at):
            image = super().one(at)
            image[0, 0, 0] = value if at == 6 else 0.5
            return image

    with pytest.raises(ValueError, match="pixels must be finite and in"):
        RunImages(Wrong(9), np.arange(9))


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layer = nn.Linear(60, 4)

    def forward(self, x):
        return 10 * self.layer(x.flatten(1))


def certified(path, images, **kwargs):
    classifier = SmoothedClassifier(Linear(), 4, seed=3, device="cpu", batch_size=16)
    settings = {"sigma": Selection((0.25, 0.5)), "n0": 10, "n": 100, "alpha": 0.01} | kwargs
    return certify_to_file(path, classifier, images, **settings)


@pytest.mark.usefixtures("small")
def test_a_streamed_run_has_the_rows_of_one_in_memory_and_goes_on_with_it(tmp_path):
    source = Generated(23)
    certified(tmp_path / "streamed.tsv", source)
    certified(tmp_path / "array.tsv", source.array())
    streamed, array = (
        [line.split("\t") for line in (tmp_path / name).read_text().splitlines()]
        for name in ("streamed.tsv", "array.tsv")
    )
    time = array[0].index("time")
    assert [row[:time] + row[time + 1 :] for row in streamed] == [row[:time] + row[time + 1 :] for row in array]
    manifests = [(tmp_path / f"{name}.tsv.votes" / "manifest.json").read_text() for name in ("streamed", "array")]
    assert manifests[0] == manifests[1]
    certified(tmp_path / "array.tsv", source)  # the same run
    with pytest.raises(ValueError, match="belongs to a run with another images"):
        certified(tmp_path / "array.tsv", Generated(23, change=None).array()[::-1].copy())


@pytest.mark.usefixtures("small")
def test_images_are_read_ahead_in_another_thread_and_no_more_than_a_few(tmp_path, monkeypatch):
    monkeypatch.setattr("smoothing.drawing.draw.MOST_TOGETHER", 2)
    source, done = Generated(23), []
    limits = []

    def progress(stage, at, total):
        done.append(at)
        if stage == "select" and at:
            limits.append(len(source.asked) - 23 - at)

    certified(tmp_path / "run.tsv", source, progress=progress)
    assert max(limits) <= 2 * (AHEAD + 1)
    assert threading.get_ident() not in source.threads


@pytest.mark.usefixtures("small")
def test_a_run_whose_images_change_writes_no_table(tmp_path):
    with pytest.raises(ValueError, match="test image 11 is another one"):
        certified(tmp_path / "run.tsv", Generated(23, change=11))
    assert not (tmp_path / "run.tsv").exists()
    assert not any("ahead" in thread.name for thread in threading.enumerate())
