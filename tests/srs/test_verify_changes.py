"""srs-verify: random changes of any field of a run are found."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import regions
from tests.srs.verifying import copied, edit, failing, put, table_of


@pytest.fixture
def run(small, tmp_path, monkeypatch):
    """A copy of the small run, in the current folder."""
    return copied(small, tmp_path, monkeypatch)


def places_of(held, place=()):
    """All places of plain values in nested mappings and lists."""
    if isinstance(held, dict) and held:
        return [found for name, value in held.items() for found in places_of(value, (*place, name))]
    if isinstance(held, list) and held:
        return [found for at, value in enumerate(held) for found in places_of(value, (*place, at))]
    return [place]


def other_value(value, luck):
    """A value of the same kind, or nearly: what a slip or a liar might put in its place."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + luck.choice([-1, 1, 7, 100])
    if isinstance(value, float):
        return value * luck.choice([0.5, 0.999, 1.001, 2.0]) if value else 0.25
    if isinstance(value, str):
        digits = [at for at, one in enumerate(value) if one.isdigit()]
        if digits and luck.random() < 0.8:
            at = luck.choice(digits)
            return value[:at] + str((int(value[at]) + luck.randint(1, 9)) % 10) + value[at + 1 :]
        return value + "x"
    return 1 if value is None else None


def change_plain(file, place, luck):
    def change(held):
        for name in place[:-1]:
            held = held[name]
        if "check" in place:  # logits, which are compared within rounding
            first, *rest = held[place[-1]].split(" ")
            held[place[-1]] = " ".join([repr(float(first) + 0.1), *rest])
        else:
            held[place[-1]] = other_value(held[place[-1]], luck)

    edit(file, change)


def change_cell(file, column, luck):
    rows = table_of(file)
    row = luck.choice(rows)
    old = row[column]
    if column == "votes":
        first, *rest = old.split(" ")
        one, count = first.split(":")
        moved = f"{one}:{int(count) - 1}" if int(count) > 1 else ""
        row[column] = " ".join(filter(None, [moved, *rest, "9:1"])) if "9:" not in old else old.replace("9:", "8:")
    elif column == "rule":
        row[column] = luck.choice([other["rule"] for other in rows if other["rule"] != old])
    elif column in ("R", "r", "p_lower", "p_upper"):  # not in digits that are roundings
        row[column] = old
        while not row[column].endswith("x") and math.isclose(float(row[column]), float(old), rel_tol=1e-11):
            row[column] = other_value(old, luck)
    else:
        row[column] = other_value(old, luck)
    assert row[column] != old
    put(file, rows)


def change_array(run, name, luck):
    file = run / "regions.npz"
    arrays = dict(np.load(file))
    if name in ("format", "content_hash"):
        arrays[name] = np.array(other_value(str(arrays[name]), luck))
        np.savez(file, **arrays)
        return
    flat = arrays[name].reshape(-1)
    at = luck.randrange(flat.size)
    flat[at] = flat[at] + 1 if name == "classes" else flat[at] * luck.choice([0.5, 0.999, 1.001]) or 0.5
    regions.RegionMap(**{key: arrays[key] for key in ("centres", "radii", "sigma", "classes")}).save(file)
    table = regions.RegionMap.load(file)
    edit(run / "summary.json", lambda held: held.update(regions=table.content_hash))


def change_weights(file, name, luck):
    held = torch.load(file, weights_only=True)
    flat = held["state_dict"][name].flatten()
    flat[luck.randrange(len(flat))] += 0.01
    held["state_dict"][name] = flat.reshape(held["state_dict"][name].shape)
    torch.save(held, file)


def fields(run):
    """Every field of every file: file, where in it, and how to change it."""
    found = []
    for name in ("config.yaml", "manifest.json", "summary.json"):
        parse = json.loads if name.endswith("json") else yaml.safe_load
        for place in places_of(parse((run / name).read_text())):
            if place != ("batch",):  # how many samples a batch held, which no vote depends on
                found.append((run / name, place, change_plain))
    for name in sorted(file.name for file in run.iterdir() if file.suffix == ".tsv"):
        found += [(run / name, column, change_cell) for column in table_of(run / name)[0]]
    found += [(run, name, change_array) for name in np.load(run / "regions.npz")]
    for file in Path().glob("*.pt"):
        found += [(file, name, change_weights) for name in torch.load(file, weights_only=True)["state_dict"]]
    return found


def accepted(run, changes, luck):
    """Make each change in turn, verify, take it back; return the changes that nothing was found of."""
    kept = {file: file.read_bytes() for file in (*run.iterdir(), *Path().glob("*.pt"))}
    passed = []
    for file, place, change in changes:
        change(file, place, luck)
        try:
            if not failing(run, all=True):
                passed.append((file.name, place))
        except ValueError:  # refused before it began
            pass
        for other, content in kept.items():
            other.write_bytes(content)
    return passed


def test_random_changes_are_found(run):
    luck = random.Random(1)
    every = fields(run)
    assert len(every) > 500
    tables = [one for one in every if one[2] is change_cell]
    plain = [one for one in every if one not in tables]
    assert accepted(run, luck.sample(tables, 12) + luck.sample(plain, 18), luck) == []


def test_changes_of_what_is_about_a_router_are_found(around, tmp_path, monkeypatch):
    run, luck = copied(around, tmp_path, monkeypatch), random.Random(3)
    about = [one for one in fields(run) if "router" in f"{one[0].name} {one[1]}"]
    assert len(about) > 60
    assert accepted(run, luck.sample(about, 12), luck) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small", "around"])
def test_every_field_changed_is_found(request, tmp_path, monkeypatch, name):
    run, luck = copied(request.getfixturevalue(name), tmp_path, monkeypatch), random.Random(2)
    every = fields(run)
    tables = [one for one in every if one[2] is not change_plain]
    changes = [*every, *10 * tables]
    assert len(changes) > 800
    assert accepted(run, changes, luck) == []
