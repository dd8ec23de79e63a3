"""Denoisers from a classifier to a checkpoint that certifies: as a run, killed and resumed, and with bad input."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from smoothing import SmoothedClassifier
from tests.programs import python
from training import (
    DENOISER_PRESETS,
    Engine,
    Stage,
    TrainSettings,
    build,
    denoised,
    digits,
    fit,
    load_checkpoint,
    load_denoiser,
    run,
    save_checkpoint,
)
from training.run_folder import Logs

TINY = replace(DENOISER_PRESETS["digits-denoiser"][1], train_images=160, epochs=3, finetune_epochs=2, batch=40)

#: Runs TINY with classifier argv[1] in the folder argv[2], and kills itself at the argv[3]-th step.
PROGRAM = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
import torch
from training import DENOISER_PRESETS, run

base, out, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
step, taken = torch.optim.Adam.step, iter(range(1, 10**6))
def stepped(self, *a, **k):
    result = step(self, *a, **k)
    if next(taken) == count:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
torch.optim.Adam.step = stepped
preset = DENOISER_PRESETS["digits-denoiser"][1]
small = replace(preset, train_images=160, epochs=3, finetune_epochs=2, batch=40)
run(replace(small, out=Path(out), checkpoint=Path(base), resume=True))
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A checkpoint of a classifier that never saw noise."""
    file = tmp_path_factory.mktemp("base") / "base.pt"
    data, model = digits(), build("digits_cnn", 10, seed=0)
    stage = Stage(epochs=15, sigma=(0.0, 0.0), lr=3e-3, optimizer="adam", batch_size=64)
    fit(model, data.train_images, data.train_labels, stage=stage, engine=Engine(device="cpu"))
    save_checkpoint(file, model, arch="digits_cnn", num_classes=10)
    return file


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, run(replace(TINY, checkpoint=base, out=out))


def contents(out):
    """Everything in a checkpoint that is not a wall time."""
    content = torch.load(out / "checkpoint.pt", weights_only=True)
    epochs = [(row["stage"], row["epoch"], row["loss"], row["accuracy"], row["lr"]) for row in content["epochs"]]
    return content["state_dict"], content["state"]["optimizer"]["state"], content["denoiser"], epochs


def test_a_run_leaves_a_denoiser_for_its_levels_that_certifies(whole, base):
    out, rows = whole
    stages = [("denoise", 0), ("denoise", 1), ("denoise", 2), ("finetune", 0), ("finetune", 1)]
    assert [(row.stage, row.epoch) for row in rows] == stages
    found = load_denoiser(out / "checkpoint.pt")
    classifier = load_checkpoint(base)
    facts = (found.facts.sigma_min, found.facts.sigma_max, found.facts.image_shape, found.facts.base)
    assert facts == (0.1, 0.6, (1, 8, 8), SmoothedClassifier(load_checkpoint(base), 10).identity.weights)
    smoothed = SmoothedClassifier(denoised(found.denoiser, classifier, [0.2, 0.4]), 10, threads=1)
    certified = smoothed.certify(digits().test_images[:10], np.repeat([0.2, 0.4], 5), n0=30, n=200, alpha=0.01)
    assert (certified.radius > 0).sum() >= 5


def test_killed_in_either_stage_and_resumed_it_ends_with_the_same_numbers(whole, base, tmp_path):
    out = tmp_path / "run"
    steps = 4  # an epoch
    for count, last in (
        (2, None),
        (steps + 2, ("denoise", 0)),
        (2 * steps + 1, ("denoise", 2)),
        (steps + 1, ("finetune", 0)),
    ):
        killed = python(PROGRAM, base, out, count)
        assert killed.returncode == -signal.SIGKILL, (count, killed.stderr)
        if last is not None:
            assert contents(out)[-1][-1][:2] == last
    finished = python(PROGRAM, base, out, 10**6)
    assert finished.returncode == 0, finished.stderr
    *tensors, about, epochs = contents(out)
    *others, other_about, other_epochs = contents(whole[0])
    torch.testing.assert_close(tensors, others, rtol=0, atol=0)
    assert (about, epochs) == (other_about, other_epochs)
    assert sorted(file.name for file in out.iterdir()) == [".lock", "checkpoint.pt", "config.yaml", "log.tsv"]


def test_a_finished_run_is_left_as_it_is(whole, base):
    out, rows = whole
    before = (out / "checkpoint.pt").read_bytes()
    assert run(replace(TINY, checkpoint=base, out=out, resume=True)) == rows
    assert (out / "checkpoint.pt").read_bytes() == before


