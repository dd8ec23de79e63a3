"""A data set of one's own is imported only where the command line names it; runs of every kind of data set are used."""

import json

import numpy as np
import pytest

from tests.srs.programs import call
from tests.training.test_hub_folders import save_dict, table_of

LEVELS = ["--sigma-min", "0.2", "--sigma-max", "0.4", "--sigma-step", "0.2", "--n0", "10", "--n", "40", "--max", "3"]

MINE = """
from pathlib import Path
import numpy as np, torch
from torch import nn

Path("imported").touch()

class Squares:
    classes = [str(k) for k in range(10)]

    def __init__(self, split):
        rng = np.random.default_rng(len(split))
        self.pixels = rng.integers(0, 256, (12, 8, 8), dtype=np.uint8)

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, at):
        return self.pixels[at], at % 10
"""

TRAIN = ["--epochs", "1", "--finetune-epochs", "1", "--n0", "10", "--m", "1", "--k", "0", "--batch", "4"]


def start(command, folder, *flags):
    """Run a command as its installed script does: the current folder is not where Python looks for modules."""
    return call(command, folder, *flags, installed=True)


def ran(command, folder, *flags):
    found = start(command, folder, *flags)
    assert found.returncode == 0, found.stderr
    return found


def refused(command, folder, *flags):
    (folder / "imported").unlink(missing_ok=True)
    found = start(command, folder, *flags)
    assert found.returncode == 2, found.stdout + found.stderr
    assert not (folder / "imported").exists()
    assert len(found.stderr.strip().splitlines()) == 1, found.stderr
    return found.stderr


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder with a module, a network trained on its data set, and a run over its test images."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mine.py").write_text(MINE)
    ran("train", folder, "digits", "--dataset", "mine:Squares", *TRAIN, "--out", "net")
    ran("certify", folder, "--checkpoint", "net/checkpoint.pt", "--dataset", "mine:Squares", *LEVELS, "--out", "run")
    return folder


def test_a_run_over_it_is_reported_verified_and_asked(own):
    assert json.loads((own / "run" / "summary.json").read_text())["data"]["name"] == "mine:Squares"
    ran("report", own, "run")
    verified = ran("verify", own, "run", "--dataset", "mine:Squares", "--redraw", "2")
    assert "images and labels are those of mine:Squares" in verified.stdout
    ran("predict", own, "run", "test:4", "--dataset", "mine:Squares", "--n", "20")
    ran(
        "certify",
        own,
        "--checkpoint",
        "net/checkpoint.pt",
        "--dataset=mine:Squares",
        *LEVELS,
        "--out",
        "run",
        "--resume",
    )


def test_a_file_alone_never_runs_it(own):
    beside = ["--checkpoint", "net/checkpoint.pt", *LEVELS]
    wanted = "add --dataset mine:Squares if you trust that module"
    assert wanted in refused("certify", own, *beside, "--out", "other")
    assert wanted in refused("certify", own, *beside, "--out", "run", "--resume")
    assert wanted in refused("predict", own, "run", "test:4")
    (own / "imported").unlink(missing_ok=True)
    verified = ran("verify", own, "run")
    assert wanted in verified.stdout
    ran("report", own, "run")
    np.save(own / "image.npy", np.zeros((8, 8), dtype=np.uint8))
    ran("predict", own, "run", "image.npy", "--n", "20")
    assert not (own / "imported").exists()


def test_another_data_set_than_the_runs_is_refused(own):
    for command, *flags in (("predict", "run", "test:4"), ("verify", "run")):
        message = refused(command, own, *flags, "--dataset", "mine:Others")
        assert "--dataset mine:Others: the run in run has mine:Squares; give that, or leave it out" in message


def test_a_run_over_a_folder_of_hugging_face(own):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (6, 8, 8), dtype=np.uint8)
    import pyarrow as pa

    images = pa.array(pixels.tolist(), pa.list_(pa.list_(pa.uint8())))
    table = table_of(images, np.arange(6) % 10, names=[str(k) for k in range(10)])
    save_dict(own / "set", test=table)
    flags = ["--checkpoint", "net/checkpoint.pt", "--dataset", "hf:set", *LEVELS]
    ran("certify", own, *flags, "--out", "hub")
    ran("report", own, "hub")
    ran("predict", own, "hub", "test:5", "--n", "20")
    assert "images and labels are those of hf:set" in ran("verify", own, "hub", "--all").stdout
    ran("certify", own, *flags, "--out", "hub", "--resume")
