"""Splitting a graph into parts of whole connected components. No edge joins two parts, so each is solved by itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64

Part = tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " q"], Int64[np.ndarray, " q"], Int64[np.ndarray, " q"]]
"""Vertices and edges of a part, and the two ends of each edge as positions among these vertices."""


def parts(
    component: Int64[np.ndarray, " n"], i: Int64[np.ndarray, " m"], j: Int64[np.ndarray, " m"], edges: int | None
) -> Iterator[
    tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " q"], Int64[np.ndarray, " q"], Int64[np.ndarray, " q"]]
]:
    """Split a graph into parts of about `edges` edges. A part has one or more whole components. O(n + m log m).

    Parameters
    ----------
    component : (n,) int64
        The component of every vertex, 0, 1, ...
    i, j : (m,) int64
        Ends of the edges.
    edges : int or None
        About how many edges a part has. A larger component is not split. None: one part has all edges.

    Yields
    ------
    vertices : (p,) int64
        The vertices of the part, ascending. Vertices without an edge belong to no part.
    which : (q,) int64
        The edges of the part, ascending.
    i, j : (q,) int64
        The ends of these edges, as positions in `vertices`.
    """
    sizes = np.bincount(component[i], minlength=int(component.max(initial=-1)) + 1)
    part = (np.cumsum(sizes) // (edges or i.size + 1))[component]
    vertices = np.flatnonzero(sizes[component])
    vertices = vertices[np.argsort(part[vertices], kind="stable")]
    which = np.argsort(part[i], kind="stable")
    of_vertex, of_edge = part[vertices], part[i[which]]
    place = np.empty(component.size, dtype=np.int64)
    for name in np.unique(of_vertex):
        v = vertices[slice(*np.searchsorted(of_vertex, [name, name + 1]))]
        e = which[slice(*np.searchsorted(of_edge, [name, name + 1]))]
        place[v] = np.arange(v.size)
        yield v, e, place[i[e]], place[j[e]]
