"""Sharing the search for pairs among workers.

What is computed. The points are split into pieces. A shard is one piece searched against another, or against itself.
Every worker maps the points of its shard itself, so that only points and indices are sent (for a memory map, only the
name of its file).

Guarantee. Every pair belongs to exactly one shard. The number of shards may change which pairs are proposed in vain,
but not which pairs overlap: that is decided afterwards in float64 and in exact arithmetic, pair by pair.
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

_FEWEST = 1 << 11  # a piece has about this many points or more
_EACH = 8  # shards for each worker: many, because some take longer than others

Piece = Int64[np.ndarray, " _"]


def shards(
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    centres: Int64[np.ndarray, " e"],
    workers: int,
    search: str = "auto",
) -> tuple[Frame | None, list[tuple[Piece, Piece | None]]]:
    """Split a search into shards.

    Returns the frame to map points by, or None for a search by k-d trees; and the shards, each a piece and the piece it
    is searched against, or None where that is itself.
    """
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
    """Yield blocks of the candidate pairs of one shard, as `near_pairs` does for the whole search."""
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
    """Let workers apply a function to every shard, and yield what it returns, in the order of the shards.

    edges_of : the function f and further arguments; it is called as
        f(points, R, frame, rows, columns, search, *arguments)
    """
    function, arguments = edges_of
    frame, parts = shards(points, R, centres, _workers.count(parallel), search)
    calls = ((function, (points, R, frame, *part, search, *arguments)) for part in parts)
    for done, found in enumerate(_workers.results(parallel, calls), start=1):
        yield found
        if progress is not None:
            progress("search", done, len(parts))
