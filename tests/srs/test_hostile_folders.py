"""A run's folder from somebody else: it runs no code, writes nothing elsewhere, and damage of any kind is one line."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import regions
from smoothing.reading import read_json, read_yaml
from srs.commands import certify, predict, report
from srs.report.finished_run import load_run
from srs.run.folder import read_description
from tests.srs.programs import TINY, assert_refused

COMMANDS = {
    "predict": (predict.main, ["run", "test:0", "--seed", "1", "--n", "50"]),
    "report": (report.main, ["run", "--out", "written"]),
    "certify": (certify.main, ["--out", "run", "--resume"]),
}


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy of a finished run, in the current folder."""
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    shutil.copy(finished[0] / "model.pt", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", sys.path.copy())
    return Path("run")


@pytest.fixture
def told(monkeypatch, capsys):
    """What one of our commands does, in this process: as `subprocess.run` returns it."""

    def call(command, *more):
        main, arguments = COMMANDS[command]
        monkeypatch.setattr("sys.argv", [f"srs-{command}", *arguments, *more])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code)
        printed = capsys.readouterr()
        return subprocess.CompletedProcess([], code, printed.out, printed.err)

    return call


def contents(folder):
    """All regular files, links not followed."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}


def put(name, content):
    def damage(run):
        (run / name).write_bytes(content)

    return damage


def edit(name, change):
    """Change what a JSON or YAML file holds."""

    def damage(run):
        file = run / name
        parse, write = (json.loads, json.dumps) if name.endswith("json") else (yaml.safe_load, yaml.safe_dump)
        held = parse(file.read_text())
        change(held)
        file.write_text(write(held))

    return damage


def cell(name, column, text):
    """Replace one number of a table's third row."""

    def damage(run):
        lines = (run / name).read_text().splitlines(keepends=True)
        at = lines[0].rstrip("\n").split("\t").index(column)
        fields = lines[2].rstrip("\n").split("\t")
        fields[at] = text
        lines[2] = "\t".join(fields) + "\n"
        (run / name).write_text("".join(lines))

    return damage


def special(name, make):
    def damage(run):
        (run / name).unlink()
        make(run / name)

    return damage


#: Which files each command reads.
READ = {
    "predict": ("config.yaml", "manifest.json", "summary.json", "regions.npz"),
    "report": ("config.yaml", "manifest.json", "summary.json", "regions.npz", "selection.tsv", "estimation.tsv",
               "levels.tsv"),
    "certify": ("config.yaml", "manifest.json", "summary.json", "regions.npz", "selection.tsv", "estimation.tsv",
                "levels.tsv", "certificates.tsv"),
}  # fmt: skip

