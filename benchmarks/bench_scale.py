"""How `regions.allocate` grows with the number of points: seconds per stage, memory, and the exponent of growth.

SRS_DATA=... python benchmarks/bench_scale.py [--largest 100000] [--largest-cifar 100000] [--largest-low 1000000]

Points: uniform in the square and the cube; MNIST test and training images, and beyond 70,000 small translations of them
with noise, so that real clusters exist; CIFAR-10 training images, and beyond 50,000 flips and crops of them. Images are
float32. Bounds: uniform in [0.3, 1] times a length at which each point overlaps a few others; for images, drawn with
replacement from the published radii (catrs, the largest of three sigmas).
Every allocation is by matching, with its certificate, search included; each size runs in a process of its own.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import time
from typing import Any

import numpy as np
from _common import (
    Row,
    certified_bounds,
    cifar10_files,
    data_folder,
    decoded,
    machine,
    markdown_table,
    mnist_test,
    peak_memory,
    write_markdown,
    write_rows,
)

import regions

SEED = 20261101
SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
LOW = {"square": 2, "cube": 3}
_BLOCK = 10_000  # copies made at once
_AGAIN = 300_000  # images or points up to which a changed problem is solved again


def mnist_points(n: int) -> np.ndarray:
    """The first n of: test images, training images, then copies moved by up to two pixels with noise of 0.05."""
    raw = (data_folder() / "MNIST" / "raw" / "train-images-idx3-ubyte").read_bytes()
    train = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 784) / np.float32(255)
    points = np.empty((n, 784), dtype=np.float32)
    points[:10_000] = mnist_test()[:n]
    points[10_000:70_000] = train[: max(0, n - 10_000)]
    rng = np.random.default_rng(SEED)
    for start in range(70_000, n, _BLOCK):
        source = train[rng.integers(len(train), size=min(_BLOCK, n - start))].reshape(-1, 28, 28)
        moved = np.roll(source, tuple(rng.integers(-2, 3, size=2)), axis=(1, 2)).reshape(-1, 784)
        points[start : start + _BLOCK] = np.clip(moved + 0.05 * rng.standard_normal(moved.shape, np.float32), 0, 1)
    return points


def cifar10_points(n: int) -> np.ndarray:
    """The first n of: training images in random order, then copies flipped or not and cropped after padding by four."""
    rng = np.random.default_rng(SEED)
    train = np.stack([decoded(jpeg) for _, jpeg in sorted(cifar10_files("train").items())])
    train = train[rng.permutation(len(train))]  # files are sorted by class
    points = np.empty((n, 3072), dtype=np.float32)
    points[:50_000] = train[:n] / np.float32(255)
    for start in range(50_000, n, _BLOCK):
        source = train[rng.integers(len(train), size=min(_BLOCK, n - start))].reshape(-1, 32, 32, 3)
        flip = rng.random(len(source)) < 0.5
        source[flip] = source[flip, :, ::-1]
        padded = np.pad(source, ((0, 0), (4, 4), (4, 4), (0, 0)))
        corner = rng.integers(9, size=(len(source), 2))
        for k, (top, left) in enumerate(corner):
            points[start + k] = padded[k, top : top + 32, left : left + 32].reshape(-1) / np.float32(255)
    return points


IMAGES = {"mnist": mnist_points, "cifar10": cifar10_points}


def instance(kind: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and bounds."""
    rng = np.random.default_rng(SEED)
    if kind in IMAGES:
        return IMAGES[kind](n), rng.choice(certified_bounds(kind, "catrs").R, size=n)
    d = LOW[kind]
    return rng.random((n, d)), rng.uniform(0.3, 1.0, size=n) * 0.9 * n ** (-1 / d)


def measure(connection: Any, kind: str, n: int) -> None:
    """Allocate once, after a small run that compiles, and send what was seen."""
    regions.allocate(*instance("cube", 1000), method="matching")
    points, R = instance(kind, n)
    before = peak_memory()
    began = time.perf_counter()
    allocation = regions.allocate(points, R, method="matching")
    seconds = time.perf_counter() - began
    graph = allocation.graph
    peak = peak_memory()
    changed = solve_again(points, R, allocation) if n <= _AGAIN else {}
    connection.send(
        {
            "seconds": seconds,
            "seconds_graph": allocation.stats["seconds_graph"],
            "seconds_allocate": allocation.stats["seconds_allocate"],
            **changed,
            "edges": graph.n_edges,
            "components": graph.n_components,
            "largest_degree": int(graph.degree.max()),
            "objective": allocation.objective,
            "gap": allocation.gap,
            "peak_memory_mb": peak,
            "data_memory_mb": before,
        }
    )


