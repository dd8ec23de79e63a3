"""Fifty thousand images of 224 x 224 in bytes, read from a memory map: `regions.allocate` and `RegionMap.locate`.

python benchmarks/byte_maps.py [--sizes 5000 50000] [--folder FOLDER]

Images are synthetic: smooth fields of random contrast, with noise in each pixel. One in five is a near-duplicate of
another, 1 to 8 away from it in units of 1 = 255; two of the others are some 30 to 80 apart. Upper bounds are uniform in
[1, 5], so near-duplicates conflict. The file takes 7.5 GB in FOLDER (a temporary one by default), and is deleted.

Memory: "own" is the largest anonymous resident memory (RssAnon of /proc/self/status, sampled every 10 ms), which the
machine cannot take back. Pages of the file are counted apart: they are its cache, and any process may push them out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from _common import DOCS, Row, apart, markdown_table, write_markdown, write_rows

import regions

SEED = 20261126
SIDE, CHANNELS = 224, 3
DIMENSION = CHANNELS * SIDE * SIDE
BLOCK = 500  # images that are made at once, with their near-duplicates
LIMIT = 4 * 10**9  # bytes that a process may ask for
CHECKED = 1_000  # images of which every pair is compared afterwards
FAISS = (1_000,)  # numbers of images for FAISS
GRIDS = (4, 7, 14, 28)  # cells of the smooth fields, from coarse to fine; amplitudes fall with their number


# --- data ---------------------------------------------------------------------------------------------------------


def interpolation(cells: int, size: int) -> np.ndarray:
    """The matrix (size, cells) that interpolates linearly between values at cells."""
    at = np.linspace(0, cells - 1, size)
    return np.asarray(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells))), dtype=np.float32)


def image_blocks(n: int) -> Iterator[np.ndarray]:
    """Yield n images as uint8 arrays (b, d), b <= BLOCK. The first images are the same for every n."""
    noise = np.random.default_rng(SEED).standard_normal(1 << 24, dtype=np.float32)
    finest = GRIDS[-1]
    finer = [interpolation(cells, finest) for cells in GRIDS]
    last = interpolation(finest, SIDE)
    for start in range(0, n, BLOCK):
        rng = np.random.default_rng((SEED, start))
        block = np.empty((BLOCK, DIMENSION), dtype=np.uint8)
        own = BLOCK * 4 // 5
        for k in range(own):
            field = sum(
                up @ rng.standard_normal((CHANNELS, cells, cells), dtype=np.float32) @ up.T / cells**0.5
                for up, cells in zip(finer, GRIDS, strict=True)
            )
            smooth = (last @ field @ last.T).ravel()
            smooth *= rng.uniform(10, 26) / smooth.std()
            smooth += rng.normal(118, 12) + 2 * noisy(noise, rng)
            block[k] = np.clip(np.rint(smooth), 0, 255)
        for k in range(own, BLOCK):
            step = np.rint(noisy(noise, rng) * (255 * rng.uniform(1, 8) / DIMENSION**0.5))
            block[k] = np.clip(block[rng.integers(own)] + step, 0, 255)
        yield rng.permutation(block)[: n - start]


def noisy(noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Independent normal numbers for one image, cut out of a supply."""
    begin = rng.integers(noise.size - DIMENSION)
    return noise[begin : begin + DIMENSION]


def make(path: Path, n: int) -> None:
    """Write n images to an `.npy` file, block by block."""
    stored = np.lib.format.open_memmap(path, "w+", np.uint8, (n, DIMENSION))
    start = 0
    for block in image_blocks(n):
        stored[start : start + len(block)] = block
        start += len(block)
    stored.flush()


# --- measurement --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def watched(row: Row) -> Iterator[None]:
    """Note seconds, seconds of processors, and the largest anonymous and file-backed memory in MB (10^6 bytes)."""
    done = threading.Event()
    peak = {"RssAnon": 0.0, "RssFile": 0.0}

    def sample() -> None:
        while not done.wait(0.01):
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in peak:
                    peak[name] = max(peak[name], int(value.split()[0]) * 1024 / 1e6)

    watcher = threading.Thread(target=sample)
    watcher.start()
    began, used = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        row["seconds"], row["processor_seconds"] = time.perf_counter() - began, time.process_time() - used
        done.set()
        watcher.join()
        row["own_mb"], row["file_pages_mb"] = peak["RssAnon"], peak["RssFile"]


def bounds(n: int) -> np.ndarray:
    """Upper bounds of radii in units of 1 = 255."""
    return np.random.default_rng(SEED).uniform(1, 5, size=n)


def limited() -> None:
    """Let no more than 4 GB of memory be asked for, files apart: whoever asks for more fails."""
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))


