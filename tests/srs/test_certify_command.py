"""`srs-certify` as a person runs it: a program, in an empty folder."""

import csv
import json
import shlex
import shutil
import signal
import subprocess
import sys
from decimal import ROUND_FLOOR, Decimal
from unittest.mock import Mock

import numpy as np
import pytest
import yaml
from rich.table import Table
from scipy.stats import beta, norm, ttest_1samp

import regions
from smoothing.bounds import split_alpha
from smoothing.drawing.files import ROUTES
from srs.commands._cli import console
from srs.commands.certify import main
from srs.run.folder import RUN_FILES
from tests.programs import python
from tests.srs.programs import TINY, assert_refused, call

#: All but those of the demonstration's own classifier, and of a router.
FILES = RUN_FILES - {"model.safetensors", "model.pt", *ROUTES.values()}


def table(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def contents(run):
    """What must not depend on interruptions: all files but for wall times, and what a measurement of them chose."""
    found = {file.name: file.read_bytes() for file in run.iterdir() if file.name not in ("curves.pdf", ".lock")}
    for name in ("selection.tsv", "estimation.tsv", "certificates.tsv"):
        found[name] = [{**row, "time": None} for row in table(run / name)]
    found["summary.json"] = {**json.loads(found["summary.json"]), "seconds": None}
    found["manifest.json"] = {**json.loads(found["manifest.json"]), "batch": None}
    return found


@pytest.fixture(scope="module")
def run(finished):
    return finished[0] / "run"


@pytest.fixture(scope="module")
def rows(run):
    return table(run / "certificates.tsv")


@pytest.fixture(scope="module")
def summary(run):
    return json.loads((run / "summary.json").read_text())


def test_it_ends_well_and_leaves_its_files_and_nothing_else(finished, run):
    folder, process = finished
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert {file.name for file in run.iterdir()} == FILES
    assert {path.name for path in folder.iterdir()} == {"model.pt", "run"}
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (run / "curves.pdf").read_bytes().startswith(b"%PDF")


def test_it_prints_every_rule(finished):
    for title in ("sigma = 0.2", "sigma = 0.4", "overlapping (unsound)", "paper, ascending", "paper, descending"):
        assert f"\n  {title} " in finished[1].stdout
    assert "\n> paper, LP " in finished[1].stdout
    assert "\n> the row to quote: paper, LP\n" in finished[1].stdout


def test_the_last_lines_say_what_was_written_and_what_to_do_next(finished, folder):
    last = ["written to run", "next: srs-report run", "      srs-verify run", "      srs-predict run IMAGE"]
    assert finished[1].stdout.splitlines()[-4:] == last
    shutil.copytree(finished[0] / "run", folder / "it's mine")
    shown = call("certify", folder, *TINY, "--out", "it's mine", "--resume").stdout.splitlines()
    asked, verified, predicted = (shlex.split(line.removeprefix("next: ")) for line in shown[-3:])
    assert asked == ["srs-report", "it's mine"]
    for command, *flags in (asked, verified, [*predicted[:-1], "test:0"]):
        process = call(command.removeprefix("srs-"), folder, *flags)
        assert process.returncode == 0, process.stderr


def test_the_table_starts_with_the_usual_columns(rows):
    usual = ["idx", "label", "predict", "radius", "correct", "time"]
    assert list(rows[0]) == [*usual, "sigma", "R", "r", "p_lower", "region", "counts", "n",
                             "p_upper", "runner_up", "runner_up_counts", "share"]  # fmt: skip
    assert [int(row["idx"]) for row in rows] == list(range(0, 180, 3))


def test_rows_are_consistent(rows):
    assert {row["sigma"] for row in rows} == {"0.2", "0.4"}
    for row in rows:
        radius, R, r = Decimal(row["radius"]), Decimal(row["R"]), Decimal(row["r"])
        assert radius == min(R, r).quantize(Decimal("1e-6"), rounding=ROUND_FLOOR)
        assert (row["predict"] == "-1") == (radius == 0) == (row["region"] == "-1")
        assert row["correct"] == str(int(row["predict"] == row["label"]))
        assert row["time"].startswith("0:00:")
        if radius > 0:
            assert float(row["p_lower"]) > 0.5


def test_certificates_agree_with_what_was_counted(run, rows):
    drawn = {(row["idx"], row["sigma"]): row for row in table(run / "estimation.tsv")}
    chosen = {row["idx"]: row["sigma"] for row in table(run / "levels.tsv")}
    ranked, most = {}, {}
    for row in table(run / "selection.tsv"):
        votes = votes_of(row["votes"])
        most[row["idx"], row["sigma"]] = winner = max(votes, key=lambda one: (votes[one], -one))
        own, other = votes.pop(winner), max(votes.values(), default=0)
        share = float(split_alpha(own, other, 50, 10, 300, 0.001))  # its 50 votes choose how 300 others spend alpha
        p_lower = beta.ppf(0.001 * (1 - share), own, 51 - own)
        p_upper = min(1 - p_lower, beta.ppf(1 - 0.001 * share, other + 1, 50 - other))
        radius = max(0.0, float(row["sigma"]) / 2 * (norm.ppf(p_lower) - norm.ppf(p_upper)))
        ranked.setdefault(row["idx"], []).append((round(radius, 9), row["sigma"]))
    for row in rows:
        counted = drawn[row["idx"], row["sigma"]]
        winner = most[row["idx"], row["sigma"]]
        assert (int(row["counts"]), row["n"]) == (votes_of(counted["votes"]).get(winner, 0), "300")
        assert row["n"] == counted["n"]
        assert row["sigma"] == chosen[row["idx"]] == max(ranked[row["idx"]], key=lambda pair: pair[0])[1]
        assert row["predict"] in (str(winner), "-1")


def votes_of(text):
    return {int(one): int(count) for one, count in (pair.split(":") for pair in text.split(" "))}


def test_written_radii_are_never_above_the_allocated_ones(run, rows):
    stored = regions.RegionMap.load(run / "regions.npz")
    assert len(stored.radii) == len(rows)
    for row, radius in zip(rows, stored.radii, strict=True):
        assert Decimal(row["radius"]) <= Decimal(float(radius)) < Decimal(row["radius"]) + Decimal("1e-6")
        assert float(row["r"]) == radius  # with all its digits


def test_the_summary_can_be_recomputed_from_the_certificates(rows, summary):
    radius = np.array([float(row["radius"]) for row in rows])
    correct = np.array([row["correct"] == "1" for row in rows])
    assert summary["average_certified_radius"] == pytest.approx(np.mean(radius * correct), abs=1e-12)
    assert summary["abstentions"] == sum(row["predict"] == "-1" for row in rows)
    accuracy = [np.mean(correct & (radius > epsilon)) for epsilon in summary["epsilon"]]
    assert summary["main"] == "paper-lp"
    assert summary["rules"]["paper-lp"]["certified_accuracy"] == pytest.approx(accuracy)
    assert summary["epsilon"][:2] == [0, 0.25]
    assert summary["epsilon"][-1] >= 2.25
    assert accuracy[0] > 0.8
    assert summary["settings"]["n"] == 300
    assert summary["seed"] == 1


def test_levels_and_differences_can_be_recomputed(run, summary):
    compared, n = table(run / "comparison.tsv"), summary["data"]["images"]
    kept = {}
    for row in compared:
        kept.setdefault(row["rule"], []).append(
            (row["predict"], float(row["radius"]) * int(row["correct"]), row["correct"])
        )
    for name, level in summary["levels"].items():
        predict = [one for one, _, _ in kept[name]]
        right = sum(correct == "1" for _, _, correct in kept[name])
        assert level["abstained"] == predict.count("-1") / n
        assert level["certified"] == right / n
        assert level["wrong"] == pytest.approx((n - predict.count("-1") - right) / n)
    main = np.array([radius for _, radius, _ in kept[summary["main"]]])
    assert "above_main" not in summary["rules"][summary["main"]]
    for name, rule in summary["rules"].items():
        if name != summary["main"]:
            difference = np.array([radius for _, radius, _ in kept[name]]) - main
            low, high = ttest_1samp(difference, 0.0).confidence_interval(0.95)
            assert rule["above_main"] == pytest.approx([difference.mean(), low, high], abs=1e-9)


def test_every_rule_can_be_recomputed_from_the_comparison(run, summary):
    compared = table(run / "comparison.tsv")
    both = {"": "average_certified_radius", ":one-sided": "average_certified_radius_one_sided"}
    assert {row["rule"] for row in compared} == {rule + end for rule in summary["rules"] for end in both}
    for rule, result in summary["rules"].items():
        for end, name in both.items():
            mine = [row for row in compared if row["rule"] == rule + end]
            average = np.mean([float(row["radius"]) * int(row["correct"]) for row in mine])
            assert result[name] == pytest.approx(average, abs=1e-12)


def test_the_folder_says_what_was_certified(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["n"], config["dataset"], config["overlap"]) == (300, "digits", "paper")
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["format"] == 2
    assert (manifest["classifier"]["stream"], manifest["router"]) == ("philox4x32", None)
    assert manifest["data"]["shape"] == [1, 8, 8]
    assert len(manifest["classifier"]["weights"]) == len(manifest["data"]["sha256"]) == 64
    assert manifest["sigmas"] == [0.2, 0.4]
    assert manifest["batch"] in {2**power for power in range(7, 12)}


#: Runs `srs-certify` and kills it as it flushes a file whose name holds argv[1] for the argv[2]-th time.
KILLED = """
import os, signal, sys
name, count, flush = sys.argv.pop(1), int(sys.argv.pop(1)), os.fsync
def fsync(file):
    global count
    count -= name in os.readlink(f"/proc/self/fd/{file}")
    if not count:
        os.kill(os.getpid(), signal.SIGKILL)
    flush(file)
os.fsync = fsync
from srs.commands.certify import main
main()
"""

#: Where a run is killed, and which of its files are there then.
MOMENTS = (
    ("config.yaml", 1, {"manifest.json"}),
    ("selection.tsv", 3, {"manifest.json", "config.yaml", "selection.tsv.part0"}),
    ("estimation.tsv", 3, {"manifest.json", "config.yaml", "selection.tsv.part0", "estimation.tsv.part0"}),
    ("selection.tsv.", 1, {"manifest.json", "config.yaml", "selection.tsv.part0", "estimation.tsv.part0"}),
    ("levels.tsv", 1, {"manifest.json", "config.yaml", "selection.tsv", "estimation.tsv.part0"}),
    ("estimation.tsv.", 1, {"manifest.json", "config.yaml", "selection.tsv", "levels.tsv", "estimation.tsv.part0"}),
    ("curves.png", 1, FILES - {"curves.png", "curves.pdf", "README.md", "summary.json"}),
)


def test_killed_anywhere_and_resumed_it_ends_with_the_same_files(finished, folder):
    flags = [*TINY, "--out", "run", "--batch", "77"]
    for number, (name, count, left) in enumerate(MOMENTS):
        process = python(KILLED, name, count, *flags, *(["--resume"] if number else []), folder=folder)
        assert process.returncode == -signal.SIGKILL, process.stderr
        held = {file.name for file in (folder / "run").iterdir() if not file.name.endswith(".partial")}
        assert held - {".lock", ".lock0"} == left - {".lock"}
    process = call("certify", folder, *flags, "--resume")
    assert process.returncode == 0, process.stderr
    resumed, whole = contents(folder / "run"), contents(finished[0] / "run")
    for name in ("config.yaml", "summary.json"):  # the batch is a circumstance, and the file says so
        del resumed[name], whole[name]
    assert resumed == whole
    assert {file.name for file in (folder / "run").iterdir()} == FILES


def test_two_processes_write_the_files_of_one(finished, folder):
    flags = [*TINY, "--out", "run"]
    (folder / "program.py").write_text("from srs.commands.certify import main\nmain()\n")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--",
        "program.py",
    ]
    process = subprocess.run([*command, *flags], cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr
    assert contents(folder / "run") == contents(finished[0] / "run")
    assert {file.name for file in (folder / "run").iterdir()} == FILES
    assert process.stdout.count("written to run") == 1
    (folder / "run/summary.json").unlink()
    again = subprocess.run(
        [*command, *flags, "--resume"], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert again.returncode == 0, again.stderr
    assert contents(folder / "run") == contents(finished[0] / "run")


def test_a_launcher_does_not_train(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    message = "torchrun shares out images, not training: name a --checkpoint"
    assert_refused(call("certify", tmp_path), "srs-certify", message)
    assert list(tmp_path.iterdir()) == []


def test_shares_started_one_by_one_end_with_the_files_of_one_process(finished, folder):
    flags = [*TINY, "--out", "run"]
    first = call("certify", folder, *flags, "--shard", "2/2")
    assert first.returncode == 0, first.stderr
    assert first.stdout == (
        "shard 2/2 is done; 30 images lack their estimation samples, of shard 1/2: start the same command for these\n"
    )
    assert_refused(call("certify", folder, *flags), "srs-certify", "--out run: holds an unfinished run")
    other = call("certify", folder, *flags, "--shard", "1/2", "--n", "400")
    assert_refused(other, "srs-certify", "--n 400: the run in run has 300")
    last = call("certify", folder, *flags, "--shard", "1/2")
    assert last.returncode == 0, last.stderr
    assert last.stdout == finished[1].stdout.rpartition("seconds:")[0] + last.stdout[last.stdout.index("seconds:") :]
    assert contents(folder / "run") == contents(finished[0] / "run")
    again = call("certify", folder, *flags, "--shard", "2/2")
    assert "\nfinished before, in run: nothing was written\nnext: srs-report run\n" in again.stdout


def test_a_finished_run_is_kept_unless_told(finished, folder, run):
    shutil.copytree(run, folder / "run")
    before = contents(folder / "run")
    refused = call("certify", folder, *TINY, "--out", "run")
    assert_refused(refused, "srs-certify", "--out run: holds a finished run; name another folder, or replace it")
    other = call("certify", folder, *TINY, "--out", "run", "--resume", "--n", "301")
    assert_refused(other, "srs-certify", "--n 301: the run in run has 300; give the same, or name another --out")
    assert contents(folder / "run") == before
    replaced = call("certify", folder, *TINY, "--out", "run", "--overwrite", "--n", "400")
    assert replaced.returncode == 0, replaced.stderr
    assert json.loads((folder / "run/summary.json").read_text())["settings"]["n"] == 400
    assert {row["n"] for row in table(folder / "run/estimation.tsv")} == {"400"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--alpha", "2"], "--alpha 2.0: must lie strictly between 0 and 1"),
        (["--alpha", "1e-101"], "--alpha 1e-101: must be at least 1e-100"),
        (["--n", "0"], "--n 0: must be from 1 to 1,000,000,000"),
        (["--max", "0"], "--max 0: must be at least 1"),
        (["--seed", "-1"], "--seed -1"),
        (["--sigma-min", "0.9"], "--sigma-min 0.9 is above --sigma-max 0.6: swap them"),
        (["--resume"], "--resume: there is no run in runs/digits; leave --resume out to begin one, or name its --out"),
        (["--resume", "--out", "here"], "--resume: there is no run in here; leave --resume out"),
        (["--checkpoint", "none.pt", "--out", "/dev/null"], "none.pt: no such file"),
        (["--indices", "none.txt", "--out", "/dev/null"], "--indices none.txt: no such file"),
        (["--sampler", "discrete", "--max", "2"], "use --sampler gaussian for others"),
        (["--shard", "0/3"], "--shard 0/3: expected I/N with I from 1 to N, such as 2/8"),
        (["--shard", "two"], "--shard two: expected I/N"),
        (["--shard", "1/2", "--overwrite"], "remove the folder before them"),
        (["--rungs", "500", "200"], "--rungs 500 200: numbers of samples must increase, from 1 to below --n 10000"),
        (["--rungs", "10000"], "--rungs 10000: numbers of samples must increase"),
        (["--min-gain", "0.1"], "--min-gain 0.1: has no effect without --rungs or --max-n"),
        (["--target-loss", "0.1"], "--target-loss 0.1: has no effect without --rungs or --max-n"),
        (["--max-n", "31"], "--max-n 31: must be from 32 to 1,000,000,000; for fewer samples give --n"),
        (
            ["--max-n", "320", "--rungs", "100"],
            "--max-n 320: says how often votes are looked at, as --rungs does; drop one",
        ),
        (
            ["--max-n", "320", "--n", "10000"],
            "--max-n 320: says how many samples to draw, as --n 10000 does; drop one",
        ),
        (["--max-n", "-5"], "--max-n -5: must be from 32"),
        (["--rungs", "100", "--target-loss", "1"], "--target-loss 1.0: must be at least 0 and below 1"),
        (["--rungs", "100", "--min-gain", "nan"], "--min-gain nan: must be finite and >= 0"),
        (["--device", "abacus"], "--device abacus cannot be used"),
        (["--out", "/dev/null"], "--out /dev/null: is a file"),
    ],
)
def test_bad_settings_are_one_line_and_exit_code_2(tmp_path, flags, message):
    assert_refused(call("certify", tmp_path, *flags), "srs-certify", message)
    assert list(tmp_path.iterdir()) == []


def test_an_alpha_too_small_to_be_shared_is_refused_before_the_work(folder):
    """By 60 images and two sizes."""
    flags = (*TINY, "--out", "run", "--rungs", "50", "--alpha", "1e-98")
    assert_refused(call("certify", folder, *flags), "srs-certify", "shared among 2")
    assert not (folder / "run").exists()


def test_an_unknown_flag_is_exit_code_2(tmp_path):
    assert_refused(call("certify", tmp_path, "--sigma", "0.5"), "srs-certify", "--sigma")
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_flag_without_importing_torch(tmp_path):
    script = (
        "import sys\nfrom srs.commands.certify import main\n"
        "try: main()\nfinally: assert not {'torch', 'sklearn', 'matplotlib'} & set(sys.modules)"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    from dataclasses import fields

    from srs.run.settings import CertifySettings

    for field in fields(CertifySettings):
        assert f"--{field.name.replace('_', '-')} " in process.stdout


@pytest.mark.parametrize(("error", "code"), [(ValueError("a\nb"), 2), (OSError("disk"), 2), (KeyboardInterrupt(), 130)])
def test_errors_become_one_line_and_an_exit_code(capsys, monkeypatch, error, code):
    monkeypatch.setattr("srs.commands.certify.certify", Mock(side_effect=error))
    monkeypatch.setattr("sys.argv", ["srs-certify"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == code
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_defects_keep_their_traceback(monkeypatch):
    monkeypatch.setattr("srs.commands.certify.certify", Mock(side_effect=KeyError("defect")))
    monkeypatch.setattr("sys.argv", ["srs-certify"])
    with pytest.raises(KeyError):
        main()


def test_no_table_is_folded_in_a_pipe(capsys):
    table = Table(*("a number of twenty!!" for _ in range(20)))
    table.add_row(*(f"{k:.18f}" for k in range(20)))
    console().print(table)
    printed = capsys.readouterr().out
    assert printed.count("a number of twenty!!") == 20
    assert f"{19:.18f}" in printed


def test_a_run_that_names_no_stream_goes_on_with_the_one_there_was(finished, folder):
    flags = [*TINY, "--out", "old"]
    whole = call("certify", folder, *TINY, "--out", "whole", "--stream", "sfc64")
    assert whole.returncode == 0, whole.stderr
    killed = python(KILLED, "estimation.tsv", 3, *flags, "--stream", "sfc64", folder=folder)
    assert killed.returncode == -signal.SIGKILL
    config, manifest = folder / "old/config.yaml", folder / "old/manifest.json"
    earlier = yaml.safe_load(config.read_text())
    assert earlier.pop("stream") == "sfc64"
    config.write_text(yaml.safe_dump(earlier))
    described = json.loads(manifest.read_text())
    assert described["classifier"].pop("stream") == "sfc64"
    del described["batch"]
    manifest.write_text(json.dumps(described))
    resumed = call("certify", folder, "--out", "old", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    rows, expected = contents(folder / "old")["estimation.tsv"], contents(folder / "whole")["estimation.tsv"]
    assert rows == expected != contents(finished[0] / "run")["estimation.tsv"]
    predicted = call("predict", folder, "old", "test:0")
    assert predicted.returncode == 0, predicted.stderr
    before = contents(folder / "old")
    for stream, out, has in (("philox4x32", "old", "sfc64"), ("sfc64", str(finished[0] / "run"), "philox4x32")):
        refused = call("certify", folder, *TINY, "--out", out, "--resume", "--stream", stream)
        message = f"--stream {stream}: the run in {out} has {has}; give the same, or name another --out"
        assert_refused(refused, "srs-certify", message)
    assert contents(folder / "old") == before


def test_max_n_looks_at_the_votes_at_halves_and_the_same_command_goes_on(folder):
    n = TINY.index("--n")
    flags = [*TINY[:n], *TINY[n + 2 :], "--out", "run", "--max-n", "320", "--target-loss", "0.1"]
    process = call("certify", folder, *flags)
    assert process.returncode == 0, process.stderr
    config = yaml.safe_load((folder / "run/config.yaml").read_text())
    assert (config["n"], config["rungs"], config["target_loss"]) == (320, [10, 20, 40, 80, 160], 0.1)
    assert "max_n" not in config
    drawn = {int(row["n"].split(",")[-1]) for row in table(folder / "run/estimation.tsv")}
    assert len(drawn) > 1  # some images needed fewer samples
    assert drawn <= {10, 20, 40, 80, 160, 320}
    before = contents(folder / "run")
    (folder / "run/summary.json").unlink()
    process = call("certify", folder, *flags, "--resume")
    assert process.returncode == 0, process.stderr
    assert contents(folder / "run") == before
