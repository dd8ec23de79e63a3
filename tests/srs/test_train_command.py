"""srs-train as a person runs it: in an empty folder, with a model of one's own, in two processes, with bad flags."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.srs.programs import call, program

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--"]
TINY = ["--train-images", "100", "--epochs", "1", "--finetune-epochs", "1", "--n0", "20", "--m", "1", "--k", "1"]


def start(command, folder, **environment):
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False
    )


def test_certifying_needs_no_more_than_the_checkpoint(tmp_path):
    trained = call("train", tmp_path, "digits", *TINY, "--sigma-min", "0.2", "--sigma-max", "0.3", "--out", "mine")
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.splitlines()[-1] == "written to mine/checkpoint.pt"
    assert [line.split()[:2] for line in trained.stdout.splitlines()[1:-1]] == [["pretrain", "1"], ["finetune", "1"]]
    certified = call("certify", tmp_path, "--checkpoint", "mine/checkpoint.pt", "--max", 3, "--n0", 20, "--n", 50)
    assert certified.returncode == 0, certified.stderr
    assert "sigma = 0.2" in certified.stdout
    assert "sigma = 0.3" in certified.stdout
    assert (tmp_path / "mine" / "certified" / "certificates.tsv").is_file()


def test_listed_levels_of_training_are_those_of_certifying(tmp_path):
    flags = [*TINY, "--m", "2", "--loss", "smoothmix", "--sigmas", "0.15", "0.4", "--sigma-weights", "1", "3"]
    trained = call("train", tmp_path, "digits", *flags, "--out", "mine")
    assert trained.returncode == 0, trained.stderr
    certify = ["--checkpoint", "mine/checkpoint.pt", "--max", 3, "--n0", 20, "--n", 50]
    certified = call("certify", tmp_path, *certify)
    assert certified.returncode == 0, certified.stderr
    with (tmp_path / "mine" / "certified" / "comparison.tsv").open(newline="") as stream:
        rules = {row["rule"] for row in csv.DictReader(stream, delimiter="\t")}
    assert {"sigma=0.15", "sigma=0.4"} == {rule for rule in rules if rule.startswith("sigma=") and ":" not in rule}
    other = call("certify", tmp_path, *certify, "--sigmas", "0.4", "--out", "other")
    assert other.returncode == 0, other.stderr
    assert "sigma=0.15" not in (tmp_path / "other" / "comparison.tsv").read_text()


def test_a_model_of_ones_own_in_two_processes_is_reported_once(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\ndef make(k):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, k))\n"
    )
    (tmp_path / "train.py").write_text("from srs.commands.train import main\n\nmain()\n")
    flags = ["digits", *TINY, "--model", "mine:make", "--device", "cpu", "--out", "run"]
    trained = start([*TORCHRUN, "train.py", *flags], tmp_path, PYTHONPATH=str(tmp_path))
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.count("written to run/checkpoint.pt") == 1
    again = start([*program("train"), *flags, "--resume"], tmp_path, PYTHONPATH=str(tmp_path))
    assert again.returncode == 0, again.stderr
    with (tmp_path / "run" / "log.tsv").open(newline="") as stream:
        assert [row["stage"] for row in csv.DictReader(stream, delimiter="\t")] == ["pretrain", "finetune"]
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"] == "mine:make"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["digits", "--lr", "much"], "could not convert string to float"),
        (["nothing"], "nothing"),
        (["digits", "--method", "macer"], "--method macer trains at one noise level: give it with --sigma"),
        (["digits", "--method", "smoothmix", "--sigma", "0.5", "--k", "0"], "--k 0: must be at least 1"),
        (["digits", "--sigmas", "0.5", "0.2"], "--sigmas 0.5 0.2: levels must increase, each once"),
        (
            ["digits", "--sigma-weights", "1", "2"],
            "--sigma-weights 1.0 2.0: there are 6 levels; give a weight for each",
        ),
        (["digits", "--loss", "consistency", "--m", "1"], "--m 1: consistency compares noisy copies"),
        (["digits", "--sigma-min", "0.9"], "--sigma-min 0.9 is above --sigma-max 0.6: swap them"),
        (["mnist-quick", "--data-dir", "nowhere"], "put train-images-idx3-ubyte"),
        (["cifar10-quick", "--data-dir", "nowhere"], "put data_batch_1 to data_batch_5"),
        (["digits", "--dataset", "imagefolder:nowhere"], "imagefolder:nowhere: there is no such folder"),
        (["digits", "--dataset", "cats"], "--dataset cats: choose digits, mnist, fashion-mnist"),
        (["digits", "--k", "-1"], "--k -1: must be at least 0"),
        (["digits", "--batch", "0"], "--batch 0: must be at least 1"),
        (["digits", "--method", "macer", "--sigma", "0.5", "--macer-beta", "0"], "--macer-beta 0.0: must be finite"),
        (["digits", "--model", "alexnet"], "--model alexnet: choose lenet"),
        (["digits", "--model", "no.such:thing"], "name package.module:factory, importable from here"),
        (["digits", "--out", "file"], "--out file: is a file; name a folder"),
        (["digits", "--model", "lenet"], "--model lenet does not take digits's images of 1x8x8"),
        (["digits", "--model", "torch.nn:Identity"], "--model torch.nn:Identity returns (1, 1, 8, 8)"),
        (["digits-router"], "--method router learns for a base classifier: name its checkpoint with --checkpoint"),
        (["digits-router", "--checkpoint", "none.pt"], "none.pt: no such file; name a checkpoint"),
        (["digits-router", "--checkpoint", "file"], "file is damaged: it is empty"),
        (["digits-router", "--router-sigma", "0"], "--router-sigma 0.0: must be finite and > 0"),
        (["digits-router", "--sigmas", "0.3", "0.2"], "--sigmas 0.3 0.2: levels must increase, each once"),
        (["digits-router", "--sigmas", "0.3"], "--sigmas 0.3: a router chooses among two levels or more"),
        (["digits-router", "--sigma", "0.3"], "--sigma 0.3: a router has --sigmas to choose from and --router-sigma"),
        (["digits-router", "--router-kind", "round"], "--router-kind"),
        (
            ["digits", "--method", "router"],
            "--method router votes under noise of its own: give its level with --router",
        ),
        (["digits", "--router-sigma", "0.5"], "--router-sigma 0.5: needs --method router"),
        (["digits", "--sigmas", "0.1", "0.5", "--sigma-max", "0.8"], "--sigma-max: the levels are those of --sigmas"),
        (["digits", "--method", "gaussian", "--sigma=0.5", "--sigma_min=0.2"], "the levels are those of --sigma;"),
        (["digits-denoiser", "--sigma", "0.5", "--sigma-min", "0.2"], "the levels are those of --sigma; leave one"),
    ],
)
def test_what_cannot_be_honoured_is_one_line_and_nothing_is_written(tmp_path, flags, message):
    (tmp_path / "file").write_text("")
    failed = call("train", tmp_path, *flags)
    assert failed.returncode == 2, failed.stderr
    assert failed.stdout == ""
    assert len(failed.stderr.splitlines()) == 1, failed.stderr
    assert failed.stderr.startswith("srs-train: ")
    assert message in failed.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_router_is_trained_for_what_was_trained_and_says_whether_it_pays(tmp_path):
    trained = call("train", tmp_path, "digits", *TINY, "--train-images", "600", "--epochs", "5", "--out", "base")
    assert trained.returncode == 0, trained.stderr
    flags = ["--train-images", "200", "--validation-images", "50", "--epochs", "2", "--n0", "20", "--n-router", "50"]
    command = [
        "digits-router",
        "--checkpoint",
        "base/checkpoint.pt",
        "--sigmas",
        "0.2",
        "0.5",
        *flags,
        "--out",
        "router",
    ]
    made = call("train", tmp_path, *command)
    assert made.returncode == 0, made.stderr
    *_, verdict, how, written = made.stdout.splitlines()
    assert written == "written to router/checkpoint.pt"
    assert [line.split()[0] for line in made.stdout.splitlines()[1:3]] == ["router", "router"]
    assert verdict.startswith("router - sigma = 0.")
    assert ("the router answers" in verdict) != ("not clearly more, so sigma = 0." in verdict)
    assert how == (
        "mean expected radii of 50 held-out training images, 50 of them new to the base classifier; 6,500 passes; "
        "labels were used"
    )
    assert max(map(len, made.stdout.splitlines()[:-3])) <= 80
    again = call("train", tmp_path, *command, "--resume")
    assert (again.returncode, again.stdout) == (0, made.stdout)
    wrong = call("train", tmp_path, "digits-router", "--checkpoint", "router/checkpoint.pt", "--out", "second")
    assert wrong.returncode == 2
    assert wrong.stderr == (
        "srs-train: router/checkpoint.pt is a router, which names noise levels and no classes: give the base "
        "classifier's checkpoint\n"
    )
    for flags in ([], ["--sigma-min", "0.2", "--sigma-max", "0.5", "--sigma-step", "0.1"]):
        certified = call("certify", tmp_path, "--checkpoint", "router/checkpoint.pt", *flags)
        assert certified.returncode == 2
        assert certified.stderr.count("\n") == 1, certified.stderr
        assert "router/checkpoint.pt is a router, which names noise levels and no classes" in certified.stderr


def test_an_interrupt_while_files_are_read_ahead_ends_the_command(tmp_path):
    for k in range(20):
        file = tmp_path / "pictures" / ("train" if k < 16 else "test") / f"class{k % 2}" / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 10 * k, dtype=np.uint8)).save(file)
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\ndef make(k):\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, k))\n"
    )
    flags = [
        "digits",
        "--dataset",
        "imagefolder:pictures",
        "--model",
        "mine:make",
        "--batch",
        "2",
        "--epochs",
        "100000",
    ]
    with subprocess.Popen(
        [*program("train"), *flags, "--out", "run"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as training:
        while not (tmp_path / "run/log.tsv").exists():
            assert training.poll() is None, training.stderr.read()
            time.sleep(0.1)
        training.send_signal(signal.SIGINT)
        _, stderr = training.communicate(timeout=120)
    assert training.returncode == 130
    assert stderr.decode() == "\nsrs-train: interrupted, go on after the last whole epoch with --resume\n"
