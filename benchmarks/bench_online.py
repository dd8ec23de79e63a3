"""Points that arrive one at a time: `regions.OnlineAllocator` next to the optimum, and what one insertion costs.

SRS_DATA=... python benchmarks/bench_online.py [--parts growth latency] [--datasets mnist cifar10] [--largest N]

Parts that are not asked for are reported from the rows of the last run; `--parts` alone only writes the report anew.

Growth (Table 7 of the paper): the optimum (matching) and Algorithm 2 as the number of images grows. The first 10,000
are the test images with their own published certificates. Training images follow, in a seeded order; each takes all
the certificates of one test image of its class, drawn with a seed: so class and certificates match, and beyond its
class an image says nothing about its radii.

Latency: Algorithm 2 on MNIST, and on copies of it moved by a pixel, until there are 1,000, 10,000 and 100,000 regions.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import faiss
import numpy as np
from _common import (
    CIFAR10,
    RESULTS,
    SIGMAS,
    Row,
    cifar10_files,
    cifar10_test,
    data_folder,
    decoded,
    markdown_table,
    mnist_test,
    write_markdown,
    write_rows,
)
from matplotlib.figure import Figure

import regions
from srs.report.numbers import floored, percent

DOCS = Path(__file__).parent.parent / "docs" / "results"
SEED = 20260501
MODEL = "catrs"
LEVELS = np.array(SIGMAS, dtype=np.float64)
OVERLAPPING = "overlapping (no guarantee)"
EPSILON = np.arange(10) * 0.25
SIZES = {"mnist": (10_000, 20_000, 30_000, 50_000, 70_000), "cifar10": (10_000, 20_000, 30_000, 45_000, 60_000)}
REGIONS = (1_000, 10_000, 100_000)
VERIFIED = 10_000  # regions up to which every pair is checked: beyond, that takes longer than all the rest
TIMED, SCANS = 1_000, 30


# --- data ---------------------------------------------------------------------------------------------------------


def mnist_train() -> tuple[np.ndarray, np.ndarray]:
    """60,000 training images as uint8, and their classes."""
    folder = data_folder() / "MNIST" / "raw"
    images = np.frombuffer((folder / "train-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
    labels = np.frombuffer((folder / "train-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    return images.reshape(len(labels), -1), labels.astype(np.int64)


def cifar10_train() -> tuple[np.ndarray, np.ndarray]:
    """50,000 training images as uint8, and their classes."""
    files = cifar10_files("train")
    labels = [CIFAR10.index(name.split("/")[1]) for name in files]
    return np.array([decoded(jpeg) for jpeg in files.values()]), np.array(labels)


def problem(dataset: str, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (n, d) in [0, 1], radii (n, 3) at three sigmas, and whether the certified class is right (n, 3)."""
    files = [data_folder() / "certify-logs" / f"{dataset}_{MODEL}_{sigma}.tsv" for sigma in SIGMAS]
    logs = np.stack([np.loadtxt(f, delimiter="\t", skiprows=1, usecols=(1, 2, 3)) for f in files], axis=1)
    label, predict, radius = np.moveaxis(logs, 2, 0)
    radius = np.where(predict != -1, radius, 0.0)
    classes = label[:, 0].astype(np.int64)
    test = mnist_test() if dataset == "mnist" else cifar10_test(classes)
    source = np.arange(min(n, len(test)))
    points = test[source]
    if n > len(test):
        images, labels = mnist_train() if dataset == "mnist" else cifar10_train()
        rng = np.random.default_rng(SEED)
        order = rng.permutation(len(labels))[: n - len(test)]
        of_class = [np.flatnonzero(classes == c) for c in range(10)]
        source = np.append(source, [rng.choice(of_class[c]) for c in labels[order]])
        points = np.concatenate([points, images[order] / 255.0])
    return points, radius[source], (predict == label)[source]


# --- growth -------------------------------------------------------------------------------------------------------


