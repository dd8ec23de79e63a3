"""Small runs of a router on images of the digits that lie close together."""

import shutil
from pathlib import Path

import numpy as np
import torch

from smoothing import SmoothedClassifier
from tests.srs.programs import call
from tests.srs.verifying import LEVELS, SMALL, near_images
from training import Engine, Stage, digits, fit, load_checkpoint, save_checkpoint
from training.router_checkpoints import RouterFacts
from training.router_targets import RouterValidation
from training.routers import router_network

#: The levels of `LEVELS`.
SIGMAS = (0.2, 0.4, 0.6)

#: What all these runs have in common.
ROUTED = (*SMALL, *LEVELS, "--router", "router.pt", "--n0", "40", "--n", "200")


def write_router(file: Path, base: Path, *, constant: float | None = None, sigmas: tuple[float, ...] = SIGMAS) -> None:
    """Write the checkpoint of a router: brighter images get larger levels, or all get one level."""
    data, threads = digits(), torch.get_num_threads()
    bright = data.train_images.mean(axis=(1, 2, 3))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = router_network("digits_cnn", len(sigmas))
    if constant is None:
        stage = Stage(epochs=6, sigma=(0.5, 0.5), lr=3e-3, optimizer="adam", weight_decay=0.0, batch_size=128)
        level = np.searchsorted(np.quantile(bright, [0.4, 0.6][: len(sigmas) - 1]), bright)
        torch.set_num_threads(1)
        try:
            fit(net, data.train_images, level, stage=stage, engine=Engine(device="cpu"), seed=0)
        finally:
            torch.set_num_threads(threads)
    radii = tuple(0.5 if sigma == constant else 0.1 for sigma in sigmas)
    better = 0.1 if constant else 0.9
    said = RouterValidation(
        sigmas=sigmas, constant=radii, best=0.9, router=better, min_radius=better, error=0.01, images=100, unseen=0,
        n0=40, n=200, n_router=200, alpha=0.001,
    )  # fmt: skip
    facts = RouterFacts(
        levels=sigmas,
        trained_sigma=0.5,
        kind="free",
        loss="best-level",
        base=SmoothedClassifier(load_checkpoint(base), 10).identity.weights,
        image_shape=(1, 8, 8),
        seed=0,
    )
    save_checkpoint(file, net, arch="digits_cnn", router=facts.entry(said))


def prepare(folder: Path, weights: Path, *, constant: float | None = None, sigmas: tuple[float, ...] = SIGMAS) -> None:
    """Put what a run needs into a folder."""
    shutil.copy(weights, folder / "model.pt")
    (folder / "near.txt").write_text("\n".join(map(str, near_images(12))))
    write_router(folder / "router.pt", folder / "model.pt", constant=constant, sigmas=sigmas)


def certify(folder: Path, *flags: object) -> None:
    """Make `run` in a prepared folder."""
    process = call("certify", folder, *ROUTED, *flags, "--out", "run")
    assert process.returncode == 0, process.stderr


def run_in(folder: Path, prepared: Path, *flags: object) -> Path:
    """Make `run` in a folder, of the files of a prepared one."""
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    certify(folder, *flags)
    return folder