def allocation(folder: Path, n: int) -> None:
    """Allocate, note what it took, and keep the radii."""
    limited()
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")[:n]
    regions.allocate(pixels[:300], 255 * bounds(300), "matching")  # compiles
    row: Row = {"benchmark": "allocate", "n": n, "d": DIMENSION}
    with watched(row):
        found = regions.allocate(pixels, 255 * bounds(n), "matching")
    row |= {"edges": found.graph.n_edges, "gap": found.gap, "objective": found.objective / 255}
    if not regions.verify(pixels[:CHECKED], found.radii[:CHECKED]):
        raise SystemExit("regions overlap")
    np.save(folder / f"radii-{n}.npy", np.minimum(np.nextafter(found.radii / 255, 0), bounds(n)))
    (folder / "row.json").write_text(json.dumps(row))


def lookups(folder: Path, n: int) -> None:
    """Locate points one by one and together, with the file in the machine's cache and without."""
    limited()
    stored = np.load(folder / "pixels.npy", mmap_mode="r")
    table = regions.RegionMap(stored[:n], np.load(folder / f"radii-{n}.npy"), np.full(n, 0.5), divisor=255)
    row: Row = {"benchmark": "locate", "n": n, "d": DIMENSION}
    rng = np.random.default_rng(SEED + 1)
    with watched(row):
        began, used = time.perf_counter(), time.process_time()
        table.locate(queries(table, rng, 1)[0])
        row["first_seconds"] = time.perf_counter() - began
        row["first_processor_seconds"] = time.process_time() - used
        for name, count, cold in (("warm", 1000, False), ("cold", 200, True)):
            row[name] = one_by_one(table, stored, rng, count, cold)
        points, expected = queries(table, rng, 200)
        began, used = time.perf_counter(), time.process_time()
        where = table.locate(points)
        row["batch_ms"] = (time.perf_counter() - began) * 1000 / len(points)
        row["batch_processor_ms"] = (time.process_time() - used) * 1000 / len(points)
        if not np.array_equal(where.region, expected):
            raise SystemExit("locate is wrong")
        if scanned(table, points[:1]) != expected[0]:
            raise SystemExit("locate and a scan differ")
    (folder / "row.json").write_text(json.dumps(row))


def queries(table: regions.RegionMap, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, d) float32, and the region that holds each, -1 for none.

    In turn: an image of the map, one moved by nine tenths of its radius, one moved by 20 in a random direction, and the
    mean of two images.
    """
    points = np.empty((count, DIMENSION), dtype=np.float32)
    expected = np.full(count, -1)
    for k in range(count):
        i, j = rng.choice(np.flatnonzero(table.radii), 2, replace=False)
        points[k] = table.centres[i] / np.float32(255)
        kind = k % 4
        if kind == 3:
            points[k] = (points[k] + table.centres[j] / np.float32(255)) / 2
        elif kind:
            step = rng.standard_normal(DIMENSION, dtype=np.float32)
            points[k] += step * (np.float32(0.9 * table.radii[i] if kind == 1 else 20) / np.linalg.norm(step))
        if kind < 2:
            expected[k] = i
    return points, expected


def one_by_one(table: regions.RegionMap, stored: np.memmap, rng: np.random.Generator, count: int, cold: bool) -> Row:
    """Milliseconds of single lookups; `cold`: before each, the machine forgets what it has read of the file."""
    wall, used = [], []
    for _ in range(0, count, 4):
        points, expected = queries(table, rng, 4)
        for point, region in zip(points, expected, strict=True):
            if cold:
                forget(stored)
            began, began_used = time.perf_counter(), time.process_time()
            where = table.locate(point[None])
            wall.append((time.perf_counter() - began) * 1000)
            used.append((time.process_time() - began_used) * 1000)
            if where.region[0] != region:
                raise SystemExit("locate is wrong")
    return {
        "lookups": len(wall),
        "ms": dict(zip(("p50", "p99", "max"), np.percentile(wall, [50, 99, 100]).tolist(), strict=True)),
        "processor_ms": dict(zip(("p50", "p99", "max"), np.percentile(used, [50, 99, 100]).tolist(), strict=True)),
    }


def forget(stored: np.memmap) -> None:
    """Take the file's pages out of this process and out of the machine's cache."""
    pages: Any = stored.base
    pages.madvise(mmap.MADV_DONTNEED)
    with open(str(stored.filename), "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def scanned(table: regions.RegionMap, point: np.ndarray) -> int:
    """The region that holds the point, by its distance to every centre in float64."""
    query = point[0].astype(np.float64) * 255
    for start in range(0, len(table), 16):
        difference = table.centres[start : start + 16] - query
        near = np.sqrt(np.einsum("nd,nd->n", difference, difference)) < 255 * table.radii[start : start + 16]
        if near.any():
            return start + int(np.argmax(near))
    return -1


def by_faiss(folder: Path, n: int) -> None:
    """List the pairs nearer than the largest sum of two bounds by FAISS's range search, whose index is float32."""
    pixels = np.load(folder / "pixels.npy", mmap_mode="r")[:n]
    row: Row = {"benchmark": "faiss", "n": n, "d": DIMENSION}
    with watched(row):
        index = faiss.IndexFlatL2(DIMENSION)
        for start in range(0, n, 100):
            index.add(pixels[start : start + 100].astype(np.float32))
        pairs = 0
        for start in range(0, n, 100):
            limits, _, _ = index.range_search(pixels[start : start + 100].astype(np.float32), float((10 * 255) ** 2))
            pairs += int(limits[-1])
    row["pairs"] = (pairs - n) // 2
    (folder / "row.json").write_text(json.dumps(row))


