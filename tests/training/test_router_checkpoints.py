"""A router's file is checked like a base classifier's, and the two are never taken for each other."""

import dataclasses

import numpy as np
import pytest
import torch

from training import (
    RouterValidation,
    build,
    load_checkpoint,
    load_router,
    router_network,
    save_checkpoint,
    training_config,
)
from training.router_checkpoints import RouterFacts

LEVELS = (0.1, 0.25, 0.5)
FACTS = RouterFacts(
    levels=LEVELS,
    trained_sigma=0.3,
    kind="free",
    loss="soft-radius",
    base="0f" * 32,
    image_shape=(1, 8, 8),
    seed=7,
)
BETTER = RouterValidation(
    sigmas=LEVELS,
    constant=(0.1, 0.4, 0.3),
    best=0.6,
    router=0.5,
    min_radius=0.45,
    error=0.01,
    images=50,
    unseen=0,
    n0=100,
    n=1000,
    n_router=200,
    alpha=0.001,
)
WORSE = dataclasses.replace(BETTER, router=0.41)


def written(folder, *, validation=BETTER, facts=FACTS, about=None, **extra):
    """A router's checkpoint; `about` replaces parts of what it says of the router."""
    file = folder / "router.pt"
    entry = facts.entry(validation) | (about or {})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = router_network("digits_cnn", len(facts.levels), kind=facts.kind)
    save_checkpoint(file, net, arch="digits_cnn", router=entry, **extra)
    return file, net


@pytest.mark.parametrize("kind", ["free", "monotone"])
def test_what_was_written_is_read(tmp_path, kind):
    facts = dataclasses.replace(FACTS, kind=kind)
    file, net = written(tmp_path, facts=facts)
    found = load_router(file)
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(found.router(images), net.eval()(images))
    assert not found.router.training
    assert (found.sigmas.tolist(), found.router_sigma, found.levels) == (list(LEVELS), 0.3, LEVELS)
    assert {name: getattr(found, name) for name in vars(facts)} == vars(facts)
    assert found.validation == BETTER


def test_where_the_router_is_not_better_the_best_constant_level_is_the_answer(tmp_path):
    file, _ = written(tmp_path, validation=WORSE)
    found = load_router(file)
    assert (found.router, found.router_sigma, found.sigmas.tolist()) == (None, None, [0.25])
    assert (found.levels, found.trained_sigma) == (LEVELS, 0.3)
    kept = load_router(file, fallback=False)
    assert kept.router is not None
    assert (kept.router_sigma, kept.sigmas.tolist()) == (0.3, list(LEVELS))


def test_a_router_s_normaliser_is_a_part_of_it(tmp_path):
    file = tmp_path / "router.pt"
    net = router_network("cifar_resnet20", 3)
    facts = dataclasses.replace(FACTS, image_shape=(3, 32, 32))
    save_checkpoint(file, net, arch="cifar_resnet20", normalizer="cifar10", router=facts.entry(BETTER))
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).reshape(3, 1, 1).expand(2, 3, 32, 32)
    assert torch.allclose(load_router(file).router(mean), net.eval()(torch.zeros(2, 3, 32, 32)), atol=1e-5)


def test_routers_and_base_classifiers_are_not_taken_for_each_other(tmp_path):
    file, _ = written(tmp_path)
    with pytest.raises(ValueError, match=r"router\.pt is a router, .*: give the base classifier's checkpoint"):
        load_checkpoint(file)
    base = tmp_path / "base.pt"
    save_checkpoint(base, build("digits_cnn", 10), arch="digits_cnn")
    with pytest.raises(ValueError, match=r"base\.pt holds no router: give what srs-train --method router wrote"):
        load_router(base)
    torch.save({"router": {"weight": torch.ones(3)}}, base)  # somebody's part of that name
    with pytest.raises(ValueError, match="holds no router"):
        load_router(base)


def test_a_router_is_for_one_base_classifier_and_one_shape_of_images(tmp_path):
    found = load_router(written(tmp_path)[0])
    found.check(base="0f" * 32, image_shape=(1, 8, 8), source="r.pt")
    with pytest.raises(
        ValueError, match=r"^r\.pt is a router for the base classifier 0f0f0f0f0f0f, not abababababab: name"
    ):
        found.check(base="ab" * 32, image_shape=(1, 8, 8), source="r.pt")
    with pytest.raises(ValueError, match=r"^r\.pt is a router for images of 1x8x8, not 1x28x28: train one for these"):
        found.check(base="0f" * 32, image_shape=(1, 28, 28), source="r.pt")


