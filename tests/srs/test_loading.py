"""A finished run from Python: what `srs-predict` says, from several threads, and nothing that was not checked."""

import copy
import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
import torch
import yaml

import regions
import srs
from tests.programs import python
from tests.srs.programs import call
from training import build, digits, load_checkpoint

MINE = """
from pathlib import Path
import torch
from torch import nn

Path("imported").touch()

def make(k):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, k))
"""


@pytest.fixture(scope="module")
def folder(finished, tmp_path_factory):
    """A copy of the finished run with its classifier."""
    source, process = finished
    assert process.returncode == 0, process.stderr
    folder = tmp_path_factory.mktemp("loading")
    shutil.copy(source / "model.pt", folder)
    shutil.copytree(source / "run", folder / "run")
    return folder


@pytest.fixture
def load(folder):
    """Load the run, with the checkpoint where it is now."""
    return lambda **named: srs.load_run(folder / "run", checkpoint=folder / "model.pt", **{"device": "cpu"} | named)


@pytest.fixture(scope="module")
def images():
    return digits().test_images


def difficult(G, images):
    """An image inside a region whose votes are close, so that they show their noise."""
    found = G.predict(images, n=1000)
    held = np.flatnonzero((found.region >= 0) & (found.count < 990))
    return images[held[found.count[held].argmin()]]


def test_answers_are_those_of_the_command(folder, load, images):
    G = load(seed=3)
    assert G.seed == 3
    found = G.certify(images[[0, 3, 4]], n=2000)
    flags = ["--seed", "3", "--certify", "--n", "2000", "--json"]
    process = call("predict", folder, "run", "test:0", "test:3", "test:4", *flags)
    assert process.returncode == 0, process.stderr
    for k, row in enumerate(map(json.loads, process.stdout.splitlines())):
        assert row["predict"] == found.predict[k]
        assert row["votes"] == found.count[k]
        assert row["radius"] <= found.radius[k] < row["radius"] + 1e-6
        assert row["region"] == (found.region[k] if found.region[k] >= 0 else None)


def test_it_says_what_it_is_and_keeps_its_seed_secret(folder, load):
    G = load()
    manifest = json.loads((folder / "run/manifest.json").read_text())
    table = regions.RegionMap.load(folder / "run/regions.npz")
    assert G.regions.content_hash == G.identity["regions"] == table.content_hash
    assert (G.identity["overlap"], G.identity["outside"]) == ("paper", None)
    assert G.identity["classifier"] == {k: v for k, v in manifest["classifier"].items() if k != "seed"}
    assert G.identity == json.loads(json.dumps(load().identity))
    assert (G.shape, G.num_classes, G.alpha) == ((1, 8, 8), 10, 0.001)
    assert load().seed != G.seed
    assert str(G.seed) not in f"{G} {G.identity}"


@pytest.mark.parametrize(
    "given",
    [
        lambda x: x,
        lambda x: x.astype(np.float64),
        lambda x: torch.from_numpy(x),
        lambda x: torch.from_numpy(x).requires_grad_(),
        lambda x: x[:, 0],
        lambda x: x.tolist(),
    ],
)
def test_images_may_be_arrays_tensors_and_lists(load, images, given):
    found = load(seed=1).predict(given(images[:3]), n=200)
    assert (found.count == load(seed=1).predict(images[:3], n=200).count).all()


def test_one_image_is_one_and_eight_bits_are_divided(load, images):
    one = load(seed=1).predict(images[0], n=200)
    assert one.predict.shape == (1,)
    assert (one.count == load(seed=1).predict(images[:1], n=200).count).all()
    eight = np.rint(images[:2] * 255).astype(np.uint8)
    assert (load(seed=1).predict(eight).margin == load(seed=1).predict(eight / np.float32(255)).margin).all()


WRONG = {
    "shape": (np.zeros((2, 1, 7, 8)), "images has shape .*: expected one or many images, 1 x 8 x 8 an image"),
    "none": (np.zeros((0, 1, 8, 8)), "images has shape"),
    "NaN": (np.full((1, 1, 8, 8), np.nan), r"images: pixels must be floats in \[0, 1\]"),
    "to 255": (np.full((1, 1, 8, 8), 255.0), "divide by the largest grey level"),
    "whole": (np.ones((1, 1, 8, 8), dtype=int), "images holds int64"),
    "text": (np.full((1, 1, 8, 8), "a"), "images holds <U1"),
}


