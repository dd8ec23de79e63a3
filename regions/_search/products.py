"""Which of some lifted balls may overlap which others: one inner product and one comparison for each pair.

Two backends compute the products in float32, NumPy's and FAISS's. The lift has paid for the error of either
(docs/mathematics.md, Eq. M12 and M16), so neither misses a pair. Both take the same tiles and list what they find in
the same order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float32, Int64

from regions._search.embedding import asked
from regions._search.trees import Pairs

TILE = 1024  # balls on each side of one matrix product
_SAMPLED_FROM = 1 << 29  # pairs from which the time that a sample takes, and that of loading FAISS, is nothing
_TRIALS = 3  # tiles each backend is timed on

Lifted = Float32[np.ndarray, "_ v"]
Finder = Callable[[Lifted], Pairs]
"""Given some targets, the pairs (query, target) that may overlap, in order."""
Backend = Callable[[Lifted], Finder]
"""Given some queries, what finds targets for them."""


def by_blocks(queries: Lifted) -> Finder:
    """By NumPy's matrix products: each query compares with a threshold of its own."""
    rows, least = asked(queries)

    def find(targets: Lifted) -> Pairs:
        return np.divmod(np.flatnonzero(rows @ targets.T > least[:, None]), len(targets))

    return find


def by_faiss(queries: Lifted) -> Finder:
    """By FAISS's range search of a flat index for inner products: it computes every product and has one threshold.

    So each query's own threshold is moved into the product, as a coordinate whose partner is 1 (Eq. M16).
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
    """Whichever of both backends takes less time on the first tiles, which they take in turn."""
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
    """The backend that this name stands for where so many pairs are looked at."""
    if search == "auto":
        return quicker() if pairs >= _SAMPLED_FROM else by_blocks
    return {"blocks": by_blocks, "faiss": by_faiss}[search]


def overlapping(
    queries: Lifted, targets: Lifted, place: int | None = None, backend: Backend = by_blocks
) -> Iterator[Pairs]:
    """Blocks of pairs (query, target) of lifted balls that may overlap.

    With `place`, the queries are targets[place : place + p], and each pair among the targets from there on comes once.
    """
    find = backend(queries)
    for start in range(place or 0, len(targets), TILE):
        row, column = find(targets[start : start + TILE])
        if start == place:
            once = row < column
            row, column = row[once], column[once]
        yield row, column + start
