"""A small classifier that is trained once, and a run that several tests look at."""

import json
import shutil

import pytest
import torch

import regions
from tests.srs.programs import TINY, call
from tests.srs.routed_runs import prepare, run_in
from tests.srs.verifying import LEVELS, PAPER, SMALL, near_images, table_of
from training import Engine, Stage, build, digits, fit, save_checkpoint


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A checkpoint of a network for the digits, trained for two seconds, that says nothing about data or noise."""
    data = digits()
    model = build("digits_cnn", 10, seed=0)
    stage = Stage(epochs=12, sigma=(0.1, 0.5), lr=3e-3, optimizer="adam", weight_decay=0.0, batch_size=128)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fit(model, data.train_images, data.train_labels, stage=stage, engine=Engine(device="cpu"), seed=0)
    finally:
        torch.set_num_threads(threads)
    file = tmp_path_factory.mktemp("weights") / "model.pt"
    save_checkpoint(file, model, arch="digits_cnn")
    return file


@pytest.fixture
def folder(tmp_path, weights):
    """An empty folder but for the checkpoint `model.pt`."""
    (tmp_path / "model.pt").write_bytes(weights.read_bytes())
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory, weights):
    """A folder that holds a finished run, `run`, and what the command printed."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "model.pt").write_bytes(weights.read_bytes())
    return folder, call("certify", folder, *TINY, "--out", "run")


@pytest.fixture(scope="session")
def small(tmp_path_factory, weights):
    """A folder that holds a small run, `run`, of images that are close together."""
    folder = tmp_path_factory.mktemp("verify")
    shutil.copy(weights, folder / "model.pt")
    (folder / "near.txt").write_text("\n".join(map(str, near_images(12))))
    process = call("certify", folder, *SMALL, *PAPER, *LEVELS, "--n0", "40", "--n", "200", "--out", "run")
    assert process.returncode == 0, process.stderr
    assert json.loads((folder / "run/summary.json").read_text())["allocations"]["paper-lp"]["edges"] > 5
    return folder


@pytest.fixture(scope="session")
def for_router(tmp_path_factory, weights):
    """A folder with all that a run needs, its router a network."""
    folder = tmp_path_factory.mktemp("router")
    prepare(folder, weights)
    return folder


@pytest.fixture(scope="session")
def around(tmp_path_factory, for_router):
    """A folder that holds a run with regions, and a router outside of them."""
    folder = run_in(tmp_path_factory.mktemp("around"), for_router, "--overlap", "sigma")
    kept = regions.RegionMap.load(folder / "run/regions.npz").radii > 0
    assert kept.any()
    assert not kept.all()
    assert any(float(row["r"]) < float(row["R"]) for row in table_of(folder / "run/certificates.tsv"))
    return folder
