"""Testing lifted balls against each other: one float32 inner product and one comparison for each pair.

What is computed. The pairs (query, target) that may overlap, in order. NumPy or FAISS computes the products.

Guarantee. Neither misses a pair that overlaps: lifting has made the test pass in spite of float32's errors
(docs/mathematics.md, Eq. M12, M16 and M17). Both backends process the same tiles and list pairs in the same order.

Cost. One product of mapped coordinates for each pair.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float32, Int64

from regions._search.embedding import asked
from regions._search.trees import Pairs

TILE = 1024  # balls on each side of one matrix product
_SAMPLED_FROM = 1 << 29  # in a search of this many pairs, trying both backends costs little in comparison
_TRIALS = 3  # number of tiles on which each backend is timed

Lifted = Float32[np.ndarray, "_ v"]
Finder = Callable[[Lifted], Pairs]
"""A function that takes targets, and returns the pairs (query, target) that may overlap, in order."""
Backend = Callable[[Lifted], Finder]
"""A function that takes queries, and returns the finder for them."""


def by_blocks(queries: Lifted) -> Finder:
    """Find pairs by NumPy's matrix products. Every query has its own threshold (Eq. M12)."""
    rows, least = asked(queries)

    def find(targets: Lifted) -> Pairs:
        return np.divmod(np.flatnonzero(rows @ targets.T > least[:, None]), len(targets))

    return find


def by_faiss(queries: Lifted) -> Finder:
    """Find pairs by FAISS's range search of a flat index for inner products, which computes every product.

    FAISS takes one threshold for all queries. So a query's own threshold becomes one more coordinate, which is
    multiplied by 1 (Eq. M16), and the common threshold is 0.
    """
    import faiss  # loaded only where something is searched

    rows, least = asked(queries)
    index = faiss.IndexFlatIP(rows.shape[1] + 1)
    index.add(np.column_stack([rows, -least]))

    def find(targets: Lifted) -> Pairs:
        ends, _, row = index.range_search(np.column_stack([targets, np.ones(len(targets), dtype=np.float32)]), 0.0)
        count: Int64[np.ndarray, " p"] = np.diff(ends.astype(np.int64))
        column = np.repeat(np.arange(len(targets)), count)
        return np.divmod(np.sort(row * len(targets) + column), len(targets))

    return find


def quicker() -> Backend:
    """The faster of the two backends: they process the first tiles in turn, and the faster one processes the rest."""
    seconds: dict[Backend, list[float]] = {by_blocks: [], by_faiss: []}

    def of(queries: Lifted) -> Finder:
        ready: dict[Backend, Finder] = {}

        def find(targets: Lifted) -> Pairs:
            backend = min(seconds, key=lambda b: (len(seconds[b]), min(seconds[b], default=0.0)))
            if backend not in ready:
                ready[backend] = backend(queries)
            if len(seconds[backend]) == _TRIALS:
                return ready[backend](targets)
            began = time.perf_counter()
            found = ready[backend](targets)
            seconds[backend].append((time.perf_counter() - began) / len(targets))
            return found

        return find

    return of


def backend_for(search: str, pairs: int) -> Backend:
    """The backend for the search of this name, in which `pairs` pairs will be tested."""
    if search == "auto":
        return quicker() if pairs >= _SAMPLED_FROM else by_blocks
    return {"blocks": by_blocks, "faiss": by_faiss}[search]


def overlapping(
    queries: Lifted, targets: Lifted, place: int | None = None, backend: Backend = by_blocks
) -> Iterator[Pairs]:
    """Yield blocks of pairs (query, target) of lifted balls that may overlap.

    With `place`, the p queries are also the targets [place : place + p]. The targets before them are then passed over,
    and a pair of two queries comes only once.
    """
    find = backend(queries)
    for start in range(place or 0, len(targets), TILE):
        row, column = find(targets[start : start + TILE])
        if start == place:
            once = row < column
            row, column = row[once], column[once]
        yield row, column + start
