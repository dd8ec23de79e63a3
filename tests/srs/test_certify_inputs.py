"""What `srs-certify` is told: flags, files, presets and checkpoints, and where the classifier comes from."""

import dataclasses
import math
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from smoothing.images import RunImages
from srs.commands.certify import certify, main
from srs.run.inputs import completed, load
from srs.run.run_settings import Grid, Listed, settings_of, settled
from srs.run.settings import CertifySettings
from training import PRESETS, save_checkpoint

GRID = {"dataset": "digits", "sigma_min": 0.2, "sigma_max": 0.4, "sigma_step": 0.2}


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def told(monkeypatch, *flags):
    """The settings that the command goes to work with."""
    found = []
    monkeypatch.setattr("sys.argv", ["srs-certify", *flags])
    monkeypatch.setattr("srs.commands.certify.certify", lambda settings, teller: found.append(settings))
    main()
    return found[0]


def test_flags_win_over_the_file_and_the_file_over_defaults(here, monkeypatch):
    (here / "settings.yaml").write_text("n: 77\nn0: 5\nracing: true\nexpert: [0.2=a, 0.4=b]\nmax: null\n")
    found = told(monkeypatch, "--config", "settings.yaml", "--n", "88")
    assert (found.n, found.n0, found.racing, found.alpha) == (88, 5, True, CertifySettings.alpha)
    assert found.expert == ("0.2=a", "0.4=b")
    anew = told(monkeypatch, "--config=settings.yaml", "--no-racing", "--expert", "0.3=c")
    assert (anew.racing, anew.expert) == (False, ("0.3=c",))
    again = told(monkeypatch, "--config=settings.yaml", "--racing", "--no-chosen-only")  # what is so already
    assert (again.racing, again.chosen_only) == (True, False)
    assert not told(monkeypatch, "--no-racing").racing


def test_what_a_run_keeps_can_be_told_again(here, monkeypatch):
    given = CertifySettings(
        checkpoint=Path("model.pt"), overlap="joint", chosen_only=True, max=3, rungs=(10, 20), **GRID
    )
    kept = completed(given).settings
    (here / "config.yaml").write_text(yaml.safe_dump(kept.to_dict()))
    assert settings_of(yaml.safe_load((here / "config.yaml").read_text())) == kept
    found = told(monkeypatch, "--config", "config.yaml")
    assert completed(found).settings == kept


def test_levels_of_experts_are_kept_as_they_were_told(here):
    given = CertifySettings(expert=("0.50=other.pt", "0.25=model.pt"), dataset="digits")
    kept = completed(given).settings
    plain = kept.to_dict()
    assert plain["expert"] == ["0.50=other.pt", "0.25=model.pt"]
    assert [plain[name] for name in ("sigma_min", "sigma_max", "sigma_step")] == [None, None, None]
    assert settings_of(plain) == kept
    assert settings_of(plain).files == {0.25: Path("model.pt"), 0.5: Path("other.pt")}


