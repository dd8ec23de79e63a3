"""Overlap graphs of real images: the searches of `regions.overlap_graph`, and one FAISS search with a global radius.

SRS_DATA=... python benchmarks/bench_graph.py [--repeat 7]

k-d trees look at nearly every pair of images, so they have one timed round after the warm-up; the others take turns.

The competitor is what one writes first: one `IndexFlatL2.range_search` whose radius is twice the largest R, over the
same centred float32 points, then float64 distances of what it found, in blocks. A sharper one drops, before that, the
pairs whose float32 distance already rules them out. All contenders must list the same edges.
"""

from __future__ import annotations

import argparse
import hashlib
from typing import Any

import numpy as np
from _common import (
    Describe,
    Row,
    Run,
    contest,
    data_folder,
    load,
    markdown_table,
    ratio,
    spread,
    write_markdown,
    write_rows,
)

INSTANCES = (("mnist", "catrs"), ("cifar10", "catrs"))
INFLATION = 1e-3  # of the squared threshold: float32 sums over centred images err by less
BLOCK = 1 << 10  # pairs measured at once: larger ones leave the cache, smaller ones cost calls

OURS = "regions.overlap_graph"
PRODUCTS, TREES = ("blocks", "faiss"), "tree"
NAIVE = "global range_search + exact filter"
SHARP = "global range_search + float32 filter + exact filter"


def named(search: str) -> str:
    """The name of a contender that takes this search."""
    return f'{OURS}, search="{search}"'


def prepare_ours(dataset: str, model: str, search: str = "auto") -> tuple[Run, Describe]:
    """Load the data for the search of this project."""
    import regions

    points, bounds = load(dataset, model)

    def run() -> tuple[np.ndarray, np.ndarray]:
        graph = regions.overlap_graph(points, bounds.R, search=search)
        return graph.i, graph.j

    return run, describe_edges


def prepare_named(dataset: str, model: str, sharp: bool) -> tuple[Run, Describe]:
    """Load the data for `prepare_global`."""
    points, bounds = load(dataset, model)
    return prepare_global(points, bounds.R, sharp)


def prepare_global(points: np.ndarray, R: np.ndarray, sharp: bool) -> tuple[Run, Describe]:
    """One search with the largest radius, then float64 distances."""
    import faiss

    def run() -> tuple[np.ndarray, np.ndarray]:
        centred = np.ascontiguousarray(points - points.mean(axis=0), dtype=np.float32)
        index = faiss.IndexFlatL2(points.shape[1])
        index.add(centred)
        margin = INFLATION * float((centred**2).sum(axis=1).max())
        limits, squared, j = index.range_search(centred, float((2 * R.max()) ** 2 + margin))
        starts: np.ndarray = limits.astype(np.int64)
        i = np.repeat(np.arange(len(points)), np.diff(starts))
        keep = i < j
        if sharp:
            keep &= squared < (R[i] + R[j]) ** 2 + margin
        i, j = i[keep], j[keep]
        closer = np.empty(i.size, dtype=bool)
        for start in range(0, i.size, BLOCK):
            part = slice(start, start + BLOCK)
            difference = points[i[part]] - points[j[part]]
            distance = np.sqrt(np.einsum("kd,kd->k", difference, difference))
            closer[part] = distance < R[i[part]] + R[j[part]]
        i, j = i[closer], j[closer]
        order = np.lexsort((j, i))
        return i[order], j[order]

    return run, describe_edges


def describe_edges(edges: tuple[np.ndarray, np.ndarray]) -> Row:
    """Their number, and a digest that says whether two lists are the same."""
    digest = hashlib.sha256(np.column_stack(edges).astype("<i8").tobytes()).hexdigest()
    return {"edges": int(edges[0].size), "digest": digest}


def main() -> None:
    """Run both instances and write the rows and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=7, help="timed rounds (default: 7)")
    repeat = parser.parse_args().repeat
    data_folder()  # complain before any work
    rows: list[Row] = []
    for dataset, model in INSTANCES:
        contenders: dict[str, Any] = {
            OURS: (prepare_ours, (dataset, model)),
            **{named(search): (prepare_ours, (dataset, model, search)) for search in PRODUCTS},
            NAIVE: (prepare_named, (dataset, model, False)),
            SHARP: (prepare_named, (dataset, model, True)),
        }
        measured = contest(contenders, repeat)
        measured |= contest({named(TREES): (prepare_ours, (dataset, model, TREES))}, 1)
        answers = [row["answer"] for row in measured.values()]
        if any(answer != answers[0] for answer in answers):
            raise SystemExit(f"{dataset} {model}: the contenders list different edges: {answers}")
        rows += [
            {
                "benchmark": "overlap_graph",
                "instance": f"{dataset} {model}",
                "contender": name,
                **row,
                "spread": spread(row["seconds"]),
                "times_ours": ratio(row, {"seconds": measured[OURS]["seconds"][: len(row["seconds"])]}),
            }
            for name, row in measured.items()
        ]
    write_rows("graph", rows)
    write_markdown("graph", "Overlap graphs", [table(rows), NOTE])


NOTE = """Contenders take turns, each in a process of its own; all list the same edges (compared by digest).
The k-d trees of `search="tree"` are for few dimensions: here they come last, with one timed round.
Seconds: median (smallest to largest) of the timed rounds, after one round of warm-up; the first call of
`regions.overlap_graph` includes numba's compilation, which a user waits for once and which is then kept on disk.
"Ratio": median over the median of `regions.overlap_graph`, and the extremes of the ratios of single rounds.
Peak memory is that of the whole process, libraries and data included.
"""


def table(rows: list[Row]) -> str:
    """One line for every instance and contender."""
    header = ["instance", "contender", "edges", "seconds", "ratio", "first call, s", "peak memory, MB"]
    lines = [
        [
            row["instance"],
            row["contender"],
            f"{row['answer']['edges']:,}",
            f"{row['spread']['median']:.2f} ({row['spread']['min']:.2f} to {row['spread']['max']:.2f})",
            "{of_medians:.2f} ({min:.2f} to {max:.2f})".format(**row["times_ours"]),
            f"{row['first_call_seconds']:.2f}",
            f"{row['peak_memory_mb']:,.0f}",
        ]
        for row in rows
    ]
    return markdown_table(header, lines, words=2)


if __name__ == "__main__":
    main()
