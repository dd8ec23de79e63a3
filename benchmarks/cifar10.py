"""ResNet-20 on CIFAR-10: Algorithm 1 and baselines at constant sigma, with equal passes and both bounds.

SRS_DATA=... python benchmarks/cifar10.py --runs runs/cifar10

Trains every model by srs-train, certifies every 20th test image with each, and writes docs/results/cifar10.md from what
they left in the folders: the paper's Table 2 with a smaller network. What is finished is not done again, and what was
interrupted goes on, so the script may be stopped and started; with --table-only it computes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from _common import cifar10_files
from _models import Certified, Study, Trained, epochs, main, same

PRESET = "cifar10-quick"
SIGMAS = (0.25, 0.5, 1.0)

#: Smooth-Adv's budget in the paper's Table 4, by sigma.
EPSILON = {0.25: 0.25, 0.5: 1.0, 1.0: 2.0}

#: Rules of our model that are compared with the best constant level.
RULES = ("joint-lp",)

#: What is shown of the run with joint regions.
SHOWN = (("joint-lp", "joint"), ("paper-lp", "paper"), ("overlapping", "*all overlap, proves nothing*"))

#: What of a radius may be lost by stopping early: by models that may be the best, and by those that are not.
CLOSE, FAR = 0.01, 0.05


def sample_wise(passes: int) -> Trained:
    """Algorithm 1: a level for each image, and joint regions."""
    method = ("--method", "sample-wise", "--m", "1", "--k", "1", "--epsilon", "1")
    flags = (*method, "--choice", "margins", "--sigma-max", "1", *epochs(PRESET, method, passes))
    joint = Certified("joint", ("--overlap", "joint"), SHOWN)
    return Trained("sample-wise", "Algorithm 1", flags, (within(joint, CLOSE),))


def within(certified: Certified, loss: float) -> Certified:
    """A certification that stops where a radius is that close to what all samples would give."""
    return replace(certified, flags=(*certified.flags, "--target-loss", f"{loss:g}"))


def baselines(sigma: float, passes: int) -> list[Trained]:
    """The methods that train at one level."""
    adversarial = ("--method", "smooth-adv", "--m", "1", "--k", "1", "--epsilon", f"{EPSILON[sigma]:g}")
    flags = {
        "gaussian": ("Gaussian", ("--method", "gaussian", "--m", "1"), FAR),
        "smooth-adv": ("Smooth-Adv", adversarial, CLOSE),
    }
    found = []
    for name, (title, method, loss) in flags.items():
        method = (*method, "--sigma", f"{sigma:g}")
        spent = epochs(PRESET, method, passes)
        certified = within(same(sigma), loss)
        found.append(Trained(f"{name}-{sigma:g}", f"{title}, {sigma:g}", (*method, *spent), (certified,)))
    return found


def study(runs: Path, passes: int) -> Study:
    """All models of the table, ours first."""
    models = [sample_wise(passes)]
    for sigma in SIGMAS:
        models += baselines(sigma, passes)
    certify = ("--skip", "20", "--n0", "300", "--max-n", "10000", "--racing", "--chosen-only")
    data = ("--dataset", f"imagefolder:{runs}/images")
    return Study("cifar10", data, PRESET, (), certify, tuple(models), RULES, str(runs))


def unpack(runs: Path) -> None:
    """Write the images where no earlier call has finished doing so."""
    folder = runs / "images"
    done = folder / "complete"
    if done.exists():
        return
    for part in ("train", "test"):
        for name, jpeg in cifar10_files(part).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(jpeg)
    done.touch()


ABOUT = """ResNet-20, all 50,000 training images of a JPEG copy of CIFAR-10, whose pixels differ slightly from the
original, and for every model {passes} passes forward and backward of each of them: {passes} epochs of Gaussian
augmentation (m = 1), half as many of Smooth-Adv (m = 1, k = 1) and of Algorithm 1, with the same attack, two thirds of
which pretrain. Algorithm 1 spends 30 passes forward more on choosing levels (`--choice margins`), from 0.12 to 1. Adam
with a cosine schedule, batches of 128, bfloat16, shifted and mirrored images. Budgets epsilon are those of the paper's
Table 4, by sigma, and 1 for Algorithm 1, whose levels lie between; they grow over the first ninth of the epochs. One
seed.

**Not the paper's schedule.** It has ResNet-110, and 150 epochs, or 300 for Algorithm 1, of ten passes each: 150 million
passes for one model. An H200 computes 70,000 of them a second in bfloat16, forward alone ([devices](../devices.md)), so
one model would take more than an hour at the very least; all models here took seven minutes together.

**What was chosen, and how.** Nothing was tuned. Algorithm 1 without an attack was begun as well, and given up after
pretraining, once the baselines had shown that attacks pay; it was never certified.

**Certified**: every 20th test image, 500 in all; n0 = 300 and n = 10,000 samples, fewer where the radius is within 1%
of what 10,000 would certify (Gaussian: 5%, so these rows may be low by that). alpha = 0.001 per image. Algorithm 1's
images have a level each, with joint regions, or with regions kept apart as in the paper
([overlap modes](../overlap.md)). Columns of numbers: the average certified radius with half of its 95% interval over
images, the same one-sided, as in published tables; how many images abstain, and percent of images classified correctly
with a certified radius above that of the header, both with the full bound. Each of the two bounds holds by itself.

**Hardware**: models were trained on an NVIDIA H200, sixteen runs at a time with those of [MNIST](mnist.md), in some
seven minutes. Algorithm 1's last round of choosing and its finetuning were done on two CPU cores, in 15 minutes.
Smooth-Adv was certified on the H200, in 45 seconds a model; the other models on the two cores, in 12 to 30 minutes.
"""


if __name__ == "__main__":
    main(__doc__, study, passes=48, title="CIFAR-10 with equal passes and both bounds", about=ABOUT, prepare=unpack)
