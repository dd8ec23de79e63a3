"""What the README's first line makes: a run without any flag about the model, used by the other commands."""

import shutil

import torch

from tests.srs.programs import call
from training import load_checkpoint, save_checkpoint

FLAGS = ("--max", "6", "--n0", "20", "--n", "60")


def test_the_demonstration_is_classified_with_shown_again_and_gone_on_with(tmp_path):
    made = call("certify", tmp_path, *FLAGS, "--out", "run")
    assert made.returncode == 0, made.stderr
    asked = call("predict", tmp_path, "run", "test:0", "--n", "50")
    assert asked.returncode == 0, asked.stderr
    assert load_checkpoint(tmp_path / "run/model.safetensors")(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    shown = call("certify", tmp_path, *FLAGS, "--out", "run", "--resume")
    assert shown.returncode == 0, shown.stderr
    shutil.copytree(tmp_path / "run", tmp_path / "cut")
    for name in ("summary.json", "estimation.tsv"):
        (tmp_path / "cut" / name).unlink()  # as after a kill
    model = load_checkpoint(tmp_path / "cut/model.safetensors")
    (tmp_path / "cut/model.safetensors").unlink()
    save_checkpoint(tmp_path / "cut/model.pt", model, arch="digits_cnn")  # where earlier versions kept it
    again = call("certify", tmp_path, *FLAGS, "--out", "cut", "--resume")
    assert again.returncode == 0, again.stderr
    for name in ("certificates.tsv", "estimation.tsv"):
        rows, whole = (
            [line.split("\t") for line in (tmp_path / run / name).read_text().splitlines()] for run in ("cut", "run")
        )
        time = whole[0].index("time")
        assert [row[:time] + row[time + 1 :] for row in rows] == [row[:time] + row[time + 1 :] for row in whole]
