"""Samples and certified radius: fixed numbers, ladders, confidence sequences, and one question at one radius.

SRS_DATA=... python benchmarks/bench_samples.py

A network is trained on scikit-learn's digits and a LeNet on MNIST. Their votes on some test images, many each, give
true probabilities; every procedure is then simulated on multinomial draws of these, several times an image, with
selection samples of its own and alpha = 0.001 an image: real votes of so many images would take days. Some images are
also certified in earnest.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _common import Row, data_folder, markdown_table, write_markdown, write_rows
from scipy import special

from smoothing import Ladder, SmoothedClassifier, sequence_bounds
from smoothing.adaptive import climb
from smoothing.bounds import alpha_shares, counted_bounds, runner_up_bounds, split_alpha
from smoothing.confidence import certified_radius, lower_confidence_bound, upper_confidence_bound
from smoothing.deciding import Question, decide, looks
from smoothing.machine import one_thread_each
from smoothing.votes import others
from training import ImageData, Stage, build, digits, fit, mnist

N0, ALPHA, MOST = 100, 0.001, 100_000
ADAM = partial(Stage, optimizer="adam", weight_decay=0.0, schedule="cosine")
STAGES = {
    "digits": ADAM(epochs=60, sigma=(0.1, 0.8), lr=2e-3, batch_size=64),
    "mnist": ADAM(epochs=2, sigma=(0.12, 1.0), lr=1e-3, batch_size=128),
}
LADDERS = {
    "3 rungs, equal parts, min_gain .05": Ladder((1000, 10_000, MOST)),
    "ratio 2, equal parts, min_gain .05": Ladder((1563, 3125, 6250, 12_500, 25_000, 50_000, MOST)),
    "ratio 2, .8 to the last, min_gain .05": Ladder.geometric(1500, MOST),
    "ratio 2, equal parts, target_loss .01": Ladder(Ladder.geometric(1500, MOST).rungs, 0.0, target_loss=0.01),
    "ratio 2, .8 to the last, target_loss .01": Ladder.geometric(1500, MOST, min_gain=0.0, target_loss=0.01),
    "ratio 2, equal parts, target_loss .03": Ladder(Ladder.geometric(1500, MOST).rungs, 0.0, target_loss=0.03),
    "ratio 2, .8 to the last, target_loss .03": Ladder.geometric(1500, MOST, min_gain=0.0, target_loss=0.03),
}


class Simulation:
    """Many images with known probabilities at one level, and their selection samples."""

    def __init__(self, p: np.ndarray, labels: np.ndarray, sigma: float, seed: int) -> None:
        self.p, self.sigma, self.rng = p, sigma, np.random.default_rng(seed)
        self.size, self.num_classes = p.shape
        self.every = np.arange(self.size)
        self.selection = self.rng.multinomial(N0, p)
        self.classes = self.selection.argmax(axis=1)
        self.right = self.classes == labels
        self.own0, self.other0, self.rival = self.top(self.selection)
        self.share = split_alpha(self.own0, self.other0, N0, self.num_classes, MOST, ALPHA)

    def top(self, votes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what the class has, what the next one has, and which that is."""
        rest = others(votes, self.classes[:, None])
        return votes[self.every, self.classes], rest.max(axis=1), rest.argmax(axis=1)

    def count(self, wanted: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Draw votes, as `adaptive.CountVotes`."""
        return np.asarray(self.rng.multinomial(stop - start, self.p)[:, None] * wanted[..., None])

    def average(self, radius: np.ndarray) -> float:
        """Return the average certified radius."""
        return float((self.sigma * radius * self.right).mean())

    def ladder(self, ladder: Ladder) -> tuple[np.ndarray, np.ndarray]:
        """Radii and samples."""
        classes, share, everything = self.classes[:, None], self.share[:, None], np.ones((self.size, 1), dtype=bool)
        counts = climb(ladder, ALPHA, classes, share, everything, self.count).counted(classes)
        bounds = counted_bounds(counts, ALPHA, share, ladder.weights)
        return certified_radius(1.0, *bounds)[:, 0], counts.drawn[:, 0]

    def sequence(self, rungs: tuple[int, ...], loss: float) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of confidence sequences at the looks of a ladder; stops at the same expected loss."""
        own_alpha, other_alpha = alpha_shares(ALPHA, self.share)
        votes, open_ = np.zeros((self.size, self.num_classes), dtype=np.int64), np.ones(self.size, dtype=bool)
        low, high, drawn = np.zeros(self.size), np.ones(self.size), np.zeros(self.size, dtype=np.int64)

        def bounds(own: np.ndarray, other: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
            p_lower, _ = sequence_bounds(own, n, own_alpha, prior=(self.own0 + 0.5, N0 - self.own0 + 0.5))
            prior = (self.other0 + 0.5, N0 - self.other0 + 0.5)
            _, p_upper = sequence_bounds(other, n, np.maximum(other_alpha, 1e-90), prior=prior)
            return p_lower, np.where(other_alpha > 0, np.minimum(p_upper, 1 - p_lower), 1 - p_lower)

        start = 0
        for stop in rungs:
            votes += self.count(open_[:, None], start, stop)[:, 0]
            drawn[open_], start = stop, stop
            own, other, _ = self.top(votes)
            p_lower, p_upper = bounds(np.minimum(own, stop), np.minimum(other, stop), stop)
            low, high = np.where(open_, np.maximum(low, p_lower), low), np.where(open_, np.minimum(high, p_upper), high)
            hope = np.floor((own + 0.5) / (stop + 1) * MOST).astype(int)
            rest = np.minimum(np.ceil((other + 0.5) / (stop + 1) * MOST).astype(int), MOST - hope)
            open_ &= certified_radius(1.0, low, high) < (1 - loss) * certified_radius(1.0, *bounds(hope, rest, MOST))
        return certified_radius(1.0, low, high), drawn

    def allotted(self, average: int) -> tuple[np.ndarray, np.ndarray]:
        """Certify at full alpha with the sizes that are best for known probabilities: no procedure can know them."""
        sizes = np.array([round(MOST / 2 ** (k / 2)) for k in range(14, -1, -1)])
        own, other = self.p[self.every, self.classes], others(self.p, self.classes[:, None]).max(axis=1)

        def radii(shares: Callable[[int], tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
            return np.stack([certified_radius(1.0, *runner_up_bounds(*shares(n), n, ALPHA, self.share)) for n in sizes])

        def typical(n: int) -> tuple[np.ndarray, np.ndarray]:
            counts = np.rint(own * n).astype(int)
            return counts, np.minimum(np.rint(other * n).astype(int), n - counts)

        hoped, drawn = radii(typical), radii(lambda n: self.top(self.rng.multinomial(n, self.p))[:2])
        low, high = 1e-8, 10.0  # what a sample must bring
        for _ in range(60):
            price = np.sqrt(low * high)
            best = np.argmax(hoped - price * sizes[:, None] / 1e4, axis=0)
            low, high = (price, high) if sizes[best].mean() > average else (low, price)
        best = np.argmax(hoped - high * sizes[:, None] / 1e4, axis=0)
        return drawn[best, self.every], sizes[best]

    def asked(self, radius: float) -> Question:
        """Return the question of `certify_at` at a radius in units of sigma."""
        each = np.ones(self.size)
        return Question(
            each, radius * each, self.classes, self.rival, self.own0, self.other0, N0, self.share, ALPHA, False
        )

    def union(self, radius: float) -> tuple[np.ndarray, np.ndarray]:
        """Answer the same question by Clopper-Pearson bounds at a share of alpha for each of 24 looks."""
        rungs = Ladder.geometric(32, MOST, 1.4).rungs
        answer, drawn = np.full(self.size, -1), np.zeros(self.size, dtype=np.int64)
        votes, start, each = np.zeros((self.size, self.num_classes), dtype=np.int64), 0, ALPHA / len(rungs)
        for stop in rungs:
            open_ = answer < 0
            votes += self.count(open_[:, None], start, stop)[:, 0]
            drawn[open_], start = stop, stop
            own, other, _ = self.top(votes)
            own, other = np.minimum(own, stop), np.minimum(other, stop)
            yes = certified_radius(1.0, *runner_up_bounds(own, other, stop, each, self.share)) > radius
            own_alpha, other_alpha = alpha_shares(each, self.share)
            upper = upper_confidence_bound(own, stop, own_alpha)
            rival = lower_confidence_bound(votes[self.every, self.rival], stop, np.maximum(other_alpha, 1e-90))
            lower = np.maximum((1 - upper) / (self.num_classes - 1), np.where(other_alpha > 0, rival, 0.0))
            no = (special.ndtri(upper) - special.ndtri(lower)) / 2 <= radius
            answer = np.where(open_, np.where(yes, 1, np.where(no, 0, -1)), answer)
        return answer, drawn


def trained(data: ImageData, name: str) -> torch.nn.Module:
    """Train the network of a data set."""
    model = build({"digits": "digits_cnn", "mnist": "lenet"}[name], data.num_classes, seed=0)
    with one_thread_each():
        fit(model, data.train_images, data.train_labels, stage=STAGES[name])
    return model


def long_votes(smoothed: SmoothedClassifier, images: np.ndarray, sigma: float, n: int) -> np.ndarray:
    """Votes of n samples from the stream of predictions, which no certificate uses."""
    return smoothed.predict(images, sigma, n=n).votes


def simulated(name: str, sigma: float, votes: np.ndarray, labels: np.ndarray, times: int) -> list[Row]:
    """Run every procedure on the votes' probabilities; half a vote in all stands for what was not seen."""
    classes = votes.shape[1]
    p = np.repeat((votes + 0.5 / classes) / (votes.sum(axis=1, keepdims=True) + 0.5), times, axis=0)
    sim = Simulation(p, np.repeat(labels, times), sigma, seed=1)
    base = {"data": name, "sigma": sigma, "images": len(votes), "times": times}
    rows: list[Row] = []

    def add(kind: str, radius: np.ndarray, drawn: np.ndarray) -> None:
        rows.append(base | {"procedure": kind, "acr": sim.average(radius), "samples": float(drawn.mean())})

    for n in (MOST, 50_000, 20_000, 10_000):
        add(f"fixed {n:,}", *sim.ladder(Ladder((n,))))
    for kind, ladder in LADDERS.items():
        add(kind, *sim.ladder(ladder))
    rungs = Ladder.geometric(1500, MOST).rungs
    add("sequence, target_loss .01", *sim.sequence(rungs, 0.01))
    add("sequence, target_loss .03", *sim.sequence(rungs, 0.03))
    add("best for known p, 20,000 on average", *sim.allotted(20_000))
    for radius in (1.0, 1.5, 2.0):
        for kind, (answer, drawn) in {
            "certify_at": decide(sim.asked(radius), classes, MOST, sim.count)[:2],
            "Clopper-Pearson, 24 looks": sim.union(radius),
        }.items():
            shares = {word: float((answer == code).mean()) for word, code in (("yes", 1), ("no", 0), ("open", -1))}
            row = {"procedure": kind, "radius": radius * sigma, "samples": float(drawn.mean()), **shares}
            rows.append(base | row | {"median": float(np.median(drawn)), "looks": len(looks(MOST))})
    return rows


def in_earnest(smoothed: SmoothedClassifier, name: str, sigma: float, images: np.ndarray, labels: np.ndarray) -> Row:
    """Certify some images at one radius, with fresh samples."""
    found = smoothed.certify_at(images, sigma, 1.5 * sigma, n0=N0, n=10_000)
    fixed = smoothed.certify(images, sigma, n0=N0, n=10_000)
    both = found.answer >= 0
    agree = (fixed.radius > 1.5 * sigma) == (found.answer == 1)
    return {
        "data": name,
        "sigma": sigma,
        "procedure": "certify_at in earnest",
        "radius": 1.5 * sigma,
        "images": len(images),
        "samples": float(found.n.mean()),
        "open": float((~both).mean()),
        "certified_by_fixed_10000": int((fixed.radius > 1.5 * sigma).sum()),
        "yes": int((found.answer == 1).sum()),
        "agree": float(agree[both].mean()),
        "accuracy": float((found.classes == labels).mean()),
    }


def main() -> None:
    """Train, vote, simulate, and write the rows and the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40, help="test images of each data set, evenly spread")
    parser.add_argument("--votes", type=int, default=5000, help="votes that true probabilities are taken from")
    parser.add_argument("--times", type=int, default=20, help="simulations of each image")
    options = parser.parse_args()
    rows: list[Row] = []
    for name, sigmas in {"digits": (0.2, 0.4, 0.6), "mnist": (0.5, 1.0)}.items():
        data = digits() if name == "digits" else mnist(Path(data_folder()))
        smoothed = SmoothedClassifier(trained(data, name), data.num_classes)
        indices = np.arange(11, len(data.test_images), len(data.test_images) // options.images)[: options.images]
        images, labels = data.test_images[indices], data.test_labels[indices]
        for sigma in sigmas:
            votes = long_votes(smoothed, images, sigma, options.votes)
            rows += simulated(name, sigma, votes, labels, options.times)
            write_rows("samples", rows)
        rows.append(in_earnest(smoothed, name, sigmas[1], images[:10], labels[:10]))
    write_rows("samples", rows)
    write_markdown(
        "samples", "Fewer samples", ["## Radii\n", radii(rows), "## One radius\n", answers(rows), earnest(rows), NOTE]
    )


def radii(rows: list[Row]) -> str:
    """ACR of each procedure against that of 100,000 samples, and its samples."""
    cells = [(name, sigma) for name, sigma in dict.fromkeys((row["data"], row["sigma"]) for row in rows)]
    found = {(row["procedure"], row["data"], row["sigma"]): row for row in rows if "acr" in row}
    lines = []
    for procedure in dict.fromkeys(key[0] for key in found):
        line = [procedure]
        for cell in cells:
            row, full = found[procedure, *cell], found[f"fixed {MOST:,}", *cell]
            line.append(f"{100 * (row['acr'] / full['acr'] - 1):+.2f}% at {row['samples']:,.0f}")
        lines.append(line)
    return markdown_table(["procedure", *(f"{name} {sigma:g}" for name, sigma in cells)], lines)


def answers(rows: list[Row]) -> str:
    """What one question costs."""
    lines = [
        [
            row["procedure"],
            f"{row['data']} {row['sigma']:g}",
            f"{row['radius']:.3g}",
            f"{row['samples']:,.0f}",
            f"{row['median']:,.0f}",
            *(f"{100 * row[word]:.1f}%" for word in ("yes", "no", "open")),
        ]
        for row in rows
        if "median" in row
    ]
    return markdown_table(["procedure", "data, sigma", "radius", "samples", "median", "yes", "no", "open"], lines, 2)


def earnest(rows: list[Row]) -> str:
    """What real certification said beside the simulation."""
    return "".join(
        f"In earnest, {row['images']} images of {row['data']} at sigma {row['sigma']:g}, radius {row['radius']:g}: "
        f"{row['samples']:,.0f} samples an image, {row['yes']} times yes, {100 * row['open']:.0f}% open; of 10,000 "
        f"samples, {row['certified_by_fixed_10000']} certified more than this radius.\n"
        for row in rows
        if "agree" in row
    )


NOTE = """Radii: average certified radius against that of 100,000 samples for each image, and samples per image; n0 =
100, alpha = 0.001 an image for every procedure, runner-up bounds. Probabilities are taken from real votes,
and the procedures are simulated on multinomial draws of them. "Best for known p" certifies at full alpha with
the sizes that maximise the sum of radii if all probabilities are known: a yardstick for what stopping early
can reach. "Sequence" puts confidence sequences at the looks of the ladder of ratio 2. One radius:
`certify_at` with at most 100,000 samples, and the same question answered by Clopper-Pearson bounds that share
alpha among 24 looks.
"""


if __name__ == "__main__":
    main()
