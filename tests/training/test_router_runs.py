"""Routers from a base classifier to a checkpoint that certifies: as a run, killed and resumed, and with bad input."""

import shutil
import signal
import subprocess
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch

from smoothing import RoutedClassifier, SmoothedClassifier
from tests.programs import python
from training import (
    ROUTER_PRESETS,
    Engine,
    Stage,
    build,
    digits,
    fit,
    load_checkpoint,
    load_router,
    run,
    save_checkpoint,
)

TINY = replace(
    ROUTER_PRESETS["digits-router"][1],
    sigmas=(0.15, 0.3, 0.6),
    train_images=160,
    validation_images=60,
    epochs=3,
    n0=30,
    n_final=1000,
    n_router=100,
    batch=40,
)


#: Runs TINY with base argv[1] in the folder argv[2], and kills itself at argv[3]: so often, at such an event.
PROGRAM = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
import torch
import smoothing.storage, training.chunks, training.run_folder, training.router_runs
from smoothing import SmoothedClassifier
from training import ROUTER_PRESETS, run

base, out, event, count, flags = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), eval(sys.argv[5])
training.chunks.CHUNK_IMAGES = 64
left = iter(range(count - 1, -1, -1))

def die_at(wanted):
    if event == wanted and next(left) == 0:
        os.kill(os.getpid(), signal.SIGKILL)

step, save = torch.optim.Adam.step, torch.save
select, predict = SmoothedClassifier.select_sigma, SmoothedClassifier.predict
def stepped(self, *a, **k):
    result = step(self, *a, **k); die_at("step"); return result
def half(content, stream):
    stream.write(b"half"); stream.flush(); die_at("write"); stream.seek(0); stream.truncate()
    save(content, stream)
def selected(self, *a, **k):
    die_at("radii"); print("radii", len(a[0])); return select(self, *a, **k)
def predicted(self, *a, **k):
    die_at("validate"); return predict(self, *a, **k)
torch.optim.Adam.step, torch.save = stepped, half
SmoothedClassifier.select_sigma, SmoothedClassifier.predict = selected, predicted
run(replace(ROUTER_PRESETS["digits-router"][1], out=Path(out), checkpoint=Path(base), resume=True, **flags))
"""


def flags_of(settings):
    default = ROUTER_PRESETS["digits-router"][1]
    return {name: value for name, value in vars(settings).items() if value != getattr(default, name)}


def start(base, out, event="never", count=1):
    return python(PROGRAM, base, out, event, count, repr(flags_of(TINY)))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A checkpoint of a base classifier that was trained for a second."""
    file = tmp_path_factory.mktemp("base") / "base.pt"
    data, model = digits(), build("digits_cnn", 10, seed=0)
    stage = Stage(epochs=4, sigma=(0.1, 0.6), lr=3e-3, optimizer="adam", batch_size=64)
    fit(model, data.train_images, data.train_labels, stage=stage, engine=Engine(device="cpu"))
    save_checkpoint(file, model, arch="digits_cnn", num_classes=10)
    return file


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    return out, run(replace(TINY, checkpoint=base, out=out))


