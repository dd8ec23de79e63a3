"""A router from its checkpoint to certificates and answers, by the commands; and files that do not fit."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import srs
from smoothing import SmoothedClassifier
from srs.report.finished_run import load_run
from tests.srs.programs import assert_refused, call
from training import Engine, Stage, build, digits, fit, save_checkpoint
from training.router_checkpoints import RouterFacts
from training.router_targets import RouterValidation
from training.routers import router_network

SIGMAS = (0.2, 0.4)
FLAGS = (
    "--checkpoint", "base.pt", "--dataset", "digits", "--router", "router.pt", "--n0", "50", "--n", "300",
    "--skip", "3", "--max", "60",
)  # fmt: skip

VALIDATION = RouterValidation(
    sigmas=SIGMAS, constant=(0.3, 0.4), best=0.6, router=0.5, min_radius=0.4, error=0.001, images=100, unseen=100,
    n0=50, n=300, n_router=300, alpha=0.001,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base classifier that was trained for a second, and routers for it."""
    folder = tmp_path_factory.mktemp("router")
    data, base = digits(), build("digits_cnn", 10, seed=0)
    stage = Stage(epochs=4, sigma=(0.1, 0.6), lr=3e-3, optimizer="adam", batch_size=64)
    fit(base, data.train_images, data.train_labels, stage=stage, engine=Engine(device="cpu"))
    save_checkpoint(folder / "base.pt", base, arch="digits_cnn", num_classes=10)
    facts = RouterFacts(
        levels=SIGMAS,
        trained_sigma=0.5,
        kind="free",
        loss="soft-radius",
        base=SmoothedClassifier(base, 10).identity.weights,
        image_shape=(1, 8, 8),
        seed=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        network = router_network("digits_cnn", 2)

    def save(name, facts=facts, validation=VALIDATION):
        entry = facts.entry(validation)
        save_checkpoint(folder / name, network, arch="digits_cnn", num_classes=2, router=entry)

    save("router.pt")
    save("constant.pt", validation=replace(VALIDATION, router=0.3))
    save("levels.pt", replace(facts, levels=(0.2, 0.6)), replace(VALIDATION, sigmas=(0.2, 0.6)))
    save("shape.pt", replace(facts, image_shape=(3, 8, 8)))
    save("base-changed.pt", replace(facts, base="0" * 64))
    return folder


@pytest.fixture(scope="module")
def run(folder):
    process = call("certify", folder, *FLAGS, "--out", "run")
    assert process.returncode == 0, process.stderr
    return folder / "run", process


def test_the_table_has_the_router_both_ways_and_marks_the_regions_around_it(run):
    out, process = run
    for name in ("router, min(R_S, R_c)", "router, levels agree"):
        assert f"\n  {name} " in process.stdout
    assert "\n> regions, router outside " in process.stdout
    assert "router: sigma 0.5 of its own, 0." in process.stdout
    summary = json.loads((out / "summary.json").read_text())
    assert summary["outside"] == "router"
    assert summary["main"] == "joint-lp+router"
    assert summary["router"]["sigma"] == 0.5
    assert summary["seconds"].keys() == {"select", "certify", "route"}
    assert summary["settings"]["sigmas"] == [0.2, 0.4]  # the levels are the router's where nobody says others
    assert "or outside every region with the sigma that a router names" in (out / "README.md").read_text()
    stored = load_run(out)
    assert stored.disagreement(stored.evaluate()) is None


def test_a_finished_run_is_shown_again_and_reported(run, folder):
    again = call("certify", folder, *FLAGS, "--out", "run", "--resume")
    assert again.returncode == 0, again.stderr
    assert "> regions, router outside " in again.stdout
    other = call("certify", folder, *FLAGS[:5], "constant.pt", *FLAGS[6:], "--out", "run", "--resume")
    assert_refused(other, "srs-certify", "belongs to a run whose router has another sigma (0.5, here None)")


def test_new_images_are_answered_and_certified_and_nobody_registers(run, folder):
    images = digits().test_images[200:206]
    np.save(folder / "new.npy", images)
    process = call("predict", folder, "run", "new.npy", "--certify", "--n", "400", "--json")
    assert process.returncode == 0, process.stderr
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    assert all(row["sigma"] in SIGMAS for row in rows)
    loaded = srs.load_run(folder / "run", checkpoint=folder / "base.pt", router=folder / "router.pt", seed=1)
    assert {row["map"] for row in rows} == {loaded.regions.content_hash}
    assert loaded.identity["outside"] == "router"
    network = json.loads((folder / "run/manifest.json").read_text())["router"]["classifier"]
    certified = {name: value for name, value in network.items() if name != "seed"}
    assert loaded.identity["router"] == {"classifier": certified, "sigma": 0.5}
    found = loaded.certify(images, n=400)
    assert (found.region < 0).any()
    assert (found.radius[found.region < 0] > 0).any()
    with pytest.raises(ValueError, match="the run has a router outside every region: a new region could end"):
        loaded.register(images, folder / "store.db")
    with pytest.raises(ValueError, match="another router was certified"):
        srs.load_run(folder / "run", checkpoint=folder / "base.pt", router=folder / "constant.pt")


def test_without_regions_the_router_decides_everywhere(folder):
    process = call("certify", folder, *FLAGS, "--classifier", "router", "--out", "alone")
    assert process.returncode == 0, process.stderr
    assert "\n> router, levels agree " in process.stdout
    assert "\n  joint, LP " not in process.stdout
    assert "regions: " not in process.stdout
    card = (folder / "alone" / "README.md").read_text()
    assert "with a noise level for each input, named by a router" in card
    assert "The images need not have been known before" in card
    loaded = srs.load_run(folder / "alone", checkpoint=folder / "base.pt", router=folder / "router.pt")
    answers = loaded.predict(digits().test_images[:20], n=200)
    assert (answers.region == -1).all()
    assert (answers.predict >= 0).any()
    report = call("report", folder, "alone", "--out", "report")
    assert report.returncode == 0, report.stderr


def test_a_router_that_names_one_level_needs_no_samples(folder):
    process = call("certify", folder, *FLAGS[:5], "constant.pt", *FLAGS[6:], "--out", "constant")
    assert process.returncode == 0, process.stderr
    assert "router: names sigma = 0.4 for every input, and gets no sample" in process.stdout
    assert not list((folder / "constant").glob("router_*"))
    loaded = srs.load_run(folder / "constant", checkpoint=folder / "base.pt", router=folder / "constant.pt")
    assert (loaded.identity["outside"], loaded.identity["router"]) == (0.4, None)


def test_the_network_is_asked_all_the_same_where_one_says_so(folder):
    flags = (*FLAGS[:5], "constant.pt", *FLAGS[6:], "--router-always", "--out", "always")
    process = call("certify", folder, *flags)
    assert process.returncode == 0, process.stderr
    assert "router: sigma 0.5 of its own" in process.stdout
    loaded = srs.load_run(folder / "always", checkpoint=folder / "base.pt", router=folder / "constant.pt")
    assert loaded.identity["outside"] == "router"


REFUSED = {
    "levels": (
        ["levels.pt", "--sigma-min", "0.2", "--sigma-max", "0.4", "--sigma-step", "0.2"],
        "--router levels.pt: chooses among the levels 0.2 0.6, and certificates are made at 0.2 0.4; give --sigmas",
    ),
    "shape": (["shape.pt"], "--router shape.pt is a router for images of 3x8x8, not 1x8x8"),
    "base": (["base-changed.pt"], "--router base-changed.pt is a router for the base classifier 000000000000"),
    "kind": (["base.pt"], "base.pt holds no router: give what srs-train --method router wrote"),
    "missing": (["none.pt"], "none.pt"),
    "alpha": (["router.pt", "--max", "1", "--alpha", "5e-100"], "--alpha 5e-100 shared by weights (0.9, 0.1): 5e-101"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_router_that_does_not_fit_is_refused_in_one_line(case, folder):
    (file, *more), message = REFUSED[case]
    process = call("certify", folder, *FLAGS[:5], file, *FLAGS[6:], *more, "--out", "refused")
    assert_refused(process, "srs-certify", message)
    assert not (folder / "refused").exists()
