import math
from pathlib import Path

import numpy as np
import pytest

from training import (
    PRESETS,
    Consistency,
    Macer,
    SmoothMix,
    TrainSettings,
    WeightedLevels,
    best_level,
    cross_entropy,
    soft_radius,
)
from training.settings import ROUTER_ONLY

ROUTER = {"method": "router", "router_sigma": 0.5}


def test_a_router_is_one_stage_at_its_own_noise_without_an_attack():
    stage = TrainSettings(**ROUTER, router_loss="best-level").router_stage
    assert (stage.sigma, stage.attack, stage.loss, stage.name) == ((0.5, 0.5), None, best_level, "router")
    assert TrainSettings(**ROUTER).router_stage.loss is soft_radius


def test_only_a_router_s_configuration_names_a_router_s_settings():
    other, router = (
        TrainSettings(sigmas=(0.1, 0.2)).to_dict(),
        TrainSettings(**ROUTER, sigmas=(0.1, 0.2), checkpoint=Path("base.pt")).to_dict(),
    )
    assert router.keys() >= ROUTER_ONLY
    assert not ROUTER_ONLY & other.keys()
    assert (router["sigmas"], router["checkpoint"]) == ([0.1, 0.2], "base.pt")


def test_only_a_choice_by_margins_is_named_in_a_configuration():
    assert not {"choice", "choice_passes"} & TrainSettings().to_dict().keys()
    margins = TrainSettings(choice="margins").to_dict()
    assert (margins["choice"], margins["choice_passes"]) == ("margins", 30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choice_passes": 20}, "--choice-passes 20: needs --choice margins; the grid takes --n0"),
        ({"choice": "margins", "choice_passes": 5}, "--choice-passes 5: must be at least 6"),
        ({"choice": "margins", "choice_passes": 769}, "--choice-passes 769: must be at most 768; take --choice grid"),
        (
            {"choice": "margins", "method": "macer", "sigma": 0.5},
            "--choice margins: --method macer chooses no levels; leave it out",
        ),
        ({"choice": "margins", **ROUTER}, "--choice margins: --method router chooses no levels; leave it out"),
    ],
)
def test_a_choice_that_cannot_be_honoured_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TrainSettings(**change)


def test_the_paper_presets_are_its_appendix_a():
    for name, (_, settings) in PRESETS.items():
        if "paper" not in name:
            continue
        pretrain, finetune = settings.stage(), settings.stage(np.array([0.5]))
        assert (pretrain.epochs, finetune.epochs) == (150, 150)
        assert (pretrain.lr, finetune.lr) == (0.1, 0.001)
        assert (pretrain.schedule, pretrain.drop_every, pretrain.optimizer) == ("step", 50, "sgd")
        assert (settings.n0, settings.sigma_min) == (500, 0.12)
    table = {name: (s.sigma_max, s.m, s.k, s.epsilon) for name, (_, s) in PRESETS.items() if "paper" in name}
    assert table == {  # Tables 4 and 5
        "cifar10-paper-0.25": (0.25, 4, 4, 0.25),
        "cifar10-paper-0.50": (0.50, 4, 2, 1.00),
        "cifar10-paper": (1.00, 2, 4, 2.00),
        "mnist-paper-0.25": (0.25, 4, 2, 0.25),
        "mnist-paper-0.50": (0.50, 4, 2, 1.00),
        "mnist-paper": (1.00, 4, 10, 2.00),
    }


def test_sample_wise_draws_levels_then_keeps_the_chosen_ones():
    settings = TrainSettings(sigma_min=0.12, sigma_max=0.5)
    assert settings.stage().sigma == (0.12, 0.5)
    chosen = np.array([0.15, 0.5])
    finetune = settings.stage(chosen)
    np.testing.assert_array_equal(finetune.sigma, chosen.astype(np.float32))
    assert settings.stage().name != finetune.name  # other random streams
    assert finetune.attack == settings.stage().attack
    assert settings.levels.tolist() == [0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5]


def test_the_baselines_are_one_stage_at_one_sigma():
    gaussian = TrainSettings(method="gaussian", sigma=0.25).stage()
    assert (gaussian.sigma, gaussian.attack) == ((0.25, 0.25), None)
    adv = TrainSettings(method="smooth-adv", sigma=0.25, m=3, k=7, epsilon=0.5).stage()
    assert (adv.m, adv.attack.steps, adv.attack.epsilon) == (3, 7, 0.5)
    macer = TrainSettings(method="macer", sigma=0.25).stage()
    assert (macer.m, macer.attack, macer.loss) == (16, None, Macer(16.0, 16.0, 8.0))
    assert TrainSettings(method="macer", sigma=0.25).levels.tolist() == [0.25]


