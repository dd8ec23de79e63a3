"""Flags in messages are the command's own, whatever the functions call their arguments."""

import pytest

from srs.commands._cli import flag_names, in_flags, naming_flags
from srs.predict.settings import PredictSettings
from srs.run.settings import CertifySettings

FLAGS = {name: f"--{name.replace('_', '-')}" for name in flag_names(CertifySettings)} | {"batch_size": "--batch"}

TEXTS = {
    "normalizer = 'x': choose none, cifar10": "--normalizer x: choose none, cifar10",
    "sigma_min = 0.9 is above sigma_max = 0.6: swap them": "--sigma-min 0.9 is above --sigma-max 0.6: swap them",
    "batch_size = 4: out of memory": "--batch 4: out of memory",
    "order = 'arrival' has no effect with method='lp'; use method='greedy'":
        "--order arrival has no effect with --method lp; use --method greedy",
    "images[0, 1] = 0.3: 8-bit images; use sampler='gaussian' for others":
        "images[0, 1] = 0.3: 8-bit images; use --sampler gaussian for others",
    "sampler 'discrete' is for others": "--sampler discrete is for others",
    "sigma_step = 0.5: none of its multiples lies in [0.6, 0.9]; take a smaller step":
        "--sigma-step 0.5: none of its multiples lies in [0.6, 0.9]; take a smaller step",
    "min_gain = 3: is above target_loss; lower min_gain, or give racing=True or a method":
        "--min-gain 3: is above --target-loss; lower --min-gain, or give --racing or a method",
    # what files and numbers are called stays
    "run/selection.tsv, line 4: n = 3000: must be 300 in this run":
        "run/selection.tsv, line 4: n = 3000: must be 300 in this run",
    "a.tsv and b.tsv are for sigma = 0.5: leave one out": "a.tsv and b.tsv are for sigma = 0.5: leave one out",
    "loss = nan in epoch 3": "loss = nan in epoch 3",
    "config.yaml is damaged (rule = 'x' is no such setting)": "config.yaml is damaged (rule = 'x' is no such setting)",
}  # fmt: skip


@pytest.mark.parametrize(("said", "shown"), TEXTS.items())
def test_arguments_become_flags_and_nothing_else_does(said, shown):
    assert in_flags(said, FLAGS) == shown


def test_errors_keep_their_kind_and_positional_arguments_their_name():
    with pytest.raises(FloatingPointError, match=r"^--n0 5: diverged$"), naming_flags(PredictSettings):
        raise FloatingPointError("n0 = 5: diverged")
    with pytest.raises(ValueError, match=r"^images = 5: no such file$") as caught, naming_flags(PredictSettings):
        raise ValueError("images = 5: no such file")
    assert caught.value.__cause__ is None
    with pytest.raises(OSError, match=r"^n = 5$"), naming_flags(PredictSettings):
        raise OSError("n = 5")
    with pytest.raises(ValueError, match=r"^--batch 5: too many$"), naming_flags(PredictSettings, size="--batch"):
        raise ValueError("size = 5: too many")
