"""Which test images a command is about: in which order, from which list, and what is said of a lopsided choice."""

import csv
import dataclasses
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from srs.commands.certify import certify
from srs.run.choosing_images import lined_up, read_indices, rows_of
from srs.run.inputs import completed, load
from srs.run.settings import CertifySettings
from training import digits

SETTINGS = CertifySettings(
    checkpoint=Path("model.pt"),
    dataset="digits",
    sigma_min=0.2,
    sigma_max=0.4,
    sigma_step=0.2,
    n0=10,
    n=20,
    out=Path("run"),
)


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def rows(file):
    with Path(file).open(newline="") as stream:
        return [tuple(row[name] for name in row if name != "time") for row in csv.DictReader(stream, delimiter="\t")]


def test_indices_are_read_from_text_and_from_arrays(tmp_path):
    (tmp_path / "list.txt").write_text("\ufeff7\r\n\n 0 \n12", encoding="utf-8")
    np.save(tmp_path / "list.npy", np.array([7, 0, 12], dtype=np.uint8))
    for name in ("list.txt", "list.npy"):
        np.testing.assert_array_equal(read_indices(tmp_path / name, 13), [7, 0, 12])


REFUSED = {
    "too large": ("3\n13\n", "line 2: 13 is no image of this test set, which has 0 to 12"),
    "negative": ("3\n-1\n", "line 2: -1 is no image of this test set"),
    "twice": ("3\n4\n03\n", "line 3: 3 stands in line 1 already; remove one"),
    "no number": ("3\nfour\n", "line 2: 'four' is no whole number"),
    "two in a line": ("3 4\n", "line 1: '3 4' is no whole number"),
    "a fraction": ("3.0\n", "line 1: '3.0' is no whole number"),
    "digits of another script": ("\u0663\n", "is no whole number"),
    "30 digits": ("9" * 30, "is no whole number"),
    "empty": ("\n", "holds no index"),
    "no text": (b"\xff\xfe\x00", "is no text"),
    "floats": (np.array([1.0, 2.0]), "holds float64 of shape (2,)"),
    "a table": (np.array([[1, 2]]), "holds int64 of shape (1, 2)"),
    "an array, twice": (np.array([1, 2, 1]), "entry 2: 1 stands in entry 0 already"),
    "an array, negative": (np.array([1, -2]), "entry 1: -2 is no image"),
    "missing": (None, "no such file"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_lists_that_cannot_be_followed_name_the_place(tmp_path, content, message):
    file = tmp_path / ("list.npy" if isinstance(content, np.ndarray) else "list.txt")
    if isinstance(content, np.ndarray):
        np.save(file, content)
    elif content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        read_indices(file, 13)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_shuffled_order_holds_every_image_and_is_always_the_same():
    order = lined_up(1000, "shuffled", None)
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    np.testing.assert_array_equal(order, lined_up(1000, "shuffled", None))
    assert (order != np.arange(1000)).sum() > 900
    np.testing.assert_array_equal(lined_up(5, None, None), lined_up(5, "sorted", None))


def test_skip_and_max_choose_within_the_order(here):
    (here / "list.txt").write_text("9\n8\n100\n3\n0\n")
    listed = load(completed(dataclasses.replace(SETTINGS, indices=Path("list.txt"), skip=2, max=2)))
    assert listed.indices.tolist() == [9, 100]
    shuffled = load(completed(dataclasses.replace(SETTINGS, image_order="shuffled", skip=3, max=4)))
    assert shuffled.indices.tolist() == lined_up(360, "shuffled", None)[:12:3].tolist()
    data = digits()
    for found in (listed, shuffled):
        np.testing.assert_array_equal(found.images, data.test_images[found.indices])
        np.testing.assert_array_equal(found.labels, data.test_labels[found.indices])
    with pytest.raises(ValueError, match=r"--indices list\.txt: gives an order of its own"):
        dataclasses.replace(SETTINGS, indices=Path("list.txt"), image_order="shuffled").check()


def test_one_label_among_several_is_warned_about(here):
    labels = digits().test_labels
    (here / "same.txt").write_text("\n".join(map(str, np.flatnonzero(labels == 4)[:3])))
    with pytest.warns(UserWarning, match="all 3 chosen images have label 4, of 10 labels that there are"):
        load(completed(dataclasses.replace(SETTINGS, indices=Path("same.txt"))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(completed(dataclasses.replace(SETTINGS, max=1)))  # one image has one label


def test_an_image_has_the_same_rows_in_whatever_order_it_comes_and_a_list_is_part_of_its_run(here):
    (here / "list.txt").write_text("5\n1\n3\n")
    certify(dataclasses.replace(SETTINGS, max=6, out=Path("whole")))
    settings = dataclasses.replace(SETTINGS, indices=Path("list.txt"))
    certify(settings)
    for name in ("selection.tsv", "estimation.tsv", "levels.tsv"):
        whole = rows(f"whole/{name}")
        assert rows(f"run/{name}") == [row for idx in ("5", "1", "3") for row in whole if row[0] == idx]
    before = {file.name: file.read_bytes() for file in Path("run").iterdir()}
    shutil.move("list.txt", "elsewhere.txt")
    certify(dataclasses.replace(settings, indices=Path("elsewhere.txt"), resume=True))  # the same images
    (here / "list.txt").write_text("5\n3\n1\n")
    with pytest.raises(ValueError, match="--out run: belongs to a run with another data"):
        certify(dataclasses.replace(settings, resume=True))
    with pytest.raises(ValueError, match="--image-order shuffled: the run in run has None"):
        certify(dataclasses.replace(settings, indices=None, image_order="shuffled", resume=True))
    assert {name: Path("run", name).read_bytes() for name in before if name.endswith(".tsv")} == {
        name: content for name, content in before.items() if name.endswith(".tsv")
    }


def test_rows_of_logs_keep_their_order(tmp_path):
    (tmp_path / "list.txt").write_text("40\n10\n")
    idx = np.arange(0, 100, 10)
    assert rows_of(idx, tmp_path / "list.txt").tolist() == [1, 4]
    assert rows_of(idx, None).tolist() == list(range(10))
    (tmp_path / "list.txt").write_text("40\n15\n")
    with pytest.raises(ValueError, match=r"list\.txt: the logs have no image 15"):
        rows_of(idx, tmp_path / "list.txt")
