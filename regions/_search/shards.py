"""The pair search of `_search` cut into shards that workers can take: one piece of the points against another.

Every worker maps what its shard needs, so that only points and indices travel (a memory map by its name). Which pairs a
shard proposes may depend on how the search is cut; which of them are edges, and at what distance, does not: float64 and
exact arithmetic decide, pair by pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Real

from regions import _workers
from regions._search.embedding import Frame
from regions._search.pairs import Progress, by_trees, frame_for, product_pairs, searched
from regions._search.trees import Layer, Pairs, in_units, layers, tree_pairs

_FEWEST = 1 << 11  # points that are worth a piece of their own
_EACH = 8  # shards for each worker, since some take longer than others

Piece = Int64[np.ndarray, " _"]


def shards(
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    centres: Int64[np.ndarray, " e"],
    workers: int,
    search: str = "auto",
) -> tuple[Frame | None, list[tuple[Piece, Piece | None]]]:
    """How to search (None: by k-d trees), and what with what (None: with itself)."""
    members = searched(R, centres)
    tree = by_trees(search, points.shape[1])
    size = max(_FEWEST, math.ceil(members.size / math.sqrt(2 * _EACH * workers)))
    whole = layers(R, centres) if tree else [members] if members.size else []
    pieces = [piece for part in whole for piece in np.array_split(part, math.ceil(part.size / size))]
    pairs = [
        (pieces[a], None if a == b else pieces[b])
        for a, b in combinations_with_replacement(range(len(pieces)), 2)
        if R[pieces[a]].max() > 0
    ]
    return None if tree else frame_for(points, R, members), pairs


def shard_pairs(
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    frame: Frame | None,
    rows: Piece,
    columns: Piece | None,
    search: str = "auto",
) -> Iterator[Pairs]:
    """Blocks of pairs of one shard, as `near_pairs` would yield them; each pair is in one shard, once."""
    if frame is not None:
        return product_pairs(points, R, frame, rows, columns, None, search)
    points, R = in_units(points, R)
    outer = Layer.of(points, R, rows)
    return tree_pairs(points, outer, outer if columns is None else Layer.of(points, R, columns))


def shared_out(
    edges_of: _workers.Call,
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    centres: Int64[np.ndarray, " e"],
    parallel: _workers.Workers,
    progress: Progress | None,
    search: str = "auto",
) -> Iterator[Any]:
    """What a function makes of every shard: it is called as f(points, R, frame, rows, columns, search, *arguments)."""
    function, arguments = edges_of
    frame, parts = shards(points, R, centres, _workers.count(parallel), search)
    calls = ((function, (points, R, frame, *part, search, *arguments)) for part in parts)
    for done, found in enumerate(_workers.results(parallel, calls), start=1):
        yield found
        if progress is not None:
            progress("search", done, len(parts))