def growth(dataset: str, largest: int) -> Iterator[Row]:
    """One row for every size and rule: optimum, online, and overlapping balls, which nothing justifies."""
    sizes = sorted({min(size, largest) for size in SIZES[dataset]})
    points, radius, correct = problem(dataset, sizes[-1])
    best = radius.argmax(axis=1)
    rows = np.arange(len(best))
    R, right = radius[rows, best], correct[rows, best]
    began = time.perf_counter()
    online, online_right, kinds = arrivals(points, radius, correct)
    online_seconds = time.perf_counter() - began
    for n in sizes:
        began = time.perf_counter()
        optimum = regions.allocate(points[:n], R[:n], "matching")
        seconds = time.perf_counter() - began
        check(points[:n], optimum.radii)
        graph = {"points_with_edge": int(np.count_nonzero(optimum.graph.degree)), "gap": optimum.gap}
        own, inside = (int(np.count_nonzero(kinds[:n] == kind)) for kind in ("region", "inside"))
        yield describe(dataset, n, "optimum (Eq. 10)", optimum.radii, right[:n], seconds=seconds, **graph)
        online_row = {"seconds": online_seconds * n / sizes[-1], "own_region": own, "inside_another": inside}
        yield describe(dataset, n, "online (Algorithm 2)", online[:n], online_right[:n], **online_row)
        yield describe(dataset, n, OVERLAPPING, R[:n], right[:n])