LOCATED = (
    *("images", "file", "index, processor s", "p50, ms", "p99, ms", "max, ms", "p50, processor ms"),
    *("p99, processor ms", "of a batch, processor ms", "own MB"),
)


# --- report -------------------------------------------------------------------------------------------------------


def report(rows: list[Row]) -> None:
    """Write the page."""
    found = {name: [row for row in rows if row["benchmark"] == name] for name in ("allocate", "locate", "faiss")}
    allocated = [
        [
            f"{row['n']:,}",
            f"{row['n'] * row['d'] / 1e9:.2f}",
            *(f"{row[name]:,.0f}" for name in ("seconds", "processor_seconds", "own_mb", "edges")),
            f"{row['gap']:.0e}",
        ]
        for row in found["allocate"]
    ]
    located = [
        [
            f"{row['n']:,}",
            name,
            f"{row['first_processor_seconds']:.0f}",
            *(f"{row[name]['ms'][at]:.1f}" for at in ("p50", "p99", "max")),
            *(f"{row[name]['processor_ms'][at]:.1f}" for at in ("p50", "p99")),
            f"{row['batch_processor_ms']:.1f}",
            f"{row['own_mb']:,.0f}",
        ]
        for row in found["locate"]
        for name in ("warm", "cold")
    ]
    compared = [
        [f"{row['n']:,}", f"{row['seconds']:.0f}", f"{row['processor_seconds']:.0f}", f"{row['own_mb']:,.0f}"]
        for row in found["faiss"]
    ]
    parts = [
        "Images of 3 x 224 x 224 bytes in a memory map: synthetic, smooth fields with noise, one in five a "
        "near-duplicate of another. Bounds are uniform in [1, 5], in units of 1 = 255; two images that are no "
        'near-duplicates are some 30 to 80 apart. "Own": largest anonymous resident memory; pages of the file, which '
        "the machine may take back, are not counted. Each part ran in a process of its own that may not ask for more "
        f"than {LIMIT / 1e9:.0f} GB (RLIMIT_DATA). Processor seconds count what the process itself computed, however "
        f"busy the machine is. Seed {SEED}.\n",
        "## Allocation\n",
        markdown_table(["images", "GB", "seconds", "processor s", "own MB", "edges", "gap"], allocated, 0),
        '\n`regions.allocate(pixels, 255 * R, "matching")`, search included. `regions.verify` compared all pairs of '
        f"the first {CHECKED:,} images afterwards.\n",
        "## Lookups\n",
        markdown_table(LOCATED, located, 0),
        "\n`RegionMap.locate` of one float32 image at a time: one of the map, one inside its region, one outside, or "
        'the mean of two, in turn; every answer was as it must be. "Warm": the machine has the file in its cache. '
        '"Cold": it was made to forget the file before each lookup. "Index": the first lookup, which maps all centres. '
        '"Of a batch": a lookup among 200 at once.\n',
        "## FAISS\n",
        markdown_table(["images", "seconds", "processor s", "own MB"], compared, 0),
        "\n`IndexFlatL2.range_search` in blocks of 100 images. Its index holds float32: 30.1 GB for 50,000 images.\n",
    ]
    write_markdown("byte_maps", "Maps in bytes", parts, DOCS)


def main() -> None:
    """Make the images, measure, and write rows and page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 50_000])
    parser.add_argument("--folder", type=Path, help="where the file of images goes; default: the temporary folder")
    settings = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=settings.folder) as name:
        folder = Path(name)
        make(folder / "pixels.npy", max(settings.sizes))
        parts = [(part, n) for n in settings.sizes for part in (allocation, lookups)]
        for part, n in [*parts, *((by_faiss, n) for n in FAISS)]:
            apart(part, folder, n)
            rows.append(json.loads((folder / "row.json").read_text()))
    write_rows("byte_maps", rows)
    report(rows)


if __name__ == "__main__":
    main()