ANY_FILE = {
    "empty": lambda name: put(name, b""),
    "noise": lambda name: put(name, np.random.default_rng(0).bytes(400)),
    "NUL": lambda name: put(name, bytes(400)),
    "half": lambda name: lambda run: put(name, (run / name).read_bytes()[: (run / name).stat().st_size // 2])(run),
    "lists in lists": lambda name: put(name, b"[" * 100_000),
    "mappings in mappings": lambda name: put(name, b'{"a": ' * 100_000),
    "a long number": lambda name: put(name, b"9" * 5000),
    "a folder": lambda name: special(name, Path.mkdir),
    "a pipe": lambda name: special(name, os.mkfifo),
    "a dangling link": lambda name: special(name, lambda file: file.symlink_to("nowhere")),
    "a link to a device": lambda name: special(name, lambda file: file.symlink_to("/dev/zero")),
}


#: Every kind of damage to every file that `srs-report` reads; other commands read in the same way, a few show it.
DAMAGED = [
    (command, name, kind)
    for command, names in READ.items()
    for name in names
    for kind in (ANY_FILE if command == "report" else ("half", "mappings in mappings", "a pipe"))
]


@pytest.mark.parametrize(("command", "name", "kind"), DAMAGED)
def test_whatever_stands_in_a_files_place_is_one_line(run, told, command, name, kind):
    ANY_FILE[kind](name)(run)
    before = contents(Path())
    assert_refused(told(command), f"srs-{command}", "")
    assert contents(Path()) == before


LONG, LONGER = "9" * 30, "9" * 5000


def values_of(keys):
    """Every wrong value in every place of a mapping."""
    wrong = [int(LONG), float("nan"), float("inf"), -1, -0.5, [], {}, [[1]], "x", True]
    return [(key, value) for key in keys for value in wrong]


@pytest.mark.parametrize("key", ["n", "n0", "alpha", "seed", "skip", "chosen_only", "overlap", "method", "precision",
                                 "sampler", "dataset", "rule"])  # fmt: skip
def test_no_setting_of_another_kind_is_read(run, key):
    kept = (run / "config.yaml").read_bytes()
    for _, value in values_of([key]):
        if (key, value) in (("chosen_only", True), ("dataset", "x")):
            continue
        (run / "config.yaml").write_bytes(kept)
        edit("config.yaml", lambda held, value=value: held.update({key: value}))(run)
        with pytest.raises(ValueError, match=r"^run/config\.yaml is damaged: restore it"):
            read_description(run)
    (run / "config.yaml").write_bytes(kept)
    edit("config.yaml", lambda held: held.pop(key))(run)
    if key in ("overlap", "rule"):  # what all runs had while it was the default
        assert getattr(read_description(run).settings, key) == {"overlap": "paper", "rule": "max-radius"}[key]
        return
    with pytest.raises(ValueError, match=f"it lacks {key}"):
        read_description(run)


MANIFEST_PARTS = [
    ("format",), ("seed",), ("device",), ("data",), ("data", "images"), ("data", "shape"), ("data", "num_classes"),
    ("data", "sha256"), ("classifier",), ("classifier", "weights"), ("classifier", "num_classes"),
    ("classifier", "precision"), ("classifier", "sampler"), ("classifier", "seed"), ("classifier", "compiled"),
    ("sigmas",),
]  # fmt: skip


@pytest.mark.parametrize("place", MANIFEST_PARTS, ids="-".join)
def test_no_part_of_the_manifest_of_another_kind_is_used(run, place):
    kept = (run / "manifest.json").read_bytes()
    *outer, key = place
    values = [value for _, value in values_of([key]) if not (key == "device" and value == "x")]
    for value in [*values, None, [0.2, 0.2], [0.4, 0.2], [1, -8, -8], [10**9, 10**9, 1], ["0.2"], "touch CODE_RAN"]:
        if key == "device" and isinstance(value, str):
            continue
        manifest = json.loads(kept)
        part = manifest
        for name in outer:
            part = part[name]
        part[key] = value
        (run / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ValueError, match=r"^run/manifest\.json(: format| is damaged: restore it)|a newer version"):
            read_description(run)


CELLS = {
    "votes above n": ("estimation.tsv", "votes", "3:301", "must be from 1 on and add up to 300"),
    "votes below n": ("estimation.tsv", "votes", "3:299", "add up to 300"),
    "votes below 0": ("estimation.tsv", "votes", "3:-1 4:301", "are not written as class:count pairs"),
    "no votes": ("estimation.tsv", "votes", "", "are not written as class:count pairs"),
    "another n": ("estimation.tsv", "n", "3000", "n = 3000: must be the first of 300 in this run"),
    "several n": ("estimation.tsv", "n", "100,300", "n = 100,300: must be the first of 300"),
    "a class too many": ("estimation.tsv", "votes", "10:300", "classes must increase, from 0 to 9"),
    "a class twice": ("estimation.tsv", "votes", "3:150 3:150", "classes must increase, from 0 to 9"),
    "30 digits": ("estimation.tsv", "n", LONG, "must be the first of 300"),
    "5000 digits": ("estimation.tsv", "votes", f"3:{LONGER}", "are not written as class:count pairs"),
    "underscores": ("estimation.tsv", "votes", "3:3_00", "are not written as"),
    "other digits": ("estimation.tsv", "votes", "3:\u0663\u0660\u0660", "are not written as"),
    "NaN votes": ("estimation.tsv", "votes", "NaN", "are not written as"),
    "NaN seconds": ("estimation.tsv", "time", "nan", "is not a number"),
    "endless seconds": ("estimation.tsv", "time", "1e999", "is not a number"),
    "seconds of colons": ("estimation.tsv", "time", "9:" * 300 + "9", "is not a number"),
    "another sigma": ("estimation.tsv", "sigma", "0.3", "holds rows of other noise levels"),
    "another image": ("estimation.tsv", "idx", "1", "holds rows of other images"),
    "a label too many": ("selection.tsv", "label", "10", "label = 10: must be from -1 to 9"),
    "two labels": ("selection.tsv", "label", "3", "gives an image several labels"),
    "a class below 0": ("selection.tsv", "clean", "-1", "clean = -1: must be from 0 to 9"),
    "a clean class too many": ("selection.tsv", "clean", "77", "clean = 77: must be from 0 to 9"),
    "more samples than n0": ("selection.tsv", "n", "51", "must be the first of 50"),
    "a level of none": ("levels.tsv", "sigma", "0.3", "levels.tsv is damaged"),
    "no order": ("levels.tsv", "idx", "0", "it has an image twice"),
    "a long index": ("levels.tsv", "idx", LONG, "must be from 0 to"),
}


def test_images_without_a_label_are_refused(run):
    lines = (run / "selection.tsv").read_text().splitlines(keepends=True)
    for row in (1, 2):  # of one image
        fields = lines[row].split("\t")
        lines[row] = "\t".join([fields[0], "-1", *fields[2:]])
    (run / "selection.tsv").write_text("".join(lines))
    with pytest.raises(ValueError, match=r"selection\.tsv is damaged: image 0 has no label"):
        load_run(run)


@pytest.mark.parametrize(("name", "column", "text", "message"), CELLS.values(), ids=CELLS)
def test_rows_keep_to_the_configuration(run, name, column, text, message):
    cell(name, column, text)(run)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_run(run)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["selection.tsv", "estimation.tsv", "levels.tsv"])
def test_an_unfinished_run_does_not_go_on_from_damaged_rows(run, told, name):
    (run / "summary.json").unlink()
    cell(name, "idx", LONG)(run)
    before = contents(Path())
    assert_refused(told("certify"), "srs-certify", f"run/{name}")
    assert contents(Path()) == before


@pytest.mark.parametrize(
    "name",
    ["selection.tsv", "estimation.tsv.part0", "summary.json", "model.pt", ".lock", ".lock0", "regions.npz"],
)
@pytest.mark.parametrize("finished_run", [True, False])
def test_nothing_is_written_through_a_link(run, told, name, finished_run):
    victim = Path("victim")
    victim.write_bytes(b"a torn last line")
    if not finished_run:
        (run / "summary.json").unlink()
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim.absolute())
    before = contents(Path())
    assert_refused(told("certify"), "srs-certify", f"--out run: {name} is a link or no regular file")
    assert_refused(told("certify", "--overwrite"), "srs-certify", "")
    assert contents(Path()) == before