@pytest.mark.parametrize("fallback", [True, False])
def test_a_run_leaves_a_router_that_certifies_and_predicts(whole, base, fallback):
    out, rows = whole
    assert [(row.stage, row.epoch) for row in rows] == [("router", 0), ("router", 1), ("router", 2)]
    found = load_router(out / "checkpoint.pt", fallback=fallback)
    smoothed = SmoothedClassifier(load_checkpoint(base), 10, threads=1)
    found.check(base=smoothed.identity.weights, image_shape=(1, 8, 8), source="router")
    routed = RoutedClassifier(smoothed, found.router, found.sigmas, router_sigma=found.router_sigma)
    n_router = None if found.router is None else 100
    certified = routed.certify(digits().test_images[:5], n0=30, n=200, n_router=n_router, alpha=0.01)
    assert (certified.radius > 0).any()
    assert (found.levels, found.trained_sigma, found.kind) == ((0.15, 0.3, 0.6), 0.5, "free")
    if not fallback:
        assert found.router is not None
        assert not found.router.training
        assert found.router(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert np.argmax(found.validation.constant) == found.validation.level


def contents(out):
    """Everything in a checkpoint that is not a wall time."""
    content = torch.load(out / "checkpoint.pt", weights_only=True)
    epochs = [(row["stage"], row["epoch"], row["loss"], row["accuracy"], row["lr"]) for row in content["epochs"]]
    return content["state_dict"], content["targets"], content["state"]["optimizer"]["state"], content["router"], epochs


def test_killed_anywhere_and_resumed_it_ends_with_the_same_numbers(whole, base, tmp_path):
    out = tmp_path / "run"
    for event, count in [("radii", 2), ("step", 2), ("write", 1), ("step", 6), ("validate", 1), ("write", 1)]:
        killed = start(base, out, event, count)
        assert killed.returncode == -signal.SIGKILL, (event, count, killed.stderr)
        if event == "step":
            assert killed.stdout.count("radii") <= 2, killed.stdout  # the first chunk was kept, later all of them
        if (out / "checkpoint.pt").exists():
            with pytest.raises(ValueError, match="training of this router is not finished"):
                load_router(out / "checkpoint.pt")
    finished = start(base, out)
    assert finished.returncode == 0, finished.stderr
    *tensors, about, epochs = contents(out)
    *others, other_about, other_epochs = contents(whole[0])
    torch.testing.assert_close(tensors, others, rtol=0, atol=0)
    assert (about, epochs) == (other_about, other_epochs)
    assert sorted(file.name for file in out.iterdir()) == [".lock", "checkpoint.pt", "config.yaml", "log.tsv"]


def test_two_processes_share_the_targets_and_the_comparison(whole, base, tmp_path):
    program, out = tmp_path / "program.py", tmp_path / "run"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    flags = repr({**flags_of(TINY), "device": "cpu"})
    command += [str(base), str(out), "never", "1", flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _, targets, _, about, epochs = contents(out)
    _, alone, _, about_alone, epochs_alone = contents(whole[0])
    torch.testing.assert_close(targets, alone, rtol=0, atol=0)
    found, other = (entry["validation"] for entry in (about, about_alone))
    assert found["constant"] == pytest.approx(other["constant"])  # the router saw other noise
    assert 0 < found["router"] < found["best"]
    assert [row[:2] for row in epochs] == [row[:2] for row in epochs_alone]


def test_targets_are_radii_of_images_that_are_not_held_out(whole, base):
    targets = torch.load(whole[0] / "checkpoint.pt", weights_only=True)["targets"].numpy()
    data = digits()
    order = np.random.default_rng(0).permutation(len(data.train_labels))[::-1]
    rows = np.sort(order[60:220])
    assert not set(rows) & set(order[:60])
    smoothed = SmoothedClassifier(load_checkpoint(base), 10, threads=1)
    found = smoothed.select_sigma(
        data.train_images[rows], [0.15, 0.3, 0.6], n0=30, rule="expected-radius", n=1000, indices=2**31 + rows
    )
    right = found.classes == data.train_labels[rows, None]
    np.testing.assert_array_equal(targets, np.where(right, found.expected_radius, 0))


def test_a_finished_run_is_left_as_it_is(whole, base):
    out, rows = whole
    before = (out / "checkpoint.pt").read_bytes()
    assert run(replace(TINY, checkpoint=base, out=out, resume=True)) == rows
    assert (out / "checkpoint.pt").read_bytes() == before


def test_the_base_classifier_may_lie_elsewhere_but_must_be_the_same(whole, base, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole[0], out)
    moved = shutil.copy(base, tmp_path / "moved.pt")
    run(replace(TINY, checkpoint=moved, out=out, resume=True))
    save_checkpoint(tmp_path / "other.pt", build("digits_cnn", 10, seed=5), arch="digits_cnn", num_classes=10)
    with pytest.raises(ValueError, match=r"--checkpoint .*other\.pt: the run in .* is for another base classifier"):
        run(replace(TINY, checkpoint=tmp_path / "other.pt", out=out, resume=True))


def test_levels_are_those_of_the_base_classifier_unless_given(base, tmp_path):
    content = torch.load(base, weights_only=True)
    trained = tmp_path / "trained.pt"
    config = {"model": "digits_cnn", "sigma_min": 0.2, "sigma_max": 0.6, "sigma_step": 0.2, "seed": 0}
    config |= {"dataset": "digits", "train_images": 1400}
    torch.save({**content, "config": config}, trained)
    run(replace(TINY, checkpoint=trained, out=tmp_path / "run", sigmas=None, epochs=1))
    found = load_router(tmp_path / "run/checkpoint.pt")
    assert found.levels == pytest.approx((0.2, 0.4, 0.6))
    assert found.validation.unseen == 37  # of 1437, the last of the order by which the base classifier took 1400
    torch.save({**content, "config": config | {"sigmas": [0.25, 0.5]}}, trained)
    run(replace(TINY, checkpoint=trained, out=tmp_path / "listed", sigmas=None, epochs=1))
    assert load_router(tmp_path / "listed/checkpoint.pt").levels == (0.25, 0.5)
    torch.save({**content, "config": config | {"sigma": 0.25}}, trained)
    with pytest.raises(
        ValueError, match=r"trained\.pt was trained at 0\.25: a router chooses among two levels or more"
    ):
        run(replace(TINY, checkpoint=trained, out=tmp_path / "one", sigmas=None))
    with pytest.raises(ValueError, match="does not say which levels it was trained for: give --sigmas"):
        run(replace(TINY, checkpoint=base, out=tmp_path / "one", sigmas=None))
    assert not (tmp_path / "one").exists()


def test_a_monotone_router_by_the_other_loss_is_read_again(base, tmp_path):
    settings = replace(TINY, checkpoint=base, out=tmp_path / "run", router_kind="monotone", router_loss="best-level")
    rows = run(settings)
    assert rows[-1].loss < rows[0].loss
    found = load_router(tmp_path / "run/checkpoint.pt", fallback=False)
    assert (found.kind, found.loss) == ("monotone", "best-level")
    logits = found.router(torch.from_numpy(digits().test_images[:50])).detach().numpy()
    assert (np.diff(logits, 2, axis=1) <= 1e-4).all()  # concave: only neighbours compete


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint": None}, "--method router learns for a base classifier: name its checkpoint with --checkpoint"),
        ({"model": "lenet", "checkpoint": "of lenet"}, "lenet.pt does not take digits's images of 1x8x8"),
        ({"train_images": 1400}, "--train-images 1400 and --validation-images 60: digits has 1437 for both"),
        ({"n_final": 1}, r"no training image has a radius at any of the levels 0\.15 0\.3 0\.6; name levels that"),
    ],
)
def test_what_cannot_be_honoured_is_one_line(base, tmp_path, change, message):
    settings = {"checkpoint": base, "out": tmp_path / "run", **change}
    if settings["checkpoint"] == "of lenet":
        settings["checkpoint"] = tmp_path / "lenet.pt"
        save_checkpoint(tmp_path / "lenet.pt", build("lenet", 10), arch="lenet")
    with pytest.raises(ValueError, match=message) as caught:
        run(replace(TINY, **settings))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run/checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("kind", "message"), [("free", r"\(1, 10\) for one image and 3 levels"), ("monotone", "a score")]
)
def test_a_network_that_does_not_return_what_it_is_asked_for_is_refused(tmp_path, monkeypatch, kind, message):
    make = lambda count: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))  # noqa: E731
    monkeypatch.setitem(sys.modules, "mine", types.SimpleNamespace(make=make))
    save_checkpoint(tmp_path / "own.pt", make(10), arch="mine:make", num_classes=10)
    settings = replace(TINY, model="mine:make", router_kind=kind, checkpoint=tmp_path / "own.pt", out=tmp_path / "run")
    with pytest.raises(ValueError, match=f"--model mine:make is no router for digits: .*{message}"):
        run(settings)