def test_levels_may_be_named_one_by_one(here):
    given = CertifySettings(checkpoint=Path("model.pt"), dataset="digits", sigmas=(0.12, 0.25, 1.0))
    kept = completed(given).settings
    assert kept.levels == Listed((0.12, 0.25, 1.0))
    assert kept.levels.span == (0.12, 1.0)
    plain = kept.to_dict()
    assert plain["sigmas"] == [0.12, 0.25, 1.0]
    assert [plain[name] for name in ("sigma_min", "sigma_max", "sigma_step")] == [None, None, None]
    assert settings_of(plain) == kept
    np.testing.assert_array_equal(load(completed(given)).sigmas, [0.12, 0.25, 1.0])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"sigmas": (0.5, 0.25)}, "--sigmas 0.5 0.25: must increase, each level once"),
        ({"sigmas": (0.25, 0.25)}, "--sigmas 0.25 0.25: must increase, each level once"),
        ({"sigmas": (0.0, 0.25)}, "--sigmas 0 0.25: noise levels must be finite and > 0"),
        ({"sigmas": (0.25, math.inf)}, "--sigmas 0.25 inf: noise levels must be finite and > 0"),
        ({"sigmas": tuple(range(1, 1002))}, "--sigmas: names 1,001 levels; give at most 1,000"),
        ({"sigmas": (0.25, 0.5), "sigma_max": 1.0}, "--sigma-max: the levels are those of --sigmas; leave it out"),
        ({"sigmas": (0.25, 0.5), "expert": ("0.25=a.pt",)}, "--sigmas: the levels are those of --expert; leave it"),
    ],
)
def test_levels_that_are_none_are_refused_in_one_line(flags, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        CertifySettings(**flags).check()


def test_how_many_samples_there_are_is_said_once(here):
    given = CertifySettings(checkpoint=Path("model.pt"), **GRID)
    assert completed(given).settings.n == 10_000
    assert completed(dataclasses.replace(given, n=77)).settings.n == 77
    for n in (None, 320):
        found = completed(dataclasses.replace(given, n=n, max_n=320)).settings
        assert (found.n, found.rungs) == (320, (10, 20, 40, 80, 160))


@pytest.mark.parametrize(
    "name", ["dataset", "data_dir", "sigma_step", "n", "rule", "overlap", "classifier", "bound", "precision"]
)
def test_settings_of_a_run_leave_nothing_open(name):
    said = {"data_dir": Path("data"), "rule": "anchor", "overlap": "paper", "bound": "runner-up", **GRID}
    said |= {"n": 100, "precision": "float32", "classifier": "regions"}
    assert settled(CertifySettings(**said)).levels == Grid(0.2, 0.4, 0.2)
    with pytest.raises(ValueError, match=f"it lacks {name}"):
        settled(CertifySettings(**{**said, name: None}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("n0: many", "invalid literal for int() with base 10: 'many'"),
        ("n: many", "--n many: expected INT"),
        ("samples: 3", "--config settings.yaml: samples is no setting; there are checkpoint, model"),
        ("just words", "--config settings.yaml is damaged: give lines such as n: 1000 (it holds no settings"),
        ("a: [", "--config settings.yaml is damaged: give lines such as n: 1000 (while parsing"),
        ("n: 3\nn: 4", "--config settings.yaml is damaged: give lines such as n: 1000 ('n' is there twice)"),
        ("rungs: [3, --overwrite]", "--config settings.yaml: rungs holds [3, '--overwrite']; give lines such as"),
        ("n: {a: 3}", "--config settings.yaml: n is no single value"),
        ("n: [3]", "--config settings.yaml: n holds [3], and takes one value, no list; give lines such as n: 1000"),
        ("max: []", "--config settings.yaml: max holds [], and takes one value, no list"),
        ("racing: [true]", "--config settings.yaml: racing holds [True], and takes one value, no list"),
        ("checkpoint: [a.pt, b.pt]", "--config settings.yaml: checkpoint holds ['a.pt', 'b.pt'], and takes one value"),
        ("overwrite: true", "--config settings.yaml: overwrite is up to you at each start; say it on the command"),
        (None, "--config settings.yaml: no such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(here, monkeypatch, capsys, text, message):
    if text is not None:
        (here / "settings.yaml").write_text(text)
    with pytest.raises(SystemExit) as end:
        told(monkeypatch, "--config", "settings.yaml")
    error = capsys.readouterr().err
    assert end.value.code == 2
    assert message in error
    assert error.count("\n") == 1


def test_a_preset_fills_in_what_nobody_else_says(here):
    _, preset = PRESETS["mnist-paper-0.50"]
    found = completed(CertifySettings(checkpoint=Path("model.pt"), preset="mnist-paper-0.50", sigma_max=0.3))
    assert (found.settings.dataset, found.settings.levels.span) == ("mnist", (preset.sigma_min, 0.3))
    save_checkpoint("ours.pt", torch.nn.Linear(1, 1), arch="lenet", config={"dataset": "digits", "sigma": 0.25})
    found = completed(CertifySettings(checkpoint=Path("ours.pt"), preset="mnist-paper-0.50"))
    assert (found.settings.dataset, found.settings.levels.span) == ("digits", (0.25, 0.25))
    assert found.settings.overlap == "sigma"  # of one level: there is nothing to keep apart


def test_where_there_are_no_regions_a_preset_says_nothing_of_them():
    given = CertifySettings(router=Path("r.pt"), classifier="router", sigmas=(0.2, 0.4), preset="paper")
    found = completed(given).settings
    assert (found.rule, found.bound, found.overlap) == ("max-radius", "top-class", "sigma")
    assert settings_of(found.to_dict()) == found


DEMO = CertifySettings()
OPEN = {
    "nothing": (DEMO, ("expected-radius", "joint", "runner-up")),
    "greedy": (CertifySettings(method="greedy", order="descending"), ("expected-radius", "paper", "runner-up")),
    "matching": (CertifySettings(method="matching"), ("expected-radius", "joint", "runner-up")),
    "greedy and overlap": (
        CertifySettings(method="greedy", overlap="joint"),
        ("expected-radius", "joint", "runner-up"),
    ),
    "one level": (CertifySettings(sigma_min=0.2, sigma_max=0.2), ("expected-radius", "sigma", "runner-up")),
    "paper": (CertifySettings(preset="paper"), ("max-radius", "paper", "top-class")),
    "paper but for the rule": (CertifySettings(preset="paper", rule="anchor"), ("anchor", "paper", "top-class")),
    "paper's way, own checkpoint": (
        CertifySettings(preset="paper", checkpoint=Path("model.pt"), **GRID),
        ("max-radius", "paper", "top-class"),
    ),
    "experts": (
        CertifySettings(expert=("0.2=model.pt", "0.5=model.pt"), dataset="digits"),
        ("anchor", "joint", "runner-up"),
    ),
    "paper's way, experts": (
        CertifySettings(preset="paper", expert=("0.2=model.pt", "0.5=model.pt"), dataset="digits"),
        ("max-radius", "paper", "top-class"),
    ),
}


@pytest.mark.parametrize(("given", "expected"), OPEN.values(), ids=OPEN)
def test_what_was_left_open_is_the_best_that_is_sound_and_free(here, given, expected):
    settings = completed(given).settings
    assert (settings.rule, settings.overlap, settings.bound) == expected
    assert settings_of(settings.to_dict()) == settings


def test_a_folder_that_does_not_name_rule_and_overlap_means_the_defaults_of_its_time(here):
    kept = completed(CertifySettings(checkpoint=Path("model.pt"), **GRID)).settings.to_dict()
    assert (kept.pop("rule"), kept.pop("overlap")) == ("expected-radius", "joint")
    found = settings_of(kept)
    assert (found.rule, found.overlap) == ("max-radius", "paper")


def test_each_level_has_its_expert(here, weights):
    (here / "other.pt").write_bytes(weights.read_bytes())
    settings = CertifySettings(expert=("0.5=other.pt", "0.25=model.pt"), dataset="digits", max=2)
    inputs = load(completed(settings))
    assert inputs.sigmas.tolist() == [0.25, 0.5]
    assert inputs.base[0.25] is not inputs.base[0.5]
    assert set(inputs.classifier._bank) == {0.25, 0.5}


def test_a_model_of_ones_own_is_taken_as_it_is(here, monkeypatch):
    (here / "own_model.py").write_text(
        "import torch\n"
        "def make(classes):\n"
        "    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))\n"
        "    torch.nn.init.constant_(model[1].weight, 0.5)\n"
        "    return model\n"
    )
    monkeypatch.syspath_prepend(str(here))
    inputs = load(completed(CertifySettings(model="own_model:make", out=Path("run"), max=2, **GRID)))
    assert bool((inputs.base[1].weight == 0.5).all())


REFUSED = {
    "two sources": (
        {"checkpoint": Path("model.pt"), "model": "a:b"},
        "--checkpoint and --model both name a base classifier",
    ),
    "order of lp": ({"order": "arrival"}, "--order arrival has no effect with --method lp: use --method greedy"),
    "outside, a word": ({"outside": "nearest"}, "--outside nearest: expected abstain, auto, router, or"),
    "outside, no number": ({"outside": "sigma=1e"}, "--outside sigma=1e: expected abstain, auto, router, or"),
    "outside, none": ({"outside": "sigma=0"}, "--outside sigma=0: expected abstain"),
    "outside, infinite": ({"outside": "sigma=1e999"}, "--outside sigma=1e999: expected abstain"),
    "outside, not on the grid": (
        {"checkpoint": Path("model.pt"), **GRID, "outside": "sigma=0.33"},
        "--outside sigma=0.33: certificates are made at the levels 0.2 0.4; take one of them",
    ),
    "outside and class": (
        {"outside": "auto", "overlap": "class"},
        "--outside auto: levels that agree need no --overlap",
    ),
    "outside and chosen": (
        {"outside": "auto", "chosen_only": True},
        "--outside auto: needs certificates at every level",
    ),
    "outside and racing": ({"outside": "auto", "racing": True}, "--outside auto: compares levels that --racing leaves"),
    "resume and overwrite": ({"resume": True, "overwrite": True}, "give one of them"),
    "levels of experts": (
        {"expert": ("0.2=model.pt",), "sigma_min": 0.1},
        "--sigma-min: the levels are those of",
    ),
    "no level": ({"expert": ("model.pt",)}, "--expert model.pt: expected SIGMA=FILE"),
    "level 0": ({"expert": ("0=model.pt",)}, "--expert 0=model.pt: expected SIGMA=FILE with SIGMA > 0"),
    "level twice": ({"expert": ("0.2=model.pt", "0.20=b.pt")}, "--expert 0.20=b.pt: sigma 0.2 has model.pt already"),
    "no expert": ({"expert": ("0.2=none.pt",), "dataset": "digits"}, "none.pt: no such file; name a checkpoint"),
    "no preset": (
        {"checkpoint": Path("model.pt"), "preset": "best"},
        "--preset best: choose paper, digits, mnist-quick",
    ),
    "levels of experts and a preset": (
        {"expert": ("0.2=model.pt",), "preset": "digits"},
        "--preset: the levels are those of --expert; leave it out",
    ),
    "preset of nothing": ({"preset": "digits"}, "--preset digits: describes a --checkpoint; name one"),
    "no factory": ({"model": "own", "dataset": "digits"}, "--model own: expected package.module:factory"),
    "no module": ({"model": "no.such:f", "out": Path("run"), **GRID}, "No module named 'no'"),
    "factory and normalizer": ({"model": "a:b", "normalizer": "none"}, "--normalizer: describes a --checkpoint"),
    "no data set": ({"checkpoint": Path("model.pt")}, "model.pt says nothing of dataset: give --dataset"),
    "no levels": (
        {"model": "a:b", "dataset": "digits", "sigma_min": 0.1, "out": Path("run")},
        "--model a:b says nothing of noise levels: give --sigmas, or --sigma-min, --sigma-max and --sigma-step",
    ),
    "no out": ({"model": "a:b", **GRID}, "--model a:b says nothing of a folder to write into: give --out"),
    "damaged": ({"checkpoint": Path("half.pt"), **GRID}, "half.pt is damaged"),
    "no images": (
        {"checkpoint": Path("model.pt"), **GRID, "dataset": "imagefolder:nowhere"},
        "imagefolder:nowhere: there is no such folder",
    ),
    "other images": (
        {"checkpoint": Path("model.pt"), **GRID, "dataset": "mnist", "data_dir": Path("nowhere")},
        "nowhere holds no readable MNIST",
    ),
    "grey levels": (
        {"checkpoint": Path("model.pt"), **GRID, "sampler": "discrete"},
        "sampler 'discrete' is for 8-bit images",
    ),
}


@pytest.mark.parametrize(("settings", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_honoured_is_refused_before_anything_is_written(here, settings, message):
    (here / "half.pt").write_bytes((here / "model.pt").read_bytes()[:3000])
    before = sorted(here.iterdir())
    with pytest.raises((ValueError, OSError)) as caught:
        certify(CertifySettings(**settings))
    assert message in str(caught.value)
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize("held", ["thesis.tex", "selection.tsv"])
def test_folders_that_hold_no_run_are_left_alone(here, held):
    (here / "run").mkdir()
    (here / "run" / held).write_text("years of work")
    for flags in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(ValueError, match="--out run: holds files but no run; name another folder"):
            certify(CertifySettings(checkpoint=Path("model.pt"), out=Path("run"), **GRID, **flags))
    assert (here / "run" / held).read_text() == "years of work"


def test_overwriting_spares_files_that_no_run_wrote(here):
    (here / "run").mkdir()
    (here / "run/config.yaml").write_text("n: 3")
    (here / "run/thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds thesis\.tex, which no run wrote"):
        certify(CertifySettings(checkpoint=Path("model.pt"), out=Path("run"), overwrite=True, **GRID))
    assert (here / "run/thesis.tex").exists()


def test_another_process_in_the_folder_is_refused(here):
    from smoothing.storage import locked

    settings = CertifySettings(checkpoint=Path("model.pt"), out=Path("run"), max=2, n=20, n0=10, **GRID)
    (here / "run").mkdir()
    with locked(here / "run/.lock", here / "run"), pytest.raises(ValueError, match="run is being written by another"):
        certify(settings)
    assert [file.name for file in (here / "run").iterdir()] == [".lock"]


def test_a_share_that_another_process_does_is_refused(here):
    from smoothing.storage import locked

    settings = CertifySettings(checkpoint=Path("model.pt"), out=Path("run"), max=4, n=20, n0=10, **GRID)
    certify(dataclasses.replace(settings, shard="1/2"))
    for shard in ("1/2", "1/3"):  # the same images, or some of them
        with locked(here / "run/.lock0", here / "run"), pytest.raises(ValueError, match="run is being written by anot"):
            certify(dataclasses.replace(settings, shard=shard))
    with (
        locked(here / "run/.lock1", here / "run"),
        pytest.raises(ValueError, match="run is being written by another process"),
    ):
        certify(dataclasses.replace(settings, overwrite=True))
    certify(dataclasses.replace(settings, overwrite=True))
    assert (here / "run/summary.json").exists()


@pytest.mark.parametrize(
    ("change", "key"),
    [({"skip": 2}, "--skip 2"), ({"overlap": "class"}, "--overlap class"), ({"sigma_max": 0.6}, "--sigma-max 0.6")],
)
def test_two_configurations_never_share_a_folder(here, change, key):
    settings = CertifySettings(checkpoint=Path("model.pt"), out=Path("run"), max=3, n=20, n0=10, **GRID)
    certify(settings)
    before = {file.name: file.read_bytes() for file in (here / "run").iterdir()}
    with pytest.raises(ValueError, match=f"{key}: the run in run has"):
        certify(dataclasses.replace(settings, resume=True, **change))
    state = torch.load("model.pt", weights_only=True)
    state["state_dict"]["layers.6.bias"] += 1
    torch.save(state, "model.pt")
    with pytest.raises(ValueError, match="--out run: belongs to a run with another classifier weights"):
        certify(dataclasses.replace(settings, resume=True))
    assert {file.name: file.read_bytes() for file in (here / "run").iterdir()} == before


def test_labels_and_images_are_part_of_what_a_run_is(here):
    inputs = load(completed(CertifySettings(checkpoint=Path("model.pt"), max=3, **GRID)))
    manifest = inputs.manifest(inputs.classifier.identity)
    for other in (
        dataclasses.replace(inputs, labels=inputs.labels[::-1].copy()),
        dataclasses.replace(
            inputs, images=RunImages(np.nextafter(inputs.images, np.float32(1)), np.arange(len(inputs.images)))
        ),
    ):
        assert other.manifest(inputs.classifier.identity)["data"]["sha256"] != manifest["data"]["sha256"]


def test_a_start_that_waited_does_not_draw_into_the_run_of_another(here, monkeypatch):
    """Between looking at the folder and taking its share, another start may have replaced the run."""
    from smoothing.drawing import draw

    settings = CertifySettings(checkpoint=Path("model.pt"), out=Path("run"), max=4, n=20, n0=10, **GRID)
    owned = draw.owned

    def replaced(folder, share):
        monkeypatch.setattr(draw, "owned", owned)
        certify(dataclasses.replace(settings, overwrite=True, seed=5))
        return owned(folder, share)

    monkeypatch.setattr(draw, "owned", replaced)
    with pytest.raises(ValueError, match="--seed 0: the run in run has 5"):
        certify(settings)
    assert yaml.safe_load(Path("run/config.yaml").read_text())["seed"] == 5


def test_a_start_that_waits_for_one_that_fails_begins_anew(here):
    """The failing start removes the folder; the waiting one, which held on to it, makes it again."""
    import threading

    from srs.run.folder import claimed

    held, let_go, begun = threading.Event(), threading.Event(), []

    def failing():
        with suppress(ValueError), claimed(Path("run")):
            held.set()
            let_go.wait(30)
            raise ValueError("it cannot be loaded")

    def waiting():
        with claimed(Path("run"), wait=True) as found:
            begun.append(found)
            Path("run/config.yaml").write_text("")

    first, second = threading.Thread(target=failing), threading.Thread(target=waiting)
    first.start()
    held.wait(30)
    second.start()
    let_go.set()
    first.join()
    second.join()
    assert begun == [False]
    assert Path("run/config.yaml").exists()