def test_a_finished_run_is_only_shown(run, told, finished):
    before = contents(run)
    times = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    process = told("certify")
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    first = finished[1].stdout.splitlines()
    assert first[-4] == "written to run"
    first[-4] = "finished before, in run: nothing was written"
    assert process.stdout.splitlines() == first
    assert contents(run) == before
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == times


def test_what_differs_in_a_finished_run_is_told_in_one_line(run, told):
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"device": "a\n\x1b[2J"}))
    process = told("certify")
    assert process.returncode == 0, process.stderr
    told_so = "srs-certify: warning: run/summary.json says device = a\\n\\x1b[2J, the rows give cpu"
    assert process.stderr.startswith(told_so)
    assert process.stderr.count("\n") == 1


CODE = "import pathlib\npathlib.Path('CODE_RAN').touch()\ndef make(classes): raise ValueError('made')\n"


class Evil:
    """Unpickled, it runs a command."""

    def __reduce__(self):
        return os.system, ("touch CODE_RAN",)


def write_evil_program(file):
    """Write an exported program that runs a command where `torch.export.load` reads it."""
    stream = io.BytesIO()
    torch.export.save(torch.export.export(torch.nn.Flatten(), (torch.rand(1, 1, 8, 8),)), stream)
    pickled = io.BytesIO()
    torch.save(Evil(), pickled)
    with zipfile.ZipFile(stream) as plain, zipfile.ZipFile(file, "w") as evil:
        for name in plain.namelist():
            evil.writestr(name, pickled.getvalue() if "sample_inputs" in name else plain.read(name))