def solve_again(points: np.ndarray, R: np.ndarray, allocation: regions.Allocation) -> Row:
    """Seconds of the matching after every R changed by up to 1 %, without and with the radii before the change."""
    R = R * np.random.default_rng(SEED).uniform(0.99, 1.01, size=R.size)
    cold = regions.allocate(points, R, method="matching")
    warm = regions.allocate_graph(cold.graph, "matching", start=allocation.radii)
    if not math.isclose(cold.objective, warm.objective, rel_tol=1e-12):
        raise SystemExit(f"{R.size} points: the start changed the optimum")
    return {
        "seconds_solve_changed": cold.stats["seconds_solve"],
        "seconds_solve_changed_warm": warm.stats["seconds_solve"],
    }


def run(kind: str, n: int) -> Row:
    """One size, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure, args=(theirs, kind, n))
    process.start()
    theirs.close()
    answer: Row = ours.recv()
    process.join()
    print(kind, n, answer, flush=True)
    return {"benchmark": "scale", "instance": kind, "n": n, **answer}


def main() -> None:
    """Run all sizes, smallest first, and write the rows and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=100_000, help="MNIST images at most (default: 100000)")
    parser.add_argument("--largest-cifar", type=int, default=100_000, help="CIFAR-10 images at most (default: 100000)")
    parser.add_argument("--largest-low", type=int, default=1_000_000, help="points in 2 and 3 dimensions at most")
    given = parser.parse_args()
    data_folder()  # complain before any work
    rows = []
    images = (("mnist", given.largest), ("cifar10", given.largest_cifar))
    for kind, largest in (*((kind, given.largest_low) for kind in LOW), *images):
        sizes = [n for n in SIZES if n <= largest]
        rows += [run(kind, n) for n in sizes]
    write_rows("scale", rows)
    write_markdown("scale", "Growth with the number of points", [table(rows), NOTE])


NOTE = f"""Seconds of one run of `regions.allocate(points, R, method="matching")` in a process of its own, after a small
run that compiles. "Growth": the exponent between this size and the one before, log(seconds ratio) / log(size ratio),
of the whole, of the search and of the allocation. "Solve" and "warm": seconds of the matching alone after every R
changed by up to 1 %, without and with `start=` the radii before the change.
"Peak" is that of the whole process, data included; "data" the peak before the call. Seed {SEED}.
Measured on {machine()["cores"]} cores; sizes that are not listed were not run.
"""


CHANGED = ("seconds_solve_changed", "seconds_solve_changed_warm")


def table(rows: list[Row]) -> str:
    """One line for every instance and size."""
    header = [
        "points",
        "n",
        "seconds",
        "search",
        "allocation",
        "solve",
        "warm",
        "growth",
        "edges",
        "components",
        "gap",
        "peak, MB",
        "data, MB",
    ]
    lines, before = [], None
    for row in rows:
        growth = ""
        if before and before["instance"] == row["instance"]:
            step = math.log(row["n"] / before["n"])
            stages = ("seconds", "seconds_graph", "seconds_allocate")
            growth = " / ".join(f"{math.log(row[stage] / before[stage]) / step:.2f}" for stage in stages)
        lines.append(
            [
                row["instance"],
                f"{row['n']:,}",
                f"{row['seconds']:.2f}",
                f"{row['seconds_graph']:.2f}",
                f"{row['seconds_allocate']:.2f}",
                *(f"{row[key]:.3f}" if key in row else "" for key in CHANGED),
                growth,
                f"{row['edges']:,}",
                f"{row['components']:,}",
                f"{row['gap']:.0e}",
                f"{row['peak_memory_mb']:,.0f}",
                f"{row['data_memory_mb']:,.0f}",
            ]
        )
        before = row
    return markdown_table(header, lines)


if __name__ == "__main__":
    main()
