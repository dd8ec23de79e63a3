"""A denoiser before a classifier that never saw noise, from its checkpoint to certificates and answers, by commands."""

import json
import shutil

import numpy as np
import pytest
import torch

import srs
from smoothing import SmoothedClassifier
from smoothing.tables import floor_text
from srs.report.finished_run import load_run
from tests.srs.programs import assert_refused, call
from training import DENOISER_PRESETS, Engine, Stage, build, denoised, digits, fit, load_checkpoint, load_denoiser
from training import save_checkpoint as save
from training.denoiser_checkpoints import DenoiserFacts
from training.denoisers import denoiser_network
from training.denoising import DenoisingLearner
from training.losses import mean_squared_error

SIGMAS = [0.2, 0.4]
SMALL = ("--dataset", "digits", "--n0", "50", "--n", "300", "--skip", "3", "--max", "60")
FLAGS = ("--checkpoint", "base.pt", "--denoiser", "denoiser.pt", *SMALL)

FACTS = DenoiserFacts(sigma_min=0.2, sigma_max=0.4, image_shape=(1, 8, 8), base=None, seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier and a denoiser that were trained for seconds, and denoisers that do not fit."""
    folder = tmp_path_factory.mktemp("denoiser")
    data, base = digits(), build("digits_cnn", 10, seed=0)
    quick = {"optimizer": "adam", "batch_size": 64, "weight_decay": 0.0, "schedule": "cosine"}
    images, labels, engine = data.train_images, data.train_labels, Engine(device="cpu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = denoiser_network("unet_small", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fit(base, images, labels, stage=Stage(epochs=10, sigma=(0.0, 0.0), lr=3e-3, **quick), engine=engine)
        stage = Stage(epochs=10, sigma=(0.2, 0.4), lr=3e-3, loss=mean_squared_error, **quick)
        fit(net, images, labels, stage=stage, engine=engine, kind=DenoisingLearner)
    finally:
        torch.set_num_threads(threads)
    save(folder / "base.pt", base, arch="digits_cnn", num_classes=10)
    config = DENOISER_PRESETS["digits-denoiser"][1].to_dict() | {"sigma_min": 0.2, "sigma_max": 0.4, "sigma_step": 0.2}
    entry = FACTS.entry()
    save(folder / "denoiser.pt", net, arch="unet_small", denoiser=entry, config=config)
    save(folder / "shape.pt", net, arch="unet_small", denoiser=entry | {"image_shape": [1, 28, 28]}, config=config)
    save(folder / "silent.pt", net, arch="unet_small", denoiser=entry)
    with torch.no_grad():
        net.leave.bias += 1e-6
    save(folder / "changed.pt", net, arch="unet_small", denoiser=entry, config=config)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    process = call("certify", folder, *FLAGS, "--out", "run")
    assert process.returncode == 0, process.stderr
    return folder / "run"


def composed(folder, sigmas=SIGMAS):
    """The classifier that a run should have."""
    base, found = load_checkpoint(folder / "base.pt"), load_denoiser(folder / "denoiser.pt")
    return SmoothedClassifier(denoised(found.denoiser, base, sigmas), 10, threads=1)


def test_votes_are_those_of_the_classifier_behind_the_denoiser(folder, run):
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["sigmas"] == SIGMAS  # the denoiser's, where nobody says others
    classifier = composed(folder)
    assert manifest["classifier"]["weights"] == classifier.identity.weights
    results = load_run(run).evaluate()
    images, indices = digits().test_images[:180:3], np.arange(0, 180, 3)
    for sigma in SIGMAS:
        found = classifier.certify(images, sigma, n0=50, n=300, indices=indices)
        written = [float(floor_text(radius)) for radius in found.radius]
        np.testing.assert_array_equal(results.rules[f"sigma={sigma:g}"].radius, written)
    without = call("certify", folder, "--checkpoint", "base.pt", *SMALL, "--sigmas", "0.2", "0.4", "--out", "alone")
    assert without.returncode == 0, without.stderr
    mean = "average_certified_radius"
    ours, theirs = (json.loads((folder / name / "summary.json").read_text()) for name in ("run", "alone"))
    assert ours["rules"]["sigma=0.4"][mean] > theirs["rules"]["sigma=0.4"][mean] + 0.03
    assert ours["denoiser"] == manifest["denoiser"]
    assert "denoiser" not in theirs
    assert manifest["denoiser"]["weights"] in (run / "README.md").read_text()
    assert "denoiser=FILE)" in (run / "README.md").read_text()


def test_a_run_goes_on_with_its_denoiser_alone_wherever_it_lies(folder, run):
    shutil.copy(folder / "denoiser.pt", folder / "moved.pt")
    assert call("certify", folder, "--out", "run", "--resume").returncode == 0
    moved = call("certify", folder, *FLAGS[:3], "moved.pt", *SMALL, "--out", "run", "--resume")
    assert moved.returncode == 0, moved.stderr
    changed = call("certify", folder, *FLAGS[:3], "changed.pt", *SMALL, "--out", "run", "--resume")
    assert_refused(changed, "srs-certify", "--out run: belongs to a run with another denoiser, or none")


def test_a_finished_run_answers_wherever_the_denoiser_lies(folder, run, tmp_path):
    for name in ("base.pt", "denoiser.pt", "changed.pt"):
        shutil.copy(folder / name, tmp_path / f"moved-{name}")
    shutil.copytree(run, tmp_path / "run")
    np.save(tmp_path / "new.npy", digits().test_images[:6:3])
    moved = ("--checkpoint", "moved-base.pt")
    process = call("predict", tmp_path, "run", "new.npy", "--json", *moved, "--denoiser", "moved-denoiser.pt")
    assert process.returncode == 0, process.stderr
    assert all(json.loads(line)["predict"] >= 0 for line in process.stdout.splitlines())
    lost = call("predict", tmp_path, "run", "new.npy", *moved)
    assert_refused(lost, "srs-predict", "denoiser.pt: no such file")
    other = call("predict", tmp_path, "run", "new.npy", *moved, "--denoiser", "moved-changed.pt")
    assert_refused(other, "srs-predict", "run: another denoiser was certified than that in moved-changed.pt; name its")
    files = {"checkpoint": folder / "base.pt", "denoiser": folder / "denoiser.pt"}
    loaded = srs.load_run(run, **files, seed=1)
    base = load_checkpoint(folder / "base.pt")
    again = srs.load_run(run, denoised(load_denoiser(folder / "denoiser.pt").denoiser, base, SIGMAS), seed=1)
    assert loaded.identity == again.identity
    images = digits().test_images[:6:3]
    np.testing.assert_array_equal(loaded.certify(images, n=300).radius, again.certify(images, n=300).radius)
    with pytest.raises(ValueError, match="another classifier was certified"):
        srs.load_run(run, base)
    with pytest.raises(ValueError, match=r"^denoiser = '.*': a module is given as model, which has its denoiser in it"):
        srs.load_run(run, base, denoiser=folder / "denoiser.pt")
    plain = call("certify", folder, "--checkpoint", "base.pt", *SMALL, "--sigmas", "0.2", "--out", "plain")
    assert plain.returncode == 0, plain.stderr
    with pytest.raises(ValueError, match=r"^denoiser = '.*': the run in .*plain has no denoiser; leave it out"):
        srs.load_run(folder / "plain", **files)


def test_a_map_alone_takes_the_denoiser_from_the_command_line(folder, run):
    np.save(folder / "known.npy", digits().test_images[:6:3])
    flags = ("run/regions.npz", "known.npy", "--checkpoint", "base.pt", "--json", "--seed", "3")
    process = call("predict", folder, *flags, "--denoiser", "denoiser.pt")
    assert process.returncode == 0, process.stderr
    ours = [json.loads(line) for line in process.stdout.splitlines()]
    again = call("predict", folder, "run", "known.npy", "--json", "--seed", "3")
    theirs = [json.loads(line) for line in again.stdout.splitlines()]
    assert [(row["predict"], row["votes"]) for row in ours] == [(row["predict"], row["votes"]) for row in theirs]
    wrong = call("predict", folder, *flags, "--denoiser", "denoiser.pt", "--outside", "sigma=0.5")
    assert_refused(wrong, "srs-predict", "--denoiser denoiser.pt is a denoiser for sigma from 0.2 to 0.4, and 0.5 is")


def test_verify_and_attack_know_the_denoiser(folder, run):
    process = call("verify", folder, "run", "--redraw", "2")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "holds    votes" in process.stdout
    other = call("verify", folder, "run", "--denoiser", "changed.pt")
    assert other.returncode == 1
    assert "FAILS    classifier    run: another denoiser was certified than that in changed.pt" in other.stdout
    lost = call("verify", folder, "run", "--denoiser", "none.pt")
    assert lost.returncode == 0
    assert "say where its file is now with --checkpoint or --expert or --denoiser" in lost.stdout
    flags = ("--images", "3", "--steps", "2", "--samples", "4", "--restarts", "0", "--n", "300", "--seed", "1")
    attack = call("attack", folder, "run", *flags, "--denoiser", "denoiser.pt", "--out", "attacked")
    assert attack.returncode == 0, attack.stdout + attack.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config, manifest: manifest.pop("denoiser"), "it names no denoiser"),
        (lambda config, manifest: config.update(denoiser=None), "it names a denoiser and the settings do not"),
        (lambda config, manifest: manifest.update(denoiser={"weights": "0" * 63}), "is no such part of a manifest"),
        (lambda config, manifest: manifest.update(denoiser=["x"]), "is no such part of a manifest"),
    ],
)
def test_a_folder_that_contradicts_itself_is_refused(folder, run, tmp_path, change, message):
    import yaml

    shutil.copytree(run, tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    manifest = json.loads((run / "manifest.json").read_text())
    change(config, manifest)
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "run/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=rf"manifest\.json is damaged: .*{message}"):
        srs.load_run(tmp_path / "run", checkpoint=folder / "base.pt", denoiser=folder / "denoiser.pt")


def test_a_denoiser_goes_before_code_of_ones_own_and_before_experts(folder):
    (folder / "mine.py").write_text(
        "from training import load_checkpoint\n\ndef make(classes):\n    return load_checkpoint('base.pt')\n"
    )
    flags = ("--denoiser", "denoiser.pt", *SMALL, "--max", "6")
    own = call("certify", folder, "--model", "mine:make", *flags, "--out", "own", installed=True)
    assert own.returncode == 0, own.stderr
    experts = call("certify", folder, "--expert", "0.3=base.pt", *flags, "--out", "experts")
    assert experts.returncode == 0, experts.stderr
    own, experts = (json.loads((folder / name / "manifest.json").read_text()) for name in ("own", "experts"))
    assert own["classifier"]["weights"] == composed(folder).identity.weights
    assert experts["classifier"]["weights"] == composed(folder, [0.3]).identity.weights


REFUSED = {
    "shape": (
        ["--checkpoint", "base.pt", "--denoiser", "shape.pt"],
        "shape.pt is a denoiser for images of 1x28x28, not",
    ),
    "levels": (
        ["--checkpoint", "base.pt", "--denoiser", "denoiser.pt", "--sigmas", "0.3", "0.6"],
        "--denoiser denoiser.pt is a denoiser for sigma from 0.2 to 0.4, and 0.6 is not among these: give",
    ),
    "kind": (
        ["--checkpoint", "base.pt", "--denoiser", "base.pt", "--sigmas", "0.3"],
        "base.pt holds no denoiser: give what srs-train --method denoiser wrote",
    ),
    "kind, before levels are missed": (
        ["--checkpoint", "base.pt", "--denoiser", "base.pt"],
        "base.pt holds no denoiser: give what srs-train --method denoiser wrote",
    ),
    "base": (
        ["--checkpoint", "denoiser.pt", "--sigmas", "0.3"],
        "denoiser.pt is a denoiser, which returns images and no classes: give the base classifier's checkpoint",
    ),
    "silent": (["--checkpoint", "base.pt", "--denoiser", "silent.pt"], "base.pt says nothing of noise levels: give"),
    "missing": (["--checkpoint", "base.pt", "--denoiser", "none.pt"], "none.pt"),
    "alone": (["--denoiser", "denoiser.pt"], "--denoiser denoiser.pt: goes before a base classifier; name one with"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_denoiser_that_does_not_fit_is_refused_in_one_line(case, folder):
    flags, message = REFUSED[case]
    process = call("certify", folder, *flags, *SMALL, "--out", "refused")
    assert_refused(process, "srs-certify", message)
    assert not (folder / "refused").exists()
