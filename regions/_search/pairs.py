"""Search for candidate pairs: pairs of balls that may overlap.

What is computed. Blocks of pairs. Three backends find them. "tree" searches k-d trees in float64. "blocks" and "faiss"
compute inner products in float32, by NumPy or by FAISS: points are mapped, projected in high dimension, and lifted, so
that one inner product and one comparison tell whether two balls with radii of their own may overlap
(docs/mathematics.md, Eq. M11, M12 and M16). "auto" takes trees in up to ten dimensions. In more dimensions it takes
"blocks", or, for a long search, whichever of "blocks" and "faiss" is quicker on the first tiles.

Guarantee. The candidates include every pair that overlaps. The caller measures them exactly and drops the others.

Cost. At most about n^2 / 2 inner products of the mapped coordinates; trees take much less in few dimensions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64, Real

from regions._search.embedding import Frame
from regions._search.products import TILE, backend_for, overlapping
from regions._search.projection import DIRECTIONS, SAMPLE, choose_basis, principal_directions
from regions._search.trees import TREE_DIMENSION, Layer, Pairs, in_units, layers, tree_pairs

_CELLS_FROM = 20_000  # from this many points on, nearest neighbours are searched in some of 4 sqrt(n) cells only ...
_CELLS = 8  # ... namely in this many
_QUERIES = 1 << 14  # points whose neighbours are searched at once
_TOGETHER = 1 << 20  # small blocks are joined until they hold this many pairs
_FEWEST = 256  # a block has at least this many points, however many coordinates they have
_HELD = 1 << 28  # bytes of mapped coordinates that are kept; if they need more, each block is mapped when it is used

Progress = Callable[[str, int, int], None]
"""Called as progress(stage, done, total) from time to time."""


def near_pairs(
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    progress: Progress | None = None,
    centres: Int64[np.ndarray, " e"] | None = None,
    search: str = "auto",
) -> Iterator[Pairs]:
    """Yield blocks of pairs (i, j), each at most once, that include EVERY pair of overlapping balls.

    Two balls overlap if R_i, R_j > 0 and |x_i - x_j| < R_i + R_j. `centres` lists points with R = 0 that are wanted as
    well: each of them is paired with every ball that may contain it, and perhaps with other points of `centres`.

    Memory is bounded by the size of a block, whatever the number of candidates. Small blocks are joined: while the
    threads of the search wait for the next block to be asked for, they slow down those that measure the candidates.
    """
    waiting: list[Pairs] = []
    held = 0
    extra = np.empty(0, dtype=np.int64) if centres is None else centres
    if by_trees(search, points.shape[1]):
        found = _tree_pairs(points, R, extra, progress)
    else:
        members = searched(R, extra)
        found = product_pairs(points, R, frame_for(points, R, members), members, None, progress, search)
    for pairs in found:
        waiting.append(pairs)
        held += pairs[0].size
        if held >= _TOGETHER:
            yield np.concatenate([i for i, _ in waiting]), np.concatenate([j for _, j in waiting])
            waiting.clear()
            held = 0
    if waiting:
        yield np.concatenate([i for i, _ in waiting]), np.concatenate([j for _, j in waiting])


def near_neighbours(points: Real[np.ndarray, "n d"], R: Float64[np.ndarray, " n"], k: int) -> Iterator[Pairs]:
    """Yield blocks of pairs (i, j) where j is, as a rule, one of the k nearest points to i; j = i occurs as well.

    Only points with R > 0 take part. This is a heuristic: it may miss near points because it searches a projection, in
    float32 and in some cells only. Copies of one point are paired with each other, and only one of them is searched,
    because an index cannot divide equal points into cells.
    """
    positive = np.flatnonzero(R > 0)
    one, member = distinct(points, positive)
    if one.size == positive.size:
        yield from _near_neighbours(points, R, positive, k)
        return
    order = np.argsort(member, kind="stable")
    for step in range(1, k + 1):
        a, b = order[:-step], order[step:]
        same = member[a] == member[b]
        yield positive[a[same]], positive[b[same]]
    found = [j for _, j in _near_neighbours(points, R, one, k)]
    near = np.concatenate(found).reshape(one.size, -1)
    for start in range(0, positive.size, _QUERIES):
        rows = positive[start : start + _QUERIES]
        yield np.repeat(rows, near.shape[1]), near[member[start : start + _QUERIES]].ravel()


def distinct(
    points: Real[np.ndarray, "n d"], which: Int64[np.ndarray, " k"], *more: Real[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " u"], Int64[np.ndarray, " k"]]:
    """Find which of these points are copies of each other: equal in all coordinates and in all arrays of `more`.

    Returns the index of one point of each kind, and for every point of `which` the number of its kind.
    """
    place: dict[bytes, int] = {}
    member = np.empty(which.size, dtype=np.int64)
    for k, i in enumerate(which.tolist()):
        key = hashlib.blake2b((points[i] + points.dtype.type(0)).tobytes(), digest_size=16)  # -0.0 becomes 0.0
        for values in more:
            key.update(values[i].tobytes())
        member[k] = place.setdefault(key.digest(), len(place))
    one = np.empty(len(place), dtype=np.int64)
    one[member[::-1]] = which[::-1]
    return one, member


def _near_neighbours(
    points: Real[np.ndarray, "n d"], R: Float64[np.ndarray, " n"], positive: Int64[np.ndarray, " p"], k: int
) -> Iterator[Pairs]:
    k = min(k + 1, positive.size)
    if points.shape[1] <= TREE_DIMENSION:
        from scipy.spatial import KDTree

        points, R = in_units(points, R)
        tree = KDTree(points[positive])
        for start in range(0, positive.size, _QUERIES):
            rows = positive[start : start + _QUERIES]
            found = tree.query(points[rows], k, workers=-1)[1].reshape(rows.size, k)
            yield np.repeat(rows, k), positive[found.ravel()]
        return
    frame = frame_for(points, R, positive)
    queries = [positive[start : start + _QUERIES] for start in range(0, positive.size, _QUERIES)]
    nearest = [np.full((rows.size, k), np.inf, dtype=np.float32) for rows in queries]
    neighbour = [np.repeat(rows[:, None], k, axis=1) for rows in queries]
    for block in _blocks(positive, frame.width, lambda members: frame.map(points, members)[0]):
        index = _index(block.rows)
        for q, rows in enumerate(queries):
            squared, found = index.search(frame.map(points, rows)[0], min(k, block.members.size))
            both = np.concatenate([nearest[q], squared], axis=1)
            best = np.argsort(both, axis=1, kind="stable")[:, :k]
            nearest[q] = np.take_along_axis(both, best, axis=1)
            # FAISS reports -1 where it found too few; that picks the last member, and any pair is permitted here
            both = np.concatenate([neighbour[q], block.members[found]], axis=1)
            neighbour[q] = np.take_along_axis(both, best, axis=1)
    for rows, found in zip(queries, neighbour, strict=True):
        yield np.repeat(rows, k), found.ravel()


def _index(rows: Float32[np.ndarray, "m v"]) -> Any:
    """A FAISS index for nearest neighbours. It compares all rows, or, if these are many, those in the nearest cells."""
    import faiss  # loaded only where something is searched

    count, width = rows.shape
    index: Any = faiss.IndexFlatL2(width)
    if count >= _CELLS_FROM:
        index = faiss.IndexIVFFlat(index, width, int(4 * math.sqrt(count)))
        index.nprobe = _CELLS
        index.cp.niter, index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 8, 1, 64
        index.train(rows)
    index.add(rows)
    return index


def _tree_pairs(
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    centres: Int64[np.ndarray, " e"],
    progress: Progress | None,
) -> Iterator[Pairs]:
    points, R = in_units(points, R)
    found = [Layer.of(points, R, members) for members in layers(R, centres)]
    total = len(found) * (len(found) + 1) // 2
    for done, (outer, inner) in enumerate(combinations_with_replacement(found, 2), start=1):
        yield from tree_pairs(points, outer, inner)
        if progress is not None:
            progress("search", done, total)


def by_trees(search: str, d: int) -> bool:
    """Whether this search uses k-d trees in d dimensions."""
    return search == "tree" or (search == "auto" and d <= TREE_DIMENSION)


def searched(R: Float64[np.ndarray, " n"], centres: Int64[np.ndarray, " e"]) -> Int64[np.ndarray, " m"]:
    """The points that take part in a search: those with R > 0, then those of `centres`."""
    return np.append(np.flatnonzero(R > 0), centres)


def frame_for(points: Real[np.ndarray, "n d"], R: Float64[np.ndarray, " n"], rows: Int64[np.ndarray, " p"]) -> Frame:
    """The frame for a search among some of the points.

    It has a projection if one is likely to make the search faster. The choice is deterministic.
    """
    frame = Frame.around(points, rows)
    return replace(frame, basis=_basis(frame, points, R, rows))


def frame_for_lookups(
    points: Real[np.ndarray, "n d"], R: Float64[np.ndarray, " n"], rows: Int64[np.ndarray, " p"]
) -> Frame:
    """The frame for looking points up among balls, whose mapped rows are all kept.

    It has a projection if they would otherwise take much memory, and one would make them smaller.
    """
    frame = Frame.around(points, rows, float(R.max(initial=0.0)))
    if 4 * frame.width * rows.size <= _HELD or frame.width <= 2 * DIRECTIONS[0]:
        return frame
    return replace(frame, basis=_basis(frame, points, R, rows, fewest=DIRECTIONS[0]))


def _basis(
    frame: Frame,
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    rows: Int64[np.ndarray, " p"],
    fewest: int = 0,
) -> Float64[np.ndarray, "d m"] | None:
    """The basis that is best for a sample of the points. Where none is best: None, or with `fewest` one so narrow."""
    sample = np.sort(np.random.default_rng(0).choice(rows, size=min(SAMPLE, rows.size), replace=False))
    z = points[sample].astype(np.float64)
    z -= frame.centre
    z *= frame.scale
    best = choose_basis(z, np.minimum(R[sample] * frame.scale, _widest(frame)), rows.size)
    return principal_directions(z, fewest) if best is None and fewest else best


def product_pairs(
    points: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    frame: Frame,
    rows: Int64[np.ndarray, " p"],
    columns: Int64[np.ndarray, " q"] | None = None,
    progress: Progress | None = None,
    search: str = "auto",
) -> Iterator[Pairs]:
    """Yield the pairs of a point of `rows` and a point of `columns` that may overlap.

    Without `columns`, each pair of two points of `rows` comes once. Points with R = 0 must come last in `rows`.
    """

    def lifted(members: Int64[np.ndarray, " m"]) -> Float32[np.ndarray, "m v"]:
        mapped, norms = frame.map(points, members)
        return frame.lift(mapped, frame.reach(R[members], norms, _widest(frame)), norms)

    outer = _blocks(rows, frame.width, lifted)
    inner = outer if columns is None else _blocks(columns, frame.width, lifted)
    total = sum(a.members.size * (len(inner) - k * (columns is None)) for k, a in enumerate(outer))
    backend = backend_for(search, rows.size**2 // 2 if columns is None else rows.size * columns.size)
    done = 0
    for k, a in enumerate(outer):
        for b in inner[k if columns is None else 0 :]:
            queries, targets = a.rows, b.rows
            for start in range(0, len(queries), TILE):
                tile = queries[start : start + TILE]
                i = a.members[start : start + TILE]
                if R[i[0]] > 0:  # otherwise this tile and all after it hold no ball, because R = 0 comes last
                    for row, column in overlapping(tile, targets, start if a is b else None, backend):
                        yield i[row], b.members[column]
                done += len(tile)
                if progress is not None:
                    progress("search", done, total)


def _widest(frame: Frame) -> float:
    """A scaled radius so large that its ball reaches every point the frame was made for."""
    return 2 * math.sqrt(frame.centre.size) + 1


@dataclass(frozen=True)
class _Block:
    """Some points and their mapped rows, which are kept or else computed each time they are used."""

    members: Int64[np.ndarray, " m"]
    _source: Float32[np.ndarray, "m v"] | Callable[[], Float32[np.ndarray, "m v"]]

    @property
    def rows(self) -> Float32[np.ndarray, "m v"]:
        """A row for each member."""
        return self._source() if callable(self._source) else self._source


def _blocks(
    members: Int64[np.ndarray, " m"],
    width: int,
    mapped: Callable[[Int64[np.ndarray, " p"]], Float32[np.ndarray, "p v"]],
) -> list[_Block]:
    """One block of all members if their mapped rows take little enough memory to be kept.

    Otherwise several blocks, whose rows are computed when they are used and take an eighth of that memory each.
    """
    if 4 * width * members.size <= _HELD:
        return [_Block(members, mapped(members))] if members.size else []
    size = max(_FEWEST, _HELD // (32 * width))
    parts = [members[start : start + size] for start in range(0, members.size, size)]
    return [_Block(part, partial(mapped, part)) for part in parts]