def arrivals(points: np.ndarray, radius: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Radius, correctness and kind of every arrival; the first n do not depend on those that follow."""
    radii, right, kinds = np.zeros(len(points)), np.zeros(len(points), dtype=bool), np.full(len(points), "none   ")
    with (
        tempfile.TemporaryDirectory() as folder,
        regions.OnlineAllocator(f"{folder}/regions.db", points.shape[1], synchronous="normal") as online,
    ):
        for k, x in enumerate(points):

            def certify(sigma: float | None, k: int = k) -> tuple[float, float, int]:
                level = radius[k].argmax() if sigma is None else np.flatnonzero(sigma == LEVELS)[0]
                return float(LEVELS[level]), float(radius[k, level]), -1

            arrival = online.arrive(x, certify)
            radii[k], right[k] = arrival.radius, correct[k, np.flatnonzero(arrival.sigma == LEVELS)[0]]
            kinds[k] = "region" if arrival.created else "inside" if arrival.region >= 0 else "none"
        table = online.region_map()
    check(table.centres, table.radii)
    return radii, right, kinds


def check(points: np.ndarray, radii: np.ndarray) -> None:
    """Look at every pair of the first balls; the rest is left to the tests."""
    verdict = regions.verify(points[:VERIFIED], radii[:VERIFIED])
    if not verdict:
        raise SystemExit(verdict.status)


def describe(dataset: str, n: int, rule: str, radii: np.ndarray, right: np.ndarray, **more: object) -> Row:
    """Average certified radius (0 where the class is wrong), mean radius, and certified accuracy."""
    return {
        "benchmark": "growth",
        "dataset": dataset,
        "n": n,
        "rule": rule,
        "mean_radius": float(radii.mean()),
        "average_certified_radius": float((radii * right).mean()),
        "certified_accuracy": {f"{e:.2f}": float((right & (radii > e)).mean()) for e in EPSILON},
        **more,
    }


# --- latency ------------------------------------------------------------------------------------------------------


def latency(largest: int) -> Iterator[Row]:
    """Rows for every number of regions: an insertion of ours, and what a scan of all regions alone takes."""
    images = mnist_train()[0].reshape(-1, 28, 28)
    points = np.concatenate([images, np.roll(images, 1, axis=2)]).reshape(-1, 784)
    rng = np.random.default_rng(SEED)
    points = points[rng.permutation(len(points))]
    _, radius, _ = problem("mnist", 10_000)
    R = rng.choice(radius.max(axis=1), size=len(points))
    following = iter(range(len(points)))
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/regions.db"
        for n in (size for size in REGIONS if size <= largest):
            with regions.OnlineAllocator(path, 784, synchronous="normal") as online:
                while (missing := n - TIMED - len(online)) > 0:
                    for k in (next(following) for _ in range(missing)):
                        arrive(online, points[k], R[k])
            for synchronous in ("normal", "full"):
                began = time.perf_counter()
                with regions.OnlineAllocator(path, synchronous=synchronous) as online:
                    opened = time.perf_counter() - began
                    ks = [next(following) for _ in range(TIMED // 2)]
                    arrive(online, points[next(following)], R[0])  # loads and compiles what is left

                    def insert(k: int, online: regions.OnlineAllocator = online) -> None:
                        arrive(online, points[k], R[k])

                    wall, cpu = timed(insert, ks)
                yield timing(n, f"ours, synchronous={synchronous}", wall, cpu, seconds_to_open=opened)
            with regions.OnlineAllocator(path) as online:
                table = online.region_map()
            yield from scans(n, table, points, ks[:SCANS])
        wall, cpu = timed(lambda _: wait_for_disk(f"{folder}/other"), range(TIMED // 5))
        yield timing(0, "8 KiB written and synchronised", wall, cpu)


def arrive(online: regions.OnlineAllocator, pixels: np.ndarray, R: float) -> None:
    """One step of Algorithm 2 with a certificate at hand."""
    online.arrive(pixels / 255.0, lambda sigma: (0.5 if sigma is None else sigma, float(R), -1))


def scans(n: int, table: regions.RegionMap, points: np.ndarray, ks: list[int]) -> Iterator[Row]:
    """What finding the nearest boundary takes otherwise: nothing is stored, and only NumPy's answer is exact."""

    def numpy_scan(k: int) -> float:
        return float((np.linalg.norm(table.centres - points[k] / 255.0, axis=1) - table.radii).min())

    def rebuild(k: int) -> None:
        regions.RegionMap(table.centres, table.radii, table.sigma).locate(points[k : k + 1] / 255.0)

    index = faiss.IndexFlatL2(784)
    index.add(table.centres.astype(np.float32))
    reach = float(4 * table.radii.max() ** 2)
    contenders: dict[str, Callable[[int], object]] = {
        "NumPy, float64 scan": numpy_scan,
        "FAISS, flat float32 scan": lambda k: index.range_search((points[k : k + 1] / 255.0).astype(np.float32), reach),
        "RegionMap built anew": rebuild,
    }
    for name, scan in contenders.items():
        scan(ks[0])
        wall, cpu = timed(scan, ks if n < REGIONS[-1] else ks[:5])
        yield timing(n, name, wall, cpu)


def timed(action: Callable[[int], object], ks: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds on the clock and seconds of computing, of all threads, for each k."""
    wall, cpu = [], []
    for k in ks:
        clock, used = time.perf_counter(), time.process_time()
        action(k)
        cpu.append(time.process_time() - used)
        wall.append(time.perf_counter() - clock)
    return np.array(wall), np.array(cpu)


def timing(n: int, contender: str, wall: np.ndarray, cpu: np.ndarray, **more: object) -> Row:
    """Median, 99th percentile and largest, in milliseconds."""
    names = {"median": 50, "p99": 99, "max": 100}
    return {
        "benchmark": "latency",
        "regions": n,
        "contender": contender,
        "repeats": len(wall),
        "wall_ms": {name: float(np.percentile(wall, p) * 1e3) for name, p in names.items()},
        "cpu_ms": {name: float(np.percentile(cpu, p) * 1e3) for name, p in names.items()},
        **more,
    }


def wait_for_disk(path: str) -> None:
    """Append one page to a file and wait until it is on the disk."""
    with open(path, "ab") as file:
        file.write(bytes(8192))
        file.flush()
        os.fdatasync(file.fileno())


# --- report -------------------------------------------------------------------------------------------------------


def main() -> None:
    """Run the parts asked for and write rows, table and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", default=["growth", "latency"], choices=["growth", "latency"])
    parser.add_argument("--datasets", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--largest", type=int, default=100_000, help="most images and regions (default: 100,000)")
    given = parser.parse_args()
    file = RESULTS / "online.jsonl"
    stored = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    grown, timings = ([row for row in stored if row["benchmark"] == part] for part in ("growth", "latency"))
    if "growth" in given.parts:
        grown = [row for dataset in given.datasets for row in growth(dataset, given.largest)]
    if "latency" in given.parts:
        timings = list(latency(given.largest))
    write_rows("online", grown + timings)
    DOCS.mkdir(exist_ok=True)
    parts = []
    if grown:
        plot(grown, DOCS / "online.png")
        parts += [f"## As the number of images grows\n\n{when(grown)}\n", PICTURE, growth_table(grown), GROWTH_NOTE]
    if timings:
        parts += [f"## What an insertion costs\n\n{when(timings)}\n", latency_table(timings), LATENCY_NOTE]
    write_markdown("online", "Points that arrive one at a time", parts, DOCS)


def when(rows: list[Row]) -> str:
    """Say on which day this part ran."""
    return f"Measured on {rows[0].get('date', datetime.date.today().isoformat())}."


def growth_table(rows: list[Row]) -> str:
    """One line for every data set, size and rule."""
    header = ["images", "rule", "n", "mean radius", *(f"{e:.2f}" for e in EPSILON), "s"]
    lines = [
        [
            row["dataset"],
            row["rule"],
            f"{row['n']:,}",
            floored(row["mean_radius"], 4),
            *(percent(value, 2) for value in row["certified_accuracy"].values()),
            f"{row['seconds']:.0f}" if "seconds" in row else "",
        ]
        for row in rows
    ]
    return markdown_table(header, lines, words=2)


def latency_table(rows: list[Row]) -> str:
    """One line for every number of regions and contender."""
    header = ["contender", "regions", "median, ms", "p99, ms", "largest, ms", "computing: median, ms", "p99, ms"]
    lines = [
        [
            row["contender"],
            f"{row['regions']:,}" if row["regions"] else "",
            *(f"{row['wall_ms'][name]:.2f}" for name in ("median", "p99", "max")),
            *(f"{row['cpu_ms'][name]:.2f}" for name in ("median", "p99")),
        ]
        for row in rows
    ]
    return markdown_table(header, lines)


def plot(rows: list[Row], path: Path) -> None:
    """Left: the share of the radii that is kept, against the number of images. Right: accuracy at the largest one."""
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    styles = {  # Okabe and Ito's colours, and dashes for those who cannot tell them apart
        "optimum (Eq. 10)": {"color": "#D55E00", "ls": "-", "marker": "o"},
        "online (Algorithm 2)": {"color": "#0072B2", "ls": "--", "marker": "s"},
        OVERLAPPING: {"color": "#555555", "ls": ":", "marker": "^"},
    }
    figure = Figure(figsize=(10, 3.6 * len(datasets)), dpi=120, layout="constrained")
    grid = figure.subplots(len(datasets), 2, squeeze=False)
    for (left, right), dataset in zip(grid, datasets, strict=True):
        mine = [row for row in rows if row["dataset"] == dataset]
        largest = max(row["n"] for row in mine)
        whole = {row["n"]: row["mean_radius"] for row in mine if row["rule"] == OVERLAPPING}
        for rule, style in styles.items():
            of_rule = [row for row in mine if row["rule"] == rule]
            if rule != OVERLAPPING:
                kept = [100 * row["mean_radius"] / whole[row["n"]] for row in of_rule]
                left.plot([row["n"] for row in of_rule], kept, label=rule, **style)
            curve = next(row for row in of_rule if row["n"] == largest)["certified_accuracy"]
            right.plot([float(e) for e in curve], [100 * v for v in curve.values()], label=rule, **style)
        left.set(title=f"{dataset}: what is left of the radii", xlabel="images", ylabel="mean radius, % of mean R")
        right.set(title=f"{dataset}: {largest:,} images", xlabel="radius", ylabel="certified accuracy, %")
        right.legend(frameon=False)
        for axes in (left, right):
            axes.grid(alpha=0.3)
    figure.savefig(path)


PICTURE = "![Share of the radii that is kept, and certified accuracy at the largest number of images](online.png)\n"
GROWTH_NOTE = f"""Table 7 of the paper, on data that anybody can fetch. The first 10,000 images are the test images with
their published certificates (`{MODEL}`, sigma 0.25, 0.5 and 1.0, N = 100,000, alpha = 0.001). Further images are
training images in a seeded order; each takes the certificates of one test image of its class at all three sigmas,
drawn with replacement (seed {SEED}), so that within a class radii do not depend on the image. An image outside every
region takes the sigma of the largest radius; one inside a region takes that region's sigma and its own radius at it.
Numbers under 0.00 to 2.25: percentage of images that are correct with a larger radius. CIFAR-10 images are JPEG copies.
The first {VERIFIED:,} balls of each allocation passed `regions.verify`, which looks at every pair. "s": seconds, for
online those of all arrivals together, storage included (`synchronous="normal"`).
"""
LATENCY_NOTE = f"""One insertion is one call of `arrive` with the certificate at hand: find the region, size the ball,
store it. Ours: {TIMED // 2} of them at each size, MNIST images and copies moved by one pixel, radii drawn from the
published ones. `synchronous="full"` waits for the disk once an insertion, and the last line says how long this disk
takes for that alone. The other contenders only look: they store nothing, and FAISS's answer is not exact.
"""


if __name__ == "__main__":
    main()
