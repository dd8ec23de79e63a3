"""Training runs that are killed, resumed and shared end with the same weights; folders are never mixed."""

import csv
import shutil
import signal
import subprocess
import sys
import types
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
import yaml
from accelerate.tracking import GeneralTracker
from filelock import FileLock
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from smoothing import SmoothedClassifier
from tests.programs import python
from training import (
    PRESETS,
    ByteImages,
    TrainSettings,
    digits,
    load_checkpoint,
    run,
    runs,
    staged_run,
    tracking,
    training_config,
)

TINY = replace(
    PRESETS["digits"][1],
    train_images=150,
    sigma_min=0.1,
    sigma_max=0.3,
    epochs=2,
    finetune_epochs=2,
    m=1,
    k=1,
    n0=30,
    batch=50,
    tracker="tensorboard",
)

#: Runs TINY in the folder argv[1], and kills itself at argv[2]: so often, at such an event.
PROGRAM = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
import torch
import smoothing.storage, training.chunks, training.margin_levels, training.runs
from smoothing import SmoothedClassifier
from training import PRESETS, TrainSettings, run

out, event, count, flags = sys.argv[1], sys.argv[2], int(sys.argv[3]), eval(sys.argv[4])
training.chunks.CHUNK_IMAGES = 64
left = iter(range(count - 1, -1, -1))

def die_at(wanted):
    if event == wanted and next(left) == 0:
        os.kill(os.getpid(), signal.SIGKILL)

step, save, select = torch.optim.Adam.step, torch.save, SmoothedClassifier.select_training_sigma
def stepped(self, *a, **k):
    result = step(self, *a, **k); die_at("step"); return result
def half(content, stream):
    stream.write(b"half"); stream.flush(); die_at("write"); stream.seek(0); stream.truncate()
    save(content, stream)
def chosen(self, *a, **k):
    die_at("choose"); return select(self, *a, **k)
class Logs(training.runs.Logs):
    def add(self, epochs):
        die_at("saved"); super().add(epochs)
torch.optim.Adam.step, torch.save, SmoothedClassifier.select_training_sigma = stepped, half, chosen
training.runs.Logs = Logs
margins = training.margin_levels._margins
def drawn(*a):
    die_at("margins"); return margins(*a)