HOSTILE = {
    "model": {"model": "own_code:make", "checkpoint": None},
    "architecture": {"arch": "own_code:make"},
    "architecture of an expert": {
        **dict.fromkeys(("checkpoint", "sigma_min", "sigma_max", "sigma_step")),
        "arch": "own_code:make",
        "expert": ["0.2=model.pt"],
    },
    "an exported program": {"model": "export:evil.pt2", "checkpoint": None},
    "a list": {"model": ["own_code:make"], "checkpoint": None},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_alone_runs_no_code(run, told, command, change):
    Path("own_code.py").write_text(CODE)
    edit("config.yaml", lambda held: held.update(change))(run)
    process = told(command)
    write_evil_program("evil.pt2")
    if command != "report" or change is HOSTILE["a list"]:
        message = "if you trust that module"
        if change is HOSTILE["an exported program"]:
            message = "add --model export:evil.pt2"
        if change is HOSTILE["a list"]:
            message = "takes one value, no list" if command == "certify" else "damaged"
        assert_refused(process, f"srs-{command}", message)
    assert not Path("CODE_RAN").exists()
    assert "own_code" not in sys.modules
    assert "" not in sys.path


def test_a_file_of_settings_runs_no_code_either(run, told, monkeypatch, capsys):
    Path("own_code.py").write_text(CODE)
    Path("mine.yaml").write_text(
        "model: own_code:make\ndataset: digits\nsigma_min: 0.2\nsigma_max: 0.4\nsigma_step: 0.2\n"
    )
    for flags, message in (([], "add --model own_code:make if you trust that module"),
                           (["--model", "own_code:make"], "made")):  # fmt: skip
        monkeypatch.setattr("sys.argv", ["srs-certify", "--config", "mine.yaml", "--out", "new", *flags])
        assert not Path("CODE_RAN").exists()
        with pytest.raises(SystemExit):
            certify.main()
        assert message in capsys.readouterr().err
    assert Path("CODE_RAN").exists()
    assert not Path("new").exists()
    del sys.modules["own_code"]


def test_code_of_ones_own_is_named_again(run):
    Path("own_model.py").write_text(
        "import torch\n"
        "def make(classes):\n"
        "    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))\n"
        "    torch.nn.init.constant_(model[1].weight, 0.5)\n"
        "    return model\n"
    )
    flags = [*TINY[2:], "--out", "mine"]
    assert told_in("certify", [*flags, "--model", "own_model:make"]).returncode == 0
    question = ["mine", "test:0", "--n", "50"]
    missing = told_in("predict", question)
    assert_refused(missing, "srs-predict", "add --model own_model:make if you trust that module")
    other = told_in("predict", [*question, "--model", "other_model:make"])
    assert_refused(other, "srs-predict", "--model other_model:make: the run in mine has own_model:make; give --model")
    assert told_in("predict", [*question, "--model", "own_model:make"]).returncode == 0
    shown = told_in("certify", ["--out", "mine", "--resume", "--model", "own_model:make"])
    assert "\nfinished before, in mine: nothing was written\n" in shown.stdout


def told_in(command, arguments):
    """Run a command as a program that is not in the current folder's reach, as an installed one is."""
    code = f"from srs.commands.{command} import main; main()"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments], capture_output=True, text=True, timeout=300, check=False
    )


def another_map(run, change):
    """Write a map with a right hash of its own."""
    table = regions.RegionMap.load(run / "regions.npz")
    arrays = {name: getattr(table, name).copy() for name in ("centres", "radii", "sigma", "classes")}
    change(arrays)
    regions.RegionMap(**arrays).save(run / "regions.npz")


def widen(arrays):
    arrays["radii"] *= 3


def relabel(arrays):
    arrays["classes"] = np.where(arrays["classes"] >= 0, (arrays["classes"] + 1) % 10, -1)