def test_a_router_of_a_model_of_ones_own_needs_its_name(tmp_path, monkeypatch):
    make = lambda count: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, count))  # noqa: E731
    monkeypatch.setitem(sys.modules, "mine", types.SimpleNamespace(make=make))
    net = make(10)
    data = digits()
    fit(net, data.train_images, data.train_labels, stage=Stage(epochs=5, sigma=(0.1, 0.1), lr=0.01, optimizer="adam"))
    save_checkpoint(tmp_path / "own.pt", net, arch="mine:make", num_classes=10)
    out = tmp_path / "run"
    run(replace(TINY, model="mine:make", checkpoint=tmp_path / "own.pt", out=out, epochs=1))
    with pytest.raises(ValueError, match="is for a model of your own: give arch 'mine:make' if you trust that module"):
        load_router(out / "checkpoint.pt")
    assert load_router(out / "checkpoint.pt", arch="mine:make", fallback=False).router is not None


def test_a_router_is_no_base_classifier(whole, tmp_path):
    with pytest.raises(ValueError, match=r"checkpoint\.pt is a router, which names noise levels and no classes"):
        run(replace(TINY, checkpoint=whole[0] / "checkpoint.pt", out=tmp_path / "run"))
    with pytest.raises(FileNotFoundError, match="no such file; name a checkpoint"):
        run(replace(TINY, checkpoint=tmp_path / "none.pt", out=tmp_path / "run"))
    assert not list(tmp_path.iterdir())


def swapped(whole, folder, **change):
    """A copy of a run whose checkpoint has other entries."""
    out = folder / "run"
    shutil.copytree(whole[0], out)
    content = torch.load(out / "checkpoint.pt", weights_only=True)
    torch.save({**content, **change}, out / "checkpoint.pt")
    return out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": None}, "does not say how far training came"),
        ({"targets": torch.ones(3, 3, dtype=torch.float64)}, "does not say how far training came"),
        ({"targets": torch.full((160, 3), -1.0, dtype=torch.float64)}, "does not say how far training came"),
        ({"targets": torch.full((160, 3), float("nan"), dtype=torch.float64)}, "does not say how far training came"),
        ({"state": {"history": "long"}}, "does not say how far training came"),
        ({"router": None}, "is for another base classifier"),
        ({"router": {"router_sigma": 0.5}}, "is for another base classifier"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_kept(whole, base, tmp_path, change, message):
    out = swapped(whole, tmp_path, **change)
    before = (out / "checkpoint.pt").read_bytes()
    with pytest.raises(ValueError, match=message) as caught:
        run(replace(TINY, checkpoint=base, out=out, resume=True))
    assert "\n" not in str(caught.value)
    assert (out / "checkpoint.pt").read_bytes() == before


def test_other_levels_are_another_run(whole, base):
    with pytest.raises(ValueError, match=r"--sigmas 0\.15 0\.6: the run in .* has 0\.15 0\.3 0\.6; give the same"):
        run(replace(TINY, checkpoint=base, out=whole[0], sigmas=(0.15, 0.6), resume=True))
