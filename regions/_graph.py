"""The overlap graph: the pairs of conflicting balls B(x_i, R_i) that overlap."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, no_type_check

import numpy as np
from jaxtyping import Float64, Int64, Real
from numpy.typing import ArrayLike

from regions import _validate
from regions._arithmetic.distances import distances_below, raised, relative_error
from regions._arithmetic.loops import compiled
from regions._search.embedding import Frame
from regions._search.pairs import Progress, near_pairs
from regions._search.shards import shard_pairs, shared_out

if TYPE_CHECKING:
    import networkx as nx


MOST_EDGES = 1 << 26
"""By default, at most this many edges are listed: sorting so many takes about 5 GB."""


class TooManyOverlaps(ValueError):  # noqa: N818 (the name says what is wrong)
    """More pairs overlap than may be listed."""


Edges = tuple[Int64[np.ndarray, " _"], Int64[np.ndarray, " _"], Float64[np.ndarray, " _"]]
"""Edges as (i, j, distance), with i < j and distances rounded down."""


@dataclass(frozen=True, eq=False)
class OverlapGraph:
    """The conflicting pairs of balls that overlap at their upper bounds, each once, sorted by (i, j).

    Attributes
    ----------
    R : (n,) float64
        The upper bounds the graph was built for. A point with R = 0 has an empty ball and no edges.
    i, j : (m,) int64
        Ends of the edges, i < j.
    distance : (m,) float64
        |x_i - x_j| rounded DOWN: never above the true distance, and at least (1 - 2 * `distance_error`) times it.
        (Distances below 1e-290, which float64 holds with fewer digits, may be lower.)
    distance_error : float
        Half the relative width of that interval; 8.8e-14 for d = 784.
    points : (n, d) array or None
        The centres, as a reference and not a copy: `restricted` decides close calls with them. None for graphs that do
        not list every overlapping pair, such as those that row generation leaves in `Allocation.graph`.
    """

    R: Float64[np.ndarray, " n"]
    i: Int64[np.ndarray, " m"]
    j: Int64[np.ndarray, " m"]
    distance: Float64[np.ndarray, " m"]
    distance_error: float
    points: Real[np.ndarray, "n d"] | None = None

    @property
    def n(self) -> int:
        """Number of points."""
        return self.R.size

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return self.i.size

    @cached_property
    def distance_upper(self) -> Float64[np.ndarray, " m"]:
        """|x_i - x_j| rounded UP, never below the true distance: for upper bounds."""
        return self.raised_distance(slice(None))

    def raised_distance(self, edges: Int64[np.ndarray, " k"] | slice) -> Float64[np.ndarray, " k"]:
        """Distances of some edges, rounded UP."""
        return raised(self.distance[edges], self.distance_error)

    def caps_above(self) -> Float64[np.ndarray, " n"]:
        """min(R_i, distance to the nearest neighbour) of every point, rounded UP."""
        return np.asarray(np.minimum(self.R, raised(self.nearest[1], self.distance_error)))

    @cached_property
    def degree(self) -> Int64[np.ndarray, " n"]:
        """Number of edges at every point."""
        return np.bincount(self.i, minlength=self.n) + np.bincount(self.j, minlength=self.n)

    @cached_property
    def components(self) -> Int64[np.ndarray, " n"]:
        """Connected component of every point, numbered from 0."""
        return connected_components(self.n, self.i, self.j)

    @property
    def n_components(self) -> int:
        """Number of connected components, isolated points included."""
        return int(self.components.max(initial=-1)) + 1

    @cached_property
    def adjacency(self) -> tuple[Int64[np.ndarray, " rows"], Int64[np.ndarray, " ends"], Float64[np.ndarray, " ends"]]:
        """Compressed rows (start, neighbour, distance): point k has the neighbours neighbour[start[k]:start[k + 1]]."""
        start, neighbour = np.zeros(self.n + 1, dtype=np.int64), np.empty(2 * self.n_edges, dtype=np.int64)
        distance = np.empty(2 * self.n_edges)
        _fill_adjacency(self.i, self.j, self.distance, start, neighbour, distance)
        return start, neighbour, distance

    @cached_property
    def nearest(self) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Nearest neighbour of every point, and its distance, rounded down; -1 and infinity for isolated points."""
        return self.nearest_by(self.distance)

    def nearest_by(
        self, distance: Float64[np.ndarray, " m"]
    ) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
        """Nearest neighbour of every point, and its distance, if these are the lengths of the edges."""
        neighbour, least = np.full(self.n, -1), np.full(self.n, np.inf)
        _find_nearest(self.i, self.j, distance, neighbour, least)
        return neighbour, least

    def restricted(self, R: ArrayLike, *, groups: Any = None) -> OverlapGraph:
        """Build the overlap graph for smaller radii, for more groups, or for both, from this graph's edges alone.

        Parameters
        ----------
        R : array-like, shape (n,)
            Upper bounds of the radii, finite, >= 0 and at most this graph's `R`.
        groups : array-like, shape (n,), or a list or tuple of such arrays, default=None
            Pairs that share a label in ANY of the arrays may overlap, and so may pairs that this graph left out.

        Returns
        -------
        OverlapGraph
            The graph, bit for bit, that `overlap_graph` finds for these points and R, and all groups together.

        Raises
        ------
        ValueError
            If a radius is larger than this graph's, or if this graph does not list every overlapping pair.

        Notes
        -----
        O(n + m). Coordinates are read only for pairs whose distance equals R_i + R_j up to rounding.
        """
        bounds, labels = _validate.as_radii(R, self.n), _validate.as_groups(groups, self.n)
        larger = np.flatnonzero(bounds > self.R)
        if larger.size:
            k = larger[0]
            raise ValueError(f"R[{k}] = {bounds[k]} exceeds this graph's R[{k}] = {self.R[k]}: call overlap_graph anew")
        if self.points is None:
            raise ValueError("this graph does not list every overlapping pair: call overlap_graph first")
        a, b = bounds[self.i], bounds[self.j]
        reach = a + b  # the exact sum lies between the two floats next to this one
        keep = (a > 0) & (b > 0) & (self.distance < np.nextafter(reach, np.inf))
        for label in labels:
            keep &= label[self.i] != label[self.j]
        unsure = np.flatnonzero(keep & (self.distance_upper > np.nextafter(reach, 0.0)))
        i, j = self.i[unsure], self.j[unsure]
        keep[unsure] = distances_below(self.points, self.points, i, j, a[unsure], b[unsure])[0]
        return replace(self, R=bounds, i=self.i[keep], j=self.j[keep], distance=self.distance[keep])

    def to_networkx(self) -> nx.Graph[Any]:
        """Build a `networkx.Graph` on 0 .. n-1 with node attribute `R` and edge attribute `distance`."""
        import networkx as nx

        graph: nx.Graph[Any] = nx.Graph()
        graph.add_nodes_from((k, {"R": R}) for k, R in enumerate(self.R.tolist()))
        graph.add_weighted_edges_from(
            zip(self.i.tolist(), self.j.tolist(), self.distance.tolist(), strict=True), weight="distance"
        )
        return graph

    def __repr__(self) -> str:
        return f"OverlapGraph(n={self.n}, edges={self.n_edges})"