@pytest.mark.parametrize(("wrong", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_image_is_refused_whatever_is_asked(load, tmp_path, wrong, message):
    G = load()
    for ask in (G.predict, G.certify, lambda x: G.register(x, tmp_path / "s.db")):
        with pytest.raises(ValueError, match=message):
            ask(wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["predict", "certify"])
def test_threads_get_the_votes_of_one_thread_and_share_none(load, images, what):
    # the numbers 0 to 39 are handed out once each, whoever gets which: so the votes are the same, in some order
    image, threads = difficult(load(seed=9), images)[None], torch.get_num_threads()
    alone = getattr(load(seed=9), what)(np.repeat(image, 40, axis=0), n=300).count
    assert len(set(alone.tolist())) > 8
    ask = getattr(load(seed=9), what)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda m: ask(np.repeat(image, m, axis=0), n=300).count.tolist(), [1, 3] * 10))
    assert sorted(count for part in found for count in part) == sorted(alone.tolist())
    assert torch.get_num_threads() == threads


def test_threads_register_in_one_file_and_what_is_registered_stays(load, images, tmp_path):
    with load() as first, load() as second, ThreadPoolExecutor(4) as pool:
        asked = [(G, k) for k in (1, 2, 4, 5) for G in (first, second)]
        found = list(pool.map(lambda c: c[0].register(images[c[1]], tmp_path / "s.db", n=2000, n0=100), asked))
        again = first.register(images[[1, 2, 4, 5]], tmp_path / "s.db", n=2000, n0=100)
    new = sum(int(one.created.sum()) for one in found)
    assert not again.created[again.answers.region >= 0].any()
    filled = np.count_nonzero(first.regions.radii)
    with closing(regions.OnlineAllocator(tmp_path / "s.db", read_only=True)) as state:
        now = state.region_map()
    assert len(now) == filled + new
    assert new >= 2
    assert regions.verify(now.centres, now.radii)
    for one in (*(one.answers for one in found), again.answers):
        assert (one.radius <= one.R).all()
        assert ((one.region < 0) | (one.sigma == now.sigma[one.region])).all()


def test_who_registers_takes_the_next_numbers(load, images, tmp_path):
    with load() as G:
        G.certify(images[:2], n=100, n0=10)
        G.register(images[:3], tmp_path / "s.db", n=100, n0=10)
        assert G.predictor.numbers(1).tolist() == [5]


def test_a_stated_seed_registers_nothing(load, images, tmp_path):
    with pytest.raises(ValueError, match="seed: noise that was used before would decide about new regions; drop it"):
        load(seed=5).register(images[0], tmp_path / "s.db")
    assert not list(tmp_path.iterdir())


def test_the_file_of_another_run_is_refused_in_the_words_of_a_call(load, images, tmp_path):
    (tmp_path / "notes.db").write_text("mine")
    with pytest.raises(ValueError, match=r"store .*notes\.db: notes\.db\.json is missing"):
        load().register(images[0], tmp_path / "notes.db")


def test_copies_share_their_numbers_and_nothing_is_pickled(load, images):
    G = load()
    for twin in (copy.copy(G), copy.copy(G.predictor)):
        before = G.predictor.numbers(1)
        (twin.predict if twin.__class__ is G.__class__ else twin)(images[:2], n=10)
        assert G.predictor.numbers(1) == before + 3
    for make in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="pickle"):
            make(G)


def test_a_forked_process_is_refused(folder):
    program = """
import os, sys
import srs
from training import digits
G = srs.load_run("run", checkpoint="model.pt", device="cpu")
image = digits().test_images[0]
child = os.fork()
try:
    G.predict(image, n=10)
    print("answered", flush=True)
except RuntimeError as error:
    print(error, flush=True)
if not child:
    os._exit(0)
os.waitpid(child, 0)
"""
    process = python(program, folder=folder)
    assert process.returncode == 0, process.stderr
    assert sorted(process.stdout.splitlines()) == [
        "answered",
        "the classifier was loaded before this process was forked: load it again in here",
    ]