def test_consistency_and_smoothmix_are_one_stage_at_one_sigma():
    consistency = TrainSettings(method="consistency", sigma=0.25).stage()
    assert (consistency.sigma, consistency.m, consistency.attack, consistency.mix) == ((0.25, 0.25), 2, None, None)
    assert consistency.loss == Consistency(lam=10.0, eta=0.5)
    weighed = TrainSettings(method="consistency", sigma=0.25, consistency_lambda=0.0, consistency_eta=0.1).stage()
    assert weighed.loss == Consistency(lam=0.0, eta=0.1)
    mixed = TrainSettings(method="smoothmix", sigma=0.5, k=3).stage()
    assert (mixed.attack, mixed.loss, mixed.mix) == (None, cross_entropy, SmoothMix(eta=5.0, reach=8.0, steps=3))
    weighed = TrainSettings(method="smoothmix", sigma=0.5, smoothmix_eta=0.0, smoothmix_reach=2.0).stage()
    assert weighed.mix == SmoothMix(eta=0.0, reach=2.0, steps=4)


def test_algorithm_1_and_smooth_adv_take_other_losses_in_all_their_stages():
    adversarial = TrainSettings(loss="consistency")
    for stage in (adversarial.stage(), adversarial.stage(np.array([0.5]))):
        assert (stage.attack.steps, stage.loss) == (4, Consistency(lam=1.0, eta=0.5))
    assert TrainSettings(loss="consistency", k=0).stage().loss == Consistency(lam=10.0, eta=0.5)
    assert TrainSettings(method="smooth-adv", sigma=0.5, loss="consistency").stage().loss.lam == 1.0
    mixed = TrainSettings(loss="smoothmix")
    for stage in (mixed.stage(), mixed.stage(np.array([0.5]))):
        assert (stage.attack, stage.loss, stage.mix.steps) == (None, cross_entropy, 4)
    assert TrainSettings(loss="cross-entropy").stage().loss is cross_entropy