def connected_components(n: int, i: Int64[np.ndarray, " m"], j: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " n"]:
    """Connected component of every vertex of a graph, numbered from 0."""
    from scipy.sparse import csgraph, csr_array

    matrix = csr_array((np.ones(i.size, dtype=np.int8), (i, j)), shape=(n, n))
    return np.asarray(csgraph.connected_components(matrix, directed=False)[1], dtype=np.int64)


def overlap_graph(
    points: ArrayLike,
    R: ArrayLike,
    *,
    groups: Any = None,
    search: str = "auto",
    parallel: int | str | None = None,
    progress: Progress | None = None,
    most: int = MOST_EDGES,
) -> OverlapGraph:
    """List every conflicting pair of points with |x_i - x_j| < R_i + R_j (paper, appendix C.2).

    Parameters
    ----------
    points : array-like, shape (n, d) or (n, ...)
        Centres; images are flattened. Any real dtype, also torch CPU tensors; memory maps as in `allocate`.
    R : array-like, shape (n,)
        Upper bounds of the radii, finite and >= 0. A point with R = 0 constrains nobody and has no edges.
    groups : array-like, shape (n,), or a list or tuple of such arrays, default=None
        Pairs that share a label in ANY of the arrays may overlap and are not edges. None: every pair conflicts.
    search : {"auto", "faiss", "blocks", "tree"}, default="auto"
        What proposes the pairs, which are then decided exactly. The graph is the same, bit for bit; times differ.
        "faiss": FAISS's range search of a flat inner-product index. "blocks": NumPy's matrix products. "tree": SciPy's
        k-d trees, slow in many dimensions. "auto": trees in up to ten dimensions; in more, blocks, or in a long search
        whichever of blocks and FAISS is quicker on the first tiles. Names of FAISS indexes that may miss a pair (IVF,
        HNSW, PQ, float16) are refused.
    parallel : int or str, default=None
        Share the search among joblib's workers, as in `allocate`. The graph is the same, bit for bit.
    progress : callable, default=None
        Called as progress(stage, done, total) from time to time.
    most : int, default=2**26
        Largest number of edges to list; sorting the default number takes about 5 GB.

    Returns
    -------
    OverlapGraph

    Raises
    ------
    ValueError
        If an argument is not as described; the message names the value.
    TooManyOverlaps
        A `ValueError`, as soon as more than `most` edges have been found.

    Notes
    -----
    *Guarantee.* No pair is missed, and none is listed wrongly. Float32 inner products, or k-d trees, propose
    candidates, with thresholds raised by a proven bound on their error. Float64 distances then decide, and exact
    arithmetic decides where their error bound leaves the decision open (docs/mathematics.md, Eq. M10-M12 and M16).
    Balls are open: touching balls do not overlap.

    *Cost.* At most about n^2 d / 2 multiplications. Memory for the result and for blocks: at most 256 MiB of mapped
    coordinates are kept, and FAISS is asked about a million pairs at a time. Trees hold the points as float64.

    Examples
    --------
    >>> overlap_graph([[0.0], [1.0], [5.0]], [0.75, 0.5, 1.0])
    OverlapGraph(n=3, edges=1)
    """
    x = _validate.as_points(points)
    bounds = _validate.as_radii(R, len(x))
    labels = _validate.as_groups(groups, len(x))
    limit = _validate.as_count(most, "most")
    workers = _validate.as_parallel(parallel)
    return build_graph(x, bounds, labels, progress, workers, _validate.as_search(search), limit)


