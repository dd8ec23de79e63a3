"""Batches hold the same bits wherever the images are kept, and what reads ahead ends with its reader."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from smoothing.ahead import AHEAD, ahead
from training import FolderImages, as_bytes, batches
from training.batches import SHARE, Batches

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
GRID = RNG.integers(0, 256, (30, 2, 4, 4), dtype=np.uint8) / np.float32(255)
FLOATS = RNG.random((30, 2, 4, 4), dtype=np.float32)
LABELS = RNG.integers(0, 10, 30)
LEVELS = torch.from_numpy(RNG.random(30, dtype=np.float32))
PARTS = np.array_split(RNG.permutation(30), 7)


def accelerator(monkeypatch, free):
    """Let the CPU play an accelerator with so many bytes free."""
    monkeypatch.setattr(batches, "_is_host", lambda device: False)
    monkeypatch.setattr(batches, "free_memory", lambda device: free)


def given(source, labels=LABELS):
    return list(source.epoch(PARTS, LEVELS))


def assert_batches(source, images):
    found = given(source)
    assert len(found) == len(PARTS)
    for part, (x, y, level) in zip(PARTS, found, strict=True):
        assert x.dtype == torch.float32
        np.testing.assert_array_equal(x.numpy().view(np.int32), images[part].view(np.int32))
        np.testing.assert_array_equal(y.numpy(), LABELS[part])
        assert torch.equal(level, LEVELS[part])


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.mark.parametrize("images", [GRID, FLOATS, FLOATS.astype(">f4"), FLOATS[::-1].copy()[::-1]])
@pytest.mark.parametrize("free", [10**9, 0, None])
def test_batches_are_the_same_bits_however_images_are_kept(monkeypatch, images, free):
    floats = np.ascontiguousarray(images, dtype=np.float32)
    assert_batches(Batches(images, LABELS, CPU), floats)
    accelerator(monkeypatch, free)
    source = Batches(images, LABELS, CPU)
    assert_batches(source, floats)
    assert (source._held is not None) == bool(free)


def test_bytes_are_the_same_on_every_way(monkeypatch):
    kept = as_bytes(GRID)
    source = Batches(kept, LABELS, CPU)
    assert source._images is kept
    assert_batches(source, GRID)
    for free in (10**9, 0):
        accelerator(monkeypatch, free)
        assert_batches(Batches(kept, LABELS, CPU), GRID)


def test_arrays_that_may_only_be_read_serve_without_a_copy_of_the_whole():
    images, labels = FLOATS.copy(), LABELS.copy()
    images.flags.writeable = labels.flags.writeable = False
    source = Batches(images, labels, CPU)
    assert_batches(source, FLOATS)
    assert source._images is images


@pytest.mark.parametrize(("images", "kind", "size"), [(GRID, torch.uint8, 1), (FLOATS, torch.float32, 4)])
def test_images_stay_on_the_device_where_they_fit_into_the_share(monkeypatch, images, kind, size):
    monkeypatch.setattr(batches, "_ROWS", 8)
    need = images.size * size
    accelerator(monkeypatch, need / SHARE)
    source = Batches(images, LABELS, CPU)
    assert source._held.dtype == kind
    assert source._held.nbytes == need
    assert_batches(source, images)
    accelerator(monkeypatch, need / SHARE - 1)
    assert Batches(images, LABELS, CPU)._held is None


def test_nothing_is_on_the_host_once_images_are_on_the_device(monkeypatch):
    monkeypatch.setattr(batches, "free_memory", lambda device: 10**9)
    source = Batches(GRID, LABELS, torch.device("meta"))
    assert source._held.device.type == "meta"
    assert source._held.dtype == torch.uint8
    for x, y, level in source.epoch(PARTS, LEVELS):
        assert {x.device.type, y.device.type, level.device.type} == {"meta"}
        assert (x.dtype, x.shape) == (torch.float32, (len(y), 2, 4, 4))


@pytest.fixture
def folder(tmp_path):
    """Pictures in files, and the array of them."""
    pixels = RNG.integers(0, 256, (30, 4, 4, 3), dtype=np.uint8)
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"{i:02}.png")
    return FolderImages(sorted(tmp_path.iterdir())), pixels.transpose(0, 3, 1, 2) / np.float32(255)


def test_files_give_the_same_batches_from_a_thread(folder, monkeypatch):
    images, floats = folder
    assert_batches(Batches(images, LABELS, CPU), floats)
    source = Batches(images, LABELS, CPU)
    names = []
    read = source._read
    monkeypatch.setattr(source, "_read", lambda part: (names.append(threading.current_thread().name), read(part))[1])
    given(source)
    assert len(names) == len(PARTS)
    assert {name.split("_")[0] for name in names} == {"ahead"}


def test_a_file_that_cannot_be_read_is_the_same_line_when_its_batch_is_due(folder):
    images, _ = folder
    images.files[PARTS[2][1]].write_bytes(b"no picture")
    with pytest.raises(ValueError, match="not a readable image") as alone:
        images[PARTS[2]]
    source, seen = Batches(images, LABELS, CPU), []
    with pytest.raises(ValueError, match="not a readable image") as caught:
        seen.extend(source.epoch(PARTS, LEVELS))
    # extend keeps what came before the error
    assert len(seen) == 2
    assert str(caught.value) == str(alone.value)
    assert "\n" not in str(caught.value)
    assert readers() == []


def test_files_are_read_once_where_their_bytes_fit_on_the_device(folder, monkeypatch):
    images, floats = folder
    monkeypatch.setattr(batches, "_ROWS", 8)
    accelerator(monkeypatch, floats.size / SHARE)
    source = Batches(images, LABELS, CPU)
    assert (source._held.dtype, source._held.nbytes) == (torch.uint8, floats.size)
    for file in images.files:
        file.unlink()
    assert_batches(source, floats)
    assert readers() == []


def test_files_are_streamed_where_they_do_not_fit_or_are_no_bytes(folder, monkeypatch):
    images, floats = folder
    accelerator(monkeypatch, floats.size / SHARE - 1)
    source = Batches(images, LABELS, CPU)
    assert source._held is None
    assert_batches(source, floats)

    class Deep(FolderImages):
        def read(self, rows):
            return [image / 2 for image in super().read(rows)]

    accelerator(monkeypatch, 10**9)
    source = Batches(Deep(images.files), LABELS, CPU)
    assert source._held is None
    assert_batches(source, floats / 2)


def test_a_file_that_cannot_be_read_is_one_line_where_all_are_read(folder, monkeypatch):
    images, _ = folder
    images.files[7].write_bytes(b"no picture")
    accelerator(monkeypatch, 10**9)
    with pytest.raises(ValueError, match=r"07\.png: not a readable image"):
        Batches(images, LABELS, CPU)
    assert readers() == []


def test_the_next_parts_are_read_while_one_is_worked_on_and_no_more():
    asked = {part: threading.Event() for part in range(8)}

    def read(part):
        asked[part].set()
        return -part

    with_one = ahead(read, range(8))
    assert next(with_one) == 0
    for part in range(1, 1 + AHEAD):  # nobody asks for these now
        assert asked[part].wait(30)
    assert not asked[1 + AHEAD].wait(0.1)
    assert list(with_one) == [-part for part in range(1, 8)]
    assert readers() == []


@pytest.mark.parametrize("error", [ValueError("stop"), KeyboardInterrupt()])
def test_a_reader_that_ends_early_leaves_no_thread(error):
    def step(parts):
        with batches.closing(parts):
            for part in parts:
                assert len(readers()) == 1
                if part == 2:
                    raise error

    with pytest.raises(type(error)):
        step(ahead(lambda part: part, range(100)))
    assert readers() == []


def test_what_the_thread_raises_ends_it_and_nothing_is_read_after():
    read = []

    def fail(part):
        read.append(part)
        if part == 3:
            raise FloatingPointError("part 3")
        return part

    seen = []
    with pytest.raises(FloatingPointError, match="part 3"):
        seen.extend(ahead(fail, range(100)))
    assert seen == [0, 1, 2]
    assert max(read) <= 3 + AHEAD
    assert readers() == []
