"""Algorithm 2 after a run: what is registered stays certified, and a file serves one run only."""

import json
import subprocess
from contextlib import closing

import numpy as np
import pytest
import torch

import regions
from smoothing import SmoothedClassifier
from srs.predict.online import arrive, open_state
from srs.predict.predictor import Predictor
from tests.smoothing.oracles import Halfspace
from tests.srs.programs import assert_refused, call, program

W, B = torch.tensor([[[0.6, -0.8], [0.3, 0.5]]]), -0.3
SIGMAS = [0.1, 0.25]
CLASSIFIER = {"weights": "abc", "num_classes": 2, "precision": "float32", "sampler": "gaussian", "seed": 3}


def classifier(seed):
    return SmoothedClassifier(Halfspace(W, B), 2, batch_size=4096, seed=seed)


def a_map(rng, groups):
    """Regions of 20 images, at most 0.7 of what is true."""
    images = rng.random((20, 1, 2, 2)).astype(np.float32)
    sigma = rng.choice(SIGMAS, size=20)
    R = 0.7 * Halfspace(W, B).radius(torch.from_numpy(images)).numpy()
    classes = Halfspace(W, B)(torch.from_numpy(images)).argmax(dim=1).numpy()
    r = regions.allocate(images, R, groups=sigma if groups == "sigma" else None).radii
    return regions.RegionMap(images, r, sigma, classes=classes)


@pytest.mark.parametrize(("overlap", "groups"), [("paper", "none"), ("sigma", "sigma"), ("joint", "sigma")])
def test_what_was_certified_stays_so_while_images_arrive(rng, tmp_path, overlap, groups):
    # alpha = 1e-6 for 40 certificates: a false alarm has probability below 4e-5.
    table = a_map(rng, groups)
    images = rng.random((40, 1, 2, 2)).astype(np.float32)
    exact = Halfspace(W, B).radius(torch.from_numpy(images)).numpy()
    truth = Halfspace(W, B)(torch.from_numpy(images)).argmax(dim=1).numpy()
    with open_state(tmp_path / "s.db", table, overlap, CLASSIFIER) as state:
        before = state.region_map()
        kept = table.radii > 0
        held = before.locate(table.centres[kept])
        assert (held.region >= 0).all()
        assert (held.sigma == table.sigma[kept]).all()
        found = arrive(state, Predictor(classifier(8), table, sigmas=SIGMAS, alpha=1e-6), images, n=2000, n0=200)
        after = state.region_map()
    answers = found.answers
    assert 0 < found.created.sum() < 40
    assert len(after) == len(before) + found.created.sum()
    assert (after.centres[: len(before)] == before.centres).all()
    assert (after.radii[: len(before)] == before.radii).all()
    assert regions.verify(after.centres, after.radii, groups=after.sigma if groups == "sigma" else None)
    certified = answers.predict >= 0
    assert (answers.predict[certified] == truth[certified]).all()
    assert (answers.radius <= np.minimum(answers.R, exact)).all()
    assert (answers.radius[~certified] == 0).all()
    where = after.locate(images)
    inside = answers.region >= 0
    assert (where.region[inside] >= 0).all()
    assert (where.sigma[inside] == answers.sigma[inside]).all()
    # G, later, at points moved within the certified ball: sigma is the same, and the class is the certified one
    moved = np.flatnonzero(answers.radius > 0.01)
    assert len(moved) > 5
    direction = rng.normal(size=(len(moved), 1, 2, 2))
    length = 0.7 * answers.radius[moved] / np.linalg.norm(direction.reshape(len(moved), -1), axis=1)
    points = np.clip(images[moved] + length[:, None, None, None] * direction, 0, 1).astype(np.float32)
    later = Predictor(classifier(9), after, alpha=1e-6)(points, n=20_000)
    assert (later.sigma == answers.sigma[moved]).all()
    assert np.all((later.predict == answers.predict[moved]) | (later.predict == -1))


def test_a_file_begins_with_all_regions_and_is_opened_again(rng, tmp_path):
    table = a_map(rng, "none")
    for _ in range(2):
        with open_state(tmp_path / "s.db", table, "paper", CLASSIFIER) as state:
            assert len(state) == np.count_nonzero(table.radii)
            assert state.region_map().radii == pytest.approx(table.radii[table.radii > 0], rel=1e-12)
    assert {file.name for file in tmp_path.iterdir()} == {"s.db", "s.db.json"}


OTHERS = {
    "weights": (
        CLASSIFIER | {"weights": "xyz"},
        "paper",
        "is another run's: classifier weights is abc there, xyz here",
    ),
    "mode": (CLASSIFIER, "sigma", "is another run's: groups is none there, sigma here"),
    "class": (CLASSIFIER, "class", "whose certificates must hold all at once"),
}