def build_graph(
    x: Real[np.ndarray, "n d"],
    bounds: Float64[np.ndarray, " n"],
    labels: tuple[Int64[np.ndarray, " n"], ...],
    progress: Progress | None = None,
    parallel: int | str | None = None,
    search: str = "auto",
    most: int = MOST_EDGES,
) -> OverlapGraph:
    """`overlap_graph` of validated arguments."""
    if any(label.size and (label == label[0]).all() for label in labels):  # no two conflict: there is nothing to search
        return replace(from_blocks(bounds, relative_error(x.shape[1]), []), points=x)
    blocks = overlaps(x, bounds, labels, progress, parallel=parallel, search=search)
    return replace(from_blocks(bounds, relative_error(x.shape[1]), _at_most(blocks, most)), points=x)


def _at_most(blocks: Iterable[Edges], most: int) -> Iterator[Edges]:
    count = 0
    for block in blocks:
        count += block[0].size
        if count > most:
            raise TooManyOverlaps(
                f"more than {most:,} pairs of balls overlap, too many to list: lower R, or call regions.allocate or "
                "regions.overlap_degrees, which list no pairs"
            )
        yield block


def overlaps(
    x: Real[np.ndarray, "n d"],
    radii: Float64[np.ndarray, " n"],
    labels: tuple[Int64[np.ndarray, " n"], ...],
    progress: Progress | None = None,
    centres: Int64[np.ndarray, " e"] | None = None,
    known: OverlapGraph | None = None,
    parallel: int | str | None = None,
    search: str = "auto",
) -> Iterator[Edges]:
    """Yield blocks of all conflicting pairs with |x_i - x_j| < r_i + r_j, decided exactly.

    Points of radius 0 take part only if `centres` lists them; they pair with the balls that contain them. Pairs that
    are edges of `known` are left out.
    """
    listed = np.empty(0, dtype=np.int64) if known is None else known.i * known.n + known.j
    if parallel is None:
        for a, b in near_pairs(x, radii, progress, centres, search):
            yield _edges(x, radii, labels, listed, a, b)
        return
    extra = np.empty(0, dtype=np.int64) if centres is None else centres
    yield from shared_out((_shard_edges, (listed, *labels)), x, radii, extra, parallel, progress, search)