def test_a_model_of_ones_own_is_named_again_or_given(folder, tmp_path, monkeypatch):
    (tmp_path / "mine_in_test_loading.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    flags = ["--dataset", "digits", "--sigma-min", "0.2", "--sigma-max", "0.2", "--sigma-step", "0.1", "--max", "2"]
    own = ["--model", "mine_in_test_loading:make", "--n0", "10", "--n", "20", "--out", "run"]
    certified = call("certify", tmp_path, *flags, *own)
    assert certified.returncode == 0, certified.stderr
    (tmp_path / "imported").unlink()
    remedy = "add model = 'mine_in_test_loading:make' if you trust that module"
    with pytest.raises(ValueError, match=f"code of your own, which a folder alone never runs: {remedy}"):
        srs.load_run("run")
    with pytest.raises(ValueError, match="model = 'os:getcwd': the run in run has mine_in_test_loading:make; give"):
        srs.load_run("run", "os:getcwd")
    assert not (tmp_path / "imported").exists()
    with pytest.raises(ValueError, match="model mine_in_test_loading:make: "):
        srs.load_run("run", "mine_in_test_loading:make")  # nobody finds that module here
    monkeypatch.syspath_prepend(tmp_path)
    named = srs.load_run("run", "mine_in_test_loading:make", seed=1)
    from mine_in_test_loading import make

    given = srs.load_run("run", make(10), seed=1)
    assert (named.predict(np.full((1, 8, 8), 0.5)).n == given.predict(np.full((1, 8, 8), 0.5)).n).all()
    with pytest.raises(ValueError, match="another classifier was certified: it differs in classifier weights"):
        srs.load_run("run", build("digits_cnn", 10, seed=9))


def test_the_certified_module_itself_is_taken_and_watched(folder, images):
    model = load_checkpoint(folder / "model.pt")
    G = srs.load_run(folder / "run", model, seed=2, device="cpu")
    other = srs.load_run(folder / "run", checkpoint=folder / "model.pt", seed=2, device="cpu")
    assert (G.predict(images[:5]).count == other.predict(images[:5]).count).all()
    with torch.no_grad():
        next(model.parameters()).mul_(0.5)
    for ask in (G.predict, G.certify):
        with pytest.raises(RuntimeError, match="the base classifier was changed after it was loaded: load it again"):
            ask(images[:5], n=100)
    with pytest.raises(ValueError, match="model and checkpoint both name the base classifier"):
        srs.load_run(folder / "run", model, checkpoint=folder / "model.pt")


def _no_summary(run):
    (run / "summary.json").unlink()


def _another_map(run):
    table = regions.RegionMap.load(run / "regions.npz")
    regions.RegionMap(table.centres, table.radii * 2, table.sigma, classes=table.classes).save(run / "regions.npz")


def _forged_map(run):
    _another_map(run)
    summary = json.loads((run / "summary.json").read_text())
    summary["regions"] = regions.RegionMap.load(run / "regions.npz").content_hash
    (run / "summary.json").write_text(json.dumps(summary))


def _own_code(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config |= {"model": "os:getcwd", "checkpoint": None}
    (run / "config.yaml").write_text(yaml.safe_dump(config))


DAMAGED = {
    "unfinished": (_no_summary, "the run has not come to its end"),
    "another map": (_another_map, "is another run's: its content hash is"),
    "overlapping regions": (_forged_map, r"regions\.npz is damaged: regions \d+ and \d+ overlap"),
    "code": (_own_code, "which a folder alone never runs: add model = 'os:getcwd'"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_folder_that_is_not_what_it_should_be_is_refused(folder, tmp_path, damage, message):
    shutil.copytree(folder / "run", tmp_path / "run")
    damage(tmp_path / "run")
    with pytest.raises(ValueError, match=message) as caught:
        srs.load_run(tmp_path / "run", checkpoint=folder / "model.pt" if damage is not _own_code else None)
    assert "\n" not in str(caught.value)


ARGUMENTS = {
    "seed": ({"seed": -1}, r"seed = -1: must be a whole number in \[0, 2\*\*64\)"),
    "alpha": ({"alpha": 0.0}, "alpha = 0.0: must lie strictly between 0 and 1"),
    "outside": ({"outside": "guess"}, "outside = 'guess': choose abstain"),
    "device": ({"device": "abacus"}, "device = 'abacus' cannot be used"),
}


@pytest.mark.parametrize(("named", "message"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_that_cannot_be_used_are_refused(load, named, message):
    with pytest.raises(ValueError, match=message):
        load(**named)


def test_checkpoints_of_levels_are_named_by_level(folder, tmp_path):
    process = call(
        "certify", folder, "--expert", "0.2=model.pt", "--expert", "0.4=model.pt", "--dataset", "digits", "--n0", "10",
        "--n", "50", "--max", "3", "--out", tmp_path / "experts",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    moved = {0.4: folder / "model.pt", 0.2: str(folder / "model.pt")}
    G = srs.load_run(tmp_path / "experts", checkpoint=moved, device="cpu")
    assert G.predict(digits().test_images[:2], n=50).n.shape == (2,)
    bank = {level: load_checkpoint(folder / "model.pt") for level in (0.2, 0.4)}
    assert srs.load_run(tmp_path / "experts", bank, device="cpu").identity == G.identity


def test_there_is_nothing_else_in_the_package():
    with pytest.raises(AttributeError, match="module 'srs' has no attribute 'load_runs'"):
        _ = srs.load_runs