def test_without_a_classifier_there_is_one_stage(tmp_path):
    rows = run(replace(TINY, out=tmp_path / "run", sigma=0.25))
    assert [row.stage for row in rows] == ["denoise"] * 3
    facts = load_denoiser(tmp_path / "run/checkpoint.pt").facts
    assert (facts.base, facts.sigma_min, facts.sigma_max) == (None, 0.25, 0.25)


def test_interrupted_between_the_stages_it_goes_on_with_the_second(whole, base, tmp_path, monkeypatch):
    def stop(self, epochs):
        if len(epochs) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Logs, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            run(replace(TINY, checkpoint=base, out=tmp_path / "run"))
    run(replace(TINY, checkpoint=base, out=tmp_path / "run", resume=True))
    torch.testing.assert_close(contents(tmp_path / "run")[0], contents(whole[0])[0], rtol=0, atol=0)


def test_the_classifier_may_lie_elsewhere_but_must_be_the_same(whole, base, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole[0], out)
    moved = shutil.copy(base, tmp_path / "moved.pt")
    run(replace(TINY, checkpoint=moved, out=out, resume=True))
    save_checkpoint(tmp_path / "other.pt", build("digits_cnn", 10, seed=5), arch="digits_cnn", num_classes=10)
    for other in (tmp_path / "other.pt", None):
        with pytest.raises(
            ValueError, match=r"^--checkpoint .*: the run in .* keeps the answers of another classifier"
        ):
            run(replace(TINY, checkpoint=other, out=out, resume=True))


REFUSED = {
    "sigma": ({"sigma": 0.0}, r"^--sigma 0\.0: a denoiser needs noise that is finite and > 0"),
    "least": ({"sigma_min": 0.0}, r"^--sigma-min 0\.0: a denoiser needs noise that is finite and > 0"),
    "most": ({"sigma_max": 0.05}, r"^--sigma-max 0\.05: must be finite, and at least --sigma-min 0\.1"),
    "model": ({"model": "lenet"}, r"^--model lenet: is no denoiser; choose unet_small, unet$"),
    "normalizer": ({"normalizer": "mnist"}, "^--normalizer mnist: a denoiser takes pixels as they are; drop it"),
    "router": ({"router_sigma": 0.5}, r"^--router-sigma 0\.5: needs --method router"),
    "epochs": ({"finetune_epochs": 0}, "^epochs = 0: must be at least 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_cannot_be_honoured_are_one_line(case):
    change, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        replace(TINY, **change)


def test_a_classifier_s_checkpoint_is_for_denoisers_and_routers_alone():
    with pytest.raises(ValueError, match=r"^--checkpoint base\.pt: needs --method router or denoiser"):
        TrainSettings(checkpoint=Path("base.pt"))


def test_files_that_are_no_classifier_for_these_images_are_one_line(whole, tmp_path):
    save_checkpoint(tmp_path / "lenet.pt", build("lenet", 10), arch="lenet")
    save_checkpoint(tmp_path / "own.pt", torch.nn.Linear(2, 2), arch="mine:make", config={"model": "mine:make"})
    cases = {
        whole[0] / "checkpoint.pt": r"checkpoint\.pt is a denoiser, which returns images and no classes",
        tmp_path / "lenet.pt": r"^--checkpoint .*lenet\.pt does not take digits's images of 1x8x8",
        tmp_path / "own.pt": r"^--checkpoint .*own\.pt: is for mine:make, and a file alone runs no code",
        tmp_path / "none.pt": "no such file; name a checkpoint",
    }
    for file, message in cases.items():
        with pytest.raises((ValueError, OSError), match=message) as caught:
            run(replace(TINY, checkpoint=file, out=tmp_path / "run"))
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": {"history": "long"}}, "does not say how far training came"),
        ({"epochs": None}, "does not say how far training came"),
        ({"denoiser": None}, "keeps the answers of another classifier"),
        ({"denoiser": {"sigma_max": 0.5}}, "keeps the answers of another classifier"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_kept(whole, base, tmp_path, change, message):
    out = tmp_path / "run"
    shutil.copytree(whole[0], out)
    content = torch.load(out / "checkpoint.pt", weights_only=True)
    torch.save({**content, **change}, out / "checkpoint.pt")
    before = (out / "checkpoint.pt").read_bytes()
    with pytest.raises(ValueError, match=message):
        run(replace(TINY, checkpoint=base, out=out, resume=True))
    assert (out / "checkpoint.pt").read_bytes() == before
