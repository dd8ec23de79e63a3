"""A small classifier that is trained once, and a run that several tests look at."""

import pytest
import torch

from tests.srs.programs import TINY, call
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
