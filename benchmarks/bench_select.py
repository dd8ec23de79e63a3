"""Choosing sigma: what the rules are worth in certified radius, and what racing saves.

SRS_DATA=... python benchmarks/bench_select.py

Trains a LeNet on MNIST with Gaussian noise of a random level per image, chooses every test image's sigma by each rule,
with and without racing, and certifies it there with fresh samples. The images are none of those that racing's constants
were chosen with (multiples of 50).
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from _common import Row, data_folder, markdown_table, write_markdown, write_rows

from smoothing import SmoothedClassifier
from smoothing.adaptive import CountVotes
from smoothing.machine import one_thread_each
from smoothing.selection import RACE_RUNGS, RULES, Outcome, Plan, select
from training import Stage, build, fit, mnist

SIGMAS = np.array([0.12, 0.23, 0.34, 0.45, 0.56, 0.67, 0.78, 0.89, 1.0])
N0, ALPHA = 1000, 0.001


def replayed(smoothed: SmoothedClassifier, images: np.ndarray, indices: np.ndarray) -> CountVotes:
    """Draw the full grid once, in racing's pieces; any rule would draw these very samples."""
    edges = [0, *RACE_RUNGS, N0]
    levels = np.tile(SIGMAS, (len(images), 1))
    everything = np.ones(levels.shape, dtype=bool)
    pieces = {
        start: smoothed._engine.count(torch.from_numpy(images), indices, levels, everything, start, stop, "select")
        for start, stop in pairwise(edges)
    }

    def count(wanted: np.ndarray, start: int, stop: int) -> np.ndarray:
        return sum(votes for begin, votes in pieces.items() if start <= begin < stop) * wanted[..., None]

    return count


def certified(
    smoothed: SmoothedClassifier, images: np.ndarray, indices: np.ndarray, choices: dict[str, Outcome], n: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Certify what any rule chose, once for each image and level: class and radius by rule."""
    every = np.arange(len(images))
    rows = {
        key: np.column_stack([every, c.level, c.classes[every, c.level], c.share[every, c.level]])
        for key, c in choices.items()
    }
    unique = np.unique(np.concatenate(list(rows.values())), axis=0)
    j, level, classes = unique[:, :3].astype(np.int64).T
    share = unique[:, 3]
    found = smoothed.certify_classes(
        images[j], SIGMAS[level], classes, n=n, alpha=ALPHA, share=share, indices=indices[j]
    )
    place = {tuple(row): i for i, row in enumerate(unique.tolist())}
    order = {key: [place[tuple(row)] for row in value.tolist()] for key, value in rows.items()}
    return {key: (found.predict[i], found.radius[i]) for key, i in order.items()}


def main() -> None:
    """Train, choose, certify, and write the rows and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=250, help="test images, evenly spread")
    parser.add_argument("--n", type=int, default=10_000, help="final samples per image")
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    data = mnist(Path(data_folder()))
    model = build("lenet", 10, seed=0)
    with one_thread_each():
        stage = Stage(
            epochs=options.epochs,
            sigma=(0.12, 1.0),
            lr=1e-3,
            optimizer="adam",
            weight_decay=0.0,
            schedule="cosine",
            batch_size=128,
        )
        fit(model, data.train_images, data.train_labels, stage=stage)
    step = len(data.test_images) // options.images
    indices = np.arange(11, len(data.test_images), step)
    indices = indices[indices % 50 != 0]
    images, labels = data.test_images[indices], data.test_labels[indices]
    smoothed = SmoothedClassifier(model, 10)

    count, grid = replayed(smoothed, images, indices), np.tile(SIGMAS, (len(images), 1))
    choices = {
        rule + (", racing" if racing else ""): select(count, grid, Plan(N0, rule, ALPHA, options.n, racing))[0]
        for rule in RULES
        for racing in (False, True)
    }
    outcome = certified(smoothed, images, indices, choices, options.n)
    rows: list[Row] = []
    for name, choice in choices.items():
        predict, radius = outcome[name]
        correct = predict == labels
        rows.append(
            {
                "rule": name,
                "images": len(images),
                "n": options.n,
                "n0": N0,
                "samples_per_image": float(choice.samples.sum(axis=1).mean()),
                "average_certified_radius": float((radius * correct).mean()),
                "mean_radius": float(radius.mean()),
                "accuracy": float(correct.mean()),
                "abstained": int((predict == -1).sum()),
                "mean_sigma": float(SIGMAS[choice.level].mean()),
            }
        )
    write_rows("select", rows)
    write_markdown("select", "Choosing sigma: rules and racing", [table(rows), NOTE])


def table(rows: list[Row]) -> str:
    """One line for every rule; racing beside the full grid of the same rule."""
    full = {row["rule"]: row for row in rows}
    lines = []
    for row in rows:
        base = full[row["rule"].removesuffix(", racing")]
        saved = base["samples_per_image"] / row["samples_per_image"]
        lost = 100 * (1 - row["average_certified_radius"] / base["average_certified_radius"])
        lines.append(
            [
                row["rule"],
                f"{row['samples_per_image']:,.0f}",
                f"{saved:.2f}",
                f"{row['average_certified_radius']:.4f}",
                "" if row is base else f"{lost:+.2f}%",
                f"{100 * row['accuracy']:.1f}%",
                str(row["abstained"]),
                f"{row['mean_sigma']:.3f}",
            ]
        )
    header = [
        "rule",
        "selection samples",
        "times fewer",
        "ACR",
        "lost by racing",
        "certified correct",
        "abstained",
        "mean sigma",
    ]
    return markdown_table(header, lines)


NOTE = """LeNet trained for a few epochs on MNIST under noise of sigma ~ U(0.12, 1.00); 9 levels, n0 = 1,000 selection
samples a level, alpha = 0.001. ACR: mean over images of the certified radius where the class is right, fresh samples,
overlaps of regions ignored. "Lost" compares racing with its rule's full grid; below zero it gained, by chance.
"""


if __name__ == "__main__":
    main()