def other_sigma(arrays):
    arrays["sigma"][:] = 0.3


MAPS = {"wider": widen, "other classes": relabel, "other levels": other_sigma,
        "fewer": lambda arrays: arrays.update({name: value[:9] for name, value in arrays.items()}),
        "no class": lambda arrays: arrays.update(classes=np.full(len(arrays["radii"]), -1)),
        "classes too many": lambda arrays: arrays["classes"].__setitem__(arrays["classes"] >= 0, 77)}  # fmt: skip


@pytest.mark.parametrize("change", MAPS.values(), ids=MAPS)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("old", [False, True])
def test_a_map_of_another_run_is_refused(run, told, command, change, old):
    if old:  # a run that an earlier version wrote
        edit("summary.json", lambda held: held.pop("regions"))(run)
        assert told("predict").returncode == 0
    another_map(run, change)
    before = contents(Path())
    assert_refused(told(command), f"srs-{command}", "run/regions.npz")
    assert contents(Path()) == before


def test_regions_that_overlap_are_refused_even_with_a_right_hash(run, told):
    another_map(run, widen)
    table = regions.RegionMap.load(run / "regions.npz")
    edit("summary.json", lambda held: held.update(regions=table.content_hash))(run)
    assert_refused(told("predict"), "srs-predict", "run/regions.npz is damaged: regions")


def test_a_map_alone_may_overlap_in_one_class_only(run, monkeypatch, capsys):
    image = np.full((1, 64), 0.5)
    for name, classes, sigma in (("same", [3, 3], [0.2, 0.4]), ("none", None, [0.2, 0.4]), ("two", [3, 4], [0.2, 0.4]),
                                 ("abstained", [-1, -1], [0.2, 0.4]), ("one sigma", [3, 4], [0.2, 0.2])):  # fmt: skip
        table = regions.RegionMap(np.concatenate([image, image + 0.01]), [0.5, 0.5], sigma, classes=classes)
        table.save("map.npz")
        monkeypatch.setattr("sys.argv", ["srs-predict", "map.npz", "one.npy", "--checkpoint", "model.pt", "--n", "20"])
        np.save("one.npy", np.full((8, 8), 0.5, dtype=np.float32))
        code = 0
        try:
            predict.main()
        except SystemExit as end:
            code = end.code
        error = capsys.readouterr().err
        assert code == (0 if name in ("same", "one sigma") else 2), error
        assert ("map.npz is damaged: regions 0 and 1 overlap" in error) == (code == 2)


BOMBS = {
    "aliases": "a: &a [x, x]\nb: &b [*a, *a]\n",
    "a key twice": "n: 1\nn: 2\n",
    "no integer": "n: !!int ''\n",
    "no time": "n: !!timestamp now\n",
    "no truth": "n: !!bool maybe\n",
    "an object": "n: !!python/object/apply:os.system [exit]\n",
    "a name that is none": "3: 4\n",
    "deep": "a: " + "[" * 3000,
    "not so deep": "a: " + "[" * 30 + "]" * 30,
    "long": "n: " + LONGER,
    "a list": "[1]",
    "nothing": "",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_yaml_that_is_no_list_of_settings(tmp_path, text):
    (tmp_path / "file").write_text(text)
    with pytest.raises(ValueError, match=r"file is damaged: restore it \(") as caught:
        read_yaml(tmp_path / "file", "restore it")
    assert len(str(caught.value)) < len(str(tmp_path)) + 200


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', '{"a":' * 30 + "1" + "}" * 30, "[1]", "7", "", '{"a": ' + LONGER + "}"]
)
def test_json_that_is_no_object(tmp_path, text):
    (tmp_path / "file").write_text(text)
    with pytest.raises(ValueError, match=r"file is damaged: restore it \("):
        read_json(tmp_path / "file", "restore it")


def test_a_model_of_other_weights_in_the_folder_is_refused(run, told):
    weights = torch.load("model.pt", weights_only=True)
    weights["state_dict"]["layers.6.bias"] += 1
    torch.save(weights, "model.pt")
    for command in ("predict", "certify"):
        assert_refused(told(command), f"srs-{command}", "another")
