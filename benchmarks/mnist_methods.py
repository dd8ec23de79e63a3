"""Training methods on MNIST at one noise level, each with the same number of passes over the network.

SRS_DATA=... python benchmarks/mnist_methods.py --runs runs/methods

Trains LeNet by every method, certifies every 20th test image with each, and writes docs/results/mnist_methods.md from
what srs-certify left in the folders. What is finished is not done again, and what was interrupted goes on, so the
script may be stopped and started; with --table-only it computes nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _common import DOCS, Row, markdown_table, write_markdown, write_rows
from mnist import EPSILONS, comparison, finish, settings
from scipy.special import ndtri

from srs.evaluation.intervals import mean_interval
from srs.evaluation.metrics import average_certified_radius, certified_accuracy
from srs.report.numbers import floored, percent, raised
from training import TrainSettings

#: Weight of Consistency's divergence in the authors' experiments on MNIST, by sigma.
CONSISTENCY = {0.25: 10.0, 0.5: 5.0, 1.0: 5.0}

#: Smooth-Adv's budget in this paper's Table 5, by sigma.
EPSILON = {0.25: 0.25, 0.5: 1.0, 1.0: 2.0}


@dataclass(frozen=True)
class Budget:
    """What is spent: passes of every training image and model, training images, every skip-th test image, samples."""

    passes: int
    images: int
    skip: int
    n0: int
    n: int


def methods(sigma: float) -> dict[str, list[str]]:
    """The flags of every method, by the name of its folder."""
    weight = f"{CONSISTENCY.get(sigma, 5.0):g}"
    epsilon = f"{EPSILON.get(sigma, 2.0):g}"
    adversarial = ["--method", "smooth-adv", "--k", "2", "--epsilon", epsilon]
    return {
        "gaussian": ["--method", "gaussian"],
        "smooth-adv": adversarial,
        "consistency": ["--method", "consistency", "--consistency-lambda", weight],
        "smooth-adv-consistency": [*adversarial, "--loss", "consistency"],
        "smoothmix": ["--method", "smoothmix", "--k", "4"],
    }


TITLES = {
    "gaussian": "Gaussian",
    "smooth-adv": "Smooth-Adv",
    "consistency": "Consistency",
    "smooth-adv-consistency": "Smooth-Adv + Consistency",
    "smoothmix": "SmoothMix",
}


def train_command(name: str, sigma: float, budget: Budget, runs: str) -> list[str]:
    """The command that trains a model with its share of epochs; $SRS_DATA is left for the shell."""
    flags = methods(sigma)[name]
    said = dict(zip(flags[::2], flags[1::2], strict=True))
    stage = TrainSettings(
        method=said["--method"],  # type: ignore[arg-type]  # checked there
        sigma=sigma,
        m=2,
        k=int(said.get("--k", "2")),
    ).stage()
    epochs, rest = divmod(budget.passes, stage.passes)
    if rest or not epochs:
        raise SystemExit(f"--passes {budget.passes}: {name} takes {stage.passes} an epoch; give a multiple of 12")
    flags = [*flags, "--sigma", f"{sigma:g}", "--epochs", str(epochs), "--warmup", str(math.ceil(epochs / 9))]
    flags += ["--train-images", str(budget.images)]
    return ["srs-train", "mnist-quick", "--data-dir", "$SRS_DATA", "--out", folder(name, sigma, runs), *flags]


def certify_command(name: str, sigma: float, budget: Budget, runs: str) -> list[str]:
    """The command that certifies a model at its level."""
    out = folder(name, sigma, runs)
    flags = ["--skip", str(budget.skip), "--n0", str(budget.n0), "--n", str(budget.n), "--out", f"{out}/certified"]
    return ["srs-certify", "--checkpoint", f"{out}/checkpoint.pt", *flags]


def folder(name: str, sigma: float, runs: str) -> str:
    """Where a model lies."""
    return f"{runs}/{name}-{sigma:g}"


def carry_out(sigmas: list[float], budget: Budget, runs: Path) -> None:
    """Run every command that has not finished yet."""
    for sigma in sigmas:
        for name in TITLES:
            where = Path(folder(name, sigma, str(runs)))
            finish(train_command(name, sigma, budget, str(runs)), where)
            done = (where / "certified" / "summary.json").exists()
            finish(certify_command(name, sigma, budget, str(runs)), where / "certified", done=done)


def rows(sigmas: list[float], runs: Path) -> Iterator[Row]:
    """What the table shows: a row for each model that is certified, and its gain over Gaussian augmentation."""
    for sigma in sigmas:
        plain: np.ndarray | None = None
        for name, title in TITLES.items():
            where = Path(folder(name, sigma, str(runs)))
            if not (where / "certified" / "summary.json").exists():
                continue
            found = comparison(where / "certified" / "comparison.tsv")
            summary = json.loads((where / "certified" / "summary.json").read_text())
            radius, right = found[f"sigma={sigma:g}"]
            one_sided, right_too = found[f"sigma={sigma:g}:one-sided"]
            values = radius * right
            plain = values if name == "gaussian" else plain
            gain = None if plain is None or name == "gaussian" else mean_interval(values - plain)
            interval = mean_interval(values)
            yield {
                "model": title,
                "sigma": sigma,
                "images": len(radius),
                "acr": average_certified_radius(radius, right),
                "acr_interval": [interval.low, interval.high],
                "acr_one_sided": average_certified_radius(one_sided, right_too),
                "gain": None if gain is None else [gain.mean, gain.low, gain.high],
                "certified_accuracy": certified_accuracy(radius, right, EPSILONS).tolist(),
                "settings": {key: summary["settings"][key] for key in ("n0", "n", "alpha", "seed", "precision")},
                "config": settings(where / "config.yaml"),
            }


def table(found: list[Row]) -> str:
    """Certified accuracy in percent, ACR with both bounds, and what a method gains over Gaussian augmentation."""
    header = ["sigma", "trained by", "epochs", *(f"{e:.2f}" for e in EPSILONS), "ACR", "+-", "one-sided", "gain", "+-"]
    lines = []
    for row in found:
        low, high = row["acr_interval"]
        gain = ["", ""]
        if row["gain"] is not None:
            mean, least, most = row["gain"]
            gain = [f"{mean:+.3f}", raised((most - least) / 2, 3)]
        lines.append(
            [
                f"{row['sigma']:g}",
                row["model"],
                str(row["config"]["epochs"]),
                *(percent(value) if value else "0" for value in row["certified_accuracy"]),
                floored(row["acr"], 3),
                raised((high - low) / 2, 3),
                floored(row["acr_one_sided"], 3),
                *gain,
            ]
        )
    return markdown_table(header, lines, words=2)


def commands(sigmas: list[float], budget: Budget) -> str:
    """The commands, as a person would type them."""
    lines = []
    for sigma in sigmas:
        for name in TITLES:
            lines.append(train_command(name, sigma, budget, "runs/methods"))
            lines.append(certify_command(name, sigma, budget, "runs/methods"))
    text = "\n".join(shlex.join(line).replace("'$SRS_DATA'", '"$SRS_DATA"') for line in lines)
    return f"## The commands\n\n```sh\n{text}\n```\n"


ABOUT = """LeNet, {images:,} training images, {passes} passes forward and backward of each of them for every model,
whatever it spends them on: an epoch of Gaussian augmentation takes m = 2, of Consistency 2, of Smooth-Adv m (k + 1) = 6
(k = 2), of SmoothMix m (k + 2) = 12 (k = 4). Adam with a cosine schedule, batches of 128, bfloat16;
Smooth-Adv's epsilon and SmoothMix's eta grow over the first ninth of the epochs. Consistency's lambda is its authors'
for MNIST (10 at sigma = 0.25, else 5; with Smooth-Adv 1), eta = 0.5; SmoothMix has eta = 5 and a path of 8 sigma. One
seed.