def test_training_that_is_not_finished_is_said(tmp_path):
    file, _ = written(tmp_path, validation=None)
    with pytest.raises(ValueError, match="training of this router is not finished; go on with srs-train and --resume"):
        load_router(file)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"router_sigma": 0.0}, "router_sigma of its router is not what srs-train writes"),
        ({"router_sigma": -1.0}, "router_sigma"),
        ({"router_sigma": float("nan")}, "router_sigma"),
        ({"router_sigma": "0.3"}, "router_sigma"),
        ({"router_sigma": torch.tensor(0.3)}, "router_sigma"),
        ({"levels": [0.1]}, "levels of its router"),
        ({"levels": [0.1, 0.25, 0.25]}, "levels of its router"),
        ({"levels": [0.5, 0.25, 0.1]}, "levels of its router"),
        ({"levels": [0.0, 0.25, 0.5]}, "levels of its router"),
        ({"levels": [0.1, 0.25, float("inf")]}, "levels of its router"),
        ({"levels": [k / 1e5 for k in range(1, 20_001)]}, "levels of its router"),
        ({"levels": [0.1, 0.25]}, "validation of its router"),
        ({"kind": "round"}, "kind of its router"),
        ({"kind": ["free"]}, "kind of its router"),
        ({"loss": None}, "loss of its router"),
        ({"base": "0f"}, "base of its router"),
        ({"base": "0F" * 32}, "base of its router"),
        ({"image_shape": [1, 8]}, "image_shape of its router"),
        ({"image_shape": [1, 0, 8]}, "image_shape of its router"),
        ({"image_shape": [True, 8, 8]}, "image_shape of its router"),
        ({"seed": -1}, "seed of its router"),
        ({"seed": 10**30}, "seed of its router"),
        ({"validation": {}}, "validation of its router"),
        ({"validation": "good"}, "validation of its router"),
        ({"kind": "monotone"}, "belongs to another network"),
    ],
)
def test_damaged_facts_are_one_line(tmp_path, about, message):
    file, _ = written(tmp_path, about=about)
    with pytest.raises(ValueError, match=message) as caught:
        load_router(file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"constant": [0.1, 0.2]},
        {"router": float("nan")},
        {"images": 1.5},
        {"error": 1},
        {"sigmas": [0.1, 0.2, 0.3]},
        {"more": 1},
    ],
)
def test_a_damaged_validation_is_one_line(tmp_path, change):
    entry = FACTS.entry(BETTER)
    file, _ = written(tmp_path, about={"validation": entry["validation"] | change})
    with pytest.raises(ValueError, match="validation of its router is not what srs-train writes; train it anew"):
        load_router(file)


def test_weights_that_are_not_finite_or_others_are_refused(tmp_path):
    file, _ = written(tmp_path)
    content = torch.load(file, weights_only=True)
    name = next(key for key in content["state_dict"] if key.endswith("weight"))
    good = content["state_dict"][name].clone()
    content["state_dict"][name] = torch.full_like(good, np.nan)
    torch.save(content, file)
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        load_router(file)
    content["state_dict"][name] = good[:1]
    torch.save(content, file)
    with pytest.raises(ValueError, match="belongs to another network"):
        load_router(file)
    content["state_dict"][name] = good
    torch.save({**content, "normalizer": ["none"]}, file)
    with pytest.raises(ValueError, match="does not name its normaliser"):
        load_router(file)


def test_a_file_alone_names_no_module_to_import(tmp_path, monkeypatch):
    file, _ = written(tmp_path)
    content = torch.load(file, weights_only=True)
    torch.save({**content, "arch": "os:system"}, file)
    monkeypatch.setattr("training.factories.importlib.import_module", None)
    with pytest.raises(ValueError, match="is for a model of your own: give arch 'os:system' if you trust that module"):
        load_router(file)


def test_objects_are_never_unpickled(tmp_path):
    file = tmp_path / "router.pt"
    torch.save({"router": {"router_sigma": 0.3, "what": Exception("x")}}, file)
    with pytest.raises(ValueError, match="holds more than tensors and plain values"):
        load_router(file)


@pytest.mark.parametrize("sigmas", [[0.1, "x"], [[0.1]], [float("inf")], {"a": 1}, "0.1 0.2", [True]])
def test_a_configuration_with_levels_that_are_none_is_refused(tmp_path, sigmas):
    file, _ = written(tmp_path, config={"sigmas": sigmas})
    with pytest.raises(ValueError, match=r"its config has sigmas = .*, which srs-train never writes"):
        training_config(file)
    file, _ = written(tmp_path, config={"sigmas": [0.1, 0.2], "router_sigma": 0.5})
    assert training_config(file) == {"sigmas": [0.1, 0.2], "router_sigma": 0.5}