@pytest.mark.parametrize(("described", "overlap", "message"), OTHERS.values(), ids=OTHERS)
def test_the_file_of_another_run_is_refused(rng, tmp_path, described, overlap, message):
    table = a_map(rng, "none")
    open_state(tmp_path / "s.db", table, "paper", CLASSIFIER).close()
    open_state(tmp_path / "s.db", table, "paper", CLASSIFIER | {"seed": 4}).close()  # a seed makes no other classifier
    with pytest.raises(ValueError, match=message):
        open_state(tmp_path / "s.db", table, overlap, described)
    with pytest.raises(ValueError, match="regions is"):
        open_state(tmp_path / "s.db", a_map(rng, "none"), "paper", CLASSIFIER)


def test_a_file_that_lost_what_it_belongs_to_is_refused(rng, tmp_path):
    table = a_map(rng, "none")
    open_state(tmp_path / "s.db", table, "paper", CLASSIFIER).close()
    (tmp_path / "s.db.json").write_text("{")
    with pytest.raises(ValueError, match=r"s\.db\.json is damaged"):
        open_state(tmp_path / "s.db", table, "paper", CLASSIFIER)
    (tmp_path / "s.db.json").unlink()
    with pytest.raises(ValueError, match=r"s\.db\.json is missing"):
        open_state(tmp_path / "s.db", table, "paper", CLASSIFIER)
    with pytest.raises(ValueError, match="make it first"):
        open_state(tmp_path / "nowhere/s.db", table, "paper", CLASSIFIER)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"classifier": ' * 3000 + "1", "[]", "NaN", "1" * 5000])
def test_an_odd_description_is_refused_in_one_line(rng, tmp_path, text):
    table = a_map(rng, "none")
    open_state(tmp_path / "s.db", table, "paper", CLASSIFIER).close()
    (tmp_path / "s.db.json").write_text(text)
    with pytest.raises(ValueError, match=r"s\.db") as caught:
        open_state(tmp_path / "s.db", table, "paper", CLASSIFIER)
    assert "\n" not in str(caught.value)


def test_a_file_made_by_somebody_whose_regions_overlap_is_refused(rng, tmp_path):
    # every digest fits, since anybody can compute them
    table, path = a_map(rng, "none"), tmp_path / "s.db"
    open_state(path, table, "paper", CLASSIFIER).close()
    with closing(regions.OnlineAllocator(path)) as state:
        store = state._store
        store.write(lambda: store.append(np.asarray(table.centres[0], dtype=np.float64), 0.5, 0.25, 1))
    with pytest.raises(ValueError, match="holds regions that overlap, which prove nothing: restore a copy"):
        open_state(path, table, "paper", CLASSIFIER)


def test_the_command_registers_from_several_processes_at_once(finished):
    folder, process = finished
    assert process.returncode == 0, process.stderr
    flags = ("--online", "s.db", "--json", "--n", "2000", "--n0", "100")
    lists = (["test:1", "test:2", "test:4"], ["test:2", "test:5", "test:7"])
    started = [
        subprocess.Popen([*program("predict"), "run", *images, *flags], cwd=folder, stdout=subprocess.PIPE, text=True)
        for images in lists
    ]
    rows = []
    for one in started:
        output, _ = one.communicate(timeout=300)
        assert one.returncode == 0
        rows += [json.loads(line) for line in output.splitlines()]
    table = regions.RegionMap.load(folder / "run/regions.npz")
    new = sum(row["created"] for row in rows)
    assert new >= 4
    with closing(regions.OnlineAllocator(folder / "s.db", read_only=True)) as state:
        now = state.region_map()
    assert len(now) == np.count_nonzero(table.radii) + new
    assert regions.verify(now.centres, now.radii)
    for row in rows:
        assert row["radius"] <= row["R"]
        if row["region"] is not None:
            assert now.sigma[row["region"]] == row["sigma"]
    shown = call("predict", folder, "run", "test:1", *flags[:2], *flags[3:])
    assert shown.returncode == 0, shown.stderr
    assert "0 new regions in s.db; no region holds 0 of 1 images" in shown.stdout


BAD = {
    "a seed": (["run", "test:1", "--seed", "3"], "--seed: noise that was used before"),
    "a rule": (["run", "test:1", "--outside", "best-sigma"], "--outside best-sigma: has no effect with --online"),
    "a map": (["run/regions.npz", "test:1", "--checkpoint", "model.pt"], "needs the folder of a run"),
    "no image": (["run", "lost.png"], "lost.png: no such file"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_registers_nothing(finished, arguments, message):
    folder, _ = finished
    assert_refused(call("predict", folder, *arguments, "--online", "new.db"), "srs-predict", message)
    assert not list(folder.glob("*new.db*"))


def test_a_foreign_file_is_refused(finished):
    folder, _ = finished
    (folder / "notes.db").write_text("mine")
    message = "notes.db.json is missing"
    assert_refused(call("predict", folder, "run", "test:1", "--online", "notes.db"), "srs-predict", message)
    assert (folder / "notes.db").read_text() == "mine"