Certified at the level of training: {tested} test images, n0 = {n0:,}, n = {n:,}, alpha = 0.001 per image, with both
bounds. Columns of numbers: percent of images classified correctly with a certified radius above that of the header, the
average certified radius with half of its 95% interval, the same one-sided as in published tables, and the gain over
Gaussian augmentation with half of its paired 95% interval, over images and not over seeds. No one-sided radius of
n = {n:,} samples exceeds {most} sigma.
"""


def about(found: list[Row], budget: Budget) -> str:
    """What the table shows, in words."""
    most = raised(float(-_quantile(budget.n)), 2)
    return ABOUT.format(
        images=budget.images, passes=budget.passes, tested=found[0]["images"], n0=budget.n0, n=budget.n, most=most
    )


def _quantile(n: int) -> float:
    """Phi^-1 of what all n votes for one class leave for the others, at alpha = 0.001, one-sided."""
    return float(ndtri(-np.expm1(np.log(0.001) / n)))


def main() -> None:
    """Do what is left to do, then write rows and table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder for checkpoints and certificates")
    parser.add_argument("--sigma", type=float, nargs="+", default=[0.5, 1.0], help="noise levels (default: 0.5 1)")
    parser.add_argument("--passes", type=int, default=240, help="passes of each image and model, a multiple of 12")
    parser.add_argument("--images", type=int, default=60_000, help="training images")
    parser.add_argument("--skip", type=int, default=20, help="certify every skip-th test image")
    parser.add_argument("--n0", type=int, default=100, help="selection samples")
    parser.add_argument("--n", type=int, default=10_000, help="estimation samples")
    parser.add_argument("--table-only", action="store_true", help="write the table of what is there")
    options = parser.parse_args()
    budget = Budget(options.passes, options.images, options.skip, options.n0, options.n)
    if not options.table_only:
        carry_out(options.sigma, budget, options.runs)
    found = list(rows(options.sigma, options.runs))
    if not found:
        raise SystemExit(f"--runs {options.runs}: no model is certified there")
    write_rows("mnist_methods", found)
    parts = [about(found, budget), table(found), commands(options.sigma, budget)]
    write_markdown("mnist_methods", "Training methods on MNIST, at equal passes", parts, DOCS)


if __name__ == "__main__":
    main()