def _edges(
    x: Real[np.ndarray, "n d"],
    radii: Float64[np.ndarray, " n"],
    labels: tuple[Int64[np.ndarray, " n"], ...],
    listed: Int64[np.ndarray, " l"],
    a: Int64[np.ndarray, " k"],
    b: Int64[np.ndarray, " k"],
) -> Edges:
    """The pairs (a, b) that conflict, overlap, and are not in `listed`, the sorted numbers i * n + j of known pairs."""
    conflict = np.ones(a.size, dtype=bool)
    for label in labels:
        conflict &= label[a] != label[b]
    i, j = np.minimum(a, b)[conflict], np.maximum(a, b)[conflict]
    if listed.size:
        key = i * len(x) + j
        new = listed[np.minimum(np.searchsorted(listed, key), listed.size - 1)] != key
        i, j = i[new], j[new]
    closer, distance = distances_below(x, x, i, j, radii[i], radii[j])
    return i[closer], j[closer], distance[closer]


def _shard_edges(
    x: Real[np.ndarray, "n d"],
    radii: Float64[np.ndarray, " n"],
    frame: Frame | None,
    rows: Int64[np.ndarray, " p"],
    columns: Int64[np.ndarray, " q"] | None,
    search: str,
    listed: Int64[np.ndarray, " l"],
    *labels: Int64[np.ndarray, " n"],
) -> Edges:
    """The edges of one shard of the search. Workers call this."""
    found = [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0))]
    found += [_edges(x, radii, labels, listed, i, j) for i, j in shard_pairs(x, radii, frame, rows, columns, search)]
    i, j, distance = (np.concatenate(part) for part in zip(*found, strict=True))
    return i, j, distance


def from_blocks(bounds: Float64[np.ndarray, " n"], distance_error: float, blocks: Iterable[Edges]) -> OverlapGraph:
    """The graph whose edges are those in the blocks, which must all be different. It sorts them."""
    found = [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0)), *blocks]
    i, j, distance = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(i * bounds.size + j)
    return OverlapGraph(bounds, i[order], j[order], distance[order], distance_error)


@compiled
@no_type_check
def _fill_adjacency(i, j, distance, start, neighbour, length):
    """Fill compressed rows with both directions of every edge.

    In the row of a point, edges in which it is the first end precede those in which it is the second.

    start : (n + 1,) zeros on entry
    """
    for e in range(i.size):
        start[i[e] + 1] += 1
        start[j[e] + 1] += 1
    for k in range(1, start.size):
        start[k] += start[k - 1]
    following = start[:-1].copy()
    for ends, others in ((i, j), (j, i)):
        for e in range(i.size):
            k = following[ends[e]]
            neighbour[k], length[k] = others[e], distance[e]
            following[ends[e]] = k + 1


@compiled
@no_type_check
def _find_nearest(i, j, distance, neighbour, least):
    """Lower `least` to the distance of every point's nearest neighbour, and set `neighbour` to the first such one."""
    for e in range(i.size):
        a, b = i[e], j[e]
        if distance[e] < least[a]:
            least[a], neighbour[a] = distance[e], b
        if distance[e] < least[b]:
            least[b], neighbour[b] = distance[e], a