def test_listed_levels_are_drawn_by_weight_and_chosen_among():
    listed = TrainSettings(sigmas=(0.25, 0.5, 1), sigma_weights=(1, 1, 2))
    assert listed.stage().sigma == WeightedLevels((0.25, 0.5, 1.0), (1.0, 1.0, 2.0))
    assert listed.levels.tolist() == [0.25, 0.5, 1.0]
    assert isinstance(listed.stage(np.array([0.5])).sigma, np.ndarray)
    assert TrainSettings(sigmas=(0.25, 1.0)).stage().sigma == WeightedLevels((0.25, 1.0), (1.0, 1.0))
    grid = TrainSettings(sigma_min=0.1, sigma_max=0.3, sigma_step=0.1, sigma_weights=(1, 2, 3)).stage().sigma
    assert (grid.sigmas, grid.weights) == (pytest.approx((0.1, 0.2, 0.3)), (1.0, 2.0, 3.0))
    several = TrainSettings(method="smooth-adv", sigmas=(0.25, 0.5), sigma_weights=(1, 3))
    assert several.stage().sigma == WeightedLevels((0.25, 0.5), (1.0, 3.0))
    assert several.to_dict()["sigmas"] == [0.25, 0.5]
    assert several.to_dict()["sigma_weights"] == [1.0, 3.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "macer"}, "--method macer trains at one noise level: give it with --sigma"),
        ({"sigma": 0.5}, "--sigma 0.5: sample-wise takes --sigma-min and --sigma-max"),
        ({"method": "gaussian", "sigma": -0.5}, "--sigma -0.5: must be finite and >= 0"),
        ({"sigma_min": 0.9, "sigma_max": 0.5}, "sigma_min = 0.9 is above sigma_max = 0.5"),
        ({"sigma_min": 1e-30, "sigma_max": 1e30}, "--sigma-step 0.05: more than 1,000 levels; take larger steps"),
        ({"n0": 0}, "--n0 0: must be at least 1"),
        ({"threads": 0}, "--threads 0: must be at least 1"),
        ({"seed": -1}, "--seed -1"),
        ({"k": -1}, "steps = -1"),
        ({"epsilon": -1.0}, "epsilon = -1.0"),
        ({"finetune_epochs": 0}, "epochs = 0"),
        ({"accumulate": 0}, "accumulate = 0"),
        ({"batch": 0}, "batch_size = 0"),
        ({"checkpoint": Path("base.pt")}, "--checkpoint base.pt: needs --method router"),
        ({"router_sigma": 0.5}, "--router-sigma 0.5: needs --method router"),
        ({"sigmas": (0.5,)}, "--sigmas 0.5: give two levels or more, or a --method with one --sigma"),
        ({"sigmas": (0.5, 0.25)}, "--sigmas 0.5 0.25: levels must increase, each once"),
        ({"sigmas": (0.0, 0.25)}, "--sigmas 0.0 0.25: levels must be finite and > 0"),
        (
            {"method": "gaussian", "sigma": 0.5, "sigmas": (0.25, 0.5)},
            "--sigma 0.5: the levels are those of --sigmas; leave one of them out",
        ),
        ({"sigma_weights": (1.0, 2.0)}, "--sigma-weights 1.0 2.0: there are 18 levels; give a weight for each"),
        ({"sigmas": (0.1, 0.2), "sigma_weights": (1.0,)}, "--sigma-weights 1.0: there are 2 levels"),
        ({"sigmas": (0.1, 0.2), "sigma_weights": (1.0, 0.0)}, "--sigma-weights 1.0 0.0: must be finite and > 0"),
        ({"sigmas": (0.1, 0.2), "sigma_weights": (1.0, math.nan)}, "--sigma-weights 1.0 nan: must be finite and > 0"),
        (
            {"method": "gaussian", "sigma": 0.5, "sigma_weights": (1.0,)},
            "--sigma-weights 1.0: weigh several levels; name them with --sigmas",
        ),
        ({"method": "consistency", "sigma": 0.5, "m": 1}, "--m 1: consistency compares noisy copies of an image"),
        ({"loss": "consistency", "m": 1}, "--m 1: consistency compares noisy copies of an image"),
        (
            {"method": "consistency", "sigma": 0.5, "consistency_lambda": -1.0},
            "--consistency-lambda -1.0: must be finite and >= 0",
        ),
        (
            {"method": "consistency", "sigma": 0.5, "consistency_eta": math.inf},
            "--consistency-eta inf: must be finite and >= 0",
        ),
        (
            {"consistency_lambda": 5.0},
            "--consistency-lambda 5.0: needs --method consistency, or sample-wise with --loss c",
        ),
        ({"loss": "consistency", "smoothmix_eta": 5.0}, "--smoothmix-eta 5.0: needs --method smoothmix"),
        ({"loss": "smoothmix", "smoothmix_reach": 0.0}, "--smoothmix-reach 0.0: must be finite and > 0"),
        ({"loss": "smoothmix", "smoothmix_eta": math.nan}, "--smoothmix-eta nan: must be finite and >= 0"),
        ({"method": "smoothmix", "sigma": 0.5, "k": 0}, "steps = 0: must be at least 1"),
        ({"method": "smoothmix", "sigma": 0.0}, "--sigma 0.0: smoothmix walks lengths in units of sigma; give one > 0"),
        (
            {"method": "smooth-adv", "sigma": 0.5, "loss": "smoothmix"},
            "--loss smoothmix: --method smooth-adv cannot have it; take sample-wise",
        ),
        (
            {"method": "macer", "sigma": 0.5, "loss": "consistency"},
            "--loss consistency: --method macer cannot have it; take sample-wise or smooth-adv",
        ),
        ({**ROUTER, "loss": "consistency"}, "--loss consistency: --method router cannot have it"),
        ({**ROUTER, "consistency_eta": 0.5}, "--consistency-eta 0.5: needs --method consistency"),
        ({**ROUTER, "sigmas": (0.1, 0.2), "sigma_weights": (1.0, 1.0)}, "--sigma-weights 1.0 1.0: a router draws no"),
        ({"method": "router"}, "--method router votes under noise of its own: give its level with --router-sigma"),
        ({**ROUTER, "router_sigma": -1.0}, "--router-sigma -1.0: must be finite and > 0"),
        ({**ROUTER, "router_sigma": math.inf}, "--router-sigma inf: must be finite and > 0"),
        ({**ROUTER, "sigma": 0.5}, "--sigma 0.5: a router has --sigmas to choose from and --router-sigma"),
        ({**ROUTER, "sigmas": (0.5,)}, "--sigmas 0.5: a router chooses among two levels or more; one needs no router"),
        ({**ROUTER, "sigmas": (0.5, 0.5)}, "--sigmas 0.5 0.5: levels must increase, each once"),
        ({**ROUTER, "sigmas": (0.0, 0.5)}, "--sigmas 0.0 0.5: levels must be finite and > 0"),
        ({**ROUTER, "sigmas": (0.1, math.nan)}, "--sigmas 0.1 nan: levels must be finite and > 0"),
        ({**ROUTER, "alpha": 1.0}, "--alpha 1.0: must lie strictly between 0 and 1"),
        ({**ROUTER, "validation_images": 1}, "--validation-images 1: too few to tell a gain from chance"),
        ({**ROUTER, "n_router": 0}, "--n-router 0: must be at least 1"),
        ({**ROUTER, "batch": 0}, "batch_size = 0"),
        ({**ROUTER, "seed": -1}, "--seed -1"),
    ],
)
def test_settings_that_cannot_be_honoured_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        TrainSettings(**change)
