"""Runs of format 1, which kept the votes for one class: they are read and reported, and not gone on with."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from srs.report.finished_run import load_run
from srs.verify.settings import VerifySettings
from srs.verify.verify import verify
from tests.srs.programs import TINY, assert_refused, call


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def write(file, header, rows):
    file.write_text("\n".join("\t".join(row) for row in [header, *rows]) + "\n")


@pytest.fixture(scope="module")
def one_sided(tmp_path_factory, weights):
    """A folder with a run of today whose certificates are one-sided, as all were."""
    folder = tmp_path_factory.mktemp("one-sided")
    (folder / "model.pt").write_bytes(weights.read_bytes())
    process = call("certify", folder, *TINY, "--bound", "top-class", "--stream", "sfc64", "--out", "run")
    assert process.returncode == 0, process.stderr
    return folder


@pytest.fixture
def old(one_sided, tmp_path):
    """A finished run as version 0.1 left it: the votes for the class that is certified, and no more."""
    run = tmp_path / "run"
    shutil.copytree(one_sided / "run", run)
    shutil.copy(one_sided / "model.pt", tmp_path)
    record, selected, classes = load_run(run).record, [], {}
    for row, choice, ranked in zip(
        rows_of(run / "selection.tsv"),
        record.classes.ravel().tolist(),
        record.expected_radius.ravel().tolist(),
        strict=True,
    ):
        classes[row["idx"], row["sigma"]] = str(choice)
        selected.append((row["idx"], row["label"], row["sigma"], row["clean"], str(choice), repr(ranked), row["n"],
                         row["time"]))  # fmt: skip
    write(run / "selection.tsv", ("idx", "label", "sigma", "clean", "class", "radius", "samples", "time"), selected)
    estimated = []
    for row in rows_of(run / "estimation.tsv"):
        choice = classes[row["idx"], row["sigma"]]
        votes = dict(pair.split(":") for pair in row["votes"].split(" "))
        estimated.append((row["idx"], row["sigma"], choice, votes.get(choice, "0"), row["n"], row["time"]))
    write(run / "estimation.tsv", ("idx", "sigma", "class", "count", "n", "time"), estimated)
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["classifier"]["stream"], manifest["router"], manifest["batch"]
    (run / "manifest.json").write_text(json.dumps(manifest | {"format": 1}))
    config = yaml.safe_load((run / "config.yaml").read_text())
    later = ("rungs", "min_gain", "target_loss", "bound", "stream", "compile")
    for name in later:
        del config[name]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    summary = json.loads((run / "summary.json").read_text())
    del summary["classifier"]["stream"]
    for name in later:
        del summary["settings"][name]
    del summary["levels"], summary["wrong_at_most"]
    for rule in summary["rules"].values():
        for name in list(rule):
            if name.endswith(("_one_sided", "_interval")) or name == "above_main":
                del rule[name]
    (run / "summary.json").write_text(json.dumps(summary))
    return run


def test_the_same_certificates_follow_from_its_rows(old, one_sided):
    before, now = load_run(old), load_run(one_sided / "run")
    assert before.record.counts.other is None
    ours, theirs = before.evaluate(), now.evaluate()
    assert ours.rules.keys() == theirs.rules.keys()
    for name, rule in theirs.rules.items():
        np.testing.assert_array_equal(ours.rules[name].radius, rule.radius)
        np.testing.assert_array_equal(ours.rules[name].predict, rule.predict)
    assert before.disagreement(ours) is None


def test_it_is_reported_and_predicts_and_is_not_gone_on_with(old):
    report = call("report", old.parent, "run", "--alpha", "0.01")
    assert report.returncode == 0, report.stderr
    assert report.stderr == ""
    predict = call("predict", old.parent, "run", "test:0", "--seed", "1", "--n", "50")
    assert predict.returncode == 0, predict.stderr
    before = {file.name: file.read_bytes() for file in old.iterdir()}
    message = "--out run: was written by an earlier version, which cannot be gone on with; srs-report shows it"
    assert_refused(call("certify", old.parent, *TINY, "--out", "run", "--resume"), "srs-certify", message)
    assert_refused(call("certify", old.parent, *TINY, "--out", "run", "--shard", "1/2"), "srs-certify", message)
    (old / "summary.json").unlink()
    assert_refused(call("certify", old.parent, "--out", "run", "--resume"), "srs-certify", message)
    del before["summary.json"]
    assert {file.name: file.read_bytes() for file in old.iterdir()} == before


LONG = "9" * 30

CELLS = {
    "count above n": ("estimation.tsv", "count", "301", "must be from 0 to 300 in this run"),
    "count below 0": ("estimation.tsv", "count", "-1", "must be from 0 to 300"),
    "another n": ("estimation.tsv", "n", "3000", "n = 3000: must be 300 in this run"),
    "a class too many": ("estimation.tsv", "class", "10", "class = 10: must be from 0 to 9"),
    "another class": ("estimation.tsv", "class", "9", "does not belong to selection.tsv"),
    "30 digits": ("estimation.tsv", "count", LONG, "must be from 0 to 300"),
    "underscores": ("estimation.tsv", "count", "1_0", "is not a number"),
    "other digits": ("estimation.tsv", "count", "\u0663", "is not a number"),
    "NaN seconds": ("estimation.tsv", "time", "nan", "is not a number"),
    "another sigma": ("estimation.tsv", "sigma", "0.3", "holds rows of other noise levels"),
    "another image": ("estimation.tsv", "idx", "1", "holds rows of other images"),
    "a label too many": ("selection.tsv", "label", "10", "label = 10: must be from 0 to 9"),
    "two labels": ("selection.tsv", "label", "3", "gives an image several labels"),
    "more samples than n0": ("selection.tsv", "samples", "51", "must be from 0 to 50"),
    "a radius without end": ("selection.tsv", "radius", "inf", "must be finite"),
    "a level of none": ("levels.tsv", "sigma", "0.3", "levels.tsv is damaged"),
}


@pytest.mark.parametrize(("name", "column", "text", "message"), CELLS.values(), ids=CELLS)
def test_its_rows_are_checked(old, name, column, text, message):
    lines = (old / name).read_text().splitlines(keepends=True)
    at = lines[0].rstrip("\n").split("\t").index(column)
    fields = lines[2].rstrip("\n").split("\t")
    fields[at] = text
    lines[2] = "\t".join(fields) + "\n"
    (old / name).write_text("".join(lines))
    with pytest.raises(ValueError, match=re.escape(message)):
        load_run(old)


@pytest.mark.parametrize("name", ["selection.tsv", "estimation.tsv", "levels.tsv"])
def test_half_of_its_rows_are_refused(old: Path, name):
    content = (old / name).read_bytes()
    (old / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"come to its end|holds rows of other images|is damaged|fields where"):
        load_run(old)


def test_it_is_verified_as_far_as_it_goes(old, monkeypatch):
    monkeypatch.chdir(old.parent)
    found = verify(VerifySettings(run=old, all=True))
    assert [one.text for one in found.found if one.holds is False] == []
    assert "kept no votes to choose levels by" in next(one.text for one in found.found if one.topic == "levels")
    assert next(one for one in found.found if one.topic == "votes").holds
    for name, column, topic in (("estimation.tsv", "count", "certificates"), ("selection.tsv", "radius", "levels")):
        kept = (old / name).read_bytes()
        rows = rows_of(old / name)
        for row in rows:
            row[column] = str(int(row[column]) // 2) if column == "count" else repr(9 - float(row[column]))
        write(old / name, tuple(rows[0]), [tuple(row.values()) for row in rows])
        assert topic in [one.topic for one in verify(VerifySettings(run=old)).found if one.holds is False]
        (old / name).write_bytes(kept)
