"""`srs-predict` as a person runs it: a process of its own, after a finished run."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import regions
from tests.srs.programs import assert_refused, call
from training import build, digits, save_checkpoint


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    """A copy of the finished run with its classifier, and images in several forms: of test image 0 and of none."""
    source, process = finished
    assert process.returncode == 0, process.stderr
    folder = tmp_path_factory.mktemp("predict")
    shutil.copy(source / "model.pt", folder)
    shutil.copytree(source / "run", folder / "run")
    images = digits().test_images[:9]
    np.save(folder / "one.npy", images[0, 0])
    np.save(folder / "many.npy", images[[0, 3, 4]])
    np.save(folder / "bytes.npy", np.round(images[0] * 255).astype(np.uint8))
    np.save(folder / "loud.npy", images[0] * 255)
    np.save(folder / "small.npy", images[0, 0, :7])
    np.save(folder / "none.npy", images[:0])
    Image.fromarray(np.round(images[0, 0] * 255).astype(np.uint8)).save(folder / "photo.png")
    Image.fromarray(np.zeros((9, 8), dtype=np.uint8)).save(folder / "wide.png")
    Image.fromarray(np.round(images[0, 0] * 65535).astype(np.uint16)).save(folder / "deep.png")
    (folder / "some.txt").write_text("3\n")
    (folder / "beyond.txt").write_text("3\n360\n")
    Image.fromarray(np.zeros((8, 8, 4), dtype=np.uint8)).save(folder / "canvas.png")
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(folder / "colour.png")
    np.save(folder / "last.npy", images[0].transpose(1, 2, 0))
    np.save(folder / "whole.npy", np.ones((8, 8), dtype=np.int64))
    np.save(folder / "bits.npy", (images[0, 0] > 0.5).astype(np.uint8))
    np.save(folder / "holes.npy", np.where(images[0, 0] > 0.5, np.nan, images[0, 0]))
    (folder / "text.png").write_text("not an image")
    (folder / "torn.png").write_bytes((folder / "photo.png").read_bytes()[:60])
    return folder


def rows_of(process):
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return [json.loads(line) for line in process.stdout.splitlines()]


def test_answers_are_those_of_the_regions(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    images = ("test:0", "many.npy", "photo.png", "deep.png", "--indices", "some.txt")
    rows = rows_of(call("predict", folder, "run", *images, "--certify", "--json", "--n", "2000"))
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    many = [f"many.npy[{k}]" for k in range(3)]
    assert [row["image"] for row in rows] == ["test:0", *many, "photo.png", "deep.png", "test:3"]
    table = regions.RegionMap.load(folder / "run/regions.npz")
    held = table.locate(digits().test_images[[0, 0, 3, 4]])
    for row, region, margin in zip(rows[:4], held.region, held.margin, strict=True):
        assert row["region"] == (region if region >= 0 else None)
        if region >= 0:
            assert row["sigma"] == table.sigma[region]
            assert row["distance"] <= margin < row["distance"] + 1e-6
            assert row["radius"] == min(row["R"], row["distance"])
            assert row["predict"] in (table.classes[region], -1)
    assert (held.region >= 0).sum() == 3  # image 4 was not certified
    assert rows[3]["predict"] == -1
    assert rows[3]["radius"] == 0
    assert rows[3]["n"] == 0
    assert rows[4]["region"] == rows[0]["region"]  # the photograph is a little off
    assert rows[4]["distance"] < rows[5]["distance"] < rows[0]["distance"]  # 16 bits are nearer than 8
    assert rows[6]["region"] == rows[2]["region"]  # that array held test image 3
    assert len({row["seed"] for row in rows}) == 1


def test_a_seed_repeats_and_no_seed_does_not(folder):
    calls = [
        call("predict", folder, "run", "one.npy", "--json", "--n", "5000", *more) for more in ((), (), ("--seed", "3"))
    ]
    first, second, third = (rows_of(process)[0] for process in calls)
    assert first["seed"] != second["seed"]
    assert third["seed"] == 3
    again = rows_of(call("predict", folder, "run", "one.npy", "--json", "--n", "5000", "--seed", str(first["seed"])))
    assert again == [first]


def test_the_table_says_when_no_region_holds_an_image(folder):
    process = call("predict", folder, "run", "many.npy")
    assert process.returncode == 0, process.stderr
    assert "no region holds 1 of 3 images: it abstains" in process.stdout
    assert "abstains" in process.stdout.splitlines()[3]
    process = call("predict", folder, "run", "many.npy", "--outside", "smallest-sigma")
    assert "no region holds 1 of 3 images: sigma by smallest-sigma, and nothing is certified" in process.stdout
    assert "0.2" in process.stdout.splitlines()[3]


def test_a_map_alone_with_its_classifier(folder):
    rows = rows_of(
        call("predict", folder, "run/regions.npz", "one.npy", "bytes.npy", "--checkpoint", "model.pt", "--json")
    )
    assert [row["region"] for row in rows] == [0, 0]
    assert {row["predict"] for row in rows} == {int(digits().test_labels[0])}
    experts = ("--expert", "0.2=model.pt", "--expert", "0.4=model.pt")
    assert rows_of(call("predict", folder, "run/regions.npz", "photo.png", *experts, "--json"))[0]["region"] == 0


def test_a_run_whose_weights_moved_or_changed(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(folder / "model.pt", tmp_path / "elsewhere")
    np.save(tmp_path / "one.npy", digits().test_images[0])
    assert_refused(call("predict", tmp_path, "run", "one.npy"), "srs-predict", "model.pt: no such file")
    assert call("predict", tmp_path, "run", "one.npy", "--checkpoint", "elsewhere/model.pt").returncode == 0
    save_checkpoint(tmp_path / "model.pt", build("digits_cnn", 10, seed=9), arch="digits_cnn")
    message = "another classifier was certified: it differs in classifier weights"
    assert_refused(call("predict", tmp_path, "run", "one.npy"), "srs-predict", message)
    (tmp_path / "run/regions.npz").unlink()
    assert_refused(call("predict", tmp_path, "run", "one.npy"), "srs-predict", "run/regions.npz: no such file; restore")
    (tmp_path / "run/summary.json").unlink()
    assert_refused(call("predict", tmp_path, "run", "one.npy"), "srs-predict", "the run has not come to its end; go on")


BAD = {
    "no images": (["run"], "name at least one image"),
    "no such run": (["nowhere", "one.npy"], "nowhere: no such folder; name one that srs-certify wrote"),
    "no run": (["run/..", "one.npy"], "holds no run"),
    "no such map": (["nowhere.npz", "one.npy", "--checkpoint", "model.pt"], "nowhere.npz: no such file"),
    "another file": (["one.npz", "one.npy", "--checkpoint", "model.pt"], "one.npz"),
    "no classifier": (["run/regions.npz", "one.npy"], "name the classifier with --checkpoint"),
    "an expert is missing": (["run/regions.npz", "one.npy", "--expert", "0.2=model.pt"], "regions of sigma = 0.4"),
    "no such image": (["run", "lost.png"], "lost.png: no such file"),
    "a wide image": (["run", "wide.png"], "wide.png has 8x9 pixels, the regions are about images of 8x8"),
    "a wide image for a map": (["run/regions.npz", "wide.png", "--checkpoint", "model.pt"], "wide.png has 8x9 pixels"),
    "no image": (["run", "text.png"], "text.png: not a readable image"),
    "a torn image": (["run", "torn.png"], "torn.png: not a readable image"),
    "an index beyond": (["run", "--indices", "beyond.txt"], "beyond.txt, line 2: 360 is no image of this test set"),
    "indices for a map": (["run/regions.npz", "--indices", "beyond.txt"], "a map does not say whose test images"),
    "transparent": (["run", "canvas.png"], "canvas.png has transparent pixels"),
    "colour": (["run", "colour.png"], "colour.png is a colour picture, but grey ones are needed"),
    "pixels to 255": (["run", "loud.npy"], "loud.npy: pixels must be floats in [0, 1]"),
    "pixels that are none": (["run", "holes.npy"], "= nan"),
    "channels last": (["run", "last.npy"], "channels come first, so give numpy.moveaxis(images, -1, -3)"),
    "whole numbers": (["run", "whole.npy"], "whole.npy holds int64: pixels are floats in [0, 1] or 8-bit"),
    "0 and 1 of 8 bits": (["run", "bits.npy"], "bits.npy: 8-bit integers are grey levels up to 255, here up to 1"),
    "a small array": (["run", "small.npy"], "small.npy has shape (7, 8): expected one or many images, 1 x 8 x 8"),
    "a small array for a map": (["run/regions.npz", "small.npy"], "expected one or many images, 64 numbers an image"),
    "an empty array": (["run", "none.npy"], "none.npy has shape (0, 1, 8, 8)"),
    "no such test image": (["run", "test:360"], "test:360: expected test:INDEX with an index from 0 to 359"),
    "no test set": (["run/regions.npz", "test:0", "--checkpoint", "model.pt"], "a map does not say"),
    "alpha": (["run", "one.npy", "--alpha", "0"], "--alpha 0.0: must lie strictly between 0 and 1"),
    "tiny alpha": (["run", "one.npy", "--alpha", "1e-101"], "--alpha 1e-101: must be at least 1e-100"),
    "n": (["run", "one.npy", "--n", "0"], "--n 0: must be from 1"),
    "seed": (["run", "one.npy", "--seed", "-1"], "--seed -1: must be in [0, 2**64)"),
    "sampler": (["run", "one.npy", "--sampler", "discrete"], "--sampler: the run in run says it"),
    "device": (["run", "one.npy", "--device", "abacus"], "--device abacus cannot be used"),
    "rule": (["run", "one.npy", "--outside", "guess"], "--outside"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_2(folder, arguments, message):
    np.savez(folder / "one.npz", image=np.zeros((8, 8)))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert_refused(call("predict", folder, *arguments), "srs-predict", message)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