training.margin_levels._margins = drawn
run(replace(PRESETS["digits"][1], out=Path(out), **flags))
"""


def flags_of(settings):
    default = PRESETS["digits"][1]
    return {name: value for name, value in vars(settings).items() if value != getattr(default, name) and name != "out"}


def start(out, event="never", count=1, **change):
    return python(PROGRAM, out, event, count, repr(flags_of(replace(TINY, resume=True, **change))))


def numbers(out):
    """Everything in a checkpoint that is not a wall time."""
    content = torch.load(out / "checkpoint.pt", weights_only=True)
    epochs = [(row["stage"], row["epoch"], row["loss"], row["accuracy"], row["lr"]) for row in content["epochs"]]
    return content["state_dict"], content["chosen"], content["state"]["optimizer"]["state"], epochs


def assert_same(left, right):
    *tensors, epochs = numbers(left)
    *others, other_epochs = numbers(right)
    torch.testing.assert_close(tensors, others, rtol=0, atol=0)
    assert epochs == other_epochs


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    rows = run(replace(TINY, out=out))
    return out, rows


def test_a_run_leaves_what_certifying_needs(whole):
    out, rows = whole
    assert sorted(file.name for file in out.iterdir() if file.name != ".lock") == [
        "checkpoint.pt",
        "config.yaml",
        "log.tsv",
        "tensorboard",
    ]
    assert [(row.stage, row.epoch) for row in rows] == [
        ("pretrain", 0),
        ("pretrain", 1),
        ("finetune", 0),
        ("finetune", 1),
    ]
    with (out / "log.tsv").open(newline="") as stream:
        logged = list(csv.DictReader(stream, delimiter="\t"))
    assert [float(row["loss"]) for row in logged] == pytest.approx([row.loss for row in rows], rel=1e-5)
    config = training_config(out / "checkpoint.pt")
    assert config == yaml.safe_load((out / "config.yaml").read_text()) == replace(TINY, out=out).to_dict()
    assert load_checkpoint(out / "checkpoint.pt")(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert any((out / "tensorboard").iterdir())


def test_the_chosen_levels_are_those_of_the_pretrained_model(whole, tmp_path):
    out, _ = whole
    alone = tmp_path / "run"
    killed = start(alone, "choose")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    chosen = torch.load(out / "checkpoint.pt", weights_only=True)["chosen"].numpy()
    assert set(chosen) <= {0.1, 0.2, 0.3}
    data = digits()
    which = np.sort(np.random.default_rng(0).permutation(len(data.train_labels))[:150])
    smoothed = SmoothedClassifier(load_checkpoint(alone / "checkpoint.pt"), 10, threads=1)
    found = smoothed.select_training_sigma(
        data.train_images[which], data.train_labels[which], [0.1, 0.2, 0.3], n0=30, indices=2**31 + np.arange(150)
    )
    np.testing.assert_array_equal(found.sigma, chosen)


def test_killed_anywhere_and_resumed_it_ends_with_the_same_bits(whole, tmp_path):
    out = tmp_path / "run"
    for event, count in [("step", 2), ("saved", 1), ("write", 1), ("choose", 2), ("step", 4), ("saved", 2)]:
        killed = start(out, event, count)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        if (out / "checkpoint.pt").exists():
            load_checkpoint(out / "checkpoint.pt")
    finished = start(out)
    assert finished.returncode == 0, finished.stderr
    assert_same(out, whole[0])
    assert (out / "log.tsv").read_text().count("\n") == 5
    assert sorted(file.name for file in out.iterdir()) == sorted(file.name for file in whole[0].iterdir())
    logged = EventAccumulator(str(out / "tensorboard")).Reload()
    losses = [*logged.Scalars("pretrain/loss"), *logged.Scalars("finetune/loss")]
    assert [(event.step, event.value) for event in losses] == [
        (step, pytest.approx(row[2], rel=1e-6)) for step, row in enumerate(numbers(out)[3])
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"method": "consistency", "sigma": 0.3, "m": 2},
        {"method": "smoothmix", "sigma": 0.3, "m": 2},
        {"loss": "smoothmix", "sigmas": (0.1, 0.3), "sigma_weights": (1.0, 2.0)},
    ],
)
def test_other_losses_killed_and_resumed_end_with_the_same_bits(tmp_path, change):
    run(replace(TINY, out=tmp_path / "whole", tracker=None, **change))
    for event, count in [("step", 2), ("saved", 1)]:
        killed = start(tmp_path / "run", event, count, tracker=None, **change)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    finished = start(tmp_path / "run", tracker=None, **change)
    assert finished.returncode == 0, finished.stderr
    assert_same(tmp_path / "run", tmp_path / "whole")
    chosen = numbers(tmp_path / "run")[1]
    assert chosen is None if "sigma" in change else set(chosen.tolist()) == {0.1, 0.3}


def test_a_run_of_a_version_without_these_losses_goes_on(whole, tmp_path):
    names = {"loss", "sigmas", "sigma_weights", *(f"smoothmix_{name}" for name in ("eta", "reach"))}
    names |= {f"consistency_{name}" for name in ("lambda", "eta")}
    earlier = {name: value for name, value in replace(TINY).to_dict().items() if name not in names}
    settings = swapped(whole, tmp_path, config=earlier)
    (settings.out / "config.yaml").write_text(yaml.safe_dump(earlier))
    assert run(settings) == whole[1]


def test_a_choice_by_margins_goes_on_after_a_kill_and_counts_its_passes(tmp_path):
    change = {"choice": "margins", "choice_passes": 9, "epochs": 1, "finetune_epochs": 1}
    run(replace(TINY, out=tmp_path / "whole", **change))
    out = tmp_path / "run"
    for count in (2, 4):  # of three chunks in each of three rounds
        killed = start(out, "margins", count, **change)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    partial = sorted(file.name for file in out.glob("sigmas-*"))
    assert [name.partition(".")[2] for name in partial] == ["partial.1.0-of-1", "partial.2.0-of-1"]
    finished = start(out, **change)
    assert finished.returncode == 0, finished.stderr
    assert_same(out, tmp_path / "whole")
    assert sorted(file.name for file in out.iterdir()) == sorted(file.name for file in (tmp_path / "whole").iterdir())
    content = torch.load(out / "checkpoint.pt", weights_only=True)
    assert content["chosen_passes"] == 9 * 150
    assert (content["config"]["choice"], content["config"]["choice_passes"]) == ("margins", 9)
    with pytest.raises(ValueError, match=r"--choice grid: the run in .* has margins; give the same"):
        run(replace(TINY, out=out, resume=True, epochs=1, finetune_epochs=1))


def test_images_kept_as_bytes_end_with_the_same_bits(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (150, 1, 8, 8), dtype=np.uint8)
    data = replace(digits(), train_images=pixels / np.float32(255), train_labels=np.arange(150) % 10)
    monkeypatch.setattr(runs, "load_data", lambda *arguments, **options: data)
    fit, kept = staged_run.fit, []
    monkeypatch.setattr(
        staged_run, "fit", lambda model, images, *rest, **o: (kept.append(images), fit(model, images, *rest, **o))
    )
    run(replace(TINY, out=tmp_path / "bytes"))
    monkeypatch.setattr(runs, "compact", lambda images: images)
    run(replace(TINY, out=tmp_path / "floats"))
    assert [type(images) for images in kept] == [ByteImages, ByteImages, np.ndarray, np.ndarray]
    assert_same(tmp_path / "bytes", tmp_path / "floats")


def test_a_finished_run_is_left_as_it_is(whole):
    out, rows = whole
    before = (out / "checkpoint.pt").read_bytes()
    again = run(replace(TINY, out=out, resume=True))
    assert again == rows
    assert (out / "checkpoint.pt").read_bytes() == before


def test_two_processes_take_the_steps_of_one(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    flags = repr(flags_of(replace(TINY, resume=True, method="gaussian", sigma=0.0, device="cpu")))
    outs = [tmp_path / "one", tmp_path / "two"]
    for out, how in zip(outs, ([str(program)], launcher), strict=True):
        command = [sys.executable, *how, str(out), "never", "1", flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    # without noise the streams of the processes do not matter: only the order of sums differs
    one, two = (numbers(out) for out in outs)
    for key, value in one[0].items():
        torch.testing.assert_close(value, two[0][key], rtol=1e-3, atol=1e-5)
    assert [row[2] for row in one[3]] == pytest.approx([row[2] for row in two[3]], rel=1e-3)


def test_two_processes_run_algorithm_1(tmp_path, whole):
    program, out = tmp_path / "program.py", tmp_path / "run"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    flags = repr(flags_of(replace(TINY, resume=True, device="cpu")))
    done = subprocess.run([*command, str(out), "never", "1", flags], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _, chosen, _, epochs = numbers(out)
    assert len(chosen) == 150
    assert [row[:2] for row in epochs] == [row[:2] for row in numbers(whole[0])[3]]


def test_divergence_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    out = tmp_path / "run"
    fit, seen = staged_run.fit, []

    def poisoned(model, images, labels, *, after_epoch, **options):
        def keep(state):
            after_epoch(state)
            seen.append((out / "checkpoint.pt").read_bytes())
            torch.nn.init.constant_(next(model.parameters()), float("nan"))

        return fit(model, images, labels, after_epoch=keep, **options)

    monkeypatch.setattr(staged_run, "fit", poisoned)
    with pytest.raises(FloatingPointError, match="training diverged"):
        run(replace(TINY, out=out))
    assert (out / "checkpoint.pt").read_bytes() == seen[0]
    load_checkpoint(out / "checkpoint.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "holds a run already; go on with it by --resume, or name another folder"),
        ({"resume": True, "lr": 0.5}, "--lr 0.5: the run in .* has 0.003; give the same, or begin in another folder"),
        ({"resume": True, "train_images": None}, "--train-images None: the run in .* has 150"),
        ({"resume": True, "choice": "margins"}, "--choice margins: the run in .* has grid; give the same"),
    ],
)
def test_two_runs_are_never_mixed(whole, change, message):
    before = (whole[0] / "checkpoint.pt").read_bytes()
    with pytest.raises(ValueError, match=message):
        run(replace(TINY, out=whole[0], **change))
    assert (whole[0] / "checkpoint.pt").read_bytes() == before


def swapped(whole, folder, **change):
    """A copy of a run whose checkpoint has other entries."""
    out = folder / "run"
    shutil.copytree(whole[0], out)
    content = torch.load(out / "checkpoint.pt", weights_only=True)
    torch.save({**content, **change}, out / "checkpoint.pt")
    return replace(TINY, out=out, resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "mine:make"}, "--model digits_cnn: the run in .* has mine:make; give the same"),
        ({"arch": ["digits_cnn"]}, "--model digits_cnn: the run in .* has a list; give the same"),
        ({"normalizer": "cifar10"}, "--normalizer none: the run in .* has cifar10; give the same"),
        ({"config": {}}, "--dataset digits: the run in .* has None; give the same"),
        ({"config": {"lr": torch.ones(2)}}, "its config has lr = a Tensor, which srs-train never writes"),
        ({"config": {**replace(TINY).to_dict(), "lr": 0.5}}, r"--lr 0\.003: the run in .* has 0\.5; give the same"),
        ({"state_dict": {"w": torch.ones(3)}}, r"belongs to another network: no layers\.0\.mean, .* restore it"),
        ({"state_dict": {0: torch.ones(3)}}, "belongs to another network: no layers"),
        ({"state_dict": None}, "was not written by srs-train: restore it, or begin in another folder"),
        ({"state": None}, "does not say how far training came: restore it, or begin in another folder"),
        ({"state": {"history": [{"epoch": 0}]}}, "does not say how far training came"),
        ({"epochs": "many"}, "does not say how far training came"),
        ({"epochs": [{"stage": "pretrain"}]}, "does not say how far training came"),
        ({"chosen_passes": -3}, "does not say how many passes chose the levels"),
        ({"chosen": [0.1, 0.2]}, "does not say how far training came"),
        ({"chosen": torch.ones(3, dtype=torch.float64)}, "holds no noise level of this run for each image"),
        ({"chosen": torch.full((150,), 0.15, dtype=torch.float64)}, "holds no noise level of this run"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_kept(whole, tmp_path, change, message):
    settings = swapped(whole, tmp_path, **change)
    before = (settings.out / "checkpoint.pt").read_bytes()
    with pytest.raises(ValueError, match=message) as caught:
        run(settings)
    assert "\n" not in str(caught.value)
    assert (settings.out / "checkpoint.pt").read_bytes() == before


def test_a_damaged_state_of_the_optimizer_is_one_line(whole, tmp_path):
    content = torch.load(whole[0] / "checkpoint.pt", weights_only=True)
    state = {**content["state"], "history": content["state"]["history"][:1], "optimizer": {"param_groups": 3}}
    with pytest.raises(ValueError, match=r"the state of training does not belong to this stage .*; begin anew"):
        run(swapped(whole, tmp_path, state=state))


@pytest.mark.parametrize(
    "content",
    [
        b"- a\n- b\n",
        b"a: &a [*a]\nb: [",
        b"[" * 20_000,
        b"!!python/object/apply:os.system [touch x]",
        b"!!timestamp abc",
        b"seed: 1" + b"0" * 5000,
        b"\xff\xfe\x00",
        b"? [a]\n: b",
    ],
)
def test_a_damaged_configuration_is_one_line(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=r"config\.yaml is damaged: restore it, or begin in another folder"):
        run(replace(TINY, out=tmp_path, resume=True))
    assert [file.name for file in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 10**30}, "--seed 0: the run in .* has an integer of 100 bits; give the same"),
        ({"model": "os:system"}, "--model digits_cnn: the run in .* has os:system; give the same"),
        ({"model": [["deep"]]}, "--model digits_cnn: the run in .* has a list; give the same"),
        ({"made_up": 3}, "holds made_up, which is no setting here: begin in another folder"),
        ({7: 3}, "is damaged: .*7 is no name of a setting"),
    ],
)
def test_a_configuration_of_somebody_else_is_compared_and_nothing_more(tmp_path, monkeypatch, change, message):
    monkeypatch.setattr("training.factories.importlib.import_module", None)
    settings = replace(TINY, out=tmp_path, resume=True)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings.to_dict() | change))
    with pytest.raises(ValueError, match=message):
        run(settings)


def test_a_full_disk_keeps_the_earlier_checkpoint(whole, tmp_path):
    out = tmp_path / "run"
    killed = start(out, "saved", 1)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = (out / "checkpoint.pt").read_bytes()
    limit = "import resource, sys; sys.dont_write_bytecode = True\n"  # a cut .pyc file would break all later imports
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
    flags = repr(flags_of(replace(TINY, resume=True)))
    program = limit + PROGRAM.replace("run(replace", "with one_line_errors('srs-train'): run(replace")
    program = "from srs.commands._cli import one_line_errors\n" + program
    failed = subprocess.run(
        [sys.executable, "-c", program, str(out), "never", "1", flags], capture_output=True, text=True, check=False
    )
    assert failed.returncode == 2, failed.stderr
    assert failed.stderr.splitlines()[-1].endswith(
        "File too large: '" + str(out / "checkpoint.pt") + "'; make room and try again"
    )
    assert (out / "checkpoint.pt").read_bytes() == before
    finished = start(out)
    assert finished.returncode == 0, finished.stderr
    assert_same(out, whole[0])


def test_a_model_whose_state_could_not_be_saved_is_refused_before_training(tmp_path, monkeypatch):
    class Remembering(torch.nn.Linear):
        def get_extra_state(self):
            return {"seen": 3}

    made = types.SimpleNamespace(make=lambda count: torch.nn.Sequential(torch.nn.Flatten(), Remembering(64, count)))
    monkeypatch.setitem(sys.modules, "mine", made)
    with pytest.raises(ValueError, match=r"--model mine:make: 1\._extra_state of its state_dict is of type dict"):
        run(replace(TINY, out=tmp_path / "run", model="mine:make"))
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_used_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file; name a folder"):
        run(replace(TINY, out=tmp_path / "file"))
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/.lock").symlink_to(tmp_path / "file")
    with pytest.raises(ValueError, match=r"linked: \.lock is a link or no regular file; put a file in its place"):
        run(replace(TINY, out=tmp_path / "linked", resume=True))
    with pytest.raises(ValueError, match="holds files but no training run"):
        run(replace(TINY, out=tmp_path, resume=True))
    (tmp_path / "config.yaml").write_text(": : :\n")
    with pytest.raises(ValueError, match=r"config.yaml is damaged"):
        run(replace(TINY, out=tmp_path, resume=True))
    out = tmp_path / "busy"
    out.mkdir()
    with FileLock(out / ".lock"), pytest.raises(ValueError, match="holds files but no training run"):
        run(replace(TINY, out=out))
    (out / "config.yaml").write_text(yaml.safe_dump(replace(TINY, out=out).to_dict()))
    with FileLock(out / ".lock"), pytest.raises(ValueError, match="another process trains there"):
        run(replace(TINY, out=out, resume=True))


def test_more_images_than_there_are_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--train-images 5000: digits has 1437"):
        run(replace(TINY, train_images=5000, out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_settings_round_trip_and_are_checked():
    assert TrainSettings(**{**TINY.to_dict(), "out": TINY.out, "data_dir": TINY.data_dir}) == TINY


class Recorder(GeneralTracker):
    """A tracker that Accelerate does not bring."""

    name, requires_logging_directory, tracker = "mine", False, None
    kept: ClassVar[list] = []

    def __init__(self, run_name, **options):
        self.kept.append(("begun", run_name))

    def start(self):
        pass

    def store_init_configuration(self, values):
        self.kept.append(("config", values))

    def log(self, values, step=None, **options):
        self.kept.append((step, values))

    def finish(self):
        self.kept.append("finished")


def test_a_tracker_of_another_name_gets_settings_and_every_epoch(tmp_path, monkeypatch):
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "mine", Recorder)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["mine"])
    monkeypatch.setattr(Recorder, "kept", [])
    settings = replace(TINY, out=tmp_path / "run", tracker="mine")
    rows = run(settings)
    begun, config, *logged, last = Recorder.kept
    assert begun == ("begun", "srs-train")
    assert config == ("config", settings.to_dict())
    assert last == "finished"
    assert [(step, values[f"{row.stage}/loss"]) for row, (step, values) in zip(rows, logged, strict=True)] == [
        (k, row.loss) for k, row in enumerate(rows)
    ]
    assert not (tmp_path / "run/tensorboard").exists()
    run(replace(settings, resume=True))  # finished: shown once more, whole
    assert Recorder.kept[len(logged) + 3 :] == [begun, config, *logged, last]


def test_without_a_tracker_nothing_is_tracked_and_it_may_change(tmp_path, whole):
    run(replace(TINY, out=tmp_path / "run", tracker=None))
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == [
        ".lock",
        "checkpoint.pt",
        "config.yaml",
        "log.tsv",
    ]
    assert_same(tmp_path / "run", whole[0])
    run(replace(TINY, out=tmp_path / "run", resume=True))
    assert (tmp_path / "run/tensorboard").is_dir()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("abacus", "--tracker abacus: choose aim, .*tensorboard, .*wandb"),
        ("mlflow", "--tracker mlflow: is not installed; install it, such as with python -m pip install mlflow"),
    ],
)
def test_a_tracker_that_is_not_there_is_refused_before_anything_is_written(tmp_path, monkeypatch, name, message):
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(ValueError, match=message):
        run(replace(TINY, out=tmp_path / "run", tracker=name))
    assert not (tmp_path / "run").exists()
