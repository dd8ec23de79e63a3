"""A model of one's own lies in the current folder, and is imported only where the command line names it."""

import subprocess
import sys

import pytest

from srs.commands._config import find_in_current_folder
from tests.srs.programs import call

TRAIN = [
    "digits",
    "--train-images",
    "60",
    "--epochs",
    "1",
    "--finetune-epochs",
    "1",
    "--n0",
    "10",
    "--m",
    "1",
    "--k",
    "0",
]
CERTIFY = ["--dataset", "digits", "--sigma-min", "0.2", "--sigma-max", "0.2", "--sigma-step", "0.1"]
CERTIFY += ["--max", "2", "--n0", "10", "--n", "20"]

MINE = """
from pathlib import Path
from torch import nn

Path("imported").touch()

def make(k):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, k))
"""


def start(command, folder, *flags):
    """Run a command as its installed script does: the current folder is not where Python looks for modules."""
    return call(command, folder, *flags, installed=True)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_a_factory_in_the_current_folder_is_trained_and_certified(folder):
    trained = start("train", folder, *TRAIN, "--model", "mine:make", "--out", "run")
    assert trained.returncode == 0, trained.stderr
    flags = ["--checkpoint", "run/checkpoint.pt", *CERTIFY]
    certified = start("certify", folder, *flags, "--arch=mine:make", "--out", "trained")
    assert certified.returncode == 0, certified.stderr
    (folder / "imported").unlink()
    refused = start("certify", folder, *flags, "--out", "again")
    assert refused.returncode == 2
    assert "is for a model of your own: give arch 'mine:make' if you trust that module" in refused.stderr
    assert not (folder / "imported").exists()
    untrained = start("certify", folder, "--model", "mine:make", *CERTIFY, "--out", "untrained")
    assert untrained.returncode == 0, untrained.stderr


def test_a_bare_state_dict_of_a_factory_is_certified(folder):
    make = "import torch; from mine import make; torch.save(make(10).state_dict(), 'bare.pt')"
    subprocess.run([sys.executable, "-c", make], cwd=folder, check=True)
    certified = start("certify", folder, "--checkpoint", "bare.pt", "--arch", "mine:make", *CERTIFY, "--out", "run")
    assert certified.returncode == 0, certified.stderr
    predicted = start("predict", folder, "run", "test:0", "--json")
    assert "does not say how many classes" not in predicted.stderr


def test_a_run_of_somebody_elses_model_trains_what_the_command_line_says(folder):
    begun = start("train", folder, *TRAIN, "--out", "run")
    assert begun.returncode == 0, begun.stderr
    config = folder / "run" / "config.yaml"
    config.write_text(config.read_text().replace("model: digits_cnn", "model: mine:make"))
    resumed = start("train", folder, *TRAIN, "--out", "run", "--resume")
    assert resumed.returncode == 2
    assert "--model digits_cnn: the run in run has mine:make; give the same" in resumed.stderr
    assert not (folder / "imported").exists()


@pytest.mark.parametrize(
    ("names", "args", "found"),
    [
        (["mine:make"], ["--model", "mine:make"], True),
        (["mine:make"], ["--model=mine:make"], True),
        ([None, "mine:make"], ["--arch", "mine:make"], True),
        (["mine:make"], ["--resume"], False),
        (["mine:make"], ["--model", "other:make"], False),
        (["digits_cnn"], ["--model", "digits_cnn"], False),
        ([None], [], False),
    ],
)
def test_imports_look_in_the_current_folder_only_for_what_the_command_line_names(monkeypatch, names, args, found):
    monkeypatch.setattr(sys, "path", ["elsewhere"])
    find_in_current_folder(*names, args=args)
    assert sys.path == (["", "elsewhere"] if found else ["elsewhere"])
    find_in_current_folder(*names, args=args)
    assert sys.path.count("") == found
