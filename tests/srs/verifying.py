"""What tests of `srs-verify` have in common: what it found, and how a folder is changed."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import yaml

import regions
from smoothing.fingerprint import hash_arrays
from srs.evaluation.evaluate import evaluate
from srs.report.summary import write_summary, write_tables
from srs.run.folder import read_description
from srs.run.map import read_summary
from srs.run.router import router_record
from srs.run.votes import images_of, read_record, vote_files
from srs.verify.settings import VerifySettings
from srs.verify.verify import verify
from training import digits

LEVELS = ("--sigma-min", "0.2", "--sigma-max", "0.6", "--sigma-step", "0.2")
SMALL = ("--checkpoint", "model.pt", "--dataset", "digits", "--indices", "near.txt", "--seed", "1")
PAPER = ("--overlap", "paper", "--rule", "max-radius")


def copied(folder, tmp_path, monkeypatch):
    """Copy a folder that holds `run` and what it was made of, and go there."""
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("run")


def near_images(count):
    """Test images of the digits in pairs that lie close together: their regions overlap."""
    images = digits().test_images.reshape(360, -1).astype(np.float64)
    distance = np.linalg.norm(images[:, None] - images[None], axis=2) + 9 * np.eye(360)
    pairs = np.argsort(distance, axis=None)
    return list(dict.fromkeys(np.stack(np.unravel_index(pairs, distance.shape), 1).ravel().tolist()))[:count]


def failing(run, **how):
    """What does not hold: topics and texts."""
    return {one.topic: one.text for one in verify(VerifySettings(run=run, **how)).found if one.holds is False}


def unknown(run, **how):
    return {one.topic: one.text for one in verify(VerifySettings(run=run, **how)).found if one.holds is None}


def table_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def put(file, rows):
    lines = [list(rows[0]), *([row[name] for name in rows[0]] for row in rows)]
    file.write_text("".join("\t".join(line) + "\n" for line in lines))


def edit(file, change):
    parse, write = (json.loads, json.dumps) if file.suffix == ".json" else (yaml.safe_load, yaml.safe_dump)
    held = parse(file.read_text())
    change(held)
    file.write_text(write(held))


def edit_rows(file, change):
    rows = table_of(file)
    change(rows)
    put(file, rows)


def edit_map(run, **changes):
    """Write another map, with hashes that fit."""
    table = regions.RegionMap.load(run / "regions.npz")
    arrays = {name: getattr(table, name).copy() for name in ("centres", "radii", "sigma", "classes")}
    for name, change in changes.items():
        arrays[name] = change(arrays[name])
    table = regions.RegionMap(**arrays)
    table.save(run / "regions.npz")
    edit(run / "summary.json", lambda held: held.update(regions=table.content_hash))


def made_anew(run):
    """Let everything that follows from the rows follow from them, as the toolkit itself would: a careful forger."""
    described, summary = read_description(run), read_summary(run)
    settings, manifest = described.settings, described.manifest
    points = regions.RegionMap.load(run / "regions.npz").centres
    idx, sigmas = images_of(run), np.array(manifest["sigmas"])
    router = router_record(manifest)
    record = read_record(vote_files(run, settings, idx, sigmas, manifest["data"]["num_classes"], router), router)
    results = evaluate(record, points, settings.mode, settings.alpha, settings.sampler)
    results.table.save(run / "regions.npz")
    write_tables(results, run)
    write_summary(results, described.config, manifest, run)
    assert summary.keys() == read_summary(run).keys()


def renew_images(run):
    """Write the hash of the images, indices and labels that are there now."""
    shape = json.loads((run / "manifest.json").read_text())["data"]["shape"]
    images = regions.RegionMap.load(run / "regions.npz").centres.astype(np.float32).reshape(-1, *shape)
    label = {row["idx"]: int(row["label"]) for row in table_of(run / "selection.tsv")}
    idx = images_of(run)
    found = hash_arrays(images, idx, np.array([label[str(j)] for j in idx.tolist()]))
    edit(run / "manifest.json", lambda held: held["data"].update(sha256=found, images=len(idx)))
